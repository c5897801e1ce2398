"""From an action to the command that does it: the only place where values are quoted."""

from collections.abc import Iterable, Iterator

from pyinfra.api import StringCommand

from stackmend.connection import read_script, script
from stackmend.resolver.plan import SetServers
from stackmend.resolver.state import CacheName

_SHARED = ("walk", "put")


def set_servers(action: SetServers, mark: str, seconds: int) -> StringCommand:
    """Set the servers, with a revert armed before anything changes.

    :param action: what is to be set.
    :param mark: of this change.
    :param seconds: after which the host reverts it unless it is confirmed.
    """
    revert = "".join(
        (
            *(read_script("stackmend.connection", name) for name in _SHARED),
            *(read_script("stackmend.resolver", name) for name in ("common", "revert")),
        )
    )
    services = "\n".join(
        (
            *action.reload,
            *(f"connection {item.uuid} {item.device} {item.path}" for item in action.settings),
        )
    )
    return _build_script("set", mark, str(seconds), revert, services, *_list_changes(action))


def _list_changes(action: SetServers) -> Iterator[str]:
    for item in action.settings:
        yield from ("keep", item.path, "")
    for file in action.files:
        yield from (file.how, file.path, file.text)
    for item in action.settings:
        for key, value in item.values:
            yield from ("connection", item.uuid, f"{key}={value}")


def confirm(mark: str, names: Iterable[str]) -> StringCommand:
    """Let a change stay, once these names resolve."""
    return _build_script("confirm", mark, *names)


def revert(mark: str) -> StringCommand:
    """Revert a change at once."""
    return _build_script("revert", mark)


def set_startup() -> StringCommand:
    """Have systemd-resolved start with the host."""
    return StringCommand("timeout 60 systemctl enable -q systemd-resolved.service")


def flush(cache: CacheName) -> StringCommand:
    """Drop what a cache holds."""
    return script("stackmend.resolver", "flush", cache)


def _build_script(name: str, *arguments: str) -> StringCommand:
    return script("stackmend.resolver", name, *arguments, before=["common"], shared=_SHARED)
