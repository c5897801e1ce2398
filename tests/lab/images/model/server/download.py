"""Blobs fetched from a registry, as Ollama fetches them (its server/download.go).

A blob that is under way lies beside the others as

    sha256-<hex>-partial        the content, as long as the whole from the start
    sha256-<hex>-partial-<n>    JSON {"N", "Offset", "Size", "Completed"}, one for each part

What a part's file says is written when a request for that part ends, not while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from server.remote import Absent, Remote, RemoteError, explained

SMALLEST_PART, LARGEST_PART, PARTS = 100_000_000, 1_000_000_000, 16
TRIES = 6
STALLED = 30.0
"""Seconds without a byte, after the first, that make a part's request be made anew, for ever."""
TICK = 0.06
DIRECT_URL = 30.0
"""Seconds within which a blob must say where its content is."""

Result = TypeVar("Result")
Report = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Part:
    """A range of a blob, fetched by requests of its own.

    + n: its number
    + offset: of its first byte in the blob
    + size: in bytes
    + completed: how many of them are on the disk for good
    + running: how many more the request under way has brought
    + updated: when it brought the last, on the monotonic clock
    """

    n: int
    offset: int
    size: int
    completed: int = 0
    running: int = 0
    updated: float | None = None

    def text(self) -> str:
        """What its file says."""
        shown = {"N": self.n, "Offset": self.offset, "Size": self.size, "Completed": self.completed}
        return json.dumps(shown, separators=(",", ":")) + "\n"


@dataclass(eq=False)
class Download:
    """One blob under way, however many pulls wait for it.

    + path: where the blob will lie
    + digest: its own
    + parts: of it
    + task: what fetches it
    + prepared: set once its parts are known
    + users: pulls that wait for it
    + left: set once the last of them has gone
    """

    path: Path
    digest: str
    parts: list[Part] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    prepared: asyncio.Event = field(default_factory=asyncio.Event)
    users: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def partial(self) -> Path:
        """The content so far."""
        return self.path.with_name(f"{self.path.name}-partial")

    @property
    def total(self) -> int:
        """Bytes of the blob."""
        return sum(part.size for part in self.parts)

    def progress(self) -> dict[str, Any]:
        """The line that a pull streams about it."""
        completed = sum(part.completed + part.running for part in self.parts)
        # Ollama leaves out what is zero.
        counts = {"total": self.total, "completed": completed}
        return {
            "status": f"pulling {self.digest[7:19]}",
            "digest": self.digest,
            **{name: count for name, count in counts.items() if count},
        }

    def part_file(self, part: Part) -> Path:
        """The file that says how far a part is."""
        return self.path.with_name(f"{self.partial.name}-{part.n}")

    def save(self, part: Part) -> None:
        """Write it."""
        with _named(self.part_file(part), "write") as path:
            path.write_text(part.text())


class Cancelled(RemoteError):
    """The last pull that waited for a blob has gone."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Short(RemoteError):
    """An answer ended early, and what it brought can be kept."""

    def __init__(self) -> None:
        super().__init__("unexpected EOF")


class Stalled(RemoteError):
    """No byte came for too long."""

    def __init__(self) -> None:
        super().__init__("part stalled")


class NoSpace(RemoteError):
    """The disk is full."""


class Downloads:
    """The blobs under way."""

    def __init__(self) -> None:
        self._under_way: dict[str, Download] = {}

    async def fetch(self, remote: Remote, path: Path, digest: str, report: Report) -> None:
        """Fetch a blob, or wait for whoever fetches it already.

        + remote: the registry and the repository in it
        + path: where the blob shall lie
        + digest: of it; not verified here
        + report: is given a line of progress again and again
        Raises `RemoteError`.
        """
        download = self._under_way.get(digest)
        if download is None:
            download = self._under_way[digest] = Download(path, digest)
            download.task = asyncio.create_task(self._run(download, remote))
        assert download.task is not None
        download.users += 1
        try:
            if download.users == 1:
                await self._prepared(download)
            while not (await asyncio.wait({download.task}, timeout=TICK))[0]:
                await report(download.progress())
            download.task.result()
        finally:
            download.users -= 1
            if download.users == 0:
                download.left.set()

    async def _prepared(self, download: Download) -> None:
        """Wait until it is known how large a blob is: only then something is said of it. Whoever
        comes second does not wait for that."""
        assert download.task is not None
        preparing = asyncio.ensure_future(download.prepared.wait())
        try:
            await asyncio.wait({download.task, preparing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            preparing.cancel()

    async def close(self) -> None:
        """End what is under way, and keep what there is of it."""
        downloads = list(self._under_way.values())
        for download in downloads:
            download.left.set()
        tasks = [download.task for download in downloads if download.task]
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    async def _run(self, download: Download, remote: Remote) -> None:
        try:
            await _until_left(download, _prepare(download, remote))
            download.prepared.set()
            await _fetch(download, remote)
        finally:
            self._under_way.pop(download.digest, None)


async def _prepare(download: Download, remote: Remote) -> None:
    known = sorted(download.path.parent.glob(f"{download.partial.name}-*"))
    for path in known:
        said = json.loads(path.read_text())
        download.parts.append(Part(said["N"], said["Offset"], said["Size"], said["Completed"]))
    if known:
        return
    response = await remote.request("HEAD", f"blobs/{download.digest}")
    total = int(response.headers.get("content-length") or 0)
    size = min(max(total // PARTS, SMALLEST_PART), LARGEST_PART)
    for n, offset in enumerate(range(0, total, size)):
        part = Part(n, offset, min(size, total - offset))
        download.save(part)
        download.parts.append(part)


async def _fetch(download: Download, remote: Remote) -> None:
    with _named(download.partial, "open") as path:
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        with contextlib.suppress(OSError):
            os.ftruncate(file, download.total)
        url = await _until_left(download, _direct_url(download, remote))
        missing = [part for part in download.parts if part.completed < part.size]
        async with asyncio.TaskGroup() as group:
            for part in missing:
                group.create_task(_fetch_part(download, part, remote, url, file))
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        os.close(file)
    for part in download.parts:
        download.part_file(part).unlink()
    download.partial.rename(download.path)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _direct_url(download: Download, remote: Remote) -> str:
    """Ask where the content is; a request that fails is made again for half a minute."""
    deadline, tries = time.monotonic() + DIRECT_URL, 0
    while True:
        try:
            return await remote.location(f"blobs/{download.digest}")
        except (RemoteError, Absent):
            tries += 1
            await asyncio.sleep(min(tries * tries * 0.01, 10) * random.uniform(0.5, 1.5))
            if time.monotonic() > deadline:
                raise RemoteError("context deadline exceeded") from None


async def _fetch_part(download: Download, part: Part, remote: Remote, url: str, file: int) -> None:
    tries = 0
    error: RemoteError = Short()
    while tries < TRIES:
        try:
            return await _until_left(download, _fetch_range(download, part, remote, url, file))
        except (Cancelled, NoSpace):
            raise
        except Stalled:
            continue
        except RemoteError as problem:
            error = problem
            # Ollama does not look up from its sleep when nobody waits any longer.
            await asyncio.sleep(2**tries)
            if download.left.is_set():
                raise Cancelled from None
            tries += 1
    raise RemoteError(f"max retries exceeded: {error}")


async def _until_left(download: Download, work: Coroutine[Any, Any, Result]) -> Result:
    """Do something unless and until the last pull that waits for the blob has gone."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(download.left.wait())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await doing
            raise Cancelled
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()


async def _fetch_range(download: Download, part: Part, remote: Remote, url: str, file: int) -> None:
    """Ask for what a part still lacks; keep what comes where that can be continued from."""
    start = part.offset + part.completed
    headers = {"Range": f"bytes={start}-{part.offset + part.size - 1}"}
    lost = False
    try:
        # Ollama does not look at the status: an answer that is too short is one that ended early.
        async with remote.client.stream("GET", url, headers=headers) as response:
            chunks = response.aiter_raw()
            while part.completed + part.running < part.size:
                chunk = await _next(chunks, part)
                if chunk is None:
                    lost = True
                    raise RemoteError("EOF")
                chunk = chunk[: part.size - part.completed - part.running]
                _write(file, chunk, start + part.running, download.partial)
                part.running += len(chunk)
                part.updated = time.monotonic()
    except NoSpace:
        lost = True
        raise
    except httpx.RemoteProtocolError:
        raise Short from None
    except httpx.TransportError as error:
        lost = True
        raise RemoteError(await explained("Get", url, error)) from None
    finally:
        if not lost:
            part.completed += part.running
        part.running = 0
        if not lost:
            download.save(part)


async def _next(chunks: AsyncIterator[bytes], part: Part) -> bytes | None:
    """The next bytes of an answer; none at its end. Raises `Stalled`."""
    limit = None
    if part.updated is not None:
        limit = max(0.0, part.updated + STALLED - time.monotonic())
    try:
        async with asyncio.timeout(limit):
            return await anext(chunks, None)
    except TimeoutError:
        part.updated = None
        raise Stalled from None


def _write(file: int, chunk: bytes, offset: int, path: Path) -> None:
    view = memoryview(chunk)
    while view:
        with _named(path, "write"):
            written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


@contextlib.contextmanager
def _named(path: Path, what: str) -> Iterator[Path]:
    """Say an error of the disk's as Go does."""
    try:
        yield path
    except OSError as error:
        kind = NoSpace if error.errno == errno.ENOSPC else RemoteError
        raise kind(f"{what} {path}: {os.strerror(error.errno or 0).lower()}") from None
