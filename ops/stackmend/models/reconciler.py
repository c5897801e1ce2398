"""The parts of the loop that are the models' own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from stackmend import connection, decision
from stackmend.decision import Finding
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.models import commands, modelfiles, peers, reading, registry
from stackmend.models.client import LOADING, LONGEST_PULL, Client
from stackmend.models.errors import TransientError
from stackmend.models.plan import (
    Action,
    Ask,
    Copy,
    Create,
    DeleteBlob,
    DropBlob,
    ModelSource,
    Plan,
    Prune,
    Pull,
    RemoveName,
    UpdateRecord,
    add_answer,
    add_digests,
    add_entry,
    add_leftovers,
    arrange,
    drop_answers,
    drop_entries,
    drop_leftovers,
    find_missing_base,
    keep_leftovers,
    plan,
    select_to_ask,
    select_to_check,
)
from stackmend.models.puller import Puller
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import Manifest, Record, Recorded, Registry, StoreState
from stackmend.reconcile import Observation, Reconciler, observe_unreadable

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector

#: Seconds that a server of the stack's own has to become healthy and to answer.
TIMEOUT = 120.0

#: Seconds likewise where no healthcheck says that it is still starting.
TIMEOUT_WITHOUT_HEALTH = 40.0

#: Seconds between two observations of a server that starts.
PAUSE = 2.0

#: What a deploy that runs before this operation may still bring.
COMING = ("absent", "stopped", "unreachable")

#: What ends the steps of one model, and of no other.
_ENDS = (StepError, TransientError, OSError, ValueError)


@dataclass
class ModelsReconciler(Reconciler[StoreState, Action]):
    """The models of one host."""

    subject = "models"
    all_or_nothing = False

    host: Host
    spec: ModelsSpec
    report: Collector
    _registry: Registry = field(default_factory=dict)
    _sources: Mapping[str, ModelSource] = field(default_factory=dict)
    _after: StoreState | None = None
    _record: Record = field(default_factory=Record)
    _unfinished: set[str] = field(default_factory=set)
    _recording: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._puller = Puller(self.host, self.spec)
        if self.spec.from_peers:
            peers.get_fleet(self.host.state).join(self.host, self.spec.fact_arguments, self.report)

    def find_step_limit(self, action: Action) -> float:
        """Seconds that one action has: a pull as long as it moves, any other to load a model."""
        return LONGEST_PULL + LOADING if isinstance(action, Pull) else LOADING

    def observe(self, *, fresh: bool = False) -> Observation[StoreState, Action]:
        """Read the server and its registries, and plan. Changes nothing."""
        state = reading.read(self.host, self.spec.fact_arguments, fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "the model server")
        self._registry = self._ask_registries(state)
        self._sources = modelfiles.read_sources(self.spec)
        return Observation(plan(self.spec, state, self._registry, self._sources), state)

    def preview(self, observation: Observation[StoreState, Action]) -> decision.Plan[Action]:
        """The plan, unless a deploy may still bring the server before the plan is executed."""
        server = observation.state.server if observation.state is not None else None
        if server is None or self.spec.endpoint or server.status not in COMING:
            return observation.plan
        finding = Finding(
            subject=f"service {self.spec.service}",
            kind=server.status,
            cause="the model server is not there yet; its models are pulled once it is",
        )
        return Plan(findings=(finding,))

    def wait_until_ready(self) -> Observation[StoreState, Action]:
        """Observe once the server is healthy and answers, or as it is when the time is over."""
        self._measure()
        observed = self.observe()
        if self._wait_for_endpoint(observed.state):
            observed = self.observe(fresh=True)
        started = time.monotonic()
        while time.monotonic() - started < self._find_timeout(observed.state):
            time.sleep(PAUSE)
            observed = self.observe(fresh=True)
        return observed

    def execute(
        self, plan: decision.Plan[Action], state: StoreState, lease: connection.Lease
    ) -> bool:
        """Carry out the actions of a plan in its order, and have each model answer that changed.

        Models do not wait for each other, nor does one that fails stop the others.
        """
        actions = plan.actions
        self._record = state.record
        failed: set[str] = set()
        fetched = {
            action.for_model for action in actions if isinstance(action, Pull | Copy | Create)
        }
        asks = {action.for_model: action for action in actions if isinstance(action, Ask)}
        try:
            # What ends this run from here on leaves them to be asked by the next.
            self._change_record(
                lambda record: add_leftovers(drop_answers(record, fetched), state, actions)
            )
            for stage in arrange([action for action in actions if not isinstance(action, Ask)]):
                chains = [chain for chain in stage.chains if self._can_start(chain, failed)]
                workers = self.spec.parallel if stage.parallel else 1
                with ThreadPoolExecutor(max_workers=workers) as pool:
                    ended = pool.map(lambda chain: self._execute_chain(chain, state, lease), chains)
                    failed |= set().union(*ended)
            return self._confirm(asks, failed, changed=bool(fetched)) and not failed
        finally:
            self._measure()

    def verify(
        self, executed: decision.Plan[Action], before: StoreState
    ) -> Observation[StoreState, Action]:
        """Plan for what the server has now; the registries are not asked again."""
        assert self._after is not None, "what was executed was confirmed"
        state = self._after.model_copy(update={"record": self._record})
        return Observation(plan(self.spec, state, self._registry, self._sources), state)

    def _ask_registries(self, state: StoreState) -> Registry:
        """The registries' answers, asked once for each reading of the server."""
        models = select_to_check(self.spec, state)
        if not models:
            return {}
        names = [str(model.name) for model in state.models]
        return connection.derive(
            self.host,
            self.spec,
            [state],
            lambda: registry.ask(self.host, models, self.spec, names, state.server),
        )

    def _wait_for_endpoint(self, state: StoreState | None) -> bool:
        """Wait for a server that another host of this run may still bring; whether that was so."""
        endpoint = self.spec.endpoint
        if endpoint is None or state is None or state.server.status == "up":
            return False
        other = fleet.find_host(self.host.state, endpoint.address)
        if other is None:
            return False
        arguments = {**self.spec.fact_arguments, "hashes": False}

        def is_up() -> bool:
            now = reading.read(self.host, arguments, fresh=True)
            return isinstance(now, StoreState) and now.server.status == "up"

        return fleet.wait_for_host(self.host, other, is_up)

    def _find_timeout(self, state: StoreState | None) -> float:
        """Seconds that a server is waited for in all."""
        # What is behind an endpoint is not the stack's own: no deploy starts it.
        if state is None or self.spec.endpoint or not state.server.may_start:
            return 0.0
        return TIMEOUT if state.server.is_starting else TIMEOUT_WITHOUT_HEALTH

    def _can_start(self, chain: Sequence[Action], failed: set[str]) -> bool:
        """Whether nothing failed that a chain rests on; what does not start has failed as well."""
        model = chain[0].for_model
        if model in failed:
            return False
        if base := find_missing_base(chain, failed):
            failed.add(model)
            # Made without it, the server would ask a registry for a name that is ours.
            self.report_error(
                StepError(f"could not create {chain[0].subject}: {base} failed, its base")
            )
            return False
        return True

    def _execute_chain(
        self, chain: Sequence[Action], state: StoreState, lease: connection.Lease
    ) -> set[str]:
        """Execute actions until one fails; the key of the model that failed, if one did."""
        for action in chain:
            try:
                lease.check()
                with self.step(action):
                    self._execute_action(action, state)
            except _ENDS as error:
                if isinstance(action, Create) and not isinstance(error, StepError):
                    # The next run need not send it again.
                    self._unfinished |= action.source.files.keys()
                log = error.log if isinstance(error, StepError) else ()
                reason = f"could not {action.verb} {action.subject}: {error}"
                self.report_error(StepError(reason, log))
                return {action.for_model}
        return set()

    def _execute_action(self, action: Action, state: StoreState) -> None:
        client = Client(self.host, state.server)
        match action:
            case DeleteBlob():
                self._drop_blob(action, state)
            case DropBlob():
                self._drop_blob(action, state)
            case Pull():
                borrowed = action.name.key != action.for_model
                # After a run that is cut the next one knows whose name this is.
                if borrowed and state.is_ours(action.name):
                    self._add_entry(action.name, state, manifest=action.manifest)
                elif borrowed:
                    self._change_record(lambda record: drop_entries(record, [str(action.name)]))
                self._puller.pull(action, state)
                if not borrowed:
                    self._add_entry(action.name, state, manifest=action.manifest)
            case Copy():
                client.copy(action.original, action.name)
                self._add_entry(action.name, state, manifest=action.manifest)
            case Create():
                self._puller.create(action, state)
                self._add_entry(action.name, state, source=action.source)
            case RemoveName() | Prune():
                client.remove(action.name)
                self._change_record(lambda record: drop_entries(record, [str(action.name)]))
            case UpdateRecord():
                self._change_record(lambda record: drop_entries(record, action.dropped))

    def _drop_blob(self, action: DeleteBlob | DropBlob, state: StoreState) -> None:
        place = state.server.place
        if place is None:
            raise StepError("cannot reach the server's disk")
        self.run(commands.delete_blob(place, action.digest), f"cannot change {place.path}")

    def _drop_leftovers(self, state: StoreState) -> StoreState:
        """Delete what the steps have left behind; what the server has then."""
        observed = state.model_copy(update={"record": self._record})
        blobs = dict(state.blobs or {})
        for action in drop_leftovers(observed, self._unfinished):
            with self.step(action):
                self._drop_blob(action, state)
            del blobs[action.digest]
        state = state if state.blobs is None else state.model_copy(update={"blobs": blobs})
        self._change_record(lambda record: keep_leftovers(record, state))
        return state

    def _add_entry(
        self,
        name: Name,
        state: StoreState,
        *,
        manifest: Manifest | None = None,
        source: ModelSource | None = None,
    ) -> None:
        """Record a model that was not there before, or that stackmend had pulled or created."""
        foreign = state.find_model(name) is not None and state.find_entry(name) is None
        if foreign and source is None:
            return
        entry = Recorded(
            digest=manifest.digest if manifest is not None else "",
            at=state.now,
            made_from=source.digest if source is not None else "",
        )
        self._change_record(lambda record: add_entry(record, name, entry))

    def _change_record(self, change: Callable[[Record], Record]) -> None:
        with self._recording:
            record = change(self._record)
            if record == self._record:
                return
            self.run(
                commands.write_record(self.spec.record),
                f"cannot write {self.spec.record}",
                stdin=record.model_dump_json().encode(),
            )
            self._record = record

    def _confirm(self, asks: Mapping[str, Ask], failed: Collection[str], *, changed: bool) -> bool:
        """Read the server again, and have each model answer that has to; whether all do.

        Those too that the plan did not name: the server may have been started again meanwhile.

        :param asks: the planned steps, by the model's key.
        :param failed: keys of models that are left out.
        :param changed: whether blobs were changed.
        """
        connection.invalidate(self.host)
        state = reading.read(self.host, self.spec.fact_arguments, fresh=True, changed=changed)
        if isinstance(state, connection.Unknown):
            raise StepError(f"cannot read the model server: {state.reason}")
        self._after = state = self._drop_leftovers(state)
        self._puller.count_unmeasured(state)
        bases = {
            str(model.name): source.base
            for model in self.spec.wanted
            if (source := self._sources.get(model.name.key)) is not None and source.base is not None
        }
        self._change_record(lambda record: add_digests(record, state, bases))
        answer = True
        client = Client(self.host, state.server)
        for model in select_to_ask(self.spec, state):
            if model.name.key in failed:
                continue
            ask = asks.get(model.name.key)
            try:
                with self.step(ask) if ask is not None else nullcontext():
                    client.check_answer(model.name)
            except (StepError, TransientError) as error:
                answer = False
                self.report_error(StepError(f"{model} is there, but does not answer: {error}"))
                continue
            self._change_record(partial(add_answer, self.spec, state=state, name=model.name))
        return answer

    def _measure(self) -> None:
        self.report.add_measure("fetched", self._puller.fetched, "bytes")
        if self.spec.from_peers:
            self.report.add_measure("relayed", self._puller.relayed, "bytes")
