"""Which host gives a model to which, and that only one of them pulls it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent.event  # type: ignore[import-untyped]
import pytest
from pyinfra import context
from pyinfra.api import Config, Inventory, State, operation
from pyinfra.api.host import Host
from pyinfra.api.operation import add_op
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host, ctx_state

from stackmend import connection, models
from stackmend.connection.settings import unwrap
from stackmend.fleet import pace
from stackmend.models import peers, reading
from stackmend.models.peers import Fleet
from stackmend.models.plan import Plan
from stackmend.models.reconciler import ModelsReconciler
from stackmend.models.spec import ModelsPolicy, ModelsSpec, Name
from stackmend.models.state import Place, StoreState
from stackmend.reconcile import Observation
from stackmend.reporting import Collector
from tests.unit.models_world import UP, manifest, problem, state, stored

NAME = Name.parse("a")
PLACE = Place(path="/models", owner="0:0")
HERE = UP.model_copy(update={"place": PLACE})


@pytest.fixture
def hosts() -> list[Host]:
    inventory = Inventory(([f"h{number}" for number in range(4)], {}))
    State(inventory, Config()).is_executing = True
    found = list(inventory)
    for host in found:
        host.connected = True
    return found


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, StoreState | connection.Unknown]:
    """What each host's server had when it was last looked at."""
    last: dict[str, StoreState | connection.Unknown] = {
        f"h{number}": state(server=HERE) for number in range(4)
    }
    monkeypatch.setattr(reading, "read_latest", lambda host, asked, arguments: last[host.name])
    return last


@pytest.fixture
def fleet(hosts: list[Host]) -> Fleet:
    joined = Fleet()
    for host in hosts:
        joined.join(host, {"hashes": False})
    return joined


def giver(found: peers.Peer | None) -> str:
    return found.host.name if found is not None else ""


def test_who_has_it_whole_and_equal_gives_it(
    fleet: Fleet, hosts: list[Host], states: dict[str, StoreState | connection.Unknown]
) -> None:
    states["h0"] = connection.Unknown("cut off")
    states["h1"] = state([stored("a", "2")], server=HERE)
    states["h2"] = state([stored("a")], [problem("a", "corrupt")], server=HERE)
    assert fleet.find(hosts[0], [NAME], manifest("a")) is None
    states["h3"] = state([stored("a")], server=HERE)
    assert giver(fleet.find(hosts[0], [NAME], manifest("a"))) == "h3"
    # Whose disk cannot be read gives nothing; nor does one that is gone, or was tried in vain.
    assert fleet.find(hosts[3], [NAME], manifest("a")) is None
    assert fleet.find(hosts[0], [NAME], manifest("a"), {"h3"}) is None
    hosts[3].connected = False
    assert fleet.find(hosts[0], [NAME], manifest("a")) is None
    # Where nobody could tell the manifest, the name has to do.
    assert giver(fleet.find(hosts[0], [NAME], None)) == "h1"


def test_a_mirrors_model_is_found_by_what_it_is(
    fleet: Fleet, hosts: list[Host], states: dict[str, StoreState | connection.Unknown]
) -> None:
    states["h1"] = state([stored("a")], server=HERE)
    found = fleet.find(hosts[0], [Name.parse("mirror:5000/team/a:1")], manifest("a"))
    assert found is not None
    assert (found.host.name, str(found.names[0])) == ("h1", "a:latest")


def test_who_got_it_in_this_run_is_not_asked_again(
    fleet: Fleet, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading that fails under load must not make it cross the outside link a second time."""
    monkeypatch.setattr(reading, "read_latest", lambda *_: connection.Unknown("did not end"))
    fleet.add(hosts[2], [NAME], PLACE)
    assert giver(fleet.find(hosts[0], [NAME], manifest("a"))) == "h2"
    fleet.add(hosts[1], [NAME], PLACE)
    assert giver(fleet.find(hosts[0], [NAME], manifest("a"), {"h2"})) == "h1"
    assert fleet.find(hosts[2], [NAME], manifest("a"), {"h1"}) is None


@pytest.mark.usefixtures("states")
def test_of_many_hosts_at_once_only_one_pulls(fleet: Fleet, hosts: list[Host]) -> None:
    pulling, pulled = threading.Lock(), []

    def bring(host: Host) -> str:
        with fleet.take_turn(NAME.key):
            found = fleet.find(host, [NAME], manifest("a"))
            if found is None:
                assert pulling.acquire(blocking=False), "two pull at once"
                threading.Event().wait(0.05)
                pulled.append(host.name)
                fleet.add(host, [NAME], PLACE)
                pulling.release()
        return giver(found)

    with ThreadPoolExecutor(4) as pool:
        givers = list(pool.map(bring, hosts))
    assert len(pulled) == 1
    assert sorted(givers) == ["", *pulled * 3]


def test_a_giver_is_told_once_that_it_gave_what_it_has_not(
    fleet: Fleet, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Collector("models.pulled")
    fleet.join(hosts[1], {"hashes": False}, report)
    noted: set[str] = set()

    def note(host: Host, digest: str) -> bool:
        new = digest not in noted
        noted.add(digest)
        return new

    monkeypatch.setattr(reading, "note_corrupt", note)
    peer = peers.Peer(hosts[1], {}, PLACE, (NAME,))
    for _ in range(2):
        fleet.report_corrupt(peer, f"sha256:{'c' * 64}")
    (refusal,) = report.refusals
    assert refusal.subject == "a:latest"
    assert "cccc" in refusal.reason
    assert '"hashes": true' in refusal.remedy


@operation()
def earlier(found: gevent.event.Event) -> Iterator[str]:
    """On ai1: goes on until ai2 has looked for the model."""
    if context.state.is_executing and context.host.name == "ai1":
        found.wait(10)
    return
    yield ""


@operation()
def bring(found: gevent.event.Event, givers: list[str]) -> Iterator[str]:
    """Looks for a host that has the model."""
    host = unwrap(context.host)
    if host.state.is_executing:
        givers.append(giver(peers.get_fleet(host.state).find(host, [NAME], manifest("a"))))
        found.set()
    return
    yield ""


@pytest.mark.parametrize("hashes", [False, True])
def test_a_host_that_is_still_at_an_earlier_operation_gives(
    hashes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_of_run = State(Inventory((["ai1", "ai2"], {"_sudo": True})), Config())
    state_of_run.current_stage = StateStage.Execute
    asked: list[Any] = []

    def read(host: Host, arguments: Any, settings: Any = None) -> StoreState:
        asked.append((arguments["project"], settings["_sudo"]))
        return state([stored("a")] if host.name == "ai1" else [], server=HERE)

    monkeypatch.setattr(reading, "read", read)
    policy = ModelsPolicy(wanted=("a",), pull_from="peer", hashes=hashes)
    found, givers = gevent.event.Event(), []
    with ctx_state.use(state_of_run):
        for host in state_of_run.inventory:
            host.connected = True
            state_of_run.activate_host(host)
            with ctx_host.use(host):
                models.prefetch(policy, "ai")
        add_op(state_of_run, earlier, found)
        add_op(state_of_run, bring, found, givers)
        pace.run_ops(state_of_run)
    assert givers == ["ai1", ""]
    assert asked[0] == ("ai", True)


def test_a_giver_without_an_operation_yet_only_notes_what_it_gave(
    hosts: list[Host], fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It mends the blob in its own turn, which is still to come."""
    state_of_run = hosts[1].state
    state_of_run.is_executing = False
    report = Collector("models.pulled")
    fleet.join(hosts[1], {"hashes": False}, report)
    state_of_run.is_executing = True
    monkeypatch.setattr(reading, "note_corrupt", lambda *_: True)
    fleet.report_corrupt(peers.Peer(hosts[1], {}, PLACE, (NAME,)), f"sha256:{'c' * 64}")
    assert not report.refusals
    assert not state_of_run.failed_hosts


@pytest.mark.parametrize(
    ("endpoint", "before", "waits"),
    [
        ("h1:11434", "unreachable", True),
        ("h1:11434", "up", False),
        ("elsewhere:11434", "unreachable", False),
        ("", "absent", False),
    ],
)
def test_a_server_of_another_host_of_the_run_is_waited_for(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch, endpoint: str, before: Any, waits: bool
) -> None:
    """Its own compose may be what brings it, in the same run."""
    spec = ModelsSpec.model_validate(
        {"wanted": ["a"], **({"endpoint": endpoint} if endpoint else {})}
    )
    room = ModelsReconciler(hosts[0], spec, Collector("models.pulled"))
    status = before

    def look(*_: Any, **__: Any) -> StoreState:
        return state(server=HERE.model_copy(update={"status": status}))

    def wait(host: Host, other: Host, is_ready: Any) -> bool:
        nonlocal status
        assert (host, other) == (hosts[0], hosts[1])
        assert not is_ready()
        status = "up"
        assert is_ready()
        return True

    monkeypatch.setattr(reading, "read", look)
    monkeypatch.setattr(pace.fleet, "wait_for_host", wait)
    monkeypatch.setattr(room, "_find_timeout", lambda found: 0.0)
    monkeypatch.setattr(room, "observe", lambda *, fresh=False: Observation(Plan(), look()))
    observed = room.wait_until_ready().state
    assert observed is not None
    assert (observed.server.status == "up") is (waits or before == "up")
