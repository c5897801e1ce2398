"""HTTP from the host's point of view: to a container that publishes nothing, for example."""

from __future__ import annotations

import logging
import math
import select
import shlex
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import httpcore
import httpx
from paramiko import Channel, ChannelException, SSHException
from pyinfra.api.command import StringCommand
from typing_extensions import override

from . import signals
from .channel import open_stream
from .errors import ConnectionLost, DialError, RemoteError
from .link import Link, link
from .moments import Inbox, Wire, find_wire
from .settings import Settings, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyinfra.api.host import Host

T = TypeVar("T")

Via = Literal["auto", "forward", "bridge"]

#: What every request may raise; for the rooms, which do not know what HTTP is spoken with.
HTTPError = httpx.HTTPError

#: What :func:`http` gives, and what it answers.
HTTPClient = httpx.Client
HTTPResponse = httpx.Response

#: Bytes that an answer may have, unless it is a stream that is read as it comes.
LONGEST = 4 << 20

#: Bytes that one line of a stream may have.
LONGEST_LINE = 1 << 20

#: Seconds that an answer may take from its first byte to its last, beyond the wait for the first.
TO_ITS_END = 60.0

#: The parts of the way to an answer, in order.
Layer = Literal["name", "connect", "tls", "http"]

# What resolvers say, on the host and through OpenSSH, of a name without an address.
_NO_NAME = (
    "name or service not known",
    "name resolution",
    "unknown host",
    "no address associated",
    "nodename nor servname",
    "name does not resolve",
    "non-recoverable failure",
)

# What cannot be reached is told to the caller. Without a handler of its own, paramiko's line about
# it would end up on the user's terminal as well.
logging.getLogger("paramiko.transport").addHandler(logging.NullHandler())

#: RFC 4254, 5.1: the server does not let us, as opposed to: nobody answers there.
_PROHIBITED = 1

# Once connected the shell gives up its own standard output and error, so that the channel ends as
# soon as the server closes; and it ends itself, and the reader with it, when its input does.
_BRIDGE = """\
exec 3<>/dev/tcp/{address}/{port} || exit 1
printf %s {marker} >&2
cat <&3 2>/dev/null &
exec >/dev/null 2>&1
cat >&3
kill %1
"""


class TooMuch(httpx.DecodingError):
    """An answer is longer than it may be, or packed so that it may become so."""


class _Deadline:
    """How long an answer may take in all, since the last byte of what it answers was sent.

    :param total: seconds; ``None`` where there is no limit.
    """

    def __init__(self, total: float | None) -> None:
        self._total = math.inf if total is None else total
        self.begin()

    def begin(self) -> None:
        self._limit = self._total
        self._until = time.monotonic() + self._limit

    def shorten(self, seconds: float) -> None:
        """End this answer sooner than others may."""
        if (until := time.monotonic() + seconds) < self._until:
            self._limit, self._until = seconds, until

    def get_remaining(self, timeout: float | None) -> float | None:
        """Seconds that the next step may take, where it alone may take ``timeout``."""
        if self._until == math.inf:
            return timeout
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"the answer did not end within {self._limit:g} s")
        return left if timeout is None else min(left, timeout)


class _Connection(httpcore.NetworkStream):
    """A byte stream to the address, over a channel or a socket.

    :param total: seconds that an answer may take in all; ``None`` where there is no limit.
    """

    def __init__(
        self,
        sock: Channel | socket.socket,
        close: Callable[[], None],
        total: float | None = None,
    ) -> None:
        self._sock: Any = sock
        self._close = close
        self.total = total
        self._deadline = _Deadline(total)
        self._departed = self._arrived = time.monotonic()
        self._pieces: deque[tuple[bytes, float]] = deque()
        self._inbox: Inbox | None = None
        self._wire: Wire | None
        if isinstance(sock, Channel):
            self._wire = find_wire(sock.get_transport())
            self._inbox = _replace_inbox(sock, self._wire)
        else:
            self._sock = self._wire = Wire(sock)

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        timeout = self._deadline.get_remaining(timeout)
        if not self._pieces:
            self._pieces.extend(self._receive(max_bytes, timeout))
        data, self._arrived = self._pieces.popleft()
        if len(data) > max_bytes:
            self._pieces.appendleft((data[max_bytes:], self._arrived))
        return data[:max_bytes]

    def _receive(self, max_bytes: int, timeout: float | None) -> list[tuple[bytes, float]]:
        """What came, by the moments at which it did: nothing at its end."""
        try:
            self._sock.settimeout(timeout)
            data = self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except (OSError, EOFError) as error:
            raise httpcore.ReadError(str(error)) from error
        if self._inbox is not None and data:
            return self._inbox.split(data)
        return [(data, self._wire.came if self._wire is not None else time.monotonic())]

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # The end of a request is a part of its own, which has no bytes.
        if not buffer:
            return
        try:
            self._sock.settimeout(timeout)
            began = time.monotonic()
            self._sock.sendall(buffer)
            self._departed = max(began, self._wire.left if self._wire is not None else began)
            self._deadline.begin()
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except (OSError, EOFError) as error:
            raise httpcore.WriteError(str(error)) from error

    @override
    def close(self) -> None:
        self._close()

    def shorten(self, seconds: float) -> None:
        self._deadline.shorten(seconds)

    @override
    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Encrypted(self, ssl_context, server_hostname, timeout)

    @override
    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # Asked of a connection that has been idle: readable means that its end has come.
            if self._pieces:
                return True
            if isinstance(self._sock, Channel):
                return self._sock.closed or self._sock.eof_received or self._sock.recv_ready()
            return bool(select.select([self._sock.fileno()], [], [], 0)[0])
        return {"arrived": self._arrived, "departed": self._departed}.get(info)


def _replace_inbox(channel: Channel, wire: Wire | None) -> Inbox:
    """Have a channel note when its bytes come; nothing of what it has is lost."""
    inbox = Inbox(wire)
    if data := channel.in_buffer.empty():
        inbox.feed(data)
    channel.in_buffer = inbox
    if channel.closed or channel.eof_received:
        inbox.close()
    return inbox


class _Encrypted(httpcore.NetworkStream):
    """TLS over a stream that need not be a socket.

    :raises httpcore.ConnectError: the handshake failed; an ``ssl.SSLError`` is its cause, whatever
        it failed of.
    """

    def __init__(
        self,
        under: _Connection,
        context: ssl.SSLContext,
        hostname: str | None,
        timeout: float | None,
    ) -> None:
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._departed = time.monotonic()
        # Of its own: what TLS itself sends in between is no question.
        self._deadline = _Deadline(under.total)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        try:
            self._step(self._tls.do_handshake, timeout)
        except ssl.SSLError as error:
            self.close()
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            raise httpcore.ConnectError(f"TLS: {_format_reason(reason)}") from error
        except httpcore.TimeoutException as error:
            self.close()
            cause = ssl.SSLError("no answer to the handshake")
            raise httpcore.ConnectTimeout("TLS: no answer to the handshake") from (
                cause.with_traceback(error.__traceback__)
            )
        except httpcore.NetworkError as error:
            self.close()
            cause = ssl.SSLError("the connection ended in the handshake")
            raise httpcore.ConnectError("TLS: the connection ended in the handshake") from (
                cause.with_traceback(error.__traceback__)
            )

    def _step(self, step: Callable[[], T], timeout: float | None) -> T:
        """Do one thing in the session, with as much to and fro as it takes."""
        while True:
            try:
                value = step()
            except ssl.SSLWantReadError:
                self._flush(timeout)
                if data := self._under.read(65536, self._deadline.get_remaining(timeout)):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                # The alert, which tells the other side why.
                with suppress(httpcore.NetworkError, httpcore.TimeoutException):
                    self._flush(timeout)
                raise
            else:
                self._flush(timeout)
                return value

    def _flush(self, timeout: float | None) -> None:
        if self._outgoing.pending:
            self._under.write(self._outgoing.read(), timeout)

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._step(lambda: self._tls.read(max_bytes), timeout)
        except ssl.SSLEOFError:
            # Many close without saying so; what HTTP still expected is then missed there.
            return b""
        except ssl.SSLError as error:
            raise httpcore.ReadError(str(error)) from error

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            self._deadline.begin()
            self._step(lambda: self._tls.write(buffer), timeout)
            self._departed = self._under.get_extra_info("departed")
            self._deadline.begin()
        except ssl.SSLError as error:
            raise httpcore.WriteError(str(error)) from error

    @override
    def close(self) -> None:
        self._under.close()

    def shorten(self, seconds: float) -> None:
        self._deadline.shorten(seconds)

    @override
    def get_extra_info(self, info: str) -> Any:
        own = {"ssl_object": self._tls, "departed": self._departed}
        return own[info] if info in own else self._under.get_extra_info(info)


def _format_reason(reason: str) -> str:
    """OpenSSL's own names of errors, in lower case and with blanks."""
    return reason.replace("_", " ").lower() if reason.isupper() else reason


class _Backend(httpcore.NetworkBackend):
    def __init__(self, to: Link, address: str, port: int, via: Via, total: float | None) -> None:
        self._to = to
        self._total = total
        self._address = address
        self._port = port
        self._via = via

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if (host, port) != (self._address, self._port):
            raise httpcore.ConnectError(
                f"this client speaks to {self._address} port {self._port} only, not {host}:{port}"
            )
        try:
            return dial(self._to, host, port, via=self._via, timeout=timeout, total=self._total)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error


class _Transport(httpx.BaseTransport):
    """httpx over a connection pool of httpcore's that has a backend of its own."""

    def __init__(
        self, backend: httpcore.NetworkBackend, tls: ssl.SSLContext | None, *, endless: bool
    ) -> None:
        self._endless = endless
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls, network_backend=backend, max_connections=4, keepalive_expiry=30
        )

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        with _convert_errors(request):
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        longest = None if self._endless and answer.status == 200 else LONGEST
        body = _Body(answer, request, longest)
        packed = [value for name, value in answer.headers if name.lower() == b"content-encoding"]
        if any(value.strip().lower() not in (b"", b"identity") for value in packed):
            body.close()
            raise TooMuch("the answer is packed, although that was not asked for", request=request)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=body,
            extensions=answer.extensions,
        )

    @override
    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(
        self, answer: httpcore.Response, request: httpx.Request, longest: int | None
    ) -> None:
        self._answer = answer
        self._request = request
        self._longest = longest

    @override
    def __iter__(self) -> Iterator[bytes]:
        with _convert_errors(self._request):
            came = 0
            for data in self._answer.iter_stream():
                came += len(data)
                if self._longest is not None and came > self._longest:
                    raise TooMuch(
                        f"the answer is longer than {self._longest} bytes", request=self._request
                    )
                yield data

    @override
    def close(self) -> None:
        self._answer.close()


class _Client(httpx.Client):
    @override
    def build_request(self, *arguments: Any, **more: Any) -> httpx.Request:
        # What leads nowhere is an error of the request's, as any other.
        try:
            return super().build_request(*arguments, **more)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise httpx.UnsupportedProtocol(str(error)) from error


@contextmanager
def _convert_errors(request: httpx.Request) -> Iterator[None]:
    """httpcore's errors as httpx's, which carry the same names."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
        raise kind(str(error), request=request) from error
    except httpcore.UnsupportedProtocol as error:
        raise httpx.UnsupportedProtocol(str(error), request=request) from error


def dial(
    to: Link,
    address: str,
    port: int,
    *,
    via: Via = "auto",
    timeout: float | None = None,
    total: float | None = None,
) -> httpcore.NetworkStream:
    """A TCP connection made by the host.

    :param to: the link to the host.
    :param address: where to, as the host sees it.
    :param port: likewise.
    :param via: the way, as for :func:`http`.
    :param timeout: seconds to wait for it.
    :param total: seconds that each answer on it may take in all; ``None`` where there is no limit.
    :raises DialError: nobody answers there, or the way is barred.
    :raises ConnectionLost: the transport is dead.
    """
    signals.proceed()
    name, doing = to.host.name, f"reach {address} port {port}"
    if to.is_local:
        try:
            direct = socket.create_connection((address, port), timeout)
        except (OSError, UnicodeError) as error:
            raise DialError(name, doing, str(error)) from error
        # As a channel has it: a request is sent in two parts, and none waits for the other's ACK.
        direct.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Connection(direct, direct.close, total)
    # Asked once for each connection: a server that forbids it will forbid it again.
    transport = to.open_transport()
    if via == "forward" or (via == "auto" and to.memory.get("no forwarding") is not transport):
        try:
            channel = transport.open_channel(
                "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout or 30
            )
        except ChannelException as error:
            if error.code != _PROHIBITED:
                raise DialError(name, doing, error.text) from error
            if via == "forward":
                raise DialError(name, doing, "the SSH server forbids forwarding") from error
            to.memory["no forwarding"] = transport
        except (SSHException, EOFError, OSError) as error:
            if not transport.is_active():
                raise ConnectionLost(name, doing, f"connection lost: {error}") from error
            raise DialError(name, doing, str(error)) from error
        else:
            return _Connection(channel, channel.close, total)
    marker = "dialled-it"
    script = _BRIDGE.format(address=shlex.quote(address), port=int(port), marker=marker)
    command = StringCommand(f"exec bash -c {shlex.quote(script)}")
    try:
        # As the login user: a connection needs no privilege. Without a limit on the host, whose
        # `timeout` would hold the channel open after the script has let go of it.
        stream = open_stream(
            to, Settings(), command, readonly=True, began=marker, doing=doing, limit=None
        )
    except ConnectionLost:
        raise
    except RemoteError as error:
        raise DialError(name, doing, error.reason) from error
    return _Connection(stream.sock, stream.close, total)


@contextmanager
def http(
    host: Host,
    address: str,
    port: int,
    *,
    tls: ssl.SSLContext | bool = False,
    via: Via = "auto",
    timeout: float = 10,
    endless: bool = False,
    total: float | None = None,
) -> Iterator[httpx.Client]:
    """An httpx client whose connections are made by the host.

    It reaches what the host reaches: the address of a container that publishes nothing, or a
    port bound to the host's loopback. Speaks only to the one address and port, which are its
    ``base_url``. What the host has read before stays valid.

    :param host: the host.
    :param address: an IP address or a name, as the host sees it.
    :param port: the port.
    :param tls: ``False`` is plain HTTP; ``True`` is HTTPS, with the certificates that the
        controller trusts; a context says which others. The session is the controller's: the host
        forwards what it cannot read.
    :param via: ``"forward"`` is a forwarding channel of the connection; ``"bridge"`` is bash's
        ``/dev/tcp`` on an exec channel, for servers that forbid forwarding; ``"auto"`` tries them
        in this order. On ``@local`` it is a socket, whatever is said here.
    :param timeout: seconds for each step: connecting, sending, each wait for an answer. All of an
        answer has :data:`TO_ITS_END` seconds more than one step, and :data:`LONGEST` bytes.
    :param endless: an answer of status 200 has neither limit: whoever reads it, by
        :func:`iterate_lines`, says how long.
    :param total: seconds that all of each answer may take, whatever the other two say.
    :raises httpx.ConnectError: at a request, when nobody answers, every way is barred or TLS fails;
        :func:`find_layer` tells these apart.

    Example:
        >>> with http(host, "172.18.0.3", 8000) as client:
        ...     client.get("/healthz").status_code
        200
    """
    bracketed = f"[{address}]" if ":" in address else address
    to = link(unwrap(host))
    context = ssl.create_default_context() if tls is True else tls or None
    if total is None and not endless:
        total = timeout + TO_ITS_END
    try:
        client = _Client(
            base_url=f"{'https' if context else 'http'}://{bracketed}:{port}",
            transport=_Transport(_Backend(to, address, port, via, total), context, endless=endless),
            headers={"Accept-Encoding": "identity"},
            timeout=timeout,
            trust_env=False,
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        raise httpx.UnsupportedProtocol(str(error)) from error
    with client:
        yield client


def get_from_controller(url: str, *, timeout: float, longest: int = LONGEST) -> httpx.Response:
    """The answer to a GET that the controller itself sends, by the proxies that it is set to use.

    :param url: what is asked for; a redirection is an answer, and is not followed.
    :param timeout: seconds for each step, and for all of the answer together.
    :param longest: bytes that it may have.
    :raises httpx.HTTPError: there is no answer, it is longer, or it takes longer.
    """
    deadline = time.monotonic() + timeout
    headers = {"Accept-Encoding": "identity", "User-Agent": "stackmend"}
    try:
        with (
            httpx.Client(timeout=timeout) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            data = bytearray()
            for part in answer.iter_raw():
                data += part
                if len(data) > longest:
                    raise TooMuch(f"the answer is longer than {longest} bytes")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"the answer did not end within {timeout:g} s")
            return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(data))
    except (httpx.InvalidURL, UnicodeError) as error:
        raise httpx.UnsupportedProtocol(str(error)) from error


def iterate_lines(answer: httpx.Response, longest: int = LONGEST_LINE) -> Iterator[bytes]:
    """The lines of an answer as they come, without their ends.

    :param answer: the answer to a request of :func:`http`'s client, not yet read.
    :param longest: bytes that one may have.
    :raises TooMuch: one is longer.
    """
    rest = bytearray()
    for data in answer.iter_raw():
        start = len(rest)
        rest += data
        while (end := rest.find(b"\n", start)) >= 0:
            line, rest, start = bytes(rest[:end]), rest[end + 1 :], 0
            if len(line) > longest:
                break
            yield line.removesuffix(b"\r")
        else:
            if len(rest) <= longest:
                continue
        raise TooMuch(f"a line of the answer is longer than {longest} bytes")
    if rest:
        yield bytes(rest)


def read_arrival(answer: httpx.Response) -> float:
    """When the bytes of an answer came that were read last, on the monotonic clock.

    That is the moment at which they came to this machine, where its kernel says so: what this
    process does with the bytes of others meanwhile is no part of it.

    :param answer: the answer to a request of :func:`http`'s client.
    """
    stream: httpcore.NetworkStream = answer.extensions["network_stream"]
    arrived: float = stream.get_extra_info("arrived")
    return arrived


def read_departure(answer: httpx.Response) -> float:
    """When the last bytes left of what is answered, on the monotonic clock.

    :param answer: the answer to a request of :func:`http`'s client.
    """
    stream: httpcore.NetworkStream = answer.extensions["network_stream"]
    departed: float = stream.get_extra_info("departed")
    return departed


def end_within(answer: httpx.Response, seconds: float) -> None:
    """Have an answer end sooner than the client's limits: reading it later is a timeout.

    The next request of the connection has its own time.

    :param answer: the answer to a request of :func:`http`'s client, not yet read.
    :param seconds: from now on, in all.
    """
    stream: _Connection | _Encrypted = answer.extensions["network_stream"]
    stream.shorten(seconds)


def find_layer(error: httpx.HTTPError) -> Layer:
    """Which part of the way to an answer failed.

    :param error: what a request of :func:`http`'s client raised.
    :returns: ``name``: the name has no address; ``connect``: nobody answers there, or the way is
        barred; ``tls``: the session could not be begun; ``http``: what came is no answer, or not
        all of it.
    """
    if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return "http"
    for cause in list_causes(error):
        if isinstance(cause, ssl.SSLError):
            return "tls"
        if isinstance(cause, socket.gaierror):
            return "name"
    return "name" if any(words in str(error).lower() for words in _NO_NAME) else "connect"


def is_silent(error: httpx.HTTPError) -> bool:
    """Whether nothing came within the time that was given, rather than something went wrong."""
    return isinstance(error, httpx.TimeoutException)


def list_causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of, the last first; httpcore's pool takes the cause off its own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
