"""What ``models.pulled`` refuses, and in which words: space, registries, names, servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import model_registry
from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, fetched, push

SIZE = 1_500_000
SMALL = "/srv/small"
#: Bytes of the disk that is too small for some.
DISK = 12_000_000


@pytest.fixture(scope="module")
def registry(lab: Lab) -> Iterator[ModelRegistry]:
    with model_registry.lease() as held:
        yield held


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[ModelServer]:
    """A server whose models lie in a directory of the host, on a disk that is small."""
    host = lab.take(1)[0]
    host.sh(f"mkdir -p {SMALL} && mount -t tmpfs -o size={DISK} tmpfs {SMALL}")
    server = ModelServer(host, f"{SMALL}:/root/.ollama")
    server.up()
    yield server
    server.compose("down")
    host.sh(f"umount {SMALL}")


@pytest.fixture
def runs(tmp_path: Path, server: ModelServer, registry: ModelRegistry) -> Runs:
    registry.clear()
    return Runs(tmp_path, [server.host], insecure=True)


@pytest.fixture(scope="module")
def present(server: ModelServer, registry: ModelRegistry) -> str:
    """A model that is there, pulled by the server itself."""
    name = push(registry, "team/present:1b", size=SIZE, seed=1).name
    status, said = server.ask(
        "POST", "/api/pull", {"model": name, "insecure": True, "stream": False}
    )
    assert (status, said["status"]) == (200, "success")
    return name


# Space


def test_what_does_not_fit_is_refused_before_a_byte(
    runs: Runs, server: ModelServer, registry: ModelRegistry, present: str
) -> None:
    """Told how much is missing, and which models that nobody wants could go."""
    big = push(registry, "team/big:1b", size=20_000_000, seed=2)
    free = int(server.host.sh(f"df -B1 --output=avail {SMALL}").split()[-1])
    registry.forget()
    before, moment = server.files(), server.host.now()
    told = runs.pull([big.name])
    assert told.run.rc == 1
    assert told.outcomes == {"refused"}
    (reason,) = told.reasons
    missing = big.size - free
    shown = {f"{missing / 1e6:.1f} MB", f"{missing / 2**20:.1f} MiB", f"{missing / 2**20:.1f}MiB"}
    assert any(one in reason for one in shown), (shown, reason)
    assert present in reason
    assert fetched(registry, big) == 0
    assert server.asked(moment) == []
    assert server.files() == before


def test_what_is_to_stay_free_is_counted(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    fits = push(registry, "team/fits:1b", size=SIZE, seed=3)
    moment = server.host.now()
    told = runs.pull([fits.name], minimum_free=DISK - SIZE)
    assert told.outcomes == {"refused"}
    assert server.asked(moment) == []
    assert fetched(registry, fits) == 0


def test_layers_that_are_there_need_no_space(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    """A second name for what fits only once."""
    first = push(registry, "team/once:1b", size=7_000_000, seed=4)
    second = push(registry, "team/twice:1b", size=7_000_000, seed=4)
    runs.well([first.name])
    registry.forget()
    runs.well([first.name, second.name])
    assert server.answers(second.name)
    assert fetched(registry, second) < 10_000
    server.forget(first.name, second.name)


def test_a_disk_that_fills_meanwhile_is_told_and_left_clean(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    model = push(registry, "team/filling:1b", size=6_000_000, seed=5)
    registry.rate(2_000_000)
    with runs.start([model.name], attempts=2) as run:
        server.host.wait_for(f"ls {server.root}/blobs | grep -q partial", 30)
        server.host.sh(f"head -c {DISK} /dev/zero >{SMALL}/filler", check=False)
        done = run.wait()
    registry.clear()
    assert done.rc == 1
    assert "no space left on device" in done.out
    assert server.partials() == []
    server.host.sh(f"rm {SMALL}/filler")
    runs.well([model.name])
    assert server.answers(model.name)
    server.forget(model.name)


# Registries


def test_a_registry_out_of_reach(
    runs: Runs, server: ModelServer, registry: ModelRegistry, present: str
) -> None:
    """What is present is well, with a note; what is absent names the layer that failed."""
    refused = push(registry, "team/refused:1b", size=SIZE, seed=6).name
    registry.fault("team/refused:1b", "status", status=503, on="manifest", times=None)
    absent = {
        "nowhere.invalid:5000/team/a:1b": ("name", "nowhere.invalid"),
        f"{registry.http.partition(':')[0]}:1/team/b:1b": ("no connection",),
        refused: ("HTTP", "503"),
    }
    before, moment = server.files(), server.host.now()
    told = runs.pull([present, *absent])
    assert told.run.rc == 1
    for name, words in absent.items():
        reason = told.reason(name)
        for word in words:
            assert word.lower() in reason.lower(), (name, reason)
    assert not any(present in reason for reason in told.reasons)
    assert server.files() == before
    assert server.asked(moment) == []


def test_tls_that_cannot_be_trusted_is_named_so(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    names = {
        # Signed by nobody that anybody knows; and not TLS at all.
        f"{registry.https}/team/present:1b": "certificate",
        f"{registry.http}/team/present-too:1b": "tls",
    }
    told = runs.pull(list(names), insecure=False)
    for name, word in names.items():
        reason = told.reason(name)
        assert "TLS" in reason, (name, reason)
        assert word.lower() in reason.lower(), (name, reason)


def test_a_certificate_that_the_server_trusts_is_trusted(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    """It is the server that pulls: what it trusts is what counts."""
    trusting = ModelServer(
        server.host,
        "/srv/trusting:/root/.ollama",
        project="trusting",
        environment={"SSL_CERT_FILE": "/root/.ollama/ca.pem"},
    )
    server.host.put("/srv/trusting/ca.pem", registry.ca)
    trusting.up()
    pushed = registry.push("team/encrypted:1b", SIZE, 10)
    name = f"{registry.https}/{pushed.name}"
    told = runs.well([name], project="trusting", insecure=False)
    assert told.did("pull") == [name]
    assert trusting.answers(name)
    trusting.compose("down")


def test_a_registry_that_asks_who_is_there(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    """A token that anybody gets is fetched; where none opens it, that is the answer."""
    opens = push(registry, "team/opens:1b", size=SIZE, seed=8).name
    closed = push(registry, "team/closed:1b", size=SIZE, seed=9).name
    registry.private("team/opens", "token")
    registry.private("team/closed", "denied")
    told = runs.pull([opens, closed])
    assert "401" in told.reason(closed) or "denied" in told.reason(closed)
    assert not any(opens in reason for reason in told.reasons)
    assert server.answers(opens)
    server.forget(opens)


@pytest.mark.parametrize("gone", ["stopped", "silent"])
def test_present_models_are_well_without_their_registry(
    runs: Runs, server: ModelServer, registry: ModelRegistry, present: str, gone: str
) -> None:
    absent = f"{registry.http}/team/never:1b"
    before, moment = server.files(), server.host.now()
    leave, come = (
        (registry.stop, registry.start) if gone == "stopped" else (registry.pause, registry.unpause)
    )
    leave()
    try:
        told = runs.pull([present, absent])
    finally:
        come()
    (note,) = told.about("findings", present)
    assert registry.http in note["cause"]
    assert told.run.rc == 1
    assert told.reason(absent)
    assert server.files() == before
    assert server.asked(moment) == []


# Names


BAD_NAMES = [
    "",
    "team//x",
    "-x",
    "a b",
    "x:",
    "http://registry:5000/team/x",
    "a/b/c/d",
    "registry:5000/x",
    "x@sha256:00",
    "../../etc/passwd",
    "$(touch /tmp/pwned)",
    "é",
    7,
]


def test_names_that_are_none(runs: Runs, server: ModelServer) -> None:
    """Each is told, and none of it reaches a host."""
    mark = server.host.mark()
    done = runs.start(["fine", *BAD_NAMES], "--dry")
    with done as running:
        said = running.wait()
    assert said.rc == 1
    assert "Traceback" not in said.out
    for name in BAD_NAMES:
        assert repr(name) in said.out, name
    assert server.host.sessions_since(mark) == []
    assert not server.host.exists("/tmp/pwned")


def test_a_model_that_does_not_exist(
    runs: Runs, server: ModelServer, registry: ModelRegistry, present: str
) -> None:
    names = {
        present.replace("present:1b", "presnt:1b"): present,
        present.replace(":1b", ":2b"): present,
        f"{registry.http}/nobody/unheard-of:7b": "",
    }
    moment = server.host.now()
    told = runs.pull(list(names))
    assert told.run.rc == 1
    for name, nearest in names.items():
        reason = told.reason(name)
        assert nearest in reason.replace(name, ""), reason
    # Final: nobody asks again for what is not there.
    assert server.asked(moment) == []


# Servers


SITE = """#!/bin/sh
mkdir -p /www/plain /www/locked
echo hello >/www/plain/index.html
printf '/:me:secret\\n' >/www/httpd.conf
busybox httpd -p 127.0.0.1:18001 -h /www/plain
busybox httpd -p 127.0.0.1:18002 -h /www/locked -c /www/httpd.conf
exec sleep infinity
"""


@pytest.fixture
def pages(server: ModelServer) -> Iterator[None]:
    """Two web servers that are no model servers; one of them asks who is there."""
    server.host.docker(
        "run", "-d", "--name", "pages", "--network", "host", "lab/box:1", "sh", "-c", SITE
    )
    server.host.wait_for("curl -s http://127.0.0.1:18002/ >/dev/null")
    yield
    server.host.docker("rm", "-f", "pages")


ENDPOINTS = {
    "http://127.0.0.1:18001": ("not", "Ollama"),
    "http://127.0.0.1:18002": ("401",),
    "http://127.0.0.1:18003": ("nothing listens",),
    "http://nowhere.invalid:11434": ("nowhere.invalid",),
}


@pytest.mark.usefixtures("pages")
def test_endpoints_that_are_no_model_server(runs: Runs, present: str) -> None:
    for endpoint, words in ENDPOINTS.items():
        told = runs.pull([present], endpoint=endpoint, project=None)
        assert told.run.rc == 1
        assert len(told.reasons) == 1, told.reasons
        for word in words:
            assert word in told.reasons[0], (endpoint, told.reasons)


def test_a_service_that_is_not_there(runs: Runs, server: ModelServer, present: str) -> None:
    for policy, word in (({"service": "llm"}, "llm"), ({"project": "other"}, "other")):
        told = runs.pull([present], **policy)
        assert told.run.rc == 1
        assert len(told.reasons) == 1, told.reasons
        assert word in told.reasons[0]


def test_a_server_that_is_starting_is_waited_for(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    model = push(registry, "team/early:1b", size=SIZE, seed=7)
    server.compose("restart", "-t", "0")
    runs.well([model.name])
    assert server.answers(model.name)
    server.forget(model.name)
