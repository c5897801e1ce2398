"""What this process knows about its link to each host: the transport, and when it last acted."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from paramiko import ProxyCommand, SSHException, Transport
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from typing_extensions import override

from .errors import ConnectionLost, UnsupportedConnector
from .settings import unwrap

if TYPE_CHECKING:
    from pyinfra.api.host import Host

# What ends a connection is told by whoever uses it; paramiko would print a traceback as well.
logging.getLogger("paramiko.transport").addHandler(logging.NullHandler())

#: Seconds after which a host that answers nothing any more counts as gone.
DEAD_AFTER = 60

#: Seconds after which an idle connection is looked after, by paramiko ten times a second: of many
#: hosts that are waited for, that takes more processor time than all that is done with them.
IDLE = 1.0

#: What paramiko says where a connection ends before the other side has said what it speaks.
BANNER_UNREAD = "Error reading SSH protocol banner"

_ACTING = ("run_shell_command", "put_file", "get_file", "rsync")


class Link:
    """One host as this process sees it. Made at first use, by :func:`link`.

    :param host: the host.
    :param generation: grows with every command executed on the host, by whomever in this process.
    :param hung: whether the engine did not answer when it was asked last, and no command has
        changed the host since.
    :param memory: for the modules of this package that keep something per host.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.generation = 0
        self.hung = False
        self.memory: dict[str, Any] = {}
        self._transports: list[Transport] = []
        for name in _ACTING:
            self._watch(name)

    def _watch(self, name: str) -> None:
        method: Callable[..., Any] = getattr(self.host.connector, name)

        @functools.wraps(method)
        def open_watched(*args: Any, **kwargs: Any) -> Any:
            with self.mark_change():
                return method(*args, **kwargs)

        setattr(self.host.connector, name, open_watched)

    @contextlib.contextmanager
    def mark_change(self) -> Iterator[None]:
        """Marks a time in which the host may change: nothing read before its end stays valid."""
        self.generation += 1
        try:
            yield
        finally:
            # Again at the end: what was read meanwhile may have seen half of the change.
            self.generation += 1

    @property
    def is_local(self) -> bool:
        """Whether commands run on this very machine, without a transport.

        :raises UnsupportedConnector: the host is reached in yet another way.
        """
        connector = self.host.connector
        if isinstance(connector, LocalConnector):
            return True
        if isinstance(connector, SSHConnector):
            return False
        raise UnsupportedConnector(
            self.host.name,
            "open a channel",
            f"{type(connector).__name__} has no channels; use @ssh or @local",
        )

    def open_transport(self) -> Transport:
        """pyinfra's own paramiko transport to the host, connecting first where need be.

        :raises ConnectionLost: it is closed.
        """
        connector = self.host.connector
        assert isinstance(connector, SSHConnector)
        if not self.host.connected or connector.client is None:
            self.host.connect(reason="to open a channel", raise_exceptions=True)
        assert connector.client is not None
        transport = connector.client.get_transport()
        if transport is None or not transport.is_active():
            raise ConnectionLost(self.host.name, "open a channel", "the connection is closed")
        self._meet(transport)
        return transport

    def _meet(self, transport: Transport) -> None:
        if all(transport is not known for known in self._transports):
            self._transports.append(transport)
            _send_at_once(transport.sock)
            _notice_death(transport)

    def count_channels(self) -> int:
        """How many channels this process has asked for on the transports to the host."""
        if self.is_local:
            return 0
        client = getattr(self.host.connector, "client", None)
        transport = client.get_transport() if client is not None else None
        if transport is not None:
            self._meet(transport)
        # paramiko numbers the channels of a transport from zero, whoever opens them.
        return sum(vars(transport)["_channel_counter"] for transport in self._transports)


def limit_key_errors(hosts: Iterable[Host]) -> None:
    """Makes a private key that cannot be read fail its own host, and not the whole run.

    :param hosts: the hosts; those not reached by ``@ssh`` are left alone.
    """
    for host in hosts:
        connector = host.connector
        if isinstance(connector, SSHConnector):
            wrapped = _read_key_first(connector)
            connector.make_paramiko_kwargs = wrapped  # type: ignore[method-assign]


def _read_key_first(connector: SSHConnector) -> Callable[[], dict[str, Any]]:
    make = connector.make_paramiko_kwargs

    @functools.wraps(make)
    def make_or_fail() -> dict[str, Any]:
        try:
            return make()
        except EOFError:
            key = connector.data["ssh_key"]
            raise ConnectError(
                f"The private key {key} has a passphrase, and there is no terminal to ask for it: "
                "set ssh_key_password, or leave ssh_key out and add the key to ssh-agent"
            ) from None
        except ConnectError:
            raise
        except PyinfraError as error:
            raise ConnectError(str(error)) from None

    return make_or_fail


def add_address(host: Host, reason: str) -> str:
    """Why a host cannot be reached, with its address where the reason does not name that.

    It may be what is wrong. Of a host that is not reached by ``@ssh`` the reason is left as it is.

    :param host: the host.
    :param reason: as pyinfra has it.

    Example:
        >>> add_address(host, "Could not resolve hostname (Name or service not known)")
        'Could not resolve hostname (Name or service not known) [ops@ai1.example.com, port 2222]'
    """
    connector = host.connector
    if not isinstance(connector, SSHConnector):
        return reason
    data = connector.data
    address = data["ssh_hostname"] or host.name
    if address in reason:
        return reason
    user = f"{data['ssh_user']}@" if data["ssh_user"] else ""
    port = f", port {data['ssh_port']}" if data["ssh_port"] else ""
    return f"{reason} [{user}{address}{port}]"


def quicken(hosts: Iterable[Host]) -> None:
    """Makes the connections to hosts not yet contacted send small packets at once.

    Without it a login over SSH spends 40 ms or more in waiting for acknowledgements.

    :param hosts: the hosts; those not reached by ``@ssh`` are left alone.
    """
    for host in hosts:
        connector = host.connector
        if isinstance(connector, SSHConnector):
            configured = connector.data["ssh_paramiko_connect_kwargs"] or {}
            connector.data["ssh_paramiko_connect_kwargs"] = {
                "transport_factory": make_transport,
                **configured,
            }


def make_transport(sock: Any, **options: Any) -> Transport:
    """A paramiko transport that sends small packets at once, and sleeps while it is idle.

    :param sock: the socket, or what stands in for one.
    :param **options: as :class:`paramiko.Transport` takes them.
    """
    _send_at_once(sock)
    transport = _Transport(sock, **options)
    # After paramiko's own.
    sock.settimeout(IDLE)
    return transport


class BrokenOff(SSHException):
    """The other side ended a connection before the two agreed on keys; nobody has logged in."""


class _Transport(Transport):
    @override
    def start_client(
        self, event: threading.Event | None = None, timeout: float | None = None
    ) -> None:
        """Begin, and say why where nothing begins: paramiko returns when the time is over."""
        began = time.monotonic()
        try:
            super().start_client(event, timeout)
        except (SSHException, EOFError, ConnectionError) as error:
            # paramiko says the same where nothing came for as long as it waits.
            if time.monotonic() - began >= self.banner_timeout:
                raise _make_silence(self.banner_timeout) from error
            # Its process may end for a reason of its own, a refused login among them.
            if _is_broken_off(error) and not isinstance(self.sock, ProxyCommand):
                reason = " ".join(str(error).split()) or type(error).__name__
                raise BrokenOff(
                    f"sshd ends the connection before keys are agreed on: {reason}"
                ) from error
            raise
        if event is None and timeout is not None and not self.initial_kex_done:
            self.close()
            raise _make_silence(timeout)


def _is_broken_off(error: Exception) -> bool:
    return isinstance(error, EOFError | ConnectionError) or str(error).startswith(BANNER_UNREAD)


def _make_silence(seconds: float) -> SSHException:
    return SSHException(
        f"sshd accepts connections and does not answer within {seconds:g} s: see on the "
        "host what it waits for (journalctl -u ssh), and what listens at this port"
    )


def _send_at_once(sock: Any) -> None:
    # A jump host's channel or a proxy command stands in for the socket and has no options.
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _notice_death(transport: Transport) -> None:
    """Closes the transport when the host is gone without a word, for example switched off.

    TCP would not notice for a quarter of an hour, and behind a jump host not at all.
    """

    def ask_now_and_then() -> None:
        while transport.is_active():
            time.sleep(DEAD_AFTER / 3)
            deadline = threading.Timer(DEAD_AFTER * 2 / 3, transport.close)
            deadline.daemon = True
            deadline.start()
            # Any answer will do, a refusal is one.
            with contextlib.suppress(SSHException, EOFError, OSError):
                transport.global_request("keepalive@openssh.com", wait=True)
            deadline.cancel()

    threading.Thread(target=ask_now_and_then, daemon=True).start()


def link(host: Host) -> Link:
    """The link to a host; the same one for the life of the host object."""
    known = host.connector_data.get("stackmend")
    if known is None:
        known = host.connector_data["stackmend"] = Link(host)
    return cast("Link", known)


def count_channels(host: Host) -> int:
    """How many channels this process has asked for on the connection to a host.

    Counts pyinfra's own as well, and those that the host did not grant; 0 on ``@local``.

    :param host: the host.

    Example:
        >>> before = count_channels(host); read(host, Hostname); count_channels(host) - before
        1
    """
    return link(unwrap(host)).count_channels()
