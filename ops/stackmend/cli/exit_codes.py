"""What a command exits with, decided by the record of its run alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackmend.reporting.state import RunRecord

#: Every host is proven well, changed or not; of a dry run: every host was looked at.
ALL_WELL = 0
#: A host failed, was refused something, or nothing is known of it; the doctor found something.
FAILED = 1
#: The command line or the settings are wrong, or they ask nothing of any host.
WRONG = 2
#: A host cannot be reached, and no other has failed.
UNREACHABLE = 3
#: Another run holds the lock of a host, and nothing worse is known of any.
LOCKED = 4
#: With ``--detailed-exitcode``: all is well, and something was changed, or would be.
CHANGED = 10


def classify_record(record: RunRecord, *, detailed: bool = False) -> int:
    """The exit code of a run: what most needs a person comes first.

    :param record: the run.
    :param detailed: whether changes have a code of their own.

    Example:
        >>> classify_record(reporting.read(Path("var/reports/latest.json")))
        0
    """
    outcomes = {host.outcome for host in record.hosts.values()}
    if outcomes & {"failed", "refused", "unknown"} or not record.complete:
        return FAILED
    if any(
        host.outcome == "drifted" and host.diagnosis is not None for host in record.hosts.values()
    ):
        return FAILED
    if "unreachable" in outcomes:
        return UNREACHABLE
    if "locked" in outcomes:
        return LOCKED
    if outcomes <= {"unmanaged"}:
        return WRONG
    if detailed and outcomes & {"changed", "drifted"}:
        return CHANGED
    return ALL_WELL
