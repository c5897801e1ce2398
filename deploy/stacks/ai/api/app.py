"""The api: takes prompts, gives answers. Its only dependency is redis.

    POST /tasks        {"prompt": "…", "model": "…"}   202 {"id": "…"}
    GET  /tasks/<id>   state, answer, error, timings
    GET  /healthz      200 while redis answers, 503 otherwise

Run with `python -m ai.api.app`. Settings: REDIS_URL, PORT, MAX_BODY_BYTES, LOG_LEVEL.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .. import settings
from ..tasks import TaskStore

log = logging.getLogger("api")

_TIMES = ("submitted_at", "started_at", "finished_at", "next_attempt_at")


def parse_task(body: bytes) -> tuple[str, str]:
    """Return prompt and model of a request's body.

    Raises `ValueError` with one sentence for the caller where the body is not
    `{"prompt": "…", "model": "…"}` with a prompt that is not blank; model may be absent.

    >>> parse_task(b'{"prompt": "Why?"}')
    ('Why?', '')
    """
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise ValueError("the body must be a JSON object")
    if unknown := sorted(set(asked) - {"prompt", "model"}):
        raise ValueError(f"unknown field {unknown[0]!r}: prompt and model are known")
    prompt = asked.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("prompt must be a string that is not blank")
    model = asked.get("model", "")
    if not isinstance(model, str):
        raise ValueError("model must be a string")
    try:
        (prompt + model).encode()
    except UnicodeEncodeError:  # a lone surrogate: valid JSON, but no text
        raise ValueError("prompt and model must be valid Unicode") from None
    return prompt, model


def format_task(task_id: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what `GET /tasks/<id>` says of a task's stored fields.

    Times are seconds since 1970; `queued_seconds` and `run_seconds` are those of the last
    attempt; what the model server measured is in nanoseconds, under its own names.
    """
    timings: dict[str, Any] = {name: float(fields[name]) for name in _TIMES if name in fields}
    if "started_at" in timings:
        timings["queued_seconds"] = timings["started_at"] - timings["submitted_at"]
        if "finished_at" in timings:
            timings["run_seconds"] = timings["finished_at"] - timings["started_at"]
    timings.update(json.loads(fields.get("timings", "{}")))
    return {
        "id": task_id,
        "state": fields["state"],
        "model": timings.pop("model", None) or fields.get("model") or None,
        "attempts": int(fields["attempts"]),
        "answer": fields.get("answer"),
        "error": fields.get("error"),
        "timings": timings,
    }


def make_application(store: TaskStore, *, max_body: int) -> Starlette:
    """Return the ASGI application.

    :param store: where the tasks are
    :param max_body: bytes; a longer request is refused with 413
    """

    async def submit(request: Request) -> JSONResponse:
        # Asking for this type makes a browser ask first, and we never say yes: a page elsewhere
        # cannot post to a port on its visitor's loopback.
        content_type = request.headers.get("content-type", "").partition(";")[0].strip()
        if content_type.lower() != "application/json":
            raise HTTPException(415, "Content-Type must be application/json")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_body:
                raise HTTPException(413, f"the body is longer than {max_body} bytes")
        try:
            prompt, model = parse_task(body)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        task_id = await store.submit(prompt, model)
        return JSONResponse(
            {"id": task_id}, status_code=202, headers={"Location": f"/tasks/{task_id}"}
        )

    async def show(request: Request) -> JSONResponse:
        task_id = request.path_params["id"]
        fields = await store.get(task_id)
        if fields is None:
            raise HTTPException(404, f"no task {task_id!r}")
        return JSONResponse(format_task(task_id, fields))

    async def report_health(request: Request) -> JSONResponse:
        return JSONResponse({"redis": "ok", **await store.read_health()})

    async def report_redis_away(request: Request, error: Exception) -> JSONResponse:
        log.warning("%s %s: redis: %s", request.method, request.url.path, error)
        return JSONResponse(
            {"redis": "away", "error": f"redis: {error}"},
            status_code=503,
            headers={"Retry-After": "1"},
        )

    async def report_refusal(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse(
            {"error": error.detail}, status_code=error.status_code, headers=error.headers
        )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await store.redis.aclose()

    return Starlette(
        routes=[
            Route("/tasks", submit, methods=["POST"]),
            Route("/tasks/{id}", show),
            Route("/healthz", report_health),
        ],
        exception_handlers={RedisError: report_redis_away, HTTPException: report_refusal},
        lifespan=lifespan,
    )


def main() -> None:
    """Serve until SIGTERM, then end the requests under way and exit."""
    logging.basicConfig(
        level=settings.get_text("LOG_LEVEL", "INFO"), format="%(levelname)s %(name)s %(message)s"
    )
    redis = Redis.from_url(
        settings.get_text("REDIS_URL", "redis://redis:6379/0"),
        decode_responses=True,
        socket_connect_timeout=2,
        socket_timeout=2,
        # A caller waits: bridge a reconnect, leave a real absence to the 503.
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.1), retries=1),
    )
    uvicorn.run(
        make_application(
            TaskStore(redis), max_body=settings.get_integer("MAX_BODY_BYTES", 1 << 20, least=1)
        ),
        host="0.0.0.0",  # noqa: S104 - inside its container; compose.yaml publishes on 127.0.0.1
        port=settings.get_integer("PORT", 8000, least=1),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
