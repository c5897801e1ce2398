"""Reports on disk, of every version, as the model of the latest."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from stackmend import controller_files
from stackmend.answers import read_json
from stackmend.decision import Finding, Refusal
from stackmend.problems import list_problems, show
from stackmend.reporting.files import RECORD_NAME
from stackmend.reporting.state import Done, HostRecord, OperationRecord, Planned, RunRecord

#: Bytes of a record of very many hosts.
MAXIMUM = 64 * 1024**2

#: Words of a finding's kind at most.
KIND_WORDS = 3


#: How the name of a record's file ends, before ``.json``.
RUN_ID = re.compile(r"[0-9a-f]{6}")


#: How many records are looked through for one of a certain kind, the latest first.
MOST_LOOKED = 500


class ReportError(ValueError):
    """A file is no report; the text names the file and the field."""


def find_latest(directory: Path | None = None) -> Path:
    """Where the report of the latest run lies.

    :param directory: the directory of reports; without it the one that the variable
        ``STACKMEND_REPORTS`` names, or ``var/reports``.
    """
    return (directory or Path(os.environ.get("STACKMEND_REPORTS") or "var/reports")) / "latest.json"


def find_record(directory: Path, name: str) -> Path:
    """Where the record of a run lies.

    :param directory: where records lie.
    :param name: a path, or the id of the run.
    :raises ReportError: no record, or more than one, has that id.
    """
    if not RUN_ID.fullmatch(name):
        return Path(name)
    try:
        found = [
            each
            for each in directory.iterdir()
            if RECORD_NAME.fullmatch(each.name) and each.stem.endswith(f"-{name}")
        ]
    except OSError:
        found = []
    if len(found) != 1:
        raise ReportError(f"{len(found)} records of a run {name} lie in {show(str(directory))}")
    return found[0]


def list_before(path: Path, most: int) -> list[RunRecord]:
    """The records of the runs before one, from its own directory, and the latest of each host.

    What is no report is left out.

    :param path: the record of that one, by its own name: records are named by their times.
    :param most: how many at most, the latest; of older ones those that are the latest of a host.
    """
    try:
        names = sorted(
            each.name for each in path.parent.iterdir() if RECORD_NAME.fullmatch(each.name)
        )
    except OSError:
        return []
    names = [name for name in names if name < path.name]
    first = max(0, len(names) - most)
    recent = list(_read_all(path.with_name(name) for name in names[first:]))
    known = {host for record in recent for host in record.hosts}
    older = []
    for name in reversed(names[:first]):
        if hosts := _list_hosts(path.with_name(name)) - known:
            known |= hosts
            older.append(path.with_name(name))
    return [*_read_all(reversed(older)), *recent]


def _read_all(paths: Iterable[Path]) -> Iterator[RunRecord]:
    for path in paths:
        with suppress(ReportError):
            yield read(path)


class _Hosts(BaseModel):
    """The names of the hosts of a record, of which nothing else is kept: that takes no time."""

    hosts: dict[str, object] = {}


def _list_hosts(path: Path) -> set[str]:
    with suppress(ValueError):
        return {*_Hosts.model_validate_json(controller_files.read(path, MAXIMUM)).hosts}
    return set()


class _Ended(BaseModel):
    """How an operation ended."""

    name: str = ""
    succeeded: bool | None = None


class _Host(BaseModel):
    """How a host ended, of which nothing else is kept."""

    worse: bool = False
    operations: list[_Ended] = []


class _Run(BaseModel):
    """How a run ended, of which nothing else is kept: that takes no time."""

    mode: str = ""
    hosts: dict[str, _Host] = {}


def has_got_worse(directory: Path, host: str, operation: str) -> bool:
    """Whether an operation made a host worse, and has not succeeded there since.

    Runs that only looked, that left the host out, or in which the operation did not come to change
    it, such as of another deploy, say nothing of that.

    :param directory: where records lie.
    :param host: the name of the host.
    :param operation: the name of the operation in records.
    """
    try:
        names = sorted(
            each.name for each in directory.iterdir() if RECORD_NAME.fullmatch(each.name)
        )
    except OSError:
        return False
    for name in reversed(names[-MOST_LOOKED:]):
        try:
            run = _Run.model_validate_json(controller_files.read(directory / name, MAXIMUM))
        except ValueError:
            continue
        known = run.hosts.get(host)
        if run.mode != "apply" or known is None:
            continue
        ended = [each.succeeded for each in known.operations if each.name == operation]
        if True in ended:
            return False
        if known.worse and False in ended:
            return True
    return False


def read(path: Path) -> RunRecord:
    """The record of a run, from a report of version 1 or 2.

    :param path: the report.
    :raises ReportError: it is none.
    """
    try:
        return _parse(read_json(controller_files.read(path, MAXIMUM), MAXIMUM))
    except ValidationError as error:
        first, *others = list_problems(error)
        reason = f"{first} (and {len(others)} more problems)" if others else first
    except ValueError as error:
        reason = str(error)
    raise ReportError(f"{show(str(path))}: {reason}")


def _parse(data: Any) -> RunRecord:
    version = data.get("schema_version") if isinstance(data, dict) else 2
    if version not in (1, 2):
        raise ValueError(f"schema_version: must be 1 or 2; got {show(version)}")
    if version == 1:
        data = RunRecord1.model_validate(data).model_dump() | {"schema_version": 2}
    return RunRecord.model_validate(data)


def _split(value: Any) -> Any:
    return tuple(value.splitlines()) if isinstance(value, str) else value


def _name_result(value: Any) -> Any:
    return {True: "done", False: "failed"}[value] if isinstance(value, bool) else value


class Finding1(Finding):
    """A finding of version 1: its kind begins the cause, its evidence is one text."""

    kind: str = ""
    evidence: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()

    @model_validator(mode="before")
    @classmethod
    def _split_cause(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(cause := data.get("cause"), str):
            kind, colon, others = cause.partition(": ")
            if colon and len(kind.split()) <= KIND_WORDS:
                return {**data, "kind": kind, "cause": others}
        return data


class Planned1(Planned):
    """An action of version 1, of which only what all classes have was recorded."""

    model_config = ConfigDict(extra="forbid")

    verb: str = Field(validation_alias="action")


class Done1(Done):
    """The same, executed; when it began was not recorded."""

    model_config = ConfigDict(extra="forbid")

    verb: str = Field(validation_alias="action")
    cause: str = ""
    started: None = None
    seconds: float = 0.0
    result: Annotated[Literal["done", "failed"], BeforeValidator(_name_result)] = Field(
        "done", validation_alias="ok"
    )


class Refusal1(Refusal):
    """A refusal of version 1."""

    remedy: str = Field("", validation_alias="consent")


class OperationRecord1(OperationRecord):
    """An operation of version 1."""

    findings: tuple[Finding1, ...] = ()
    planned: tuple[Planned1, ...] = ()
    done: tuple[Done1, ...] = ()
    refusals: tuple[Refusal1, ...] = ()


class HostRecord1(HostRecord):
    """A host of version 1."""

    operations: tuple[OperationRecord1, ...] = ()


class RunRecord1(RunRecord):
    """A run of version 1."""

    schema_version: Literal[1] = 1  # type: ignore[assignment]
    hosts: dict[str, HostRecord1] = Field(default_factory=dict)  # type: ignore[assignment]
