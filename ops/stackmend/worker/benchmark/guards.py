"""When nothing is measured, because somebody or something would be disturbed. Pure."""

import re
from collections.abc import Iterator, Sequence

from stackmend.decision import Refusal
from stackmend.worker.benchmark.fingerprint import find_loaded, find_model
from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import (
    BenchmarkState,
    Conditions,
    Loaded,
    Machine,
    Served,
    Server,
    Usage,
)
from stackmend.worker.context import Context, find_context

#: What a model needs beyond its weights, as a share of them: context and buffers; and buffers
#: alone, where its context is known.
OVERHEAD, BUFFERS = 0.2, 0.05

#: CPUs from which on a server computes for somebody: one that waits uses less than a hundredth.
COMPUTING = 0.3

#: The same where other programs hold it up: CPUs that it uses, and that it would use.
STARVED, DEMAND = 0.05, 0.5

#: Seconds between two readings of what a server counts of its requests.
INTERVAL = 2.5

#: Where it counts none: how often its use of the CPU is read, and CPUs from which on a server
#: computes for somebody now and then, by so many seconds at least.
READINGS, STEADY, LONG = 4, 0.05, 1.5

#: From this version on Ollama keeps the prompts that it has read in the memory of the host.
KEEPING = (0, 33)

#: Bytes of prompts that a runner keeps, unless it was started with another limit.
MOST_KEPT = 8 << 30

#: Bytes of swap that are worth a word.
SWAPPED = 64 << 20

#: Shares of the memory: below the one a measurement ends, and below the other where pages come in
#: from swap as well.
SCARCE, SWAPPING = 0.05, 0.1

#: Pages that come in from swap on a host with enough memory as well.
FEW_PAGES = 256

#: Values of a server's variables that keep every GPU from it.
HIDING = {
    "CUDA_VISIBLE_DEVICES": ("", "-1"),
    "NVIDIA_VISIBLE_DEVICES": ("", "void", "none"),
}

_PATIENT = re.compile(
    r"(?:^INTERRUPT_REQUESTS=|^arguments:.* --interrupt_requests[= ])(?:false|off|no|f|n|0)(?: |$)",
    re.IGNORECASE,
)

_GIB = 1 << 30


def list_refusals(spec: BenchmarkSpec, state: BenchmarkState) -> tuple[Refusal, ...]:
    """Why nothing is to be measured now, each with the consent that would allow it.

    :param spec: what is desired.
    :param state: the host and its server.
    """
    return (
        *_find_busy(spec, state),
        *_find_other_models(spec, state),
        *_find_short_memory(spec, state),
    )


def find_shortage(conditions: Conditions) -> str:
    """Why a measurement ends before its host runs out of memory; empty where it goes on.

    :param conditions: of the last repeat.
    """
    if kills := conditions.oom_kills:
        return f"the kernel killed {kills} {'process' if kills == 1 else 'processes'} for memory"
    available, swapped = conditions.available, conditions.swapped or 0
    if available is None:
        return ""
    if available < SCARCE:
        return f"{available:.1%} of the host's memory are left"
    if available < SWAPPING and swapped > FEW_PAGES:
        return (
            f"the host swaps: {swapped} pages came in, and {available:.1%} of its memory are left"
        )
    return ""


def find_narrow_context(spec: BenchmarkSpec, context: int) -> Refusal | None:
    """A model's context that has no room for a request; ``None`` where it has, or is not known.

    A server drops what is beyond it, of the prompt or while it answers: another thing is measured.

    :param spec: what is desired.
    :param context: tokens that it has; 0 where that is not known.
    """
    needed = spec.profile.prompt_tokens + spec.profile.output_tokens
    if not context or needed <= context or spec.target == "queue":
        return None
    return Refusal(
        subject=spec.server,
        reason=f"the model's context has {context} tokens, and a request of the profile needs "
        f"{needed}: {spec.profile.prompt_tokens} of the prompt and "
        f"{spec.profile.output_tokens} of the answer",
        remedy=f"give the server a context of {needed} tokens at least (OLLAMA_CONTEXT_LENGTH, "
        "--ctx-size), or ask for fewer prompt_tokens or output_tokens in the profile",
    )


def _find_busy(spec: BenchmarkSpec, state: BenchmarkState) -> Iterator[Refusal]:
    """What the server does for others would be slowed, and would slow what is measured."""
    if "busy" in spec.allow:
        return
    if reason := explain_busy(spec, state):
        yield Refusal(
            subject=spec.server,
            reason=f"{reason}; a measurement would slow that",
            remedy=allow("busy"),
        )


def explain_unrest(server: Server | None) -> str:
    """Why a server may be answering somebody, by what its host sees of it; empty where it is idle.

    :param server: as the host sees it; ``None`` where it runs elsewhere.
    """
    if server is None or server.connections is None:
        return "this host cannot see who is connected to it"
    if number := server.connections:
        return f"{number} {'connection' if number == 1 else 'connections'} of others to it last"
    if server.usage is not None and is_computing(server.usage):
        return f"it used {server.usage.used:.2f} s of CPU time within {server.usage.during:.2f} s"
    return ""


def can_interrupt(server: Server | None) -> bool:
    """Whether llama-cpp-python ends an answer for the next request: unless it is set not to.

    :param server: as the host sees it; ``None`` where it runs elsewhere.
    """
    settings = server.settings if server is not None else ()
    return not any(_PATIENT.search(setting) for setting in settings)


def explain_busy(spec: BenchmarkSpec, state: BenchmarkState) -> str:
    """What a server computes for others, or has to; empty where it does nothing.

    :param spec: which server it is.
    :param state: the host and its server.
    """
    return _explain_queue(state) or _explain_usage(spec, state)


def _explain_queue(state: BenchmarkState) -> str:
    queue = state.answers.queue
    if queue is None or not queue.waiting + queue.running:
        return ""
    delayed = f" ({queue.delayed} put off after a failed attempt)" if queue.delayed else ""
    return f"the queue is not empty: {queue.waiting} waiting{delayed}, {queue.running} running"


def is_computing(usage: Usage) -> bool:
    """Whether a server computes for somebody, on a host that may have no time for it.

    :param usage: what it used of the CPU.
    """
    used, during = usage.used, usage.during
    starved = used > STARVED * during and used + usage.waited > DEMAND * during
    now_and_then = during >= LONG and used > STEADY * during
    return used > COMPUTING * during or starved or now_and_then


def has_to_be_watched(spec: BenchmarkSpec, state: BenchmarkState) -> bool:
    """Whether a server's use of the CPU alone says for how long nobody has asked it.

    :param spec: what is desired.
    :param state: the host and its server, once that was asked.
    """
    answers = state.answers
    counts = answers.is_active is not None or answers.requests is not None
    if spec.target == "queue" or "busy" in spec.allow or counts or answers.reason:
        return False
    return any(server.usage is not None for server in state.machine.servers)


def add_readings(readings: Sequence[Machine]) -> Machine:
    """The last of several readings of a host, with what its servers used during all of them.

    :param readings: one at least; of a server that is in fewer of them only those count.
    """
    last = readings[-1]
    servers = []
    for server in last.servers:
        usages = [
            row.usage
            for reading in readings
            for row in reading.servers
            if (row.container, row.process) == (server.container, server.process)
            and row.usage is not None
        ]
        total = Usage(
            used=sum(usage.used for usage in usages),
            waited=sum(usage.waited for usage in usages),
            during=sum(usage.during for usage in usages),
        )
        servers.append(server.model_copy(update={"usage": total if usages else None}))
    return last.model_copy(update={"servers": tuple(servers)})


def _explain_usage(spec: BenchmarkSpec, state: BenchmarkState) -> str:
    """What a server computes that no queue knows of; its own word is better than its use of CPU."""
    if spec.target == "queue":
        return ""
    requests = state.answers.requests
    if requests:
        return f"it has {requests} requests of others"
    for server in state.machine.servers if requests is None else ():
        if server.usage is not None and is_computing(server.usage):
            used, during = server.usage.used, server.usage.during
            named = f"{server.name or 'it'} is computing"
            return f"{named}: it used {used:.2f} s of CPU time within {during:.2f} s"
    if state.answers.is_active:
        return f"it answered requests of others within {INTERVAL:g} s"
    return ""


def _find_other_models(spec: BenchmarkSpec, state: BenchmarkState) -> Iterator[Refusal]:
    """Another model in memory is somebody's, and may have to make place."""
    model = find_model(spec, state.answers)
    if "model" in spec.allow or model is None:
        return
    others = [row.name for row in state.answers.loaded or () if row.name != model.name]
    if others:
        yield Refusal(
            subject=spec.server,
            reason=f"another model is loaded: {', '.join(others)}; the server may unload it",
            remedy=allow("model"),
        )


def _find_short_memory(spec: BenchmarkSpec, state: BenchmarkState) -> Iterator[Refusal]:
    """A host that would swap, or end a process for memory, is not measured."""
    model = find_model(spec, state.answers)
    machine = state.machine
    if "memory" in spec.allow or model is None or not machine.servers or not machine.available:
        return
    loaded = find_loaded(state.answers, model.name)
    needed = 0 if loaded is not None else find_need(state, model)
    if _can_use_gpu(state) and sum(gpu.free or 0 for gpu in machine.gpus) >= needed:
        needed = 0
    kept = find_kept(spec, state)
    free = machine.available
    if limit := machine.servers[0].memory_limit:
        free = min(free, limit - _count_resident(state.answers.loaded or ()))
    if needed + kept <= free:
        return
    reasons = []
    if needed:
        reasons.append(f"{model.name} needs about {_format(needed)} to be loaded")
    if kept:
        reasons.append(f"its server keeps up to {_format(kept)} of the prompts of a measurement")
    swap = f"; {_format(machine.swap)} of swap are in use" if machine.swap >= SWAPPED else ""
    less = "; or start the server with LLAMA_ARG_CACHE_RAM=0" if kept else ""
    yield Refusal(
        subject=spec.server,
        reason=f"memory may run short: {', '.join(reasons)}, and {_format(max(0, free))} are free"
        f"{swap}",
        remedy=allow("memory") + less,
    )


def find_need(state: BenchmarkState, model: Served) -> int:
    """Bytes that a model needs to be loaded: its weights, its context, and buffers.

    :param state: the host and its server.
    :param model: the model.
    """
    shape = state.answers.shape
    if shape is None or not model.size:
        return int(model.size * (1 + OVERHEAD))
    return int(model.size * (1 + BUFFERS)) + _find_context(state).count_bytes(shape)


def find_kept(spec: BenchmarkSpec, state: BenchmarkState) -> int:
    """Bytes of the host's memory that a server fills with the prompts of a measurement.

    0 where it keeps none, or where that cannot be computed: then the host is watched meanwhile.

    :param spec: what is desired.
    :param state: the host and its server.
    """
    shape = state.answers.shape
    if state.answers.engine != "ollama" or shape is None:
        return 0
    if _parse_version(state.answers.version) < KEEPING:
        return 0
    text = _read_settings(state).get("LLAMA_ARG_CACHE_RAM", "")
    limit = MOST_KEPT
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        limit = int(text) << 20
    profile = spec.profile
    levels = (0,) if profile.rate is not None else profile.concurrency
    warmups = sum(map(profile.count_warmups, levels))
    prompts = profile.samples + warmups
    tokens = profile.prompt_tokens + profile.output_tokens
    kept = prompts * shape.count_bytes(tokens, 1, _find_context(state).bytes_each)
    # A limit below zero is none.
    return min(kept, limit) if limit >= 0 else kept


def _find_context(state: BenchmarkState) -> Context:
    return find_context(_read_settings(state).get)


def _read_settings(state: BenchmarkState) -> dict[str, str]:
    servers = state.machine.servers
    lines = servers[0].settings if servers else ()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _can_use_gpu(state: BenchmarkState) -> bool:
    """Whether a server may put a model on a GPU of its host, as far as that shows.

    One that has a model in memory and nothing of it on a GPU has none, or is not to use it.
    """
    loaded = state.answers.loaded or ()
    settings = _read_settings(state)
    hidden = any(settings.get(name) in values for name, values in HIDING.items())
    return not hidden and (not loaded or any(row.vram for row in loaded))


def _count_resident(loaded: Sequence[Loaded]) -> int:
    """Bytes of the memory that the loaded models have by now."""
    return sum(max(0, row.size - row.vram) for row in loaded)


def _parse_version(text: str) -> tuple[int, ...]:
    match = re.match(r"([0-9]{1,6})\.([0-9]{1,6})", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def allow(consent: str) -> str:
    """The remedy that is a consent.

    :param consent: the word for ``allow``.
    """
    return f'to allow it, add "{consent}" to allow in the stack\'s section worker.benchmark'


def _format(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
