"""What was measured of a server, and under which conditions: models only, as they are stored.

All times are seconds. A *sample* is one request; a *repeat* is one run of requests at one load, and
is the unit of every comparison; a *level* is all repeats at one load; a *measurement* is all
levels.
"""

from typing import Literal

from stackmend.frozen import Frozen

#: The version of the stored form; one that differs is measured again.
SCHEMA = 1

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
    :param end: from sending to the end of the answer.
    :param prompt_tokens: tokens of the prompt, as the server counts them.
    :param cached_tokens: those of them that it had kept; ``None`` where it does not say.
    :param output_tokens: tokens of the answer with its reasoning, as the server counts them; never
        the number of chunks.
    :param first_tokens: tokens that came with the first chunk: 1, unless the server bundles.
    :param chunks: pieces that the answer came in.
    :param load: that the server spent on loading the model.
    :param prefill: that the server spent on the prompt.
    :param decode: that the server spent on the answer.
    :param total: that the server spent in all.
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
    :param swapped: pages that came in from swap.
    :param oom_kills: processes that the kernel killed for memory.
    :param load_average: over one minute, at the end.
    :param thermal: events of thermal throttling of the CPU.
    :param gpu_throttle: reasons for which a GPU's clock was held back.
    :param gpu_temperature: degrees Celsius of the hottest GPU.
    """

    throttled: float | None = None
    throttled_periods: int | None = None
    steal: float | None = None
    busy: float | None = None
    swapped: int | None = None
    oom_kills: int | None = None
    load_average: float | None = None
    thermal: int | None = None
    gpu_throttle: tuple[str, ...] = ()
    gpu_temperature: float | None = None


class Repeat(Frozen):
    """One run of requests at one load.

    :param wall: from the first request to the last byte, the idle tail included.
    :param samples: all of them, those that do not count as well.
    """

    wall: float
    samples: tuple[Sample, ...]
    conditions: Conditions = Conditions()

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
    :param model: the digest of the model, or its name where the server has no digest.
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

    :param target: what was asked: ``ollama``, ``openai`` or ``queue``.
    :param name: the server, as ``service ollama`` or its endpoint.
    :param host: the host's name in the inventory.
    :param at: when it began, in seconds since 1970.
    :param cause: why it was measured.
    :param rtt: one round trip of the connection that it was measured through, taken out of no
        figure here; ``summary`` takes it out of TTFT.
    :param load: seconds that the model took to load before anything was measured.
    """

    schema_version: int = SCHEMA
    target: Literal["ollama", "openai", "queue"]
    name: str
    host: str
    at: float
    cause: str
    fingerprint: Fingerprint
    rtt: float = 0.0
    load: float | None = None
    levels: tuple[Level, ...]


class Figures(Frozen):
    """What one repeat comes to; times are those of the samples that count.

    :param output_tps: output tokens a second: all tokens, by the wall time with its idle tail.
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

    :param repeats: the figures of each repeat.
    :param median: of each figure, over the repeats.
    :param output_tps: how steady it is.
    :param ttft: likewise, of the medians.
    :param tpot: likewise.
    :param noisy: why the level must not be compared; empty where it may.
    """

    load: Load
    repeats: tuple[Figures, ...]
    median: Figures
    output_tps: Steadiness
    ttft: Steadiness | None = None
    tpot: Steadiness | None = None
    noisy: str = ""


class Comparison(Frozen):
    """Two levels of the same load, by one figure.

    :param figure: its name, as ``output_tps``.
    :param before: the median before.
    :param after: the median now.
    :param ratio: after by before.
    :param threshold: by how much the ratio has to differ from 1 to matter.
    :param p: two-sided, of the exact Mann-Whitney test over the repeats.
    :param outcome: ``worse`` and ``better`` are so practically and statistically; ``noisy`` only
        practically; ``equal`` not even that.
    """

    load: Load
    figure: str
    before: float
    after: float
    ratio: float
    threshold: float
    p: float
    outcome: Literal["equal", "worse", "better", "noisy"]


class Result(Frozen):
    """A measurement with what it comes to; what is collected, and what pictures are made of.

    :param measurement: with the raw samples.
    :param summaries: of its levels.
    :param baseline: the measurement that it was held against, if one is stored.
    :param baseline_summaries: of that one's levels.
    :param comparisons: level by level.
    :param history: when, and output tokens a second by level, of earlier measurements of the same
        fingerprint's engine and model: oldest first.
    """

    measurement: Measurement
    summaries: tuple[Summary, ...]
    baseline: Measurement | None = None
    baseline_summaries: tuple[Summary, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    history: tuple["Past", ...] = ()


class Past(Frozen):
    """One earlier measurement, without its samples.

    :param at: when it began, in seconds since 1970.
    :param output_tps: median of each level, by the load in words.
    """

    at: float
    output_tps: tuple[tuple[str, float], ...]
