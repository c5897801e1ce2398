"""A fresh login beside the connection that is there: the only proof that one can come in."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from paramiko import (
    BadAuthenticationType,
    MissingHostKeyPolicy,
    PKey,
    SSHClient,
    SSHException,
    Transport,
)
from paramiko.auth_strategy import AuthFailure
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.ssh import SSHConnector

from ..channel import Result
from ..errors import RemoteError, UnsupportedConnector
from ..settings import real
from .arranging import Attempts, server_key
from .errors import HostKeyRefused
from .login import ByKey, Identity, able, identities
from .target import Target, ran, transport_factory, waited

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for which a fresh login is tried again: sshd may be reloading.
PATIENCE = 8.0


class NoLogin(RemoteError):
    """A fresh login does not work; the reason says why."""


def usable(host: Host, public: Collection[bytes], files: Sequence[Path] = ()) -> list[Identity]:
    """The private keys on this machine, in files and in the agent, that belong to public ones.

    Reaches no host.

    Args:
        host: the host that they are for; its ``ssh_key`` is among those looked at.
        public: public keys, as the protocol carries them.
        files: private keys to look at beside the usual ones.

    Example:
        >>> usable(host, public_halves(["AAAAC3Nza…"]))
        [Identity(label='/home/me/.ssh/id_ed25519', …)]
    """
    connector = real(host).connector
    if not isinstance(connector, SSHConnector):
        return []
    found = list(identities(connector, Target.of(connector), files, []))
    return able(found, public)


def fresh(host: Host, user: str, keys: Sequence[Identity], command: str) -> Result:
    """Logs in to a host anew, as a user and by a key, and runs one command there.

    The connection that pyinfra has is left as it is; the host has to show the same key as on it.

    Args:
        host: the host.
        user: whom to log in as.
        keys: the keys to try.
        command: what the user's shell is to run, every value in it already quoted.

    Returns:
        What the command left behind.

    Raises:
        NoLogin: the user is not let in, or the command cannot be run.
        UnsupportedConnector: the host is not reached by ``@ssh``.

    Example:
        >>> fresh(host, "ops", usable(host, keys), "sudo -n true").ok
        True
    """
    host = real(host)
    doing = f"log in as {user}"
    if not isinstance(host.connector, SSHConnector):
        raise UnsupportedConnector(host.name, doing, "only a host reached by @ssh has logins")
    if not keys:
        raise NoLogin(host.name, doing, "this machine has no private key that belongs to the user")
    shown = server_key(host)
    target = Target.of(host.connector)

    def once() -> SSHClient:
        return _opened(target, shown, user, keys)

    try:
        client = waited(host, target, once, PATIENCE)
        with contextlib.closing(client):
            return ran(cast("Transport", client.get_transport()), command)
    except AuthFailure:
        tried = ", ".join(key.label for key in keys)
        raise NoLogin(host.name, doing, f"sshd does not accept {user} with {tried}") from None
    except (SSHException, OSError, EOFError, PyinfraError) as error:
        if isinstance(error, RemoteError):
            raise
        raise NoLogin(host.name, doing, " ".join(str(error).split())) from error


def ways_in(host: Host, user: str) -> tuple[str, ...]:
    """The ways of authentication that the host's sshd offers to a user who knows nothing.

    Args:
        host: the host.
        user: whom it is asked for.

    Raises:
        NoLogin: it cannot be asked.

    Example:
        >>> ways_in(host, "ops")
        ('publickey',)
    """
    host = real(host)
    assert isinstance(host.connector, SSHConnector), "asked for a host reached by @ssh"
    target = Target.of(host.connector)
    shown = server_key(host)

    def once() -> tuple[str, ...]:
        transport = transport_factory([shown.get_name()])(target.dial())
        with contextlib.closing(transport):
            transport.start_client(timeout=target.timeout)
            _Same(shown).missing_host_key(None, target.key_name, transport.get_remote_server_key())
            try:
                return tuple(transport.auth_none(user))
            except BadAuthenticationType as error:
                return tuple(error.allowed_types)

    try:
        return waited(host, target, once, PATIENCE)
    except (SSHException, OSError, EOFError, PyinfraError) as error:
        raise NoLogin(host.name, "ask sshd", " ".join(str(error).split())) from error


class _Same(MissingHostKeyPolicy):
    def __init__(self, key: PKey) -> None:
        self._key = key

    def missing_host_key(self, client: SSHClient | None, hostname: str, key: PKey) -> None:
        """Refuse any key but the one that the connection at hand was made with."""
        if key != self._key:
            raise HostKeyRefused(f"{hostname} shows another host key than a moment ago")


def _opened(target: Target, shown: PKey, user: str, keys: Sequence[Identity]) -> SSHClient:
    client = SSHClient()
    client.set_missing_host_key_policy(_Same(shown))
    with contextlib.ExitStack() as unless_in:
        unless_in.callback(client.close)
        client.connect(
            target.hostname,
            port=target.port,
            sock=target.dial(),
            timeout=target.timeout,
            transport_factory=transport_factory([shown.get_name()]),
            auth_strategy=Attempts([ByKey(user, key) for key in keys]),
        )
        unless_in.pop_all()
    return client
