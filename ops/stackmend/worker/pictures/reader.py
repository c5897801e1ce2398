"""Collected results, read as if somebody else had put them there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stackmend import controller_files
from stackmend.answers import read_json
from stackmend.problems import list_problems, show
from stackmend.worker.benchmark.state import SCHEMA, Result

#: Bytes of one result, which holds every sample.
MAXIMUM = 64 * 1024**2

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
        if isinstance(items := data.get(field), list):
            most = MAXIMUM_HISTORY if field == "history" else MAXIMUM_LEVELS
            most *= 8 if field == "comparisons" else 1
            if len(items) > most:
                raise ValueError(f"{field}: {len(items)} entries are more than {most}")
        for path, number in _list_numbers(data.get(field), field):
            if not 0 <= number <= LARGEST:
                raise ValueError(f"{path}: must be from 0 to {LARGEST:g}; got {show(number)}")


def _list_numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _list_numbers(item, f"{path}.{show(key)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _list_numbers(item, f"{path}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value if math.isfinite(value) else math.inf
