"""What a support bundle holds of one host: probe text and settings to state."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretBytes, SecretStr
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import FactValueError

from stackmend.answers import read_json
from stackmend.connection import PROBE_TIMEOUT, make_mark, parse_probe, parse_sections, script
from stackmend.diagnosis import HostSupport, SupportFile
from stackmend.redaction import (
    MASK,
    SECRET_NAME,
    SECRET_PATH,
    format_foreign_lines,
    format_safe_line,
    redact,
    redact_likely,
)

#: Lines of each log.
LINES = 300

#: How deep settings are written, and how many entries of each.
DEEPEST, MOST = 12, 1000

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,20}(?:Z|[+-]\d\d:\d\d) )(.*)", re.S)
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

Sections = Mapping[str, tuple[int, list[str]]]


class SupportReading(FactBase[HostSupport]):
    """What helps whoever is asked about a host; reads only.

    + project: the Compose project whose containers' logs are read; empty for all.

    Of each log the last 300 lines are read, of 40 containers at most.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.incidents.support.SupportReading project=ai
    """

    _mark = ""
    limit = PROBE_TIMEOUT

    def command(self, project: str = "") -> StringCommand:
        """The probe, with its arguments quoted.

        :raises FactValueError: naming the argument that is wrong.
        """
        if project and not _PROJECT.fullmatch(project):
            raise FactValueError(f"project: no name of a Compose project: {project!r}")
        self._mark = make_mark()
        return script("stackmend.incidents", "support", project, str(LINES), mark=self._mark)

    def process(self, output: list[str]) -> HostSupport:
        """The state that the probe printed."""
        return parse_probe(self._parse, output, "what a support bundle holds")

    def _parse(self, output: list[str]) -> HostSupport:
        sections = parse_sections(output, self._mark)
        named = dict(_parse_named(sections, "name "))
        return HostSupport(
            versions=tuple(_parse_named(sections, "version ")),
            tables=tuple(
                SupportFile(name=name.removeprefix("table "), lines=format_foreign_lines(lines))
                for name, (_, lines) in sections.items()
                if name.startswith("table ")
            ),
            journal=format_foreign_lines(sections.get("journal", (0, []))[1]),
            logs=tuple(_parse_logs(sections)),
            names=tuple(word for text in named.values() for word in text.split()),
        )


def _parse_named(sections: Sections, prefix: str) -> Iterator[tuple[str, str]]:
    for name, (_, lines) in sections.items():
        if name.startswith(prefix) and lines:
            yield name.removeprefix(prefix), format_safe_line(lines[0], 500)


def _parse_logs(sections: Sections) -> Iterator[SupportFile]:
    for section, (_, lines) in sections.items():
        if not section.startswith("log "):
            continue
        id_ = section.removeprefix("log ")
        named = sections.get(f"container {id_}", (0, []))[1]
        try:
            name = read_json(named[0].encode(), 10_000) if named else None
        except ValueError:
            name = None
        title = name.removeprefix("/") if isinstance(name, str) else id_[:12]
        yield SupportFile(name=format_safe_line(title), lines=_format_stamped(lines))


def _format_stamped(lines: list[str]) -> tuple[str, ...]:
    """Lines of a container: what is wrapped over several has the time of each between."""
    rows = [match.groups() if (match := _STAMP.match(line)) else ("", line) for line in lines]
    texts = format_foreign_lines(text for _, text in rows)
    return tuple(stamp + text for (stamp, _), text in zip(rows, texts, strict=True))


def format_settings(data: Mapping[str, Any]) -> str:
    """What an inventory says of a host, as JSON without secrets.

    :param data: the host's data, as ``host.data.dict()`` gives it.

    Of ``env`` the names alone are shown, and of what a name says is secret nothing.
    """
    return json.dumps(_convert(data, ""), indent=1, ensure_ascii=False, sort_keys=True)


def _convert(value: Any, path: str, depth: int = 0) -> Any:
    """A value in JSON's terms, without secrets; ``path`` leads to it, key by key."""
    name = path.rpartition(".")[2]
    if isinstance(value, SecretStr | SecretBytes) or callable(getattr(value, "unmask", None)):
        return MASK
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int | float):
        return MASK if SECRET_NAME.search(name) else value
    if depth > DEEPEST:
        return "…"
    if hasattr(type(value), "model_fields"):
        value = vars(value)
    if isinstance(value, Mapping):
        is_env = name in ("env", "environment", "_env")
        return {
            redact(str(key)): MASK if is_env else _convert(item, f"{path}.{key}", depth + 1)
            for key, item in list(value.items())[:MOST]
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_convert(item, path, depth + 1) for item in list(value)[:MOST]]
    if SECRET_PATH.search(path) or (SECRET_NAME.search(name) and not name.endswith("_file")):
        return MASK
    return redact_likely(redact(str(value)))
