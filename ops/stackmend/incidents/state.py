"""What was read of one host for a diagnosis: models only."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, SkipValidation

from stackmend.decision import Plan
from stackmend.frozen import Frozen

S = TypeVar("S")

#: Where a text may stand: what a container writes, the engine's events, a unit's journal, the error
#: of a command.
Source = Literal["container", "engine", "unit", "command"]

SOURCES: frozenset[Source] = frozenset({"container", "engine", "unit", "command"})


class RoomReading(Frozen):
    """What one operation read of a host, and what it would do.

    :param operation: its name, such as ``compose.stack``.
    :param plan: what it found, would do and refuses.
    :param states: what it read, as its room's ``state.py`` has it.
    :param problem: why it could not read; empty where it could.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    operation: str
    plan: Annotated[Plan[Any], SkipValidation] = Plan()
    states: tuple[Any, ...] = ()
    problem: str = ""


class LogLine(Frozen):
    """One line of a log.

    :param text: the line.
    :param age: seconds between it and its reading; ``None`` where it has no time.
    """

    text: str
    age: float | None = None


class Log(Frozen):
    """The last lines of one log.

    :param source: what wrote it, such as ``log of ai-api-1`` or ``journal of docker.service``.
    :param kind: where it stands.
    :param subject: what it is about: a service, a unit.
    """

    source: str
    kind: Source
    subject: str = ""
    lines: tuple[LogLine, ...] = ()


class Listener(Frozen):
    """What listens for TCP in the host's own network.

    :param address: where, as ``ss`` has it: ``*``, ``0.0.0.0`` and ``::`` are all addresses.
    :param port: its port.
    :param program: the name of its process; empty where that is not known.
    """

    address: str
    port: int
    program: str = ""


class Symptoms(Frozen):
    """What a host's logs, journals and events say, and what listens there.

    :param logs: those that could be read.
    :param problems: why others could not, by their source.
    :param listeners: what listens; ``None`` where that could not be read.
    """

    logs: tuple[Log, ...] = ()
    listeners: tuple[Listener, ...] | None = None
    problems: tuple[tuple[str, str], ...] = ()


class Observations(Frozen):
    """All that was read of one host.

    :param rooms: what the operations read, in their order.
    :param symptoms: what its logs say.
    :param problem: why the logs could not be read; empty where they could.
    """

    rooms: tuple[RoomReading, ...] = ()
    symptoms: Symptoms = Symptoms()
    problem: str = ""

    @property
    def symptoms_problem(self) -> str:
        """Why not all of the logs could be read; empty where they could."""
        others = (f"{source}: {reason}" for source, reason in self.symptoms.problems)
        return "; ".join(filter(None, (self.problem, *others)))

    def list_states(self, kind: type[S]) -> Iterator[S]:
        """What rooms read, of one class.

        :param kind: the class, such as ``stackmend.compose.state.StackState``.
        """
        for room in self.rooms:
            yield from (state for state in room.states if isinstance(state, kind))
