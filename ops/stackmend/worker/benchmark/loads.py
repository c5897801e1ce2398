"""The loads of a profile: how many requests each has, and how long one may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackmend.worker.benchmark.state import Load

if TYPE_CHECKING:
    from stackmend.worker.benchmark.spec import Profile

#: How often the time that requests take one after another a request may take, and seconds beyond
#: which none may.
WAITING, LONGEST = 3, 7200.0


def list_loads(profile: Profile) -> tuple[Load, ...]:
    """The loads of a profile.

    :param profile: how a server is asked.
    """
    if profile.rate is not None:
        return (Load(rate=profile.rate),)
    return tuple(Load(concurrency=number) for number in profile.concurrency)


def find_timeout(profile: Profile, load: Load, cold: float) -> float:
    """Seconds that one request may take: those of the profile, or more where it names none.

    :param profile: how a server is asked.
    :param load: at which load.
    :param cold: seconds that one answer takes; 0 where that is not known.
    """
    if "timeout" in profile.model_fields_set:
        return profile.timeout
    return min(LONGEST, max(profile.timeout, WAITING * max(1, load.concurrency) * cold))


def count_all_requests(profile: Profile, *cold: float) -> int:
    """Requests of a measurement, its warm-ups included.

    :param profile: how a server is asked.
    :param cold: seconds that one answer takes, for each server that is measured; one of which
        nothing is known where none is named.
    """
    return sum(
        profile.count_warmups(load.concurrency)
        + profile.repeats * profile.count_requests(load.concurrency, each)
        for load in list_loads(profile)
        for each in cold or (0.0,)
    )
