"""Steps that the reconcilers of the engine and of its accelerators share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from stackmend import connection, retries
from stackmend.engine import commands, trust
from stackmend.errors import StepError
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand

    from stackmend.engine.plan import Install, SettingsAction, Trust, WriteSource
    from stackmend.engine.state import HostEngine
    from stackmend.reconcile import Reconciler

#: Seconds that a step of either has.
LIMIT = commands.LIMIT

_FAILURES = {
    commands.REFUSED: "dockerd refuses these settings, and stackmend changed nothing",
    commands.FAILED: "the engine does not come up with these settings; {file} is as it was before, "
    "and the engine runs with that",
    commands.DOWN: "the engine does not come up, neither with these settings nor with {file} as it "
    "was before, which is back",
    commands.CONTAINERS: "the settings are in place and the engine runs",
}


class PackageLists(NamedTuple):
    """What a host's repositories have of some packages.

    :param versions: every version of each, the newest first.
    :param candidates: the version of each that the package manager would take.
    :param unread: why it could not read some lists.
    """

    versions: dict[str, list[str]]
    candidates: dict[str, str]
    unread: list[str]


def make_stamp() -> str:
    """The ending of the copy of a file, from the clock."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def run_remote(
    room: Reconciler[Any, Any], command: StringCommand, failure: str, *, stdin: bytes | None = None
) -> connection.Result:
    """Run a command that fetches over the network; again where trying again can help.

    :param failure: what did not succeed otherwise.
    :param stdin: what it reads.
    :raises StepError: it did not succeed; the error names the class of what went wrong.
    """
    result = retries.retry(
        lambda left: connection.run(room.host, command, stdin=stdin, timeout=left),
        limit=commands.LIMIT,
        on_retry=lambda text: announce.show_line(room.host, f"  {failure}: {text}"),
    )
    if not result.ok:
        raise StepError(f"{failure}: {retries.explain(result)}", status=result.status)
    return result


def place(room: Reconciler[Any, Any], path: str, content: bytes, *, closing: bool = False) -> None:
    """Write a file of the host, or remove it where there is no content.

    :param closing: whether it is done even where a signal is about to end the run.
    """
    room.run(
        commands.place(path, make_stamp()),
        f"cannot write {path}",
        stdin=content,
        timeout=commands.LIMIT,
        closing=closing,
    )


def trust_key(room: Reconciler[Any, Any], action: Trust, setting: str = "key_fingerprint") -> None:
    """Put a repository's key in place.

    :param setting: what names its fingerprint in a stack's section ``engine``.
    """
    # Read and compared before anything of it is on the host.
    key = trust.read_key(room.host, action.key, action.fingerprints, setting)
    with room.step(action):
        place(room, action.keyring, key)


def write_source(room: Reconciler[Any, Any], action: WriteSource) -> None:
    """Write the files that tell the package manager where packages come from."""
    with room.step(action):
        for file in action.files:
            place(room, file.path, file.text.encode())


def refresh(
    room: Reconciler[Any, Any], state: HostEngine, target: str, packages: Sequence[str]
) -> PackageLists:
    """What the repositories have of some packages, from lists that the host reads anew.

    :param target: the suite, or apk's address, that they are taken from; empty for any.
    """
    command = commands.refresh(state.manager, target, packages)
    result = run_remote(room, command, "cannot read the package lists")
    lists = PackageLists({}, {}, [])
    for line in result.text.splitlines():
        kind, _, rest = line.partition(" ")
        name, _, version = rest.partition(" ")
        match kind:
            case "candidate":
                lists.candidates[name] = version
            case "version":
                lists.versions.setdefault(name, []).append(version)
            case "unread":
                lists.unread.append(rest)
    return lists


def install_packages(room: Reconciler[Any, Any], action: Install, state: HostEngine) -> None:
    """Install packages that start nothing."""
    with room.step(action):
        lists = refresh(room, state, "", action.packages)
        absent = [package for package in action.packages if package not in lists.candidates]
        if absent:
            connection.run(room.host, commands.drop_lists(), closing=True)
            reason = f": {'; '.join(lists.unread)}" if lists.unread else ""
            raise StepError(f"no repository of the host has {', '.join(absent)}{reason}")
        command = commands.install(state.manager, "", action.packages, engine=False)
        run_remote(room, command, f"cannot install {action.subject}")


def set_config(room: Reconciler[Any, Any], action: SettingsAction, state: HostEngine) -> None:
    """Have the engine run with a daemon.json, or with the one before.

    :raises StepError: dockerd refuses it, or does not come up with it.
    """
    stamp = make_stamp()
    if action.verb == "set":
        action = action.model_copy(update={"undo": f"engine.restored(copy={stamp!r})"})
    with room.step(action):
        if action.verb == "take up":
            command, stdin = commands.build_rerun(action.subject), None
        else:
            broken = action.verb == "put back"
            how = "restart" if action.restart else "either" if broken else "reload"
            # What ends so is never put back itself.
            stamp = f"{stamp}.broken" if broken else stamp
            command = commands.switch(action.subject, state.service.flags, stamp, how)
            stdin = action.text.encode()
        result = connection.run(room.host, command, stdin=stdin, timeout=commands.LIMIT)
        if not result.ok:
            failure = _FAILURES.get(result.status, "cannot set {file}")
            raise StepError(f"{failure.format(file=action.subject)}: {result.reason}")
