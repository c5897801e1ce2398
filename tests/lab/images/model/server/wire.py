"""What requests and answers are made of, whatever they are about."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from server.engine import FOREVER

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")

_WHOLE = ("num_ctx", "num_predict", "seed", "top_k", "repeat_last_n")
_FLOATS = ("temperature", "top_p", "min_p", "repeat_penalty")


class Refusal(Exception):
    """A request is answered with a status and `{"error": …}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def seconds_of(keep_alive: Any) -> float | None:
    """Return a `keep_alive` in seconds: a number, or Go's duration; negative is for ever.

    >>> seconds_of("1h30m")
    5400.0
    """
    if keep_alive is None:
        return None
    if isinstance(keep_alive, int | float):
        return FOREVER if keep_alive < 0 else float(keep_alive)
    text = str(keep_alive)
    if text.removeprefix("-").isdigit():
        return seconds_of(int(text))
    digits = text.removeprefix("-")
    parts = _DURATION.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        raise Refusal(400, f'time: invalid duration "{text}"')
    if text.startswith("-"):
        return FOREVER
    return math.fsum(float(number) * _UNITS[unit] for number, unit in parts)


def options_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a request's options; Ollama answers one of the wrong type with 500."""
    options: dict[str, Any] = asked.get("options") or {}
    for names, kind, word in (
        (_WHOLE, int | float, "integer"),
        (_FLOATS, int | float, "float32"),
        (("stop",), list, "array"),
    ):
        for name in names:
            if name in options and not isinstance(options[name], kind):
                raise Refusal(500, f'option "{name}" must be of type {word}')
    return options


async def asked_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries. Raises `Refusal`."""
    # Ollama reads the body whatever its Content-Type says.
    body = await request.body()
    if not body:
        raise Refusal(400, "missing request body")
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    if not isinstance(asked, dict):
        raise Refusal(400, f"json: cannot unmarshal {type(asked).__name__}")
    return asked


async def refused(request: Request, error: Exception) -> Response:
    """The answer that a `Refusal` is."""
    assert isinstance(error, Refusal)
    return json_answer({"error": str(error)}, error.status)


async def no_route(request: Request, error: Exception) -> Response:
    """The answer where there is no such route, or not by this method."""
    assert isinstance(error, HTTPException)
    said = {404: "404 page not found", 405: "405 method not allowed"}
    return PlainTextResponse(
        said.get(error.status_code, error.detail), error.status_code, headers=error.headers
    )


def json_answer(value: dict[str, Any], status: int = 200) -> Response:
    """The answer that is one JSON object."""
    response = JSONResponse(value, status_code=status)
    response.headers["content-type"] = "application/json; charset=utf-8"
    return response


def last_line(line: dict[str, Any]) -> Response:
    """The answer that is the last line of what could have been streamed."""
    return JSONResponse(line, status_code=500 if "error" in line else 200)


def time_of(seconds: float) -> str:
    """A moment, in seconds since 1970, as Ollama writes it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
