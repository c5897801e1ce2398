"""A record without secrets, without what steers a terminal, and not too long."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from stackmend.diagnosis import SEVERITIES
from stackmend.redaction import MASK, Redactor, redact_likely, redactor
from stackmend.reporting.state import Done, Outcome
from stackmend.text import LINES_LIMIT, make_lines_printable, make_printable

#: How deep the further fields of an action are recorded, and how many entries of each value.
DEEPEST, MOST = 6, 50

#: What each action holds, whatever its class.
_COMMON = frozenset(Done.model_fields)

# What no text matches.
_NONE = "(?!)"

# A password that happens to be the word "failed" must not unmake the record.
_TIME = r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)"
_FIXED = {
    "outcome": "|".join(get_args(Outcome)),
    "mode": "dry|apply",
    "result": "done|failed",
    "severity": "|".join(SEVERITIES),
    "status": "ok|finding|unknown|skipped",
    "started": _TIME,
    "ended": _TIME,
}


def clean(data: Any, secrets: Iterable[str], fixed: Mapping[str, str] = _FIXED) -> Any:
    """The same data, fit to be written and shown.

    :param data: the record, or a part of it: strings, lists and mappings.
    :param secrets: what is replaced, in whatever notation it is written.
    :param fixed: by field, a pattern of its own words, which stay even where a secret is one.
    """
    return _Cleaner(redactor(frozenset(secrets)), fixed).clean(data)


def find_own_words(model: type[BaseModel]) -> dict[str, str]:
    """By field, a pattern of the words that a model, and those within it, allow there alone.

    >>> class Row(BaseModel):
    ...     outcome: Literal["worse", "equal"]
    >>> find_own_words(Row)
    {'outcome': 'equal|worse'}

    :param model: the model; of fields with one name the words are taken together.
    """
    schema = model.model_json_schema()
    found: dict[str, set[str]] = {}
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            if words := set(_list_words(field)):
                found.setdefault(name, set()).update(words)
    return {name: "|".join(map(re.escape, sorted(words))) for name, words in found.items()}


def _list_words(field: Any) -> Iterator[str]:
    if isinstance(field, dict):
        yield from field.get("enum", [field["const"]] if "const" in field else [])
    for item in field.values() if isinstance(field, dict) else field:
        if isinstance(item, dict | list):
            yield from _list_words(item)


class _Cleaner:
    def __init__(self, redactor: Redactor, fixed: Mapping[str, str]) -> None:
        self._redact = redactor.redact
        self._redact_lines = redactor.redact_lines
        self._fixed = fixed

    def clean(self, data: Any, own: str = _NONE) -> Any:
        if isinstance(data, str):
            if re.fullmatch(own, data):
                return data
            return make_lines_printable(self._redact(data))
        if isinstance(data, list):
            left = len(data) - LINES_LIMIT
            if left > 0 and all(isinstance(item, str) for item in data):
                # The end of a log explains it.
                data = [f"… ({left:,} earlier lines)", *data[left:]]
            if own == _NONE and all(isinstance(item, str) for item in data):
                data = self._redact_lines(data)
            return [self.clean(item, own) for item in data]
        if isinstance(data, dict):
            return {
                make_printable(key): self._clean_field(key, value) for key, value in data.items()
            }
        return data

    def _clean_field(self, key: str, value: Any) -> Any:
        if key in ("planned", "done") and isinstance(value, list):
            return [self._clean_action(action) for action in value]
        return self.clean(value, self._fixed.get(key, _NONE))

    def _clean_action(self, action: dict[str, Any]) -> dict[str, Any]:
        return {
            key: self._clean_field(key, value) if key in _COMMON else self._clean_detail(value, key)
            for key, value in action.items()
        }

    def _clean_detail(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """What an action holds of its class: also what only looks like a secret is hidden."""
        if isinstance(value, str):
            return _take_first_line(self._hide(value, name))
        if isinstance(value, list | dict) and value and depth == DEEPEST:
            return f"… ({len(value):,} entries)"
        if isinstance(value, list):
            if value and all(isinstance(item, str) and "\n" not in item for item in value):
                # An option that takes a secret stands before it.
                value = self._hide("\n".join(value), name).split("\n")
            items = [self._clean_detail(item, name, depth + 1) for item in value[:MOST]]
            left = len(value) - len(items)
            return [*items, f"… ({left:,} more)"] if left else items
        if isinstance(value, dict):
            pairs = list(value.items())
            fields = {
                make_printable(self._redact(key)): self._clean_detail(item, key, depth + 1)
                for key, item in pairs[:MOST]
            }
            left = len(pairs) - MOST
            return fields | ({"…": f"{left:,} more"} if left > 0 else {})
        return value

    def _hide(self, text: str, name: str) -> str:
        hidden = redact_likely(self._redact(text))
        return MASK if redact_likely(f"{name}=x") != f"{name}=x" and text else hidden


def _take_first_line(text: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) < 2:
        return make_printable(text)
    return f"{make_printable(lines[0])}… ({len(lines) - 1:,} more lines)"
