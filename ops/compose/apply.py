"""Carry out a plan and prove it. What is to be done is decided by ``plan``, never here."""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import tenacity

from ops import connection, reports
from ops.checks.facts import CheckResults
from ops.checks.state import CheckResult
from ops.compose import commands, drift
from ops.compose.facts import ComposeStack, NoCompose, parse_declared, watched
from ops.compose.plan import (
    LOOP_RESTARTS,
    LOOP_SECONDS,
    Action,
    Finding,
    Plan,
    Refusal,
    expected,
    failed_before,
    judge,
    levels,
    mounts,
    needs_declared,
    plan,
    recorded,
    refuse_engine,
    unstable,
)
from ops.compose.source import Source
from ops.compose.spec import ComposeSpec
from ops.compose.state import Applied, Container, Declared, Engine, Image, StackState
from ops.reports import journal

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from ops.connection import Result
    from ops.reports import Collector

#: Seconds between two looks at a stack that is coming up.
PAUSE = 0.5

#: Seconds for which a mended service may be unhealthy before the next stronger remedy.
PATIENCE = 10.0

#: Lines of a failing container's log that are shown.
LOG_LINES = 20

#: What a registry says where asking again cannot help.
FINAL = ("not found", "denied", "manifest unknown", "invalid reference", "unauthorized")

#: What Compose tells on its way: where it stands, not what went wrong.
PROGRESS = re.compile(
    r"\s*(?:(?:Container|Network|Volume|Image) )?\S+ +"
    r"(?:Creat|Recreat|Start|Stopp|Remov|Wait|Runn|Pull|Build)(?:e|ed|ing) *"
)

#: What changes the stack to another one, rather than mending the one that was proven.
CHANGES = frozenset({"changed", "image", "content", "files", "orphan"})


class Failure(Exception):
    """A step failed; the text says what, the log what the failing thing wrote last."""

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = tuple(log)


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    state: StackState | None = None
    declared: Declared | None = None
    held: str = ""


@dataclass
class Project:
    """One project on one host in one run."""

    host: "Host"
    spec: ComposeSpec
    source: Source
    report: "Collector"
    touched: set[str] = field(default_factory=set)
    hidden: frozenset[str] = frozenset()

    # Looking

    def expect(self) -> None:
        """Let the next reading of any fact of the host bring these too."""
        for fact, arguments in self._facts():
            connection.expect(self.host, fact, **arguments)

    def look(self) -> Look:
        """Read the host and decide. Changes nothing."""
        self.expect()
        state, *checked = [
            connection.read(self.host, fact, **arguments) for fact, arguments in self._facts()
        ]
        if isinstance(state, connection.Unknown):
            refusal = Refusal(
                subject="host",
                reason=f"its state cannot be read: {state.reason}",
                way_out="see the reason; nothing is done on a host that cannot be read",
            )
            return Look(Plan(refusals=(refusal,)))
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
                declared = self._declared()
            except NoCompose as error:
                engine = Engine(status="no-compose", reason=str(error))
                state = state.model_copy(update={"engine": engine})
                return Look(refuse_engine(state) or Plan(), state)
            self._hide(declared.config)
        else:
            assert state.applied is not None, "without a record a declaration is needed"
            declared = recorded(state.applied, state)
        decided = self._plan(state, declared, checks)
        if _writes(decided):
            declared = declared.model_copy(update={"free": self._free()})
            decided = self._plan(state, declared, checks)
        return Look(decided, state, declared)

    def _look_back(self, state: StackState, checks: Sequence[CheckResult], held: str) -> Look:
        """Decide for the files before, because the wanted ones just failed."""
        assert state.applied is not None, "only what replaced a record can have been rolled back"
        applied = state.applied
        decided = plan(
            self.spec.model_copy(
                update={"directory": applied.directory, "profiles": applied.profiles}
            ),
            {path: digest for path, digest in state.files.items() if digest},
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
        (state,) = connection.gather(self.host, [(ComposeStack, arguments)])
        if isinstance(state, connection.Unknown):
            raise Failure(f"the host's state cannot be read: {state.reason}")
        assert isinstance(state, StackState)
        return self._how_it_ended(state)

    def _how_it_ended(self, state: StackState) -> StackState:
        """Fill in how containers ended that run again: the engine shows it in its events only."""
        containers = []
        for one in state.containers:
            young = state.now - one.started_at < LOOP_SECONDS
            if one.running and one.restart_count and young and not one.exit_code:
                said = connection.run(self.host, commands.ends(one.id), readonly=True, timeout=20)
                ends = said.text.split()
                codes = [int(word) for word in ends if word.isdigit()]
                one = one.model_copy(
                    update={
                        "exit_code": codes[-1] if codes else 0,
                        "oom_killed": one.oom_killed or "oom" in ends,
                    }
                )
            containers.append(one)
        return state.model_copy(update={"containers": tuple(containers)})

    def _check_results(self) -> tuple[CheckResult, ...]:
        if not self.spec.checks:
            return ()
        return _checks(
            self.spec, connection.gather(self.host, [(CheckResults, self._check_arguments())])
        )

    def _declared(self) -> Declared:
        result = connection.run(
            self.host,
            commands.resolve(self.spec),
            stdin=self.source.archive(),
            readonly=True,
            secret=True,
        )
        lines = result.text.split("\n")
        try:
            declared = parse_declared(lines, commands.RESOLVE_MARK, self.spec.directory)
        except NoCompose:
            raise
        except ValueError as error:
            raise Failure(f"Docker Compose refuses the project's files: {error}") from None
        paths = [path for path in mounts(declared.config) if not self._is_inside(path)]
        if not paths:
            return declared
        result = connection.run(self.host, commands.outside(paths), readonly=True)
        digests = (line.partition("  ") for line in result.text.splitlines())
        return declared.model_copy(
            update={"outside": {path: digest for digest, _, path in digests if path}}
        )

    def _free(self) -> dict[str, int]:
        result = connection.run(self.host, commands.free(self.spec), readonly=True)
        rows = (line.partition("|") for line in result.text.splitlines())
        return {path: int(kib) * 1024 for kib, _, path in rows if kib.isdigit()}

    def _is_inside(self, path: str) -> bool:
        return path == self.spec.directory or path.startswith(self.spec.directory + "/")

    # Acting

    def is_well(self) -> bool:
        """Look, and tell what was found while nothing is executed yet."""
        telling = not self.host.state.is_executing
        try:
            look = self.look()
        except (Failure, connection.RemoteError) as error:
            if telling:
                self._failed(_failure(error))
            return False
        if telling:
            self.tell(look.plan)
        return look.plan.empty

    def converge(self, state: "State", host: "Host") -> bool:
        """Bring the host to what is wanted, prove it, and say whether it is so.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            look = self.look()
            if look.plan.refusals:
                self.tell(look.plan)
                return False
            with connection.hold_lock(self.host, commands.lock(self.spec)):
                # Whoever held the lock until now may have changed what was read before.
                connection.forget(self.host)
                return self._converge()
        except (Failure, connection.RemoteError) as error:
            self._failed(_failure(error))
        return False

    def _converge(self) -> bool:
        look = self.look()
        self.tell(look.plan)
        if look.plan.refusals:
            return False
        assert look.state is not None, "a plan without refusals rests on a state"
        if look.held:
            return self._keep(look)
        before = look.state.applied
        assert look.declared is not None, "a plan that acts rests on a declaration"
        declared = look.declared
        changes = before is not None and (
            before.source != self.source.digest
            or any(finding.kind in CHANGES for finding in look.plan.findings)
        )
        self._prepare(look.plan, before, look.state)
        try:
            self._switch(look.plan, look.state, declared)
            state = self._prove(declared, before, changes=changes)
        except (Failure, connection.RemoteError) as error:
            failure = _failure(error)
            if before is None or not changes or self.spec.on_failure == "keep":
                raise failure from None
            self._failed(failure)
            self._roll_back(before, declared)
            return False
        self._remember(before, declared, state)
        return True

    def _keep(self, look: Look) -> bool:
        """Mend the stack that runs, while the wanted one is not tried again."""
        assert look.state is not None, "what is held back was decided from a state"
        assert look.state.applied is not None, "and from a record"
        declared = recorded(look.state.applied, look.state)
        doing = look.plan.model_copy(
            update={"actions": tuple(a for a in look.plan.actions if a.verb != "record")}
        )
        self._switch(doing, look.state, declared)
        self._settle(declared)
        self._failed(Failure(look.held))
        return False

    def _prepare(self, decided: Plan, before: Applied | None, state: StackState) -> None:
        """Have everything at hand before anything is stopped."""
        verbs = {action.verb for action in decided.actions}
        stale = before is None or before.source != self.source.digest
        if not stale and not verbs & {"install files", "pull", "build"}:
            return
        self._must(
            self._run(commands.stage(self.spec), stdin=self.source.archive()),
            "the project's files could not be sent",
        )
        try:
            for action in decided.actions:
                if action.verb in ("pull", "build"):
                    with self._doing(action):
                        self._image(action)
        except Failure:
            self._retag(before)
            raise

    def _image(self, action: Action) -> None:
        what = (
            f"{action.subject}: its image cannot be {'built' if action.verb == 'build' else 'had'}"
        )
        command = commands.prepare(self.spec, action)

        def once() -> "Result":
            return self._run(command)

        if action.verb == "pull":
            once = tenacity.retry(
                retry=tenacity.retry_if_result(_passing),
                stop=tenacity.stop_after_attempt(3),
                wait=tenacity.wait_exponential(multiplier=2, max=20),
                retry_error_callback=lambda attempt: attempt.outcome.result(),  # type: ignore[union-attr]
            )(once)
        self._must(once(), what)

    def _switch(self, decided: Plan, state: StackState, declared: Declared) -> None:
        """From here on the running stack changes."""
        generation = datetime.fromtimestamp(state.now, UTC).strftime("%Y%m%dT%H%M%SZ")
        by_service: dict[str, list[Action]] = {}
        for action in decided.actions:
            if action.verb == "install files":
                with self._doing(action):
                    self._must(
                        self._run(commands.install(self.spec, action, generation)),
                        "the project's files could not be put in place",
                    )
            elif action.verb in ("set aside", "disconnect stranger", "remove network"):
                self._one(action, state)
            elif action.verb not in ("pull", "build", "record", "remove"):
                by_service.setdefault(action.subject, []).append(action)
        rounds = levels(declared.services)
        for index, names in enumerate(rounds):
            doing = [action for name in names for action in by_service.get(name, ())]
            if not doing:
                continue
            self._round(doing, state)
            later = {name for names in rounds[index + 1 :] for name in names if name in by_service}
            self._await_conditions(declared, set(names), later)
        for action in decided.actions:
            if action.verb == "remove":
                self._one(action, state)

    def _round(self, doing: Sequence[Action], state: StackState) -> None:
        self.touched.update(action.subject for action in doing)
        # A service counts once, however many containers it has.
        mends = {action.subject: action.verb for action in doing if action.mend}
        for name, verb in mends.items():
            self._run(commands.mended(self.spec, verb, name))
        for action in doing:
            if action.verb not in ("recreate", "up"):
                self._one(action, state)
        for verb in ("recreate", "up"):
            group = [action for action in doing if action.verb == verb]
            if not group:
                continue
            names = [action.subject for action in group]
            with self._doing(*group):
                result = self._run(commands.up(self.spec, names, anew=verb == "recreate"))
                self._must(result, f"{', '.join(names)} could not be created", names)

    def _one(self, action: Action, state: StackState) -> None:
        with self._doing(action):
            self._must(
                self._run(commands.act(self.spec, action, state)),
                f"could not {action.verb} {action.subject}",
                [action.subject],
            )

    def _await_conditions(self, declared: Declared, names: set[str], later: set[str]) -> None:
        """Wait for what the services of later rounds demand of those of this one."""
        needed = {
            target
            for name in later
            for target, settings in (declared.services[name].get("depends_on") or {}).items()
            if target in names and settings.get("condition") != "service_started"
        }
        if needed:
            self._settle(declared, needed)

    # Proving

    def _prove(self, declared: Declared, before: Applied | None, *, changes: bool) -> StackState:
        """Wait until all is well, and try once more where that is within policy."""
        once_more = not changes or before is None
        while True:
            problem: Failure | None = None
            checks: tuple[CheckResult, ...] = ()
            try:
                state = self._settle(declared, patience=PATIENCE if once_more else None)
                checks = self._await_checks()
            except Failure as failure:
                problem, state = failure, self._state()
            left = self._left(declared, before, state, checks)
            if problem is None and not left.problems and not left.refusals:
                return state
            again = [action for action in left.actions if action.verb != "record"]
            if not once_more or not again or left.refusals:
                raise problem or self._unproven(left, state)
            once_more = False
            self.tell(left)
            self._switch(left, state, declared)

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
        return self._plan(proven, known, checks, frozenset(self.touched))

    def _then(self, before: Applied | None, declared: Declared, state: StackState) -> Applied:
        """The record that this run leaves, if it ends well."""
        source = self.source
        return expected(
            before, self.spec, source.digests, source.digest, declared, state, self.touched
        )

    def _unproven(self, left: Plan, state: StackState) -> Failure:
        wrong = [f"{finding.subject}: {finding.cause}" for finding in left.problems]
        reasons = [refusal.reason for refusal in left.refusals]
        text = "; ".join(wrong or reasons)
        return Failure(f"not proven well: {text}", self._evidence(left.problems, state))

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
                    raise Failure("; ".join(problems), self._logs(services, later))
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
                raise Failure("; ".join(verdict.waiting), self._logs(services, state))
            if verdict.failed:
                raise Failure("; ".join(verdict.failed), self._logs(services, state))
            if not verdict.waiting:
                return state
            if now > deadline:
                raise Failure(
                    f"not well after {self.spec.health_timeout:g} s: {'; '.join(verdict.waiting)}",
                    self._logs(services, state),
                )
            time.sleep(PAUSE)
            state = self._watch(client, state)

    def _watch(self, client: Any, state: StackState) -> StackState:
        """The containers as they are now, over a connection that is held open while waiting."""
        label = f"com.docker.compose.project={self.spec.project}"
        inspected = connection.inspected(client, label)
        return self._how_it_ended(watched(state, inspected, self.spec.project))

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

    # Remembering and going back

    def _remember(self, before: Applied | None, declared: Declared, state: StackState) -> None:
        then = self._then(before, declared, state)
        self._must(
            self._run(
                commands.remember(self.spec, self.source.digest),
                stdin=commands.record_archive(then),
            ),
            "what was proven could not be written down",
        )

    def _retag(self, before: Applied | None) -> None:
        for service in (before.services if before else {}).values():
            if service.image and service.image_id:
                self._run(commands.tag(service.image_id, service.image))

    def _roll_back(self, before: Applied, declared: Declared) -> None:
        """Put the files and images back that were proven well, and the services on them."""
        spec = self.spec.model_copy(
            update={"directory": before.directory, "profiles": before.profiles}
        )
        action = Action(
            verb="install files",
            subject=self.spec.project,
            cause="rolled back to what was proven well before",
        )
        self.host.log(f"{self.spec.project}: rolling back to what was proven well before")
        self._run(commands.mended(self.spec, "rollback", self.source.digest))
        self._retag(before)
        old = recorded(before, self._state())
        fresh = [name for name in declared.services if name not in old.services]
        gone = [path for path in self.source.files if path not in before.files]
        with self._doing(action):
            for name in fresh:
                self._run(commands.remove_service(spec, name))
            self._must(
                self._run(commands.restore(self.spec, before, gone)),
                "the files before could not be put back",
            )
            touched = sorted(self.touched & set(old.services))
            missing = sorted(set(old.services) - set(declared.services))
            for names, anew in ((touched, True), (missing, False)):
                if names:
                    result = self._run(commands.up(spec, names, anew=anew))
                    self._must(result, f"{', '.join(names)} could not be put back", names)
            self._settle(old)
        self.host.log(f"{self.spec.project}: rolled back, and well as it was before")

    # Running and telling

    def _run(self, command: "StringCommand", *, stdin: bytes | None = None) -> "Result":
        return connection.run(self.host, command, stdin=stdin)

    def _must(self, result: "Result", what: str, services: Sequence[str] = ()) -> None:
        if result.ok:
            return
        lines = (result.error_text or result.text).splitlines()
        said = [line for line in lines if line.strip() and not PROGRESS.fullmatch(line)]
        secrets = self.secrets
        reason = drift.masked(" ".join(said[-3:]) or f"exit status {result.status}", secrets)
        log = [drift.masked(line, secrets) for line in said[-LOG_LINES:]]
        if services:
            state = self._state()
            log += self._logs(services, state)
        raise Failure(f"{what}: {reason}", log)

    @contextmanager
    def _doing(self, *actions: Action) -> Iterator[None]:
        """Tell the report and the host's journal what is done, however it ends."""
        started = time.monotonic()
        ok = False
        try:
            yield
            ok = True
        finally:
            seconds = time.monotonic() - started
            for action in actions:
                self.report.done(
                    action.verb,
                    action.subject,
                    action.cause,
                    seconds=seconds,
                    ok=ok,
                    undo=action.undo,
                )
            if ok:
                self._journal(actions)

    def _journal(self, actions: Sequence[Action]) -> None:
        for action in actions:
            line = journal.line(
                time=datetime.now(UTC),
                run=reports.run_id(self.host.state),
                room="compose.stack",
                action=action.verb,
                subject=f"{self.spec.project}/{action.subject}",
                cause=action.cause,
                undo=action.undo,
            )
            self._run(journal.append(line))

    def tell(self, decided: Plan) -> None:
        """Show what was found and what follows, on the terminal and in the report."""
        for finding in decided.findings:
            told = f"{finding.kind}: {finding.cause}"
            self.report.found(finding.subject, told, "\n".join(finding.evidence))
            self.host.log(f"{finding.subject}: {told}")
            for line in finding.evidence:
                self.host.log(f"    {line}")
        for action in decided.actions:
            self.report.planned(
                action.verb,
                action.subject,
                action.cause,
                destructive=action.destructive,
                undo=action.undo,
            )
            self.host.log(f"  → {action}")
        for refusal in decided.refusals:
            self.report.refused(refusal.subject, refusal.reason, refusal.way_out)
            self.host.log_styled(
                f"refused: {refusal.subject}: {refusal.reason}. To go on: {refusal.way_out}",
                fg="red",
            )

    def _failed(self, failure: Failure) -> None:
        message = drift.masked(str(failure), self.secrets)
        self.report.failed(message, log=list(failure.log))
        self.host.log_styled(f"{self.spec.project}: {message}", fg="red")
        for line in failure.log:
            self.host.log(f"    {line}")

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
            reports.secret(secret)
        self.hidden |= drift.secret_values(config) | frozenset(secrets)


def _failure(error: Failure | OSError) -> Failure:
    return error if isinstance(error, Failure) else Failure(str(error))


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


def _passing(result: "Result") -> bool:
    """Whether a pull failed in a way that may pass by itself."""
    said = result.error_text.lower()
    return not result.ok and not any(word in said for word in FINAL)


def _well(container: Container) -> bool:
    if container.status == "exited":
        return container.exit_code == 0
    if container.health is None:
        return container.running and not container.restart_count
    return container.running and container.health == "healthy"
