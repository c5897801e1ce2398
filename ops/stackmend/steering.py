"""What of a host's environment would lead Docker and Compose elsewhere, and is ignored. Pure.

The engine on the host's own socket is meant, and the project's own files, unless the settings name
others (``_env``): a variable that somebody set in ``/etc/environment`` or in a profile steers
nothing. Whoever set it may wonder, so it is told.
"""

import re
from collections.abc import Iterable

from stackmend.decision import Finding

#: A line of ``connection/steering.sh``; a context's name as Docker's client allows it.
_LINE = re.compile(r"variable ([A-Z_]{1,64})|context ([A-Za-z0-9][A-Za-z0-9_.+-]{0,63})")

#: The context that is the host's own socket.
_OWN = "default"


def parse_ignored(lines: Iterable[str]) -> tuple[str, ...]:
    """The names of what is ignored; what is no such name is left out.

    :param lines: those of the section that ``steering`` writes.
    """
    matches = filter(None, map(_LINE.fullmatch, lines))
    names = (match[1] or f"context {match[2]}" for match in matches if match[2] != _OWN)
    return tuple(dict.fromkeys(names))


def find_ignored(subject: str, ignored: Iterable[str]) -> tuple[Finding, ...]:
    """A finding that blocks nothing, where anything is ignored.

    :param subject: what it would have steered.
    :param ignored: the names.
    """
    names = ", ".join(ignored)
    if not names:
        return ()
    return (
        Finding(
            subject=subject,
            kind="ignored",
            cause=f"the environment of commands on the host has {names}; stackmend ignores it: it "
            "uses the engine on the host's own socket and names the project's files",
            remedy="remove it from /etc/environment, the login's profile, sudo's env_keep or "
            '~/.docker/config.json; to use another engine, set "_env": {"DOCKER_HOST": "..."} in '
            "the host's data",
            blocks=False,
        ),
    )
