"""Two servers measured at one time, in turns, and asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stackmend.worker.benchmark.learning import prepare
from stackmend.worker.benchmark.loading import release
from stackmend.worker.benchmark.measuring import measure_in_turns

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.worker.benchmark.conditions import ReadConditions
    from stackmend.worker.benchmark.endpoint import Endpoint
    from stackmend.worker.benchmark.learning import Prepared
    from stackmend.worker.benchmark.progress import OnProgress
    from stackmend.worker.benchmark.spec import Profile
    from stackmend.worker.benchmark.state import Level

#: The order in which two servers are measured: neither has the better half of the time.
ORDER = (0, 1, 1, 0)


def measure_interleaved(
    host: Host,
    old: Endpoint,
    new: Endpoint,
    profile: Profile,
    read_conditions: ReadConditions | None = None,
    on_progress: OnProgress = lambda *_: None,
    *,
    prepared: tuple[Prepared, Prepared] | None = None,
) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
    """Measure two servers at one time, so that neither has the quieter half of it: A B B A.

    Only one of them is asked at a time, and both by prompts of as many words: those that make up
    the profile's length where the old one counts them, or else where the new one does.

    :param host: the host that reaches both.
    :param old: one server.
    :param new: the other.
    :param profile: how they are asked.
    :param read_conditions: reads what the host does meanwhile.
    :param on_progress: called after each request.
    :param prepared: of :func:`prepare`, if that was done for both.
    :returns: the levels of the one, and those of the other.
    :raises StepError: one of them cannot be measured.
    """
    own = prepared is None
    servers = list(zip((old, new), prepared or (), strict=False))
    try:
        if own:
            for endpoint in (old, new):
                servers.append((endpoint, prepare(host, endpoint, profile)))
        alike = _match_words([each for _, each in servers])
        same = list(zip((old, new), alike, strict=True))
        before, after = measure_in_turns(host, same, profile, read_conditions, on_progress, ORDER)
    finally:
        if own:
            for endpoint, each in servers:
                release(host, endpoint, each.protocol)
    return before, after


def _match_words(servers: Sequence[Prepared]) -> list[Prepared]:
    """Servers that are asked by prompts of as many words."""
    words = next((each.words for each in servers if each.prompt_tokens), servers[0].words)
    return [
        replace(
            each,
            words=words,
            prompt_tokens=each.prompt_tokens and round(each.prompt_tokens * words / each.words),
        )
        for each in servers
    ]
