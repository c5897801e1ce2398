"""Where a host's sshd is, and how it is waited for."""

from __future__ import annotations

import errno
import logging
import shlex
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from paramiko import AuthenticationException, SSHException, Transport
from pyinfra import logger
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.sshuserclient import SSHClient as ConfiguredClient
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from ..channel import Result
from ..link import make_transport
from ..preamble import Preamble, format_silence, make_marker
from .errors import HostKeyRefused

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.connectors.ssh import SSHConnector
    from tenacity import RetryCallState

T = TypeVar("T")

#: Seconds for which a host that was reached before may be away: sshd that is reloaded just now.
RECONNECT_TIMEOUT = 10.0

#: Seconds between two attempts, growing from the first to the second.
PAUSES = (0.2, 3.0)

#: Seconds between two lines that say what is waited for.
LOG_EVERY = 15.0

#: Seconds that a host has to answer where pyinfra's configuration sets no limit.
TIMEOUT = 10.0


#: Seconds for which a command on such a connection may say nothing.
COMMAND_TIMEOUT = 30.0

#: The exit status of a shell that cannot run a command.
_NOT_RUN = 126

# Every attempt that fails is told by us; paramiko would print a traceback for each.
_LOG = "stackmend.contact"
logging.getLogger(_LOG).addHandler(logging.NullHandler())


class NotReady(ConnectError):
    """Nothing that speaks SSH answered; it may do so later.

    :param symptom: what happened instead, in a few words.
    :param advice: what to look at where it stays so.
    """

    def __init__(self, symptom: str, advice: str) -> None:
        super().__init__(f"{symptom}; remedy: {advice}")
        self.symptom = symptom
        self.advice = advice


class Unresolvable(ConnectError):
    """The host's name leads nowhere."""


@dataclass(frozen=True)
class Target:
    """The place of one sshd, with what the user's own SSH configuration says of it.

    :param connector: pyinfra's connector of the host.
    :param hostname: name or address.
    :param port: its port.
    :param config: what else the SSH configuration holds: an identity; a way through a jump host,
        until it is used.
    :param agent: the socket of the agent that the SSH configuration names, if it names one.
    """

    connector: SSHConnector
    hostname: str
    port: int
    config: dict[str, Any]
    agent: str | None

    @classmethod
    def from_connector(cls, connector: SSHConnector) -> Target:
        """The target of a connector."""
        data = connector.data
        name = data["ssh_hostname"] or connector.host.name
        explicit = {"port": int(data["ssh_port"])} if data["ssh_port"] else {}
        client: Any = ConfiguredClient()
        hostname, config, _, _, _, _, agent = client.parse_config(
            name, dict(explicit), ssh_config_file=data["ssh_config_file"]
        )
        config.update(explicit)
        return cls(connector, hostname, int(config["port"]), config, agent)

    @property
    def key_name(self) -> str:
        """As a file of known hosts names it."""
        return self.hostname if self.port == 22 else f"[{self.hostname}]:{self.port}"

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.hostname} port {self.port}"

    @property
    def timeout(self) -> float:
        """Seconds that the host has to answer."""
        return self.connector.state.config.CONNECT_TIMEOUT or TIMEOUT

    def dial(self) -> Any:
        """A new socket to the host's sshd, or what stands in for one behind a jump host."""
        if "sock" in self.config:
            # Each connection needs a way of its own through the jump host.
            unused, self.config["sock"] = self.config["sock"], None
            return unused or Target.from_connector(self.connector).config["sock"]
        return socket.create_connection((self.hostname, self.port), self.timeout)


def make_transport_factory(prefer: Sequence[str]) -> Callable[..., Transport]:
    """Makes transports without Nagle's delays that ask for a certain kind of host key first.

    :param prefer: the kinds, as ``known_hosts`` names them.
    """

    def make(sock: Any, **options: Any) -> Transport:
        transport = make_transport(sock, **options)
        transport.set_log_channel(_LOG)
        security = transport.get_security_options()
        first = [kind for kind in security.key_types if _find_kind(kind) in prefer]
        security.key_types = [*first, *(kind for kind in security.key_types if kind not in first)]
        return transport

    return make


def _find_kind(algorithm: str) -> str:
    # One RSA key signs by several algorithms.
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def wait_until_reachable(host: Host, target: Target, attempt: Callable[[], T], timeout: float) -> T:
    """Attempts until something that speaks SSH answers, and says what is waited for.

    :param host: the host, for what is told.
    :param target: where it is.
    :param attempt: connects; the errors of a host that is not ready are told apart here.
    :param timeout: seconds; at 0 one attempt is made.
    :raises NotReady: it was not ready within that time.
    :raises Unresolvable: its name leads nowhere, which no waiting mends.
    :raises HostKeyRefused: its key is not to be trusted.
    """
    logged: dict[str, float] = {}

    def log_wait(state: RetryCallState) -> None:
        assert state.outcome is not None, "called after an attempt"
        error = state.outcome.exception()
        assert isinstance(error, NotReady), "nothing else is retried"
        passed = state.seconds_since_start or 0.0
        # What passes within a second is sshd being reloaded.
        if passed >= 1 and passed - logged.get(error.symptom, -LOG_EVERY) >= LOG_EVERY:
            logged[error.symptom] = passed
            logger.warning(
                "%swaiting for sshd, for %.0f s more: %s",
                host.print_prefix,
                max(0.0, timeout - passed),
                error.symptom,
            )

    def try_once() -> T:
        try:
            return attempt()
        except (HostKeyRefused, AuthenticationException, ConnectError):
            raise
        except (OSError, SSHException, EOFError) as error:
            raise _classify(error, target) from error

    return Retrying(
        stop=stop_after_delay(timeout),
        wait=wait_exponential(multiplier=PAUSES[0], max=PAUSES[1]),
        retry=retry_if_exception_type(NotReady),
        before_sleep=log_wait,
        reraise=True,
    )(try_once)


def run_once(transport: Transport, command: str) -> Result:
    """Runs one command on a connection that pyinfra does not have, over one channel.

    :param transport: the connection, authenticated.
    :param command: what the user's shell is to run, every value in it already quoted.
    :raises SSHException: the connection died, or opens no channel.
    :raises TimeoutError: nothing came for half a minute.
    """
    marker = make_marker()
    channel = transport.open_session(timeout=COMMAND_TIMEOUT)
    channel.settimeout(COMMAND_TIMEOUT)
    channel.exec_command(f"exec sh -c {shlex.quote(marker.command + command)}".encode())
    channel.shutdown_write()
    preambles = Preamble(marker.value), Preamble(marker.value)
    streams = channel.recv, channel.recv_stderr
    out, err = (
        b"".join(map(preamble.strip, _read_chunks(receive)))
        for preamble, receive in zip(preambles, streams, strict=True)
    )
    status = channel.recv_exit_status()
    if not preambles[0].over:
        # What runs in its place may end well.
        output = format_silence(preambles[0].before, preambles[1].before, status)
        return Result(status or _NOT_RUN, b"", f"does not run the command: {output}".encode())
    return Result(status, out, err)


def _read_chunks(receive: Any) -> Iterator[bytes]:
    while data := receive(32 * 1024):
        yield data


def _classify(error: Exception, target: Target) -> ConnectError:
    """Which kind of failure it is, and what to do about it."""
    place = target.place
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return NotReady(
                f"unresolvable for now: no name server answers for {target.hostname}",
                "look at this machine's own resolver",
            )
        return Unresolvable(
            f"unresolvable: there is no {target.hostname} ({error.strerror}); remedy: check "
            "the name's spelling, or give the address with ssh_hostname"
        )
    if isinstance(error, ConnectionRefusedError):
        return NotReady(
            f"refused: nothing listens at {place}",
            "check that sshd runs there, and on this port (ssh_port)",
        )
    if isinstance(error, TimeoutError):
        return NotReady(
            f"timed out: no answer from {place} within {target.timeout:g} s",
            "check that the machine is on, its address right, and no firewall in the way",
        )
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return NotReady(
            f"unreachable: there is no way to {place}",
            "check that the machine is on, the address right, and this machine's own network up",
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    return NotReady(
        f"no SSH: {place} takes the connection and speaks no SSH ({reason})",
        "check that sshd listens there and does not drop this machine (MaxStartups, fail2ban)",
    )
