"""Metrics as Prometheus reads them, line by line, and what ``promtool check metrics`` objects to.

By the format's own description, https://prometheus.io/docs/instrumenting/exposition_formats/, and
with nothing of the library that writes them. It is as strict as the textfile collector: what that
leaves out or takes for an error is one here. Histograms and summaries are none of stackmend's.

>>> parse('# HELP a_total It is.\\n# TYPE a_total counter\\na_total{host="x"} 2\\n')
{('a_total', (('host', 'x'),)): 2.0}
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

Series = tuple[str, tuple[tuple[str, str], ...]]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
_HELP = re.compile(r"(?:[^\\\n]|\\[\\n])+")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_TYPES = ("counter", "gauge")

#: What promtool wants written out, and what it wants in base units.
_ABBREVIATIONS = {
    *("s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"),
}
_NOT_BASE = {
    *("minutes", "hours", "days", "weeks", "milliseconds", "microseconds", "nanoseconds"),
    *("kilobytes", "megabytes", "gigabytes", "bits", "percent", "percents", "milliamps"),
}


def parse(text: str) -> dict[Series, float]:
    """Each sample, by its name and its labels in the order of their names.

    + text: of the whole file; `AssertionError` names the line that is wrong
    """
    assert text.endswith("\n"), "the last line does not end"
    samples: dict[Series, float] = {}
    helps: set[str] = set()
    types: dict[str, str] = {}
    group, over = "", set[str]()
    for number, line in enumerate(text[:-1].split("\n"), start=1):
        where = f"line {number}: {line}"
        word, name, rest = _split(line, where)
        if name != group:
            assert name not in over, f"the lines of a name are apart: {where}"
            over.add(group)
            group = name
        assert not (word and any(each == name for each, _ in samples)), f"after samples: {where}"
        if word == "HELP":
            assert name not in helps, f"HELP twice: {where}"
            assert _HELP.fullmatch(rest), f"no help, or wrong escapes: {where}"
            helps.add(name)
        elif word == "TYPE":
            assert name not in types, f"TYPE twice: {where}"
            assert rest in _TYPES, f"no type of ours: {where}"
            types[name] = rest
        else:
            assert {name} <= helps & {*types}, f"no HELP and TYPE before it: {where}"
            labels, value = _parse_sample(rest, where)
            assert (name, labels) not in samples, f"a series twice: {where}"
            samples[name, labels] = value
    assert helps == {*types}, "HELP and TYPE are not of the same names"
    for name, kind in types.items():
        assert not [*_lint(name, kind)], [*_lint(name, kind)]
    return samples


def _split(line: str, where: str) -> tuple[str, str, str]:
    """``HELP``, ``TYPE`` or nothing, the name, and what follows it."""
    word = ""
    if line.startswith("#"):
        found = re.match(r"# (HELP|TYPE) (?=\S)", line)
        assert found, f"neither HELP nor TYPE: {where}"
        word, line = found[1], line[found.end() :]
    name = _NAME.match(line)
    assert name, f"no name: {where}"
    rest = line[name.end() :]
    if word:
        assert rest.startswith(" "), f"no space after the name: {where}"
        rest = rest[1:]
    return word, name[0], rest


def _parse_sample(rest: str, where: str) -> tuple[tuple[tuple[str, str], ...], float]:
    labels: dict[str, str] = {}
    if rest.startswith("{"):
        at = 1
        while found := _LABEL.match(rest, at):
            assert found[1] not in labels, f"a label twice: {where}"
            assert not found[1].startswith("__"), f"a reserved label: {where}"
            assert found[1] == found[1].lower(), f"a label in camelCase: {where}"
            labels[found[1]] = _unescape(found[2])
            at = found.end()
            if rest[at : at + 1] != ",":
                break
            at += 1
        assert rest[at : at + 1] == "}", f"wrong labels: {where}"
        rest = rest[at + 1 :]
    # One space and a number: a time after it would have the textfile collector refuse the file.
    assert rest.startswith(" "), f"no value: {where}"
    assert _NUMBER.fullmatch(rest[1:]), f"no finite number alone: {where}"
    assert math.isfinite(float(rest[1:])), f"no finite number: {where}"
    return tuple(sorted(labels.items())), float(rest[1:])


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def _lint(name: str, kind: str) -> Iterator[str]:
    """What promtool says of a name."""
    words = name.split("_")
    if ":" in name or name != name.lower():
        yield f"{name}: a colon or camelCase"
    if (words[-1] == "total") is not (kind == "counter"):
        yield f"{name}: only a counter ends with _total, and each does"
    if words[-1] in ("count", "sum", "bucket"):
        yield f"{name}: ends as a part of a histogram does"
    yield from (f"{name}: {word} is its type" for word in {*words} & {*_TYPES, "histogram"})
    yield from (f"{name}: {word} is abbreviated" for word in {*words} & _ABBREVIATIONS)
    yield from (f"{name}: {word} is no base unit" for word in {*words} & _NOT_BASE)
