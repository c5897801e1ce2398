"""Two descriptions held against each other, field by field, and formatted without their secrets."""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from stackmend.redaction import redactor
from stackmend.text import make_printable

MASK = "(redacted)"

#: A name that means a secret, whatever its value.
SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?|secret|token|api_?key|private_?key|access_?key|credential|\bauth\b|_key$",
    re.I,
)
#: Options of redis that take a password, in a command given as words or as a shell's line.
PASSWORD_OPTION = re.compile(r"--(?:requirepass|masterauth)(?:[= ]+[\"']?([^\s\"';&|]+))?")
URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)@")
#: The same where the password itself holds an @.
_URL_LOGIN = re.compile(r"://[^/@\s:]*:([^/\s]+)@")

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
    """Text with every known secret and every password inside a URL replaced."""
    text = redactor(frozenset(secrets)).redact(text, MASK)
    return URL_PASSWORD.sub(rf"\1:{MASK}@", text)


def format_change(path: str, old: Any, new: Any, secrets: Collection[str] = ()) -> str:
    """One difference in words: ``environment.MODE: slow → fast``."""
    return f"{path}: {format_value(path, old, secrets)} → {format_value(path, new, secrets)}"


def find_secrets(config: Mapping[str, Any]) -> frozenset[str]:
    """The values in a declared project whose names or options say that they are secret.

    The passwords of URLs are among them, but for those that are a service's name.
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
    passwords = {match for match in _URL_LOGIN.findall(text) if match not in services}
    return passwords | set(map(unquote, passwords))
