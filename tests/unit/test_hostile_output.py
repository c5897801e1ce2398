"""Every probe of every room on hosts that lie: what is told is what is there, or it is unknown.

The probes run as they are, in real shells, on a host of namespaces (``hostile_host.py``): what
somebody else than root fills there holds what deceives best (``tests/hostile.py``). Each state must
be the one that follows from what was put there, field by field: a value that reaches another field,
or another section, is a failure, and so is an exception.

In ``make test`` the examples are few and always the same; ``make fuzz`` runs many new ones.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from stackmend.basics.facts import Basics
from stackmend.connection import Unknown
from stackmend.engine.accelerators.facts import HostAccelerators
from tests.hostile import KNOWN
from tests.unit.hostile_host import SHELLS, HostileHost, hostile_host
from tests.unit.hostile_room import Dump, Room, Slot
from tests.unit.hostile_rooms import ROOMS

#: What each room's share of examples is multiplied with; 0 where the few of ``make test`` are run.
FUZZ = float(os.environ.get("STACKMEND_FUZZ", "0"))

#: Where the number of examples is noted, for whoever adds them up.
COUNTS = os.environ.get("STACKMEND_FUZZ_COUNTS", "")


def of(examples: int) -> settings:
    """Settings for so many examples; the few of every day are the same every day."""
    return settings(
        max_examples=examples,
        derandomize=not FUZZ,
        database=None,
        deadline=None,
        print_blob=True,
        # The same few examples every day: the one that fails is told at once, not made smaller.
        phases=list(Phase) if FUZZ else [Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def fillings(draw: st.DrawFn, slots: tuple[Slot, ...]) -> dict[str, Any]:
    """Values for one slot to three."""
    chosen = draw(st.lists(st.sampled_from(range(len(slots))), min_size=1, max_size=3, unique=True))
    return {slots[at].name: draw(slots[at].values) for at in chosen}


def dumped(room: Room, values: list[Any]) -> list[Dump | Unknown]:
    return [
        value
        if isinstance(value, Unknown)
        else {key: told for key, told in room.dump(value).items() if key not in room.passing}
        for value in values
    ]


def noted(room: Room, seen: Counter[str]) -> None:
    if COUNTS:
        with Path(COUNTS).open("a") as file:
            file.write(json.dumps({"probe": room.name, **seen}) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_what_is_told_is_what_is_there(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not even who knows the mark of a reading can forge what it frames.
    monkeypatch.setattr(
        "stackmend.connection.scripts.token_hex", lambda size: KNOWN[: 2 * size], raising=False
    )
    seen: Counter[str] = Counter()
    with hostile_host(room.alone) as host:
        for name, text in room.programs.items():
            host.program(name, text)
        try:
            fuzz(room, host, seen)
        finally:
            noted(room, seen)


def fuzz(room: Room, host: HostileHost, seen: Counter[str]) -> None:
    """Run the examples of a room."""
    slots = {slot.name: slot for slot in room.slots}
    neighbour: tuple[type, dict[str, Any]] = (HostAccelerators, {})
    beside = [neighbour] if room.name != "accelerators" else [(Basics, {})]

    def told(shell: str, values: dict[str, Any]) -> list[Dump | Unknown]:
        host.stop()
        room.lay(host, values)
        if room.read is not None:
            return dumped(room, [room.read(host, shell)])
        first, *found, last = host.fetch_facts(shell, [*beside, *room.facts, *beside])
        # Whoever is asked before and after is told nothing of it.
        assert first == last
        return dumped(room, found)

    untouched = {shell: told(shell, {}) for shell in SHELLS}
    for shell, states in untouched.items():
        assert not [state for state in states if isinstance(state, Unknown)], shell

    @of(max(1, int(room.many * FUZZ)) if FUZZ else room.few)
    @given(
        st.sampled_from((*["dash"] * 6, "bash", "bash", "busybox")),
        fillings(tuple(slots.values())),
    )
    def holds(shell: str, values: dict[str, Any]) -> None:
        seen["examples"] += 1
        for state, before in zip(told(shell, values), untouched[shell], strict=True):
            if isinstance(state, Unknown):
                note(f"unknown: {state.reason}")
                seen["unknown"] += 1
                assert state.reason
                assert any(slots[name].refusable for name in values), state.reason
                continue
            assert not isinstance(before, Unknown)
            expected, *others = room.expected(before, values)
            if state in others:
                seen["partly told"] += 1
            else:
                assert state == expected

    holds()


#: Scripts of the library that no room's fuzz runs, and why: what they print is not parsed.
NOT_PARSED = {
    "it changes something, and what it says is shown as text where it fails": (
        "access/account access/confirm access/keys access/revert access/sshd access/sudo "
        "access/sudoers connection/keep basics/install basics/updates compose/aside compose/repair "
        "compose/install compose/mended compose/remember compose/stale compose/stage "
        "compose/within engine/accelerators/describe engine/again engine/containerd engine/install "
        "engine/place engine/restart engine/return engine/start engine/switch engine/unpid "
        "models/accept models/delete models/manifest models/partials models/take "
        "models/unrelay ports/close ports/container ports/end ports/program ports/reserve "
        "ports/taskkill ports/unit resolver/confirm resolver/flush resolver/revert resolver/set "
        "schedule/bring schedule/copy schedule/has_program schedule/remove schedule/set "
        "schedule/table "
        "worker/benchmark/reserve worker/move/retire worker/move/start worker/move/unvolume"
    ),
    "other scripts begin with it": (
        "access/as_user access/common connection/frame connection/own connection/put "
        "connection/failed connection/steering "
        "engine/common engine/takeup ports/record resolver/asking resolver/common "
        "worker/benchmark/group"
    ),
    "it prints nothing, and ends with a status": "engine/kept",
    "it prints the name of a record, which root alone makes": "ports/restore",
    "it becomes another program": "ports/launch",
    "its lines are shown, and decide nothing": "engine/accelerators/verify",
    "it prints what package managers list, whose repositories root has chosen": "engine/refresh",
    "it prints what it was given for the address of a key, whose fingerprint decides": (
        "engine/fetch"
    ),
    "it prints certificates, which the reader takes or leaves as a whole": "models/trust",
    "it prints paths, of which those count that it was asked for": "worker/move/absent",
    "it prints the bytes of a blob, whose digest decides": "models/give",
    "it runs on the host by itself, and one word alone decides": "schedule/unchanged",
    "it prints one number": "models/relayed worker/move/missing",
    "it prints a digest, whose file the server reads": "worker/move/copy",
    "it prints the kernel's numbers, behind ids of ours": (
        "compose/listening worker/benchmark/conditions worker/move/callers"
    ),
    "it prints refs and a packed archive, which test_compose_git.py fuzzes": "compose/git",
}


def test_every_script_that_is_parsed_is_fuzzed() -> None:
    root = Path("ops/stackmend")
    scripts = {str(path.relative_to(root)) for path in root.rglob("*.sh")}
    fuzzed = {name for room in ROOMS for name in room.scripts}
    spared = {f"{name}.sh" for names in NOT_PARSED.values() for name in names.split()}
    assert fuzzed <= scripts
    assert spared <= scripts
    assert not fuzzed & spared
    new = scripts - fuzzed - spared
    assert not new, "give it a room in tests/unit/hostile_rooms.py, or say above why it needs none"


def test_every_fact_is_fuzzed() -> None:
    fuzzed = {fact for room in ROOMS for fact, _ in room.facts}
    named = {
        f"{path.parent.relative_to('ops')}/{line.split()[1].partition('(')[0]}".replace("/", ".")
        for path in Path("ops").rglob("*.py")
        # It prints numbers of the kernel's alone.
        if path.name != "listening.py"
        for line in path.read_text().splitlines()
        if line.startswith("class ") and "FactBase[" in line
    }
    assert named
    assert named == {f"{fact.__module__.rpartition('.')[0]}.{fact.__name__}" for fact in fuzzed}
