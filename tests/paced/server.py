"""``server.py PORT``: a model server of exactly known speed, with every bad habit of real ones.

It speaks Ollama's API and OpenAI's. Each answer has its first token `ttft` seconds after it was
begun and each further one `tpot` seconds later, on a schedule that no delay shifts; `slots` answers
are under way at one time, and others queue in order. ``GET /paced`` gives what it sent and when, on
the machine's monotonic clock; ``PUT /paced`` changes how it behaves and clears that. Standard
library alone: it runs on any host that has Python.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import math
import selectors
import sys
import time

#: What each trap does.
TRAPS = {
    "": "nothing: an honest server",
    "prefix": "keeps the prompts, and evaluates only what follows the longest prefix that it had",
    "cached": "has evaluated every prompt before",
    "early": "ends the stream properly, after half of the tokens",
    "abrupt": "cuts the connection after half of the tokens",
    "no-done": "sends every token, and no last message",
    "error-200": "reports an error inside of status 200, before the first token",
    "error-late": "reports an error after half of the tokens",
    "chunks-as-tokens": "sends `bundle` tokens a chunk, and counts the chunks",
    "chunks-asked": "sends as many chunks of `bundle` tokens as tokens were asked for",
    "bundles": "sends `bundle` tokens a chunk, and counts the tokens",
    "at-once": "sends all tokens in one chunk, at the end",
    "thinks": "spends the first half of the tokens on reasoning",
    "thinks-only": "spends all tokens on reasoning",
    "hides": "spends three quarters of the tokens on reasoning, which it counts and does not send",
    "strict": "takes no field of OpenAI's API that this does not have",
    "cut": "reads only the last 40 tokens of a prompt",
    "reload": "loads the model for each request, and says so",
    "num-ctx": "loads the model whenever num_ctx differs from that of the request before",
    "client-ctx": "had a client load the model with `context`, and loads it for any other num_ctx",
    "empty-first": "sends an empty chunk at once",
    "short": "ends by itself after a third of the tokens",
    "http-500": "fails",
    "http-429": "takes no more requests",
    "hang": "falls silent after half of the tokens",
    "hang-first": "takes the request and never answers",
    "loris": "sends its headers one byte a second",
    "megabyte": "sends a line of three megabytes",
    "flood": "sends small lines as fast as it can, for ever",
    "hostile": "names models and words errors so that they steer terminals, and forge markup",
    "garbage": "sends lines that are no JSON, or the wrong JSON",
    "uncounted": "does not count tokens",
    "stale": "lets go of a connection that was idle when the next request comes",
    "interrupts": "ends an answer when another request comes, as llama-cpp-python does",
    "liar": "counts and times that cannot be: more time than has passed",
}

#: Text that does harm wherever it is printed as it came.
HOSTILE = '\x1b]0;owned\x07\x1b[2J\u202e<script>alert(1)</script>"; rm -rf / #\r\n\x00{{7*7}}'


@dataclasses.dataclass
class Pace:
    """How the server behaves.

    + ttft: seconds from the begin of an answer to its first token
    + tpot: seconds from one token to the next
    + slots: answers at one time
    + trap: of `TRAPS`
    + every: only each n-th request falls into the trap, the first one being number `every`
    + after: requests before which none falls into it
    + bundle: tokens of a chunk, where a trap bundles
    + load: seconds that loading the model takes
    + cold: whether the model has to be loaded at first; only Ollama's API has it do so
    + context: tokens that a prompt may have; longer ones are cut
    + expires: when the loaded model is to be unloaded
    + model: its name
    + beside: the name of another model that it has in memory as well
    + timings: whether OpenAI's API says llama.cpp's ``timings``
    + completions: whether it has ``/v1/completions``
    + key: that requests to OpenAI's API need
    + build: of llama.cpp, which ``/props`` says
    + loading: requests that are answered by status 503 at first, as llama.cpp does while it loads
        its model; the list of models is none of them
    """

    ttft: float = 0.2
    tpot: float = 0.02
    slots: int = 4
    trap: str = ""
    every: int = 1
    after: int = 0
    bundle: int = 4
    load: float = 0.5
    cold: bool = False
    context: int = 4096
    expires: str = "2100-01-01T00:00:00Z"
    model: str = "paced"
    beside: str = ""
    timings: bool = True
    completions: bool = True
    key: str = ""
    build: str = ""
    loading: int = 0

    def __post_init__(self):
        if self.trap not in TRAPS:
            raise ValueError(f"no trap {self.trap!r}: {' '.join(TRAPS)}")


@dataclasses.dataclass
class Record:
    """One answer, as it was given: seconds of the monotonic clock.

    + arrived: the request was read
    + began: it had a slot
    + first, last: its first and its last token were sent
    + ended: all of it was sent
    + keep_alive: as it was asked for
    """

    path: str
    arrived: float
    prompt: str
    began: float = 0.0
    first: float = 0.0
    last: float = 0.0
    ended: float = 0.0
    prompt_tokens: int = 0
    kept_tokens: int = 0
    tokens: int = 0
    load: float = 0.0
    trap: str = ""
    keep_alive: object = None


class Closed(Exception):
    """The connection is to be closed."""


class Server:
    """One port."""

    def __init__(self, pace):
        self.pace = pace
        self.num_ctx = None
        self.kept = []
        self.reset()

    def reset(self):
        self.records, self.loads = [], []
        self.number = self.arriving = 0
        self.loading = self.pace.loading
        self.one = asyncio.Semaphore(1)
        self.loaded = not self.pace.cold
        self.slots = asyncio.Semaphore(self.pace.slots)

    # HTTP

    async def connection(self, reader, writer):
        """Serve requests on one connection until it ends."""
        used = False
        try:
            while request := await read_request(reader):
                exchange = Exchange(*request, writer)
                if used and self.pace.trap == "stale" and exchange.method == "POST":
                    return
                used = True
                await self.answer(exchange, reader)
        except (OSError, Closed, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def answer(self, exchange, reader):
        """Answer one request; give up as soon as its client leaves."""
        answering = asyncio.ensure_future(self.route(exchange))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise Closed
            answering.result()
        finally:
            for task in (answering, leaving):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        if leaving.done() and not leaving.cancelled():
            raise Closed

    async def route(self, exchange):
        path, method = exchange.path, exchange.method
        if path == "/paced":
            if method == "PUT":
                self.pace = dataclasses.replace(self.pace, **exchange.body)
                self.reset()
            records = [dataclasses.asdict(record) for record in self.records]
            pace = dataclasses.asdict(self.pace)
            return await exchange.json({"pace": pace, "records": records, "loads": self.loads})
        if self.loading and path != "/v1/models":
            self.loading -= 1
            error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
            return await exchange.json({"error": error}, 503)
        given = exchange.headers.get("authorization")
        if path.startswith("/v1/") and self.pace.key and given != f"Bearer {self.pace.key}":
            return await exchange.json({"error": {"message": "no key"}}, 401)
        if method == "GET":
            if self.pace.trap == "interrupts" and path == "/v1/models":
                async with self.take():
                    return await self.describe(exchange)
            return await self.describe(exchange)
        if path in ("/api/generate", "/api/chat") and self.empty(exchange):
            return await self.manage(exchange)
        if path == "/api/show":
            return await exchange.json({"details": {"family": "paced"}, "capabilities": []})
        known = ["/api/generate", "/api/chat", "/v1/chat/completions"]
        known += ["/v1/completions"] if self.pace.completions else []
        if path in known:
            return await self.generate(exchange)
        return await exchange.json({"error": "not found"}, 404)

    @contextlib.asynccontextmanager
    async def take(self):
        """Wait for the answer that is under way, which ends because of that."""
        self.arriving += 1
        try:
            await self.one.acquire()
        finally:
            self.arriving -= 1
        try:
            yield
        finally:
            self.one.release()

    async def describe(self, exchange):
        name = self.pace.model + (HOSTILE if self.pace.trap == "hostile" else "")
        model = {"name": name, "model": name, "size": 10**9, "digest": "a" * 64}
        loaded = {
            **model,
            "size_vram": 0,
            "context_length": self.pace.context,
            "expires_at": self.pace.expires,
        }
        other = self.pace.beside
        others = [loaded | {"name": other, "model": other, "digest": "b" * 64}] if other else []
        answers = {
            "/": "Ollama is running",
            "/health": {"status": "ok"},
            "/api/version": {"version": "0.33.0"},
            "/api/tags": {"models": [model, *others]},
            "/api/ps": {"models": [*([loaded] if self.loaded else []), *others]},
            "/v1/models": {
                "object": "list",
                "data": [{"id": name, "object": "model"} | self.owner()],
            },
        }
        if self.pace.trap == "interrupts":
            info = {"title": "\N{LLAMA} llama.cpp Python API", "version": "0.3.16"}
            answers["/openapi.json"] = {"openapi": "3.1.0", "info": info, "paths": {}}
        if self.pace.build:
            settings = {"n_ctx": self.pace.context}
            answers["/props"] = {
                "build_info": self.pace.build,
                "default_generation_settings": settings,
            }
        if exchange.path in answers:
            await exchange.json(answers[exchange.path])
        else:
            await exchange.json({"error": "not found"}, 404)

    def owner(self):
        return {"owned_by": "me"} if self.pace.trap == "interrupts" else {}

    def empty(self, exchange):
        return not exchange.body.get("prompt") and not exchange.body.get("messages")

    async def manage(self, exchange):
        """Load the model, or unload it, as a request without a prompt does."""
        unload = exchange.body.get("keep_alive") in (0, "0", "0s")
        took = 0.0 if unload or self.loaded else self.pace.load
        await asyncio.sleep(took)
        self.loaded = not unload
        self.loads.append(exchange.body.get("keep_alive"))
        last = {"done": True, "done_reason": "unload" if unload else "load"}
        await exchange.json({"model": self.pace.model, "response": "", **last})

    # Answers

    async def generate(self, exchange):
        """Write one answer, at its pace."""
        pace = self.pace
        self.number += 1
        due = self.number > pace.after and self.number % pace.every == 0
        trap = pace.trap if due else ""
        prompt = exchange.prompt()
        record = Record(exchange.path, time.monotonic(), prompt, trap=trap)
        record.keep_alive = exchange.body.get("keep_alive")
        self.records.append(record)
        api = (Ollama if exchange.path.startswith("/api/") else OpenAI)(exchange, pace, trap)
        if trap in ("http-500", "http-429"):
            status = int(trap[5:])
            await exchange.json({"error": f"the model runner has stopped {HOSTILE}"}, status)
            return
        if trap == "strict" and {"ignore_eos", "min_tokens"} & set(exchange.body):
            await exchange.json({"error": {"message": "unknown field"}}, 400)
            return
        if trap == "hang-first":
            await asyncio.sleep(3600)
        async with self.take() if trap == "interrupts" else self.slots:
            record.began = time.monotonic()
            await self.write(exchange, api, record)
        record.ended = time.monotonic()

    async def write(self, exchange, api, record):
        pace, trap = self.pace, record.trap
        evaluated = self.evaluate(record)
        options = exchange.body.get("options") or {}
        fresh = options.get("num_ctx") != self.num_ctx and trap == "num-ctx"
        fresh = fresh or (trap == "client-ctx" and options.get("num_ctx") != pace.context)
        self.num_ctx = options.get("num_ctx")
        api_loads = exchange.path.startswith("/api/") and not self.loaded
        record.load = pace.load if trap == "reload" or fresh or api_loads else 0.0
        self.loaded = True
        tokens = api.asked()
        if trap == "chunks-asked":
            tokens *= pace.bundle
        if trap == "short":
            tokens = max(1, tokens // 3)
        share = evaluated / max(1, record.prompt_tokens)
        prefill = max(pace.tpot, pace.ttft * share)
        start = record.began + record.load + prefill
        if trap == "loris":
            await exchange.trickle()
        if trap == "error-200":
            await exchange.begin(api.media)
            await exchange.chunk(api.error(f"out of memory {HOSTILE}"))
            await exchange.finish()
            return
        if trap == "empty-first":
            await exchange.begin(api.media)
            await exchange.chunk(api.piece("", False))
        groups = group(tokens, pace.bundle, trap)
        hidden = tokens * 3 // 4 if trap == "hides" and tokens > 7 else 0
        thinking = {"thinks": tokens // 2, "thinks-only": tokens}.get(trap, 0)
        written = 0
        for number, size in enumerate(groups):
            written += size
            if written <= hidden:
                continue
            await until(start + (written - 1) * pace.tpot)
            if not exchange.started:
                await exchange.begin(api.media)
            if trap in HALFWAY and number >= len(groups) // 2:
                await self.break_off(exchange, api, trap)
                return
            if trap == "interrupts" and self.arriving:
                await exchange.chunk(b"data: [DONE]\n\n")
                await exchange.finish()
                return
            text = "".join(f" w{record.tokens + n:04d}" for n in range(size))
            if trap == "hostile":
                text += HOSTILE
            await exchange.chunk(api.piece(text, written <= thinking))
            record.last = time.monotonic()
            record.first = record.first or record.last
            record.tokens += size
        counts = {
            "prompt": record.prompt_tokens,
            "kept": record.kept_tokens,
            "hidden": hidden,
            "output": len(groups) if trap in COUNTING_CHUNKS else tokens,
            "load": record.load or 0.01,
            "prefill": prefill,
            "decode": tokens * pace.tpot,
            "total": time.monotonic() - record.arrived,
        }
        if trap == "liar":
            counts |= {"prefill": 1000.0, "decode": 5000.0, "total": 6000.0}
        if trap != "no-done":
            for part in api.last(counts, "stop" if trap == "short" else "length"):
                await exchange.chunk(part)
        await exchange.finish()

    def evaluate(self, record):
        """Tokens of the prompt that are evaluated; the rest was kept."""
        words = record.prompt.split()
        room = 40 if record.trap == "cut" else self.pace.context
        record.prompt_tokens = min(len(words) + 1, room)
        kept = 0
        if record.trap == "cached":
            kept = record.prompt_tokens - 1
        elif record.trap == "prefix":
            for earlier in self.kept:
                kept = max(kept, common(earlier, words))
            self.kept.append(words)
            kept = min(kept, record.prompt_tokens - 1)
        record.kept_tokens = kept
        return record.prompt_tokens - kept

    async def break_off(self, exchange, api, trap):
        if trap == "abrupt":
            exchange.writer.transport.abort()
            raise Closed
        if trap == "hang":
            await asyncio.sleep(3600)
        if trap == "error-late":
            await exchange.chunk(api.error(f"out of memory {HOSTILE}"))
        if trap == "megabyte":
            await exchange.chunk(api.piece("x" * 3_000_000, False))
        if trap == "garbage":
            for junk in (b"}{\n", b"[]\n", b'data: "x"\n\n', b'{"response": {"a": 1}}\n', b"7\n"):
                await exchange.chunk(junk)
        while trap == "flood":
            await exchange.chunk(api.piece(" x", False))
        await exchange.finish()


COUNTING_CHUNKS = {"chunks-as-tokens", "chunks-asked"}

#: Traps that are met in the middle of an answer.
HALFWAY = {"early", "abrupt", "hang", "error-late", "megabyte", "garbage", "flood"}


def group(tokens, bundle, trap):
    """How many tokens each chunk has."""
    if trap == "at-once":
        return [tokens]
    size = bundle if trap == "bundles" or trap in COUNTING_CHUNKS else 1
    return [min(size, tokens - done) for done in range(0, tokens, size)]


def common(left, right):
    """How many words two prompts begin with in common."""
    for number, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return number
    return min(len(left), len(right))


#: Seconds by which a wait wakes up before its moment; until then it asks the clock.
EARLY = 0.0003


async def until(moment):
    """Wait for a moment of the monotonic clock."""
    left = moment - time.monotonic()
    # The loop's timers are late by some ten microseconds.
    if left > 2 * EARLY:
        await asyncio.sleep(left - EARLY)
    while time.monotonic() < moment:
        await asyncio.sleep(0)


class Exchange:
    """One request and its answer."""

    def __init__(self, method, path, headers, content, writer):
        self.method, self.path, self.headers = method, path, headers
        self.body = json.loads(content) if content else {}
        self.writer = writer
        self.started = False

    def prompt(self):
        messages = self.body.get("messages") or []
        return self.body.get("prompt") or " ".join(str(part.get("content")) for part in messages)

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, value, status=200):
        text = isinstance(value, str)
        content = value.encode() if text else json.dumps(value).encode()
        kind = "text/plain" if text else "application/json"
        head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        head += "Retry-After: 1\r\n" if status == 429 else ""
        await self.send(head.encode() + b"\r\n" + content)

    async def begin(self, media):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.started = True
        await self.send(head.encode())

    async def trickle(self):
        self.started = True
        await self.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            await self.send(b"a")
            await asyncio.sleep(1)

    async def chunk(self, data):
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def finish(self):
        await self.send(b"0\r\n\r\n")


class Ollama:
    """Lines of JSON."""

    media = "application/x-ndjson"

    def __init__(self, exchange, pace, trap):
        self.body, self.pace, self.trap = exchange.body, pace, trap
        self.chat = exchange.path == "/api/chat"

    def asked(self):
        number = (self.body.get("options") or {}).get("num_predict")
        return number if isinstance(number, int) and number > 0 else 128

    def line(self, fields):
        head = {"model": self.pace.model, "created_at": "2026-01-01T00:00:00Z"}
        return json.dumps(head | fields).encode() + b"\n"

    def piece(self, text, thinking):
        if self.chat:
            message = {"role": "assistant", "content": "" if thinking else text}
            message |= {"thinking": text} if thinking else {}
            return self.line({"message": message, "done": False})
        fields = {"response": "", "thinking": text} if thinking else {"response": text}
        return self.line(fields | {"done": False})

    def error(self, message):
        return json.dumps({"error": message}).encode() + b"\n"

    def last(self, counts, reason):
        fields = {"message": {"role": "assistant", "content": ""}} if self.chat else {}
        fields |= {} if self.chat else {"response": ""}
        fields |= {"done": True, "done_reason": reason}
        if self.trap != "uncounted":
            fields |= {"prompt_eval_count": counts["prompt"], "eval_count": counts["output"]}
        for name, part in (
            ("total_duration", "total"),
            ("load_duration", "load"),
            ("prompt_eval_duration", "prefill"),
            ("eval_duration", "decode"),
        ):
            fields[name] = int(counts[part] * 1e9)
        return [self.line(fields)]


class OpenAI:
    """Server-sent events."""

    media = "text/event-stream"

    def __init__(self, exchange, pace, trap):
        self.body, self.pace, self.trap = exchange.body, pace, trap
        self.chat = exchange.path.endswith("/chat/completions")

    def asked(self):
        number = self.body.get("max_tokens") or self.body.get("max_completion_tokens")
        return number if isinstance(number, int) and number > 0 else 128

    def event(self, fields):
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        head = {"id": "x", "object": kind, "created": 1, "model": self.pace.model}
        return b"data: " + json.dumps(head | fields).encode() + b"\n\n"

    def choice(self, text, thinking=False, reason=None):
        if self.chat:
            name = "reasoning_content" if thinking else "content"
            return {"index": 0, "delta": {name: text} if text else {}, "finish_reason": reason}
        name = "reasoning_content" if thinking else "text"
        return {"index": 0, "text": "", name: text, "finish_reason": reason}

    def piece(self, text, thinking):
        return self.event({"choices": [self.choice(text, thinking)]})

    def error(self, message):
        return (
            b"data: " + json.dumps({"error": {"message": message, "code": 500}}).encode() + b"\n\n"
        )

    def last(self, counts, reason):
        if self.trap == "uncounted":
            reason = "stop"
        fields = {"choices": [self.choice("", reason=reason)]}
        if self.pace.timings and self.trap != "uncounted":
            evaluated = counts["prompt"] - counts["kept"]
            fields["timings"] = {
                "cache_n": counts["kept"],
                "prompt_n": evaluated,
                "prompt_ms": counts["prefill"] * 1e3,
                "predicted_n": counts["output"],
                "predicted_ms": counts["decode"] * 1e3,
            }
        parts = [self.event(fields)]
        if (self.body.get("stream_options") or {}).get("include_usage") and (
            self.trap != "uncounted"
        ):
            usage = {
                "prompt_tokens": counts["prompt"],
                "completion_tokens": counts["output"],
                "total_tokens": counts["prompt"] + counts["output"],
                "prompt_tokens_details": {"cached_tokens": counts["kept"]},
            }
            if self.pace.timings and counts["hidden"]:
                usage["completion_tokens_details"] = {"reasoning_tokens": counts["hidden"]}
            parts.append(self.event({"choices": [], "usage": usage}))
        return [*parts, b"data: [DONE]\n\n"]


async def read_request(reader):
    """Method, path, headers and content of the next request; None where there is no more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return method, target.partition("?")[0], headers, content


def read_arguments(arguments):
    """The port and the pace of a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--address", default="127.0.0.1")
    for field in dataclasses.fields(Pace):
        name = f"--{field.name}"
        if isinstance(field.default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(name, type=type(field.default), default=field.default)
    values = vars(parser.parse_args(arguments))
    port, address = values.pop("port"), values.pop("address")
    return address, port, Pace(**values)


async def serve(address, port, pace):
    """Serve until the process is ended, or its standard input does."""
    server = await asyncio.start_server(Server(pace).connection, address, port, limit=1 << 22)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main(arguments=None):
    """Run the server."""
    # The usual loop's timers are late by up to a millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(serve(*read_arguments(arguments)))


if __name__ == "__main__":
    assert math.isclose(time.get_clock_info("monotonic").resolution, 1e-9, rel_tol=10)
    main(sys.argv[1:])
