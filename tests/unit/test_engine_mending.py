"""What is decided about an engine that somebody broke, as text: found, done, refused.

Each scenario's plan lies as plain text below ``golden/engine_mending``. ``UPDATE_GOLDEN=1 pytest``
writes them anew; what then changes is to be read as the change of behaviour that it is.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from stackmend.decision import Plan
from stackmend.engine.plan import RestoreConfig, plan_engine, plan_settings
from stackmend.engine.spec import Installation
from stackmend.engine.state import Config, Copy, HostEngine
from tests.unit import engine_world as world
from tests.unit.rendering import render

GOLDEN = Path(__file__).parent / "golden" / "engine_mending"
KEPT = "/var/lib/stackmend/engine/kept"
PROVEN = Copy(path=f"{KEPT}/proven.json", text='{\n  "mtu": 1400\n}\n')
EARLIER = Copy(path=f"{KEPT}/daemon.json.20260101T000000.000000Z", text='{"mtu": 1300}\n')
CUT = "unexpected end of JSON input"

SCENARIOS: dict[str, Callable[[], Plan[Any]]] = {}


def scenario(build: Callable[[], Plan[Any]]) -> Callable[[], Plan[Any]]:
    SCENARIOS[build.__name__] = build
    return build


def broken(
    text: str, refused: str = CUT, copied: Copy | None = PROVEN, **changes: Any
) -> HostEngine:
    """A host whose engine is down, with this daemon.json."""
    config = Config(kind="file", text=text, refused=refused, copied=copied)
    down = {
        "status": "stopped",
        "reason": "Cannot connect to the Docker daemon",
        "server": "",
        "config": config,
    }
    return world.engine(world.DOCKER_IO, **{**down, **changes})


def installed(state: HostEngine, *allow: str) -> Plan[Any]:
    return plan_engine(Installation(channel="distro", allow=allow), state)


@scenario
def a_file_that_is_cut_off_without_consent() -> Plan[Any]:
    """daemon.json ends in the middle; nobody said that another may be put back."""
    return installed(broken('{"dns": ['))


@scenario
def a_file_that_is_cut_off() -> Plan[Any]:
    """daemon.json ends in the middle: the proven one is put back, which starts the engine."""
    return installed(broken('{"dns": ['), "config")


@scenario
def a_wrong_type_under_an_engine_that_runs() -> Plan[Any]:
    """The engine runs, and would not start again: it reads the file put back, and goes on."""
    state = broken('{"dns": 5}', "cannot unmarshal number", EARLIER, status="up", server="26.1.5")
    return installed(state, "config")


@scenario
def a_key_that_the_service_sets_by_a_flag() -> Plan[Any]:
    """dockerd finds nothing wrong with "hosts" until its service gives it as a flag, too."""
    return installed(broken('{"hosts": ["unix:///run/docker.sock"]}', refused=""), "config")


@scenario
def no_earlier_file_is_known() -> Plan[Any]:
    """Nothing to put back: refused, with consent as well."""
    return installed(broken('{"no-such-key": 1}', "no-such-key", None), "config")


@scenario
def an_earlier_file_that_cannot_work_either() -> Plan[Any]:
    """The proven one has a key that the service sets by a flag by now."""
    copied = PROVEN.model_copy(update={"text": '{"hosts": []}'})
    return installed(broken("[]", copied=copied), "config")


@scenario
def settings_of_a_file_that_is_cut_off() -> Plan[Any]:
    """The proven one comes back with the settings in it, in one step."""
    return plan_settings({"mtu": 1280, "debug": True}, (), broken('{"dns": ['), ("config",))


@scenario
def settings_without_consent() -> Plan[Any]:
    """Nothing is set in a file that is none."""
    return plan_settings({"mtu": 1280}, (), broken('{"dns": ['))


def carry(action: Any) -> Iterable[str]:
    if isinstance(action, RestoreConfig):
        yield f"{'restart' if action.restart else 'reload'} with {json.dumps(action.text)}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_plan_is_as_it_was_agreed(name: str) -> None:
    text = f"# {SCENARIOS[name].__doc__}\n" + render(SCENARIOS[name](), carry)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    agreed = path.read_text(encoding="utf-8") if path.exists() else ""
    difference = difflib.unified_diff(agreed.splitlines(), text.splitlines(), lineterm="")
    assert text == agreed, "\n".join(difference)


def test_no_golden_text_is_left_behind() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)


def test_what_can_be_set_is_set_without_consent() -> None:
    """A wrong type that the settings replace: nothing of somebody else's is put back for it."""
    state = broken('{"dns": 5}', "cannot unmarshal number")
    plan = plan_settings({"dns": ["192.0.2.53"]}, (), state)
    assert [action.verb for action in plan.actions] == ["set"]


def test_comments_are_left_to_the_settings_while_the_engine_runs() -> None:
    state = broken("{} // mine", "invalid character '/'", status="up")
    assert installed(state).empty
    assert installed(broken("{} // mine", "invalid character '/'")).refusals


@pytest.mark.parametrize("consent", ["", "configs", "rule:", "rule:-D FORWARD 1", "rule:-A\nx"])
def test_consent_names_what_there_is(consent: str) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        Installation(allow=(consent,))
