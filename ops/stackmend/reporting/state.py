"""What one run of pyinfra found, planned, did, refused and measured, as it is written to disk."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict

from stackmend.decision import Action, Finding, Refusal
from stackmend.diagnosis import Diagnosis

#: What a host is after the run. ``converged``: proven well, nothing was touched. ``changed``:
#: proven well after changes. ``drifted``: a dry run found something to do, or the doctor something
#: to mend. ``unmanaged``: the run asked nothing of it. ``locked``: another run is at work there.
#: ``paused``: somebody wants it left alone, and it was only looked at as far as that goes.
#: ``unknown``: the run ended before anything was proven, or the doctor could not read all of it.
Outcome = Literal[
    "converged",
    "changed",
    "drifted",
    "refused",
    "locked",
    "paused",
    "failed",
    "unreachable",
    "unmanaged",
    "unknown",
]

#: How a host is, as far as anybody has to hear of it.
State = Literal["well", "broken", "needs you"]


class Meaning(NamedTuple):
    """What an outcome means to whoever is shown it, or hears of it.

    :param colour: on a terminal.
    :param mark: on a page.
    :param state: how the host is then; ``None`` where the run does not say.
    """

    colour: str
    mark: Literal["good", "warn", "bad", "quiet"]
    state: State | None = None


MEANINGS: Mapping[Outcome, Meaning] = {
    "converged": Meaning("green", "good", "well"),
    "changed": Meaning("yellow", "good", "well"),
    "drifted": Meaning("yellow", "warn"),
    "refused": Meaning("magenta", "warn", "needs you"),
    "locked": Meaning("magenta", "warn"),
    "paused": Meaning("cyan", "quiet"),
    "failed": Meaning("red", "bad", "broken"),
    "unreachable": Meaning("red", "bad", "broken"),
    "unmanaged": Meaning("cyan", "quiet"),
    "unknown": Meaning("red", "bad"),
}

#: Outcomes after which the host is as its inventory wants it.
WELL: frozenset[Outcome] = frozenset(
    outcome for outcome, meaning in MEANINGS.items() if meaning.state == "well"
)


def _check_offset(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs its offset from UTC")
    return value


Time = Annotated[datetime, AfterValidator(_check_offset)]


class Model(BaseModel):
    """A frozen part of the record."""

    # Built when a record is first made, not while pyinfra starts; then once, for all of them.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Planned(Action):
    """An action that the plan holds, with the further fields of its class."""

    model_config = ConfigDict(extra="allow", defer_build=True)


class Done(Planned):
    """An action that was executed, with the further fields of its class.

    :param started: when; ``null`` in a report of version 1.
    :param seconds: how long it took.
    :param result: how it ended.
    """

    started: Time | None
    seconds: float
    result: Literal["done", "failed"]


class ErrorRecord(Model):
    """An error.

    :param message: what failed.
    :param log: the last lines of the log that explains it.
    """

    message: str
    log: tuple[str, ...] = ()


class Measure(Model):
    """A number.

    :param value: the number.
    :param unit: its unit.
    """

    value: float
    unit: str


class OperationRecord(Model):
    """One operation on one host.

    :param name: the operation.
    :param findings: what is not as it should be.
    :param planned: what the plan holds, in order.
    :param done: what was executed, in order.
    :param refusals: what will not be done.
    :param errors: what failed.
    :param measured: numbers, by name.
    :param seconds: how long it took.
    :param succeeded: whether it ran to its end; ``null`` where it was not executed.
    :param changed: whether it changed the host.
    """

    name: str
    findings: tuple[Finding, ...] = ()
    planned: tuple[Planned, ...] = ()
    done: tuple[Done, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    errors: tuple[ErrorRecord, ...] = ()
    measured: dict[str, Measure] = {}
    seconds: float = 0.0
    succeeded: bool | None = None
    changed: bool = False


class HostRecord(Model):
    """One host of the run.

    :param outcome: what it is after the run.
    :param reason: why nothing was asked of it, or who has paused it; empty otherwise.
    :param operations: the operations on it, in order.
    :param errors: those that belong to no operation, such as a refused connection.
    :param diagnosis: what the doctor says of it; ``null`` in a run of another deploy.
    :param interrupted_at: where the signal that ended the run met this host: the operation, and
        the step that was still under way there; empty where none did.
    :param worse: whether it was well, was changed by this run, and has failed since; or was made so
        by the run before and has failed again.
    """

    outcome: Outcome
    reason: str = ""
    operations: tuple[OperationRecord, ...] = ()
    errors: tuple[ErrorRecord, ...] = ()
    diagnosis: Diagnosis | None = None
    interrupted_at: str = ""
    worse: bool = False


class RunRecord(Model):
    """One run of stackmend.

    :param schema_version: the version of this schema.
    :param started: when the run began.
    :param ended: when it ended.
    :param controller: the machine that it ran on.
    :param mode: ``dry`` where it only looked.
    :param complete: ``false`` where the run ended before every host was done with.
    :param interrupted: the signal that ended the run, such as ``SIGTERM``; empty where none did.
    :param hosts: the hosts, by name.
    :param left_out: names of hosts that the inventory has, and that ``--limit`` left out.
    """

    schema_version: Literal[2] = 2
    started: Time
    ended: Time
    controller: str
    mode: Literal["dry", "apply"]
    complete: bool
    interrupted: str = ""
    hosts: dict[str, HostRecord] = {}
    left_out: tuple[str, ...] = ()

    def list_not_well(self) -> dict[str, Outcome]:
        """The hosts that are not proven to be as their inventory wants them.

        Those that nothing is asked of count only where nothing is asked of any: a run that proves
        nothing does not pass for one that proved all.
        """
        managed = any(host.outcome != "unmanaged" for host in self.hosts.values())
        fine = WELL | {"unmanaged"} if managed else WELL
        return {name: h.outcome for name, h in self.hosts.items() if h.outcome not in fine}
