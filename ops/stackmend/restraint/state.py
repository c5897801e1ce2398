"""What a host remembers that keeps runs from mending it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stackmend.frozen import Frozen
from stackmend.restraint.spec import LONGEST, SERVICE, check_scope

#: Pauses of one host, things that limits are kept of, and mends that are kept of one.
MOST_PAUSES = 50
MOST_SERIES = 200
MOST_MENDS = 50

Time = Annotated[float, Field(ge=0, le=32503680000, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=4 * LONGEST)]


class Pause(Frozen):
    """Somebody wants a host, or a part of it, left alone.

    :param only: a room or ``service:NAME``; empty for the whole host.
    :param who: who paused it.
    :param why: the reason; empty where none was named.
    :param since: when it began, in seconds since 1970 by the host's clock.
    :param until: when it runs out; ``None`` for never.
    """

    only: Annotated[str, AfterValidator(check_scope)] = ""
    who: Text
    why: Text = ""
    since: Time
    until: Time | None = None

    def is_over(self, now: float) -> bool:
        """Whether it has run out.

        :param now: the host's clock.
        """
        return self.until is not None and self.until <= now

    def is_of(self, room: str, subject: str) -> bool:
        """Whether it is of what a room would do to a subject.

        :param room: the first word of the operation, such as ``compose``.
        :param subject: what it is done to.
        """
        if self.only.startswith(SERVICE):
            name = self.only.removeprefix(SERVICE)
            return room in ("compose", "links", "worker") and name in subject.split(", ")
        return self.only in ("", room)


class Series(Frozen):
    """What was mended of one thing lately.

    :param operation: what mended it, such as ``compose.stack``.
    :param subject: what was mended.
    :param verb: how, the last time.
    :param desired: what tells one declaration of it from another; empty where nothing does.
    :param mends: when it was mended and proven so, and did not last, the latest last.
    :param tripped: when it was found broken after too many of them; ``None`` where it was not.
    :param until: when it is mended once more then.
    """

    operation: Text
    subject: Text
    verb: Text
    desired: Text = ""
    mends: Annotated[tuple[Time, ...], Field(min_length=1, max_length=MOST_MENDS)]
    tripped: Time | None = None
    until: Time | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others: no text that holds a time or an id of a run."""
        return self.operation, self.subject, self.desired


class Failing(Frozen):
    """Runs that failed on the host one after the other.

    :param operation: what failed last.
    :param reason: why, in a line.
    :param runs: how many.
    :param at: when the last one failed.
    :param until: when the host is mended again.
    """

    operation: Text
    reason: Text = ""
    runs: Annotated[int, Field(ge=1, le=10**6)]
    at: Time
    until: Time


class Pauses(Frozen):
    """The file of pauses."""

    version: Literal[1] = 1
    pauses: Annotated[tuple[Pause, ...], Field(max_length=MOST_PAUSES)] = ()


class Limits(Frozen):
    """The file of limits."""

    version: Literal[1] = 1
    series: Annotated[tuple[Series, ...], Field(max_length=MOST_SERIES)] = ()
    failing: Failing | None = None


class Memory(Frozen):
    """All of it, as it was read.

    :param now: the host's clock, in seconds since 1970.
    :param pauses: who wants what left alone.
    :param limits: what was mended and what failed lately.
    :param pauses_problem: why the pauses cannot be read; empty where they can.
    :param limits_problem: the same of the limits.
    """

    now: Time
    pauses: tuple[Pause, ...] = ()
    limits: Limits = Limits()
    pauses_problem: str = ""
    limits_problem: str = ""

    def list_pauses(self) -> tuple[Pause, ...]:
        """Those that hold now."""
        return tuple(pause for pause in self.pauses if not pause.is_over(self.now))
