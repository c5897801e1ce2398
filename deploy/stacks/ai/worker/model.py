"""The model server as the worker sees it: Ollama's `/api/chat`, and what can go wrong with it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import httpx

MEASURED = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)
"""What Ollama measures of an answer; durations in nanoseconds."""


class ModelError(Exception):
    """The model server did not answer. The message is one line, fit to be shown.

    :param lasting: whether asking again cannot help
    """

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    :param text: the whole answer
    :param timings: `MEASURED`, and `first_token_seconds` as seen from here
    """

    text: str
    timings: dict[str, Any]


class ModelServer:
    """An Ollama server.

    :param url: its address, such as `http://ollama:11434`
    :param silence: seconds without a byte after which the server is given up; loading a model is
        silent
    :param num_predict: most tokens of an answer, so that a model which finds no end does not stop
        the line; -1 leaves it to the model
    """

    def __init__(
        self,
        url: str,
        *,
        silence: float = 300.0,
        num_predict: int = -1,
    ) -> None:
        self._options = {"num_predict": num_predict}
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(silence, connect=5.0),
            # Docker hands the host's HTTP_PROXY to containers, and no proxy knows `ollama`.
            trust_env=False,
        )

    async def ask(self, model: str, prompt: str) -> Answer:
        """Return the model's answer to one prompt.

        Raises `ModelError` where the server is away, refuses, breaks off or lacks the model.

        >>> (await server.ask("llama3.2:1b", "Why is the sky blue?")).text
        'Because…'
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,  # silence is then a sign of a stall, however long the answer gets
            "options": self._options,
        }
        parts: list[str] = []
        first: float | None = None
        asked = time.monotonic()
        try:
            async with self._client.stream("POST", "/api/chat", json=body) as response:
                if response.status_code != 200:
                    raise make_refusal(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    part = _parse_part(line)
                    if text := part["content"]:
                        first = first if first is not None else time.monotonic() - asked
                        parts.append(text)
                    if part.get("done"):
                        measured = {name: part[name] for name in MEASURED if name in part}
                        return Answer("".join(parts), {"first_token_seconds": first, **measured})
        except httpx.HTTPError as error:
            raise ModelError(describe_absence(error)) from error
        raise ModelError("the model server broke its answer off")

    async def list_models(self) -> list[str]:
        """Return the names of the models the server has; raises `ModelError`."""
        try:
            response = await self._client.get("/api/tags", timeout=5.0)
            if response.status_code != 200:
                raise make_refusal(response.status_code, response.content)
            return [model["name"] for model in response.json()["models"]]
        except httpx.HTTPError as error:
            raise ModelError(describe_absence(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"this is no Ollama: GET /api/tags: {error!r}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def make_refusal(status: int, body: bytes) -> ModelError:
    """Return the error for an answer that is not 200.

    A missing model (404) may be pulled yet, a busy or failing server (429, 5xx) may recover; any
    other refusal would be the same the next time.
    """
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")
    lasting = 400 <= status < 500 and status not in (404, 408, 429)
    return ModelError(_fit_line(message) or f"HTTP {status}", lasting=lasting)


def describe_absence(error: httpx.HTTPError) -> str:
    """Return one line for a server that cannot be reached or fell silent."""
    what = str(error) or type(error).__name__
    return f"the model server cannot be reached: {what}"


def is_same_model(name: str, listed: str) -> bool:
    """Whether a model as asked for is the one listed: the tag `latest` goes without saying.

    >>> same_model("tiny", "tiny:latest")
    True
    """
    return listed in (name, f"{name}:latest")


def _parse_part(line: str) -> dict[str, Any]:
    """A line of an answer, with the text it adds under `content`."""
    if not line:
        return {"content": ""}
    try:
        part = json.loads(line)
    except ValueError as error:
        raise ModelError(f"the model server's answer is not JSON: {error}") from error
    # Once an answer has begun, an error comes inside HTTP 200.
    match part:
        case {"error": error}:
            raise ModelError(_fit_line(str(error)))
        case {"message": {"content": str(content)}}:
            return {**part, "content": content}
    raise ModelError(f"the model server's answer is not Ollama's: {_fit_line(line)}")


def _fit_line(text: str) -> str:
    return " ".join(text.split())[:300]
