"""Models asked by OpenAI's API: `/v1/models`, `/v1/chat/completions`, `/v1/completions`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from server.answers import rendered
from server.engine import Engine, LoadError, Piece
from server.library import BadName, Library, Model, NoModel
from server.wire import Refusal, asked_of, json_answer

#: The options of Ollama's that fields of a request are.
_OPTIONS = {
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "seed": "seed",
    "stop": "stop",
}
_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


@dataclass(frozen=True)
class Shape:
    """What differs between the two.

    + prefix: of the ids of answers
    + answer: the object that an answer is
    + chunk: the object that a piece of a stream is
    + text: makes the field of a choice that holds its text
    + delta: the same of a piece
    """

    prefix: str
    answer: str
    chunk: str
    text: Callable[[str], dict[str, Any]]
    delta: Callable[[str], dict[str, Any]]


_CHAT = Shape(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda text: {"message": {"role": "assistant", "content": text}},
    lambda text: {"delta": {"role": "assistant", "content": text}},
)
_TEXT = Shape(
    "cmpl",
    "text_completion",
    "text_completion",
    lambda text: {"text": text},
    lambda text: {"text": text},
)


class OpenAI:
    """The routes, over a library and an engine.

    + num_ctx: tokens of context, which no request can set
    """

    def __init__(self, library: Library, engine: Engine, *, num_ctx: int) -> None:
        self._library = library
        self._engine = engine
        self._num_ctx = num_ctx

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`"""
        data = [
            {
                "id": str(model.name),
                "object": "model",
                "created": int(model.modified),
                "owned_by": "library",
            }
            for model in self._library.models()
        ]
        return json_answer({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`"""
        return await self._answer(request, _CHAT)

    async def complete(self, request: Request) -> Response:
        """`POST /v1/completions`"""
        return await self._answer(request, _TEXT)

    async def _answer(self, request: Request, shape: Shape) -> Response:
        try:
            asked = await asked_of(request)
            model = self._model(str(asked.get("model") or ""))
            return await self._complete(asked, model, self._text(asked, model, shape), shape)
        except (Refusal, LoadError) as error:
            status = error.status if isinstance(error, Refusal) else 500
            said = {
                "message": str(error),
                "type": _TYPES.get(status, "api_error"),
                "param": None,
                "code": None,
            }
            return json_answer({"error": said}, status)

    def _model(self, name: str) -> Model:
        if not name:
            raise Refusal(400, "model is required")
        try:
            return self._library.get(name)
        except (NoModel, BadName):
            raise Refusal(404, f"model '{name}' not found") from None

    def _text(self, asked: dict[str, Any], model: Model, shape: Shape) -> str:
        if shape is _TEXT:
            return rendered(model, str(asked.get("prompt") or ""))
        messages = asked.get("messages") or []
        if not messages:
            raise Refusal(400, "[] is too short - 'messages'")
        return "".join(
            rendered(model, str(message.get("content") or ""))
            for message in messages
            if message.get("role") != "system"
        )

    async def _complete(
        self, asked: dict[str, Any], model: Model, text: str, shape: Shape
    ) -> Response:
        options = {ours: asked[theirs] for theirs, ours in _OPTIONS.items() if asked.get(theirs)}
        if isinstance(options.get("stop"), str):
            options["stop"] = [options["stop"]]
        options["temperature"] = asked.get("temperature", 1.0)
        options["top_p"] = asked.get("top_p", 1.0)
        head = {
            "id": f"{shape.prefix}-{secrets.randbelow(999)}",
            "created": int(time.time()),
            "model": asked["model"],
            "system_fingerprint": "fp_ollama",
        }
        pieces = self._pieces(model, text, options)
        # The first piece before the status: a model that does not load is no 200.
        first = await anext(pieces)
        if asked.get("stream"):
            usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            lines = self._stream(first, pieces, {**head, "object": shape.chunk}, shape, usage)
            return StreamingResponse(lines, media_type="text/event-stream")
        listed = [first, *[piece async for piece in pieces]]
        last = listed[-1]
        whole = "".join(piece.text for piece in listed)
        choice = {"index": 0, **shape.text(whole), "finish_reason": last.reason}
        return json_answer(
            {**head, "object": shape.answer, "choices": [choice], "usage": _usage(last)}
        )

    async def _pieces(
        self, model: Model, text: str, options: dict[str, Any]
    ) -> AsyncIterator[Piece]:
        async with self._engine.use(model, num_ctx=self._num_ctx, keep=None) as runner:
            _, pieces = await self._engine.generate(runner, text, options)
            async for piece in pieces:
                yield piece

    async def _stream(
        self,
        first: Piece,
        pieces: AsyncIterator[Piece],
        head: dict[str, Any],
        shape: Shape,
        usage: bool,
    ) -> AsyncIterator[str]:
        last = first
        yield _line({**head, "choices": [_choice(first, shape)]})
        async for piece in pieces:
            last = piece
            yield _line({**head, "choices": [_choice(piece, shape)]})
        if usage:
            yield _line({**head, "choices": [], "usage": _usage(last)})
        yield "data: [DONE]\n\n"


def _choice(piece: Piece, shape: Shape) -> dict[str, Any]:
    return {"index": 0, **shape.delta(piece.text), "finish_reason": piece.reason}


def _usage(last: Piece) -> dict[str, int]:
    prompt = last.measured.get("prompt_eval_count", 0)
    output = last.measured.get("eval_count", 0)
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _line(said: dict[str, Any]) -> str:
    return f"data: {json.dumps(said, separators=(',', ':'))}\n\n"
