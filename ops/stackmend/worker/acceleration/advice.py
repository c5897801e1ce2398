"""What keeps a server without an accelerator from computing as fast as its host can. Pure."""

import math
from collections.abc import Iterator

from stackmend.decision import Finding
from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.acceleration.state import WorkerAcceleration
from stackmend.worker.context import find_context

_GIB = 1 << 30
_MIB = 1 << 20

#: Bytes of the server's own in swap from which on it matters.
_SWAPPED = 64 * _MIB

#: Which share of the memory a model's files may take until its context is asked for.
_SCARCE = 0.4

#: Which share of its periods a server may be held back in.
_THROTTLED = 0.05

#: Drivers whose ``powersave`` raises the clock under load.
_DYNAMIC = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")


def assess_cpu(policy: AccelerationPolicy, state: WorkerAcceleration) -> Iterator[Finding]:
    """What a server could do better on the CPU; only what ends in the OOM killer blocks.

    :param policy: whose server it is.
    :param state: what it computes with.
    """
    for finding in (
        _assess_threads(policy, state),
        _assess_memory(policy, state),
        _assess_swap(policy, state),
        _assess_governor(policy, state),
        _assess_instructions(policy, state),
    ):
        if finding is not None:
            yield finding


def find_threads(state: WorkerAcceleration) -> int:
    """How many threads the server says that it computes with; 0 where it does not.

    Of a server with several models it is that of the last that was loaded.

    :param state: what the server computes with.
    """
    named = next((load.threads for load in reversed(state.log.loads) if load.threads), 0)
    return named or _find_setting(state)


def _find_setting(state: WorkerAcceleration) -> int:
    """How many threads somebody has the server compute with; 0 where nobody says."""
    value = state.find_setting("LLAMA_ARG_THREADS", "N_THREADS", "OLLAMA_NUM_THREAD")
    command = state.container.threads if state.container else 0
    return command or (int(value[:4]) if value.isdecimal() else 0)


def _assess_threads(policy: AccelerationPolicy, state: WorkerAcceleration) -> Finding | None:
    cores, container, usage = state.cpu.cores, state.container, state.usage
    if not cores:
        return None
    quota = container.quota if container else 0.0
    if container and container.cpuset:
        cores = min(cores, container.cpuset)
    best = max(1, min(cores, math.floor(quota) if quota else cores))
    threads = find_threads(state)
    default = state.cpu.performance or state.cpu.cores
    number = threads or min(cores, default)
    # Ollama's log has the number also where nobody set it.
    is_chosen = bool(_find_setting(state)) or threads not in (0, default, max(1, math.floor(quota)))
    names = f"{number} thread{'s' if number > 1 else ''}" + (
        "" if threads else ", one for each core, by default"
    )
    throttled = usage.throttled / usage.periods if usage.periods else 0.0
    evidence = [f"{state.cpu.cores} physical cores, {state.cpu.processors} processors"]
    if default < state.cpu.cores:
        evidence.append(f"{default} of the cores are performance cores")
    if quota:
        evidence.append(f"its quota is {quota:g} CPUs")
    if throttled > _THROTTLED:
        evidence.append(f"it was held back in {throttled:.0%} of the periods of its quota")
    remedy = (
        f"have it compute with {best} threads: PARAMETER num_thread {best} in the Modelfile, or "
        f"LLAMA_ARG_THREADS={best}"
    )
    if quota and number > math.ceil(quota):
        cause = f"the server computes with {names}, and its quota lets {quota:g} run at a time"
        remedy += f"; or raise the quota (cpus) of the service to {cores}"
        kind = "more threads than quota"
    elif threads > cores:
        cause = f"the server computes with {names} on {cores} cores: they wait for one another"
        kind = "more threads than cores"
    elif is_chosen and threads * 2 <= min(best, default):
        cause = f"the server computes with {names}, and {best} cores may be used"
        kind = "few threads"
    else:
        return None
    return Finding(
        subject=policy.service,
        kind=kind,
        cause=cause,
        evidence=tuple(evidence),
        remedy=remedy,
        blocks=False,
    )


def is_memory_scarce(state: WorkerAcceleration) -> bool:
    """Whether the files of the largest model take so much that its context decides.

    :param state: what the server computes with.
    """
    has, largest = _find_memory(state), state.largest
    return largest is not None and 0 < _SCARCE * has < largest.size


def _find_memory(state: WorkerAcceleration) -> int:
    """Bytes that the server may have; 0 where that is not known."""
    limit = state.container.memory if state.container else 0
    return min(filter(None, (limit, state.memory.total)), default=0)


def find_need(state: WorkerAcceleration) -> tuple[int, str]:
    """Bytes of memory that the models need, and what they are.

    Of loaded models the server says it. Otherwise it is that of the largest that it has, with the
    context of all requests at one time where its shape is known.

    :param state: what the server computes with.
    """
    loaded = sum(model.size - min(model.size, model.size_vram) for model in state.loaded)
    largest = state.largest
    if loaded or largest is None:
        return loaded, "the loaded models need"
    if state.shape is None:
        return largest.size, f"the files of {largest.name} alone have"
    context = find_context(state.find_setting)
    needs = context.count_bytes(state.shape)
    tokens = min(context.tokens, state.shape.trained or context.tokens)
    of = f"{needs / _GIB:.1f} GiB of that for {context.parallel} times {tokens} tokens of context"
    return largest.size + needs, f"{largest.name} needs, {of},"


def _assess_memory(policy: AccelerationPolicy, state: WorkerAcceleration) -> Finding | None:
    container, has = state.container, _find_memory(state)
    needs, what = find_need(state)
    if not has or needs <= has:
        return None
    is_limit = container is not None and container.memory == has
    whose = "the container's limit is" if is_limit else "the host has"
    evidence = [
        f"{model.name}: {model.size / _GIB:.1f} GiB with a context of {model.context} tokens"
        for model in state.loaded
    ]
    names = ("OLLAMA_CONTEXT_LENGTH", "OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS")
    pairs = ((name, state.find_setting(name)) for name in names)
    evidence += [f"{name}={value}" for name, value in pairs if value]
    return Finding(
        subject=policy.service,
        kind="too little memory",
        cause=f"{what} {needs / _GIB:.1f} GiB, and {whose} {has / _GIB:.1f} GiB: weights are read "
        "from the disk again for each token, or the kernel ends the server",
        evidence=tuple(evidence),
        remedy="take a smaller model or a stronger quantization; a context takes memory once for "
        "each parallel request, so lower num_ctx or OLLAMA_NUM_PARALLEL"
        + (", or raise the memory limit of the service" if is_limit else ""),
        blocks=bool(state.loaded),
    )


def _assess_swap(policy: AccelerationPolicy, state: WorkerAcceleration) -> Finding | None:
    swapped_in = state.memory.swapped_in
    pages = swapped_in[-1] - swapped_in[0] if swapped_in else 0
    own = state.usage.swapped
    if own < _SWAPPED:
        return None
    evidence = [f"{own / _GIB:.2f} GiB of the server's processes are in swap"]
    if pages > 0:
        evidence.append(f"{pages} pages came in from swap while the host was read")
    return Finding(
        subject=policy.service,
        kind="swapping",
        cause="a part of the server is in swap, from where each answer reads it again",
        evidence=tuple(evidence),
        remedy="take a smaller model or a smaller context, stop what else takes the host's memory, "
        "or give it more; then restart the server",
        blocks=False,
    )


def _assess_governor(policy: AccelerationPolicy, state: WorkerAcceleration) -> Finding | None:
    slow = [text for text in state.cpu.governors if _is_slow(text)]
    if not slow:
        return None
    return Finding(
        subject=policy.service,
        kind="clock held low",
        cause="the host holds its CPU's clock low to save energy",
        evidence=tuple(f"governor, driver, preference: {text}" for text in slow),
        remedy="set the governor performance: cpupower frequency-set -g performance",
        blocks=False,
    )


def _is_slow(text: str) -> bool:
    governor, _, remainder = text.partition(" ")
    driver, _, preference = remainder.partition(" ")
    if governor not in ("powersave", "conservative"):
        return False
    return driver not in _DYNAMIC or preference.strip() in ("power", "balance_power")


def _assess_instructions(policy: AccelerationPolicy, state: WorkerAcceleration) -> Finding | None:
    flags = state.cpu.flags
    if state.cpu.architecture != "x86_64" or flags is None or "avx2" in flags:
        return None
    return Finding(
        subject=policy.service,
        kind="no AVX2",
        cause="the CPU, or what a hypervisor shows of it, has no AVX2, by which models compute "
        "several times faster",
        evidence=(f"{state.cpu.model or 'CPU'}: {', '.join(flags) or 'none of AVX'}",),
        remedy="in a virtual machine, have the hypervisor pass the host's CPU (cpu type host)",
        blocks=False,
    )
