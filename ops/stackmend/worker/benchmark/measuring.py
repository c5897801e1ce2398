"""Measuring a model server: warm-ups and repeats at each load.

>>> prepared = prepare(host, endpoint, profile)
>>> levels = measure(host, endpoint, profile, prepared=prepared)
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from typing import Protocol as Interface

from stackmend import connection
from stackmend.errors import StepError
from stackmend.reporting import announce
from stackmend.text import format_limit
from stackmend.worker.benchmark.contact import get_soon, measure_round_trips
from stackmend.worker.benchmark.definitions import find_remedy
from stackmend.worker.benchmark.learning import TooSlow, prepare
from stackmend.worker.benchmark.loading import release
from stackmend.worker.benchmark.loads import count_all_requests, find_timeout, list_loads
from stackmend.worker.benchmark.sending import Asking, Run, open_clients
from stackmend.worker.benchmark.spec import BUDGET
from stackmend.worker.benchmark.state import Conditions, Level, Load, Repeat, Sample
from stackmend.worker.benchmark.steadiness import Watch, find_client_noise, find_lag

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import HTTPClient
    from stackmend.worker.benchmark.conditions import ReadConditions
    from stackmend.worker.benchmark.endpoint import Endpoint
    from stackmend.worker.benchmark.progress import OnProgress
    from stackmend.worker.benchmark.spec import Profile

#: How many times the output of fewer requests a level has to have, before more of them may help.
FLAT = 1.05


class Ready(Interface):
    """What is known of a server that can be measured."""

    @property
    def rtt(self) -> float:
        """Seconds of one round trip to it."""

    @property
    def load(self) -> float | None:
        """Seconds that it took to load the model."""

    @property
    def probe(self) -> str:
        """The path of a request that it answers at once."""

    @property
    def serial(self) -> bool:
        """Whether requests at one time would end one another."""

    @property
    def cold(self) -> float:
        """Seconds that one answer takes; 0 where that is not known."""

    @property
    def verified(self) -> bool:
        """Whether its counts of tokens were verified."""

    def make_task(self, profile: Profile) -> Asking:
        """What is asked again and again.

        :param profile: how it is asked.
        """


def measure(
    host: Host,
    endpoint: Endpoint,
    profile: Profile,
    read_conditions: ReadConditions | None = None,
    on_progress: OnProgress = lambda *_: None,
    *,
    prepared: Ready | None = None,
) -> tuple[Level, ...]:
    """Measure a server at every load of a profile.

    :param host: the host that reaches it.
    :param endpoint: the server.
    :param profile: how it is asked.
    :param read_conditions: reads what the host does meanwhile.
    :param on_progress: called after each request.
    :param prepared: of ``learning.prepare``, if that was done.
    :raises StepError: it cannot be measured: no request of a repeat counts.
    """
    own = prepare(host, endpoint, profile) if prepared is None else None
    known: Ready | None = prepared or own
    assert known is not None, "one of them"
    try:
        (levels,) = measure_in_turns(
            host, [(endpoint, known)], profile, read_conditions, on_progress, (0,)
        )
    finally:
        if own is not None:
            release(host, endpoint, own.protocol)
    return levels


def measure_in_turns(
    host: Host,
    servers: Sequence[tuple[Endpoint, Ready]],
    profile: Profile,
    read_conditions: ReadConditions | None,
    on_progress: OnProgress,
    order: Sequence[int],
) -> list[tuple[Level, ...]]:
    """The levels of each server, whose repeats come in an order that is begun again and again.

    :param host: the host that reaches all of them.
    :param servers: each with what is known of it.
    :param profile: how they are asked.
    :param read_conditions: reads what the host does meanwhile.
    :param on_progress: called after each request.
    :param order: numbers of servers, in which they take turns.
    :raises TooSlow: one of them ends no request of its first repeat in time.
    :raises StepError: one of them cannot be measured.
    """
    profile = _limit_profile(host, servers, profile)
    total = count_all_requests(profile, *(prepared.cold for _, prepared in servers))
    _announce(host, servers, profile)
    levels: list[list[Level]] = [[] for _ in servers]
    progress = _Progress(total, on_progress)
    spent = time.monotonic()
    for load in list_loads(profile):
        benches = [
            _Bench(host, endpoint, prepared, profile, load, progress)
            for endpoint, prepared in servers
        ]
        repeats: list[list[Repeat]] = [[] for _ in servers]
        failure = ""
        for bench in benches:
            bench.run_warmups()
        for number in _list_turns(order, profile.repeats, len(servers)):
            taken = len(repeats[number]) + 1
            progress.doing = f"{load}, repeat {taken} of {profile.repeats}"
            repeats[number].append(benches[number].run_repeat(read_conditions))
            if failure := benches[number].explain_failure(repeats[number][-1]):
                break
        if failure and not levels[0]:
            samples = repeats[number][-1].samples
            remedy = _find_remedy(samples)
            if all(sample.invalid == "timeout" for sample in samples):
                raise TooSlow(servers[number][0], failure, remedy)
            raise StepError(f"cannot measure {failure}; {remedy}")
        for number, taken_repeats in enumerate(repeats):
            if taken_repeats:
                noisy = failure or find_client_noise(load, taken_repeats)
                level = Level(load=load, repeats=tuple(taken_repeats), noisy=noisy)
                levels[number].append(level)
        if failure:
            announce.show_line(host, f"measuring no further: {failure}")
            break
        late = time.monotonic() - spent > BUDGET
        if late and load != list_loads(profile)[-1] and all(map(is_flat, levels)):
            announce.show_line(
                host, f"measuring no further: at {load} the server does no more than at fewer"
            )
            break
    return [tuple(own) for own in levels]


def is_flat(levels: Sequence[Level]) -> bool:
    """Whether the last level has hardly more output than one before: nor will further ones.

    :param levels: so far.
    """
    speeds = [
        statistics.median(
            sum(sample.output_tokens or 1 for sample in repeat.valid) / repeat.wall
            for repeat in level.repeats
        )
        for level in levels
    ]
    return len(speeds) > 1 and speeds[-1] < FLAT * max(speeds[:-1])


def _announce(host: Host, servers: Sequence[tuple[Endpoint, Ready]], profile: Profile) -> None:
    """Say how long it takes at most, where that is long."""
    seconds = sum(
        prepared.cold * count_all_requests(profile, prepared.cold) for _, prepared in servers
    )
    if seconds > BUDGET and profile.rate is None:
        slowest = max(prepared.cold for _, prepared in servers)
        announce.show_line(
            host,
            f"one answer takes {slowest:.0f} s: measuring takes up to {format_limit(seconds)}, and "
            "less where requests at one time are answered at one time",
        )


def _limit_profile(
    host: Host, servers: Sequence[tuple[Endpoint, Ready]], profile: Profile
) -> Profile:
    """The profile with what its servers can do of that which nobody asked for."""
    serial = [endpoint for endpoint, prepared in servers if prepared.serial]
    if serial and profile.rate is None and "concurrency" not in profile.model_fields_set:
        announce.show_line(
            host,
            f"{serial[0]} answers one request at a time, and another one ends that: measuring at "
            "concurrency 1",
        )
        profile = profile.model_copy(update={"concurrency": (1,)})
    return profile


def _list_turns(order: Sequence[int], repeats: int, servers: int) -> Iterator[int]:
    """Whose turn it is, until each has had as many."""
    for number in range(repeats * servers):
        yield order[number % len(order)]


class _Progress:
    """Counts requests."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self.doing = ""
        self._total = total
        self._done = 0
        self._on_progress = on_progress

    def count(self, _: Sample) -> None:
        self._done += 1
        self._on_progress(min(self._done, self._total), self._total, self.doing)


class _Bench:
    """One server at one load."""

    def __init__(
        self,
        host: Host,
        endpoint: Endpoint,
        prepared: Ready,
        profile: Profile,
        load: Load,
        progress: _Progress,
    ) -> None:
        self._host = host
        self._endpoint = endpoint
        self._prepared = prepared
        self._profile = profile
        self._load = load
        self._progress = progress
        self._timeout = find_timeout(profile, load, prepared.cold)
        self._task = prepared.make_task(profile.model_copy(update={"timeout": self._timeout}))
        self._gave_up = False

    def run_warmups(self) -> None:
        """Requests that are not counted, as many at one time as there will be."""
        warmups = self._profile.count_warmups(self._load.concurrency)
        if not warmups:
            return
        self._progress.doing = f"{self._load}, warm-up"
        with self._open_connected(warmups) as clients:
            run = Run(clients, self._task, self._progress.count)
            run.run_closed(warmups)

    def run_repeat(self, read_conditions: ReadConditions | None) -> Repeat:
        """One run of requests, with the host's conditions meanwhile."""
        requests = self._profile.count_requests(self._load.concurrency, self._prepared.cold)
        with self._open_connected(requests) as clients:
            # It changes, and one of an hour ago is taken out of no time of now.
            rtt = None
            with suppress(StepError):
                rtt = measure_round_trips(clients[0], self._endpoint, self._prepared.probe)
            read_again = read_conditions() if read_conditions else Conditions
            run = Run(clients, self._task, self._progress.count)
            rate = self._load.rate
            with Watch() as watch:
                if self._load.concurrency:
                    wall, samples = run.run_closed(requests)
                else:
                    wall, samples = run.run_open(requests, rate, seed=requests)
            own = {"client": watch.share, "lag": find_lag(run.lags) if run.lags else watch.lag}
            self._gave_up = run.gave_up
            return Repeat(
                wall=wall,
                samples=samples,
                conditions=read_again().model_copy(update=own),
                rtt=rtt,
                window=requests / rate if rate else None,
            )

    def explain_failure(self, repeat: Repeat) -> str:
        """Why no further repeat is worth its time, beginning with the server; empty if one is."""
        count, total = len(repeat.samples) - len(repeat.valid), len(repeat.samples)
        if repeat.valid and not self._gave_up:
            return ""
        failed = f"{count} of {total} requests at {self._load} do not count"
        if not repeat.valid:
            failed = f"none of {total} requests at {self._load} counts"
        return f"{self._endpoint}: {failed}: {_format_reasons(repeat.samples)}"

    @contextmanager
    def _open_connected(self, requests: int) -> Iterator[list[HTTPClient]]:
        """Clients that are connected: what connecting takes is no part of a request."""
        timeout = self._timeout
        with open_clients(self._host, self._endpoint, self._load, requests, timeout) as clients:
            for client in clients:
                with suppress(connection.HTTPError):
                    get_soon(client, self._prepared.probe)
            yield clients


def _find_remedy(samples: Sequence[Sample]) -> str:
    """What is to be done for the most frequent of the reasons for which samples do not count."""
    found = Counter((sample.invalid, sample.reason) for sample in samples if sample.invalid)
    (invalid, reason), _ = found.most_common(1)[0]
    return find_remedy(invalid, reason)


def _format_reasons(samples: Sequence[Sample]) -> str:
    """Why samples do not count, the most frequent reasons first."""
    reasons = Counter(sample.reason for sample in samples if sample.invalid)
    return "; ".join(reason for reason, _ in reasons.most_common(2))
