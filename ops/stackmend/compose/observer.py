"""Read what a host has of one project. Nothing here changes a host."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackmend import connection, reporting
from stackmend.checks.facts import CheckResults, find_limit
from stackmend.checks.spec import MAXIMUM_CHECKS, Check
from stackmend.checks.state import CheckResult
from stackmend.compose import commands, drift
from stackmend.compose.closure import find_closure
from stackmend.compose.facts import (
    ComposeStack,
    EngineHung,
    NoCompose,
    parse_declared,
    parse_surroundings,
    update_containers,
)
from stackmend.compose.layer import mark_kept
from stackmend.compose.listening import Listeners, Listening
from stackmend.compose.plan.decide import list_hop_checks
from stackmend.compose.plan.declaration import list_mounts, list_required_mounts
from stackmend.compose.plan.foreign import sort_out
from stackmend.compose.plan.health import (
    LOOP_RESTARTS,
    LOOP_SECONDS,
    is_looping,
    is_young,
)
from stackmend.compose.plan.path import list_containers
from stackmend.compose.source import Source
from stackmend.compose.state import Container, Declared, StackState, Surroundings
from stackmend.errors import StepError
from stackmend.paths import is_plain
from stackmend.redaction import SECRET_NAME

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.compose.spec import ComposeSpec

#: What a script exits with where the engine hangs.
HUNG = 124

#: Lines of a failing container's log that are shown.
LOG_LINES = 20

#: Seconds that one reading of logs has, and one of how containers ended, however many they are.
LOG_TIMEOUT = 20.0

#: Seconds that one reading of a project has for both.
OUTPUT_LIMIT = 2 * LOG_TIMEOUT

#: What :func:`~stackmend.compose.commands.read_ends` prints of an end: a container's labels are
#: beside.
ENDED = re.compile(r'^die "([0-9]{1,3})"$', re.M)
OUT_OF_MEMORY = re.compile(r"^oom\b", re.M)


def find_link_limit(checks: Sequence[Check], attempts: int) -> float:
    """Seconds after which a reading of links has ended, and of what listens where they fail.

    :param checks: those that prove them.
    :param attempts: how often one that fails is tried.
    """
    asked = sum(find_limit(part, attempts) for part in _split(checks))
    return asked + connection.PROBE_TIMEOUT


def _split(checks: Sequence[Check]) -> list[Sequence[Check]]:
    """Checks, as many in each part as one probe can hold."""
    return [checks[at : at + MAXIMUM_CHECKS] for at in range(0, len(checks), MAXIMUM_CHECKS)]


@dataclass
class Observer:
    """What reads one project on one host.

    :param hidden: values that declarations call secret.
    :param kept: the services whose containers stay as they are.
    :ivar _clock: the host's time when it was read last, and this process's then.
    """

    host: Host
    spec: ComposeSpec
    source: Source
    hidden: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    _config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _clock: tuple[float, float] = field(default=(0.0, 0.0), repr=False)
    _image_labels: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def list_facts(self) -> list[tuple[type, dict[str, object]]]:
        """The facts that a plan rests on, with their arguments."""
        facts = [self._make_state_fact()]
        if self.spec.checks:
            facts.append((CheckResults, self._make_check_arguments()))
        return facts

    def _make_check_arguments(self) -> dict[str, object]:
        return {"project": self.spec.project, "checks": self.spec.checks}

    def _make_state_fact(self) -> tuple[type, dict[str, object]]:
        arguments = {"project": self.spec.project, "directory": self.spec.directory}
        return ComposeStack, dict(arguments)

    def read_state(self) -> StackState:
        """What the host has now.

        :raises StepError: it cannot be read.
        """
        return self._read([self._make_state_fact()])[0]

    def read_proof(self) -> tuple[StackState, tuple[CheckResult, ...]]:
        """What the host has now, and the results of the checks after it, each asked once.

        :raises StepError: the state cannot be read.
        """
        facts = [self._make_state_fact()]
        if self.spec.checks:
            facts.append((CheckResults, {**self._make_check_arguments(), "attempts": 1}))
        state, checked = self._read(facts)
        return state, self.collect_results(checked)

    def _read(self, facts: list[tuple[type, dict[str, object]]]) -> tuple[StackState, list[object]]:
        state, *others = connection.fetch_facts(self.host, facts)
        if isinstance(state, connection.Unknown):
            raise StepError(f"cannot read the host's state: {state.reason}")
        assert isinstance(state, StackState)
        self._clock = state.now, time.monotonic()
        return self._add_logs(self._add_ends(self.sort_out(state))), others

    def complete(self, state: StackState) -> StackState:
        """A state that was read, sorted into own and foreign containers, with how they ended."""
        self._clock = state.now, time.monotonic()
        state = self.sort_out(state)
        if any(container.restart_count >= LOOP_RESTARTS for container in state.containers):
            state = self._add_ends(state)
        state = self._add_logs(state)
        if state.applied:
            self._hide(state.applied.config, state.applied.secrets)
        return state

    def watch(self, client: Any, state: StackState) -> StackState:
        """The containers as they are now, over a connection that is held open while waiting."""
        label = f"com.docker.compose.project={self.spec.project}"
        inspected = connection.list_inspected(client, label)
        unknown = {raw["Image"] for raw in inspected} - self._image_labels.keys()
        self._image_labels |= connection.list_image_labels(client, unknown)
        later = update_containers(state, inspected, self.spec.project, self._image_labels)
        now, read_at = self._clock
        later = later.model_copy(update={"now": now + time.monotonic() - read_at})
        return self._add_ends(self.sort_out(later))

    def read_checks(self) -> tuple[CheckResult, ...]:
        """The results of the checks now, each asked once."""
        if not self.spec.checks:
            return ()
        # Whoever waits for them asks again by itself.
        arguments = {**self._make_check_arguments(), "attempts": 1}
        return self.collect_results(connection.fetch_facts(self.host, [(CheckResults, arguments)]))

    def read_hops(
        self, state: StackState, declared: Declared, checks: Sequence[CheckResult]
    ) -> tuple[CheckResult, ...]:
        """What the calls between services find on the path of the checks that fail."""
        hops = list_hop_checks(self.spec, state, declared, checks)
        if not hops:
            return ()
        arguments = self._make_call_arguments(hops, state, 1)
        (results,) = connection.fetch_facts(self.host, [(CheckResults, arguments)])
        return results if isinstance(results, tuple) else ()

    def read_links(
        self, checks: Sequence[Check], state: StackState, attempts: int
    ) -> dict[str, CheckResult]:
        """What links are found to be, by the checks' names; all are asked over one channel."""
        parts = _split(checks)
        arguments = [self._make_call_arguments(part, state, attempts) for part in parts]
        found = connection.fetch_facts(self.host, [(CheckResults, each) for each in arguments])
        return {
            result.name: result
            for part, fact in zip(parts, found, strict=True)
            for result in self.collect_results([fact], part)
        }

    def _make_call_arguments(
        self, checks: Sequence[Check], state: StackState, attempts: int
    ) -> dict[str, object]:
        """What has checks between services made, in containers that were read just now."""
        return {
            "project": self.spec.project,
            "checks": checks,
            "attempts": attempts,
            "containers": list_containers(state),
        }

    def read_listeners(self, state: StackState) -> Listeners:
        """What listens in the project's containers and on the host, as far as it can be read."""
        running = tuple(container.id for container in state.containers if container.running)
        (found,) = connection.fetch_facts(self.host, [(Listening, {"containers": running})])
        return found if isinstance(found, dict) else {}

    def collect_results(
        self, facts: Iterable[object], checks: Sequence[Check] | None = None
    ) -> tuple[CheckResult, ...]:
        """The results in facts, or one unknown for each check where they could not be read.

        :param checks: those that were asked; the declared ones by default.
        """
        asked = self.spec.checks if checks is None else checks
        results: list[CheckResult] = []
        for fact in facts:
            if isinstance(fact, connection.Unknown):
                results += [
                    CheckResult(name=check.name, outcome="unknown", evidence=fact.reason)
                    for check in asked
                ]
            elif isinstance(fact, tuple):
                results += fact
        return tuple(results)

    def resolve(self, known: Mapping[str, str | None] | None = None) -> Declared:
        """What Compose makes of the project's files.

        :param known: the digests of files on the host.
        :raises EngineHung: the engine did not answer.
        :raises NoCompose: the host has no Compose.
        :raises StepError: Compose refuses the files.
        """
        needed = find_closure(self.source)
        try:
            declared = self._resolve(needed, known or {})
        except (EngineHung, NoCompose):
            raise
        except ValueError as error:
            try:
                if needed.files.keys() == self.source.files.keys():
                    raise error
                # It complained of files that it was not given.
                declared = self._resolve(self.source, known or {})
            except EngineHung:
                raise
            except ValueError as error:
                raise StepError(f"Docker Compose refuses the project's files: {error}") from None
        declared = mark_kept(declared, self.kept)
        self._hide(declared.config)
        # What no list can carry is not watched.
        paths = [
            path
            for path in list_mounts(declared.config)
            if is_plain(path) and not self._is_inside(path)
        ]
        if paths:
            result = connection.run(self.host, commands.hash_outside(paths), readonly=True)
            digests = zip(paths, result.text.split("\n"), strict=False)
            outside = {path: digest for path, digest in digests if digest != "-"}
            declared = declared.model_copy(update={"outside": outside})
        # It says how containers are called.
        self._config = declared.config
        return declared

    def _resolve(self, files: Source, known: Mapping[str, str | None]) -> Declared:
        asked = {
            path: digest
            for path, digest in self.source.digests.items()
            if known.get(path) != digest
        }
        mark = connection.make_mark()
        result = connection.run(
            self.host,
            connection.shorten_wait(
                self.host, commands.resolve(self.spec, self.source.options, mark)
            ),
            stdin=f"{mark}\n".encode() + commands.make_resolve_archive(files, asked),
            readonly=True,
            secret=True,
        )
        with self._mark_hung():
            return parse_declared(result.text.split("\n"), mark, self.spec.directory)

    def measure_free(self) -> dict[str, int]:
        """Bytes free, by the path that was measured.

        :raises EngineHung: the engine did not answer.
        """
        command = connection.shorten_wait(self.host, commands.measure_free(self.spec))
        result = connection.run(self.host, command, readonly=True)
        with self._mark_hung():
            if result.status == HUNG:
                raise EngineHung("the Docker daemon does not answer")
        rows = (line.partition("|") for line in result.text.splitlines())
        return {path: int(kib) * 1024 for kib, _, path in rows if kib.isdecimal()}

    def read_surroundings(self, declared: Declared) -> Surroundings:
        """What new networks and containers of the project have to fit in.

        :raises EngineHung: the engine did not answer.
        """
        mark = connection.make_mark()
        paths = filter(is_plain, list_required_mounts(declared.config))
        command = connection.shorten_wait(self.host, commands.read_surroundings(paths, mark))
        result = connection.run(self.host, command, readonly=True)
        # What cannot be parsed stands in nobody's way: the engine judges it itself.
        try:
            with self._mark_hung():
                return parse_surroundings(result.text.split("\n"), mark)
        except EngineHung:
            raise
        except ValueError:
            return Surroundings()

    @contextmanager
    def _mark_hung(self) -> Iterator[None]:
        """Have what is asked later wait less for an engine that did not answer."""
        try:
            yield
        except EngineHung:
            connection.mark_hung(self.host)
            raise

    def read_logs(
        self, services: Iterable[str], state: StackState, *, healthy: bool = False
    ) -> list[str]:
        """The last lines of services.

        :param healthy: whether also of their containers that are healthy.
        """
        containers = [
            container
            for name in services
            for container in state.list_containers(name)
            if healthy or not _is_healthy(container)
        ]
        return [
            f"{container.name} | {line}"
            for container, lines in self._read_lines((each, 0) for each in containers)
            for line in lines
        ]

    def read_lives(self, services: Iterable[str], state: StackState) -> dict[str, tuple[str, ...]]:
        """The last lines that each service's containers wrote since they were started."""
        found: dict[str, tuple[str, ...]] = dict.fromkeys(services, ())
        containers = [each for name in found for each in state.list_containers(name)]
        for container, lines in self._read_lines((each, each.started_at) for each in containers):
            name = container.service or ""
            found[name] = (*found[name], *lines)
        return found

    def _read_lines(
        self, asked: Iterable[tuple[Container, float]]
    ) -> Iterator[tuple[Container, list[str]]]:
        """The last lines of containers, each since a moment, as far as there is time for them all.

        A log is evidence and nothing rests on it: where it cannot be had in time, a line says so.
        """
        deadline = time.monotonic() + LOG_TIMEOUT
        for container, since in asked:
            lines = ["(its log could not be read in time)"]
            left = deadline - time.monotonic()
            if left > 0:
                with suppress(connection.CommandTimeout):
                    result = connection.run(
                        self.host,
                        commands.read_logs(container.id, LOG_LINES, since),
                        readonly=True,
                        secret=True,
                        timeout=left,
                    )
                    lines = result.text.splitlines()[-LOG_LINES:]
            yield container, [self.redact(line) for line in lines]

    def redact(self, text: str) -> str:
        """Text without what nothing may show."""
        return drift.redact(text, self.secrets)

    @property
    def secrets(self) -> frozenset[str]:
        """The values that nothing may show."""
        named = frozenset(
            value for name, value in self.spec.variables.items() if SECRET_NAME.search(name)
        )
        return self.spec.secrets | named | self.hidden

    def _hide(self, config: Mapping[str, Any], secrets: Collection[str] = ()) -> None:
        """Never show what a declaration calls secret, nor what was given as secret before."""
        for secret in secrets:
            reporting.secret(secret)
        self.hidden |= drift.find_secrets(config) | frozenset(secrets)

    def sort_out(self, state: StackState) -> StackState:
        """The state with the project's own containers and no others among them."""
        return sort_out(state, self.spec.project, self._config)

    def _add_ends(self, state: StackState) -> StackState:
        """Fill in how containers ended that run again: the engine shows it in its events only."""
        containers = []
        deadline = time.monotonic() + LOG_TIMEOUT
        for container in state.containers:
            young = container.running and is_young(container, state.now)
            left = deadline - time.monotonic()
            if young and container.restart_count and not container.exit_code and left > 0:
                command = commands.read_ends(container.id)
                ends = connection.run(self.host, command, readonly=True, timeout=left).text
                codes = [int(code) for code in ENDED.findall(ends)]
                oom = container.oom_killed or OUT_OF_MEMORY.search(ends) is not None
                container = container.model_copy(
                    update={"exit_code": codes[-1] if codes else 0, "oom_killed": oom}
                )
            containers.append(container)
        return state.model_copy(update={"containers": tuple(containers)})

    def _add_logs(self, state: StackState) -> StackState:
        """Fill in what containers wrote last that are down, or restart again and again."""
        failed = [
            container
            for container in state.containers
            if container.status == "restarting"
            or (container.status == "exited" and container.exit_code)
            or is_looping(container, state.now)
        ]
        # What a container said in an earlier life may be put right. The life that is under way may
        # have written nothing yet, and the engine notes a start a moment after it.
        asked = ((each, each.started_at - (LOOP_SECONDS if each.running else 1)) for each in failed)
        logs = {container.id: tuple(lines) for container, lines in self._read_lines(asked)}
        containers = (
            each.model_copy(update={"log": logs[each.id]}) if each.id in logs else each
            for each in state.containers
        )
        return state.model_copy(update={"containers": tuple(containers)})

    def _is_inside(self, path: str) -> bool:
        return path == self.spec.directory or path.startswith(self.spec.directory + "/")


def _is_healthy(container: Container) -> bool:
    if container.status == "exited":
        return container.exit_code == 0
    if container.health is None:
        return container.running and not container.restart_count
    return container.running and container.health == "healthy"
