"""Ollama's HTTP routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from server import gguf
from server.engine import FOREVER, Engine, LoadError
from server.library import (
    LICENSE_LAYER,
    MODEL_LAYER,
    SYSTEM_LAYER,
    BadDigest,
    BadName,
    Library,
    Model,
    Name,
    NoModel,
)
from server.log import Logged
from server.pull import Puller

VERSION = "0.24.0"

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


class Routes:
    """The routes, over a library, an engine and what pulls models.

    + num_ctx: tokens of context where a request does not say
    """

    def __init__(self, library: Library, engine: Engine, puller: Puller, *, num_ctx: int) -> None:
        self._library = library
        self._engine = engine
        self._puller = puller
        self._num_ctx = num_ctx

    async def running(self, request: Request) -> Response:
        """`GET /`"""
        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:
        """`GET /api/version`"""
        return _json({"version": VERSION})

    async def tags(self, request: Request) -> Response:
        """`GET /api/tags`"""
        return _json(
            {
                "models": [
                    {
                        "name": str(model.name),
                        "model": str(model.name),
                        "modified_at": _time(model.modified),
                        "size": model.size,
                        "digest": model.digest,
                        "details": _details(model),
                    }
                    for model in self._library.models()
                ]
            }
        )

    async def ps(self, request: Request) -> Response:
        """`GET /api/ps`"""
        now = time.time()
        return _json(
            {
                "models": [
                    {
                        "name": str(runner.model.name),
                        "model": str(runner.model.name),
                        "size": runner.model.size,
                        "digest": runner.model.digest,
                        "details": _details(runner.model),
                        "expires_at": _time(now + runner.left),
                        "size_vram": 0,
                        "context_length": runner.num_ctx,
                    }
                    for runner in self._engine.runners()
                ]
            }
        )

    async def show(self, request: Request) -> Response:
        """`POST /api/show`"""
        asked = await _asked(request)
        name = asked.get("model") or asked.get("name") or ""
        if not name:
            raise Refusal(400, "model is required")
        model = self._model(name)
        if not model.weights.exists():
            raise Refusal(404, f"model '{name}' not found")
        header = gguf.read(model.weights)
        parameters = "\n".join(
            f"{key:<30} {json.dumps(value)}"
            for key, values in model.parameters.items()
            for value in (values if isinstance(values, list) else [values])
        )
        said = {
            "license": model.text(LICENSE_LAYER),
            "parameters": parameters,
            "system": model.text(SYSTEM_LAYER),
        }
        return _json(
            {
                **{name: text for name, text in said.items() if text},
                "modelfile": f"FROM {model.weights}\nTEMPLATE {model.template}\n",
                "template": model.template,
                "details": _details(model),
                "model_info": header.shown(),
                "capabilities": ["completion"],
                "modified_at": _time(model.modified),
            }
        )

    async def generate(self, request: Request) -> Response:
        """`POST /api/generate`"""
        asked = await _asked(request)
        model = self._able(asked.get("model", ""), "generate")
        prompt = asked.get("prompt", "")
        raw = asked.get("raw", False)
        text = (prompt if raw else rendered(model, prompt)) if prompt else None
        return await self._answer(asked, model, text, _RAW if raw else _GENERATE)

    async def chat(self, request: Request) -> Response:
        """`POST /api/chat`"""
        asked = await _asked(request)
        if not asked.get("model"):
            raise Refusal(400, "model is required")
        model = self._able(asked["model"], "chat")
        said = [
            message.get("content", "")
            for message in asked.get("messages") or []
            if message.get("role") != "system"  # the template has no place for it
        ]
        text = "".join(rendered(model, content) for content in said) if said else None
        return await self._answer(asked, model, text, _CHAT)

    async def copy(self, request: Request) -> Response:
        """`POST /api/copy`"""
        asked = await _asked(request)
        source, destination = asked.get("source", ""), asked.get("destination", "")
        for what, name in (("source", source), ("destination", destination)):
            if not _is_name(name):
                raise Refusal(400, f'{what} "{name}" is invalid')
        try:
            self._library.copy(source, destination)
        except NoModel:
            raise Refusal(404, f'model "{source}" not found') from None
        return Response()

    async def delete(self, request: Request) -> Response:
        """`DELETE /api/delete`"""
        asked = await _asked(request)
        name = asked.get("model") or asked.get("name") or ""
        try:
            self._library.delete(name)
        except BadName:
            raise Refusal(400, f'name "{name}" is invalid') from None
        except NoModel:
            raise Refusal(404, f"model '{name}' not found") from None
        return Response()

    async def pull(self, request: Request) -> Response:
        """`POST /api/pull`"""
        asked = await _asked(request)
        try:
            name = Name.parse((asked.get("model") or asked.get("name") or "").strip())
        except BadName:
            raise Refusal(400, "invalid model name") from None
        name = self._library.existing(name)
        lines = self._puller.pull(name, insecure=bool(asked.get("insecure")))
        if asked.get("stream") is False:
            last = [line async for line in lines][-1]
            return _last(last)

        async def encoded() -> AsyncIterator[str]:
            async with contextlib.aclosing(lines):
                async for line in lines:
                    yield json.dumps(line, separators=(",", ":")) + "\n"

        return StreamingResponse(encoded(), media_type="application/x-ndjson")

    async def has_blob(self, request: Request) -> Response:
        """`HEAD /api/blobs/<digest>`"""
        try:
            found = self._library.blob(request.path_params["digest"]).exists()
        except BadDigest:
            return Response(status_code=400)
        return Response(status_code=200 if found else 404)

    async def put_blob(self, request: Request) -> Response:
        """`POST /api/blobs/<digest>`"""
        try:
            if self._library.blob(request.path_params["digest"]).exists():
                return Response()
            self._library.put([await request.body()], request.path_params["digest"])
        except BadDigest as error:
            raise Refusal(400, str(error)) from None
        return Response(status_code=201)

    async def create(self, request: Request) -> Response:
        """`POST /api/create`, of one GGUF that was put, or from a model that is there."""
        asked = await _asked(request)
        files = asked.get("files") or {}
        try:
            name = self._library.existing(Name.parse(asked.get("model") or asked.get("name") or ""))
        except BadName:
            raise Refusal(400, "invalid model name") from None
        if asked.get("from"):
            base = self._model(asked["from"])
            layers = list(base.manifest["layers"])
            if asked.get("parameters"):
                asked["parameters"] = {**base.parameters, **asked["parameters"]}
        elif len(files) == 1:
            layers = [{"mediaType": MODEL_LAYER, "digest": next(iter(files.values())), "size": 0}]
        else:
            raise Refusal(400, "neither 'from' or 'files' was specified")
        unused = self._library.digests(name)
        try:
            model = self._library.create(name, layers, asked)
        except FileNotFoundError as error:
            raise Refusal(500, f"open {error.filename}: no such file or directory") from None
        except (BadDigest, gguf.NotGGUF) as error:
            raise Refusal(400, str(error)) from None
        self._library.remove_unused(unused)
        made = [
            *([] if asked.get("from") else ["parsing GGUF"]),
            *(f"using existing layer {layer['digest']}" for layer in model.manifest["layers"]),
            "writing manifest",
            "success",
        ]
        steps = [{"status": status} for status in made]
        if asked.get("stream") is False:
            return _last(steps[-1])
        lines = "".join(json.dumps(step) + "\n" for step in steps)
        return Response(lines, media_type="application/x-ndjson")

    def _able(self, name: str, what: str) -> Model:
        """The model, if it can do it: one whose weights are missing can do nothing."""
        model = self._model(name)
        if not model.weights.exists():
            raise Refusal(400, f'"{name}" does not support {what}')
        return model

    def _model(self, name: str) -> Model:
        try:
            return self._library.get(name)
        except NoModel:
            raise Refusal(404, f"model '{name}' not found") from None
        except BadName:
            if not name:
                raise Refusal(404, "model '' not found") from None
            raise Refusal(400, "invalid model name") from None

    async def _answer(
        self, asked: dict[str, Any], model: Model, text: str | None, answer: Answer
    ) -> Response:
        name = asked["model"]
        keep = seconds_of(asked.get("keep_alive"))
        if text is None and keep == 0:
            await self._engine.expire(model)
            return _json({**_said(name), **answer.part(""), "done": True, "done_reason": "unload"})
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
            return _json({**_said(name), **first})
        if asked.get("stream") is False:
            *parts, last = [first, *[line async for line in going]]
            whole = "".join(_text(part) for part in parts)
            return _json({**_said(name), **last, **answer.part(whole)})

        async def encoded() -> AsyncIterator[str]:
            yield _line(name, first)
            async for line in going:
                yield _line(name, line)

        return StreamingResponse(encoded(), media_type="application/x-ndjson")


def _last(line: dict[str, Any]) -> Response:
    """The answer that is the last line of what could have been streamed."""
    return JSONResponse(line, status_code=500 if "error" in line else 200)


def _is_name(text: str) -> bool:
    try:
        Name.parse(text)
    except BadName:
        return False
    return True


def _said(name: str) -> dict[str, Any]:
    return {"model": name, "created_at": _time(time.time())}


def _line(name: str, line: dict[str, Any]) -> str:
    return json.dumps({**_said(name), **line}, separators=(",", ":")) + "\n"


def _text(line: dict[str, Any]) -> str:
    return str(line["message"]["content"] if "message" in line else line["response"])


def _details(model: Model) -> dict[str, Any]:
    config = model.config
    return {
        "parent_model": "",
        "format": config["model_format"],
        "family": config["model_family"],
        "families": config["model_families"],
        "parameter_size": config["model_type"],
        "quantization_level": config["file_type"],
    }


def _time(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _json(value: dict[str, Any], status: int = 200) -> Response:
    response = JSONResponse(value, status_code=status)
    response.headers["content-type"] = "application/json; charset=utf-8"
    return response


async def _asked(request: Request) -> dict[str, Any]:
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


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _json({"error": str(error)}, error.status)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "404 page not found", 405: "405 method not allowed"}
    return PlainTextResponse(
        said.get(error.status_code, error.detail), error.status_code, headers=error.headers
    )


def application(models: Path) -> Starlette:
    """Return the ASGI application, set by the environment as Ollama is.

    + models: the directory of the models
    Reads OLLAMA_KEEP_ALIVE, OLLAMA_NUM_PARALLEL, OLLAMA_MAX_LOADED_MODELS, OLLAMA_CONTEXT_LENGTH
    and OLLAMA_NOPRUNE.
    """

    def whole(name: str, default: int) -> int:
        return int(os.environ.get(name) or default) or default

    keep = seconds_of(os.environ.get("OLLAMA_KEEP_ALIVE") or "5m")
    assert keep is not None
    engine = Engine(
        keep=keep,
        parallel=whole("OLLAMA_NUM_PARALLEL", 1),
        most=whole("OLLAMA_MAX_LOADED_MODELS", 3),
    )
    library = Library(models)
    if not os.environ.get("OLLAMA_NOPRUNE"):
        library.prune()
    puller = Puller(library)
    routes = Routes(library, engine, puller, num_ctx=whole("OLLAMA_CONTEXT_LENGTH", 4096))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await puller.close()
        await engine.close()

    return Starlette(
        routes=[
            Route("/", routes.running),
            Route("/api/version", routes.version),
            Route("/api/tags", routes.tags),
            Route("/api/ps", routes.ps),
            Route("/api/show", routes.show, methods=["POST"]),
            Route("/api/generate", routes.generate, methods=["POST"]),
            Route("/api/chat", routes.chat, methods=["POST"]),
            Route("/api/pull", routes.pull, methods=["POST"]),
            Route("/api/copy", routes.copy, methods=["POST"]),
            Route("/api/delete", routes.delete, methods=["DELETE"]),
            Route("/api/create", routes.create, methods=["POST"]),
            Route("/api/blobs/{digest}", routes.has_blob, methods=["HEAD"]),
            Route("/api/blobs/{digest}", routes.put_blob, methods=["POST"]),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _no_route},
        middleware=[Middleware(Logged)],
        lifespan=lifespan,
    )


def serve(host: str, port: int, models: Path) -> None:
    """Serve until SIGTERM."""
    config = uvicorn.Config(
        application(models),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=0,
    )
    asyncio.run(uvicorn.Server(config).serve())
