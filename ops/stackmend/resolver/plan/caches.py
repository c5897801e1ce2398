"""Which DNS caches hold what is true no more. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar, Literal

from stackmend import decision
from stackmend.decision import Finding, Refusal
from stackmend.resolver.spec import CachesSpec
from stackmend.resolver.state import Cache, CacheName, HostCaches, Reply

#: Codes of answers that say what is true: addresses, or that there is no such name.
_SURE = (0, 3)


class Flush(decision.Action):
    """Drop what a cache holds.

    :param cache: which.
    """

    lasts: ClassVar[bool] = False

    verb: Literal["flush"] = "flush"
    undo: str = "nothing is lost: it asks its servers again"
    cache: CacheName


class CachesPlan(decision.Plan[Flush]):
    """What was found, what will be done, and what will not."""


def plan_caches(
    spec: CachesSpec, state: HostCaches, flushed: Collection[CacheName] = ()
) -> CachesPlan:
    """Which caches are to be flushed, those next to the servers first.

    :param spec: what is desired.
    :param state: the caches of the host.
    :param flushed: those that this run has flushed: where an answer differs still, the cache is
        not its cause.
    """
    if not state.root:
        refusal = Refusal(
            subject="host",
            reason="neither root nor allowed to become root",
            remedy="set _sudo = True in the host's data, or log in as root",
        )
        return CachesPlan(refusals=(refusal,))
    findings, actions = [], []
    for cache in state.caches:
        stale = find_stale(cache)
        if cache.name in flushed:
            if stale:
                findings.append(_find_unmended(cache, stale))
        elif stale:
            actions.append(Flush(subject=cache.name, cause="; ".join(stale), cache=cache.name))
        elif spec.when == "always" and cache.size != 0:
            held = "it may hold entries" if cache.size is None else f"it holds {cache.size} entries"
            actions.append(Flush(subject=cache.name, cause=held, cache=cache.name))
        elif spec.when == "symptom" and not _list_compared(cache):
            findings.extend(_find_incomparable(cache))
    return CachesPlan(findings=tuple(findings), actions=tuple(actions))


def find_stale(cache: Cache) -> list[str]:
    """What a cache says otherwise than the servers behind it, in words.

    :param cache: the cache.

    Names that have many addresses in turn differ with every question: only an answer none of whose
    addresses the servers give, or none at all where they give some, is stale.
    """
    return [
        f"{name}: it says {_describe(reply)}, the servers behind it {_describe_all(raw)}"
        for name, reply in cache.cached.items()
        if (raw := cache.raw.get(name)) and _is_stale(reply, raw)
    ]


def _list_compared(cache: Cache) -> list[str]:
    return [
        name
        for name, reply in cache.cached.items()
        if reply.code in _SURE and any(raw.code in _SURE for raw in cache.raw.get(name, ()))
    ]


def _is_answered(cache: Cache, name: str) -> bool:
    """Whether a cache itself says what is true of a name, as far as it knows."""
    reply = cache.cached.get(name)
    if reply is None or reply.code not in _SURE:
        return False
    # What is looked up in nscd says "no such name" also where no server answers.
    return bool(reply.addresses) or cache.name != "nscd"


def _find_incomparable(cache: Cache) -> Iterator[Finding]:
    """Why nothing that a cache holds could be compared; in the way where that is a fault."""
    if cache.name in ("macos", "windows") or not cache.names:
        return
    names = ", ".join(cache.names)
    servers = ", ".join(cache.upstream)
    codes = {reply.code for replies in cache.raw.values() for reply in replies}
    blocks = True
    if not cache.upstream:
        # One that asks the root servers itself has none.
        cause, blocks = "its settings name no server that it could be compared with", False
        remedy = 'set "flush": "always" to flush it in any case, or "never" to leave it alone'
    elif codes & set(_SURE):
        cause = "the servers behind it answer, and it does not"
        remedy = f"see what {cache.name} logs, and whether it listens at its usual address"
        # It may serve others, elsewhere: what the host resolves is looked at by itself.
        blocks = False
    else:
        answering = "answer with an error" if codes else "do not answer"
        cause = f"the servers behind it {answering}: {servers}"
        # It may ask them over TLS alone, or another way: names resolve.
        blocks = not all(_is_answered(cache, name) for name in cache.names)
        remedy = 'mend these servers, or have the host ask others: stack["resolver"]["servers"]'
    yield Finding(
        subject=cache.name,
        kind="not compared",
        cause=f"whether it holds what is true no more cannot be told: {cause}",
        evidence=(f"asked for {names}",),
        remedy=remedy,
        blocks=blocks,
    )


def _is_stale(cached: Reply, raw: tuple[Reply, ...]) -> bool:
    # A server that fails says nothing of what is true.
    sure = [reply for reply in raw if reply.code in _SURE]
    if not sure or cached.code not in _SURE:
        return False
    true = {address for reply in sure for address in reply.addresses}
    if not cached.addresses or not true:
        return bool(cached.addresses) != bool(true)
    return not true & set(cached.addresses)


def _find_unmended(cache: Cache, stale: list[str]) -> Finding:
    return Finding(
        subject=cache.name,
        kind="answers differ",
        cause="it was flushed, and answers otherwise than its servers still",
        evidence=tuple(stale),
        remedy="look at the host's own entries for these names (hosts files, local zones)",
        blocks=False,
    )


def _describe(reply: Reply) -> str:
    return ", ".join(reply.addresses[:4]) or "there is no such name"


def _describe_all(raw: tuple[Reply, ...]) -> str:
    addresses = dict.fromkeys(address for reply in raw for address in reply.addresses)
    return ", ".join(list(addresses)[:4]) or "that there is no such name"
