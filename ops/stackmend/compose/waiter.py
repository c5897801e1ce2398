"""Wait for a stack to become healthy and to stay so. Nothing here changes a host."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stackmend import connection
from stackmend.compose.plan.health import classify, find_unstable
from stackmend.errors import StepError

if TYPE_CHECKING:
    from stackmend.checks.state import CheckResult
    from stackmend.compose.observer import Observer
    from stackmend.compose.state import Declared, StackState

T = TypeVar("T")

#: Seconds between two looks at containers that are coming up, over a connection that is held open.
PAUSE = 0.2

#: Seconds between two rounds of checks.
CHECK_PAUSE = 0.5


@dataclass(frozen=True)
class Waiter:
    """What waits for one project on one host."""

    observer: Observer

    def wait_until_stable(
        self, declared: Declared, *, touched: bool, unhealthy_timeout: float | None = None
    ) -> StackState:
        """Wait until all services are up and healthy, and have stayed so for a while.

        :param touched: whether anything was done to them; otherwise they have stayed so before.
        :param unhealthy_timeout: seconds for which a service may be unhealthy without a break,
            where a stronger remedy is left to try; otherwise it has all of ``health_timeout``.
        :raises StepError: they do not become healthy, or do not stay so.
        """
        stability = self.observer.spec.stability if touched else 0
        return self._wait(declared.services, stability, unhealthy_timeout)

    def wait_until_healthy(self, declared: Declared, names: Collection[str]) -> None:
        """Wait until these services are up and healthy.

        :raises StepError: they do not become healthy.
        """
        self._wait({name: declared.services[name] for name in names}, 0, None)

    def wait_for_checks(self) -> tuple[CheckResult, ...]:
        """The checks' results, each waited for until its deadline."""

        def is_waiting(results: tuple[CheckResult, ...], elapsed: float) -> bool:
            failing = {result.name for result in results if result.outcome == "failed"}
            checks = self.observer.spec.checks
            return any(check.name in failing and elapsed < check.deadline for check in checks)

        return self.wait_while(is_waiting, self.observer.read_checks)

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
        stability: float,
        unhealthy_timeout: float | None,
    ) -> StackState:
        observer = self.observer
        state = observer.read_state()
        with connection.docker(observer.host, readonly=True) as client:
            state = self._wait_for_health(client, services, state, unhealthy_timeout)
        if stability:
            time.sleep(stability)
        later = observer.read_state()
        if stability:
            problems = find_unstable(state, later) or classify(services, later).failed
            if problems:
                raise StepError("; ".join(problems), observer.read_logs(services, later))
        return later

    def _wait_for_health(
        self,
        client: Any,
        services: Mapping[str, Mapping[str, Any]],
        state: StackState,
        unhealthy_timeout: float | None,
    ) -> StackState:
        observer, timeout = self.observer, self.observer.spec.health_timeout
        deadline = time.monotonic() + timeout
        since: dict[str, float] = {}
        while True:
            health = classify(services, state)
            now = time.monotonic()
            unhealthy = {
                container.id for container in state.containers if container.health == "unhealthy"
            }
            since = {id_: since.get(id_, now) for id_ in unhealthy}
            waiting = "; ".join(health.waiting)
            problem = "; ".join(health.failed)
            longest = max((now - start for start in since.values()), default=0)
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
