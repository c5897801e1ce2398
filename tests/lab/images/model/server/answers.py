"""Models asked: `/api/generate` and `/api/chat`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from server.engine import Engine, LoadError
from server.library import Model
from server.wire import Refusal, json_answer, options_of, seconds_of, time_of


def rendered(model: Model, prompt: str) -> str:
    """Return the prompt as the model's template has it. Only the plainest template is known."""
    if model.template.strip() != "{{ .Prompt }}":
        raise Refusal(500, f"this stand-in does not render the template {model.template!r}")
    return prompt


@dataclass(frozen=True)
class Answer:
    """What differs between `/api/generate` and `/api/chat`.

    + part: makes the fields that carry a piece of text
    + with_context: whether the last message lists the tokens of prompt and answer
    """

    part: Callable[[str], dict[str, Any]]
    with_context: bool = False


_CHAT = Answer(lambda text: {"message": {"role": "assistant", "content": text}})
_GENERATE = Answer(lambda text: {"response": text}, with_context=True)
_RAW = Answer(_GENERATE.part)


class Answers:
    """What models say.

    + engine: which has them in memory
    + num_ctx: tokens of context where a request does not say
    """

    def __init__(self, engine: Engine, *, num_ctx: int) -> None:
        self._engine = engine
        self._num_ctx = num_ctx

    async def generate(self, asked: dict[str, Any], model: Model) -> Response:
        """The answer of `/api/generate`."""
        prompt = asked.get("prompt", "")
        raw = asked.get("raw", False)
        text = (prompt if raw else rendered(model, prompt)) if prompt else None
        return await self._answer(asked, model, text, _RAW if raw else _GENERATE)

    async def chat(self, asked: dict[str, Any], model: Model) -> Response:
        """The answer of `/api/chat`."""
        said = [
            message.get("content", "")
            for message in asked.get("messages") or []
            if message.get("role") != "system"  # the template has no place for it
        ]
        text = "".join(rendered(model, content) for content in said) if said else None
        return await self._answer(asked, model, text, _CHAT)

    async def _answer(
        self, asked: dict[str, Any], model: Model, text: str | None, answer: Answer
    ) -> Response:
        name = asked["model"]
        keep = seconds_of(asked.get("keep_alive"))
        if text is None and keep == 0:
            await self._engine.expire(model)
            return json_answer(
                {**_said(name), **answer.part(""), "done": True, "done_reason": "unload"}
            )
        options = options_of(asked)
        num_ctx = int(options.get("num_ctx", self._num_ctx))
        begun = time.monotonic_ns()

        async def lines() -> AsyncIterator[dict[str, Any]]:
            async with self._engine.use(model, num_ctx=num_ctx, keep=keep) as runner:
                loaded = time.monotonic_ns() - begun
                if text is None:
                    yield {**answer.part(""), "done": True, "done_reason": "load"}
                    return
                tokens, pieces = await self._engine.generate(runner, text, options)
                context = tokens[1:]  # Ollama leaves the mark of the beginning out
                async for piece in pieces:
                    context += piece.tokens
                    if piece.reason is None:
                        yield {**answer.part(piece.text), "done": False}
                        continue
                    yield {
                        **answer.part(""),
                        "done": True,
                        "done_reason": piece.reason,
                        **({"context": context} if answer.with_context else {}),
                        "total_duration": time.monotonic_ns() - begun,
                        "load_duration": loaded,
                        **piece.measured,
                    }

        # The first line before the status: a model that does not load is no 200.
        going = lines()
        try:
            first = await anext(going)
        except LoadError as error:
            raise Refusal(500, str(error)) from error
        if text is None:
            return json_answer({**_said(name), **first})
        if asked.get("stream") is False:
            *parts, last = [first, *[line async for line in going]]
            whole = "".join(_text(part) for part in parts)
            return json_answer({**_said(name), **last, **answer.part(whole)})

        async def encoded() -> AsyncIterator[str]:
            yield _line(name, first)
            async for line in going:
                yield _line(name, line)

        return StreamingResponse(encoded(), media_type="application/x-ndjson")


def _said(name: str) -> dict[str, Any]:
    return {"model": name, "created_at": time_of(time.time())}


def _line(name: str, line: dict[str, Any]) -> str:
    return json.dumps({**_said(name), **line}, separators=(",", ":")) + "\n"


def _text(line: dict[str, Any]) -> str:
    return str(line["message"]["content"] if "message" in line else line["response"])
