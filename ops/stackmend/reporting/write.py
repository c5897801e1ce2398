"""From what was collected to the record on disk and the line at the end of the run."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from stackmend.connection import signals
from stackmend.decision import Deferred, Locked, Paused
from stackmend.redaction import format_safe_line, get_secrets
from stackmend.reporting import files, get_listener, summary
from stackmend.reporting.clean import clean
from stackmend.reporting.state import OperationRecord, Outcome, RunRecord

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting.collect import Collector, Run
    from stackmend.reporting.listener import Listener

#: Records kept in a directory; a schedule of five minutes writes this many in four days.
KEEP = 1000

#: Bytes that they may take together, the last one aside.
KEEP_BYTES = 1024**3


def conclude(run: Run) -> Path | None:
    """Write the record of a run, show it, tell whoever is to hear of it, and return where it lies.

    :param run: what was collected; no registered secret appears in the record

    Returns ``None`` where there is nothing to report or where it cannot be written; never raises.
    """
    try:
        record = build(run, datetime.now(UTC))
        if not record.hosts:
            return None
        _show_endings(run)
        data = clean(record.model_dump(mode="json"), get_secrets())
        record = RunRecord.model_validate(data)
        path = None
        try:
            path = save(data, find_directory(run), record.ended, run.id)
        except OSError as error:
            print(f"--> stackmend: the report could not be written: {error}", file=sys.stderr)
    except Exception as error:  # the report must never be what breaks the end of a run
        print(f"--> stackmend: no report: {format_safe_line(repr(error))}", file=sys.stderr)
        if listener := get_listener():
            listener.on_no_record()
        return None
    _show(record, path)
    if not run.quiet:
        _write_metrics(run, record)
        _notify(run, record, path)
    return path


def _show(record: RunRecord, path: Path | None) -> None:
    try:
        if listener := get_listener():
            listener.on_record(record, path)
        else:
            summary.show(record, path, sys.stderr)
    except Exception as error:  # it is written all the same
        reason = format_safe_line(repr(error))
        print(f"--> stackmend: the run cannot be shown: {reason}", file=sys.stderr)


def _write_metrics(run: Run, record: RunRecord) -> None:
    if not (chosen := _find_setting(run, "metrics")):
        return
    try:
        from stackmend.reporting import textfile

        path = Path(run.state.cwd or ".") / Path(str(chosen)).expanduser()
        textfile.write(path, record, {host.name for host in run.state.inventory})
    except Exception as error:  # they tell of a run; they fail none
        print(f"--> stackmend: the metrics could not be written: {_name(error)}", file=sys.stderr)


def _notify(run: Run, record: RunRecord, path: Path | None) -> None:
    """Send messages, but where a signal ended the run: unless it is a timer's, its sender knows."""
    try:
        targets = [_reveal(url) for url in _find_setting(run, "notify") or ()]
        ping = _reveal(_find_setting(run, "ping") or "")
        if not (targets or ping) or (signals.get_signal() and not signals.is_timed()):
            return
        from stackmend.reporting import notify

        last_line = summary.format_last_line(record, path)
        failed = notify.send(find_directory(run), record, last_line, targets, ping)
    except Exception as error:  # they tell of a run; they fail none
        failed = [f"the notices could not be sent: {_name(error)}"]
    for reason in failed:
        print(f"--> stackmend: {reason}", file=sys.stderr)


def _name(error: Exception) -> str:
    return format_safe_line(str(error) if isinstance(error, OSError) else repr(error))


def _reveal(value: Any) -> str:
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _show_endings(run: Run) -> None:
    for ending in run.endings.values() if not signals.get_signal() else ():
        try:
            ending.show(find_directory(run))
        except Exception as error:  # what is shown must not keep the record from being written
            print(f"--> stackmend: {format_safe_line(str(error) or repr(error))}", file=sys.stderr)


def build(run: Run, ended: datetime) -> RunRecord:
    """The record of a run, from what was collected and from what pyinfra itself knows.

    :param run: what was collected
    :param ended: when the run ended
    """
    state = run.state
    dry = run.dry if run.dry is not None else not state.is_executing
    hosts: dict[str, dict[str, Any]] = {}
    interrupted = signals.get_signal()
    complete = not interrupted
    left_out = []
    for host in state.inventory:
        if not state.is_host_in_limit(host):
            left_out.append(host.name)
            continue
        if host not in state.activated_hosts:
            if (error := run.connect_errors.get(host.name)) is not None:
                hosts[host.name] = {"outcome": "unreachable", "errors": [{"message": error}]}
            elif state.activated_hosts or run.connect_errors or interrupted:
                # pyinfra went on without it, or was ended while it was still connecting.
                failed = host in state.failed_hosts
                complete = complete and failed
                hosts[host.name] = {"outcome": "unreachable" if failed else "unknown"}
            continue
        operations = _build_operations(run, host)
        if not operations and not interrupted and (reason := _explain_unmanaged(run, host)):
            hosts[host.name] = {"outcome": "unmanaged", "reason": reason}
            continue
        if not dry and not _is_finished(run, host):
            complete = False
        hosts[host.name] = {
            "outcome": _classify_outcome(run, host, operations, dry=dry),
            "reason": run.explain_pause(host),
            "operations": operations,
            "diagnosis": run.diagnoses.get(host.name),
            "worse": host.name in run.worse,
        }
    if interrupted:
        for host in state.inventory:
            if host.name in hosts:
                hosts[host.name]["interrupted_at"] = _locate(run, host)
    return RunRecord.model_validate(
        {
            "started": run.started,
            "ended": ended,
            "controller": socket.gethostname(),
            "mode": "dry" if dry else "apply",
            "complete": complete,
            "interrupted": interrupted,
            "hosts": hosts,
            "left_out": left_out,
        }
    )


def classify_ended(run: Run, host: Host, *, failed: bool) -> Outcome:
    """How a host ended whose last operation is just over, and which pyinfra still counts as active.

    :param run: what was collected.
    :param host: the host.
    :param failed: whether that operation failed.
    """
    operations = _build_operations(run, host)
    # One may have failed before, and kept no other from being run.
    failed = failed or any(op.succeeded is False for op in operations)
    trouble = _classify_trouble(operations, failed=failed)
    if trouble and (failed or trouble == "paused"):
        return trouble
    if host.name in run.paused:
        return "paused"
    return "changed" if any(op.changed for op in operations) else "converged"


def announce_dry(run: Run, host: Host, listener: Listener) -> None:
    """Have it heard how a dry run ended on a host, where anything was asked of it.

    :param run: what was collected.
    :param host: the host, for which the deploy has come to its end.
    :param listener: who hears of it.
    """
    if operations := _build_operations(run, host):
        outcome = _classify_outcome(run, host, operations, dry=True)
        listener.on_host(host.name, outcome, run.measure_seconds())


def find_directory(run: Run) -> Path:
    """Where the records go: ``STACKMEND_REPORTS``, the inventory's setting, or ``var/reports``."""
    chosen = os.environ.get("STACKMEND_REPORTS") or _find_setting(run, "directory") or "var/reports"
    return Path(run.state.cwd or ".") / Path(str(chosen)).expanduser()


def has_got_worse(run: Run, host: Host, op_hash: str) -> bool:
    """Whether an operation made a host worse in a run before, and has not succeeded there since.

    :param run: the run of now, beside whose record the others lie.
    :param host: the host.
    :param op_hash: the operation, by pyinfra's name of it.
    """
    from stackmend.reporting import reader

    collector = run.collectors.get(host.name, {}).get(op_hash)
    if collector is None:
        return False
    return reader.has_got_worse(find_directory(run), host.name, collector.name)


def save(data: Mapping[str, Any], where: Path, ended: datetime, run: str) -> Path:
    """Write a record so that a reader sees all of it or nothing; ``latest.json`` then leads to it.

    :param data: the record
    :param where: the directory, made if it is missing
    :param ended: the time in its name
    :param run: the run's short name, in its name too

    Raises ``OSError`` where it cannot be written. Of its own records it keeps the newest 1000, and
    of these no more than have room in 1 GiB.
    """
    path = where / f"{ended.astimezone(UTC):%Y%m%dT%H%M%SZ}-{run}.json"
    files.write_json(path, data)
    link = where / f".{path.name}.tmp"
    link.symlink_to(path.name)
    link.replace(where / "latest.json")
    _prune(where)
    return path


def _build_operations(run: Run, host: Host) -> list[OperationRecord]:
    collectors = dict(run.collectors.get(host.name, {}))
    records = []
    for op_hash, data in run.state.ops[host].items():
        collector = collectors.pop(op_hash, None)
        meta = data.operation_meta
        finished = meta.is_complete()
        records.append(
            _format_operation(
                collector,
                name=", ".join(sorted(run.state.op_meta[op_hash].names)),
                seconds=round(run.seconds.get((host.name, op_hash), 0.0), 3),
                succeeded=meta.did_succeed() if finished else None,
                changed=finished and meta.did_change(),
            )
        )
    records.extend(_format_operation(collector) for collector in collectors.values())
    return records


def _format_operation(collector: Collector | None, **fields: Any) -> OperationRecord:
    if collector is not None:
        fields |= {
            "name": collector.name,
            "findings": collector.findings,
            "planned": collector.planned,
            "done": collector.done,
            "refusals": collector.refusals,
            "errors": collector.errors,
            "measured": collector.measures,
            "changed": collector.changed,
        }
    return OperationRecord.model_validate(fields)


def _classify_outcome(
    run: Run, host: Host, operations: Sequence[OperationRecord], *, dry: bool
) -> Outcome:
    if run.observed:
        return _classify_observed(run, host, operations)
    failed = host in run.state.failed_hosts or any(op.succeeded is False for op in operations)
    if trouble := _classify_trouble(operations, failed=failed):
        return trouble
    if not dry and not _is_finished(run, host):
        return "unknown"
    if host.name in run.paused:
        return "paused"
    if dry:
        return _forecast(run, host, operations)
    return "changed" if any(op.changed for op in operations) else "converged"


def _classify_trouble(operations: Sequence[OperationRecord], *, failed: bool) -> Outcome | None:
    refused = _classify_refusals(operations)
    erred = any(op.errors and op.succeeded is not True for op in operations)
    # Nothing that is paused fails.
    return "failed" if erred or (failed and refused in (None, "paused")) else refused


def _classify_refusals(operations: Sequence[OperationRecord]) -> Outcome | None:
    refusals = [refusal for op in operations for refusal in op.refusals]
    if not refusals:
        return None
    kinds = {type(each) for each in refusals}
    if not kinds <= {Locked, Paused, Deferred}:
        return "refused"
    if Deferred in kinds:
        return "failed"
    return "locked" if Locked in kinds else "paused"


def _classify_observed(run: Run, host: Host, operations: Sequence[OperationRecord]) -> Outcome:
    """What a host is that was only observed; what could not be read is never well."""
    diagnosis = run.diagnoses.get(host.name)
    if host in run.state.failed_hosts:
        return "failed"
    if diagnosis is None:
        return "unknown"
    if diagnosis.only:
        # Of the rest nothing was asked.
        operations = ()
    refused = _classify_refusals(operations)
    # What was found although another run is at work there is to be heard of.
    if refused and not (refused == "locked" and diagnosis.findings):
        return refused
    if diagnosis.findings or any(op.planned for op in operations):
        return "drifted"
    erred = any(op.errors for op in operations)
    return "unknown" if erred or diagnosis.list_unknown() else "converged"


def _forecast(run: Run, host: Host, operations: Sequence[OperationRecord]) -> Outcome:
    metas = [data.operation_meta for data in run.state.ops[host].values()]
    # What is found and left alone, such as a foreign container, is nothing to do.
    if any(op.planned for op in operations) or any(meta._maybe_is_change for meta in metas):
        return "drifted"
    # With --yes pyinfra evaluates nothing while it prepares, so a dry run has observed nothing.
    observed = metas and all(meta._maybe_is_change is not None for meta in metas)
    return "converged" if observed else "unknown"


def _is_finished(run: Run, host: Host) -> bool:
    """Whether all that there was to do on the host was done, or its failure ended it."""
    if host in run.state.failed_hosts:
        return True
    datas = run.state.ops[host].values()
    return bool(datas) and all(data.operation_meta.is_complete() for data in datas)


def _explain_unmanaged(run: Run, host: Host) -> str:
    """Why nothing was asked of a host that has no operation; empty where that is not known."""
    executing, ended = run.state.is_executing, run.ended_deploys.get(host.name, [])
    # Before the operations begin, more of them may be to come; a dry run never comes to that.
    if host in run.state.failed_hosts or not (executing or run.dry):
        return ""
    nothing = "nothing was asked of this host"
    if "stack" not in host.data.dict():  # type: ignore[no-untyped-call]
        return f"{nothing}: no `stack` in its data"
    if ended and all(ended):
        return f"{nothing}: no `{'`, `'.join(dict.fromkeys(ended))}` in its `stack`"
    if executing or ended:
        return f"{nothing}: this deploy applies nothing that its `stack` holds"
    return ""


def _locate(run: Run, host: Host) -> str:
    """Where a host is when a signal ends the run."""
    if host not in run.state.activated_hosts:
        return "" if host in run.state.failed_hosts else "connecting"
    steps = ", ".join(signals.list_steps(host.name))
    operation = run.get_operation(host)
    if steps:
        return f"{operation}: {steps}" if operation else steps
    if not operation and not run.state.is_executing:
        return "preparing"
    return operation


def _find_setting(run: Run, field: str) -> Any:
    """A field of ``report``, of the first host that has it; ``None`` where none does."""
    return next(filter(None, (_get_setting(host, field) for host in run.state.inventory)), None)


def _get_setting(host: Host, field: str) -> Any:
    stack = host.data.get("stack")
    section = stack.get("report") if isinstance(stack, Mapping) else getattr(stack, "report", None)
    if isinstance(section, Mapping):
        return section.get(field)
    return getattr(section, field, None)


def _prune(where: Path) -> None:
    records = sorted(path for path in where.iterdir() if files.RECORD_NAME.fullmatch(path.name))
    left = KEEP_BYTES
    for number, path in enumerate(reversed(records)):
        with suppress(OSError):
            left -= path.stat().st_size
            if number >= KEEP or (number and left < 0):
                path.unlink()
