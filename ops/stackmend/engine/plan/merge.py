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


class Merged(Frozen):
    """A daemon.json with settings in it.

    :param text: what it is to hold.
    :param changes: what differs from what it holds.
    :param comments: whether it held comments, which dockerd does not read.
    """

    text: str
    changes: tuple[Change, ...] = ()
    comments: bool = False


def merged(text: str, wanted: Mapping[str, Any]) -> Merged:
    """A file's text with settings in it; the order, the indentation and all other keys stay.

    :param text: what the file holds; empty for none.
    :param wanted: the settings, as daemon.json has them.
    :raises ValueError: it is no JSON, or not a mapping; the line is named.
    """
    held, comments = parsed(text)
    changes: list[Change] = []
    whole = _into(held, wanted, "", changes)
    driver = any(change.key == "log-driver" and change.before for change in changes)
    if driver and "log-opts" in wanted and whole["log-opts"] != wanted["log-opts"]:
        # What another driver was told, this one does not know, and no container would start.
        changes = [one for one in changes if not one.key.startswith("log-opts")]
        changes.append(_change("log-opts", held.get("log-opts"), wanted["log-opts"]))
        whole["log-opts"] = wanted["log-opts"]
    if not changes and not comments:
        return Merged(text=text)
    newline = "\r\n" if "\r\n" in text else "\n"
    written = json.dumps(whole, indent=_indent(text), ensure_ascii=False) + "\n"
    return Merged(text=written.replace("\n", newline), changes=tuple(changes), comments=comments)


def parsed(text: str) -> tuple[dict[str, Any], bool]:
    """What a daemon.json says, and whether it holds comments.

    :raises ValueError: it is no JSON, or not a mapping; the line is named.
    """
    plain = without_comments(text.removeprefix("\ufeff"))
    if not plain.strip():
        return {}, plain != text
    try:
        held = json.loads(plain, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(held, dict):
        raise ValueError(f"it holds a {type(held).__name__}, not a mapping")
    return held, plain != text


def without_comments(text: str) -> str:
    """The same with blanks for comments, so that lines and columns stay."""

    def blank(found: re.Match[str]) -> str:
        one = found[0]
        return one if one.startswith('"') else re.sub(r"[^\r\n]", " ", one)

    # Strings are matched first: what looks like a comment in one is none.
    return re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\r\n]*|/\*.*?\*/', blank, text, flags=re.DOTALL)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f'"{name}" stands there twice')
        found[name] = value
    return found


def _into(
    held: Mapping[str, Any], wanted: Mapping[str, Any], above: str, changes: list[Change]
) -> dict[str, Any]:
    whole = dict(held)
    for name, value in wanted.items():
        have = held.get(name)
        key = f"{above}{name}"
        if isinstance(value, Mapping) and isinstance(have, Mapping):
            whole[name] = _into(have, value, f"{key}.", changes)
            continue
        if key in ADDED and isinstance(value, list) and isinstance(have, list):
            value = [*have, *(one for one in value if one not in have)]
        if have != value or name not in held or isinstance(have, bool) != isinstance(value, bool):
            changes.append(_change(key, held.get(name), value, there=name in held))
        whole[name] = value
    return whole


def _change(key: str, before: Any, after: Any, *, there: bool = True) -> Change:
    def shown(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    return Change(key=key, before=shown(before) if there else "", after=shown(after))


def _indent(text: str) -> str:
    """What the file is indented with, as its first indented line has it."""
    found = re.search(r'\n([ \t]+)"', text)
    return found[1] if found else "  "
