"""Two descriptions held against each other, field by field, and formatted without their secrets."""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from stackmend.redaction import LOGIN, SECRET_NAME, redactor
from stackmend.text import make_printable

MASK = "(redacted)"

#: Options of redis that take a password, in a command given as words or as a shell's line.
PASSWORD_OPTION = re.compile(r"--(?:requirepass|masterauth)(?:[= ]+[\"']?([^\s\"';&|]+))?")
#: A user's name in a URL that is no name but a token.
_TOKEN = re.compile(r"(?=.*\d)\S{8,}")
_REFERENCE = re.compile(r"\$\{[A-Za-z_]\w*\}")

#: How much of one value a cause shows.
LINE_LENGTH = 160


def find_differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, old, new) for each leaf that differs; ``None`` is absent."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}, key=str):
            yield from find_differences(
                old.get(key), new.get(key), f"{path}.{key}" if path else str(key)
            )
    elif old != new:
        yield path, old, new


def format_value(path: str, value: Any, secrets: Collection[str] = ()) -> str:
    """A value as a cause may show it: short, and without secrets."""
    if value is None:
        return "(none)"
    if SECRET_NAME.search(path):
        return MASK
    if isinstance(value, Mapping):
        text = ", ".join(
            f"{key}={format_value(str(key), item, secrets)}" for key, item in value.items()
        )
        text = text or "{}"
    elif isinstance(value, list | tuple):
        text = " ".join(format_value("", item, secrets) for item in value) or "[]"
    else:
        text = str(value)
    return make_printable(redact(text, secrets), LINE_LENGTH)


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """Text with every known secret and every login before a host replaced."""
    text = redactor(frozenset(secrets)).redact(text, MASK)
    return LOGIN.sub(_redact_login, text)


def _redact_login(match: re.Match[str]) -> str:
    # What is displayed in a login's place is none.
    if not any(match.groups()) or match["user"] == "***":
        return match[0]
    # A variable's name in a password's place is none; after a dollar alone a password may follow.
    if _REFERENCE.fullmatch(match["password"] or match["bare"] or match["user"] or ""):
        return match[0]
    user = match["user"] if match["password"] else ""
    return f"{user}:{MASK}@" if user or match["password"] else f"{MASK}@"


def format_change(path: str, old: Any, new: Any, secrets: Collection[str] = ()) -> str:
    """One difference in words: ``environment.MODE: slow → fast``."""
    return f"{path}: {format_value(path, old, secrets)} → {format_value(path, new, secrets)}"


def find_secrets(config: Mapping[str, Any]) -> frozenset[str]:
    """The values in a declared project whose names or options say that they are secret.

    The passwords of logins are among them, and a user's name that looks like a token; but none
    that is a service's name.
    """
    found: set[str] = set()
    services: Mapping[str, Any] = config.get("services") or {}
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            if value and SECRET_NAME.search(name):
                found.add(str(value))
            found |= _find_passwords(str(value), services)
        words = [*map(str, service.get("command") or ()), ""]
        for word, following in itertools.pairwise(words):
            if option := PASSWORD_OPTION.search(word):
                found.add(option[1] or (following if option[0] == word else ""))
            found |= _find_passwords(word, services)
    return frozenset(found - {""})


def _find_passwords(text: str, services: Collection[str]) -> set[str]:
    passwords = set()
    for match in LOGIN.finditer(text):
        password = match["password"] or match["bare"] or ""
        token = match["user"] if match["user"] and _TOKEN.fullmatch(match["user"]) else ""
        passwords |= {password, "" if match["password"] else token} - {"", *services}
    return passwords | set(map(unquote, passwords))
