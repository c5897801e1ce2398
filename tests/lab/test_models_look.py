"""What is read of a model server and of registries, on a real host: held against docker there."""

from __future__ import annotations

import shlex
import ssl
from collections.abc import Iterator
from typing import Literal

import pytest
from pyinfra.api.host import Host

from stackmend import connection
from stackmend.models.facts import ModelStore
from stackmend.models.registry import ask
from stackmend.models.spec import ModelsPolicy, Name
from stackmend.models.state import RegistryAnswer, StoreState
from tests import connected
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.model_registry import ModelRegistry, Pushed
from tests.lab.model_unit import ModelUnit

MODELS = "/root/.ollama/models"
VOLUME = "/var/lib/docker/volumes/models/_data/models"

#: The program of a server in a container that has no network of its own, on port 11889.
SERVE = (
    "from pathlib import Path; from server.app import serve; "
    "serve('127.0.0.1', 11889, Path('/root/.ollama/models'))"
)


@pytest.fixture(scope="module")
def managed(lab: Lab) -> Iterator[LabHost]:
    (host,) = lab.take(1)
    yield host
    host.reset()


@pytest.fixture
def host(managed: LabHost) -> Iterator[LabHost]:
    """One that runs the model server as a container, with a volume."""
    managed.sh(
        "docker rm -f ollama >/dev/null 2>&1; docker volume rm -f models >/dev/null; "
        "docker run -d --name ollama -v models:/root/.ollama lab/model:1 >/dev/null; "
        "for i in $(seq 200); do docker exec ollama ollama ps && break; sleep 0.2; done >/dev/null",
        timeout=60,
    )
    yield managed
    managed.sh("docker rm -f ollama; docker volume rm -f models", check=False)


@pytest.fixture
def pushed(model_registry: ModelRegistry) -> Pushed:
    """The only model of a registry where all is well."""
    model_registry.clear()
    return model_registry.push("team/tiny:1", size=600_000)


def read_store(to: Host, **arguments: object) -> StoreState:
    connection.invalidate(to)
    state = connection.read(to, ModelStore, **arguments)
    assert isinstance(state, StoreState), state
    return state


def test_a_server_in_a_container_is_read_whole_over_one_channel(host: LabHost) -> None:
    with connected.lab(host) as to:
        before = connection.count_channels(to)
        state = read_store(to)
        assert connection.count_channels(to) - before == 1
    assert state.server.status == "up"
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    assert state.server.address == host.sh(f"docker inspect -f '{address}' ollama").strip()
    assert state.server.place is not None
    assert (state.server.place.path, state.server.place.container) == (VOLUME, "")
    listed = host.sh("docker exec ollama ollama list").splitlines()[1:]
    shown = {(str(model.name), model.digest[:12]) for model in state.models}
    assert shown == {tuple(line.split()[:2]) for line in listed}
    digests = host.sh(f"cd {VOLUME}/blobs && sha256sum sha256-*").splitlines()
    assert state.blobs is not None
    assert set(state.blobs) == {f"sha256:{line.split()[0]}" for line in digests}


def test_without_root_the_disk_is_read_inside_the_container(host: LabHost) -> None:
    host.sh("usermod -aG docker operator")
    try:
        with connected.lab(host) as to:
            mine = read_store(to)
        with connected.lab(host, "operator") as to:
            theirs = read_store(to, _sudo=False)
    finally:
        host.sh("gpasswd -d operator docker")
    assert theirs.server.place is not None
    assert (theirs.server.place.path, theirs.server.place.container) == (
        MODELS,
        theirs.server.container,
    )
    assert theirs.models == mine.models
    assert theirs.blobs == mine.blobs


@pytest.mark.parametrize(
    ("env", "links"),
    [
        ("OLLAMA_MODELS=/root/.ollama/../../../../../../root/elsewhere", ""),
        ("A=b\nmount /root/.ollama/models\t/root/elsewhere", ""),
        ('A=b\nmount "/root/.ollama/models" "/root/elsewhere"', ""),
        ("OLLAMA_MODELS=/root/.ollama/to", "ln -s /root/elsewhere /root/.ollama/to"),
    ],
    ids=["out-of-the-volume", "another-row", "another-row-in-json", "through-a-link"],
)
def test_an_image_does_not_choose_where_root_looks(host: LabHost, env: str, links: str) -> None:
    host.sh("mkdir -p /root/elsewhere/manifests /root/elsewhere/blobs")
    if links:
        host.docker("exec", "ollama", "sh", "-c", links)
    host.docker("rm", "-f", "ollama")
    host.docker(
        "run", "-d", "--name", "ollama", "-e", env, "-v", "models:/root/.ollama", "lab/model:1"
    )
    try:
        with connected.lab(host) as to:
            place = read_store(to).server.place
    finally:
        host.sh("rm -r /root/elsewhere")
    assert place is None or place.container or place.path == VOLUME


def test_what_was_done_behind_the_servers_back_is_found(host: LabHost) -> None:
    weights = "$(ls -S | head -n 1)"
    with connected.lab(host) as to:
        for breaks, kind in (
            (f"dd if=/dev/zero of={weights} bs=1 seek=1000 count=4 conv=notrunc", "corrupt"),
            (f"truncate -s -1 {weights}", "truncated"),
            (f"rm {weights}", "missing"),
        ):
            host.sh(f"cd {VOLUME}/blobs && {breaks}")
            (problem,) = read_store(to, hashes=True).problems
            assert (problem.kind, problem.models) == (kind, ("slow:latest",))


def test_a_server_that_stopped_is_told_and_its_disk_is_still_read(host: LabHost) -> None:
    host.sh("docker stop -t 1 ollama")
    with connected.lab(host) as to:
        state = read_store(to)
    assert (state.server.status, state.server.reason) == (
        "stopped",
        "its container ollama is exited",
    )
    assert len(state.models) == 2
    assert {model.served for model in state.models} == {None}


def test_a_server_that_is_a_process_of_the_host_is_read_where_its_environment_says(
    managed: LabHost,
) -> None:
    proxy = "Environment=HTTPS_PROXY=http://user:secret@proxy.test:3128"
    unit = ModelUnit(managed, "/srv/data/models", [proxy])
    unit.up()
    try:
        with connected.lab(managed) as to:
            state = read_store(to, endpoint=unit.endpoint)
            other = read_store(to, endpoint="http://127.0.0.1:11889")
            managed.sh("systemctl restart model")
            managed.wait_for(f"curl -sf {unit.endpoint}/api/version", 60)
            again = read_store(to, endpoint=unit.endpoint)
    finally:
        unit.down()
    assert (state.server.status, state.server.port) == ("up", 11888)
    assert state.server.place is not None
    assert (state.server.place.path, state.server.place.process) == ("/srv/data/models", 0)
    assert state.server.proxy == "proxy.test:3128"
    assert state.find_model(Name.parse("tiny")) is not None
    assert state.free is not None
    assert other.server.status == "unreachable"
    assert state.server.started
    assert again.server.started not in ("", state.server.started)


@pytest.mark.parametrize(
    ("models", "settings"),
    [
        ("/srv/data/models", ["PrivateTmp=yes"]),
        ("/tmp/models", ["PrivateTmp=yes"]),
        ("/mnt/models", ["BindPaths=/srv/private:/mnt"]),
    ],
    ids=["where-all-see-it", "in-its-own-tmp", "in-a-mount-of-its-own"],
)
def test_a_unit_with_mounts_of_its_own_is_read_where_it_has_its_models(
    managed: LabHost, models: str, settings: list[str]
) -> None:
    """And not where an older one had them, although it has the same names."""
    managed.sh("mkdir -p /srv/private")
    unit = ModelUnit(managed, models, settings)
    unit.up()
    managed.sh("mkdir -p /root/.ollama && cp -a /srv/model/root/.ollama/models /root/.ollama/")
    try:
        weights = unit.weights("tiny")
        managed.sh(f"truncate -s -9 {unit.blob(weights.digest)}")
        with connected.lab(managed) as to:
            state = read_store(to, endpoint=unit.endpoint)
    finally:
        unit.down()
        managed.sh("rm -r /root/.ollama")
    assert state.server.place is not None
    assert state.server.place.path == models
    assert (state.server.place.process > 0) is (models != "/srv/data/models")
    (problem,) = state.problems
    assert (problem.kind, problem.digest) == ("truncated", f"sha256:{weights.digest}")


def test_a_container_on_the_hosts_network_is_read_by_its_endpoint(managed: LabHost) -> None:
    endpoint = "http://127.0.0.1:11889"
    managed.docker(
        *("run", "-d", "--name", "beside", "--network", "host", "-v", "beside:/root/.ollama"),
        *("-e", "OLLAMA_HOST=127.0.0.1:11889", "-w", "/opt/ollama", "--entrypoint", "python3"),
        *("lab/model:1", "-c", SERVE, "ollama", "serve"),
    )
    try:
        managed.wait_for(f"curl -sf {endpoint}/api/version", 60)
        with connected.lab(managed) as to:
            state = read_store(to, endpoint=endpoint)
    finally:
        managed.sh("docker rm -f beside; docker volume rm -f beside")
    assert state.server.container_name == "beside"
    assert state.server.place is not None
    assert state.server.place.path == "/var/lib/docker/volumes/beside/_data/models"


def asked(to: Host, *names: str, **more: object) -> list[RegistryAnswer]:
    policy = ModelsPolicy.model_validate({"wanted": names, **more})
    return list(ask(to, policy.wanted, policy, server=read_store(to).server, timeout=5).values())


def test_a_registry_is_asked_from_the_host_and_its_failures_told_apart(
    host: LabHost, model_registry: ModelRegistry, pushed: Pushed
) -> None:
    with connected.lab(host) as to:
        (found, absent) = asked(
            to,
            f"{model_registry.http}/team/tiny:1",
            f"{model_registry.http}/team/tinny:1",
            insecure=True,
        )
        assert (found.status, absent.status) == ("found", "absent")
        assert found.manifest is not None
        assert found.manifest.digest == pushed.digest
        assert absent.suggestions == (f"{model_registry.http}/team/tiny:1",)
        for name, layer, text in (
            ("registry.invalid/team/tiny", "name", "registry.invalid does not resolve"),
            ("127.0.0.1:9/team/tiny", "connect", "cannot connect to 127.0.0.1:9: "),
            (f"{model_registry.http}/team/tiny", "tls", "TLS: "),
            (f"{model_registry.https}/team/tiny", "tls", "unable to get local issuer certificate"),
        ):
            (answer,) = asked(to, name)
            assert (answer.status, answer.layer) == ("unreachable", layer)
            assert text in answer.reason
        model_registry.fault("team/tiny:1", "status", status=503, times=None, on="manifest")
        (answer,) = asked(to, f"{model_registry.http}/team/tiny:1", insecure=True)
        assert (answer.status, answer.layer, answer.code) == ("unreachable", "http", 503)


def test_a_certificate_that_only_the_model_server_trusts_is_trusted(
    host: LabHost, model_registry: ModelRegistry, pushed: Pushed
) -> None:
    certificate = shlex.quote(model_registry.ca.decode())
    host.sh(
        f"printf %s {certificate} >/srv/ca.pem; "
        "docker rm -f ollama >/dev/null; docker run -d --name ollama -e SSL_CERT_FILE=/ca.pem "
        "-v /srv/ca.pem:/ca.pem:ro -v models:/root/.ollama lab/model:1"
    )
    with connected.lab(host) as to:
        (answer,) = asked(to, f"{model_registry.https}/team/tiny:1")
    assert answer.status == "found"


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize("via", ["forward", "bridge"])
def test_tls_is_spoken_through_the_host(
    host: LabHost, model_registry: ModelRegistry, via: Literal["forward", "bridge"]
) -> None:
    address, _, port = model_registry.https.rpartition(":")
    trusted = ssl.create_default_context(cadata=model_registry.ca.decode())
    with (
        connected.lab(host) as to,
        connection.http(to, address, int(port), tls=trusted, via=via) as client,
    ):
        for _ in range(3):
            assert client.get("/v2/team/tiny/manifests/1").status_code == 200
