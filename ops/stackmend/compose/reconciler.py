"""The parts of the loop that are this room's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from stackmend import connection, decision
from stackmend.addresses import Sources
from stackmend.addresses.spec import LinksPolicy
from stackmend.checks.facts import find_limit
from stackmend.checks.spec import NameCheck
from stackmend.compose import commands
from stackmend.compose.closure import list_laid_over, read_sources
from stackmend.compose.correction import apply_correction, is_possible, restore_correction
from stackmend.compose.executor import Executor, Snapshot
from stackmend.compose.facts import EngineHung, NoCompose
from stackmend.compose.layer import (
    Layered,
    describe_layer,
    find_covered,
    find_edited,
    include_layer,
    keep_covered,
)
from stackmend.compose.listening import Listeners
from stackmend.compose.observer import LOG_TIMEOUT, OUTPUT_LIMIT, Observer, find_link_limit
from stackmend.compose.plan.actions import Action, Build, Plan, Pull, Record, ServiceAction
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.declaration import find_unpublished
from stackmend.compose.plan.format import fit_line, join_few
from stackmend.compose.plan.gates import (
    explain_hold,
    identify_attempt,
    is_declaration_needed,
    refuse_engine,
)
from stackmend.compose.plan.link_checks import make_link_checks
from stackmend.compose.plan.link_correction import (
    add_patch,
    find_excess,
    leave,
    list_correctable,
    make_correction,
)
from stackmend.compose.plan.link_findings import find_unheard
from stackmend.compose.plan.links import Links, add_results, classify_links, describe_others
from stackmend.compose.plan.order import (
    drop_record,
    is_change,
    is_creating,
    is_writing,
    separate,
)
from stackmend.compose.plan.path import list_checked
from stackmend.compose.plan.record import make_record, read_declaration
from stackmend.compose.plan.rollback import hold_back, is_intact_before, is_restored, roll_back
from stackmend.compose.plan.wrong_addresses import find_wrong_addresses
from stackmend.compose.remote import FETCH_LIMIT, Fetched, Unfetched, fetch
from stackmend.compose.spec import GitSource
from stackmend.compose.state import (
    LAYER_FILE,
    Applied,
    CheckedServices,
    Correction,
    Declared,
    Engine,
    Image,
    StackState,
)
from stackmend.compose.waiter import Waiter
from stackmend.decision import Refusal
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.reconcile import (
    OVERHEAD,
    Observation,
    Reconciler,
    find_other_run,
    observe_unreadable,
    reconcile_locked,
)
from stackmend.reporting import announce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyinfra.api.host import Host

    from stackmend.addresses.state import Running
    from stackmend.checks.spec import Check
    from stackmend.checks.state import CheckResult
    from stackmend.compose.source import Source
    from stackmend.compose.spec import ComposeSpec
    from stackmend.reporting import Collector

#: Seconds for which a mended service may be unhealthy before the next stronger remedy.
UNHEALTHY_TIMEOUT = 10.0
#: Seconds that links have to work once the stack is healthy: not all that serves has a healthcheck.
LINK_TIMEOUT = 20.0
#: Findings that say that a stack is not as declared, and nothing of how it runs.
DRIFT = frozenset({"changed", "image", "content", "files", "source", "drift", "scale", "orphan"})


class Project(NamedTuple):
    """What a project is on a host, for another room.

    :param files: the project's own files, with what is laid over them, by path.
    :param laid_over: the compose files among them that make it up, in their order.
    :param names_files: whether its ``.env`` says which compose files there are.
    :param converged: whether :func:`stackmend.compose.stack` would find nothing to do.
    """

    state: StackState
    declared: Declared
    files: Mapping[str, bytes]
    laid_over: tuple[str, ...]
    names_files: bool
    converged: bool


@dataclass
class ComposeReconciler(Reconciler[Snapshot, Action]):
    """One project on one host.

    :param on_bind_error: asked with the engine's words where a container cannot be started; where
        it returns true the start is tried once more.
    :param explains: whether the project is only observed, for whoever explains it: then each wrong
        address by which a call fails is a finding, and the section ``links`` is not needed for it.
    """

    # A plan that refuses has no steps, but for those that mend the stack before a failed change.
    all_or_nothing = False
    rooms: ClassVar[tuple[str, ...]] = ("compose",)
    drift: ClassVar[frozenset[str]] = DRIFT

    host: Host
    spec: ComposeSpec
    source: Source
    report: Collector
    on_bind_error: Callable[[Host, str], bool] | None = None
    explains: bool = False
    observer: Observer = field(init=False)
    waiter: Waiter = field(init=False)
    _plain: Source = field(init=False)
    _own: Source = field(init=False)
    _layer: str = field(default="", init=False)
    _sources: Sources | None = field(default=None, init=False)
    _classified: tuple[tuple[Sources, Declared, Running], Links] | None = field(
        default=None, init=False
    )
    _correction: Correction | None = field(default=None, init=False)
    _links: tuple[Links, Declared] | None = field(default=None, init=False)
    _fetched: Fetched | None = field(default=None, init=False)
    _unfetched: Refusal | None = field(default=None, init=False)
    _reading: Any = field(default=None, init=False)
    _observed: Observation[Snapshot, Action] | None = field(default=None, init=False)
    _proven: Observation[Snapshot, Action] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.subject = self.spec.project
        self._plain = self._own = self.source
        self.observer = Observer(self.host, self.spec, self.source)
        self.waiter = Waiter(self.observer)

    # What is observed

    def observe(self, *, fresh: bool = False) -> Observation[Snapshot, Action]:
        """Read the host and plan. Changes nothing."""
        state, *checked = self.fetch(*self.observer.list_facts(), fresh=fresh)
        self._reading = state
        if isinstance(state, connection.Unknown):
            self._observed = observe_unreadable(state, "its state")
            return self._observed
        state = self.observer.complete(state)
        # What a run has sent that is still at work is no leftover.
        if state.staged and find_other_run(self.host):
            state = state.model_copy(update={"staged": False})
        try:
            self._observed = self._decide(state, self.observer.collect_results(checked))
        except (EngineHung, NoCompose) as error:
            engine = Engine(
                status="hung" if isinstance(error, EngineHung) else "no-compose", reason=str(error)
            )
            refused = refuse_engine(state.model_copy(update={"engine": engine}))
            self._observed = Observation(refused or Plan())
        return self._observed

    def list_states(self, observation: Observation[Snapshot, Action]) -> tuple[object, ...]:
        """What was read of the project, and what it is to be."""
        snapshot = observation.state
        if snapshot is None:
            return ()
        services = snapshot.declared.services
        checked = {check.name: tuple(list_checked(check, services)) for check in self.spec.checks}
        return snapshot.state, snapshot.declared, CheckedServices(services=checked)

    def is_sound(self, plan: decision.Plan[Action]) -> bool:
        """Whether the stack was well; what new files bring was not missing."""
        kinds = {finding.kind for finding in plan.problems}
        return kinds <= (DRIFT | {"missing"} if "files" in kinds else DRIFT)

    def leave_out(self, actions: Sequence[Action], held: Sequence[Action]) -> tuple[Action, ...]:
        """The steps of other services that wait for none of those held."""
        return separate(actions, held)

    def list_affected(self, subjects: Collection[str]) -> Collection[str]:
        """The checks that need one of these services."""
        checks = self.spec.checks
        return [each.name for each in checks if {*subjects} & {*each.list_services()}]

    def identify_desired(self) -> str:
        """The digest of the project's files."""
        return self.source.digest

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
        # Under the lock they are asked for once more.
        links = find_link_limit(self._make_link_checks(), 2) if self.spec.links else 0
        beside = fetching + links + OUTPUT_LIMIT
        return OVERHEAD + commands.BUSY_TIMEOUT + commands.LIMIT + beside + steps

    def find_step_limit(self, action: Action) -> float:
        """Seconds that one action has, with the wait for a command of an earlier run."""
        limit: float = commands.IMAGE_LIMIT if isinstance(action, Pull | Build) else commands.LIMIT
        # The project is read before it, and where it fails, with the logs of its services.
        limit += 2 * OUTPUT_LIMIT + LOG_TIMEOUT
        if isinstance(action, Record):
            # Of what is waited for, how it ended; and what services wrote that are corrected.
            limit += 2 * LOG_TIMEOUT
            limit += self.spec.stability + find_limit(self.spec.checks)
            # A reading that begins within the time for them has its own.
            checks = self._make_link_checks()
            limit += LINK_TIMEOUT + find_link_limit(checks, 1) if self.spec.links else 0
        if isinstance(action, Record | ServiceAction):
            limit += self.spec.health_timeout
        return limit + commands.BUSY_TIMEOUT

    def _make_link_checks(self) -> tuple[Check, ...]:
        """The checks that prove the links that were read last, once everything runs."""
        if self._links is None:
            return ()
        links, declared = self._links
        return make_link_checks(self.spec, links.links, declared, None)

    def find_unpublished(self) -> tuple[str, ...]:
        """The ports that the project is to have and has not, as far as the host can be read."""
        snapshot = self.observe().state
        return () if snapshot is None else find_unpublished(snapshot.declared, snapshot.state)

    def _decide(
        self, state: StackState, checks: Sequence[CheckResult]
    ) -> Observation[Snapshot, Action]:
        spec = self.spec
        if refused := refuse_engine(state):
            return Observation(refused)
        if refusal := self._fetch_source():
            return self._hold(refusal, state, checks)
        layered = include_layer(self._plain, state.layer)
        self._own, self.observer.kept = layered.source, layered.kept
        if layered.problem:
            return self._hold(self._refuse_unfit(layered), state, checks)
        self._layer = state.layer
        self._set_correction(restore_correction(spec, self._own, state.applied))
        # What would be applied is known with what corrects it, and no earlier.
        correcting = is_possible(spec, self._own)
        if not correcting and (reason := explain_hold(spec, self.source.digest, state)):
            failed = None if is_restored(state) else self.observer.resolve(state.files)
            return self._hold_back(reason, state, checks, failed)
        if self._is_declaration_needed(state):
            declared, state = self._resolve(state)
            if correcting and (reason := explain_hold(spec, self.source.digest, state)):
                failed = None if is_restored(state) else declared
                return self._hold_back(reason, state, checks, failed)
        else:
            assert state.applied is not None, "without a record a declaration is needed"
            declared = read_declaration(state.applied, state)
        hops = self.observer.read_hops(state, declared, checks)
        links = self._read_links(state, declared, checks)
        decided = self._plan(state, declared, checks, hops, links)
        if is_writing(decided.actions):
            declared = declared.model_copy(update={"free": self.observer.measure_free()})
            decided = self._plan(state, declared, checks, hops, links)
        if is_creating(decided.actions):
            around = self.observer.read_surroundings(declared)
            declared = declared.model_copy(update={"surroundings": around})
            decided = self._plan(state, declared, checks, hops, links)
        changes = is_change(decided.findings, state.applied, self.source.digest)
        if links is not None and self.explains:
            wrong = find_wrong_addresses(self.spec, state, links, decided, self.observer.redact)
            decided = decided.model_copy(update={"findings": (*decided.findings, *wrong)})
        return Observation(decided, Snapshot(state, declared, changes=changes))

    def _refuse_unfit(self, layered: Layered) -> Refusal:
        return Refusal(
            subject=self.spec.project,
            reason=f"{LAYER_FILE}, which is to be laid over the project's files, does not fit "
            f"them: {layered.problem}",
            remedy=f"{layered.remedy}: {commands.locate_state(self.spec)}/layer.yaml on the host",
        )

    def _is_declaration_needed(self, state: StackState) -> bool:
        """Whether Compose is asked: about other files, or to correct what is not corrected yet."""
        if is_declaration_needed(self.spec, self.source.digest, state):
            return True
        if state.applied is None or not is_possible(self.spec, self._own):
            return False
        known = self._correction.left if self._correction else {}
        links = self._classify_links(read_declaration(state.applied, state), state)
        return not list_correctable(links) <= known.keys()

    def _resolve(self, state: StackState) -> tuple[Declared, StackState]:
        """What Compose makes of the files, with wrong links corrected where that is desired."""
        self._set_correction(None)
        declared = self.observer.resolve(state.files)
        state = self.observer.sort_out(state)
        if not is_possible(self.spec, self._own):
            return declared, state
        links = self._read_links(state, declared, ())
        assert links is not None, "links are desired"
        correction = make_correction(
            self.spec, self._read_sources(), declared, links, state, self.observer.redact
        )
        corrected, problem = declared, ""
        if correction.content:
            self._set_correction(correction)
            try:
                corrected = self.observer.resolve(state.files)
                problem = find_excess(declared, corrected, links)
            except StepError as error:
                problem = self.observer.redact(str(error))
        if problem:
            # A wrong link that is reported is better than a file that changes something else.
            corrected = declared
        left = list_correctable(self._classify_links(corrected, state))
        self._set_correction(leave(correction, left, problem))
        return corrected, state

    def _set_correction(self, correction: Correction | None) -> None:
        """Take the project's own files, and over them what corrects their links."""
        self._correction = correction
        self.source = self.observer.source = apply_correction(self._own, correction)

    def _read_links(
        self,
        state: StackState,
        declared: Declared,
        checks: Sequence[CheckResult],
        attempts: int = 2,
    ) -> Links | None:
        """What is known of the addresses between services, as far as anybody asks for it."""
        spec = self._find_linked_spec()
        desired = spec.links is not None
        if not desired and all(result.outcome == "passed" for result in checks):
            return None
        links = self._classify_links(declared, state)
        self._links = links, declared
        if desired and state.containers:
            asked = make_link_checks(spec, links.links, declared, state)

            def ask() -> tuple[dict[str, CheckResult], Listeners]:
                results = self.observer.read_links(asked, state, attempts) if asked else {}
                # Of what works nobody asks why, nor of a name that nothing here has.
                calls = (check for check in asked if not isinstance(check, NameCheck))
                answered = not links.wrong and all(
                    check.name in results and results[check.name].ok for check in calls
                )
                return results, {} if answered else self.observer.read_listeners(state)

            # Whoever waits asks anew; else it is asked as often as the host is read.
            key = "links", self.spec.project, asked
            waiting = attempts == 1
            found = ask() if waiting else connection.derive(self.host, key, [self._reading], ask)
            links = add_results(spec, self._read_sources(), declared, links, state, *found)
        proven = state.applied is not None and state.applied.source == self.source.digest
        links = links.model_copy(update={"proven": proven})
        if not desired:
            return links
        return add_patch(links, self._read_sources(), self._correction, self.observer.redact)

    def _find_linked_spec(self) -> ComposeSpec:
        """The settings; to explain a host links are asked for without their section."""
        if self.spec.links is None and self.explains:
            return self.spec.model_copy(update={"links": LinksPolicy()})
        return self.spec

    def _read_sources(self) -> Sources:
        """The project's own files, read once."""
        if self._sources is None or self._sources.files is not self._own.contents:
            self._sources = read_sources(self._own, self.spec.variables)
        return self._sources

    def _classify_links(self, declared: Declared, state: StackState) -> Links:
        """What links are by what is known before they are asked for."""
        sources = self._read_sources()
        key = sources, declared, describe_others(state)
        known = self._classified
        if known is None or known[0][0] is not sources or known[0][1:] != key[1:]:
            known = key, classify_links(self._find_linked_spec(), sources, declared, key[2])
            self._classified = known
        return known[1]

    def _hold_back(
        self,
        reason: str,
        state: StackState,
        checks: Sequence[CheckResult],
        failed: Declared | None,
    ) -> Observation[Snapshot, Action]:
        """Mend what was proven, while the files that failed are not tried."""
        assert state.applied is not None, "only what replaced a record can have failed"
        decided = hold_back(self.spec, self.source.files, state, checks, reason, failed)
        declared = read_declaration(state.applied, state)
        return Observation(decided, Snapshot(state, declared, held=True))

    def _fetch_source(self) -> Refusal | None:
        """Have the files of a git repository, once; the refusal where they cannot be had."""
        if isinstance(self.spec.source, GitSource) and not self._fetched and not self._unfetched:
            try:
                self._fetched = fetch(self.host, self.spec, self.spec.source)
            except Unfetched as error:
                self._unfetched = error.refusal
            else:
                self._plain = self._own = self._fetched.source
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
        links: Links | None,
        tried: frozenset[str] = frozenset(),
    ) -> Plan:
        source = self.source
        decided = plan(
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
            links,
        )
        laid = self._find_laid(state)
        return decided.model_copy(update={"findings": (*decided.findings, *laid)})

    def _find_laid(self, state: StackState) -> Iterator[decision.Finding]:
        """What the layer makes of the project's own files, and where these changed beneath it."""
        project, own = self.spec.project, self._plain
        if done := describe_layer(own, self._layer):
            cause = f"{LAYER_FILE} is laid over its files: it {done}"
            yield decision.Finding(subject=project, kind="layer", cause=cause, blocks=False)
        known = state.applied.covered if state.applied else {}
        if edited := find_edited(known, find_covered(own, self._layer)):
            names = fit_line(join_few(edited, ", "))
            yield decision.Finding(
                subject=project,
                kind="layer",
                cause=f"{names} in its files changed since {LAYER_FILE} was laid over them, and "
                "does not count",
                remedy=f"to have it count, take it out of {commands.locate_state(self.spec)}/"
                "layer.yaml on the host",
                blocks=False,
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
            if snapshot.state.staged:
                executor.discard_staged()
            return True
        try:
            done = self._apply(executor, decided, snapshot)
        except (StepError, connection.RemoteError):
            executor.discard_staged()
            raise
        if not done:
            executor.discard_staged()
        return done

    def _apply(
        self, executor: Executor, decided: decision.Plan[Action], snapshot: Snapshot
    ) -> bool:
        """Carry out a plan for the desired files; take back a change that fails."""
        applied = snapshot.state.applied
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
            with self.allow_return():
                self._roll_back(executor, snapshot, applied)
            return False
        return True

    def verify(
        self, decided: decision.Plan[Action], snapshot: Snapshot
    ) -> Observation[Snapshot, Action]:
        """What was proven before it was recorded; where nothing was done, what was observed."""
        if self._proven is None:
            return Observation(decided, snapshot)
        known = {(finding.subject, finding.kind, finding.cause) for finding in decided.findings}
        # Before anything ran, nobody could be asked for some of it.
        new = tuple(
            finding
            for finding in self._proven.plan.findings
            if finding.kind == "link"
            and (finding.subject, finding.kind, finding.cause) not in known
        )
        if new:
            self.report_plan(Plan(findings=new))
        return self._proven

    def verify_part(
        self, decided: decision.Plan[Action], snapshot: Snapshot
    ) -> Observation[Snapshot, Action]:
        """Wait until the services that were mended are healthy, and observe."""
        services = snapshot.declared.services
        names = {action.subject for action in decided.actions} & services.keys()
        self.waiter.wait_until_healthy(snapshot.declared, snapshot.state, names)
        return self.observe(fresh=True)

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
            links = self._wait_for_links(state, declared, checks, touched)
            left = self._plan_after(
                record, declared, state, checks, hops, links, executor.progress.tried
            )
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

    def _wait_for_links(
        self,
        state: StackState,
        declared: Declared,
        checks: Sequence[CheckResult],
        touched: Collection[str],
    ) -> Links | None:
        """What links are found to be, once those that should work do, or their time is over."""

        def is_waiting(links: Links | None, elapsed: float) -> bool:
            return links is not None and links.is_waiting and elapsed < LINK_TIMEOUT

        links = self.waiter.wait_while(
            is_waiting, lambda: self._read_links(state, declared, checks, attempts=1)
        )
        changes = self._correction.changes if self._correction else ()
        names = sorted({change.service for change in changes} & {*touched})
        if links is None or not names:
            return links
        logs = self.observer.read_lives(names, state)
        return links.model_copy(update={"unheard": find_unheard(changes, logs)})

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
                "correction": self._correction,
                "covered": keep_covered(
                    snapshot.state.applied.covered if snapshot.state.applied else {},
                    find_covered(self._plain, self._layer),
                ),
            }
        )

    def _plan_after(
        self,
        record: Applied,
        declared: Declared,
        state: StackState,
        checks: Sequence[CheckResult],
        hops: Sequence[CheckResult],
        links: Links | None,
        tried: frozenset[str],
    ) -> Plan:
        """What would be left to do if what runs now were recorded as it should be."""
        images = {container.image: Image(id=container.image_id) for container in state.containers}
        proven = state.model_copy(update={"applied": record, "files": self.source.digests})
        known = read_declaration(record, proven).model_copy(
            update={"images": {**declared.images, **images}}
        )
        return self._plan(proven, known, checks, hops, links, tried)

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
        source, progress = self.source, executor.progress
        attempt = identify_attempt(self.spec, source.digest) if progress.is_applied else ""
        decided = roll_back(
            source.files, attempt, applied, snapshot.declared, state, progress.touched
        )
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

    # What other rooms do to a project

    def describe(self) -> Project | str:
        """What the project is on the host, for another room; where it cannot be told, why."""
        observation = self.observe(fresh=True)
        decided, snapshot = observation.plan, observation.state
        if decided.refusals or snapshot is None:
            reasons = [refusal.reason for refusal in decided.refusals]
            return "; ".join(reasons) or "it cannot be read"
        return Project(
            state=snapshot.state,
            declared=snapshot.declared,
            files=self._own.contents,
            laid_over=list_laid_over(self._own),
            names_files=self._own.names_files,
            converged=decided.empty,
        )

    def apply_layer(self, content: str, lease: connection.Lease) -> bool:
        """Lay a file over the project's own, and bring the project to it; whether it is so now.

        Where it does not hold, the file before counts again, unless the project's files are still
        those with this one: whoever comes next then knows by it what the containers were made from.

        :param content: YAML; empty for no such file.
        :param lease: the lock of the host.
        :raises StepError: it cannot be written.
        :raises RemoteError: the host was lost on the way.
        """
        lease.check()
        self.wait_until_idle()
        before = self.observer.read_state().layer
        self._write_layer(content)
        self._observed = self._proven = None
        over: fleet.TimeOver | None = None
        try:
            if reconcile_locked(self, lease):
                return True
        except fleet.TimeOver as error:
            over = error
        except (StepError, connection.CommandTimeout) as error:
            self.report_error(error)
        if before.strip() != content.strip() and not self._is_installed(content):
            lease.check()
            self._write_layer(before)
        if over is not None:
            raise over
        return False

    def _is_installed(self, content: str) -> bool:
        """Whether the project's directory has the file that is made of this layer."""
        state = self.observer.read_state()
        layered = include_layer(self._plain, content)
        desired = layered.source.digests.get(LAYER_FILE)
        if layered.problem:
            return False
        if LAYER_FILE in state.files:
            return state.files[LAYER_FILE] == desired
        # A record of before there was such a file says nothing of what it holds.
        return (LAYER_FILE in state.defaults) == (desired is not None)

    def _write_layer(self, content: str) -> None:
        self.run(
            commands.write_layer(self.spec, content),
            f"cannot write what is laid over the files of {self.spec.project}",
            stdin=content.encode("utf-8", "surrogateescape"),
        )
        connection.invalidate(self.host)

    # What is reported

    @contextmanager
    def step(self, *actions: decision.Action) -> Iterator[None]:
        """Report and journal what the block does to the project, however it ends."""
        with (
            self.change(*actions),
            announce.track(self.host, self.report, *actions, within=self.spec.project),
        ):
            yield

    def report_error(self, error: StepError | OSError) -> None:
        """Show an error on the terminal and in the report, without secrets."""
        message = self.observer.redact(str(error))
        log = error.log if isinstance(error, StepError) else ()
        announce.report_error(self.host, self.report, self.subject, message, log)
