"""Read a host and decide; tell what was found. Nothing here changes a host."""

import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackmend import connection, reporting
from stackmend.acting import another_run, unread
from stackmend.checks.facts import CheckResults
from stackmend.checks.state import CheckResult
from stackmend.compose import commands, drift
from stackmend.compose.closure import closure
from stackmend.compose.facts import ComposeStack, NoCompose, parse_declared
from stackmend.compose.plan import (
    LOOP_RESTARTS,
    Finding,
    Plan,
    failed_before,
    mounts,
    needs_declared,
    plan,
    recorded,
    refuse_engine,
    sort_out,
    unpublished,
    young,
)
from stackmend.compose.source import Source, file_options
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied, Declared, Engine, StackState
from stackmend.errors import StepError
from stackmend.paths import is_plain
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector


#: What :func:`~stackmend.compose.commands.ends` prints of an end: a container's labels are beside.
ENDED = re.compile(r'^die "([0-9]{1,3})"$', re.M)
OUT_OF_MEMORY = re.compile(r"^oom\b", re.M)


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    state: StackState | None = None
    declared: Declared | None = None
    held: str = ""


@dataclass
class Reader:
    """One project on one host, to be looked at.

    :param touched: services that this run did anything to.
    :param tried: those to which a remedy was applied; the next one is the stronger.
    :param counted: those whose mending in this run is remembered against the limits.
    :param installed: the record whose files lie on the host, where they are not the source's.
    """

    host: "Host"
    spec: ComposeSpec
    source: Source
    report: "Collector"
    touched: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    counted: set[str] = field(default_factory=set)
    hidden: frozenset[str] = frozenset()
    installed: Applied | None = None
    _config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _last: tuple[list[object], Look] | None = field(default=None, repr=False)

    def prefetch(self) -> None:
        """Let the next reading of any fact of the host bring these too."""
        for fact, arguments in self._facts():
            connection.prefetch(self.host, fact, **arguments)

    def look(self) -> Look:
        """Read the host and decide. Changes nothing."""
        self.prefetch()
        read = [connection.read(self.host, fact, **arguments) for fact, arguments in self._facts()]
        # What Compose makes of the files is asked once for each reading of the host.
        if self._last is None or not all(map(operator.is_, self._last[0], read)):
            self._last = (read, self._unless_busy(self._decide(*read)))
        return self._last[1]

    def _unless_busy(self, look: Look) -> Look:
        """A look; where it refuses anything while another run is at work, that this is so."""
        lock = commands.lock(self.spec)
        if look.plan.refusals and (busy := another_run(self.host, lock)):
            return Look(Plan(refusals=(busy,)), look.state)
        return look

    def _decide(self, state: Any, *checked: Any) -> Look:
        if isinstance(state, connection.Unknown):
            refusal = unread(state, "its state", "done on a host")
            return Look(Plan(refusals=(refusal,)))
        state = self._own(state)
        if any(one.restart_count >= LOOP_RESTARTS for one in state.containers):
            state = self._how_it_ended(state)
        checks = _checks(self.spec, checked)
        if refused := refuse_engine(state):
            return Look(refused, state)
        if state.applied:
            self._hide(state.applied.config, state.applied.secrets)
        if held := failed_before(self.spec, self.source.digest, state):
            return self._look_back(state, checks, held)
        if needs_declared(self.spec, self.source.digest, state):
            try:
                declared = self._declared(state.files)
            except NoCompose as error:
                engine = Engine(status="no-compose", reason=str(error))
                state = state.model_copy(update={"engine": engine})
                return Look(refuse_engine(state) or Plan(), state)
            self._hide(declared.config)
            # It says how containers are called.
            self._config = declared.config
            state = self._own(state)
        else:
            assert state.applied is not None, "without a record a declaration is needed"
            declared = recorded(state.applied, state)
        decided = self._plan(state, declared, checks)
        if _writes(decided):
            declared = declared.model_copy(update={"free": self._free()})
            decided = self._plan(state, declared, checks)
        return Look(decided, state, declared)

    def is_well(self) -> bool:
        """Look, and tell what was found, unless acting upon it tells it."""
        telling = not self.host.state.is_executing
        try:
            look = self.look()
        except (StepError, connection.RemoteError) as error:
            if telling:
                self._failed(failed(error))
            return False
        if telling or look.plan.empty:
            self.tell(look.plan)
        return look.plan.empty

    def unpublished(self) -> tuple[str, ...]:
        """The ports that the project is to have and has not, as far as the host can be read."""
        look = self.look()
        if look.state is None or look.declared is None:
            return ()
        return unpublished(look.declared, look.state)

    def _look_back(self, state: StackState, checks: Sequence[CheckResult], held: str) -> Look:
        """Decide for the files before, because the wanted ones just failed."""
        assert state.applied is not None, "only what replaced a record can have been rolled back"
        applied = state.applied
        decided = plan(
            self.spec.model_copy(
                update={"directory": applied.directory, "profiles": applied.profiles}
            ),
            applied.files,
            applied.source,
            state,
            checks=checks,
        )
        finding = Finding(subject=self.spec.project, kind="changed", cause=held)
        return Look(
            decided.model_copy(update={"findings": (finding, *decided.findings)}), state, held=held
        )

    def _plan(
        self,
        state: StackState,
        declared: Declared | None,
        checks: Sequence[CheckResult],
        tried: frozenset[str] = frozenset(),
    ) -> Plan:
        source = self.source
        return plan(
            self.spec,
            source.digests,
            source.digest,
            state,
            declared,
            checks,
            tried,
            source.ignored,
        )

    def _facts(self) -> list[tuple[type, dict[str, object]]]:
        facts: list[tuple[type, dict[str, object]]] = [
            (ComposeStack, {"project": self.spec.project, "directory": self.spec.directory})
        ]
        if self.spec.checks:
            facts.append((CheckResults, self._check_arguments()))
        return facts

    def _check_arguments(self) -> dict[str, object]:
        return {"project": self.spec.project, "checks": self.spec.checks}

    def _state(self) -> StackState:
        arguments = {"project": self.spec.project, "directory": self.spec.directory}
        (state,) = connection.fetch_facts(self.host, [(ComposeStack, arguments)])
        if isinstance(state, connection.Unknown):
            raise StepError(f"the host's state cannot be read: {state.reason}")
        assert isinstance(state, StackState)
        return self._how_it_ended(self._own(state))

    def _own(self, state: StackState) -> StackState:
        """The state with the project's own containers and no others among them."""
        return sort_out(state, self.spec.project, self._config)

    def _how_it_ended(self, state: StackState) -> StackState:
        """Fill in how containers ended that run again: the engine shows it in its events only."""
        containers = []
        for one in state.containers:
            if one.running and one.restart_count and young(one, state.now) and not one.exit_code:
                said = connection.run(self.host, commands.ends(one.id), readonly=True, timeout=20)
                codes = [int(code) for code in ENDED.findall(said.text)]
                one = one.model_copy(
                    update={
                        "exit_code": codes[-1] if codes else 0,
                        "oom_killed": one.oom_killed or OUT_OF_MEMORY.search(said.text) is not None,
                    }
                )
            containers.append(one)
        return state.model_copy(update={"containers": tuple(containers)})

    def _check_results(self) -> tuple[CheckResult, ...]:
        if not self.spec.checks:
            return ()
        # Whoever waits for them asks again by itself.
        once = {**self._check_arguments(), "attempts": 1}
        return _checks(self.spec, connection.fetch_facts(self.host, [(CheckResults, once)]))

    def _declared(self, known: Mapping[str, str | None] | None = None) -> Declared:
        """What Compose makes of the files; ``known`` are the digests of files on the host."""
        needed = closure(self.source)
        try:
            declared = self._resolved(needed, known or {})
        except NoCompose:
            raise
        except ValueError as error:
            try:
                if needed.files.keys() == self.source.files.keys():
                    raise error
                # What it says of files that it does not have is none of theirs.
                declared = self._resolved(self.source, known or {})
            except ValueError as error:
                raise StepError(f"Docker Compose refuses the project's files: {error}") from None
        # What no list can carry is not watched.
        paths = [
            path for path in mounts(declared.config) if is_plain(path) and not self._is_inside(path)
        ]
        if not paths:
            return declared
        result = connection.run(self.host, commands.outside(paths), readonly=True)
        digests = zip(paths, result.text.split("\n"), strict=False)
        return declared.model_copy(
            update={"outside": {path: digest for path, digest in digests if digest != "-"}}
        )

    def _resolved(self, files: Source, known: Mapping[str, str | None]) -> Declared:
        digests = self.source.digests
        asked = {path: one for path, one in digests.items() if known.get(path) != one}
        mark = connection.fresh_mark()
        result = connection.run(
            self.host,
            commands.resolve(self.spec, self._files, mark),
            stdin=f"{mark}\n".encode() + commands.resolve_archive(files, asked),
            readonly=True,
            secret=True,
        )
        lines = result.text.split("\n")
        return parse_declared(lines, mark, self.spec.directory)

    def _free(self) -> dict[str, int]:
        result = connection.run(self.host, commands.free(self.spec), readonly=True)
        rows = (line.partition("|") for line in result.text.splitlines())
        return {path: int(kib) * 1024 for kib, _, path in rows if kib.isdecimal()}

    @property
    def _files(self) -> tuple[str, ...]:
        """What names the files that lie in the project's directory."""
        if self.installed is not None:
            there = self.installed
            return file_options(there.files, names_files=there.names_files)
        return file_options(self.source.files, names_files=self.source.names_files)

    def _is_inside(self, path: str) -> bool:
        return path == self.spec.directory or path.startswith(self.spec.directory + "/")

    def tell(self, decided: Plan) -> None:
        """Show what was found and what follows, on the terminal and in the report."""
        announce.report_plan(self.host, self.report, decided)

    def _failed(self, failure: StepError) -> None:
        message = drift.masked(str(failure), self.secrets)
        announce.report_error(self.host, self.report, self.spec.project, message, failure.log)

    @property
    def secrets(self) -> frozenset[str]:
        """The values that nothing may show."""
        named = frozenset(
            value for name, value in self.spec.variables().items() if drift.SECRET_NAME.search(name)
        )
        return self.spec.secrets() | named | self.hidden

    def _hide(self, config: Mapping[str, Any], secrets: Collection[str] = ()) -> None:
        """Never show what a declaration calls secret, nor what was given as secret before."""
        for secret in secrets:
            reporting.secret(secret)
        self.hidden |= drift.secret_values(config) | frozenset(secrets)


def failed(error: StepError | OSError) -> StepError:
    """An error of the connection as a failure of ours."""
    return error if isinstance(error, StepError) else StepError(str(error))


def _checks(spec: ComposeSpec, read: Sequence[object]) -> tuple[CheckResult, ...]:
    """The results, or one unknown for each check where they could not be read."""
    results: list[CheckResult] = []
    for value in read:
        if isinstance(value, connection.Unknown):
            results += [
                CheckResult(name=check.name, outcome="unknown", evidence=value.reason)
                for check in spec.checks
            ]
        elif isinstance(value, tuple):
            results += value
    return tuple(results)


def _writes(decided: Plan) -> bool:
    return any(action.verb in ("install files", "pull", "build") for action in decided.actions)
