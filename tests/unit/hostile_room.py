"""What a room is for its fuzz: what somebody may put where, and what must then be told.

A room lays out a host of which everything is known. A *slot* is a place in it that somebody else
than root fills: for each value there is exactly one right state, which differs from that of the
untouched host in the slot's own fields and in nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.unit.hostile_host import HostileHost

Dump = dict[str, Any]


def unchanged(dump: Dump, value: Any) -> None:
    """What is in such a slot is nobody's business."""


@dataclass(frozen=True)
class Slot:
    """A place that somebody else fills.

    :param name: what is put there.
    :param values: what may be put there.
    :param expect: changes the state of the untouched host to what it is with a value.
    :param otherwise: changes it to what it is where the value itself cannot be told.
    :param refusable: whether the whole fact may be unknown for it.
    """

    name: str
    values: st.SearchStrategy[Any]
    expect: Callable[[Dump, Any], None] = unchanged
    otherwise: Callable[[Dump, Any], None] | None = None
    refusable: bool = False


@dataclass(frozen=True)
class Room:
    """A probe with its fact, and a host for it."""

    name: str
    lay: Callable[[HostileHost, Mapping[str, Any]], None]
    slots: Sequence[Slot]
    facts: Sequence[tuple[type, Mapping[str, Any]]] = ()
    #: Fields that differ from one reading to the next.
    passing: frozenset[str] = frozenset()
    alone: bool = False
    #: The scripts that it runs, below ``ops/stackmend``.
    scripts: frozenset[str] = frozenset()
    #: Stand-ins for programs, by their names.
    programs: Mapping[str, str] = field(default_factory=dict)
    #: How many examples: in `make test`, and as a share of `make fuzz`.
    few: int = 25
    many: int = 1500
    dump: Callable[[Any], Dump] = lambda state: state.model_dump()
    #: Reads the state itself, where it is no fact's.
    read: Callable[[HostileHost, str], Any] | None = None

    def expected(self, untouched: Dump, values: Mapping[str, Any]) -> list[Dump]:
        """The states that the host with these values in its slots may have, the best first."""
        states = [copy.deepcopy(untouched)]
        for slot in self.slots:
            if slot.name not in values:
                continue
            ways = [slot.expect, *([slot.otherwise] if slot.otherwise else [])]
            made = []
            for expect in ways:
                for state in copy.deepcopy(states):
                    expect(state, values[slot.name])
                    made.append(state)
            states = made
        return states


def at(*path: Any) -> Callable[[Dump, Any], None]:
    """A slot whose value stands at this place of the state."""

    def expect(dump: Dump, value: Any) -> None:
        place: Any = dump
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return expect


def told_as(form: Callable[[Any], Any], *path: Any) -> Callable[[Dump, Any], None]:
    """The same, in the form that the state has it in."""
    put = at(*path)
    return lambda dump, value: put(dump, form(value))


def decoded(value: bytes) -> str:
    """Bytes as every fact reads them."""
    return value.decode(errors="replace")
