"""When nothing is measured, because somebody or something would be disturbed. Pure."""

from collections.abc import Iterator

from stackmend.decision import Refusal
from stackmend.worker.benchmark.fingerprint import find_loaded, find_model
from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import BenchmarkState

#: What a model needs beyond its weights, as a share of them: context and buffers.
OVERHEAD = 0.2


def list_refusals(spec: BenchmarkSpec, state: BenchmarkState) -> tuple[Refusal, ...]:
    """Why nothing is to be measured now, each with the consent that would allow it.

    :param spec: what is desired.
    :param state: the host and its server.
    """
    return (*_find_other_models(spec, state), *_find_short_memory(spec, state))


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
            remedy=_allow("model"),
        )


def _find_short_memory(spec: BenchmarkSpec, state: BenchmarkState) -> Iterator[Refusal]:
    """A host that would swap, or end a process for memory, is not measured."""
    model = find_model(spec, state.answers)
    machine = state.machine
    if "memory" in spec.allow or model is None or not machine.servers:
        return
    if not model.size or find_loaded(state.answers, model.name) is not None:
        return
    needed = int(model.size * (1 + OVERHEAD))
    if sum(gpu.free or 0 for gpu in machine.gpus) >= needed:
        return
    free = machine.available
    if limit := machine.servers[0].memory_limit:
        free = min(free, limit)
    if machine.available and needed > free:
        yield Refusal(
            subject=spec.server,
            reason=(
                f"memory may run short: {model.name} needs about {_format(needed)} to be loaded, "
                f"and {_format(free)} are free"
            ),
            remedy=_allow("memory"),
        )


def _allow(consent: str) -> str:
    return f'to allow it, add "{consent}" to allow in the stack\'s section worker.benchmark'


def _format(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
