"""What is decided about accelerators, what their probe says, and what its scripts are given."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api import FactProcessError

from stackmend.engine.accelerators import commands
from stackmend.engine.accelerators.facts import HostAccelerators
from stackmend.engine.accelerators.plan import Plan, Verify, choose_settings, format_evidence, plan
from stackmend.engine.accelerators.spec import Acceleration
from stackmend.engine.accelerators.state import Accelerators, CdiFile, Device, Node
from stackmend.engine.plan import SetConfig, WriteSource
from stackmend.engine.state import Config, HostEngine, Origin, Service
from tests.marks import asked, framed
from tests.unit import engine_world as world

DRIVER = "570.86.10"
NVIDIA = Device(
    address="0000:01:00.0", vendor="nvidia", model="0x2330", kind="0x030200", driver="nvidia"
)
AMD = Device(address="0000:03:00.0", vendor="amd", model="0x740f", kind="0x038000", driver="amdgpu")
NODES = (
    Node(path="/dev/kfd", group=105, mode="660"),
    Node(path="/dev/dri/renderD128", group=105, mode="660"),
)
TOOLKIT = {
    "driver": DRIVER,
    "smi": "/usr/bin/nvidia-smi",
    "ctk": "/usr/bin/nvidia-ctk",
    "runtime": "/usr/bin/nvidia-container-runtime",
    "toolkit": "1.17.8-1",
    "cdi": (CdiFile(path="/etc/cdi/nvidia.yaml", versions=(DRIVER,)),),
}
SET = {
    "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},
    "features": {"cdi": True},
}


def engine(held: dict[str, Any] | str | None = None, **changes: Any) -> HostEngine:
    text = held if isinstance(held, str) else json.dumps(held) if held is not None else ""
    config = Config(kind="file" if text else "missing", text=text)
    return world.engine(world.DOCKER_CE, config=config, **changes)


def make_plan(state: Accelerators, on: HostEngine | None = None, **spec: Any) -> Plan:
    return plan(Acceleration.model_validate(spec), on or engine(), state)


def verbs(found: Plan) -> list[str]:
    return [action.verb for action in found.actions]


def proven(state: Accelerators, on: HostEngine, *ways: str) -> Accelerators:
    return state.model_copy(update={"proof": format_evidence(on, state, ways)})


def test_nothing_there_is_said_and_is_well() -> None:
    found = make_plan(Accelerators())
    assert found.empty
    assert "nothing to do" in found.findings[0].cause
    (refusal,) = make_plan(Accelerators(), vendor="amd").refusals
    assert "no device of AMD's" in refusal.reason
    # Of the other vendor's, the one who insists hears nothing.
    (refusal,) = make_plan(Accelerators(devices=(NVIDIA,)), vendor="amd").refusals
    assert "no device of AMD's" in refusal.reason
    assert make_plan(Accelerators(devices=(NVIDIA, AMD)), vendor="none") == Plan()


@pytest.mark.parametrize("driver", ["", "nouveau", "vfio-pci"])
def test_a_device_without_its_driver(driver: str) -> None:
    state = Accelerators(devices=(NVIDIA.model_copy(update={"driver": driver}),))
    found = make_plan(state)
    assert found.empty
    assert f"its driver is {driver or 'none'}, not nvidia" in found.findings[0].cause
    assert ("virtual machines" in found.findings[0].cause) == (driver == "vfio-pci")
    (refusal,) = make_plan(state, vendor="nvidia").refusals
    assert refusal.reason in found.findings[0].cause
    # Another one that can be used is used, whoever insists.
    both = Accelerators(devices=(*state.devices, NVIDIA))
    assert "prove" in verbs(make_plan(both, vendor="nvidia"))


def test_the_steps_from_nothing_to_a_proof() -> None:
    found = make_plan(Accelerators(devices=(NVIDIA,), driver=DRIVER))
    assert verbs(found) == ["trust", "write source", "install", "set", "describe", "prove"]
    set_, prove = found.actions[3], found.actions[5]
    assert isinstance(set_, SetConfig)
    assert json.loads(set_.text) == SET
    assert set_.restart, "CDI and the hook are looked for when the engine starts, never later"
    assert isinstance(prove, Verify)
    assert prove.modes == ("cdi",)


def test_what_is_there_is_not_done_again() -> None:
    on = engine(SET)
    state = Accelerators(devices=(NVIDIA,), **TOOLKIT)
    assert verbs(make_plan(state, on)) == ["prove"]
    assert make_plan(proven(state, on, "cdi"), on).empty
    # Whoever brought the toolkit there, and from wherever.
    by_hand = proven(state.model_copy(update={"toolkit": ""}), on, "cdi")
    assert make_plan(by_hand, on).empty


@pytest.mark.parametrize(
    "changed",
    [
        {"devices": (NVIDIA, NVIDIA.model_copy(update={"address": "0000:02:00.0"}))},
        {"toolkit": "1.18.0-1"},
    ],
)
def test_a_proof_holds_as_long_as_what_it_rests_on(changed: dict[str, Any]) -> None:
    on = engine(SET)
    state = proven(Accelerators(devices=(NVIDIA,), **TOOLKIT), on, "cdi")
    found = make_plan(state.model_copy(update=changed), on)
    assert verbs(found) == ["prove"]
    assert state.proof in found.actions[0].cause


def test_a_new_driver_has_cdi_described_anew_where_that_was() -> None:
    on = engine(SET)
    running = CdiFile(path="/var/run/cdi/nvidia.yaml", versions=("535.183.01",))
    state = Accelerators(devices=(NVIDIA,), **{**TOOLKIT, "cdi": (*TOOLKIT["cdi"], running)})  # type: ignore[has-type]
    describe, prove = make_plan(proven(state, on, "cdi"), on).actions
    # Of two files that name the same device the last one wins.
    assert describe.subject == "/var/run/cdi/nvidia.yaml"
    assert describe.cause == f"it is for driver 535.183.01, and {DRIVER} is loaded"
    assert prove.verb == "prove"


def test_a_gpu_that_cdi_does_not_know_has_it_described_anew() -> None:
    nodes = tuple(
        Node(path=f"/dev/{name}", group=0, mode="666")
        for name in ("nvidia0", "nvidia1", "nvidiactl")
    )
    known = CdiFile(path="/etc/cdi/nvidia.yaml", versions=(DRIVER,), devices=("/dev/nvidia0",))
    state = Accelerators(devices=(NVIDIA,), nodes=nodes, **{**TOOLKIT, "cdi": (known,)})
    describe, _ = make_plan(state, engine(SET)).actions
    assert (describe.verb, describe.cause) == ("describe", "it does not know /dev/nvidia1")
    told = known.model_copy(update={"devices": ("/dev/nvidia0", "/dev/nvidia1")})
    (prove,) = make_plan(state.model_copy(update={"cdi": (told,)}), engine(SET)).actions
    assert prove.verb == "prove"


def test_what_somebody_has_decided_stays() -> None:
    theirs = {"runtimes": {"nvidia": {"path": "/opt/nvidia-container-runtime"}}}
    assert choose_settings(engine(theirs)) == {"features": {"cdi": True}}
    assert choose_settings(engine({**theirs, "features": {"cdi": False}})) == {}
    flags = Service(manager="systemd", flags=("--add-runtime", "nvidia=/usr/bin/x"))
    assert choose_settings(engine({}, service=flags)) == {"features": {"cdi": True}}
    assert choose_settings(engine({}, server="24.0.9")) == {"runtimes": SET["runtimes"]}
    state = Accelerators(devices=(NVIDIA,), **{**TOOLKIT, "cdi": ()})
    (prove,) = make_plan(state, engine({**theirs, "features": {"cdi": False}})).actions
    assert isinstance(prove, Verify)
    assert prove.modes == ("runtime",)


def test_a_daemon_json_that_is_none_is_refused_and_nothing_else_is_done() -> None:
    found = make_plan(Accelerators(devices=(NVIDIA,), driver=DRIVER), engine("{nonsense"))
    assert not found.actions
    assert found.refusals[0].reason.startswith("nothing can be set in it: line 1, column 2")


def test_a_repository_that_has_moved_is_written_anew() -> None:
    on = engine(SET)
    state = proven(Accelerators(devices=(NVIDIA,), **TOOLKIT), on, "cdi")
    own = {"repository": "https://mirror.example.com/nvidia/deb", "key": "/keys/nvidia.asc"}
    # It is here, and no file of ours says from where: nothing is said about that.
    assert make_plan(state, on, **own).empty
    wrote = make_plan(Accelerators(devices=(NVIDIA,), driver=DRIVER), on, **own).actions[1]
    assert isinstance(wrote, WriteSource)
    (file,) = wrote.files
    assert "URIs: https://mirror.example.com/nvidia/deb/amd64\nSuites: /\n" in file.text
    there = on.model_copy(update={"origins": (Origin(path=file.path, text=file.text),)})
    assert make_plan(state, there, **own).empty
    moved = {**own, "repository": "https://mirror.example.com/apt stable main"}
    found = make_plan(state, there, **moved)
    assert verbs(found) == ["trust", "write source", "prove"]
    second = found.actions[1]
    assert isinstance(second, WriteSource)
    assert "Suites: stable\nComponents: main\n" in second.files[0].text


def test_amds_groups_go_by_number_and_never_by_root() -> None:
    root = Node(path="/dev/dri/renderD129", group=0, mode="600")
    state = Accelerators(devices=(AMD,), nodes=(*NODES, root))
    found = make_plan(state)
    assert 'group_add: ["105"]' in found.findings[0].cause
    (prove,) = found.actions
    assert isinstance(prove, Verify)
    assert (prove.modes, prove.groups) == (("rocm",), (105,))
    assert make_plan(proven(state, engine(), "rocm")).empty
    assert make_plan(Accelerators(devices=(AMD,))).empty
    (refusal,) = make_plan(Accelerators(devices=(AMD,)), vendor="amd").refusals
    assert "/dev/kfd is missing" in refusal.reason


def test_an_engine_that_comes_later_changes_nothing_of_the_plan() -> None:
    found = make_plan(Accelerators(devices=(NVIDIA,), driver=DRIVER), world.bare())
    assert verbs(found) == ["trust", "write source", "install", "set", "describe", "prove"]


def printed(sections: dict[str, list[str]], status: int = 0) -> list[str]:
    return framed({name: (status, rows) for name, rows in sections.items()})


pytestmark = pytest.mark.usefixtures("foreseen")


def test_what_the_probe_says() -> None:
    state = asked(HostAccelerators).process(
        printed(
            {
                "pci": [
                    "0000:01:00.0 0x10de 0x2330 0x030200 nvidia",
                    "0000:02:00.0 0x10de 0x2330 0x030200 ",
                    "0000:03:00.0 0x1002 0x740f 0x038000 amdgpu",
                ],
                "nodes": ["/dev/nvidia0 0 666", "/dev/kfd 105 660"],
                "proof": ["engine 28.5.1; nvidia 0000:01:00.0"],
                "driver": [DRIVER],
                "tools": ["nvidia-smi /usr/bin/nvidia-smi", "nvidia-ctk /usr/bin/nvidia-ctk"],
                "package": ["installed 1.17.8-1"],
                "cdi 1": ["device /dev/nvidia0", f"version {DRIVER}", "path /etc/cdi/nvidia.yaml"],
                "whole": [],
            }
        )
    )
    assert [(one.vendor, one.driver) for one in state.devices] == [
        ("nvidia", "nvidia"),
        ("nvidia", ""),
        ("amd", "amdgpu"),
    ]
    assert state.list_with_driver("nvidia") == (state.devices[0],)
    assert state.groups == (105,)
    assert (state.driver, state.toolkit, state.ctk) == (DRIVER, "1.17.8-1", "/usr/bin/nvidia-ctk")
    assert state.cdi == (
        CdiFile(path="/etc/cdi/nvidia.yaml", versions=(DRIVER,), devices=("/dev/nvidia0",)),
    )
    assert state.gpus == ("/dev/nvidia0",)
    assert state.proof == "engine 28.5.1; nvidia 0000:01:00.0"


def test_a_probe_that_was_cut_off_is_not_taken_for_nothing() -> None:
    with pytest.raises(FactProcessError, match="did not run to its end"):
        asked(HostAccelerators).process(printed({"pci": []}))


def test_a_package_that_is_gone_but_for_its_settings_is_not_there() -> None:
    state = asked(HostAccelerators).process(
        printed({"pci": [], "package": ["config-files 1.17.8-1"], "whole": []})
    )
    assert state.toolkit == ""


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_whatever_is_given_arrives_as_it_is(text: str) -> None:
    words = shlex.split(commands.build_description(text, text).get_raw_value())
    assert words[-2:] == [text, text]
    words = shlex.split(commands.build_proof(text, (44, 105), ("rocm",)).get_raw_value())
    assert words[-3:] == [text, "44 105", "rocm"]
