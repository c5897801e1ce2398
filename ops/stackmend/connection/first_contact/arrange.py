"""First contact: from a machine that may still be booting to a connection that pyinfra uses.

It waits for sshd, checks its key before it authenticates anything, and uses the first login that
works. The recorded host key makes every later connection the same: the same user, the same key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from paramiko import AuthenticationException, SSHClient, SSHException, Transport
from paramiko.auth_strategy import AuthFailure, AuthSource, AuthStrategy
from pyinfra import logger
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors.ssh import SSHConnector

from .contact import Contact
from .errors import HostKeyRefused
from .hostkey import KnownHosts, Unmatched, find_offered_key
from .login import Login, list_logins
from .target import (
    RECONNECT_TIMEOUT,
    Target,
    make_transport_factory,
    run_once,
    wait_until_reachable,
)

if TYPE_CHECKING:
    from paramiko import PKey
    from pyinfra.api.host import Host, HostData

#: Logins tried on one connection: sshd ends it after six (``MaxAuthTries``).
TRIES = 5


class ContactError(ConnectError):
    """A host cannot be reached or does not let us in; the text says why and what to do."""


def arrange(host: Host, contact: Contact) -> None:
    """Makes pyinfra connect to a host by first contact.

    :param host: the host; one that is not reached by ``@ssh`` is left alone.
    :param contact: what is known of it.

    Example:
        >>> arrange(host, Contact(user="ops", fingerprint="SHA256:…"))
        >>> host.connect()
    """
    connector = host.connector
    if isinstance(connector, SSHConnector):
        vars(connector)["connect"] = _FirstContact(host, connector, contact).connect


class _FirstContact:
    def __init__(self, host: Host, connector: SSHConnector, contact: Contact) -> None:
        self._host = host
        self._connector = connector
        self._contact = contact
        # Read now: pyinfra's command line is out of sight where hosts are connected.
        self._known_hosts = contact.known_hosts or _find_known_hosts(connector)
        self._tried: list[str] = []

    def connect(self) -> None:
        """Connect; what pyinfra calls.

        :raises ContactError: and nothing else: another error would end the run on every host.
        """
        self._tried.clear()
        try:
            client, login = self._make_first()
        except (SSHException, OSError, EOFError, PyinfraError, ValueError) as error:
            if isinstance(error, ConnectError):
                raise ContactError(str(error)) from error
            text = " ".join(str(error).split()) or type(error).__name__
            raise ContactError(f"no contact: {text}") from error
        self._use(client, login)

    def _make_first(self) -> tuple[SSHClient, Login]:
        target = Target.from_connector(self._connector)
        known = KnownHosts(
            self._known_hosts,
            target.key_name,
            fingerprint=self._contact.fingerprint,
            strict=self._connector.data["ssh_strict_host_key_checking"] == "yes",
            warn=lambda text: logger.warning("%s%s", self._host.print_prefix, text),
        )
        timeout = self._contact.wait if known.new else min(self._contact.wait, RECONNECT_TIMEOUT)
        for login in list_logins(self._host, self._connector, self._contact, target, self._tried):
            for few in _split(TRIES, login.sources):
                client = self._try(target, known, few, timeout)
                # It has answered: an error now does not come from the boot.
                timeout = min(timeout, RECONNECT_TIMEOUT)
                if client is not None and self._can_become_root(client, login):
                    return client, login
        raise ContactError(_format_failure(self._contact.user, self._tried))

    def _try(
        self, target: Target, known: KnownHosts, sources: list[AuthSource], timeout: float
    ) -> SSHClient | None:
        """One connection with a few logins tried on it; None where none of them works."""

        def try_once() -> SSHClient | None:
            return self._open(target, known, sources)

        try:
            return wait_until_reachable(self._host, target, try_once, timeout)
        except Unmatched as error:
            # The fingerprint may be that of another of the host's keys: each is asked for, and
            # nothing is authenticated meanwhile.
            match = find_offered_key(target, known)
            if match is None:
                raise HostKeyRefused(error.format_message(known.offered)) from None
        return wait_until_reachable(self._host, target, try_once, timeout)

    def _open(
        self, target: Target, known: KnownHosts, sources: list[AuthSource]
    ) -> SSHClient | None:
        client = SSHClient()
        # No recorded key is given to the client: whatever the host shows is judged by `known`,
        # which paramiko asks between the key exchange and the first authentication.
        client.set_missing_host_key_policy(known)
        with contextlib.ExitStack() as unless_in:
            unless_in.callback(client.close)
            try:
                client.connect(
                    target.hostname,
                    port=target.port,
                    sock=target.dial(),
                    timeout=target.timeout,
                    transport_factory=make_transport_factory(known.prefer),
                    auth_strategy=Attempts(sources),
                )
            except AuthFailure as failure:
                self._tried += _list_failures(failure)
                return None
            transport = client.get_transport()
            if transport is None or not transport.is_authenticated():
                self._tried.append(f"{sources[0].username}: the host wants a second factor")
                return None
            unless_in.pop_all()
        return client

    def _can_become_root(self, client: SSHClient, login: Login) -> bool:
        """Whether the login leads to root; a user of that name may have been there before."""
        data = self._host.data
        if login.user == "root" or _has_elevation(data) or data.get("_sudo_password"):
            return True
        result = run_once(cast("Transport", client.get_transport()), "sudo -n true")
        if result.ok:
            return True
        self._tried.append(f"{login.user}: logs in, but may not become root ({result.reason})")
        client.close()
        return False

    def _use(self, client: SSHClient, login: Login) -> None:
        # pyinfra's own class differs from paramiko's in how it connects, and in nothing else.
        self._connector.client = cast("Any", client)
        self._connector.data["ssh_user"] = login.user
        data = self._host.data
        if not _has_elevation(data):
            # A new machine may have no sudo at all, and root needs none.
            data._sudo = login.user != "root"


class Attempts(AuthStrategy):
    """Logins tried one after the other on one connection.

    :param sources: the logins.
    """

    def __init__(self, sources: list[AuthSource]) -> None:
        super().__init__(ssh_config=cast("Any", None))
        self._sources = sources

    def get_sources(self) -> Iterator[AuthSource]:
        """Each login, in the order to try."""
        yield from self._sources


def get_server_key(host: Host) -> PKey:
    """The key that the host showed on the connection that pyinfra has to it."""
    from ..link import link

    return link(host).open_transport().get_remote_server_key()


def _has_elevation(data: HostData) -> bool:
    """Whether the host's data names another way to root than sudo."""
    return bool(data.get("_doas") or data.get("_dzdo"))


def _list_failures(failure: AuthFailure) -> Iterator[str]:
    for source, result in failure.result:
        if isinstance(result, AuthenticationException):
            yield f"{source}: not accepted"
        else:
            reason = " ".join(str(result).split()) or type(result).__name__
            yield f"{source}: {reason}"


def _format_failure(user: str, tried: list[str]) -> str:
    listed = "; ".join(tried) or "nothing: there is no key, no agent and no password"
    return (
        f"no login works. Tried: {listed}; remedy: have one of these keys accepted for {user} or "
        "root on the host, load the right one into an agent, name it with ssh_key, or give root's "
        "password in STACKMEND_ROOT_PASSWORD"
    )


def _split(size: int, sources: list[AuthSource]) -> Iterator[list[AuthSource]]:
    for first in range(0, len(sources), size):
        yield sources[first : first + size]


def _find_known_hosts(connector: SSHConnector) -> Path:
    configured = connector.data["ssh_known_hosts_file"]
    if configured:
        return Path(configured).expanduser()
    import click

    context = click.get_current_context(silent=True)
    inventory = Path(str((context.params if context else {}).get("inventory") or ""))
    return (inventory.parent if inventory.is_file() else Path()) / "known_hosts"
