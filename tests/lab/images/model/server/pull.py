"""Models pulled from a registry: what `POST /api/pull` does and says (server/images.go)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from server.download import Downloads
from server.library import BadDigest, Library, Name
from server.remote import Remote, RemoteError, client

_END = object()


class Puller:
    """Pulls models into a library.

    + library: where they go
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._downloads = Downloads()
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """End what is under way, and keep what there is of it."""
        await self._downloads.close()
        if self._client:
            await self._client.aclose()

    async def pull(self, name: Name, *, insecure: bool) -> AsyncIterator[dict[str, Any]]:
        """Pull a model; yield what is said of it line by line. The last is success or an error.

        The pull ends when whoever reads the lines leaves.
        """
        lines: asyncio.Queue[Any] = asyncio.Queue(1)

        async def work() -> None:
            try:
                await self._pull(name, insecure, lines)
            except RemoteError as error:
                await lines.put({"error": str(error)})
            await lines.put(_END)

        task = asyncio.create_task(work())
        try:
            while (line := await lines.get()) is not _END:
                yield line
            await task
        finally:
            task.cancel()

    async def _pull(self, name: Name, insecure: bool, lines: asyncio.Queue[Any]) -> None:
        if self._client is None:
            self._client = client()
        unused = self._library.digests(name)
        remote = Remote(self._client, name, insecure)

        async def say(status: str) -> None:
            await lines.put({"status": status})

        await say("pulling manifest")
        try:
            raw = await remote.manifest()
            manifest = json.loads(raw)
            layers = [*manifest["layers"], manifest["config"]]
        except RemoteError as error:
            raise RemoteError(f"pull model manifest: {error}") from None
        except (ValueError, LookupError, TypeError):
            raise RemoteError("pull model manifest: invalid character in manifest") from None

        fetched = []
        for layer in layers:
            digest = layer["digest"]
            try:
                path = self._library.blob(digest)
            except BadDigest:
                raise RemoteError("invalid digest format") from None
            if path.exists():
                size = path.stat().st_size
                said = {"status": f"pulling {digest[7:19]}", "digest": digest}
                await lines.put({**said, "total": size, "completed": size})
            else:
                await self._downloads.fetch(remote, path, digest, lines.put)
                fetched.append(digest)
            unused.discard(digest)

        await say("verifying sha256 digest")
        for digest in dict.fromkeys(fetched):
            path = self._library.blob(digest)
            found = f"sha256:{await asyncio.to_thread(_sha256, path)}"
            if found != digest:
                path.unlink()
                raise RemoteError(
                    f"digest mismatch, file must be downloaded again: want {digest}, got {found}"
                )

        await say("writing manifest")
        try:
            self._library.write(name, raw)
        except OSError as error:
            raise RemoteError(f"write: {os.strerror(error.errno or 0).lower()}") from None
        if unused and not os.environ.get("OLLAMA_NOPRUNE"):
            await say("removing unused layers")
            self._library.remove_unused(unused)
        await say("success")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
