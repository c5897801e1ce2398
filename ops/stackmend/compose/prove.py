"""Wait for a stack to be well, and say why it is not. Nothing here changes a host."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stackmend import connection
from stackmend.checks.state import CheckResult
from stackmend.compose import commands, drift
from stackmend.compose.facts import watched
from stackmend.compose.look import Reader
from stackmend.compose.plan import Finding, Plan, expected, judge, recorded, unstable
from stackmend.compose.state import Applied, Container, Declared, Image, StackState
from stackmend.errors import StepError

#: Seconds between two looks at a stack that is coming up.
PAUSE = 0.5

#: Lines of a failing container's log that are shown.
LOG_LINES = 20


@dataclass
class Prover(Reader):
    """One project on one host, to be proven well."""

    _image_labels: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def _left(
        self,
        declared: Declared,
        before: Applied | None,
        state: StackState,
        checks: Sequence[CheckResult],
    ) -> Plan:
        """What would still be to do if what runs now were remembered as it should be."""
        then = self._then(before, declared, state)
        images = {one.image: Image(id=one.image_id) for one in state.containers}
        proven = state.model_copy(update={"applied": then, "files": self.source.digests})
        known = recorded(then, proven).model_copy(update={"images": {**declared.images, **images}})
        return self._plan(proven, known, checks, frozenset(self.tried))

    def _then(self, before: Applied | None, declared: Declared, state: StackState) -> Applied:
        """The record that this run leaves, if it ends well."""
        source = self.source
        then = expected(
            before, self.spec, source.digests, source.digest, declared, state, self.touched
        )
        return then.model_copy(update={"names_files": source.names_files})

    def _unproven(self, left: Plan, state: StackState) -> StepError:
        wrong = [f"{finding.subject}: {finding.cause}" for finding in left.problems]
        reasons = [refusal.reason for refusal in left.refusals]
        text = "; ".join(wrong or reasons)
        seen = [line for finding in left.problems for line in finding.evidence]
        log = [*seen, *self._evidence(left.problems, state)]
        return StepError(f"not proven well: {text}", log)

    def _settle(
        self, declared: Declared, only: set[str] | None = None, patience: float | None = None
    ) -> StackState:
        """Wait until the services are up and healthy, and have stayed so for a while.

        ``patience`` is how many seconds a service may be unhealthy without a break, where a
        stronger remedy is left to try; otherwise it has all of ``health_timeout``.
        """
        services = {
            name: body for name, body in declared.services.items() if only is None or name in only
        }
        state = self._state()
        with connection.docker(self.host, readonly=True) as client:
            state = self._await_health(client, services, state, patience)
            if only is None and self.touched and self.spec.stability:
                time.sleep(self.spec.stability)
                later = self._watch(client, state)
                problems = unstable(state, later) or judge(services, later).failed
                if problems:
                    raise StepError("; ".join(problems), self._logs(services, later))
        return self._state()

    def _await_health(
        self,
        client: Any,
        services: Mapping[str, Mapping[str, Any]],
        state: StackState,
        patience: float | None,
    ) -> StackState:
        deadline = time.monotonic() + self.spec.health_timeout
        since: dict[str, float] = {}
        while True:
            verdict = judge(services, state)
            now = time.monotonic()
            sick = {one.id for one in state.containers if one.health == "unhealthy"}
            since = {id_: since.get(id_, now) for id_ in sick}
            if patience is not None and any(now - then > patience for then in since.values()):
                raise StepError("; ".join(verdict.waiting), self._logs(services, state))
            if verdict.failed:
                raise StepError("; ".join(verdict.failed), self._logs(services, state))
            if not verdict.waiting:
                return state
            if now > deadline:
                raise StepError(
                    f"not well after {self.spec.health_timeout:g} s: {'; '.join(verdict.waiting)}",
                    self._logs(services, state),
                )
            time.sleep(PAUSE)
            state = self._watch(client, state)

    def _watch(self, client: Any, state: StackState) -> StackState:
        """The containers as they are now, over a connection that is held open while waiting."""
        label = f"com.docker.compose.project={self.spec.project}"
        inspected = connection.inspected(client, label)
        new = {shown["Image"] for shown in inspected} - self._image_labels.keys()
        self._image_labels |= connection.image_labels(client, new)
        later = watched(state, inspected, self.spec.project, self._image_labels)
        return self._how_it_ended(self._own(later))

    def _await_checks(self) -> tuple[CheckResult, ...]:
        """The checks' results, each waited for until its deadline."""
        started = time.monotonic()
        while True:
            results = self._check_results()
            failing = {result.name for result in results if result.outcome == "failed"}
            left = [check for check in self.spec.checks if check.name in failing]
            if not any(time.monotonic() - started < check.deadline for check in left):
                return results
            time.sleep(PAUSE)

    def _evidence(self, wrong: Sequence[Finding], state: StackState) -> list[str]:
        names = {finding.subject for finding in wrong}
        for check in self.spec.checks:
            if check.name in names:
                names.update(check.services())
        return self._logs(sorted(names), state, well=True)

    def _logs(
        self, services: Collection[str], state: StackState, *, well: bool = False
    ) -> list[str]:
        """The last lines of the services that are not well."""
        lines: list[str] = []
        for name in services:
            for one in state.service(name):
                if well or not _well(one):
                    lines += self._log(one)
        return lines

    def _log(self, container: Container) -> list[str]:
        result = connection.run(
            self.host,
            commands.logs(container.id, LOG_LINES),
            readonly=True,
            secret=True,
            timeout=20,
        )
        said = [drift.masked(line, self.secrets) for line in result.text.splitlines()]
        return [f"{container.name} | {line}" for line in said[-LOG_LINES:]]


def _well(container: Container) -> bool:
    if container.status == "exited":
        return container.exit_code == 0
    if container.health is None:
        return container.running and not container.restart_count
    return container.running and container.health == "healthy"
