"""Variables that a compose file cannot do without: found before a host is contacted. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: ``${NAME:?message}`` and ``${NAME?message}``; ``$$`` is a dollar, and nothing begins with it.
_REQUIRED = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_]\w*)(?P<colon>:?)\?(?P<message>[^{}$]*)\}")

#: A variable within a variable: Compose asks for it only where it comes to it.
_NESTED = re.compile(r"\$\{[^{}]*\$")

#: What the host's own shell may have, and Compose then takes from there.
_OF_A_SHELL = frozenset(
    "HOME HOSTNAME LANG LOGNAME MAIL OLDPWD PATH PWD SHELL SHLVL SUDO_COMMAND SUDO_GID SUDO_UID "
    "SUDO_USER TERM TMPDIR TZ UID USER".split()
)
_PREFIXES_OF_A_SHELL = ("COMPOSE_", "DOCKER_", "LC_", "SSH_", "XDG_")


def find_missing(data: Mapping[str, Any], variables: Mapping[str, str | None]) -> Iterator[str]:
    """The required variables of a compose file that nothing on this machine gives a value.

    Only what is certain: the host's own shell may have a few names, a text with a variable within a
    variable is Compose's to read, and what stands below ``x-`` may be used nowhere.

    :param data: the file's content.
    :param variables: what ``env`` and the ``.env`` beside the file give; ``None`` is unknown.
    :returns: each as a field, the variable and the file's own message.
    """
    for field, text in _iterate_texts({k: v for k, v in data.items() if k[:2] != "x-"}, ""):
        for match in () if _NESTED.search(text) else _REQUIRED.finditer(text):
            name = match["name"]
            if name is None or name in _OF_A_SHELL or name.startswith(_PREFIXES_OF_A_SHELL):
                continue
            empty = name in variables and variables[name] == ""
            if name not in variables or (empty and match["colon"]):
                message = " ".join(match["message"].split())
                yield f"{field}: ${{{name}}} has no value{message and ': '}{message}"


def _iterate_texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _iterate_texts(below, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _iterate_texts(below, f"{field}.{index}")
