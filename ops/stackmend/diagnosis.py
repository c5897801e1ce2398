"""What a diagnosis of a host is made of: checks, findings by incident, their evidence. Pure."""

from typing import Literal

from stackmend.frozen import Frozen

#: How bad an incident is: the stack cannot serve, or data is at risk; something of it fails; it
#: works, and not as it should.
Severity = Literal["critical", "error", "warning"]

#: From the worst on.
SEVERITIES: tuple[Severity, ...] = ("critical", "error", "warning")


class Evidence(Frozen):
    """One line that says so.

    :param line: as it was read; cut where it is long.
    :param source: where it was read: an operation, a container's log, a unit's journal.
    :param age: seconds between the line and its reading; ``null`` where the line has no time.
    """

    line: str
    source: str
    age: float | None = None


class CheckOutcome(Frozen):
    """What came of looking for one incident, or of reading what one operation asks for.

    :param name: the incident's id, or the operation.
    :param status: ``ok``, ``finding``; ``unknown`` where what tells it could not be read, which is
        never ``ok``; ``skipped`` where an incident that was found keeps it from being read.
    :param reason: why it is unknown; of a skipped one, the id of that incident.
    """

    name: str
    status: Literal["ok", "finding", "unknown", "skipped"]
    reason: str = ""


class DiagnosedFinding(Frozen):
    """One incident that a host has, or something of a room's that no incident names.

    :param incident: its id; empty where none names it.
    :param title: what it is, in one line.
    :param severity: how bad it is.
    :param subjects: what it is about: services, ports, models.
    :param evidence: what says so.
    :param explained_by: the id of an incident found here that may cause it; empty for a root cause.
    :param explains: the ids of those found here that it may cause.
    :param steps: what stackmend would do, in order.
    :param remedy: what mends it.
    :param inventory: the line of inventory that would allow or ask for that; empty where none does.
    :param proof: what shows that it is mended.
    """

    incident: str = ""
    title: str
    severity: Severity
    subjects: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    explained_by: str = ""
    explains: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    remedy: str = ""
    inventory: str = ""
    proof: str = ""


class SupportFile(Frozen):
    """The end of a log, or what a command says, for whoever is asked for help.

    :param name: what it is, such as the name of a container.
    :param lines: its last lines, each without secrets and without what steers a terminal.
    """

    name: str
    lines: tuple[str, ...]


class HostSupport(Frozen):
    """What a support bundle holds of one host beside its record.

    :param versions: of what runs there, by name.
    :param settings: what the inventory says of it, without secrets.
    :param tables: what commands of the system and the engine show.
    :param journal: the last lines of the journal of changes.
    :param logs: those of the stack's containers.
    :param names: by which it or its addresses may be known, for whoever hides them.
    :param problem: why it could not be read; empty where it could.
    """

    versions: tuple[tuple[str, str], ...] = ()
    settings: str = ""
    tables: tuple[SupportFile, ...] = ()
    journal: tuple[str, ...] = ()
    logs: tuple[SupportFile, ...] = ()
    names: tuple[str, ...] = ()
    problem: str = ""


class Diagnosis(Frozen):
    """What one host has.

    :param schema_version: the version of this schema.
    :param findings: root causes first, each followed by those that it explains.
    :param checks: what came of looking for each incident, in the order of the catalogue.
    :param notes: what rooms noted and what fails nothing, one line each.
    :param only: the incidents and rooms that alone were asked for; empty for all.
    """

    schema_version: Literal[1] = 1
    findings: tuple[DiagnosedFinding, ...] = ()
    checks: tuple[CheckOutcome, ...] = ()
    notes: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found and everything could be read."""
        return not self.findings and not self.list_unknown()

    def list_unknown(self) -> tuple[CheckOutcome, ...]:
        """The checks that could not be made."""
        return tuple(check for check in self.checks if check.status in ("unknown", "skipped"))
