"""What a schedule's runs may do again and again, and what may be paused."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stackmend.problems import abbreviate, suggest
from stackmend.raw import Seconds, check_plain

#: The rooms that change hosts, by the first word of their operations.
ROOMS = (
    *("access", "compose", "engine", "links", "models", "ports", "resolver", "schedule"),
    "worker",
)

#: What begins the name of a service that is paused.
SERVICE = "service:"

_SERVICE = re.compile(r"service:[a-zA-Z0-9._-]{1,200}")

#: Characters of who paused something and why.
LONGEST = 300


class RestraintPolicy(BaseModel):
    """How often ``deploy/reconcile.py`` mends the same, and how long it waits after a failure.

    :param mends: how often the same is mended without lasting; broken once more, it is left alone
        for ``within``, then for twice as long each time, or until ``deploy/site.py`` runs.
    :param within: seconds, or a time such as ``"1h"``, after which a mend has lasted where a run
        finds it well.
    :param backoff: seconds that a host is not mended after a run that failed there; they double
        with each further one.
    :param longest_backoff: seconds that they come to at most.

    Example::

        reconcile = {"mends": 3, "within": "1h", "backoff": "5min", "longest_backoff": "1h"}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mends: int = Field(default=3, ge=1, le=50)
    within: Seconds = Field(default=3600, ge=1, le=7 * 86400)
    backoff: Seconds = Field(default=300, ge=0, le=86400)
    longest_backoff: Seconds = Field(default=3600, ge=0, le=7 * 86400)

    @model_validator(mode="after")
    def _check_backoff(self) -> "RestraintPolicy":
        if self.longest_backoff < self.backoff:
            raise ValueError(
                f"longest_backoff is {self.longest_backoff:g} s, and less than backoff "
                f"({self.backoff:g} s)"
            )
        return self


def check_scope(value: str) -> str:
    """What a pause is of, as it was given.

    :raises ValueError: it is neither a room nor a service.
    """
    if value in ("", *ROOMS) or _SERVICE.fullmatch(value):
        return value
    raise ValueError(
        f"must be a room or service:NAME; got {abbreviate(value)}{suggest(value, ROOMS)}"
    )


def _check_text(value: str) -> str:
    check_plain(value)
    if len(value) > LONGEST:
        raise ValueError(f"{len(value)} characters are too long; {LONGEST} are the most")
    return value


Scope = Annotated[str, AfterValidator(check_scope)]
Text = Annotated[str, AfterValidator(_check_text)]


class PauseSpec(BaseModel):
    """A pause, as somebody asks for it.

    :param only: a room or ``service:NAME``; empty for the whole host.
    :param who: who asks for it.
    :param why: the reason, in a line.
    :param until: when it runs out, in seconds since 1970; ``None`` where no time is named.
    :param lasts: seconds after which it runs out; ``None`` where a time is named, or for never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: Scope = ""
    who: Text
    why: Text = ""
    until: float | None = Field(default=None, ge=0, le=32503680000, allow_inf_nan=False)
    lasts: float | None = Field(default=None, gt=0, le=3660 * 86400, allow_inf_nan=False)


class ResumeSpec(BaseModel):
    """The end of pauses.

    :param only: the room or ``service:NAME`` that the pause is of; ``None`` for all of the host's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: Scope | None = None
