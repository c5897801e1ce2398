"""Models that are loaded again and again: a server's log, line by line, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.decision import Finding
from stackmend.worker.acceleration.chain import build_chain
from stackmend.worker.acceleration.plan import plan
from stackmend.worker.acceleration.reloads import find_reloads
from stackmend.worker.acceleration.serverlog import KEPT, parse_duration, parse_log
from stackmend.worker.acceleration.spec import AccelerationSpec
from stackmend.worker.acceleration.state import Client, Load, StoredModel, WorkerAcceleration
from tests.unit.acceleration_world import HOST, LOADED, STATE, change

START = 1_800_000_000.0
A, B = "a" * 64, "b" * 64
API, WORKER = "172.18.0.4", "172.18.0.5"
CLIENTS = (
    Client(service="api", addresses=(API,), settings=(("OLLAMA_NUM_CTX", "4096"),)),
    Client(service="worker", addresses=(WORKER, "fd00::5"), settings=(("NUM_CTX", "8192"),)),
)


class Log:
    """A server's log, as Docker gives it back, written as time goes by."""

    def __init__(self, version: str = "0.24") -> None:
        self.version = version
        self.lines: list[str] = []
        self.at = START

    def say(self, text: str, at: float | None = None) -> None:
        moment = datetime.fromtimestamp(self.at if at is None else at, UTC)
        self.lines.append(f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z {text}")

    def inform(self, message: str, more: str = "") -> None:
        self.say(
            f'time=2027-01-15T08:00:00.000Z level=INFO source=server.go:1 msg="{message}"{more}'
        )

    def start(self) -> None:
        if self.version == "0.5":
            self.say('2027/01/15 08:00:00 routes.go:1187: INFO server config env="map[OLLAMA_X:]"')
        else:
            self.inform("server config", ' env="map[OLLAMA_CONTEXT_LENGTH:0 OLLAMA_DEBUG:INFO]"')
        if self.version == "0.24":
            # It starts a runner of its own to find accelerators.
            self.inform(
                "starting runner", ' cmd="/usr/bin/ollama runner --ollama-engine --port 41379"'
            )
        self.inform(
            "inference compute",
            ' id=GPU-1 library=CUDA name=CUDA0 description="NVIDIA H200" total="139.8 GiB"',
        )

    def load(
        self, model: str = A, context: int = 4096, parallel: int = 2, took: float | None = 1.5
    ) -> None:
        path = f"/root/.ollama/models/blobs/sha256-{model}"
        of_all = context * parallel
        if self.version == "0.5":
            self.inform(
                "starting llama server",
                f' cmd="/usr/bin/ollama runner --model {path} --ctx-size {of_all} --batch-size 512 '
                f'--threads 8 --no-mmap --parallel {parallel} --port 35253"',
            )
        elif self.version == "0.24":
            self.inform(
                "starting runner",
                f' cmd="/usr/bin/ollama runner --ollama-engine --model {path} --port 40737"',
            )
            for operation in ("fit", "alloc", "commit"):
                self.say(
                    "time=2027-01-15T08:00:00.000Z level=INFO source=runner.go:1297 msg=load "
                    f'request="{{Operation:{operation} LoraPath:[] Parallel:{parallel} '
                    f"BatchSize:512 FlashAttention:Enabled KvSize:{of_all} KvCacheType: "
                    'NumThreads:8 GPULayers:25[ID:GPU-1 Layers:25(0..24)] MultiUserCache:false}"'
                )
            self.inform("offloaded 25/25 layers to GPU")
        else:
            self.inform(
                "starting llama-server",
                f' cmd="/usr/lib/ollama/llama-server --model {path} --port 40737 --host 127.0.0.1 '
                f'--no-webui --offline -c {of_all} -np {parallel} --log-verbosity 4 -t 8"',
            )
        if took is None:
            return
        self.at += took
        runner = "llama-server" if self.version == "0.32" else "llama runner"
        self.inform(f"{runner} started in {took:.2f} seconds")
        if self.version == "0.24":
            # From two places.
            self.inform(f"{runner} started in {took:.2f} seconds")

    def answer(
        self,
        client: str = API,
        seconds: float = 0.5,
        since: float | None = None,
        path: str = "chat",
    ) -> None:
        self.at += seconds
        took = self.at - (self.at - seconds if since is None else since)
        self.say(
            f"[GIN] 2027/01/15 - 08:00:00 | 200 | {f'{took:.6f}s':>13} | {client:>15} | "
            f'POST     "/api/{path}"'
        )

    def ask(self, client: str = API, load: Callable[[], None] | None = None) -> None:
        """A request, and the load that it waits for."""
        since = self.at
        self.at += 0.01
        if load:
            load()
        self.answer(client, since=since)

    @property
    def state(self) -> WorkerAcceleration:
        return change(STATE, log=parse_log(self.lines, self.lines), clients=CLIENTS)


VERSIONS = pytest.mark.parametrize("version", ["0.5", "0.24", "0.32"])


def find(state: WorkerAcceleration, **options: int) -> tuple[Finding, ...]:
    return plan(AccelerationSpec(project="ai", **options), HOST, state).findings


def causes(log: Log) -> list[str]:
    return [reload.cause for reload in find_reloads(log.state)]


@VERSIONS
def test_a_load_is_read_of_each_version_of_the_log(version: str) -> None:
    log = Log(version)
    log.start()
    log.load(context=4096, parallel=2, took=2.26)
    log.answer(WORKER)
    read = log.state.log
    (load,) = read.loads
    assert load == Load(
        at=START,
        model=f"sha256-{A}",
        context=4096,
        parallel=2,
        threads=8,
        seconds=2.26,
    )
    assert [(device.library, device.name) for device in read.devices or ()] == [
        ("CUDA", "NVIDIA H200")
    ]
    (call,) = read.calls
    assert (call.client, call.path, call.status) == (WORKER, "/api/chat", 200)
    assert call.seconds == pytest.approx(0.5)
    assert [mark.kind for mark in read.marks] == ["started"]


@VERSIONS
def test_clients_that_differ_in_their_context(version: str) -> None:
    log = Log(version)
    log.start()
    for _ in range(3):
        log.ask(API, lambda: log.load(context=4096))
        log.ask(API)
        log.ask(WORKER, lambda: log.load(context=8192))
        log.at += 20
    assert causes(log) == ["context"] * 5
    (finding,) = find(log.state)
    assert finding.kind == "reloaded for its context"
    assert finding.cause.startswith(
        "a model was loaded again 5 times in 10 min, at 9 requests, 8 s"
    )
    assert finding.evidence == (
        f"worker ({WORKER}) asked for llama3.2:1b with a context of 8192 tokens: 3 of the loads",
        f"api ({API}) asked for llama3.2:1b with a context of 4096 tokens: 2 of the loads",
        "worker has NUM_CTX=8192",
        "api has OLLAMA_NUM_CTX=4096",
    )
    assert "same num_ctx" in finding.remedy
    assert not finding.blocks


@VERSIONS
def test_models_that_take_one_anothers_place(version: str) -> None:
    log = Log(version)
    log.start()
    for _ in range(3):
        log.ask(API, lambda: log.load(A))
        log.ask(WORKER, lambda: log.load(B))
    only_one = (("OLLAMA_MAX_LOADED_MODELS", "1"),)
    state = change(log.state, container={"settings": only_one})
    assert [reload.cause for reload in find_reloads(state)] == ["evicted"] * 4
    (finding,) = find(state)
    assert finding.kind == "reloaded after an eviction"
    assert "OLLAMA_MAX_LOADED_MODELS" in finding.remedy


def test_models_that_have_no_room_beside_one_another() -> None:
    log = Log()
    log.start()
    for model in (A, B, A, B, A):
        log.inform(
            "model requires more gpu memory than is currently available, evicting a model to make "
            "space",
            ' "loaded layers"=3',
        )
        log.ask(API, lambda model=model: log.load(model))  # type: ignore[misc]
    (finding,) = find(log.state)
    assert finding.kind == "reloaded after an eviction"
    assert finding.remedy.startswith("give the server more memory")


@VERSIONS
def test_a_client_that_keeps_nothing_alive(version: str) -> None:
    log = Log(version)
    log.start()
    for _ in range(4):
        log.ask(WORKER, log.load)
        log.at += 3
    assert causes(log) == ["unloaded"] * 3
    (finding,) = find(log.state)
    assert finding.kind == "reloaded after an unload"
    assert "keep_alive is 0 or short" in finding.cause
    assert finding.evidence[0].startswith(f"worker ({WORKER}) asked for llama3.2:1b")


@pytest.mark.parametrize("value", ["0", "0s", "10s", "30"])
def test_a_server_that_keeps_nothing_alive(value: str) -> None:
    log = Log()
    for _ in range(4):
        log.ask(API, log.load)
        log.at += 40
    settings = (("OLLAMA_KEEP_ALIVE", value),)
    (finding,) = find(change(log.state, container={"settings": settings}))
    assert finding.kind == "reloaded after an unload"
    assert f"the server has OLLAMA_KEEP_ALIVE={value}" in finding.evidence
    # The same of a process of the host.
    state = log.state.model_copy(update={"container": None, "settings": settings})
    assert len(find_reloads(state)) == 3
    log = Log()
    for _ in range(4):
        log.ask(API, log.load)
        log.at += 61
    assert find(change(log.state, container={"settings": settings})) == ()


#: As Ollama's sources have it: llm/server.go up to 0.24, llm/llama_server.go from 0.30 on.
CRASHES = {
    "0.12 to 0.24": (
        "time=2026-03-01T08:00:00.000Z level=ERROR source=server.go:316 "
        'msg="llama runner terminated" error="exit status 2"'
    ),
    "during a request": (
        "time=2026-03-01T08:00:00.000Z level=WARN source=server.go:1305 "
        'msg="llama runner process no longer running" sys=9 string="signal: killed"'
    ),
    "0.30": (
        "time=2026-03-01T08:00:00.000Z level=ERROR source=llama_server.go:976 "
        'msg="llama-server terminated" error="exit status 1" exit="exit status 1"'
    ),
    "0.30, during a request": (
        "time=2026-03-01T08:00:00.000Z level=WARN source=llama_server.go:1149 "
        'msg="llama-server process no longer running" sys=6 string="signal: aborted (core dumped)"'
    ),
}


@pytest.mark.parametrize("version", CRASHES)
def test_a_runner_that_ends_by_itself(version: str) -> None:
    log = Log()
    log.start()
    for _ in range(4):
        log.ask(API, log.load)
        log.say(CRASHES[version])
    assert causes(log) == ["crashed"] * 3
    assert [finding.kind for finding in find(log.state)] == ["reloaded after a crash"]


@pytest.mark.parametrize("runner", ["llama runner", "llama-server"])
def test_a_runner_that_the_server_ends_is_no_crash(runner: str) -> None:
    log = Log()
    log.start()
    for _ in range(4):
        log.ask(API, log.load)
        log.say(
            "time=2026-03-01T08:00:00.000Z level=ERROR source=llama_server.go:976 "
            f'msg="{runner} terminated" error="signal: killed" exit="signal: killed"'
        )
    assert causes(log) == ["unloaded"] * 3


def test_models_that_have_room_beside_one_another_are_not_evicted() -> None:
    log = Log()
    log.start()
    for _ in range(3):
        log.ask(API, lambda: log.load(A))
        log.ask(WORKER, lambda: log.load(B))
    assert causes(log) == ["unloaded"] * 4
    # Where they have none, one takes the other's place.
    stored = tuple(StoredModel(name=name, size=100 << 30) for name in ("a", "b"))
    assert [found.cause for found in find_reloads(change(log.state, stored=stored))] == [
        "evicted"
    ] * 4


def test_an_eviction_for_the_memory_of_parallel_requests() -> None:
    log = Log("0.32")
    log.start()
    for model in (A, B) * 3:
        log.say(
            "time=2026-07-01T08:00:00.000Z level=INFO source=sched.go:557 "
            'msg="llama-server model predicted to exceed available memory, evicting" '
            'predicted="9.1 GiB" predicted_num_ctx=32768 num_batch=512 available="8.0 GiB"'
        )
        log.ask(API, lambda model=model: log.load(model, parallel=8))  # type: ignore[misc]
    settings = (("OLLAMA_NUM_PARALLEL", "8"),)
    (finding,) = find(change(log.state, container={"settings": settings}))
    assert finding.kind == "reloaded after an eviction"
    assert "smaller OLLAMA_NUM_PARALLEL" in finding.remedy
    assert "the server has OLLAMA_NUM_PARALLEL=8" in finding.evidence


@pytest.mark.parametrize("cause", ["context", "evicted", "crashed"])
def test_loads_that_are_hours_apart_are_necessary(cause: str) -> None:
    log = Log()
    log.start()
    for number in range(6):
        if cause == "evicted":
            log.inform(
                "model requires more gpu memory than is currently available, evicting a model"
            )
        context = 4096 << (number % 2 if cause == "context" else 0)
        model = (A, B)[number % 2] if cause == "evicted" else A
        log.ask(API, lambda: log.load(model, context=context))  # noqa: B023
        if cause == "crashed":
            log.say(CRASHES["0.12 to 0.24"])
        log.at += 7200
    assert causes(log) == []


def test_so_many_in_a_day_are_no_finding_where_they_are_few_at_a_time() -> None:
    log = Log()
    log.start()
    for number in range(40):
        log.ask(API)
        log.ask(WORKER, lambda: log.load(context=4096 << number % 2))  # noqa: B023
        for _ in range(3):
            log.at += 250
            log.ask(API)
        log.at += 200
    assert len(find_reloads(log.state)) > 20
    assert find(log.state, minutes=1440) == ()


def test_a_context_that_the_server_reduces_is_no_clients() -> None:
    log = Log("0.32")
    log.start()
    for _ in range(4):
        log.ask(API, lambda: log.load(context=65536))
        log.load(context=65536, took=None)
        log.say(
            "time=2026-07-01T08:00:00.000Z level=WARN source=sched.go:662 "
            'msg="llama-server load failed; reducing automatic context and retrying once" '
            "model=/root/.ollama/models/blobs/sha256-a old_num_ctx=65536 new_num_ctx=32768"
        )
        log.ask(API, lambda: log.load(context=32768))
    assert "context" not in causes(log)


def test_a_terminals_colours_are_no_part_of_a_line() -> None:
    log = Log()
    log.start()
    log.load()
    log.say(
        "[GIN] 2026/07/01 - 08:00:00 |\x1b[97;42m 200 \x1b[0m|    1.234567s |      172.18.0.5 |"
        '\x1b[97;46m POST    \x1b[0m "/api/chat"\r'
    )
    (call,) = log.state.log.calls
    assert (call.client, call.path, call.status) == (WORKER, "/api/chat", 200)


def test_a_log_that_was_not_read_to_its_end_says_so() -> None:
    log = Log()
    log.start()
    read = parse_log(log.lines, log.lines, cut=True)
    chain = build_chain(AccelerationSpec(), HOST, change(STATE, log=read))
    assert "the server's log was not read to its end: it was not read within 10 s" in str(chain)


def test_the_span_that_was_read_is_named_where_the_log_has_more() -> None:
    log = Log()
    for _ in range(KEPT // 4):
        log.ask(WORKER, log.load)
    assert log.state.log.since == pytest.approx(START, abs=1)
    (finding,) = find(log.state.model_copy(update={"now": log.at}), minutes=1440)
    assert f"times in {(log.at - START) / 60:.0f} min" in finding.cause


def test_a_context_that_changes_between_the_samples() -> None:
    other = LOADED.model_copy(update={"context": 8192})
    (finding,) = find(change(STATE, samples=((LOADED,), (other,))))
    assert finding.kind == "reloaded for its context"
    assert finding.evidence == ("llama3.2:1b: 4096, then 8192 tokens",)


def test_so_many_are_no_finding() -> None:
    log = Log()
    log.start()
    for _ in range(3):
        log.ask(WORKER, log.load)
    assert causes(log) == ["unloaded"] * 2
    assert find(log.state) == ()
    assert len(find(log.state, maximum_reloads=1)) == 1


def test_the_last_to_come_is_who_asked() -> None:
    log = Log()
    log.start()
    log.load(context=4096)
    since = log.at
    log.at += 5
    # The worker's request has been under way for a while when the api's needs another context.
    log.load(context=8192)
    log.answer(API, seconds=0.1, since=since + 5)
    log.answer(WORKER, seconds=2, since=since)
    (reload,) = find_reloads(log.state)
    assert reload.client == API


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("127.0.0.1", "a program beside the server (127.0.0.1)"),
        ("172.18.0.1", "the host, or somebody through a published port (172.18.0.1)"),
        ("192.0.2.9", "the client 192.0.2.9"),
    ],
)
def test_who_is_no_container(address: str, who: str) -> None:
    log = Log()
    for _ in range(4):
        log.ask(address, log.load)
    (finding,) = find(log.state)
    assert finding.evidence[0].startswith(f"{who} asked for")


def healthy(number: int) -> Log:
    """A run in which all loads were necessary, each time other ones."""
    log = Log(("0.5", "0.24", "0.32")[number % 3])
    log.start()
    models: Sequence[str] = (A, B)[: 1 + number % 2]
    for model in models:
        log.ask(API, lambda model=model: log.load(model, context=2048 << number % 3))  # type: ignore[misc]
    for turn in range(number):
        log.ask((API, WORKER)[turn % 2])
        log.at += 1 + turn
    if number % 4 == 1:
        # Nobody asks for longer than a model stays.
        for _ in range(4):
            log.at += 301
            log.ask(API, lambda: log.load(models[0], context=2048 << number % 3))
    if number % 4 == 2:
        for _ in range(4):
            log.start()
            log.ask(WORKER, lambda: log.load(models[0], context=2048 << number % 3))
    if number % 4 == 3:
        # Loads that fail and are tried again, as where memory is short, until one succeeds.
        for _ in range(4):
            log.load("c" * 64, took=None)
            log.answer(WORKER)
        log.ask(WORKER, lambda: log.load("c" * 64))
    return log


@pytest.mark.parametrize("number", range(20))
def test_a_healthy_run_has_no_finding(number: int) -> None:
    log = healthy(number)
    assert log.state.log.calls
    assert find_reloads(log.state) == ()
    assert find(log.state) == ()


def test_a_server_that_keeps_models_for_ever_has_no_time_for_them() -> None:
    log = Log()
    for _ in range(4):
        log.ask(API, log.load)
        log.at += 3600
    assert causes(log) == []
    container = STATE.container
    assert container is not None
    for value, count in (("-1", 3), ("24h", 3), ("7200", 3), ("30m", 0), ("5m0s", 0)):
        settings = (("OLLAMA_KEEP_ALIVE", value),)
        state = log.state.model_copy(
            update={"container": container.model_copy(update={"settings": settings})}
        )
        assert len(find_reloads(state)) == count, value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8m44s", 524),
        ("2.287724508s", 2.287724508),
        ("517.9µs", 0.0005179),
        ("0s", 0),
        ("1h2m3.5s", 3723.5),
        ("36ns", 3.6e-8),
        ("12.5ms", 0.0125),
    ],
)
def test_a_duration_of_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


def test_the_last_start_counts() -> None:
    log = Log()
    log.start()
    log.inform("server config", ' env="map[]"')
    log.inform("no compatible GPUs were discovered")
    log.inform("inference compute", ' id=cpu library=cpu compute="" name=cpu total="31.3 GiB"')
    read = parse_log(log.lines, [])
    assert [device.library for device in read.devices or ()] == ["cpu"]
    assert "no compatible GPUs" in read.warnings[0]


def test_journald_lines_are_read_as_well() -> None:
    log = Log()
    log.start()
    log.load()
    log.answer()
    texts = [line.partition(" ")[2] for line in log.lines]
    stamped = [f"{START + number:.6f} {text}" for number, text in enumerate(texts)]
    read = parse_log(stamped, stamped)
    assert (len(read.loads), len(read.calls)) == (1, 1)


@given(st.lists(st.text(max_size=300), max_size=20), st.data())
def test_no_line_breaks_the_reading(lines: list[str], data: st.DataObject) -> None:
    log = Log()
    log.start()
    log.load()
    log.answer()
    known = parse_log(log.lines, log.lines)
    foreign = [f"2027-01-15T08:00:00.000000000Z {line}" for line in lines]
    at = data.draw(st.integers(0, len(log.lines)))
    mixed = [*log.lines[:at], *foreign, *lines, *log.lines[at:]]
    read = parse_log(mixed, mixed)
    assert len(read.loads) >= len(known.loads)
    assert len(read.calls) >= len(known.calls)
