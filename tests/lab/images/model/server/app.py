"""Ollama's HTTP routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from server import gguf
from server.answers import Answers
from server.engine import Engine, report_accelerators
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
from server.log import Logged, inform
from server.openai import OpenAI
from server.pull import Puller
from server.wire import (
    Refusal,
    asked_of,
    json_answer,
    last_line,
    no_route,
    refused,
    seconds_of,
    time_of,
)

VERSION = "0.24.0"


class Routes:
    """The routes, over a library, an engine and what pulls models.

    + answers: what that engine's models say
    """

    def __init__(self, library: Library, engine: Engine, answers: Answers, puller: Puller) -> None:
        self._library = library
        self._engine = engine
        self._answers = answers
        self._puller = puller

    async def running(self, request: Request) -> Response:
        """`GET /`"""
        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:
        """`GET /api/version`"""
        return json_answer({"version": VERSION})

    async def tags(self, request: Request) -> Response:
        """`GET /api/tags`"""
        return json_answer(
            {
                "models": [
                    {
                        "name": str(model.name),
                        "model": str(model.name),
                        "modified_at": time_of(model.modified),
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
        return json_answer(
            {
                "models": [
                    {
                        "name": str(runner.model.name),
                        "model": str(runner.model.name),
                        "size": runner.model.size,
                        "digest": runner.model.digest,
                        "details": _details(runner.model),
                        "expires_at": time_of(runner.ended + runner.keep),
                        "size_vram": runner.vram,
                        "context_length": runner.num_ctx,
                    }
                    for runner in self._engine.runners()
                ]
            }
        )

    async def show(self, request: Request) -> Response:
        """`POST /api/show`"""
        asked = await asked_of(request)
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
        return json_answer(
            {
                **{name: text for name, text in said.items() if text},
                "modelfile": f"FROM {model.weights}\nTEMPLATE {model.template}\n",
                "template": model.template,
                "details": _details(model),
                "model_info": header.shown(),
                "capabilities": ["completion"],
                "modified_at": time_of(model.modified),
            }
        )

    async def generate(self, request: Request) -> Response:
        """`POST /api/generate`"""
        asked = await asked_of(request)
        return await self._answers.generate(asked, self._able(asked.get("model", ""), "generate"))

    async def chat(self, request: Request) -> Response:
        """`POST /api/chat`"""
        asked = await asked_of(request)
        if not asked.get("model"):
            raise Refusal(400, "model is required")
        return await self._answers.chat(asked, self._able(asked["model"], "chat"))

    async def copy(self, request: Request) -> Response:
        """`POST /api/copy`"""
        asked = await asked_of(request)
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
        asked = await asked_of(request)
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
        asked = await asked_of(request)
        try:
            name = Name.parse((asked.get("model") or asked.get("name") or "").strip())
        except BadName:
            raise Refusal(400, "invalid model name") from None
        name = self._library.existing(name)
        lines = self._puller.pull(name, insecure=bool(asked.get("insecure")))
        if asked.get("stream") is False:
            last = [line async for line in lines][-1]
            return last_line(last)

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
        asked = await asked_of(request)
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
            return last_line(steps[-1])
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


def _is_name(text: str) -> bool:
    try:
        Name.parse(text)
    except BadName:
        return False
    return True


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


def application(models: Path) -> Starlette:
    """Return the ASGI application, set by the environment as Ollama is.

    + models: the directory of the models
    Reads OLLAMA_KEEP_ALIVE, OLLAMA_NUM_PARALLEL, OLLAMA_MAX_LOADED_MODELS, OLLAMA_CONTEXT_LENGTH
    and OLLAMA_NOPRUNE.
    """

    def whole(name: str, default: int) -> int:
        return int(os.environ.get(name) or default) or default

    shown = (name for name in sorted(os.environ) if name.startswith("OLLAMA_"))
    settings = " ".join(f"{name}:{os.environ[name]}" for name in shown)
    inform("routes.go:1802", "server config", env=f"map[{settings}]")
    report_accelerators()
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
    num_ctx = whole("OLLAMA_CONTEXT_LENGTH", 4096)
    answers = Answers(engine, num_ctx=num_ctx)
    openai = OpenAI(library, engine, num_ctx=num_ctx)
    routes = Routes(library, engine, answers, puller)

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
            Route("/v1/models", openai.models),
            Route("/v1/chat/completions", openai.chat, methods=["POST"]),
            Route("/v1/completions", openai.complete, methods=["POST"]),
        ],
        exception_handlers={Refusal: refused, HTTPException: no_route},
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
