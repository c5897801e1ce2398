"""What a service says is wrong with it, where no restart helps: its words, and the remedy. Pure.

Its healthcheck's output and its last lines are taken at their word only once it is down,
restarts again and again, or is unhealthy.
"""

import re
from collections.abc import Iterable
from typing import Literal

from stackmend.compose.plan.format import fit_line
from stackmend.compose.state import Container
from stackmend.frozen import Frozen

#: The consent to mend a redis's append-only file.
REPAIR_RULE = "repair:redis-aof"

_PATTERNS: tuple[tuple[Literal["aof", "disk", "memory", "password"], re.Pattern[str]], ...] = (
    ("aof", re.compile(r"Bad file format reading the append only file")),
    ("disk", re.compile(r"No space left on device|Disk quota exceeded|\bENOSPC\b|MISCONF", re.I)),
    (
        "memory",
        re.compile(
            r"\bout of memory\b|Cannot allocate memory|OutOfMemoryError|std::bad_alloc"
            r"|command not allowed when used memory",
            re.I,
        ),
    ),
    (
        "password",
        re.compile(
            r"\bNOAUTH\b|\bWRONGPASS\b|invalid username-password pair|invalid password"
            r"|(?:password )?authentication failed|Access denied for user",
            re.I,
        ),
    ),
)

_REMEDIES = {
    "disk": "free space where it writes (`df -h` on the host, `docker system df`)",
    "memory": "raise its memory limit (`mem_limit`), or have it need less",
    "password": "give both sides the same password in the compose file",
}


class Cause(Frozen):
    """What a service says is wrong.

    :param cause: what is wrong, in its own words where it has any.
    """

    kind: Literal["aof", "disk", "memory", "password"]
    cause: str
    remedy: str


def find_cause(container: Container) -> Cause | None:
    """What a container that is not well says is wrong with it, or ``None``.

    What it wrote last counts for more than what it wrote before.
    """
    # The engine goes on saying so of one that runs, long after a process in it was killed.
    if container.oom_killed and (container.restart_count or not container.running):
        limit = container.shape.get("mem_limit")
        cause = "it is OOM-killed" + (f" at its limit of {limit} bytes" if limit else "")
        return Cause(kind="memory", cause=cause, remedy=_explain_remedy("memory", container))
    output = container.health_output.splitlines() if container.health == "unhealthy" else ()
    return _search([*container.log, *output], container)


def _search(lines: Iterable[str], container: Container) -> Cause | None:
    for line in reversed(tuple(lines)):
        for kind, pattern in _PATTERNS:
            if pattern.search(line):
                remedy = _explain_remedy(kind, container)
                cause = f"it says what is wrong: {fit_line(line)}"
                return Cause(kind=kind, cause=cause, remedy=remedy)
    return None


def _explain_remedy(kind: str, container: Container) -> str:
    if kind == "aof":
        return _explain_repair(container)
    # The engine waits longer and longer between its own attempts.
    return f"{_REMEDIES[kind]}, then `docker restart {container.name}` and run again"


def _explain_repair(container: Container) -> str:
    """How to mend an append-only file by hand, keeping a copy, and the consent to have it done."""
    inner = (
        "cp -a appendonlydir appendonlydir.copy && "
        "redis-check-aof --fix appendonlydir/appendonly.aof.manifest"
    )
    return (
        f"run `docker stop {container.name}`, then `docker run --rm -it --volumes-from "
        f"{container.name} --entrypoint sh {container.image} -c '{inner}'` (before redis 7: "
        "appendonly.aof in their place): what follows the first bad entry is cut off; then run "
        f'again. To have it done, with the copy kept, add to the stack: "allow": ["{REPAIR_RULE}"]'
    )
