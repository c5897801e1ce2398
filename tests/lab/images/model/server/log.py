"""A line on standard output for each request, as Ollama's router prints it."""

from __future__ import annotations

import time
from datetime import datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_UNITS = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))


class Logged:
    """An application whose requests are printed once they have ended.

    + app: the application
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, status = time.monotonic_ns(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            moment = datetime.now().strftime("%Y/%m/%d - %H:%M:%S")
            client = scope["client"][0] if scope.get("client") else ""
            print(
                f"[GIN] {moment} | {status or 500} | {_took(time.monotonic_ns() - begun):>13} |"
                f' {client:>15} | {scope["method"]:<8} "{scope["path"]}"',
                flush=True,
            )


def _took(nanoseconds: int) -> str:
    """A duration as Go writes it, such as `12.34ms`."""
    unit, size = next(pair for pair in _UNITS if nanoseconds >= pair[1] or pair[1] == 1)
    return f"{nanoseconds / size:.6f}".rstrip("0").rstrip(".") + unit
