"""From an action to the command that does it: the only place where values are quoted."""

import re
import shlex
from collections.abc import Sequence

from pyinfra.api import QuoteString, StringCommand

from stackmend.connection import script
from stackmend.engine.facts import ROOT

#: Seconds that a script which changes the engine has: it waits for an earlier one, and may fetch
#: packages.
LIMIT = 3600

#: What :func:`stackmend.engine.restored` takes for a copy.
COPY = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z")

#: Exit statuses of the scripts: dockerd refuses a file; the engine did not come up, and is up with
#: the file before; it is not up at all; it is up, and containers that ran are not.
REFUSED, FAILED, DOWN, CONTAINERS = 65, 70, 71, 74


def fetch(address: str) -> StringCommand:
    """Print a file of the network, as base64."""
    return script("stackmend.engine", "fetch", address)


def place(path: str, stamp: str) -> StringCommand:
    """Put standard input in place of a file; remove the file where there is none.

    :param stamp: the ending of the copy of what was there.
    """
    return _build_script("place", path, stamp)


def refresh(manager: str, target: str, packages: Sequence[str]) -> StringCommand:
    """Read the lists of packages anew and print what they have of some.

    :param manager: ``apt``, ``dnf`` or ``apk``.
    :param target: the suite, or apk's address, that they are taken from; empty for any.
    """
    return _build_script("refresh", manager, target, *packages)


def install(
    manager: str,
    target: str,
    packages: Sequence[str],
    removing: Sequence[str] = (),
    *,
    snap: bool = False,
    engine: bool = True,
    config: str = "",
) -> StringCommand:
    """Install packages, those with a version behind them at that version.

    :param removing: packages that make room.
    :param snap: switch the snap docker off.
    :param engine: whether they are an engine, which is then started, with what ran.
    :param config: the daemon.json, on standard input, that a new engine is to start with. One that
        does not come up with it starts without, and why is printed.
    """
    return _build_script(
        *("install", manager, target, "snap" if snap else "", "engine" if engine else ""),
        *(config, *packages, "--", *removing),
    )


def drop_lists() -> StringCommand:
    """Remove what :func:`refresh` keeps for :func:`install`, where nothing is installed."""
    return StringCommand("rm", "-f", f"{ROOT}/lists.bin")


def restart(bridges: Sequence[str]) -> StringCommand:
    """Restart the engine, which makes its rules again, and start the containers that ran.

    :param bridges: devices that the packet filter has to have rules for, then.
    """
    return _build_script("restart", *bridges)


def start_containerd() -> StringCommand:
    """Start containerd, and wait until the engine reaches it."""
    return _build_script("containerd")


def remove_pid_file(path: str, pid: int) -> StringCommand:
    """Remove the engine's pid file where it still names this process, which is no dockerd."""
    return _build_script("unpid", path, str(pid))


def move_aside(path: str, stamp: str) -> StringCommand:
    """Give a file another name, beside where it is.

    :param stamp: what its name then ends with.
    """
    return StringCommand("mv", "-n", "--", QuoteString(path), QuoteString(f"{path}.{stamp}"))


def restore_address(bridge: str, address: str) -> StringCommand:
    """Give a bridge an address, with its prefix."""
    words = ("ip", "address", "replace", address, "broadcast", "+", "dev", bridge)
    return StringCommand(*map(QuoteString, words))


def raise_bridge(bridge: str) -> StringCommand:
    """Set a bridge up."""
    return StringCommand("ip", "link", "set", "dev", QuoteString(bridge), "up")


def put_on_bridge(device: str, bridge: str) -> StringCommand:
    """Put a port on a bridge, and set it up."""
    words = ("ip", "link", "set", "dev", device, "master", bridge, "up")
    return StringCommand(*map(QuoteString, words))


def remove_rule(rule: str) -> StringCommand:
    """Remove a rule of the table ``filter``, as ``iptables-save`` prints it."""
    words = shlex.split(rule)
    return StringCommand("iptables", "-w", "10", "-D", *map(QuoteString, words[1:]))


def start(config: str) -> StringCommand:
    """Start the engine, let it start with the host, and start what ran before it was stopped.

    :param config: its daemon.json. One that it was to start with and never did is removed.
    """
    return _build_script("start", config)


def switch(config: str, flags: Sequence[str], stamp: str, how: str) -> StringCommand:
    """Put standard input in place of daemon.json and have the engine run with it, or put it back.

    :param config: the file, no link.
    :param flags: the words that the service starts dockerd with.
    :param stamp: the ending of the copy of what was there.
    :param how: ``restart``; ``reload``, where it is enough that the engine reads it again;
        ``either``, where that is tried first.
    """
    return _build_script("switch", config, how, stamp, *_drop_config_file(flags), before=["takeup"])


def compare_kept(config: str, stamp: str) -> StringCommand:
    """Say by the exit status whether a change of daemon.json can be taken back.

    :param config: the file.
    :param stamp: the ending of the copy of what was there before the change.
    """
    return script("stackmend.engine", "kept", ROOT, config, stamp, shared=["walk"])


def put_config_back(config: str, stamp: str) -> StringCommand:
    """Put back the daemon.json that a change replaced, and have the engine run with it.

    :param config: the file.
    :param stamp: the ending of the copy of what was there before the change.
    """
    return _build_script("return", config, stamp, before=["takeup"])


def build_rerun(config: str) -> StringCommand:
    """Have the engine run with a daemon.json that it was not seen to run with."""
    return _build_script("again", config, before=["takeup"])


def _drop_config_file(flags: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in flags:
        if skip:
            skip = False
        elif word == "--config-file":
            skip = True
        elif not word.startswith("--config-file="):
            kept.append(word)
    return kept


def _build_script(name: str, *arguments: str, before: Sequence[str] = ()) -> StringCommand:
    return script(
        *("stackmend.engine", name, ROOT, *arguments),
        before=("common", *before),
        shared=["walk", "put", "failed"],
    )
