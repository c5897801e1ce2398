"""What was measured of a server, and under which conditions: models only, as they are stored.

All times are seconds. A *sample* is one request; a *repeat* is one run of requests at one load, and
is the unit of every comparison; a *level* is all repeats at one load; a *measurement* is all
levels.
"""

from typing import Annotated, Literal

from pydantic import Field

from stackmend.frozen import Frozen
from stackmend.worker.benchmark.spec import Limits
from stackmend.worker.context import Shape

#: The version of the stored form; one that differs is measured again.
SCHEMA = 1

#: Whose time was short, as the reason begins for which a load is noisy; else it is the host's.
CONTROLLER = "this controller"

#: Seconds since 1970, up to the last year that a calendar has: a host may claim any number.
Moment = Annotated[float, Field(ge=0, le=253_402_214_400, allow_inf_nan=False)]

#: Why a sample does not count. ``short``: the model ended before it had written what was asked for;
#: ``cached``: the server answered from a prefix that it had kept; ``cut``: it read less of the
#: prompt than was sent; ``reloaded``: the model was loaded for this request; ``incomplete``: the
#: stream ended without its last message; ``error``: the server reported one; ``uncounted``: the
#: server does not count its tokens; ``implausible``: its counts and times contradict one another.
Invalid = Literal[
    "short",
    "cached",
    "cut",
    "reloaded",
    "incomplete",
    "error",
    "refused",
    "timeout",
    "uncounted",
    "implausible",
]


class Sample(Frozen):
    """One request, from the client's side and, where the server counts, from the server's.

    :param sent: when it was sent, since its repeat began.
    :param ttft: from sending to the first chunk with text, be it reasoning or output; ``None``
        where none came.
    :param ttft_output: the same to the first chunk of output.
    :param last: from sending to the last chunk with text.
    :param end: from sending to the end of the answer, or of the task.
    :param prompt_tokens: tokens of the prompt, as the server counts them.
    :param cached_tokens: those of them that it had kept; ``None`` where it does not say.
    :param output_tokens: tokens of the answer with its reasoning, as the server counts them; never
        the number of chunks.
    :param first_tokens: tokens that came with the first chunk: 1, unless the server bundles.
    :param chunks: pieces that the answer came in.
    :param load: that the server spent on loading the model.
    :param prefill: that the server spent on the prompt.
    :param decode: that the server spent on the answer.
    :param total: that the server spent in all; of a task, from its submission to its end by the
        clock of its queue.
    :param invalid: why it does not count; ``None`` where it does.
    :param reason: the same in words, with what the server said.
    """

    sent: float
    ttft: float | None = None
    ttft_output: float | None = None
    last: float | None = None
    end: float
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    first_tokens: int = 1
    chunks: int = 0
    load: float | None = None
    prefill: float | None = None
    decode: float | None = None
    total: float | None = None
    invalid: Invalid | None = None
    reason: str = ""

    @property
    def tpot(self) -> float | None:
        """Seconds for each output token after those of the first chunk."""
        if self.ttft is None or self.last is None or self.output_tokens is None:
            return None
        after = self.output_tokens - self.first_tokens
        return (self.last - self.ttft) / after if after > 0 else None


class Conditions(Frozen):
    """What the host did while a repeat ran; ``None`` where it does not say.

    :param throttled: seconds for which the server's control group, or one above it, was held back.
    :param throttled_periods: how often.
    :param steal: share of the CPU time that a hypervisor gave to others, 0 to 1.
    :param busy: share of the CPU time that was used, 0 to 1, the server's own included.
    :param others: share of the CPU time that programs other than the server used, 0 to 1.
    :param swapped: pages that came in from swap.
    :param oom_kills: processes that the kernel killed for memory.
    :param available: share of the memory that programs may still take at the end, 0 to 1.
    :param load_average: over one minute, at the end.
    :param thermal: events of thermal throttling of the CPU.
    :param gpu_throttle: reasons for which a GPU's clock was held back.
    :param gpu_temperature: degrees Celsius of the hottest GPU.
    :param client: share of one CPU that the process used that measured, 1 for all that it can use.
    :param lag: seconds by which that process came late to what was due, 19 times of 20 at most;
        of an open loop, to sending its requests.
    """

    throttled: float | None = None
    throttled_periods: int | None = None
    steal: float | None = None
    busy: float | None = None
    others: float | None = None
    swapped: int | None = None
    oom_kills: int | None = None
    available: float | None = None
    load_average: float | None = None
    thermal: int | None = None
    gpu_throttle: tuple[str, ...] = ()
    gpu_temperature: float | None = None
    client: float | None = None
    lag: float | None = None


class Repeat(Frozen):
    """One run of requests at one load.

    :param wall: from the first request to the last byte, the idle tail included.
    :param samples: all of them, those that do not count as well.
    :param conditions: what the host did meanwhile.
    :param rtt: one round trip of the connection, just before; ``None`` where that of the
        measurement holds.
    :param window: within which the requests of an open loop were to be sent; ``None`` of a closed
        one.
    """

    wall: float
    samples: tuple[Sample, ...]
    conditions: Conditions = Conditions()
    rtt: float | None = None
    window: float | None = None

    @property
    def valid(self) -> tuple[Sample, ...]:
        """The samples that count."""
        return tuple(sample for sample in self.samples if sample.invalid is None)


class Load(Frozen):
    """How requests were sent.

    :param concurrency: requests at one time, each followed by the next at once; 0 for an open
        loop.
    :param rate: requests a second, sent whether earlier ones have ended or not; 0 for a closed
        loop.
    """

    concurrency: int = 0
    rate: float = 0.0

    def __str__(self) -> str:
        return (
            f"concurrency {self.concurrency}" if self.concurrency else f"{self.rate:g} requests/s"
        )


class Level(Frozen):
    """All repeats at one load.

    :param load: how requests were sent.
    :param repeats: in the order in which they were measured.
    :param noisy: why its figures are not steady enough to be compared; empty where they are.
    """

    load: Load
    repeats: tuple[Repeat, ...]
    noisy: str = ""


class Fingerprint(Frozen):
    """What a measurement holds for: it is as good as new while all of this stays the same.

    Field by field, since a new measurement names the field that changed.

    :param parameters: the protocol's version and all that was asked for, but for the salt.
    :param engine: what answers: ``ollama``, ``llama.cpp``, ``llama-cpp-python``, ``vllm``,
        ``queue``.
    :param version: its version.
    :param image: the digest of its container's image.
    :param model: the digest of the model, or its name and bytes where the server has no digest.
    :param settings: what of the server's environment and command changes its speed, sorted.
    :param context: tokens that the model's context has.
    :param processor: where the model lies: ``cpu``, ``gpu``, or ``35% gpu``.
    :param cpu: model of the CPU.
    :param cores: that the host has.
    :param quota: CPUs that the server's control group may use; 0 for no limit.
    :param threads: that the server computes with; 0 where it does not say.
    :param memory: bytes that the host has.
    :param memory_limit: bytes that the server may have; 0 for no limit.
    :param gpus: name and bytes of each GPU.
    :param driver: version of the GPU's driver.
    :param worker_image: the digest of the worker's image, for the queue.
    :param replicas: workers that take tasks, for the queue; servers otherwise.
    """

    parameters: str
    engine: str
    version: str = ""
    image: str = ""
    model: str = ""
    settings: tuple[str, ...] = ()
    context: int = 0
    processor: str = ""
    cpu: str = ""
    cores: int = 0
    quota: float = 0.0
    threads: int = 0
    memory: int = 0
    memory_limit: int = 0
    gpus: tuple[str, ...] = ()
    driver: str = ""
    worker_image: str = ""
    replicas: int = 1


class Measurement(Frozen):
    """All that was measured of one server, with the raw samples; the stored form.

    :param schema_version: of the stored form.
    :param target: what was asked: ``ollama``, ``openai`` or ``queue``.
    :param name: the server, as ``service ollama`` or its endpoint.
    :param model: the name of the model that was asked.
    :param host: the host's name in the inventory.
    :param at: when it began, in seconds since 1970.
    :param cause: why it was measured.
    :param fingerprint: what it holds for.
    :param limits: what a good request had to meet.
    :param rtt: one round trip of the connection that it was measured through, taken out of no
        figure here; ``summary`` takes it out of TTFT.
    :param load: seconds that the model took to load before anything was measured.
    :param verified: whether the server counted the text of an answer alike when it wrote and when
        it read it; where not, its counts are taken as they are.
    :param levels: all repeats at each load.
    """

    schema_version: int = SCHEMA
    target: Literal["ollama", "openai", "queue"]
    name: str
    model: str = ""
    host: str
    at: Moment
    cause: str
    fingerprint: Fingerprint
    limits: Limits = Limits()
    rtt: float = 0.0
    load: float | None = None
    verified: bool = False
    levels: tuple[Level, ...]


class Figures(Frozen):
    """What one repeat comes to; times are those of the samples that count.

    :param output_tps: output tokens a second: all tokens, by the wall time with its idle tail; 0
        for a queue, whose answers are no streams.
    :param requests_ps: requests a second that count.
    :param goodput: requests a second that meet every limit; ``None`` without limits.
    :param ttft: to the first token, the round trip of the connection taken out: median and 95th.
    :param ttft_output: to the first token that is no reasoning, likewise.
    :param tpot: for each token after the first: median and 95th.
    :param end: to the end of the answer: median and 95th.
    :param queue: that requests waited in the server before it began, by its own times: median.
    :param prefill_tps: prompt tokens a second, by the server's own times: median.
    :param decode_tps: output tokens a second of a single request, by the server's own times:
        median.
    :param valid: samples that count.
    :param invalid: how many do not, by why.
    """

    output_tps: float
    requests_ps: float
    goodput: float | None = None
    ttft: tuple[float, float] | None = None
    ttft_output: tuple[float, float] | None = None
    tpot: tuple[float, float] | None = None
    end: tuple[float, float] | None = None
    queue: float | None = None
    prefill_tps: float | None = None
    decode_tps: float | None = None
    valid: int
    invalid: tuple[tuple[Invalid, int], ...] = ()


class Steadiness(Frozen):
    """How one figure varies over the repeats of a level.

    :param median: of the repeats.
    :param low: end of the 95 % interval of the median, by bootstrap; the least without scipy.
    :param high: likewise; the greatest without scipy.
    :param spread: standard deviation by mean.
    """

    median: float
    low: float
    high: float
    spread: float


class Summary(Frozen):
    """What one level comes to.

    :param load: how requests were sent.
    :param repeats: the figures of each repeat.
    :param median: of each figure, over the repeats.
    :param output_tps: how steady it is.
    :param ttft: likewise, of the medians.
    :param tpot: likewise.
    :param requests_ps: likewise; of a queue alone.
    :param end: likewise, of the medians; of a queue alone.
    :param others: share of the CPU time that other programs used meanwhile, 0 to 1.
    :param disturbed: repeats that are left out, since the host disturbed them: by number, from 0.
    :param rtt: the round trip of the connection that is taken out of the times to the first token.
    :param is_hidden: whether one of these was shorter than that.
    :param noisy: why the level must not be compared; empty where it may.
    """

    load: Load
    repeats: tuple[Figures, ...]
    median: Figures
    output_tps: Steadiness
    ttft: Steadiness | None = None
    tpot: Steadiness | None = None
    requests_ps: Steadiness | None = None
    end: Steadiness | None = None
    others: float | None = None
    disturbed: tuple[int, ...] = ()
    rtt: float = 0.0
    is_hidden: bool = False
    noisy: str = ""


class Comparison(Frozen):
    """Two levels of the same load, by one figure.

    :param load: how requests were sent.
    :param figure: its name, as ``output_tps``.
    :param before: the median before.
    :param after: the median now.
    :param ratio: after by before.
    :param threshold: by how much the ratio has to differ from 1 to matter.
    :param p: two-sided, of the exact Mann-Whitney test over the repeats.
    :param outcome: ``worse`` and ``better`` are so practically and statistically; ``noisy`` only
        practically; ``equal`` not even that.
    :param reason: why it is noisy.
    """

    load: Load
    figure: str
    before: float
    after: float
    ratio: float
    threshold: float
    p: float
    outcome: Literal["equal", "worse", "better", "noisy"]
    reason: str = ""

    @property
    def is_worse(self) -> bool:
        """Whether it differs for the worse: fewer tokens or tasks, or more seconds."""
        return (self.ratio < 1) is (self.figure in ("output_tps", "requests_ps"))


class Shortfall(Frozen):
    """A figure that does not reach its minimum at the load at which it is best.

    :param figure: its name in ``minimum``, as ``output_tps``.
    :param minimum: what it has to reach.
    :param value: what it came to: the median; ``None`` where the server does not say it.
    :param most: what it came to in the best repeat of a noisy load, where that proves it.
    :param noise: why that proves nothing; empty where it does.
    :param again: whether the result before did not reach it either.
    """

    figure: str
    minimum: float
    value: float | None = None
    most: float | None = None
    noise: str = ""
    again: bool = False

    @property
    def fails(self) -> bool:
        """Whether it fails the operation: noise excuses it once."""
        return not self.noise or self.again


class Result(Frozen):
    """A measurement with what it comes to; what is collected, and what pictures are made of.

    :param measurement: with the raw samples.
    :param summaries: of its levels.
    :param baseline: the measurement that it was held against, if there was one. Of a server's own
        earlier results it is the latest of those that its levels are of, without levels: their
        samples are not kept.
    :param baseline_summaries: of the levels that it was held against.
    :param comparisons: level by level.
    :param shortfalls: figures that do not reach their minimum.
    :param history: when, and medians by level, of earlier measurements that asked the same: oldest
        first.
    """

    measurement: Measurement
    summaries: tuple[Summary, ...]
    baseline: Measurement | None = None
    baseline_summaries: tuple[Summary, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    history: tuple["Past", ...] = ()


class Entry(Frozen):
    """A measurement as the host keeps it to compare: without its samples.

    :param at: when it began, in seconds since 1970.
    :param cause: why it was measured.
    :param fingerprint: what it holds for.
    :param limits: what a good request had to meet.
    :param retries: how many results in a row before it were noisy or failed.
    :param summaries: of its levels.
    """

    at: Moment
    cause: str
    fingerprint: Fingerprint
    limits: Limits = Limits()
    retries: int = Field(default=0, ge=0, le=100)
    summaries: tuple[Summary, ...]


class Reference(Frozen):
    """One level of an earlier measurement, which later ones are held against.

    :param at: when that began, in seconds since 1970.
    :param fingerprint: what it holds for.
    :param summary: what the level came to.
    """

    at: Moment
    fingerprint: Fingerprint
    summary: Summary


class Record(Frozen):
    """What a host keeps of the measurements of one server; the samples lie in files beside it.

    :param schema_version: of this form, and of the samples'.
    :param latest: the last measurement.
    :param previous: the one before it that asked the same.
    :param steady: the last ones, with those of their levels that were steady and no worse.
    :param best: the best middle of some of these, level by level.
    :param held: what the latest is held against, level by level.
    :param history: earlier ones, oldest first.
    """

    schema_version: int = SCHEMA
    latest: Entry | None = None
    previous: Entry | None = None
    steady: tuple[Entry, ...] = ()
    best: tuple[Reference, ...] = ()
    held: tuple[Reference, ...] = ()
    history: tuple["Past", ...] = ()


class Past(Frozen):
    """One earlier measurement, without its samples: medians of each level, by the load in words.

    :param at: when it began, in seconds since 1970.
    :param asked: a digest of what was asked, which comparable ones have in common.
    :param noisy: loads that must not be compared.
    :param output_tps: output tokens a second.
    :param ttft: seconds to the first token; not of older ones, as all that follows.
    :param tpot: seconds for each token after it.
    :param requests_ps: requests a second, of a queue alone.
    :param end: seconds for a task, of a queue alone.
    """

    at: Moment
    asked: str = ""
    noisy: tuple[str, ...] = ()
    output_tps: tuple[tuple[str, float], ...]
    ttft: tuple[tuple[str, float], ...] = ()
    tpot: tuple[tuple[str, float], ...] = ()
    requests_ps: tuple[tuple[str, float], ...] = ()
    end: tuple[tuple[str, float], ...] = ()


class Gpu(Frozen):
    """One GPU.

    :param name: as its driver calls it.
    :param memory: bytes.
    :param free: bytes of them that nothing uses; ``None`` where the driver does not say.
    """

    name: str
    memory: int = 0
    free: int | None = None


class Usage(Frozen):
    """What the processes of a server used of the CPU for a moment.

    :param used: seconds of CPU time.
    :param waited: seconds for which their threads were held up by other programs.
    :param during: seconds for which they were watched.
    """

    used: float
    waited: float = 0.0
    during: float


class Server(Frozen):
    """One running container of a service, or the process that an endpoint is of.

    :param container: its container's id; empty for a process of the host.
    :param name: the container's name, or what the process is called.
    :param process: its number on the host; 0 where it is not known.
    :param image: the digest of its image.
    :param addresses: where it may answer from the host: addresses of its networks, with the port
        that it listens on, then what it publishes.
    :param quota: CPUs that its control group may use; 0 for no limit.
    :param memory_limit: bytes that it may have; 0 for no limit.
    :param settings: what of its environment and command changes its speed, sorted.
    :param threads: that it computes with; 0 where it does not say.
    :param usage: what its processes used of the CPU while they were watched; ``None`` where that is
        not known.
    :param connections: of others to its port, for as long as it was watched; ``None`` where that
        is not known.
    """

    container: str = ""
    name: str = ""
    process: int = 0
    image: str = ""
    addresses: tuple[tuple[str, int], ...] = ()
    quota: float = 0.0
    memory_limit: int = 0
    settings: tuple[str, ...] = ()
    threads: int = 0
    usage: Usage | None = None
    connections: int | None = None


class Machine(Frozen):
    """What a host has for a measurement, as its probe reads it.

    :param now: the host's clock, in seconds since 1970.
    :param cpu: model of the CPU.
    :param cores: that it has.
    :param memory: bytes that it has.
    :param available: bytes of them that programs may still take.
    :param swap: bytes of swap that are in use.
    :param gpus: its GPUs.
    :param driver: version of their driver.
    :param servers: what runs of the service, or behind the endpoint.
    :param workers: what runs of the service that takes the tasks of a queue.
    :param queues: what runs of the service whose queue sends tasks to the server.
    :param reason: why there is no server; empty where there is one.
    :param record: what earlier runs measured.
    :param record_problem: why that cannot be read; empty where it can.
    """

    now: Moment
    cpu: str = ""
    cores: int = 0
    memory: int = 0
    available: int = 0
    swap: int = 0
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    servers: tuple[Server, ...] = ()
    workers: tuple[Server, ...] = ()
    queues: tuple[Server, ...] = ()
    reason: str = ""
    record: Record = Record()
    record_problem: str = ""


class Served(Frozen):
    """A model that a server has.

    :param name: as the server has it.
    :param digest: its digest; empty where the server has none.
    :param size: bytes on its disk; 0 where it does not say.
    """

    name: str
    digest: str = ""
    size: int = 0


class Loaded(Frozen):
    """A model that is in the server's memory.

    :param name: as the server has it.
    :param size: bytes in all.
    :param vram: bytes of them on a GPU.
    :param context: tokens of its context; 0 where the server does not say.
    """

    name: str
    size: int = 0
    vram: int = 0
    context: int = 0


class Queue(Frozen):
    """The line of tasks before a model server.

    :param waiting: tasks that wait to be taken, those that were put off included.
    :param running: that are under way.
    :param delayed: of those that wait, how many were put off after a failed attempt.
    """

    waiting: int = 0
    running: int = 0
    delayed: int = 0


class Answers(Frozen):
    """What a server says of itself, without one token being asked for.

    :param address: where it answers, as the host sees it; empty where it does not.
    :param port: likewise.
    :param reason: why it does not answer, or was not asked.
    :param remedy: what to do about that; empty where the server is to be started.
    :param engine: what it is, as ``Fingerprint`` has it.
    :param version: its version.
    :param models: that it has.
    :param loaded: that are in memory; ``None`` where it does not say.
    :param context: tokens of its context, where that is the server's and not the model's.
    :param requests: that are under way or wait; ``None`` where it does not say.
    :param is_active: whether what it counts of its requests changed while it was watched; ``None``
        where it counts none.
    :param queue: the line of tasks before it; ``None`` where there is none that is known.
    :param shape: of the model that is asked; ``None`` where it is not known.
    """

    address: str = ""
    port: int = 0
    reason: str = ""
    remedy: str = ""
    engine: str = ""
    version: str = ""
    models: tuple[Served, ...] = ()
    loaded: tuple[Loaded, ...] | None = None
    context: int = 0
    requests: int | None = None
    is_active: bool | None = None
    queue: Queue | None = None
    shape: Shape | None = None


class BenchmarkState(Frozen):
    """All that a plan rests on.

    :param machine: the host.
    :param answers: the server.
    :param collected: whether the latest result lies on the controller as well.
    :param is_outdated: whether that was held against another minimum.
    """

    machine: Machine
    answers: Answers = Answers()
    collected: bool = True
    is_outdated: bool = False
