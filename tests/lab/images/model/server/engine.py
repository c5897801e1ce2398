"""Models in memory: loading, keeping, unloading, generating. The inference is llama.cpp's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import xllamacpp

from server.library import Model
from server.log import inform

FOREVER = 292 * 365.25 * 86400.0
"""Seconds; what Ollama makes of a negative `keep_alive`."""

# Ollama's names for them, Ollama's defaults.
_SAMPLING = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": -1,
    "stop": [],
}


class LoadError(Exception):
    """llama.cpp does not take the model."""


@dataclass(eq=False)
class Runner:
    """A model in memory.

    + model: which
    + num_ctx: its context's length in tokens
    + vram: bytes of it on an accelerator
    + server: llama.cpp's own HTTP server, on loopback
    + client: a client of it
    + users: requests that are at it
    + keep: seconds it stays once nobody is at it
    + since: when the last request ended, on the monotonic clock
    + ended: the same in seconds since 1970
    """

    model: Model
    num_ctx: int
    vram: int
    server: Any
    client: httpx.AsyncClient
    users: int = 0
    keep: float = 0.0
    since: float = field(default_factory=time.monotonic)
    ended: float = field(default_factory=time.time)

    @property
    def idle(self) -> bool:
        """Whether no request is at it."""
        return self.users == 0

    @property
    def left(self) -> float:
        """Seconds until it is unloaded if nobody asks."""
        return self.since + self.keep - time.monotonic()


@dataclass(frozen=True)
class Piece:
    """A piece of an answer; the last has a reason, and what was measured.

    + text: the next characters; none in the last
    + tokens: their tokens
    + reason: why the answer ends, `stop` or `length`
    + measured: Ollama's counts, and durations in nanoseconds
    """

    text: str
    tokens: list[int]
    reason: str | None = None
    measured: dict[str, int] = field(default_factory=dict)


class Engine:
    """The models in memory.

    + keep: seconds a model stays where a request does not say
    + parallel: requests a model answers side by side
    + most: models held at a time
    """

    def __init__(self, *, keep: float, parallel: int, most: int) -> None:
        self._keep = keep
        self._parallel = parallel
        self._most = most
        self._runners: dict[str, Runner] = {}
        self._changed = asyncio.Condition()
        self._timers: set[asyncio.Task[None]] = set()

    def runners(self) -> list[Runner]:
        """Return the models in memory, the one that stays longest first."""
        return sorted(self._runners.values(), key=lambda runner: runner.left, reverse=True)

    @contextlib.asynccontextmanager
    async def use(self, model: Model, *, num_ctx: int, keep: float | None) -> AsyncIterator[Runner]:
        """Hold a model in memory for a request; load it first if need be.

        + num_ctx: tokens; a model that is there with another context is loaded anew
        + keep: seconds it shall stay afterwards; the engine's own when None
        Raises `LoadError`.
        """
        async with self._changed:
            runner = await self._loaded(model, num_ctx)
            runner.users += 1
            runner.keep = self._keep if keep is None else keep
        try:
            yield runner
        finally:
            # Shielded: a client that leaves must not leave its model held.
            await asyncio.shield(self._leave(runner))

    async def expire(self, model: Model) -> None:
        """Unload a model as soon as nobody is at it; returns at once."""
        async with self._changed:
            if runner := self._runners.get(str(model.name)):
                runner.keep = 0.0
                if runner.idle:
                    self._unload(runner)

    async def generate(
        self, runner: Runner, prompt: str, options: dict[str, Any]
    ) -> tuple[list[int], AsyncIterator[Piece]]:
        """Return the prompt's tokens, and the answer piece by piece.

        + options: Ollama's; unknown ones are ignored
        """
        response = await runner.client.post(
            "/tokenize", json={"content": prompt, "add_special": True}
        )
        tokens = response.json()["tokens"]
        if len(tokens) >= runner.num_ctx:
            # As Ollama does: the end of a prompt that is too long. llama.cpp would refuse it.
            tokens = tokens[-(runner.num_ctx - 1) :]
        most = 10 * runner.num_ctx
        wanted = int(options.get("num_predict", -1))
        request = {name: options.get(name, default) for name, default in _SAMPLING.items()}
        request |= {
            "prompt": tokens,
            "n_predict": most if wanted < 0 else min(wanted, most),
            "stream": True,
            "return_tokens": True,
        }
        return tokens, self._pieces(runner, request)

    async def close(self) -> None:
        """Unload everything."""
        for timer in self._timers:
            timer.cancel()
        for runner in list(self._runners.values()):
            self._unload(runner)

    async def _pieces(self, runner: Runner, request: dict[str, Any]) -> AsyncIterator[Piece]:
        async with runner.client.stream("POST", "/completion", json=request) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                part = json.loads(line.removeprefix("data: "))
                if not part["stop"]:
                    yield Piece(part["content"], part["tokens"])
                    continue
                timings = part["timings"]
                measured = {
                    "prompt_eval_count": part["tokens_evaluated"],
                    "prompt_eval_duration": int(timings["prompt_ms"] * 1e6),
                    "eval_count": part["tokens_predicted"],
                    "eval_duration": int(timings["predicted_ms"] * 1e6),
                }
                yield Piece(
                    "",
                    [],
                    "length" if part["stop_type"] == "limit" else "stop",
                    # Ollama leaves out what is zero.
                    {name: value for name, value in measured.items() if value},
                )

    async def _loaded(self, model: Model, num_ctx: int) -> Runner:
        while True:
            runner = self._runners.get(str(model.name))
            if runner is not None:
                if runner.num_ctx == num_ctx and runner.model.digest == model.digest:
                    return runner
            elif len(self._runners) < self._most:
                return await self._load(model, num_ctx)
            in_the_way = [runner] if runner else self.runners()
            victim = next((runner for runner in reversed(in_the_way) if runner.idle), None)
            if victim:
                self._unload(victim)
            else:
                await self._changed.wait()

    async def _load(self, model: Model, num_ctx: int) -> Runner:
        started = time.monotonic()
        gpus = accelerators()
        command = f"/usr/bin/ollama runner --model {model.weights} --port 0"
        inform("server.go:433", "starting runner", cmd=command)
        inform(
            "runner.go:895",
            "load",
            request=f"{{Operation:commit LoraPath:[] Parallel:{self._parallel} BatchSize:512 "
            f"FlashAttention:Disabled KvSize:{num_ctx * self._parallel} KvCacheType: NumThreads:1 "
            f"GPULayers:{'[]' if not gpus else '2[ID:GPU-0 Layers:2(0..1)]'} "
            "MultiUserCache:false ProjectorPath: MainGPU:0 UseMmap:false}",
        )
        try:
            server = await asyncio.to_thread(_start, str(model.weights), num_ctx, self._parallel)
        except Exception as error:  # whatever the C++ side throws
            raise LoadError(f"unable to load model: {model.weights}") from error
        client = httpx.AsyncClient(
            base_url=server.listening_address,
            timeout=None,
            trust_env=False,
            # One that the engine closes at the moment of the next request would fail that.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        # The inference is the CPU's all the same; of an accelerator there is only the device file.
        share = float(os.environ.get("LAB_GPU_SHARE") or 1) if gpus else 0.0
        runner = Runner(model, num_ctx, round(model.size * share), server, client)
        seconds = time.monotonic() - started
        inform("server.go:1432", f"llama runner started in {seconds:.2f} seconds")
        self._runners[str(model.name)] = runner
        return runner

    def _unload(self, runner: Runner) -> None:
        self._runners.pop(str(runner.model.name), None)
        runner.server = None

    async def _leave(self, runner: Runner) -> None:
        async with self._changed:
            runner.users -= 1
            runner.since, runner.ended = time.monotonic(), time.time()
            if runner.idle and runner.keep <= 0:
                self._unload(runner)
            elif math.isfinite(runner.keep):
                timer = asyncio.create_task(self._expire(runner, runner.keep))
                self._timers.add(timer)
                timer.add_done_callback(self._timers.discard)
            self._changed.notify_all()

    async def _expire(self, runner: Runner, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self._changed:
            if runner.idle and runner.left <= 0:
                self._unload(runner)
                self._changed.notify_all()


def accelerators() -> list[str]:
    """Return the device files of accelerators that this process can open."""
    found = []
    for path in ("/dev/nvidia0", "/dev/kfd"):
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDWR))
            found.append(path)
    return found


def report_accelerators() -> None:
    """Print what Ollama prints of what it found to compute with, when it starts."""
    memory = {"total": "31.3 GiB", "available": "22.2 GiB"}
    names = ("name", "description", "libdirs", "driver", "pci_id", "type")
    for path in accelerators():
        library = "CUDA" if "nvidia" in path else "ROCm"
        words = (
            "CUDA0",
            "NVIDIA of the lab",
            "ollama,cuda_v12",
            "12.2",
            "0000:01:00.0",
            "discrete",
        )
        values = {"id": "GPU-0", "filter_id": "", "library": library, "compute": "9.0"}
        inform(
            "types.go:42",
            "inference compute",
            **values,
            **dict(zip(names, words, strict=True)),
            **memory,
        )
    if not accelerators():
        words = ("cpu", "cpu", "ollama", "", "", "")
        values = {"id": "cpu", "library": "cpu", "compute": ""}
        inform(
            "types.go:60",
            "inference compute",
            **values,
            **dict(zip(names, words, strict=True)),
            **memory,
        )


def _start(path: str, num_ctx: int, parallel: int) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = num_ctx * parallel
    parameters.n_parallel = parallel
    # Models as small as the lab's are fastest on one thread, and the machine has other guests.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.ctx_shift = True
    parameters.warmup = False
    parameters.verbosity = 0
    parameters.port = 0
    return xllamacpp.Server(parameters)
