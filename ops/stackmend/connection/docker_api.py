"""Docker's API over the connection that is there already."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import docker as sdk
import urllib3
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import DockerException, NotFound
from docker.transport.basehttpadapter import BaseHTTPAdapter
from pyinfra.api.command import StringCommand
from typing_extensions import override

from .channel import Stream, open_stream
from .errors import RemoteError
from .link import Link, link
from .settings import Settings, resolve, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from paramiko import Channel
    from pyinfra.api.host import Host
    from requests import PreparedRequest

#: Connections kept to one engine: each is a channel, and sshd grants ten unless told otherwise.
POOL = 4

#: docker-py takes what an exec wrote from ``.channel`` of the response's file, and thereby loses
#: nothing that was read ahead, only where the address of the engine starts like this.
ADDRESS = "http+docker://ssh"

SOCKET = "/var/run/docker.sock"

#: Seconds to wait for each answer.
TIMEOUT = 60.0

#: Bytes that an answer may have, unless it is a stream that is read as it comes.
LONGEST = 64 << 20

#: What the SDK raises where an engine fails, or answers something else than an engine does.
_FOREIGN = (
    *(DockerException, OSError, ValueError, LookupError, TypeError, AttributeError),
    RecursionError,
)

_API_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")


class _Wire:
    """The socket ``http.client`` wants, over a channel or a socket."""

    def __init__(
        self, sock: Channel | socket.socket, close: Callable[[], None], longest: int | None
    ) -> None:
        self._sock = sock
        self._close = close
        self._longest = longest
        self._came = 0
        self._files: set[_File] = set()
        self._pipe: tuple[int, int] | None = None
        self._released = False
        self._disposed = False
        self.file: _File | None = None

    def sendall(self, data: bytes) -> None:
        self._came = 0
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        """Takes what the response's file has read ahead first, and only then from the wire."""
        return self.file.read1(size) if self.file is not None else self.recv_raw(size)

    def recv_raw(self, size: int) -> bytes:
        data = self._sock.recv(size)
        self._came += len(data)
        if self._longest is not None and self._came > self._longest:
            raise OSError(f"an answer is longer than {self._longest} bytes")
        return data

    def settimeout(self, timeout: float | None) -> None:
        self._sock.settimeout(timeout)

    def gettimeout(self) -> float | None:
        return self._sock.gettimeout()

    def makefile(self, mode: str, *_: Any, **__: Any) -> _File:
        self.file = _File(self)
        self._files.add(self.file)
        return self.file

    def fileno(self) -> int:
        # docker-py polls before each recv(). What has been read ahead would not wake it, so it is
        # given something that is always ready; recv() itself waits, and yields.
        if self._pipe is None:
            self._pipe = os.pipe()
            os.write(self._pipe[1], b"\0")
        return self._pipe[0]

    def close(self) -> None:
        # As with a real socket, a response still being read keeps the wire open.
        self._released = True
        self._let_go()

    def closed_file(self, file: _File) -> None:
        self._files.discard(file)
        self._let_go()

    @property
    def closed(self) -> bool:
        return self._released

    def cut(self) -> None:
        """Closes the wire whoever may still be reading, as of a stream nobody read to its end."""
        self._released = True
        self._files.clear()
        self._let_go()

    def _let_go(self) -> None:
        if self._released and not self._files and not self._disposed:
            self._disposed = True
            self._close()
            for end in self._pipe or ():
                os.close(end)

    @property
    def disposed(self) -> bool:
        return self._disposed


class _Raw(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        data = self._wire.recv_raw(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _File(io.BufferedReader):
    """What a response is read from; docker-py asks it for its ``channel``."""

    def __init__(self, wire: _Wire) -> None:
        super().__init__(_Raw(wire))
        self.channel = wire

    @override
    def close(self) -> None:
        if not self.closed:
            super().close()
            self.channel.closed_file(self)


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, dial: Callable[[], _Wire], timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._dial = dial

    @override
    def connect(self) -> None:
        wire = self._dial()
        wire.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
        self.sock: Any = wire

    @property
    @override
    def is_connected(self) -> bool:
        return self.sock is not None and not self.sock.closed


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, dial: Callable[[], _Wire], timeout: float) -> None:
        super().__init__("localhost", timeout=timeout, maxsize=POOL)
        self._dial = dial
        self._timeout = timeout

    @override
    def _new_conn(self) -> Any:
        return _Connection(self._dial, self._timeout)


class _Adapter(BaseHTTPAdapter):
    def __init__(self, dial: Callable[[], _Wire], timeout: float) -> None:
        self._pool = _Pool(dial, timeout)
        super().__init__()

    def get_connection(self, url: Any, proxies: Any = None) -> Any:
        return self._pool

    @override
    def request_url(self, request: PreparedRequest, proxies: Any) -> Any:
        return request.path_url

    @override
    def close(self) -> None:
        super().close()
        self._pool.close()


class _Dialler:
    """Opens connections to a host's engine and remembers what each has complained about."""

    def __init__(self, to: Link, settings: Settings, longest: int | None) -> None:
        self._to = to
        self._settings = settings
        self._longest = longest
        self._wires: list[_Wire] = []
        self._last: Stream | None = None

    def __call__(self) -> _Wire:
        wire = self._dial()
        self._wires = [*(other for other in self._wires if not other.disposed), wire]
        return wire

    def _dial(self) -> _Wire:
        chosen = any(name.startswith("DOCKER_") for name, _ in self._settings.env)
        if self._to.is_local and not self._settings.elevated and not chosen:
            direct = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                direct.connect(SOCKET)
            except BaseException:
                direct.close()
                raise
            return _Wire(direct, direct.close, self._longest)
        stream = open_stream(
            self._to,
            self._settings,
            StringCommand("docker system dial-stdio"),
            readonly=True,
            doing="speak to Docker",
        )
        self._last = stream
        return _Wire(stream.sock, stream.close, self._longest)

    def get_complaint(self) -> str:
        """What the last connection wrote to standard error, in one line."""
        if self._last is None:
            return ""
        # It ends by itself when it has something to complain of, and not when the engine hangs.
        until = time.monotonic() + 1
        while not self._last.closed and time.monotonic() < until:
            time.sleep(0.02)
        if self._last.closed:
            with contextlib.suppress(OSError):
                self._last.wait()
        return " ".join(self._last.error_text.split())

    def close(self) -> None:
        for wire in self._wires:
            wire.cut()


@contextmanager
def docker(
    host: Host,
    *,
    timeout: float = TIMEOUT,
    readonly: bool = False,
    endless: bool = False,
    **arguments: Any,
) -> Iterator[sdk.DockerClient]:
    """The Docker SDK's client for the engine of a host, without a second login or an open port.

    It speaks through ``docker system dial-stdio`` on channels of pyinfra's own connection, as
    whom pyinfra would run it; on ``@local`` through the Unix socket. Streams of ``exec_run`` and
    ``logs`` arrive whole. The API's version is the engine's.

    :param host: the host.
    :param timeout: seconds to wait for each answer.
    :param readonly: nothing is changed through it, so facts read before stay valid.
    :param endless: an answer may have more than :data:`LONGEST` bytes, as logs that are followed
        and what an exec writes; whoever reads it says how much.
    :param **arguments: pyinfra's own, such as ``_sudo=True``.
    :raises RemoteError: there is no engine, it is stopped, or it may not be used; the reason is
        Docker's own words.

    Example:
        >>> with docker(host, readonly=True) as client:
        ...     client.containers.get("ai-redis-1").exec_run("redis-cli ping").output
        b'PONG\\n'
    """
    host = unwrap(host)
    settings, rest = resolve(host, arguments)
    if rest:
        raise TypeError(f"docker() got unexpected arguments: {', '.join(sorted(rest))}")
    to = link(host)
    dial = _Dialler(to, settings, None if endless else LONGEST)
    # A version given keeps the constructor from speaking before the address is ours.
    client = sdk.DockerClient(base_url="tcp://localhost:1", version=DEFAULT_DOCKER_API_VERSION)
    api: Any = client.api
    with contextlib.ExitStack() as stack:
        stack.callback(dial.close)
        stack.callback(client.close)
        api.mount(ADDRESS, _Adapter(dial, timeout))
        api.base_url = ADDRESS
        api.timeout = timeout
        try:
            api._version = _read_version(api.version(api_version=False))
        except _FOREIGN as error:
            reason = dial.get_complaint() or _find_cause(error)
            raise RemoteError(host.name, "speak to Docker", reason) from error
        if not readonly:
            stack.enter_context(to.mark_change())
        yield client


def list_inspected(client: sdk.DockerClient, label: str) -> list[dict[str, Any]]:
    """Every container that bears a label, as ``docker inspect`` shows it.

    :param client: what :func:`docker` gave.
    :param label: ``name`` or ``name=value``.
    :raises RemoteError: the engine went away while it was asked.

    Example:
        >>> [one["Name"] for one in inspected(client, "com.docker.compose.project=ai")]
        ['/ai-api-1', '/ai-redis-1']
    """
    api: Any = client.api
    found = []
    try:
        for listed in api.containers(all=True, filters={"label": label}):
            # It may be gone since it was listed.
            with contextlib.suppress(NotFound):
                found.append(api.inspect_container(listed["Id"]))
    except _FOREIGN as error:
        raise RemoteError("the engine", "watch its containers", _find_cause(error)) from error
    return found


def list_image_labels(client: sdk.DockerClient, images: Iterable[str]) -> dict[str, dict[str, str]]:
    """The labels of images; one that is gone is left out.

    :param client: what :func:`docker` gave.
    :param images: their ids.
    :raises RemoteError: the engine went away while it was asked.

    Example:
        >>> image_labels(client, ["sha256:0123…"])
        {'sha256:0123…': {'org.opencontainers.image.title': 'redis'}}
    """
    api: Any = client.api
    found = {}
    try:
        for image in images:
            with contextlib.suppress(NotFound):
                found[image] = (api.inspect_image(image).get("Config") or {}).get("Labels") or {}
    except _FOREIGN as error:
        raise RemoteError("the engine", "tell of its images", _find_cause(error)) from error
    return found


def _read_version(answer: Any) -> str:
    version = answer["ApiVersion"]
    if not isinstance(version, str) or not _API_VERSION.fullmatch(version):
        raise ValueError("what answers there is no Docker engine")
    return version


def _find_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
