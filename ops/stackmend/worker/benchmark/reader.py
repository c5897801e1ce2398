"""Collected results, read as if somebody else had put them there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stackmend import controller_files
from stackmend.answers import read_json
from stackmend.problems import list_problems, show
from stackmend.worker.benchmark.state import SCHEMA, Result, Shortfall

#: Bytes of one result, which holds every sample: as many as the samples of a host come to there.
MAXIMUM = 192 * 1024**2

#: Results on one page, levels of one result, and earlier measurements that it names.
MAXIMUM_RESULTS, MAXIMUM_LEVELS, MAXIMUM_HISTORY = 1000, 64, 10_000

#: A figure beyond this is none of a model server.
LARGEST = 1e12

#: What the pictures are made of; samples are only counted.
_DRAWN = ("summaries", "baseline_summaries", "comparisons", "history")


class ResultError(ValueError):
    """A file is no result of a benchmark; the text names the file and the field."""


def read(path: Path) -> Result:
    """One collected result.

    :param path: the JSON file.
    :raises ResultError: it is none, too large, or holds figures that nothing can have.
    """
    try:
        content = controller_files.read(path, MAXIMUM)
        data = read_json(content, MAXIMUM)
        _check(data)
        # Strict: "nan" is no number, and 1 is not true.
        return Result.model_validate_json(content, strict=True)
    except ValidationError as error:
        first, *others = list_problems(error)
        reason = f"{first} (and {len(others)} more problems)" if others else first
    except JSONDecodeError as error:
        reason = f"it is no result of a benchmark, as it is no JSON: {error}"
    except ValueError as error:
        reason = str(error)
    raise ResultError(f"{show(str(path))}: {reason}")


def read_all(paths: Iterable[Path]) -> tuple[Result, ...]:
    """All of them, in the same order.

    :raises ResultError: of the first that is none, or where there are too many.
    """
    listed = tuple(paths)
    if len(listed) > MAXIMUM_RESULTS:
        raise ResultError(f"{len(listed)} results are more than the {MAXIMUM_RESULTS} of one page")
    return tuple(map(read, listed))


def read_readable(paths: Iterable[Path]) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """Those that can be read, as many as one page has, and one line for each other.

    :param paths: the JSON files.
    """
    results: list[Result] = []
    problems = []
    listed = tuple(paths)
    for at, path in enumerate(listed):
        if len(results) == MAXIMUM_RESULTS:
            problems.append(
                f"{len(listed) - at} of {len(listed)} results are beyond the {MAXIMUM_RESULTS} of "
                "one page; run python -m stackmend.worker.pictures with their files"
            )
            break
        try:
            results.append(read(path))
        except ResultError as error:
            remedy = "remove it, then run again" if path.exists() else "run again"
            problems.append(f"{error}; {remedy}")
    return tuple(results), tuple(problems)


def is_readable(path: Path) -> bool:
    """Whether a file is a result that :func:`read` takes; a file that stays is read once.

    :param path: the JSON file.
    """
    return _find_shortfalls(path) is not None


def is_outdated(path: Path, shortfalls: Sequence[Shortfall]) -> bool:
    """Whether a collected result was held against another minimum than now.

    :param path: the JSON file.
    :param shortfalls: what it lacks by the minimum of now.
    """
    kept = _find_shortfalls(path)
    if kept is None:
        return False
    now = [(row.figure, row.minimum) for row in shortfalls]
    return [(row.figure, row.minimum) for row in kept] != now


def _find_shortfalls(path: Path) -> Sequence[Shortfall] | None:
    """What a collected result lacks of its minimum; ``None`` where the file is no result."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _read_shortfalls(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read_shortfalls(path: Path, *_: int) -> Sequence[Shortfall] | None:
    try:
        return read(path).shortfalls
    except ResultError:
        return None


def check_record(raw: Any) -> None:
    """Hold the stored form of a host's record against what its results can be.

    :param raw: the record, as JSON has it.
    :raises ValueError: naming the field.
    """
    if not isinstance(raw, dict):
        raise ValueError("must be a mapping")
    for field in ("latest", "previous"):
        if isinstance(entry := raw.get(field), dict):
            _check_field(f"{field}.summaries", "summaries", entry.get("summaries"))
    if isinstance(steady := raw.get("steady"), list):
        for index, entry in enumerate(steady):
            if isinstance(entry, dict):
                _check_field(f"steady.{index}.summaries", "summaries", entry.get("summaries"))
    for field in ("best", "held"):
        if isinstance(references := raw.get(field), list):
            summaries = [row.get("summary") for row in references if isinstance(row, dict)]
            _check_field(field, "summaries", summaries)
    _check_field("history", "history", raw.get("history"))


def _check(data: Any) -> None:
    """Hold the stored form against what a result can be.

    :raises ValueError: naming the field.
    """
    if not isinstance(data, dict):
        raise ValueError("must be a mapping")
    measurement = data.get("measurement")
    if isinstance(measurement, dict):
        version = measurement.get("schema_version")
        if version != SCHEMA:
            raise ValueError(
                f"measurement.schema_version: must be {SCHEMA}; got {show(version)}; measure again"
            )
    for field in _DRAWN:
        _check_field(field, field, data.get(field))


def _check_field(path: str, kind: str, value: Any) -> None:
    if isinstance(value, list):
        most = MAXIMUM_HISTORY if kind == "history" else MAXIMUM_LEVELS
        most *= 8 if kind == "comparisons" else 1
        if len(value) > most:
            raise ValueError(f"{path}: {len(value)} entries are more than {most}")
    for at, number in _list_numbers(value, path):
        if not 0 <= number <= LARGEST:
            raise ValueError(f"{at}: must be from 0 to {LARGEST:g}; got {show(number)}")


def _list_numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _list_numbers(item, f"{path}.{show(key)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _list_numbers(item, f"{path}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value if math.isfinite(value) else math.inf
