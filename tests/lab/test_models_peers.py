"""Three hosts and one model: it crosses the outside link once, and nobody trusts what is broken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry, Pushed
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, fetched, push

SIZE = 4_000_000


@pytest.fixture(scope="module")
def servers(lab: Lab) -> list[ModelServer]:
    servers = [ModelServer(host) for host in lab.take(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(ModelServer.up, servers))
    return servers


@pytest.fixture
def runs(tmp_path: Path, servers: list[ModelServer], model_registry: ModelRegistry) -> Runs:
    model_registry.clear()
    return Runs(tmp_path, [server.host for server in servers], pull_from="peer")


def pullers(registry: ModelRegistry, model: Pushed) -> set[str]:
    """The hosts that any content of a model was sent to."""
    digests = {layer.digest for layer in model.layers}
    return {
        request.peer
        for request in registry.log()
        if request.on == "storage" and request.path.rpartition("/")[2] in digests
    }


def relayed(server: ModelServer, least: int) -> str:
    """A condition on the host: so many bytes of a blob have been relayed to it."""
    return f"[ $(cat {server.root}/.stackmend/sha256-* 2>/dev/null | wc -c) -ge {least} ]"


def all_have(servers: list[ModelServer], model: Pushed) -> None:
    """Each has all of a model, and nothing of how it came is left."""
    for server in servers:
        assert server.digests()[model.name] == model.digest
        assert server.is_complete(model.name)
        assert server.answers(model.name)
        strange = server.host.sh(f"ls -A {server.root}/blobs | grep -v '^sha256-[0-9a-f]*$'", False)
        assert strange == ""
        assert not server.host.exists(f"{server.root}/.stackmend")


def test_one_download_for_three_hosts(
    runs: Runs, servers: list[ModelServer], model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/shared:1b", SIZE, seed=1)
    (lacking,) = {server.lacks(model) for server in servers}
    model_registry.clear_log()
    result = runs.converge([model.name])
    assert result.outcomes == {"changed"}
    assert len(pullers(model_registry, model)) == 1, model_registry.log()
    assert fetched(model_registry, model) == lacking
    all_have(servers, model)
    for server in servers:
        # What is not the server's own looks as if it were.
        owners = server.host.sh(f"stat -c '%u:%g %a' {server.root}/blobs/sha256-*")
        assert len(set(owners.splitlines())) == 1
    model_registry.clear_log()
    moments = [server.host.now() for server in servers]
    again = runs.converge([model.name])
    assert again.outcomes == {"converged"}
    assert fetched(model_registry, model) == 0
    assert [server.asked(moment) for server, moment in zip(servers, moments, strict=True)] == [
        []
    ] * 3


def test_a_host_that_has_it_already_gives_it_to_the_others(
    runs: Runs, servers: list[ModelServer], model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/given:1b", SIZE, seed=2)
    servers[1].pull(model)
    model_registry.clear_log()
    runs.converge([model.name])
    assert fetched(model_registry, model) == 0
    all_have(servers, model)


def test_a_host_that_is_still_at_something_else_gives_it_to_the_others(
    runs: Runs, servers: list[ModelServer], model_registry: ModelRegistry
) -> None:
    """Each host goes at its own pace: the giver reaches its models when the others have theirs."""
    model = push(model_registry, "team/late:1b", SIZE, seed=8)
    giver, *others = servers
    giver.pull(model)
    model_registry.clear_log()
    giver.host.sh("rm -f /tmp/goes-on")
    inventory = controller.write_inventory(
        runs.directory,
        runs.hosts,
        data={"pulled": {**runs.policy, "wanted": [model.name]}, "late": giver.host.name},
    )
    deploy = "tests/lab/pull_models_late.py"
    with controller.start(inventory, deploy, "-y", env=runs.environment) as run:
        for other in others:
            assert run.wait_for_output(f"its blobs come from {giver.host.name}"), run.output()
            other.host.wait_for(f"[ -e {other.manifest_path(model.name)} ]", 60)
        giver.host.sh("touch /tmp/goes-on")
        done = run.wait()
    assert done.rc == 0, done.out
    assert fetched(model_registry, model) == 0
    all_have(servers, model)


def test_what_a_peer_has_wrong_is_not_taken(
    runs: Runs, servers: list[ModelServer], model_registry: ModelRegistry
) -> None:
    """The one who has it, has it with a byte that flipped: the others get what the name says."""
    model = push(model_registry, "team/rotten:1b", SIZE, seed=3)
    servers[0].pull(model)
    digest = servers[0].weights(model.name).digest
    servers[0].flip(digest, SIZE // 2)
    lacking = servers[1].lacks(model)
    model_registry.clear_log()
    result = runs.pull([model.name])
    all_have(servers[1:], model)
    # The giver is told, by the one that could not use what it gave: after its own turn, or in the
    # middle of it, which then is not proven.
    giver = result.hosts[servers[0].host.name]
    assert giver["outcome"] in ("refused", "failed")
    assert result.run.rc == 1, result.run.out
    if giver["outcome"] == "refused":
        (refusal,) = [row for operation in giver["operations"] for row in operation["refusals"]]
        assert digest[:12] in refusal["reason"]
        assert '"hashes": true' in refusal["remedy"]
    else:
        errors = [row for operation in giver["operations"] for row in operation["errors"]]
        assert digest[:12] in str(errors)
    # All but the config, which had come from the one who has the weights wrong.
    assert fetched(model_registry, model) == result.fetched == lacking - model.layers[-1].size
    assert len(pullers(model_registry, model)) == 1
    assert digest not in servers[0].host.sh(f"sha256sum {servers[0].blob(digest)}").split()[0]
    runs.converge([model.name], hashes=True)
    all_have(servers, model)


def test_a_controller_killed_while_it_relays(
    runs: Runs, servers: list[ModelServer], model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/relayed:1b", 20_000_000, seed=4)
    lacking = servers[0].lacks(model)
    servers[0].pull(model)
    slow(servers[0])
    model_registry.clear_log()
    with runs.start([model.name]) as run:
        servers[2].host.wait_for(relayed(servers[2], 2_000_000), 120)
        run.kill()
    quick(servers[0])
    result = runs.converge([model.name])
    assert fetched(model_registry, model) == result.fetched == 0
    # It went on where it was.
    assert result.measured("relayed") <= 2 * lacking - 2_000_000
    all_have(servers, model)


def test_a_host_that_is_lost_while_it_gives(
    runs: Runs, servers: list[ModelServer], model_registry: ModelRegistry
) -> None:
    """Its link dies in the middle: one of the others pulls, and the third has it from that one."""
    model = push(model_registry, "team/lost:1b", 20_000_000, seed=5)
    lacking = servers[1].lacks(model)
    servers[1].pull(model)
    slow(servers[1])
    model_registry.clear_log()
    with runs.start([model.name]) as run:
        for other in (servers[0], servers[2]):
            other.host.wait_for(relayed(other, 2_000_000), 120)
        # The sessions' processes, not the listener's.
        servers[1].host.sh("pkill -f '^sshd: .*@notty|^sshd: .*\\[priv\\]|^sshd: root'")
        done = run.wait()
    quick(servers[1])
    assert "Traceback" not in done.out, done.out
    assert servers[1].host.name in done.out
    all_have(servers, model)
    # All but the config, which had come to both before.
    assert fetched(model_registry, model) == lacking - model.layers[-1].size
    assert len(pullers(model_registry, model)) == 1


def slow(server: ModelServer) -> None:
    """Let it give no more than a megabyte a second."""
    server.host.sh("tc qdisc add dev eth0 root tbf rate 8mbit burst 64kb latency 200ms")


def quick(server: ModelServer) -> None:
    """End `slow`."""
    server.host.sh("tc qdisc del dev eth0 root")


def test_a_mirrors_model_comes_from_a_peer_while_the_registry_is_down(
    runs: Runs, servers: list[ModelServer], model_registry: ModelRegistry
) -> None:
    """The peers keep it by its own name, and nobody can say what the mirror's tag is."""
    model = push(model_registry, "mirror/away:1b", SIZE, seed=6)
    wanted = [{"name": "away:1b", "source": model.name}]
    Runs(runs.directory, [servers[0].host]).converge(wanted)
    assert model.name not in servers[0].tags()
    model_registry.stop()
    try:
        runs.converge(wanted)
    finally:
        model_registry.start()
    for server in servers:
        assert server.digests()["away:1b"] == model.digest
        assert model.name not in server.tags()
        assert server.is_complete("away:1b")
        assert server.answers("away:1b")
