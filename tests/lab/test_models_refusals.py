"""What ``models.pulled`` refuses, and in which words: space, registries, names, servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, fetched, push
from tests.lab.untouched import untouched

SIZE = 1_500_000
SMALL = "/srv/small"
#: Bytes of the disk that is too small for some.
DISK = 12_000_000


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
def runs(tmp_path: Path, server: ModelServer, model_registry: ModelRegistry) -> Runs:
    model_registry.clear()
    return Runs(tmp_path, [server.host])


@pytest.fixture(scope="module")
def present(
    server: ModelServer, model_registry: ModelRegistry, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A model that is there and has answered, pulled by the server itself."""
    model = push(model_registry, "team/present:1b", SIZE, seed=1)
    server.pull(model)
    Runs(tmp_path_factory.mktemp("present"), [server.host]).converge([model.name])
    return model.name


# Space


def test_what_does_not_fit_is_refused_before_a_byte(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry, present: str
) -> None:
    """The refusal says how much is missing, and which models could be removed."""
    big = push(model_registry, "team/big:1b", 20_000_000, seed=2)
    free = int(server.host.sh(f"df -B1 --output=avail {SMALL}").split()[-1])
    lacking = server.lacks(big)
    model_registry.clear_log()
    before, moment = server.files(), server.host.now()
    result = runs.pull([big.name])
    assert result.run.rc == 1
    assert result.outcomes == {"refused"}
    ((about, text),) = result.reasons
    assert about == "space"
    assert f"{(lacking - free) / 2**20:.1f}MiB are missing" in text
    assert present in text
    assert fetched(model_registry, big) == 0
    assert server.asked(moment) == []
    assert server.files() == before


def test_what_is_to_stay_free_is_counted(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    fits = push(model_registry, "team/fits:1b", SIZE, seed=3)
    moment = server.host.now()
    result = runs.pull([fits.name], minimum_free=DISK - SIZE)
    assert result.outcomes == {"refused"}
    assert server.asked(moment) == []
    assert fetched(model_registry, fits) == 0


def test_layers_that_are_there_need_no_space(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """A second name for what fits only once."""
    first = push(model_registry, "team/once:1b", 7_000_000, seed=4)
    second = push(model_registry, "team/twice:1b", 7_000_000, seed=4)
    server.pull(first)
    model_registry.clear_log()
    result = runs.converge([first.name, second.name])
    assert result.steps == [("pull", second.name), ("ask", first.name)]
    assert server.answers(second.name)
    assert result.fetched == model_registry.sent() == 0
    server.remove(first.name, second.name)


def test_a_disk_that_fills_meanwhile_is_told_and_left_clean(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/filling:1b", 6_000_000, seed=5)
    model_registry.rate(500_000)
    with runs.start([model.name], attempts=2) as run:
        server.host.wait_for(f"ls {server.root}/blobs | grep -q partial", 120)
        server.host.sh(f"head -c {DISK} /dev/zero >{SMALL}/filler", check=False)
        done = run.wait()
    model_registry.clear()
    assert done.rc == 1
    assert "no space left on device" in done.out
    assert server.partials() == []
    server.host.sh(f"rm {SMALL}/filler")
    runs.converge([model.name])
    assert server.answers(model.name)
    server.remove(model.name)


# Registries


def test_a_registry_out_of_reach(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry, present: str
) -> None:
    """What is present is well, with a note; what is absent names the layer that failed."""
    refused = push(model_registry, "team/refused:1b", SIZE, seed=6).name
    model_registry.fault("team/refused:1b", "status", status=503, on="manifest", times=None)
    address = model_registry.http.partition(":")[0]
    absent = {
        "nowhere.invalid:5000/team/a:1b": "its name is not found): the name nowhere.invalid does",
        f"{address}:1/team/b:1b": f"no connection): cannot connect to {address}:1: ",
        refused: f"HTTP): {model_registry.http} answers HTTP 503",
    }
    before, moment = server.files(), server.host.now()
    result = runs.pull([present, *absent])
    assert result.run.rc == 1
    for name, text in absent.items():
        assert f"cannot ask {name.partition('/')[0]} ({text}" in result.reason(name)
    assert {about for about, _ in result.reasons} == set(absent)
    assert server.files() == before
    assert server.asked(moment) == []


def test_a_404_of_what_is_no_registry_is_not_taken_for_a_missing_model(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """A web server's page, a program's own JSON, nothing; and a registry's own beside them."""
    bodies = ("<html><h1>Not Found</h1></html>", '{"error": "no such page"}', "")
    names = []
    for number, body in enumerate(bodies):
        names.append(push(model_registry, f"team/page-{number}:1b", SIZE, seed=15).name)
        model_registry.fault(
            f"team/page-{number}:1b", "status", status=404, body=body, on="manifest", times=None
        )
    absent = f"{model_registry.http}/team/never-pushed:1b"
    moment = server.host.now()
    result = runs.pull([*names, absent])
    assert result.outcomes == {"refused"}
    for name in names:
        assert "answers HTTP 404" in result.reason(name)
        assert "not as a registry does" in result.reason(name)
        assert "has no such model" not in result.reason(name)
        assert "something else answers there" in result.reason(name)
    assert "has no such model" in result.reason(absent)
    assert server.asked(moment) == []


def test_tls_that_cannot_be_trusted_is_named_so(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    names = {
        # Signed by nobody that anybody knows; and not TLS at all.
        f"{model_registry.https}/team/present:1b": "certificate",
        f"{model_registry.http}/team/present-too:1b": "tls",
    }
    result = runs.pull(list(names), insecure=False)
    for name, word in names.items():
        reason = result.reason(name)
        assert f"cannot ask {name.partition('/')[0]} (TLS)" in reason, (name, reason)
        assert word.lower() in reason.lower(), (name, reason)


def test_a_certificate_that_the_server_trusts_is_trusted(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """It is the server that pulls: what it trusts is what counts."""
    trusting = ModelServer(
        server.host,
        "/srv/trusting:/root/.ollama",
        project="trusting",
        environment={"SSL_CERT_FILE": "/root/.ollama/ca.pem"},
    )
    server.host.put("/srv/trusting/ca.pem", model_registry.ca)
    trusting.up()
    pushed = model_registry.push("team/encrypted:1b", SIZE, 10)
    name = f"{model_registry.https}/{pushed.name}"
    result = runs.converge([name], project="trusting", insecure=False)
    assert result.did("pull") == [name]
    assert trusting.answers(name)
    trusting.compose("down")


def test_a_registry_that_asks_who_is_there(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """A token that anybody gets is fetched; where none is to be had, the server may have a key."""
    opens = push(model_registry, "team/opens:1b", SIZE, seed=8)
    keyed = push(model_registry, "team/keyed:1b", SIZE, seed=13)
    closed = push(model_registry, "team/closed:1b", SIZE, seed=9)
    model_registry.private("team/opens", "token")
    model_registry.private("team/closed", "denied")
    # The host is sent away, when it looks and when it looks again to act; the server is not.
    model_registry.fault("team/keyed:1b", "status", status=401, on="manifest", times=2)
    lacking = server.lacks(opens, keyed)
    model_registry.clear_log()
    result = runs.pull([opens.name, keyed.name, closed.name])
    asked = [request for request in model_registry.log() if request.on == "manifest"]
    assert [request.status for request in asked if request.model == "team/keyed:1b"] == [
        401,
        401,
        200,
    ]
    assert "does not accept the server's key" in result.reason(closed.name)
    assert [about for about, _ in result.reasons] == [closed.name]
    assert sorted(result.did("pull")) == sorted([opens.name, keyed.name])
    assert server.answers(opens.name, keyed.name)
    assert result.fetched == model_registry.sent() == lacking
    server.remove(opens.name, keyed.name)


@pytest.mark.parametrize("gone", ["stopped", "silent"])
def test_present_models_are_well_without_their_registry(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry, present: str, gone: str
) -> None:
    """One that is silent is waited for once, whatever it is asked for."""
    absent = [f"{model_registry.http}/team/never-{n}:1b" for n in range(2)]
    # Others may have restarted the server since it answered.
    runs.converge([present])
    before, moment = server.files(), server.host.now()
    leave, come = (
        (model_registry.stop, model_registry.start)
        if gone == "stopped"
        else (model_registry.pause, model_registry.unpause)
    )
    leave()
    try:
        result = runs.pull([absent[0], present, absent[1]])
    finally:
        come()
    (note,) = result.about("findings", present)
    assert "cannot tell whether it is current" in note["cause"]
    assert model_registry.http in note["cause"]
    assert result.run.rc == 1
    for name in absent:
        assert f"cannot ask {model_registry.http}" in result.reason(name)
    assert server.files() == before
    assert server.asked(moment) == []
    assert result.run.seconds < 30


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
    """Each is reported, and none of it reaches a host."""
    mark = server.host.mark()
    with runs.start(["fine", *BAD_NAMES]) as running:
        done = running.wait()
    assert done.rc == 1
    assert "Traceback" not in done.out
    for name in BAD_NAMES:
        assert repr(name) in done.out, name
    assert server.host.sessions_since(mark) == []
    assert not server.host.exists("/tmp/pwned")


def test_a_model_that_does_not_exist(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry, present: str
) -> None:
    """Suggests names that are like it, and only such as exist."""
    other = push(model_registry, "team/presents:3b", SIZE, seed=12).name
    names = {
        present.replace("present:1b", "presnt:1b"): present,
        present.replace(":1b", ":2b"): present,
        other.replace("presents:3b", "presents:latest"): other,
        f"{model_registry.http}/nobody/unheard-of:7b": "",
    }
    moment = server.host.now()
    result = runs.pull(list(names))
    assert result.run.rc == 1
    exist = {*server.tags(), other}
    for name, nearest in names.items():
        reason = result.reason(name)
        meant = re.findall(r"did you mean (.*)\?", reason)
        offered = meant[0].split(" or ") if meant else []
        assert nearest in offered or not nearest, reason
        assert set(offered) <= exist, reason
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
    "http://127.0.0.1:18001": "what answers there is not Ollama",
    "http://127.0.0.1:18002": "what answers there asks for authentication",
    "http://127.0.0.1:18003": "the model server does not answer: nothing listens there",
    "http://nowhere.invalid:11434": "does not answer: the name nowhere.invalid does not resolve",
}
SERVICES = {
    "service llm": {"service": "llm"},
    "service ollama": {"project": "other"},
}


@pytest.mark.usefixtures("pages")
def test_servers_that_are_none(runs: Runs, server: ModelServer, present: str) -> None:
    """One clear error each, soon; and none of them is spoken to as if it were one."""
    calls: list[dict[str, object]] = [
        *({"endpoint": endpoint, "project": None} for endpoint in ENDPOINTS),
        *SERVICES.values(),
    ]
    with untouched(server.host):
        result = runs.each([{"models": [present], **call} for call in calls])
    assert result.run.rc == 1
    reasons = dict(result.reasons)
    assert [about for about, _ in result.reasons] == [*ENDPOINTS, *SERVICES]
    for endpoint, words in ENDPOINTS.items():
        assert words in reasons[endpoint]
    for service in SERVICES:
        assert "there is no such model server" in reasons[service]
    assert result.run.seconds < 60


def test_a_server_that_was_stopped_by_hand_stays_so(
    runs: Runs, server: ModelServer, present: str
) -> None:
    """It is not waited for, as one that is coming up is."""
    server.compose("stop", "-t", "1")
    try:
        result = runs.pull([present])
        state = server.host.docker("inspect", "-f", "{{.State.Status}}", server.container)
    finally:
        server.compose("start")
    assert result.run.rc == 1
    assert result.outcomes == {"refused"}
    assert "the model server does not run" in result.reason("service ollama")
    assert state == "exited"
    assert result.run.seconds < 30


def test_a_server_that_is_starting_is_waited_for(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/early:1b", SIZE, seed=7)
    server.compose("restart", "-t", "0")
    runs.converge([model.name])
    assert server.answers(model.name)
    server.remove(model.name)
