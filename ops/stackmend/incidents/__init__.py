"""What goes wrong with a stack, by name: symptoms, diagnosis, remedy, proof.

An incident is data plus code (:class:`~stackmend.incidents.spec.Incident`); ``docs/doctor.md``
shows how to add one's own. Nothing in here changes a host.
"""

from collections.abc import Generator, Sequence
from pathlib import Path

from pyinfra import host
from pyinfra.api import FunctionCommand, operation
from pyinfra.context import ctx_host

from stackmend import connection, reporting
from stackmend.diagnosis import HostSupport
from stackmend.incidents import custom, searching, selection
from stackmend.incidents.catalogue import list_incidents
from stackmend.incidents.reasoning import diagnose
from stackmend.incidents.spec import Incident, StatePattern, TextPattern, Undetermined
from stackmend.incidents.state import (
    Listener,
    Log,
    LogLine,
    Observations,
    RoomReading,
    Symptoms,
)
from stackmend.incidents.texts import Match, diagnose_text
from stackmend.reconcile import find_other_run, list_readings

__all__ = [
    "Incident",
    "Listener",
    "Log",
    "LogLine",
    "Match",
    "Observations",
    "RoomReading",
    "StatePattern",
    "Symptoms",
    "TextPattern",
    "Undetermined",
    "diagnose",
    "diagnose_text",
    "diagnosed",
    "list_incidents",
    "load",
    "prefetch",
]

load = custom.load


@operation()
def diagnosed(
    project: str = "", own: Sequence[str | Path] = (), only: str | None = None
) -> Generator[FunctionCommand, None, None]:
    """
    Say what is wrong with a host, by name, root causes first.

    + project: the Compose project whose containers' logs are read; empty for all
    + own: Python files of this machine that define incidents of your own, see ``docs/doctor.md``
    + only: incidents and rooms, with commas, that alone are asked for; by default all

    Changes nothing. It rests on what the other operations of a run read that
    ``stackmend.reconcile.observe_only`` has observe and no more, and on what the host's logs,
    journals and events say of the last ten minutes. What it finds is shown once the run has ended,
    and stands in the run's record as ``diagnosis``; it never fails the host.

    **Example:**

    .. code:: python

        from stackmend import incidents

        incidents.diagnosed(name="What is wrong, and why", project="ai")
    """
    report = reporting.record(host, "incidents.diagnosed")
    symptoms, problem = _read_symptoms(project)
    observations = Observations(
        rooms=tuple(
            RoomReading(operation=name, **vars(reading))
            for name, reading in list_readings(host).items()
        ),
        symptoms=symptoms,
        problem=problem,
    )
    files = [*map(Path, own)]
    known = list_incidents(custom.load(files))
    diagnosis = selection.select(
        diagnose(observations, known, searching.search(observations, files)),
        selection.parse(only, known),
        known,
    )
    # What another run is changing now is shown as it is now, half made.
    if diagnosis.findings and (busy := find_other_run(host)):
        note = f"{busy.reason}: what it has not made yet may stand among the findings"
        diagnosis = diagnosis.model_copy(update={"notes": (note, *diagnosis.notes)})
    reporting.add_diagnosis(host, diagnosis)
    _collect_support(project)
    report.add_measure("channels", connection.count_channels(host), "channels")
    yield from ()


def prefetch(project: str = "") -> None:
    """Let the next reading of any fact of the host bring what :func:`diagnosed` needs.

    To be called while a deploy is prepared; reaches no host.

    :param project: as for :func:`diagnosed`.
    """
    from stackmend.incidents.facts import RecentSymptoms

    to = ctx_host.get()  # type: ignore[no-untyped-call]
    connection.prefetch(to, RecentSymptoms, project=project)
    if _has_support_listener():
        from stackmend.incidents.support import SupportReading

        connection.prefetch(to, SupportReading, project=project)


def _has_support_listener() -> bool:
    listener = reporting.get_listener()
    return listener is not None and listener.wants_support


def _collect_support(project: str) -> None:
    """Have heard what a support bundle holds of the host, where one is asked for."""
    listener = reporting.get_listener()
    if listener is None or not listener.wants_support:
        return
    from stackmend.incidents.support import SupportReading, format_settings

    data = host.data.dict()  # type: ignore[no-untyped-call]
    try:
        found = connection.read(host, SupportReading, project=project)
    except connection.RemoteError as error:
        found = HostSupport(problem=str(error))
    if isinstance(found, connection.Unknown):
        found = HostSupport(problem=found.reason)
    names = (*found.names, str(data.get("ssh_hostname") or ""))
    about = {"settings": format_settings(data), "names": tuple(filter(None, names))}
    listener.on_support(host.name, found.model_copy(update=about))


def _read_symptoms(project: str) -> tuple[Symptoms, str]:
    from stackmend.incidents.facts import RecentSymptoms

    try:
        found = connection.read(host, RecentSymptoms, project=project)
    except connection.RemoteError as error:
        return Symptoms(), str(error)
    if isinstance(found, connection.Unknown):
        return Symptoms(), found.reason
    return found, ""
