"""Lines on standard output: for each request as Ollama's router prints it, and Ollama's own."""

from __future__ import annotations

import json
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


def inform(source: str, message: str, **values: object) -> None:
    """Print a line as Ollama's own log has it: words by keys, quoted where they need it.

    + source: the file and the line in Ollama's source that it is from
    + message: what it says
    + values: what it says it of
    """
    moment = datetime.now().astimezone().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    words = {"time": moment, "level": "INFO", "source": source, "msg": message, **values}
    print(" ".join(f"{key}={_quote(str(value))}" for key, value in words.items()), flush=True)


def _quote(text: str) -> str:
    # As Go's slog does.
    plain = text and all(sign.isprintable() and sign not in ' ="' for sign in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def _took(nanoseconds: int) -> str:
    """A duration as Go writes it, such as `12.34ms`."""
    unit, size = next(pair for pair in _UNITS if nanoseconds >= pair[1] or pair[1] == 1)
    return f"{nanoseconds / size:.6f}".rstrip("0").rstrip(".") + unit
