"""Wait for a stack to become healthy and to stay so. Nothing here changes a host."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stackmend import connection
from stackmend.compose.plan.health import (
    classify,
    explain_unrunnable,
    find_moment,
    find_unstable,
)
from stackmend.errors import StepError

if TYPE_CHECKING:
    from stackmend.checks.state import CheckResult
    from stackmend.compose.observer import Observer
    from stackmend.compose.state import Declared, StackState

T = TypeVar("T")

#: Seconds between two looks at containers that are coming up, over a connection that is held open.
PAUSE = 0.1

#: Seconds between two rounds of checks.
CHECK_PAUSE = 0.5


@dataclass(frozen=True)
class Waiter:
    """What waits for one project on one host."""

    observer: Observer

    def wait_until_proven(
        self,
        declared: Declared,
        before: StackState,
        *,
        touched: bool,
        unhealthy_timeout: float | None = None,
    ) -> tuple[StackState, tuple[CheckResult, ...]]:
        """Wait until all is healthy and has stayed so for a while, and then for the checks.

        :param before: what was read before anything was done.
        :param touched: whether anything was done to services; otherwise they have stayed so before.
        :param unhealthy_timeout: seconds for which a service may be unhealthy without a break,
            where a stronger remedy is left to try; otherwise it has all of ``health_timeout``.
        :returns: what the host has then, and what each check found.
        :raises StepError: they do not become healthy, or do not stay so.
        """
        read = self.observer.read_proof
        state, checks = self._wait(declared.services, before, touched, unhealthy_timeout, read)
        return state, self._wait_for_checks(checks)

    def wait_until_stable(
        self, declared: Declared, before: StackState, *, touched: bool
    ) -> StackState:
        """The same without the checks."""
        read = self.observer.read_state
        return self._wait(declared.services, before, touched, None, lambda: (read(), ()))[0]

    def wait_until_healthy(
        self, declared: Declared, before: StackState, names: Collection[str]
    ) -> None:
        """Wait until these services are up and healthy.

        :param before: what was read before anything was done.
        :raises StepError: they do not become healthy.
        """
        services = {name: declared.services[name] for name in names}
        self._wait_for_health(services, before, find_moment(before), self._find_deadline(), None)

    def _wait_for_checks(self, results: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
        """The checks' results, each waited for until its deadline."""
        started = time.monotonic()
        while True:
            failing = {result.name for result in results if result.outcome == "failed"}
            elapsed = time.monotonic() - started
            checks = self.observer.spec.checks
            if not any(check.name in failing and elapsed < check.deadline for check in checks):
                return results
            time.sleep(CHECK_PAUSE)
            results = self.observer.read_checks()

    def wait_while(self, is_waiting: Callable[[T, float], bool], read: Callable[[], T]) -> T:
        """What is read, again and again until it is worth no wait.

        :param is_waiting: asked with what was read, and the seconds since the first reading.
        """
        started = time.monotonic()
        while is_waiting(found := read(), time.monotonic() - started):
            time.sleep(CHECK_PAUSE)
        return found

    def _wait(
        self,
        services: Mapping[str, Mapping[str, Any]],
        before: StackState,
        touched: bool,
        unhealthy_timeout: float | None,
        read: Callable[[], tuple[StackState, tuple[CheckResult, ...]]],
    ) -> tuple[StackState, tuple[CheckResult, ...]]:
        stability = self.observer.spec.stability if touched else 0
        deadline, state = self._find_deadline(), before
        while True:
            # Whose healthcheck could not run in a reading may be healthy in the next.
            since = find_moment(state)
            state = self._wait_for_health(services, state, since, deadline, unhealthy_timeout)
            if stability:
                time.sleep(stability)
            later, checks = read()
            if not stability:
                return later, checks
            problems = (
                find_unstable(state, later, services) or classify(services, later, since).failed
            )
            if problems:
                raise StepError("; ".join(problems), self.observer.read_logs(services, later))
            unknown = [
                f"{name}: its healthcheck cannot run: {found.reason}"
                for name in services
                for each in later.list_containers(name)
                if each.running and (found := explain_unrunnable(each))
            ]
            if not unknown:
                return later, checks
            # One that runs now and then, and not when it counts, would be waited for for ever.
            if time.monotonic() > deadline:
                timeout = self.observer.spec.health_timeout
                raise StepError(f"not healthy after {timeout:g} s: {'; '.join(unknown)}")
            state = later

    def _find_deadline(self) -> float:
        return time.monotonic() + self.observer.spec.health_timeout

    def _wait_for_health(
        self,
        services: Mapping[str, Mapping[str, Any]],
        state: StackState,
        since: float,
        deadline: float,
        unhealthy_timeout: float | None,
    ) -> StackState:
        observer, timeout = self.observer, self.observer.spec.health_timeout
        starts: dict[str, float] = {}
        with connection.docker(observer.host, readonly=True) as client:
            while True:
                state = observer.watch(client, state)
                now = time.monotonic()
                unhealthy = [each for each in state.containers if each.health == "unhealthy"]
                starts = {each.id: starts.get(each.id, now) for each in unhealthy}
                lasted = {id_: now - start for id_, start in starts.items()}
                health = classify(services, state, since, lasted)
                waiting = "; ".join(health.waiting)
                problem = "; ".join(health.failed)
                # Where a healthcheck cannot run no remedy is left to try.
                failing = (lasted[each.id] for each in unhealthy if not explain_unrunnable(each))
                longest = max(failing, default=0)
                if not problem and unhealthy_timeout is not None and longest > unhealthy_timeout:
                    problem = waiting
                if not problem and waiting and now > deadline:
                    problem = f"not healthy after {timeout:g} s: {waiting}"
                if problem:
                    raise StepError(problem, observer.read_logs(services, state))
                if not waiting:
                    return state
                time.sleep(PAUSE)
