"""Models that a server loads again and again, and who makes it do so. Pure."""

from collections.abc import Iterator, Sequence
from typing import Literal

from stackmend.decision import Finding
from stackmend.frozen import Frozen
from stackmend.worker.acceleration.serverlog import is_model_call, parse_duration
from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.acceleration.state import Call, Client, Load, WorkerAcceleration

#: Why a model that had been loaded was loaded again. ``context``: it was asked for with another
#: one; ``evicted``: another model took its place; ``unloaded``: it left before the server's own
#: time for it was over, as ``keep_alive: 0`` has it, or it was asked for with other options;
#: ``crashed``: its process ended by itself.
Cause = Literal["context", "evicted", "unloaded", "crashed"]

#: Seconds that a model stays where the server's environment does not say.
KEEP_ALIVE = 300.0

#: Seconds for which a model should stay, whatever the server's environment says.
LEAST = 60.0

#: Seconds within which the policy counts.
WINDOW = 600.0

#: Models that a server keeps at one time by default, without an accelerator and with one.
_KEPT_BY_DEFAULT = 3

#: Seconds by which the times of lines that belong together may differ.
_SLACK = 1.0

_KINDS = {
    "context": "reloaded for its context",
    "evicted": "reloaded after an eviction",
    "unloaded": "reloaded after an unload",
    "crashed": "reloaded after a crash",
}


class Reload(Frozen):
    """A load that would not have been necessary.

    :param at: when it began, in seconds since 1970.
    :param context: tokens that it was loaded with; 0 where that is not known.
    :param seconds: that it took.
    :param client: the address of who asked for it; empty where the log does not say.
    :param starved: whether the server evicted for want of memory.
    """

    cause: Cause
    model: str
    at: float = 0.0
    context: int = 0
    seconds: float = 0.0
    client: str = ""
    starved: bool = False


def find_reloads(state: WorkerAcceleration) -> tuple[Reload, ...]:
    """The loads in a server's log that would not have been necessary, oldest first.

    The first load of a model, one after a start of the server, and one after the time for which a
    model stays are necessary.

    :param state: what the server computes with.
    """
    return tuple(_classify_loads(state))


def assess_reloads(policy: AccelerationPolicy, state: WorkerAcceleration) -> Iterator[Finding]:
    """One finding for each cause of more avoidable loads than the policy lets be.

    :param policy: how many are no finding.
    :param state: what the server computes with.
    """
    reloads = find_reloads(state)
    asked = sum(1 for call in state.log.calls if is_model_call(call))
    causes: tuple[Cause, ...] = ("context", "evicted", "unloaded", "crashed")
    for cause in causes:
        found = [reload for reload in reloads if reload.cause == cause]
        if _count_most([reload.at for reload in found]) > policy.maximum_reloads:
            yield _describe(policy, state, cause, found, asked)
        elif cause == "context" and (changes := _find_changes(state)):
            yield _describe_changes(policy, changes)


def _count_most(times: Sequence[float]) -> int:
    """How many of these times lie within one window, at most."""
    return max(
        (sum(1 for at in times if start <= at < start + WINDOW) for start in times), default=0
    )


def _classify_loads(state: WorkerAcceleration) -> Iterator[Reload]:
    log = state.log
    keep = _find_keep_alive(state)
    last: dict[str, Load] = {}
    previous_at = 0.0
    for load in log.loads:
        if load.seconds is None:
            # One that failed is tried again.
            continue
        marks = [mark for mark in log.marks if previous_at < mark.at <= load.at + _SLACK]
        if any(mark.kind == "started" for mark in marks):
            last.clear()
        before = last.get(load.model)
        if before is not None:
            since = [mark.kind for mark in log.marks if before.at < mark.at <= load.at + _SLACK]
            cause = _classify(state, before, load, since, keep)
            if cause is not None:
                yield Reload(
                    cause=cause,
                    model=load.model,
                    at=load.at,
                    context=load.context,
                    seconds=load.seconds,
                    client=_find_client(log.calls, load),
                    starved="evicting" in since,
                )
        last[load.model] = load
        previous_at = load.at


def _classify(
    state: WorkerAcceleration, before: Load, load: Load, marks: Sequence[str], keep: float
) -> Cause | None:
    if load.at - _find_latest_use(state, before, load) >= keep - _SLACK:
        # Its time was over, whoever asked for what then.
        return None
    if "crashed" in marks:
        return "crashed"
    # A context that the server itself makes smaller is no client's.
    is_automatic = before.is_reduced or load.is_reduced
    if not is_automatic and before.context and load.context and before.context != load.context:
        return "context"
    loads = state.log.loads
    between = any(before.at < other.at < load.at for other in loads if other.model != load.model)
    if between and "evicting" in marks:
        return "evicted"
    if load.at - _find_last_use(state, before) >= keep - _SLACK:
        # Its time was over, or may have been.
        return None
    return "evicted" if between and not _has_room(state) else "unloaded"


def _has_room(state: WorkerAcceleration) -> bool:
    """Whether the server can keep all models at one time that it loaded."""
    number = len({load.model for load in state.log.loads})
    value = state.find_setting("OLLAMA_MAX_LOADED_MODELS")
    most = int(value[:4]) if value.isdecimal() and int(value[:4]) else 0
    if number > (most or _KEPT_BY_DEFAULT * max(1, len(state.smi.gpus))):
        return False
    memory = sum(gpu.memory for gpu in state.smi.gpus) or state.memory.total
    sizes = sorted((model.size for model in state.stored), reverse=True)
    return not memory or sum(sizes[:number]) <= memory


def _find_latest_use(state: WorkerAcceleration, before: Load, load: Load) -> float:
    """When a model may have been used last before it was loaded again.

    Requests do not name their models, so that each one in between may have been for it.
    """
    call = _find_call(state.log.calls, load)
    ends = (
        other.at
        for other in state.log.calls
        if other is not call and is_model_call(other) and before.at <= other.at <= load.at
    )
    return max((_find_last_use(state, before), *ends))


def _find_last_use(state: WorkerAcceleration, load: Load) -> float:
    """When the request ended that a model was loaded for; requests of later do not name theirs."""
    call = _find_call(state.log.calls, load)
    return call.at if call else load.at + (load.seconds or 0.0)


def _find_call(calls: Sequence[Call], load: Load) -> Call | None:
    """The request that a model was loaded for: of those that waited then, the last to come."""
    waiting = (
        call
        for call in calls
        if is_model_call(call) and call.at - call.seconds - _SLACK <= load.at <= call.at
    )
    return max(waiting, key=lambda call: call.at - call.seconds, default=None)


def _find_client(calls: Sequence[Call], load: Load) -> str:
    call = _find_call(calls, load)
    return call.client if call else ""


def _find_keep_alive(state: WorkerAcceleration) -> float:
    value = state.find_setting("OLLAMA_KEEP_ALIVE")
    if not value:
        return KEEP_ALIVE
    if value.startswith("-"):
        return float("inf")
    # A shorter time loads it again at every request as well.
    return max(LEAST, float(value[:9]) if value.isdecimal() else parse_duration(value))


def _find_changes(state: WorkerAcceleration) -> dict[str, list[int]]:
    """The contexts of models whose context changed from one sample to the next."""
    contexts: dict[str, list[int]] = {}
    for sample in state.samples:
        for model in sample:
            of = contexts.setdefault(model.name, [])
            if model.context and of[-1:] != [model.context]:
                of.append(model.context)
    return {name: of for name, of in contexts.items() if len(of) > 1}


def _describe_changes(policy: AccelerationPolicy, changes: dict[str, list[int]]) -> Finding:
    return Finding(
        subject=policy.service,
        kind=_KINDS["context"],
        cause="a model's context changed within seconds: clients ask for it with different ones",
        evidence=tuple(
            f"{name}: {', then '.join(map(str, of))} tokens" for name, of in changes.items()
        ),
        remedy=_find_remedy("context", starved=False),
        blocks=False,
    )


def _describe(
    policy: AccelerationPolicy,
    state: WorkerAcceleration,
    cause: Cause,
    found: Sequence[Reload],
    asked: int,
) -> Finding:
    seconds = sum(reload.seconds for reload in found)
    minutes = float(policy.minutes)
    if state.log.since is not None:
        # The log has more lines than are read.
        minutes = min(minutes, max(1.0, (state.now - state.log.since) / 60))
    times = f"{len(found)} times in {minutes:.0f} min"
    rate = f", at {asked} requests" if asked else ""
    reasons = {
        "context": "clients ask for it with different contexts",
        "evicted": "another model takes its place each time",
        "unloaded": "it leaves memory within a minute, or before the server's own time for it is "
        "over: keep_alive is 0 or short, or a client asks with other options than the others",
        "crashed": "its process ends by itself",
    }
    starved = any(reload.starved for reload in found)
    return Finding(
        subject=policy.service,
        kind=_KINDS[cause],
        cause=f"a model was loaded again {times}{rate}, {seconds:.0f} s in all: {reasons[cause]}",
        evidence=tuple(_list_evidence(state, found)),
        remedy=_find_remedy(cause, starved=starved),
        blocks=False,
    )


def _find_remedy(cause: Cause, *, starved: bool) -> str:
    if cause == "context":
        return (
            "set the same num_ctx in every client, or leave it out there and set "
            "OLLAMA_CONTEXT_LENGTH in the server's environment"
        )
    if cause == "evicted":
        if starved:
            return (
                "give the server more memory, or take smaller models, a smaller num_ctx or a "
                "smaller OLLAMA_NUM_PARALLEL, so that all models fit at one time"
            )
        return (
            "raise OLLAMA_MAX_LOADED_MODELS in the server's environment, where memory has room for "
            "all models, or lower num_ctx and OLLAMA_NUM_PARALLEL, by which each takes more"
        )
    if cause == "unloaded":
        return (
            "remove keep_alive from the clients' requests and set OLLAMA_KEEP_ALIVE to 5m or more "
            "in the server's environment; give all clients the same num_gpu, num_batch and "
            "num_thread"
        )
    return "read the server's log before each crash; a model that does not fit into memory ends so"


def _list_evidence(state: WorkerAcceleration, found: Sequence[Reload]) -> Iterator[str]:
    """Who asked for what, and what of the clients' environment says so."""
    counts: dict[tuple[str, str, int], int] = {}
    for reload in found:
        key = (reload.client, reload.model, reload.context)
        counts[key] = counts.get(key, 0) + 1
    by_address = {address: client for client in state.clients for address in client.addresses}
    settings: dict[str, None] = {}
    for (address, model, context), count in sorted(counts.items(), key=lambda pair: -pair[1]):
        who = _format_client(state, by_address.get(address), address)
        tokens = f" with a context of {context} tokens" if context else ""
        yield f"{who} asked for {_format_model(state, model)}{tokens}: {count} of the loads"
        if client := by_address.get(address):
            for name, value in client.settings:
                settings[f"{client.service} has {name}={value}"] = None
    for name in ("OLLAMA_KEEP_ALIVE", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_NUM_PARALLEL"):
        if value := state.find_setting(name):
            settings[f"the server has {name}={value}"] = None
    yield from settings


def _format_client(state: WorkerAcceleration, client: Client | None, address: str) -> str:
    if client:
        return f"{client.service} ({address})"
    if not address:
        return "a client that the log does not name"
    if address in ("127.0.0.1", "::1"):
        return "a program beside the server (127.0.0.1)"
    if address in state.gateways:
        return f"the host, or somebody through a published port ({address})"
    return f"the client {address}"


def _format_model(state: WorkerAcceleration, model: str) -> str:
    """A model by its name where that is clear, else by the beginning of its file's."""
    if len(state.stored) == 1:
        return state.stored[0].name
    return model[:19] or "a model"
