"""What was measured, on the host and on the controller."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from stackmend import connection, reporting
from stackmend.answers import read_json
from stackmend.errors import StepError
from stackmend.redaction import get_secrets
from stackmend.reporting import files, write
from stackmend.reporting.clean import clean, find_own_words
from stackmend.worker.benchmark import commands
from stackmend.worker.benchmark.spec import ROOT, BenchmarkSpec
from stackmend.worker.benchmark.state import (
    SCHEMA,
    Entry,
    Figures,
    Measurement,
    Past,
    Record,
    Reference,
    Result,
    Summary,
)

#: What to do about what a file system says.
_REMEDIES = {
    "No space left on device": "free {room} there",
    "Disk quota exceeded": "free {room} there, or raise the quota",
    "Read-only file system": "mount it writable",
}
_ADVICE = re.compile(r"[:;] (?:move|replace|see|make) ")

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Bytes of a file with samples: more than the largest profile comes to, of which most answers are
#: short and asked again, and all is measured once more. And of a record, as the probe reads it.
LONGEST, LONGEST_RECORD = 64 << 20, 4 << 20

#: Bytes that a host has to have for each sample, and besides.
SAMPLE, BESIDES = 512, 1 << 20

#: What servers are called here, and how a load is written.
_ENGINE = r"ollama|llama\.cpp|llama-cpp-python|vllm|queue"
_LOAD = r"concurrency [0-9]+|[0-9.e+-]+ requests/s"


@dataclass(frozen=True)
class Files:
    """The files of one server's measurements, on the host.

    :param record: what each run reads: the figures of the latest results, and the history.
    :param latest: the latest measurement, with its samples.
    :param asking: what is there as long as a queue may have tasks of a measurement.
    """

    record: str
    latest: str
    asking: str


def get_files(spec: BenchmarkSpec) -> Files:
    """Where what is measured lies on the host."""
    stem = f"{ROOT}/{spec.slug}"
    return Files(f"{stem}.json", f"{stem}.latest.json", f"{stem}.asking")


def reserve(host: Host, files: Files, spec: BenchmarkSpec) -> None:
    """See that a host can keep a result, before it is measured.

    :param host: the host.
    :param files: where it is to lie.
    :param spec: what is to be measured.
    :raises StepError: it cannot.
    """
    room = BESIDES + spec.profile.samples * SAMPLE
    result = connection.run(host, commands.reserve(room, [files.record, files.latest]))
    if not result.ok:
        raise StepError(explain_failure(files.record, result.reason, room), status=result.status)


def explain_failure(path: str, reason: str, room: int) -> str:
    """Why a file cannot be written, and what to do about that.

    >>> explain_failure("/d/x.json", "head: write error: No space left on device", 5 << 20)
    'cannot write /d/x.json: No space left on device; free 5 MiB there, then run again'

    :param path: the file.
    :param reason: what its host said.
    :param room: bytes that are needed.
    """
    known = next((text for text in _REMEDIES if text in reason), "")
    if known or not _ADVICE.search(reason):
        remedy = _REMEDIES.get(known, "make it writable").format(room=f"{-(-room >> 20)} MiB")
        return f"cannot write {path}: {known or reason}; {remedy}, then run again"
    # What is in the way says itself what to do.
    return f"cannot write {path}: {reason.removesuffix(', then run again')}, then run again"


def write_result(host: Host, files: Files, measurement: Measurement, record: Record) -> None:
    """Write a measurement to its host; the record comes last, and makes it hold.

    :param host: the host.
    :param files: where to.
    :param measurement: with its samples.
    :param record: what each run will read.
    :raises StepError: it cannot be written.
    """
    samples = _dump(measurement)
    if len(samples) > LONGEST:
        raise StepError(
            f"the samples have {len(samples)} bytes, more than {LONGEST}; "
            "ask for fewer requests, repeats or levels in the profile"
        )
    _write(host, files.latest, samples)
    _write(host, files.record, _dump(fit(record)))


def fit(record: Record, longest: int = LONGEST_RECORD) -> Record:
    """A record as long as a host may keep it: without the oldest of what it is longer by.

    What the latest is held against goes last, and the latest stays.

    :param record: what is to be kept.
    :param longest: bytes.
    """
    while len(_dump(record)) > longest:
        if len(record.history) > len(record.steady):
            half = (len(record.history) + 1) // 2
            record = record.model_copy(update={"history": record.history[half:]})
        elif record.steady:
            record = record.model_copy(update={"steady": record.steady[1:]})
        elif record.previous is not None:
            record = record.model_copy(update={"previous": None})
        elif record.history or record.best or record.held:
            record = record.model_copy(update={"history": (), "best": (), "held": ()})
        else:
            return record
    return record


def _dump(model: Measurement | Record) -> bytes:
    """A model without what is as by default, but for the version that says what that is."""
    fields = model.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({"schema_version": SCHEMA, **fields}, separators=(",", ":")).encode()


def _write(host: Host, path: str, data: bytes) -> None:
    result = connection.run(host, commands.write(path), stdin=data)
    if not result.ok:
        raise StepError(explain_failure(path, result.reason, len(data)), status=result.status)


def read_measurement(host: Host, path: str, at: float) -> Measurement | None:
    """A measurement that the host keeps; ``None`` where it has not that one any more.

    :param host: the host; the measurement has its name here, whatever it was called before.
    :param path: its file.
    :param at: when it began.
    """
    command = commands.read(path, LONGEST + 1)
    result = connection.run(host, command, readonly=True)
    if not result.ok:
        return None
    try:
        found = Measurement.model_validate(read_json(result.stdout, LONGEST))
    except (ValidationError, ValueError):
        return None
    if (found.schema_version, found.at) != (SCHEMA, at):
        return None
    return found.model_copy(update={"host": host.name})


def restore_measurement(host: Host, spec: BenchmarkSpec, entry: Entry, model: str) -> Measurement:
    """A measurement of which the host has the figures alone: without its samples.

    :param host: the host.
    :param spec: what was measured.
    :param entry: the figures, as the record has them.
    :param model: the name of the model that was asked.
    """
    return Measurement(
        target=spec.target,
        name=spec.server,
        model=model,
        host=host.name,
        at=entry.at,
        cause=entry.cause,
        fingerprint=entry.fingerprint,
        limits=entry.limits,
        levels=(),
    )


def find_path(host: Host, slug: str, at: float) -> Path | None:
    """Where a result lies on the controller; ``None`` where this run writes no report.

    :param host: the host.
    :param slug: what was measured there, in one word: of one host there may be several servers.
    :param at: when it was measured.
    """
    run = reporting.find_run(host.state)
    if run is None:
        return None
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", host.name).strip(".")[:80] or "host"
    # Names that differ only in what no file's name holds, or in case, stay apart.
    name += f".{sha256(host.name.encode()).hexdigest()[:8]}"
    moment = datetime.fromtimestamp(at, UTC)
    return (
        write.find_directory(run)
        / "benchmarks"
        / f"{name}-{slug[-120:]}-{moment:%Y%m%dT%H%M%SZ}.json"
    )


def collect(host: Host, slug: str, result: Result) -> Path | None:
    """Write a result to the controller, without the secrets of this run.

    :param host: the host.
    :param slug: what was measured there, in one word.
    :param result: the result.
    :returns: where it lies.
    :raises StepError: it cannot be written.
    """
    path = find_path(host, slug, result.measurement.at)
    if path is None:
        return None
    try:
        data = clean(result.model_dump(mode="json"), get_secrets(), _list_fixed())
        files.write_json(path, data)
    except OSError as error:
        reason = f"cannot write the result to {path}: {error.strerror}"
        raise StepError(f"{reason}; make it writable, then run again") from error
    return path


@cache
def _list_fixed() -> dict[str, str]:
    """By field, our own words in a result: a password that is one of them unmakes none."""
    by_load = dict.fromkeys(Past.model_fields.keys() - {"at", "asked"}, _LOAD)
    named = {"engine": _ENGINE, "figure": "|".join(Figures.model_fields)}
    return find_own_words(Result) | by_load | named


def make_entry(measurement: Measurement, summaries: Sequence[Summary], retries: int = 0) -> Entry:
    """A measurement as the record has it.

    :param measurement: with its samples.
    :param summaries: of its levels.
    :param retries: how many results in a row before it were noisy or failed.
    """
    return Entry(
        at=measurement.at,
        cause=measurement.cause,
        fingerprint=measurement.fingerprint,
        limits=measurement.limits,
        retries=retries,
        summaries=tuple(summaries),
    )


def make_baseline(measurement: Measurement, held: Sequence[Reference]) -> Measurement | None:
    """What a measurement is held against as pictures name it: without its samples.

    :param measurement: the measurement.
    :param held: what its levels are held against; the latest of these gives the name.
    """
    newest = max(held, key=lambda reference: reference.at, default=None)
    if newest is None:
        return None
    return measurement.model_copy(
        update={
            "at": newest.at,
            "cause": "",
            "fingerprint": newest.fingerprint,
            "rtt": 0.0,
            "load": None,
            "levels": (),
        }
    )
