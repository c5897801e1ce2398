"""The parts of the loop that are this room's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackmend import connection, decision
from stackmend.checks.facts import find_limit
from stackmend.compose import commands
from stackmend.compose.executor import Executor, Snapshot
from stackmend.compose.facts import NoCompose
from stackmend.compose.observer import Observer
from stackmend.compose.plan.actions import Action, Build, Plan, Pull, Record, ServiceAction
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.declaration import find_unpublished
from stackmend.compose.plan.gates import explain_hold, is_declaration_needed, refuse_engine
from stackmend.compose.plan.order import drop_record, is_change, is_creating, is_writing
from stackmend.compose.plan.record import make_record, read_declaration
from stackmend.compose.plan.rollback import hold_back, is_intact_before, is_restored, roll_back
from stackmend.compose.remote import FETCH_LIMIT, Fetched, Unfetched, fetch
from stackmend.compose.spec import GitSource
from stackmend.compose.state import Applied, Declared, Engine, Image, StackState
from stackmend.compose.waiter import Waiter
from stackmend.decision import Refusal
from stackmend.errors import StepError
from stackmend.reconcile import (
    OVERHEAD,
    Observation,
    Reconciler,
    get_project_lock,
    observe_unreadable,
)
from stackmend.reporting import announce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyinfra.api.host import Host

    from stackmend.checks.state import CheckResult
    from stackmend.compose.source import Source
    from stackmend.compose.spec import ComposeSpec
    from stackmend.reporting import Collector

#: Seconds for which a mended service may be unhealthy before the next stronger remedy.
UNHEALTHY_TIMEOUT = 10.0


@dataclass
class ComposeReconciler(Reconciler[Snapshot, Action]):
    """One project on one host.

    :param on_bind_error: asked with the engine's words where a container cannot be started; where
        it returns true the start is tried once more.
    """

    # A plan that refuses has no steps, but for those that mend the stack before a failed change.
    all_or_nothing = False

    host: Host
    spec: ComposeSpec
    source: Source
    report: Collector
    on_bind_error: Callable[[Host, str], bool] | None = None
    observer: Observer = field(init=False)
    waiter: Waiter = field(init=False)
    _fetched: Fetched | None = field(default=None, init=False)
    _unfetched: Refusal | None = field(default=None, init=False)
    _observed: Observation[Snapshot, Action] | None = field(default=None, init=False)
    _proven: Observation[Snapshot, Action] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.subject = self.spec.project
        self.lock = get_project_lock(self.spec.project)
        self.observer = Observer(self.host, self.spec, self.source)
        self.waiter = Waiter(self.observer)

    # What is observed

    def observe(self, *, fresh: bool = False) -> Observation[Snapshot, Action]:
        """Read the host and plan. Changes nothing."""
        state, *checked = self.fetch(*self.observer.list_facts(), fresh=fresh)
        if isinstance(state, connection.Unknown):
            self._observed = observe_unreadable(state, "its state")
            return self._observed
        state = self.observer.complete(state)
        try:
            self._observed = self._decide(state, self.observer.collect_results(checked))
        except NoCompose as error:
            engine = Engine(status="no-compose", reason=str(error))
            refused = refuse_engine(state.model_copy(update={"engine": engine}))
            self._observed = Observation(refused or Plan())
        return self._observed

    def wait_until_ready(self) -> Observation[Snapshot, Action]:
        """What the operation observed just now: Compose is asked once what the files mean."""
        return self._observed or self.observe()

    def wait_until_idle(self) -> None:
        """Wait for a command that outlived the run that began it."""
        result = connection.run(
            self.host,
            commands.run_exclusively(self.spec, commands.IDLE),
            timeout=commands.BUSY_TIMEOUT + commands.LIMIT,
            tethered=True,
        )
        if not result.ok:
            raise StepError(f"timed out waiting for a command of an earlier run: {result.reason}")

    def find_limit(self, plan: Plan) -> float:
        """Seconds after which a run that carries out a plan has ended, whatever hangs."""
        changes = self._observed and self._observed.state and self._observed.state.changes
        steps = sum(map(self.find_step_limit, plan.actions))
        if changes and self.spec.on_failure == "rollback":
            steps *= 2
        fetching = FETCH_LIMIT if isinstance(self.spec.source, GitSource) else 0
        return OVERHEAD + commands.BUSY_TIMEOUT + commands.LIMIT + fetching + steps

    def find_step_limit(self, action: Action) -> float:
        """Seconds that one action has, with the wait for a command of an earlier run."""
        limit: float = commands.IMAGE_LIMIT if isinstance(action, Pull | Build) else commands.LIMIT
        if isinstance(action, Record):
            limit += self.spec.stability + find_limit(self.spec.checks)
        if isinstance(action, Record | ServiceAction):
            limit += self.spec.health_timeout
        return limit + commands.BUSY_TIMEOUT

    def find_unpublished(self) -> tuple[str, ...]:
        """The ports that the project is to have and has not, as far as the host can be read."""
        snapshot = self.observe().state
        return () if snapshot is None else find_unpublished(snapshot.declared, snapshot.state)

    def _decide(
        self, state: StackState, checks: Sequence[CheckResult]
    ) -> Observation[Snapshot, Action]:
        spec, source = self.spec, self.source
        if refused := refuse_engine(state):
            return Observation(refused)
        if refusal := self._fetch_source():
            return self._hold(refusal, state, checks)
        if reason := explain_hold(spec, source.digest, state):
            assert state.applied is not None, "only what replaced a record can have failed"
            failed = None if is_restored(state) else self.observer.resolve(state.files)
            decided = hold_back(spec, source.files, state, checks, reason, failed)
            declared = read_declaration(state.applied, state)
            return Observation(decided, Snapshot(state, declared, held=True))
        if is_declaration_needed(spec, source.digest, state):
            declared = self.observer.resolve(state.files)
            state = self.observer.sort_out(state)
        else:
            assert state.applied is not None, "without a record a declaration is needed"
            declared = read_declaration(state.applied, state)
        hops = self.observer.read_hops(state, declared, checks)
        decided = self._plan(state, declared, checks, hops)
        if is_writing(decided.actions):
            declared = declared.model_copy(update={"free": self.observer.measure_free()})
            decided = self._plan(state, declared, checks, hops)
        if is_creating(decided.actions):
            around = self.observer.read_surroundings(declared)
            declared = declared.model_copy(update={"surroundings": around})
            decided = self._plan(state, declared, checks, hops)
        changes = is_change(decided.findings, state.applied, source.digest)
        return Observation(decided, Snapshot(state, declared, changes=changes))

    def _fetch_source(self) -> Refusal | None:
        """Have the files of a git repository, once; the refusal where they cannot be had."""
        if isinstance(self.spec.source, GitSource) and not self._fetched and not self._unfetched:
            try:
                self._fetched = fetch(self.host, self.spec, self.spec.source)
            except Unfetched as error:
                self._unfetched = error.refusal
            else:
                self.source = self.observer.source = self._fetched.source
        return self._unfetched

    def _hold(
        self, refusal: Refusal, state: StackState, checks: Sequence[CheckResult]
    ) -> Observation[Snapshot, Action]:
        """Mend what was proven, where its files are all there; its new ones cannot be had."""
        if state.applied is None or not is_restored(state):
            return Observation(Plan(refusals=(refusal,)))
        reason, remedy = refusal.reason, refusal.remedy
        decided = hold_back(self.spec, (), state, checks, reason, remedy=remedy)
        declared = read_declaration(state.applied, state)
        return Observation(decided, Snapshot(state, declared, held=True))

    def _plan(
        self,
        state: StackState,
        declared: Declared,
        checks: Sequence[CheckResult],
        hops: Sequence[CheckResult],
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
            hops,
            self._fetched.checkout if self._fetched else None,
        )

    # What is done

    def execute(
        self, decided: decision.Plan[Action], snapshot: Snapshot, lease: connection.Lease
    ) -> bool:
        """Carry out the steps of a plan in their order; take back a change that fails."""
        if not decided.actions:
            return True
        executor = Executor(
            self.host,
            self.spec,
            self.source,
            self.source.options,
            self.observer,
            self.waiter,
            lease,
            self.step,
            self._verify_stack,
            self.on_bind_error,
            self._fetched.packed if self._fetched else b"",
        )
        applied = snapshot.state.applied
        if snapshot.held:
            assert applied is not None, "what is held back was decided from a record"
            executor = executor.take_record(applied)
            executor.walk(decided.actions, snapshot)
            self._wait_until_stable(executor, snapshot)
            return True
        following = executor.prepare(decided, snapshot)
        if following.refusals:
            self.report_plan(following)
            return False
        try:
            executor.walk(following.actions, snapshot)
        except (StepError, connection.RemoteError) as error:
            kept = not snapshot.changes or self.spec.on_failure == "keep"
            # What is proven, and only not recorded, is not taken back.
            if applied is None or kept or self._proven is not None:
                raise
            self.report_error(error)
            self._roll_back(executor, snapshot, applied)
            return False
        return True

    def verify(
        self, decided: decision.Plan[Action], snapshot: Snapshot
    ) -> Observation[Snapshot, Action]:
        """What was proven before it was recorded; where nothing was done, what was observed."""
        return self._proven or Observation(decided, snapshot)

    def _verify_stack(self, executor: Executor, snapshot: Snapshot) -> Applied:
        """Wait until the stack is healthy; try once more where it was so before this run."""
        declared = snapshot.declared
        again = not snapshot.changes
        while True:
            problem: StepError | None = None
            checks: tuple[CheckResult, ...] = ()
            touched = executor.progress.touched
            try:
                state, checks = self.waiter.wait_until_proven(
                    declared,
                    snapshot.state,
                    touched=bool(touched),
                    unhealthy_timeout=UNHEALTHY_TIMEOUT if again else None,
                )
            except StepError as error:
                problem, state = error, self.observer.read_state()
            record = self._make_record(snapshot, state, touched)
            hops = self.observer.read_hops(state, declared, checks)
            left = self._plan_after(record, declared, state, checks, hops, executor.progress.tried)
            if problem is None and not left.problems and not left.refusals:
                proven = left.model_copy(update={"actions": ()})
                self._proven = Observation(proven, Snapshot(state, declared))
                return record
            steps = drop_record(left.actions)
            if not again or not steps or left.refusals:
                raise problem or self._explain(left, state)
            again = False
            self.report_plan(left)
            executor.walk(steps, Snapshot(state, declared))

    def _make_record(
        self, snapshot: Snapshot, state: StackState, touched: frozenset[str]
    ) -> Applied:
        """The record that this run leaves, if it ends well."""
        source = self.source
        return make_record(
            snapshot.state.applied,
            self.spec,
            source.digests,
            source.digest,
            snapshot.declared,
            state,
            touched,
        ).model_copy(
            update={
                "names_files": source.names_files,
                "checkout": self._fetched.checkout if self._fetched else None,
            }
        )

    def _plan_after(
        self,
        record: Applied,
        declared: Declared,
        state: StackState,
        checks: Sequence[CheckResult],
        hops: Sequence[CheckResult],
        tried: frozenset[str],
    ) -> Plan:
        """What would be left to do if what runs now were recorded as it should be."""
        images = {container.image: Image(id=container.image_id) for container in state.containers}
        proven = state.model_copy(update={"applied": record, "files": self.source.digests})
        known = read_declaration(record, proven).model_copy(
            update={"images": {**declared.images, **images}}
        )
        return self._plan(proven, known, checks, hops, tried)

    def _explain(self, left: Plan, state: StackState) -> StepError:
        """The error of a stack that is not proven, with what its containers wrote last."""
        problems = [f"{finding.subject}: {finding.cause}" for finding in left.problems]
        reasons = [refusal.reason for refusal in left.refusals]
        evidence = [line for finding in left.problems for line in finding.evidence]
        names = {finding.subject for finding in left.problems}
        for check in self.spec.checks:
            if check.name in names:
                names.update(check.list_services())
        logs = self.observer.read_logs(sorted(names), state, healthy=True)
        return StepError(f"not proven healthy: {'; '.join(problems or reasons)}", evidence + logs)

    def _roll_back(self, executor: Executor, snapshot: Snapshot, applied: Applied) -> None:
        """Put back the files and images that were proven, and the services on them."""
        name = self.spec.project
        announce.show_line(self.host, f"{name}: rolling back to what was proven before")
        state: StackState | None = None
        # Where the engine does not answer, the files are still put back.
        with suppress(StepError):
            state = self.observer.read_state()
        source, touched = self.source, executor.progress.touched
        decided = roll_back(source.files, source.digest, applied, snapshot.declared, state, touched)
        self.report_plan(decided)
        before = snapshot.state
        restored = Snapshot(state or before, read_declaration(applied, before))
        executor = executor.take_record(applied)
        executor.walk(decided.actions, restored)
        self._wait_until_stable(executor, restored)
        if is_intact_before(before):
            command = commands.clear_stale(self.spec)
            executor.run(command, "cannot record that every service runs on the files before")
        cause = "the files and images before are back, and it is healthy as it was with them"
        found = decision.Finding(subject=name, kind="rolled back", cause=cause, blocks=False)
        self.report_plan(Plan(findings=(found,)))

    def _wait_until_stable(self, executor: Executor, snapshot: Snapshot) -> None:
        touched = bool(executor.progress.touched)
        self.waiter.wait_until_stable(snapshot.declared, snapshot.state, touched=touched)

    # What is reported

    @contextmanager
    def step(self, *actions: decision.Action) -> Iterator[None]:
        """Report and journal what the block does to the project, however it ends."""
        with announce.track(self.host, self.report, *actions, within=self.spec.project):
            yield

    def report_error(self, error: StepError | OSError) -> None:
        """Show an error on the terminal and in the report, without secrets."""
        message = self.observer.redact(str(error))
        log = error.log if isinstance(error, StepError) else ()
        announce.report_error(self.host, self.report, self.subject, message, log)
