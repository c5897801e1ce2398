"""Settings into a daemon.json that somebody else has written in, too."""

import json
import re
from collections.abc import Mapping
from typing import Any

from stackmend.frozen import Frozen

#: Lists that a setting is added to. Others are one decision, whose order counts: they become it.
ADDED = frozenset({"registry-mirrors", "insecure-registries", "labels", "cdi-spec-dirs"})


class Change(Frozen):
    """One key that gets another value.

    :param key: its name; below a mapping with the names above, dots between.
    :param before: what it is, as JSON; empty where it is not there.
    :param after: what it becomes, as JSON.
    """

    key: str
    before: str
    after: str


class Merge(Frozen):
    """A daemon.json with settings in it.

    :param text: what it is to hold.
    :param changes: what differs from what it holds.
    :param comments: whether it held comments, which dockerd does not read.
    """

    text: str
    changes: tuple[Change, ...] = ()
    comments: bool = False


def merge(text: str, desired: Mapping[str, Any]) -> Merge:
    """A file's text with settings in it; the order, the indentation and all other keys stay.

    :param text: what the file holds; empty for none.
    :param desired: the settings, as daemon.json has them.
    :raises ValueError: it is no JSON, or not a mapping; the line is named.
    """
    observed, comments = parse_config(text)
    changes: list[Change] = []
    merged = _merge_mapping(observed, desired, "", changes)
    driver = any(change.key == "log-driver" and change.before for change in changes)
    if driver and "log-opts" in desired and merged["log-opts"] != desired["log-opts"]:
        # This driver does not know the other one's options, and no container would start.
        changes = [change for change in changes if not change.key.startswith("log-opts")]
        changes.append(_make_change("log-opts", observed, "log-opts", desired["log-opts"]))
        merged["log-opts"] = desired["log-opts"]
    if not changes and not comments:
        return Merge(text=text)
    newline = "\r\n" if "\r\n" in text else "\n"
    written = json.dumps(merged, indent=_find_indent(text), ensure_ascii=False) + "\n"
    return Merge(text=written.replace("\n", newline), changes=tuple(changes), comments=comments)


def parse_config(text: str) -> tuple[dict[str, Any], bool]:
    """What a daemon.json says, and whether it holds comments.

    :raises ValueError: it is no JSON, or not a mapping; the line is named.
    """
    plain = strip_comments(text.removeprefix("\ufeff"))
    if not plain.strip():
        return {}, plain != text
    try:
        config = json.loads(plain, object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(config, dict):
        raise ValueError(f"it holds a {type(config).__name__}, not a mapping")
    return config, plain != text


def strip_comments(text: str) -> str:
    """The same with blanks for comments, so that lines and columns stay."""

    def strip_blanks(match: re.Match[str]) -> str:
        token = match[0]
        return token if token.startswith('"') else re.sub(r"[^\r\n]", " ", token)

    # Strings match first: what looks like a comment in one is none.
    return re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\r\n]*|/\*.*?\*/', strip_blanks, text, flags=re.DOTALL)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f'duplicate key "{key}"')
        mapping[key] = value
    return mapping


def _merge_mapping(
    observed: Mapping[str, Any], desired: Mapping[str, Any], above: str, changes: list[Change]
) -> dict[str, Any]:
    merged = dict(observed)
    for name, value in desired.items():
        have = observed.get(name)
        key = f"{above}{name}"
        if isinstance(value, Mapping) and isinstance(have, Mapping):
            merged[name] = _merge_mapping(have, value, f"{key}.", changes)
            continue
        if key in ADDED and isinstance(value, list) and isinstance(have, list):
            value = [*have, *(item for item in value if item not in have)]
        if (
            have != value
            or name not in observed
            or isinstance(have, bool) != isinstance(value, bool)
        ):
            changes.append(_make_change(key, observed, name, value))
        merged[name] = value
    return merged


def _make_change(key: str, observed: Mapping[str, Any], name: str, after: Any) -> Change:
    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    before = dump(observed[name]) if name in observed else ""
    return Change(key=key, before=before, after=dump(after))


def _find_indent(text: str) -> str:
    """What the file is indented with, as its first indented line has it."""
    match = re.search(r'\n([ \t]+)"', text)
    return match[1] if match else "  "
