"""What one run of pyinfra found, planned, did, refused and measured, as it is written to disk."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

#: What a host is after the run. ``converged``: proven well, nothing was touched. ``changed``:
#: proven well after changes. ``drifted``: a dry run found something to do. ``unknown``: the run
#: ended before anything was proven.
Outcome = Literal["converged", "changed", "drifted", "refused", "failed", "unreachable", "unknown"]

#: Outcomes after which the host is as its inventory wants it.
WELL: frozenset[Outcome] = frozenset({"converged", "changed"})


def _is_aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs its offset from UTC")
    return value


Time = Annotated[datetime, AfterValidator(_is_aware)]


class Model(BaseModel):
    """A frozen part of the record."""

    # Built when a record is first made, not while pyinfra starts; then once, for all of them.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Finding(Model):
    """Something that is not as it is wanted, and how that is known."""

    subject: str
    cause: str
    evidence: str = ""


class Planned(Model):
    """An action that the plan holds."""

    action: str
    subject: str
    cause: str
    destructive: bool = False
    undo: str = ""


class Done(Model):
    """An action that was run, and whether it succeeded."""

    action: str
    subject: str
    cause: str = ""
    seconds: float = 0.0
    ok: bool = True
    undo: str = ""


class Refusal(Model):
    """What was not done, why, and what would allow it: a line of the inventory, or a way out."""

    subject: str
    reason: str
    consent: str = ""


class Failure(Model):
    """An error, with the last lines of the log that explains it."""

    message: str
    log: tuple[str, ...] = ()


class Measure(Model):
    """A number and its unit."""

    value: float
    unit: str


class OperationRecord(Model):
    """One operation on one host."""

    name: str
    findings: tuple[Finding, ...] = ()
    planned: tuple[Planned, ...] = ()
    done: tuple[Done, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    errors: tuple[Failure, ...] = ()
    measured: dict[str, Measure] = {}
    seconds: float = 0.0
    #: Whether the operation ran to its end; ``None`` where it was not executed.
    succeeded: bool | None = None
    changed: bool = False


class HostRecord(Model):
    """One host of the run."""

    outcome: Outcome
    operations: tuple[OperationRecord, ...] = ()
    #: Errors that belong to no operation, such as a refused connection.
    errors: tuple[Failure, ...] = ()
    #: Where the signal that ended the run met this host: the operation, and the step that was
    #: still under way there; empty where none did.
    interrupted_at: str = ""


class RunRecord(Model):
    """One run of pyinfra."""

    schema_version: Literal[1] = 1
    started: Time
    ended: Time
    controller: str
    mode: Literal["dry", "apply"]
    #: False where the run was ended before every host was done with.
    complete: bool
    #: The signal that ended the run, such as ``SIGTERM``; empty where none did.
    interrupted: str = ""
    hosts: dict[str, HostRecord] = {}

    def not_well(self) -> dict[str, Outcome]:
        """The hosts that are not proven to be as their inventory wants them."""
        return {name: h.outcome for name, h in self.hosts.items() if h.outcome not in WELL}
