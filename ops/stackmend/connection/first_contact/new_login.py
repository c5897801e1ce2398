"""A new login beside the connection that is there: the only proof that a user can log in."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
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
from ..settings import unwrap
from .arrange import Attempts, get_server_key
from .errors import HostKeyRefused
from .login import ByKey, Identity, list_identities, select_matching_identities
from .target import Target, make_transport_factory, run_once, wait_until_reachable

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for which a new login is tried again: sshd may be reloading.
TIMEOUT = 8.0


class NoLogin(RemoteError):
    """A new login does not work; the reason says why."""


def find_matching_identities(
    host: Host, public: Collection[bytes], files: Sequence[Path] = ()
) -> list[Identity]:
    """The private keys on this machine, in files and in the agent, that belong to public ones.

    Reaches no host.

    :param host: the host that they are for; its ``ssh_key`` is among those looked at.
    :param public: public keys, as the protocol carries them.
    :param files: private keys to look at beside the usual ones.

    Example:
        >>> find_matching_identities(host, decode_public_keys(["AAAAC3Nza…"]))
        [Identity(label='/home/me/.ssh/id_ed25519', …)]
    """
    connector = unwrap(host).connector
    if not isinstance(connector, SSHConnector):
        return []
    found = list(list_identities(connector, Target.from_connector(connector), files, []))
    return select_matching_identities(found, public)


def run_new_login(host: Host, user: str, keys: Sequence[Identity], command: str) -> Result:
    """Logs in to a host anew, as a user and by a key, and runs one command there.

    The connection that pyinfra has is left as it is; the host has to show the same key as on it.

    :param host: the host.
    :param user: whom to log in as.
    :param keys: the keys to try.
    :param command: what the user's shell is to run, every value in it already quoted.
    :returns: what the command left behind.
    :raises NoLogin: the user is not let in, or the command cannot be run.
    :raises UnsupportedConnector: the host is not reached by ``@ssh``.

    Example:
        >>> run_new_login(host, "ops", find_matching_identities(host, keys), "sudo -n true").ok
        True
    """
    host = unwrap(host)
    doing = f"log in as {user}"
    if not isinstance(host.connector, SSHConnector):
        raise UnsupportedConnector(host.name, doing, "only a host reached by @ssh has logins")
    if not keys:
        raise NoLogin(host.name, doing, "this machine has no private key that belongs to the user")
    host_key = get_server_key(host)
    target = Target.from_connector(host.connector)

    def try_once() -> SSHClient:
        return _open(target, host_key, user, keys)

    try:
        client = wait_until_reachable(host, target, try_once, TIMEOUT)
        with contextlib.closing(client):
            return run_once(cast("Transport", client.get_transport()), command)
    except AuthFailure:
        tried = ", ".join(key.label for key in keys)
        raise NoLogin(host.name, doing, f"sshd does not accept {user} with {tried}") from None
    except (SSHException, OSError, EOFError, PyinfraError) as error:
        if isinstance(error, RemoteError):
            raise
        raise NoLogin(host.name, doing, " ".join(str(error).split())) from error


@contextlib.contextmanager
def open_new_login(host: Host) -> Iterator[None]:
    """Within the block, commands go over a connection made anew, as the same user.

    The connection before is left as it is, and comes back at the end. On ``@local`` there is none
    to be made.

    :param host: the host.
    :raises NoLogin: the host lets nobody in any more.

    Example:
        >>> with open_new_login(host): run(host, "true").ok
        True
    """
    connector = unwrap(host).connector
    if not isinstance(connector, SSHConnector):
        yield
        return
    before, connector.client = connector.client, None
    try:
        try:
            connector.connect()
        except (SSHException, OSError, EOFError, PyinfraError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NoLogin(host.name, "log in anew", reason) from error
        yield
    finally:
        made, connector.client = connector.client, before
        if made is not None:
            made.close()


def read_auth_methods(host: Host, user: str) -> tuple[str, ...]:
    """The methods of authentication that the host's sshd offers to a user.

    :param host: the host.
    :param user: whom it is asked for.
    :raises NoLogin: it cannot be asked.

    Example:
        >>> read_auth_methods(host, "ops")
        ('publickey',)
    """
    host = unwrap(host)
    assert isinstance(host.connector, SSHConnector), "asked for a host reached by @ssh"
    target = Target.from_connector(host.connector)
    host_key = get_server_key(host)

    def try_once() -> tuple[str, ...]:
        transport = make_transport_factory([host_key.get_name()])(target.dial())
        with contextlib.closing(transport):
            transport.start_client(timeout=target.timeout)
            _Same(host_key).missing_host_key(
                None, target.key_name, transport.get_remote_server_key()
            )
            try:
                return tuple(transport.auth_none(user))
            except BadAuthenticationType as error:
                return tuple(error.allowed_types)

    try:
        return wait_until_reachable(host, target, try_once, TIMEOUT)
    except (SSHException, OSError, EOFError, PyinfraError) as error:
        raise NoLogin(host.name, "ask sshd", " ".join(str(error).split())) from error


class _Same(MissingHostKeyPolicy):
    def __init__(self, key: PKey) -> None:
        self._key = key

    def missing_host_key(self, client: SSHClient | None, hostname: str, key: PKey) -> None:
        """Refuse any key but the one that the connection at hand was made with."""
        if key != self._key:
            raise HostKeyRefused(f"{hostname} shows another host key than a moment ago")


def _open(target: Target, host_key: PKey, user: str, keys: Sequence[Identity]) -> SSHClient:
    client = SSHClient()
    client.set_missing_host_key_policy(_Same(host_key))
    with contextlib.ExitStack() as unless_in:
        unless_in.callback(client.close)
        client.connect(
            target.hostname,
            port=target.port,
            sock=target.dial(),
            timeout=target.timeout,
            transport_factory=make_transport_factory([host_key.get_name()]),
            auth_strategy=Attempts([ByKey(user, key) for key in keys]),
        )
        unless_in.pop_all()
    return client
