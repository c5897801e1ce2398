"""The parts of the loop that are the benchmark's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.decision import Finding
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.reporting import announce
from stackmend.worker.benchmark import (
    baseline,
    conditions,
    fingerprint,
    guards,
    identity,
    learning,
    leftovers,
    loading,
    loads,
    measuring,
    progress,
    queue,
    reader,
    statistics,
    store,
    turns,
)
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.facts import BenchmarkHost, make_arguments
from stackmend.worker.benchmark.plan import (
    Action,
    Measure,
    Plan,
    count_retries,
    list_shortfalls,
)
from stackmend.worker.benchmark.plan import plan as make_plan
from stackmend.worker.benchmark.state import (
    Answers,
    BenchmarkState,
    Entry,
    Fingerprint,
    Level,
    Load,
    Measurement,
    Record,
    Reference,
    Result,
    Summary,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pyinfra.api.host import Host

    from stackmend.reporting import Collector
    from stackmend.worker.benchmark.conditions import ReadConditions
    from stackmend.worker.benchmark.measuring import Ready
    from stackmend.worker.benchmark.progress import OnProgress
    from stackmend.worker.benchmark.spec import BenchmarkSpec, Profile

#: Seconds that a model may take to load, and its server to answer meanwhile.
LOADING = 2 * loading.LOADING

#: What is to be done about a result that something spoiled.
AGAIN = "run again when nobody changes the server"


@dataclass
class BenchmarkReconciler(Reconciler[BenchmarkState, Action]):
    """The measurement of one server.

    :ivar on_result: called with where a result lies on this machine.
    """

    subject = "benchmark"

    host: Host
    spec: BenchmarkSpec
    report: Collector
    on_result: Callable[[Path], None]
    _measured: Entry | None = None
    _has_turn: bool = False
    _waits: bool = False

    def __post_init__(self) -> None:
        self._files = store.get_files(self.spec)

    def find_step_limit(self, action: Action) -> float:
        """Seconds that an action has: a measurement as long as its requests may take."""
        if not isinstance(action, Measure):
            return self.step_limit
        profile = self.spec.profile
        requests = profile.warmups + profile.repeats * profile.count_requests(1)
        # What is unsure is measured again, once.
        each = 2 * requests * profile.timeout
        preparing = LOADING + learning.MOST_ASKED * learning.find_limit(profile)
        return preparing + each * len(loads.list_loads(profile))

    def observe(self, *, fresh: bool = False) -> Observation[BenchmarkState, Action]:
        """Read the host, ask its server what it is, and plan. No inference is asked for."""
        state = self._read(fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "the hardware of the host")
        plan = make_plan(self.spec, state)
        self._waits = False
        if any(isinstance(action, Measure) for action in plan.actions):
            # Whom a measurement would disturb is asked only where there is to be one.
            state = self._watch(self._complete_answers(state))
            plan = make_plan(self.spec, state)
        latest = state.machine.record.latest
        # What is refused has no result: one of before says nothing of the server that is meant.
        if latest is not None and not plan.refusals:
            self._report_figures(latest)
        if latest is not None and not plan.refusals and not plan.actions:
            self._show(store.find_path(self.host, self.spec.slug, latest.at))
        return Observation(plan, state)

    def preview(self, observation: Observation[BenchmarkState, Action]) -> Plan:
        """What a measurement waits for before it begins is no refusal yet."""
        plan = observation.plan
        if not self._waits:
            return plan
        waiting = tuple(row for row in plan.refusals if row.remedy == guards.allow("busy"))
        findings = tuple(
            Finding(
                subject=row.subject,
                kind="waits",
                cause=f"{row.reason.partition(';')[0]}; a measurement that was cut short left "
                "that, and the next one waits until it is over",
                blocks=False,
            )
            for row in waiting
        )
        refusals = tuple(row for row in plan.refusals if row not in waiting)
        update = {"findings": (*plan.findings, *findings), "refusals": refusals}
        return plan.model_copy(update=update)

    @contextmanager
    def take_turn(self, plan: Plan) -> Iterator[None]:
        """Wait until nothing else that this process measures spoils this measurement.

        Whom it would disturb, and when it begins, is read after that.
        """
        if not any(isinstance(action, Measure) for action in plan.actions):
            yield
            return
        spec = self.spec
        # Where a service answers is not known yet, and no other host reaches it there.
        address = spec.endpoint.address if spec.endpoint is not None else spec.service_name
        endpoint = Endpoint(spec.target, address, spec.server_port, "")
        with turns.take_turn(self.host, endpoint, shared=spec.endpoint is not None):
            self._has_turn = True
            try:
                yield
            finally:
                self._has_turn = False

    def execute(self, plan: Plan, state: BenchmarkState, lease: connection.Lease) -> bool:
        """Measure, or collect what was measured."""
        for action in plan.actions:
            lease.check()
            with self.step(action):
                if isinstance(action, Measure):
                    self._measure(action, state, lease)
                else:
                    self._collect(state)
        return True

    def verify(self, executed: Plan, before: BenchmarkState) -> Observation[BenchmarkState, Action]:
        """Hold the result against the host as it is now; what was just measured is of now."""
        current = self._read(fresh=True)
        if isinstance(current, connection.Unknown):
            return observe_unreadable(current, "the hardware of the host")
        if self._measured is not None:
            self._report_figures(self._measured)
            machine = current.machine.model_copy(update={"now": self._measured.at})
            current = current.model_copy(update={"machine": machine})
        plan = make_plan(self.spec, current)
        if plan.empty and plan.findings:
            # What fails nothing is worth a line all the same.
            self.report_plan(plan)
        return Observation(plan, current)

    def _read(self, *, fresh: bool) -> BenchmarkState | connection.Unknown:
        arguments = make_arguments(self.spec, self._files.record)
        (machine,) = self.fetch((BenchmarkHost, arguments), fresh=fresh)
        if isinstance(machine, connection.Unknown):
            return machine
        answers: Answers = connection.derive(
            self.host,
            ("benchmark", self.spec),
            [machine],
            lambda: identity.ask(self.host, self.spec, machine),
        )
        latest = machine.record.latest
        path = store.find_path(self.host, self.spec.slug, latest.at) if latest is not None else None
        shortfalls = list_shortfalls(self.spec, machine.record)
        return BenchmarkState(
            machine=machine,
            answers=answers,
            # What cannot be shown is collected once more, over what lies there.
            collected=path is None or reader.is_readable(path),
            is_outdated=path is not None and reader.is_outdated(path, shortfalls),
        )

    def _complete_answers(self, state: BenchmarkState) -> BenchmarkState:
        machine, answers = state.machine, state.answers
        shared = self.spec.endpoint is not None and not turns.is_loopback(answers.address)
        waits = shared and not self._has_turn

        def complete() -> Answers:
            # What another host of this run measures there is nobody else's.
            endpoint = self._make_endpoint("", answers)
            turn = turns.take_turn(self.host, endpoint, shared=True) if waits else nullcontext()
            with turn:
                found = identity.complete(self.host, self.spec, machine, answers)
                if not self._has_turn:
                    return found
                # Only who is about to measure waits: a dry run, or one that observes, never does.
                return leftovers.wait_for_own(self.host, self.spec, self._files, found)

        key = ("benchmark, completed", self.spec, self._has_turn)
        completed: Answers = connection.derive(self.host, key, [machine], complete)
        if not self._has_turn:
            self._waits = leftovers.has_own(self.host, self.spec, self._files, completed)
        return state.model_copy(update={"answers": completed})

    def _watch(self, state: BenchmarkState) -> BenchmarkState:
        """The state with a longer look at a server that does not count its requests."""
        if not guards.has_to_be_watched(self.spec, state):
            return state
        readings = [state.machine]
        for _ in range(guards.READINGS - 1):
            arguments = make_arguments(self.spec, self._files.record)
            (machine,) = self.fetch((BenchmarkHost, arguments), fresh=True)
            if isinstance(machine, connection.Unknown):
                break
            readings.append(machine)
        return state.model_copy(update={"machine": guards.add_readings(readings)})

    def _measure(self, action: Measure, state: BenchmarkState, lease: connection.Lease) -> None:
        if not self._has_turn:
            raise StepError(f"its result holds no longer: {action.cause}; run again")
        record = state.machine.record
        endpoint = self._make_endpoint(action.model, state.answers)
        reader = self._make_reader(state, lease)
        held = baseline.find_next(self.spec, record, action.fingerprint)
        store.reserve(self.host, self._files, self.spec)
        if self.spec.target == "queue":
            leftovers.mark(self.host, self._files, asking=True)
        with progress.display(self.host, self.spec.server) as on_progress:
            # Who cannot be measured is let go by itself.
            prepared = self._prepare(endpoint)
            try:
                levels = self._ask(endpoint, self.spec.profile, reader, on_progress, prepared)
                summaries = self._summarize(levels, prepared.rtt)
                # What no client of ours measures steadily is no better with more repeats.
                steady = self._summarize([row for row in levels if not row.noisy], prepared.rtt)
                if unsure := self._find_unsure(record, held, action, steady):
                    profile = self._limit_loads(unsure)
                    named = ", ".join(map(str, unsure))
                    announce.show_line(
                        self.host, f"{named}: slower than the baseline; measured once more"
                    )
                    more = self._ask(endpoint, profile, reader, on_progress, prepared)
                    levels = statistics.add_repeats(levels, more)
                    summaries = self._summarize(levels, prepared.rtt)
            finally:
                if isinstance(prepared, learning.Prepared):
                    loading.release(self.host, endpoint, prepared.protocol)
        if self.spec.target == "queue" and _is_over(levels):
            leftovers.mark(self.host, self._files, asking=False)
        measurement = Measurement(
            target=self.spec.target,
            name=self.spec.server,
            model=action.model,
            host=self.host.name,
            at=state.machine.now,
            cause=action.cause,
            fingerprint=self._complete(action),
            limits=self.spec.profile.limits,
            rtt=prepared.rtt,
            load=prepared.load,
            verified=prepared.verified,
            levels=levels,
        )
        retries = count_retries(self.spec, record)
        entry = store.make_entry(measurement, summaries, retries)
        lease.check()
        updated = baseline.update(record, entry, held, self.spec.threshold)
        try:
            store.write_result(self.host, self._files, measurement, updated)
        except (StepError, connection.RemoteError):
            # What was measured is worth more than the minutes that it took.
            self._collect_result(measurement, updated)
            raise
        self._measured = entry
        # What was written is what the next reading is to find.
        connection.invalidate(self.host)
        self._collect_result(measurement, updated)

    def _prepare(self, endpoint: Endpoint) -> Ready:
        if self.spec.target == "queue":
            return queue.prepare(self.host, endpoint, self.spec.profile)
        return learning.prepare(self.host, endpoint, self.spec.profile)

    def _make_endpoint(self, model: str, answers: Answers) -> Endpoint:
        spec = self.spec
        if spec.target == "queue":
            # A task that names no model is done with that of the worker.
            model = spec.model or ""
        return Endpoint(
            protocol=spec.target,
            address=answers.address,
            port=answers.port,
            model=model,
            tls=spec.endpoint is not None and spec.endpoint.tls,
            base_path=spec.base_path,
            api_key=spec.api_key.get_secret_value() if spec.api_key is not None else "",
        )

    def _make_reader(self, state: BenchmarkState, lease: connection.Lease) -> ReadConditions:
        processes = [server.process for server in state.machine.servers if server.process]
        return conditions.guard(
            conditions.make_reader(self.host, processes),
            lease.check,
            guards.allow("memory"),
            allowed="memory" in self.spec.allow,
        )

    def _ask(
        self,
        endpoint: Endpoint,
        profile: Profile,
        reader: ReadConditions,
        on_progress: OnProgress,
        prepared: Ready,
    ) -> tuple[Level, ...]:
        return measuring.measure(
            self.host, endpoint, profile, reader, on_progress, prepared=prepared
        )

    def _summarize(self, levels: Sequence[Level], rtt: float) -> tuple[Summary, ...]:
        limits = self.spec.profile.limits
        return tuple(statistics.summarize(level, limits, rtt) for level in levels)

    def _find_unsure(
        self,
        record: Record,
        held: Sequence[Reference],
        action: Measure,
        summaries: Sequence[Summary],
    ) -> tuple[Load, ...]:
        runs = baseline.find_run_spreads(baseline.list_past(record), action.fingerprint)
        before = [reference.summary for reference in held]
        return statistics.find_unsure(
            statistics.compare(before, summaries, self.spec.threshold, runs)
        )

    def _limit_loads(self, chosen: Sequence[Load]) -> Profile:
        """The profile with the loads alone that are measured once more."""
        profile = self.spec.profile
        if profile.rate is not None:
            return profile
        return profile.model_copy(
            update={"concurrency": tuple(load.concurrency for load in chosen)}
        )

    def _complete(self, action: Measure) -> Fingerprint:
        """The fingerprint with what is known now that the model is loaded.

        :raises StepError: something else changed while it was measured.
        """
        state = self._read(fresh=True)
        if isinstance(state, connection.Unknown):
            raise StepError(f"cannot read the host after measuring: {state.reason}; run again")
        model = fingerprint.find_model(self.spec, state.answers)
        if model is None:
            reason = state.answers.reason or "it has not the model any more"
            raise StepError(f"the server changed while it was measured: {reason}; {AGAIN}")
        later = fingerprint.build(self.spec, state, model)
        if changes := fingerprint.list_changes(action.fingerprint, later):
            changed = "; ".join(changes)
            raise StepError(f"the result is void: {changed} while it was measured; {AGAIN}")
        return fingerprint.complete(action.fingerprint, later)

    def _collect(self, state: BenchmarkState) -> None:
        """Write the result that the host has to the controller.

        :raises StepError: it cannot be written.
        """
        record = state.machine.record
        latest = record.latest
        assert latest is not None, "it was planned to be collected"
        measurement = store.read_measurement(self.host, self._files.latest, latest.at)
        if measurement is None:
            # A run that is killed between its two writes leaves samples that are of no result.
            announce.show_line(
                self.host,
                f"{self._files.latest} has no samples of the result in {self._files.record}: "
                "collected without them",
            )
            model = fingerprint.find_model(self.spec, state.answers)
            measurement = store.restore_measurement(
                self.host, self.spec, latest, model.name if model is not None else ""
            )
        self._collect_result(measurement, record)

    def _collect_result(self, measurement: Measurement, record: Record) -> None:
        """Write a result to the controller, with what it is compared to."""
        latest = record.latest
        assert latest is not None, "there is a result"
        held = record.held if self.spec.baseline != "none" else ()
        path = store.collect(
            self.host,
            self.spec.slug,
            Result(
                measurement=measurement,
                summaries=latest.summaries,
                baseline=store.make_baseline(measurement, held),
                baseline_summaries=tuple(reference.summary for reference in held),
                comparisons=baseline.hold(record, held, latest, self.spec.threshold),
                shortfalls=list_shortfalls(self.spec, record),
                history=baseline.list_history(record),
            ),
        )
        if path is not None:
            announce.show_line(self.host, f"{self.spec.server}: result in {path}")
        self._show(path)

    def _show(self, path: Path | None) -> None:
        """Have a result shown at the end of the run."""
        if path is not None:
            self.on_result(path)

    def _report_figures(self, entry: Entry) -> None:
        """The main figures of a result, in the report."""
        for row in entry.summaries:
            if row.requests_ps is not None:
                tasks = row.requests_ps.median * 60
                self.report.add_measure(f"tasks, {row.load}", tasks, "tasks/min")
            else:
                self.report.add_measure(f"output, {row.load}", row.output_tps.median, "tokens/s")
            if row.end is not None:
                self.report.add_measure(f"time for a task, {row.load}", row.end.median, "s")
            if row.ttft is not None:
                self.report.add_measure(f"ttft, {row.load}", row.ttft.median, "s")
            if row.tpot is not None:
                self.report.add_measure(f"tpot, {row.load}", row.tpot.median, "s")
            if row.median.goodput is not None:
                self.report.add_measure(f"goodput, {row.load}", row.median.goodput, "requests/s")
        self.report.add_measure("measured at", entry.at, "s since 1970")


def _is_over(levels: Sequence[Level]) -> bool:
    """Whether nobody gave up waiting for a task, which is still in its queue then."""
    samples = (row for level in levels for repeat in level.repeats for row in repeat.samples)
    return all(row.invalid not in ("timeout", "incomplete") for row in samples)
