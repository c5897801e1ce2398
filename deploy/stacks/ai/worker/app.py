"""The worker: takes tasks off the queue, asks the model server, stores the answers.

Run with `python -m ai.worker.app`; `python -m ai.worker.app check` looks instead of working, and
exits non-zero with the reason where redis, the model server or the model is missing.

Settings: REDIS_URL, OLLAMA_URL, OLLAMA_MODEL, OLLAMA_NUM_PREDICT, OLLAMA_SILENCE_SECONDS,
WORKER_CONCURRENCY, TASK_LEASE_SECONDS, TASK_MAX_ATTEMPTS, TASK_RETRY_SECONDS,
TASK_RETRY_MAX_SECONDS, TASK_KEEP_SECONDS, SHUTDOWN_SECONDS, LOG_LEVEL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import EqualJitterBackoff
from redis.exceptions import RedisError

from .. import settings
from ..tasks import Task, TaskStore
from .model import Answer, ModelError, ModelServer, is_same_model

log = logging.getLogger("worker")

ALIVE = Path("/tmp/worker.alive")  # noqa: S108 - the container's own tmpfs
REPORT_SECONDS = 5.0

MOST_LISTED = 200
"""Models that a worker reports; of a server with more it reports none."""


def pause_before(attempt: int, *, first: float, longest: float) -> float:
    """Return the seconds to wait after the given attempt failed: doubling, with a ceiling.

    >>> [pause_before(n, first=1, longest=60) for n in (1, 2, 3, 9)]
    [1.0, 2.0, 4.0, 60]
    """
    return min(longest, first * 2.0 ** min(attempt - 1, 30))


class Worker:
    """Works off the queue in a number of slots until it is told to stop.

    :param store: the tasks
    :param server: the model server
    :param model: asked where a task names none
    :param name: of this worker; a restart under the same name takes up at once what it held
    :param slots: tasks worked at side by side
    :param lease: seconds after which another worker may take what this one holds
    + retry_first, retry_longest: seconds before a failed attempt is repeated
    :param shutdown: seconds a task under way may still take after `stop`
    :param alive: file that is written whenever redis has answered; the healthcheck reads it
    """

    def __init__(
        self,
        store: TaskStore,
        server: ModelServer,
        *,
        model: str,
        name: str,
        slots: int = 1,
        lease: float = 15.0,
        retry_first: float = 1.0,
        retry_longest: float = 60.0,
        shutdown: float = 20.0,
        alive: Path = ALIVE,
    ) -> None:
        self._store = store
        self._server = server
        self._model = model
        self._name = name
        self._slots = slots
        # Never rarer than the healthcheck expects a sign of life.
        self._renew_every = min(lease / 3, 5.0)
        self._retry_first = retry_first
        self._retry_longest = retry_longest
        self._shutdown = shutdown
        self._alive = alive
        self._stopping = asyncio.Event()
        self._time_is_up = asyncio.Event()

    def stop(self) -> None:
        """Take no further task, end those under way, and return from `run`."""
        if not self._stopping.is_set():
            log.info("stopping; a task under way has %g s", self._shutdown)
            self._stopping.set()
            asyncio.get_running_loop().call_later(self._shutdown, self._time_is_up.set)

    async def run(self) -> None:
        """Work until `stop`."""
        log.info("working as %s, model %s, slots %d", self._name, self._model, self._slots)
        reporting = asyncio.create_task(self._report())
        slots = [
            asyncio.create_task(self._run_slot(f"{self._name}/{number}"))
            for number in range(self._slots)
        ]
        try:
            # Any of them ending by an exception is a fault of this program: end, be restarted.
            done, _ = await asyncio.wait([reporting, *slots], return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in (reporting, *slots):
                task.cancel()
            with contextlib.suppress(RedisError):
                await self._store.remove_worker(self._name)

    async def _run_slot(self, consumer: str) -> None:
        # The first answer of redis is told at once: the container is healthy that much sooner.
        wait = 0.05
        while not self._stopping.is_set():
            try:
                task = await self._store.take(consumer, wait=wait)
                self._touch()
                wait = 1.0
                if task is not None:
                    await self._process(task)
            except RedisError as error:
                # What this slot holds stays pending under its name: `take` finds it again.
                log.warning("redis: %s", error)
                await self._pause(1.0)
        with contextlib.suppress(RedisError):
            await self._store.retire(consumer)

    async def _process(self, task: Task) -> None:
        model = task.model or self._model
        asking = asyncio.create_task(self._server.ask(model, task.prompt))
        losing = asyncio.create_task(self._hold(task))
        ending = asyncio.create_task(self._time_is_up.wait())
        try:
            await asyncio.wait([asking, losing, ending], return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                await self._conclude(task, model, asking)
            elif losing.done():
                log.warning("%s lost to another worker", task.key)
            else:
                log.info("%s given back", task.key)
                await self._store.release(task)
        finally:
            for waiting in (asking, losing, ending):
                waiting.cancel()
            await asyncio.gather(asking, losing, ending, return_exceptions=True)

    async def _conclude(self, task: Task, model: str, asking: asyncio.Task[Answer]) -> None:
        try:
            answer = asking.result()
        except ModelError as error:
            if error.lasting:
                await self._store.fail(task, str(error))
                log.warning("%s failed: %s", task.key, error)
                return
            pause = pause_before(task.attempt, first=self._retry_first, longest=self._retry_longest)
            await self._store.delay(task, str(error), pause)
            log.warning("%s attempt %d: %s", task.key, task.attempt, error)
            return
        if await self._store.finish(task, answer.text, {"model": model, **answer.timings}):
            log.info("%s done, attempt %d", task.key, task.attempt)
        else:
            log.warning("%s had its answer already", task.key)

    async def _hold(self, task: Task) -> None:
        """Renew the lease while it is ours; return when it is not."""
        while True:
            await asyncio.sleep(self._renew_every)
            try:
                if not await self._store.renew(task):
                    return
                self._touch()
            except RedisError as error:
                log.warning("redis: %s", error)

    async def _report(self) -> None:
        while not self._stopping.is_set():
            knowledge = await self._check_server()
            try:
                await self._store.report(self._name, knowledge)
            except RedisError as error:
                log.warning("redis: %s", error)
            await self._pause(REPORT_SECONDS)

    async def _check_server(self) -> dict[str, Any]:
        return {"model": self._model, **await describe_model_server(self._server, self._model)}

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _touch(self) -> None:
        # The monotonic clock is one for all processes of a machine, and nobody sets it.
        self._alive.write_text(str(time.monotonic()))


async def describe_model_server(server: ModelServer, model: str) -> dict[str, Any]:
    """Return what the worker reports of the model server.

    `ollama` is `ok`, or in one line what keeps the server from answering with the model; `models`
    are the names of those that it has, where it says so and they are at most `MOST_LISTED`.
    """
    try:
        listed = await server.list_models()
    except ModelError as error:
        return {"ollama": str(error)}
    found = any(is_same_model(model, name) for name in listed)
    state = "ok" if found else f"model {model!r} not found"
    return {"ollama": state} | ({"models": listed} if len(listed) <= MOST_LISTED else {})


async def check_model_server(server: ModelServer, model: str) -> str:
    """Return `ok`, or in one line what keeps the model server from answering with the model."""
    return str((await describe_model_server(server, model))["ollama"])


def connect_redis() -> Redis:
    """Return the client for REDIS_URL, which bridges a restart of redis by itself."""
    return Redis.from_url(
        settings.get_text("REDIS_URL", "redis://redis:6379/0"),
        decode_responses=True,
        socket_connect_timeout=2,
        socket_timeout=5,
        retry=Retry(EqualJitterBackoff(cap=2.0, base=0.1), retries=10),
    )


def make_model_server() -> ModelServer:
    """Return the model server that the settings name."""
    return ModelServer(
        settings.get_text("OLLAMA_URL", "http://ollama:11434"),
        silence=settings.get_number("OLLAMA_SILENCE_SECONDS", 300, least=1),
        num_predict=settings.get_integer("OLLAMA_NUM_PREDICT", 1024, least=-1),
    )


async def check(model: str) -> str:
    """Return `ok`, or what is missing for a task to be done; changes nothing."""
    redis, server = connect_redis(), make_model_server()
    redis.set_retry(Retry(EqualJitterBackoff(), retries=0))
    try:
        await redis.ping()
        return await check_model_server(server, model)
    except RedisError as error:
        return f"redis: {error}"
    finally:
        await server.close()
        await redis.aclose()


async def run_worker(model: str) -> None:
    """Work until SIGTERM or SIGINT."""
    redis, server = connect_redis(), make_model_server()
    lease = settings.get_number("TASK_LEASE_SECONDS", 15, least=1)
    worker = Worker(
        TaskStore(
            redis,
            lease=lease,
            max_attempts=settings.get_integer("TASK_MAX_ATTEMPTS", 20, least=1),
            keep=settings.get_integer("TASK_KEEP_SECONDS", 7 * 24 * 3600, least=1),
        ),
        server,
        model=model,
        name=socket.gethostname(),
        slots=settings.get_integer("WORKER_CONCURRENCY", 1, least=1),
        lease=lease,
        retry_first=settings.get_number("TASK_RETRY_SECONDS", 1, least=0.01),
        retry_longest=settings.get_number("TASK_RETRY_MAX_SECONDS", 60, least=0.01),
        shutdown=settings.get_number("SHUTDOWN_SECONDS", 20, least=0),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    try:
        await worker.run()
    finally:
        await server.close()
        await redis.aclose()


def main() -> None:
    """Work, or `check`."""
    logging.basicConfig(
        level=settings.get_text("LOG_LEVEL", "INFO"),
        format="%(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    model = settings.get_text("OLLAMA_MODEL", "")
    if not model:
        sys.exit("OLLAMA_MODEL is not set")
    if sys.argv[1:] == ["check"]:
        found = asyncio.run(check(model))
        print(found)
        sys.exit(found != "ok")
    asyncio.run(run_worker(model))


if __name__ == "__main__":
    main()
