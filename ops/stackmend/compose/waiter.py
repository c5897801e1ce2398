"""Wait for a stack to become healthy and to stay so. Nothing here changes a host."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

#: Seconds between two looks at containers that are coming up, over a connection that is held open.
PAUSE = 0.2

#: Seconds between two rounds of checks.
CHECK_PAUSE = 0.5


@dataclass(frozen=True)
class Waiter:
    """What waits for one project on one host."""

    observer: Observer

    def wait_until_stable(
        self,
        declared: Declared,
        before: StackState,
        *,
        touched: bool,
        unhealthy_timeout: float | None = None,
    ) -> StackState:
        """Wait until all services are up and healthy, and have stayed so for a while.

        :param before: what was read before anything was done; a healthcheck that could not run
            then may do so now.
        :param touched: whether anything was done to them; otherwise they have stayed so before.
        :param unhealthy_timeout: seconds for which a service may be unhealthy without a break,
            where a stronger remedy is left to try; otherwise it has all of ``health_timeout``.
        :raises StepError: they do not become healthy, or do not stay so.
        """
        stability = self.observer.spec.stability if touched else 0
        return self._wait(declared.services, before, stability, unhealthy_timeout)

    def wait_until_healthy(
        self, declared: Declared, before: StackState, names: Collection[str]
    ) -> None:
        """Wait until these services are up and healthy.

        :param before: what was read before anything was done.
        :raises StepError: they do not become healthy.
        """
        self._wait({name: declared.services[name] for name in names}, before, 0, None)

    def wait_for_checks(self) -> tuple[CheckResult, ...]:
        """The checks' results, each waited for until its deadline."""
        started = time.monotonic()
        while True:
            results = self.observer.read_checks()
            failing = {result.name for result in results if result.outcome == "failed"}
            elapsed = time.monotonic() - started
            checks = self.observer.spec.checks
            if not any(check.name in failing and elapsed < check.deadline for check in checks):
                return results
            time.sleep(CHECK_PAUSE)

    def _wait(
        self,
        services: Mapping[str, Mapping[str, Any]],
        before: StackState,
        stability: float,
        unhealthy_timeout: float | None,
    ) -> StackState:
        observer, since = self.observer, find_moment(before)
        deadline = time.monotonic() + observer.spec.health_timeout
        later = observer.read_state()
        while True:
            with connection.docker(observer.host, readonly=True) as client:
                state = self._wait_for_health(
                    client, services, later, since, deadline, unhealthy_timeout
                )
            if stability:
                time.sleep(stability)
            later = observer.read_state()
            if not stability:
                return later
            problems = find_unstable(state, later) or classify(services, later, since).failed
            if problems:
                raise StepError("; ".join(problems), observer.read_logs(services, later))
            containers = (each for name in services for each in later.list_containers(name))
            if not any(each.running and explain_unrunnable(each) for each in containers):
                return later
            since = find_moment(later)

    def _wait_for_health(
        self,
        client: Any,
        services: Mapping[str, Mapping[str, Any]],
        state: StackState,
        since: float,
        deadline: float,
        unhealthy_timeout: float | None,
    ) -> StackState:
        observer, timeout = self.observer, self.observer.spec.health_timeout
        starts: dict[str, float] = {}
        while True:
            now = time.monotonic()
            unhealthy = [each for each in state.containers if each.health == "unhealthy"]
            starts = {each.id: starts.get(each.id, now) for each in unhealthy}
            lasted = {id_: now - start for id_, start in starts.items()}
            health = classify(services, state, since, lasted)
            waiting = "; ".join(health.waiting)
            problem = "; ".join(health.failed)
            # Of a healthcheck that cannot run no remedy is left to try.
            longest = max(
                (lasted[each.id] for each in unhealthy if not explain_unrunnable(each)), default=0
            )
            if not problem and unhealthy_timeout is not None and longest > unhealthy_timeout:
                problem = waiting
            if not problem and waiting and now > deadline:
                problem = f"not healthy after {timeout:g} s: {waiting}"
            if problem:
                raise StepError(problem, observer.read_logs(services, state))
            if not waiting:
                return state
            time.sleep(PAUSE)
            state = observer.watch(client, state)
