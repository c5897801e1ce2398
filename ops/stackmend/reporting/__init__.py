"""One record per run: what was found, planned, done, refused and measured on every host.

A room adds its plan and its steps to the collector of the operation it runs in:

.. code:: python

    from stackmend import reporting

    report = reporting.record(host)
    report.add_plan(plan)

The record is written once, when the process ends: also after a dry run, after Ctrl-C, and when
hosts could not be reached. It lies in ``var/reports`` below the directory that pyinfra was started
in, unless ``host.data.stack["report"]["directory"]`` or the variable ``STACKMEND_REPORTS`` names
another. ``schema-2.json`` beside this file is its JSON Schema; :func:`read` reads it again.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any

from stackmend import redaction
from stackmend.connection import signals

if TYPE_CHECKING:
    from pathlib import Path

    from pyinfra.api.host import Host
    from pyinfra.api.inventory import Inventory
    from pyinfra.api.state import State

    from stackmend.diagnosis import Diagnosis
    from stackmend.reporting.collect import Collector as Collector
    from stackmend.reporting.collect import E, Run
    from stackmend.reporting.collect import Ending as Ending
    from stackmend.reporting.listener import Listener
    from stackmend.reporting.state import RunRecord

__all__ = [
    "Collector",
    "Ending",
    "add_diagnosis",
    "end_deploy",
    "end_runs",
    "find_record",
    "find_run",
    "finish",
    "get_ending",
    "get_listener",
    "get_run_id",
    "has_got_worse",
    "install",
    "keep_quiet",
    "listen",
    "mark_observed",
    "mark_part_paused",
    "mark_paused",
    "mark_worse",
    "read",
    "record",
    "secret",
]

# Commands of pyinfra that read hosts without running operations have nothing to report.
_NOT_A_RUN = frozenset({"fact", "debug-inventory"})

_runs: dict[int, Run] = {}
_listener: Listener | None = None
#: Paths of secrets that were found too short.
_warned: set[str] = set()


def __getattr__(name: str) -> Any:
    # The models cost more to import than all that a run needs which has nothing to report.
    if name in ("Collector", "Ending"):
        from stackmend.reporting import collect

        return getattr(collect, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def record(host: Host, operation: str | None = None) -> Collector:
    """The collector of the operation that runs on this host.

    :param host: the pyinfra host
    :param operation: the name to report it under; by default the one pyinfra prints

    Call it once where the operation begins: what an earlier evaluation of the same operation found,
    planned or refused is dropped, what it did stays.

    **Example:**

    .. code:: python

        report = reporting.record(host, "compose.stack (ai)")
        report.add_measure("channels", 1, "channels")
    """
    return _run(host.state).get_collector(host, operation)


def end_deploy(host: Host, applies: str = "") -> None:
    """Say that a deploy has come to its end for a host, with all that it asks of it.

    A dry run ends there. Only so its record can say of a host that nothing was asked of it:
    a deploy that broke off looks the same. To be called last in a deploy.

    :param host: the pyinfra host
    :param applies: the one section of a stack that the deploy applies, as ``worker.benchmark``

    Example::

        reporting.end_deploy(host, applies="worker.benchmark")
    """
    run = _run(host.state)
    run.ended_deploys.setdefault(host.name, []).append(applies)
    if run.dry and not run.observed and _listener is not None:
        from stackmend.reporting import write

        write.announce_dry(run, host, _listener)


def find_report_directory(state: State) -> Path:
    """Where the record of this run is written.

    :param state: the pyinfra state of the run
    """
    from stackmend.reporting import write

    return write.find_directory(_run(state))


def mark_observed(state: State) -> None:
    """Have the record of this run say that it only looked, as that of a dry run does.

    :param state: the pyinfra state of the run
    """
    run = _run(state)
    run.dry = run.observed = True


def mark_worse(host: Host) -> None:
    """Have the record of this run say that its changes made a host worse than it was.

    :param host: the pyinfra host
    """
    _run(host.state).worse.add(host.name)


def has_got_worse(host: Host, op_hash: str) -> bool:
    """Whether an operation made a host worse in a run before, and has not succeeded there since.

    :param host: the pyinfra host
    :param op_hash: the operation, by pyinfra's name of it
    """
    from stackmend.reporting import write

    return write.has_got_worse(_run(host.state), host, op_hash)


def mark_paused(host: Host, reason: str) -> None:
    """Have the record of this run say that somebody has paused a host as a whole.

    :param host: the pyinfra host
    :param reason: who, since when, and why
    """
    _run(host.state).paused[host.name] = reason


def mark_part_paused(host: Host, part: str, reason: str) -> None:
    """Have the record of this run name who has paused a part of a host, however it ends there.

    :param host: the host.
    :param part: a room, or a service.
    :param reason: who, since when, until when and why, in a line.
    """
    _run(host.state).paused_parts.setdefault(host.name, {})[part] = reason


def keep_quiet(host: Host) -> None:
    """Have this run leave no metrics and send no notices: it says nothing of how its hosts are.

    :param host: a pyinfra host of the run
    """
    _run(host.state).quiet = True


def add_diagnosis(host: Host, diagnosis: Diagnosis) -> None:
    """Add what a host has to the record of this run, in place of an earlier one.

    :param host: the pyinfra host
    :param diagnosis: what it has
    """
    run = _run(host.state)
    run.diagnoses[host.name] = diagnosis
    if _listener is not None:
        from stackmend.reporting import write

        write.announce_dry(run, host, _listener)


def read(path: Path) -> RunRecord:
    """The record of a run, from a report of version 1 or 2.

    :param path: the report

    Raises ``ReportError``, a ``ValueError``, where it is none: it names the file and the field.
    """
    from stackmend.reporting import reader

    return reader.read(path)


def find_record(state: State, name: str) -> Path:
    """Where the record of an earlier run lies.

    :param state: the pyinfra state of a run, beside whose record it lies.
    :param name: its path, or the id of its run, which its file's name ends with.

    Raises ``ReportError``, a ``ValueError``, where there is none.
    """
    from stackmend.reporting import reader, write

    return reader.find_record(write.find_directory(_run(state)), name)


def secret(value: str | bytes | None) -> None:
    """Never let this value appear on the terminal, in a report, a journal or an error.

    :param value: the secret; ``None`` and an empty one are ignored
    """
    redaction.register(value)


def install() -> None:
    """Report this run even if no host can be reached. To be called last from ``config.py``.

    pyinfra reads ``config.py`` before it knows its hosts, so this only arranges to start when it
    does. Without it a run is reported from the first operation of stackmend on. From here on all
    output passes the redactor, which knows the secrets of every host's data before anything else
    reads them, and a signal ends the run as ``stackmend.connection.signals`` says.
    """
    from pyinfra.context import ctx_state

    state: State | None = ctx_state.get()  # type: ignore[no-untyped-call]
    signals.install(end_runs)
    if state is None:
        return
    _guard()
    if state.initialised:
        _learn(state.inventory)
        if _get_command() not in _NOT_A_RUN:
            _run(state)
        return
    original = state.init

    def init(inventory: Inventory, *args: Any, **kwargs: Any) -> None:
        _learn(inventory)
        original(inventory, *args, **kwargs)
        if _get_command() not in _NOT_A_RUN:
            _run(state)

    # State.init empties the list of callback handlers: they can only be added after it.
    state.init = init  # type: ignore[method-assign]


def listen(listener: Listener) -> None:
    """Have a run heard by a program that shows it itself: its summary is then not printed.

    :param listener: who hears of it; a later one takes its place.
    """
    global _listener
    _listener = listener


def get_listener() -> Listener | None:
    """Who hears of the run; ``None`` where nobody does, and its summary is printed."""
    return _listener


def find_run(state: State) -> Run | None:
    """What is collected about the run of this state, if anything is."""
    return _runs.get(id(state))


def get_run_id(state: State) -> str:
    """The short name of this run, as it stands in its record's file name and in hosts' journals."""
    return _run(state).id


def get_ending(host: Host, kind: type[E]) -> E:
    """What a room shows of all hosts together once the run has ended: one for each run.

    :param host: the pyinfra host
    :param kind: its class, which takes no arguments
    """
    return _run(host.state).get_ending(kind)


def finish(state: State) -> Path | None:
    """Write the record of this run and print its path; the end of the process does so by itself.

    :param state: the pyinfra state of the run

    Returns the path of the record, or ``None`` where nothing was begun, where it was written
    already, or where it cannot be written, which is said on stderr and fails nothing.
    """
    run = _runs.pop(id(state), None)
    if run is None:
        return None
    from stackmend.reporting import write

    return write.conclude(run)


def end_runs() -> None:
    """Write the record of each run that is not finished; a signal that comes later ends nothing.

    The end of the process does so by itself.
    """
    signals.begin_closing()
    for run in list(_runs.values()):
        finish(run.state)


def _get_command() -> str:
    """The first word after the inventory on pyinfra's command line, if there is one."""
    operations = _get_parameters().get("operations") or ("",)
    return str(operations[0])


def _get_parameters() -> dict[str, Any]:
    """What pyinfra was called with; empty where it was not called by its command line."""
    import click

    context = click.get_current_context(silent=True)
    return context.params if context else {}


def _run(state: State) -> Run:
    run = _runs.get(id(state))
    if run is None:
        from stackmend.reporting.callbacks import Watch
        from stackmend.reporting.collect import Run

        _guard()
        _learn(state.inventory)
        if not _runs:
            atexit.register(end_runs)
            signals.install(end_runs)
        run = _runs[id(state)] = Run(state, dry=_get_parameters().get("dry"))
        state.add_callback_handler(Watch())  # type: ignore[no-untyped-call]
    return run


def _guard() -> None:
    import pyinfra

    if pyinfra.is_cli:
        from stackmend import terminal

        terminal.install()


def _learn(inventory: Inventory) -> None:
    """Know every secret in the data of the hosts; warn of those that can hardly be hidden."""
    short = {}
    for host in inventory:
        for path, value in redaction.find_secrets(host.data.dict()):  # type: ignore[no-untyped-call]
            redaction.register(value)
            if 0 < len(value.strip()) < redaction.SHORTEST:
                short[path] = value
    from pyinfra import logger

    for path in short.keys() - _warned:
        _warned.add(path)
        logger.warning(
            "%s: a secret of fewer than %s characters is hidden only where it stands as a word of "
            "its own: take a longer one",
            path,
            redaction.SHORTEST,
        )
