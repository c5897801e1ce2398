"""The parts of the loop that are the move's own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from stackmend import compose, connection
from stackmend.checks.spec import HttpCheck
from stackmend.decision import Finding, Refusal
from stackmend.errors import StepError
from stackmend.models.client import LOADING, UNKNOWN_SIZE, Client
from stackmend.models.errors import TransientError
from stackmend.models.spec import DEFAULT_PORT, Name
from stackmend.models.state import Server
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.worker.move import client, commands
from stackmend.worker.move.facts import WorkerMove, parse_callers
from stackmend.worker.move.observing import ProjectObserver
from stackmend.worker.move.plan import (
    Action,
    AddService,
    Change,
    Designed,
    ImportModel,
    Measure,
    Plan,
    PutBack,
    Repoint,
    Retire,
    add_comparison,
    advance,
    assemble_move,
    begin,
    change_settings,
    explain_grace,
    find_silent,
    format_unit,
    identify,
    is_final,
    list_candidates,
    make_confirmed,
    make_key,
    make_layer,
    make_return,
    return_failed,
)
from stackmend.worker.move.plan import plan as decide
from stackmend.worker.move.spec import ATTEMPTS
from stackmend.worker.move.state import (
    HostMove,
    Legacy,
    Move,
    MoveRecord,
    Runner,
    Stage,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pyinfra.api.host import Host

    from stackmend.compose.spec import ComposeSpec
    from stackmend.connection import Lease
    from stackmend.reporting import Collector
    from stackmend.worker.move.measuring import Measured
    from stackmend.worker.move.spec import MovePolicy

#: Seconds that a copy of one model's file may take on the host.
COPYING = 6 * 3600.0

#: Seconds that the image of the new one may take to be pulled.
PULLING = 7200.0

#: How often it is read who is connected to a legacy worker that is to be stopped.
READINGS = 3

#: Seconds that a legacy worker has to answer before its clients go back to it, and between two
#: attempts: one that was started just now has to load its model.
ANSWERING, PAUSE = 120.0, 1.0

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Called(StepError):
    """Somebody calls the legacy worker still: it is neither stopped, nor do clients go back."""


class Missing(StepError):
    """Clients ask the new one for models that it has not: they go back, and stay there.

    :ivar remedy: what has to be done before the move is tried again.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, log=(remedy,))
        self.remedy = remedy


@dataclass
class MoveReconciler(Reconciler[HostMove, Action]):
    """The legacy worker of one project on one host.

    :param project: the project, as ``compose.stack`` has it.
    :param on_result: called with where a measurement of both lies on this machine.
    """

    subject = "legacy worker"
    rooms: ClassVar[tuple[str, ...]] = ("compose",)
    advice = ("run again: a move that was cut short goes on, or back, from where it stands",)

    host: Host
    spec: MovePolicy
    project: ComposeSpec
    report: Collector
    on_result: Callable[[Path], None]
    _designed: Designed = field(default_factory=Designed, init=False)
    _key: str = field(default="", init=False)
    _waiting: bool = field(default=False, init=False)

    # What is observed

    def observe(self, *, fresh: bool = False) -> Observation[HostMove, Action]:
        """Read the host and plan. Changes nothing."""
        (state,) = self.fetch((WorkerMove, {"project": self.project.project}), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "the project's workers")
        record = state.record
        if state.problem:
            self._waiting = True
            refusal = Refusal(
                subject=self.subject,
                reason=f"where it stands is not known: {state.problem}",
                remedy="bring the engine to answer, then run again",
            )
            return Observation(Plan(refusals=(refusal,)), state)
        self._waiting = False
        if state.record_problem or (record is not None and record.stage != "returned"):
            return Observation(decide(self.spec, state), state)
        candidates = list_candidates(state.runners, self.spec.service)
        self._key = make_key(self.spec, [runner for runner, _ in candidates])
        if record is not None and is_final(record, self._key):
            return Observation(decide(self.spec, state, self._key), state)
        observer = ProjectObserver(self.host, self.spec, self.project)
        answers = observer.ask(candidates)
        legacies = identify(candidates, answers)
        designed = None
        if len(legacies) == 1:
            designed = self._assemble(state, legacies[0], observer)
        self._designed = designed or Designed()
        plan = decide(self.spec, state, self._key, legacies, designed)
        silent = tuple(find_silent(candidates, answers)) if not legacies else ()
        if not silent:
            return Observation(plan, state)
        return Observation(plan.model_copy(update={"findings": (*plan.findings, *silent)}), state)

    def preview(self, observation: Observation[HostMove, Action]) -> Plan:
        """What waits for an earlier operation of the run is no refusal yet."""
        if not self._waiting:
            return observation.plan
        findings = tuple(
            Finding(subject=each.subject, kind="waits", cause=each.reason, blocks=False)
            for each in observation.plan.refusals
        )
        return Plan(findings=findings)

    def find_step_limit(self, action: Action) -> float:
        """Seconds that one action has."""
        limit = float(self.step_limit)
        if isinstance(action, ImportModel):
            return limit + COPYING + LOADING
        if isinstance(action, Measure):
            profile = self.spec.profile
            return limit + ATTEMPTS * 2 * profile.timeout * profile.samples
        if isinstance(action, AddService | Change):
            limit += PULLING
        limit += ANSWERING + LOADING
        # What changes the project is limited as compose.stack is, forward and back.
        return limit + 4 * (self.project.health_timeout + connection.LIMIT)

    def _assemble(self, state: HostMove, legacy: Legacy, observer: ProjectObserver) -> Designed:
        view = observer.describe(state, legacy)
        self._waiting = view.waits
        if not view.problem:
            return assemble_move(self.spec, state, legacy, view)
        refusal = Refusal(
            subject=legacy.service,
            reason=f"not moved: {view.problem}",
            remedy="bring the project to what its files declare: compose.stack says what is wrong",
        )
        return Designed(refusals=(refusal,))

    # What is done

    def execute(self, plan: Plan, state: HostMove, lease: Lease) -> bool:
        """Carry out the steps that are left; go back where one fails, or the new one is slower."""
        record = state.record
        is_over = record is not None and record.stage == "retired"
        if record is None or record.stage == "returned":
            assert self._designed.move is not None, "only what was designed has steps"
            record = begin(self._designed.move, self._key, self.project.project, record)
            self._write(record)
        for action in plan.actions:
            lease.check()
            is_return = isinstance(action, PutBack)
            try:
                with self.allow_return() if is_return else nullcontext(), self.step(action):
                    record = self._execute(action, record)
            except Called as error:
                self.report_error(error)
                return False
            except (StepError, TransientError, connection.CommandTimeout) as error:
                # A connection that is lost fails no move: the next run goes on from here. Of one
                # that is over, all stays as it is.
                if isinstance(action, PutBack) or record.stage == "retired":
                    raise
                failed = error if isinstance(error, StepError) else StepError(str(error))
                self.report_error(failed)
                remedy = error.remedy if isinstance(error, Missing) else ""
                record = return_failed(record, str(error).splitlines()[0], remedy)
                self._write(record)
            if record.stage == "returning":
                lease.check()
                back = PutBack(subject=record.move.legacy, cause=record.reason)
                with self.allow_return(), self.step(back):
                    record = self._put_back(record)
                break
        if record.at and not is_over:
            self._show_measured(record)
        if not record.key:
            self.report_error(StepError(f"{record.move.legacy} stays for now: {record.reason}"))
            return False
        if not record.failed:
            # What it came to, with the figures.
            ended = state.model_copy(update={"record": record, "layer": self._read().layer})
            self.report_plan(decide(self.spec, ended, record.key))
        return not record.failed

    def _show_measured(self, record: MoveRecord) -> None:
        """Have the last measurement shown, also where it is of a run that was cut short."""
        from stackmend.worker.move.measuring import find_collected

        if (path := find_collected(self.host, record.move, record.at)) is not None:
            self.on_result(path)

    def _execute(self, action: Action, record: MoveRecord) -> MoveRecord:
        """One step; the record after it is on the host."""
        move = record.move
        match action:
            case AddService():
                self._apply(move, "added")
            case ImportModel():
                record = self._add_model(action, record)
            case Measure():
                record = self._measure(action, record)
            case Repoint():
                self._switch_clients(move)
            case Change():
                record = self._change(record)
            case Retire() if record.stage == "retired":
                self._remove(move)
            case Retire():
                self._check_missing(move)
                self._retire(action, move)
            case PutBack():
                if record.stage != "returning":
                    record = make_return(record, action.cause, final=False)
                    self._write(record)
                return self._put_back(record)
        record = advance(record, action)
        self._write(record)
        return record

    def _change(self, record: MoveRecord) -> MoveRecord:
        """Have the service that was added run with the settings of now, or as before."""
        move = change_settings(record.move, self.spec)
        self._apply(move, "retired", self._add_checks(move))
        try:
            self._verify_models(move)
        except (StepError, connection.CommandTimeout):
            with self.allow_return():
                self._apply(record.move, "retired")
            raise
        return record.model_copy(update={"move": move})

    def _apply(self, move: Move, stage: Stage, spec: ComposeSpec | None = None) -> None:
        """Bring the project to what a stage makes of it, proven as compose.stack does."""
        content = make_layer(move, stage)
        if not compose.apply_layer(self.host, spec or self.project, content, self.report):
            remedy = 'correct "settings" in the section "engine" where Compose refuses them'
            raise StepError(
                f"{self.project.project} did not come to the stage {stage}, and its files are as "
                "before; the error above says why",
                (remedy,) if move.added and self.spec.settings else (),
            )

    def _add_model(self, action: ImportModel, record: MoveRecord) -> MoveRecord:
        """Create a model in the new one; where others have theirs the record names it first."""
        move = record.move
        name = str(Name.parse(action.name))
        if not move.added and name not in record.created:
            address, port = self._locate(self._find(move.target))
            served = client.list_models(self.host, address, port)
            if served is None or name in served:
                raise StepError(
                    f"{move.target} has a model {name} already, which stays as it is"
                    if served
                    else f"the models of {move.target} cannot be listed"
                )
            record = record.model_copy(update={"created": (*record.created, name)})
            self._write(record)
        self._copy_model(action, move)
        return record

    def _copy_model(self, action: ImportModel, move: Move) -> None:
        source, target = self._find(move.legacy), self._find(move.target)
        result = connection.run(
            self.host,
            commands.copy_model(source.id, action.path, target.id),
            timeout=COPYING,
            tethered=True,
        )
        match = _DIGEST.search(result.text)
        if not result.ok or match is None:
            raise StepError(f"cannot copy {action.path} to {move.target}: {result.reason}")
        sizes = {file.path: file.size for file in source.files}
        ollama = Client(self.host, self._describe(target))
        name = Name.parse(action.name)
        file = action.path.rpartition("/")[2]
        size = sizes.get(action.path) or int(UNKNOWN_SIZE)
        request: dict[str, Any] = {"files": {file: match[0]}}
        if action.context:
            request["parameters"] = {"num_ctx": action.context}
        ollama.create(name, request, size)
        address, port = self._locate(target)
        if reason := client.check_answer(self.host, address, port, action.name):
            raise StepError(f"{move.target} does not answer as {action.name}: {reason}")

    def _measure(self, action: Measure, record: MoveRecord) -> MoveRecord:
        move = record.move
        try:
            measured = self._measure_both(move, action)
        except StepError as error:
            if action.phase == "after" and (reason := self._ask_legacy(move, 0)):
                # There is nothing to go back to.
                self.report_error(error)
                return make_confirmed(record, reason)
            raise
        found = measured.comparison
        for name, value in ((move.legacy, found.before), (move.target, found.after)):
            self.report.add_measure(f"{name} {action.phase}", value, format_unit(found.figure))
        record = record.model_copy(update={"at": measured.at})
        record = add_comparison(record, action.phase, found, self.spec.margin)
        grace = "" if "tasks" in self.spec.allow else explain_grace(move, measured.slowest)
        if action.phase == "before" and record.stage == "measured" and grace:
            return make_return(record, grace)
        return record

    def _measure_both(self, move: Move, action: Measure) -> Measured:
        """Both, measured in turns."""
        # What measures is loaded where something is measured.
        from stackmend.worker.move.measuring import measure_move

        return measure_move(self.host, self.spec, move, action.phase, self._find, self.on_result)

    def _switch_clients(self, move: Move) -> None:
        """Have the clients call the new one, and ask it from each client's own network."""
        self._apply(move, "repointed", self._add_checks(move))
        # What clients ask first they ask within that time; the rest is read before the end.
        time.sleep(self.project.stability)
        self._check_missing(move)

    def _add_checks(self, move: Move) -> ComposeSpec:
        """The project with checks that ask the new one from each client's own network."""
        checks = tuple(
            HttpCheck(
                name=f"{service} reaches {move.target}",
                url=f"http://{move.target}:{DEFAULT_PORT}/v1/models",
                inside=service,
            )
            for service in move.clients
        )
        return self.project.model_copy(update={"checks": (*self.project.checks, *checks)})

    def _retire(self, action: Retire, move: Move) -> None:
        """Stop the legacy worker, and start it again where the project does not hold without it."""
        project = self.project.project
        self._check_callers(move)
        self._apply(move, "retired")
        # That took its time, in which somebody may have come.
        self._check_callers(move, readings=1)
        try:
            command = commands.retire(project, move.legacy, remove=False)
            self.run(command, f"{move.legacy} does not stop")
            if any(runner.service == move.legacy for runner in self._read().runners):
                raise StepError(f"a container of {move.legacy} runs although all were stopped")
            self._verify_without(move)
        except (StepError, TransientError, connection.CommandTimeout):
            self.run(commands.start(project, move.legacy), f"{move.legacy} does not start again")
            raise
        if action.remove:
            self._remove(move)

    def _remove(self, move: Move) -> None:
        command = commands.retire(self.project.project, move.legacy, remove=True)
        self.run(command, f"the container of {move.legacy} cannot be removed")

    def _check_callers(self, move: Move, readings: int = READINGS) -> None:
        """Nobody is connected to the legacy worker any more.

        :param readings: how often that is read, a second apart.
        :raises Called: somebody is.
        """
        if {"published", "network"} & {*self.spec.allow}:
            return
        command = commands.read_callers(self.project.project, move.legacy, move.port)
        for at in range(readings):
            if at:
                time.sleep(PAUSE)
            result = self.run(command, f"who calls {move.legacy} cannot be read")
            if callers := parse_callers(result.text):
                names = {
                    each: row.service for row in self._read().runners for each in row.addresses
                }
                who = ", ".join(names.get(address, address) for address in callers[:5])
                raise Called(
                    f"{move.legacy} is not stopped: {who} calls it still, and both stay up; have "
                    f"it call {move.target} on port {DEFAULT_PORT}, then run again"
                )

    def _check_missing(self, move: Move) -> None:
        """Read whether clients ask the new one for models that it has not.

        :raises Missing: they do.
        """
        target = self._find(move.target).id
        command = commands.count_missing(self.project.project, target, move.clients)
        text = self.run(command, f"the log of {move.target} cannot be read").text.strip()
        if not text.isdecimal() or int(text[:9]) == 0:
            return
        raise Missing(
            f"{', '.join(move.clients)} asks {move.target} for a model that it has not, {text} "
            "times",
            'name it: add to the section "engine": "models": {"NAME": "/PATH/OF/ITS.gguf"}',
        )

    def _verify_without(self, move: Move) -> None:
        """Ask the new one for each model, and the project whether it holds without the old one."""
        self._verify_models(move)
        time.sleep(self.project.stability)
        self._apply(move, "retired", self._add_checks(move))

    def _verify_models(self, move: Move) -> None:
        address, port = self._locate(self._find(move.target))
        for model in move.models:
            if reason := client.check_answer(self.host, address, port, model.name):
                raise StepError(f"{move.target} does not answer as {model.name}: {reason}")

    def _put_back(self, record: MoveRecord) -> MoveRecord:
        """Have the clients call the legacy worker again, then remove what was added.

        :raises StepError: the legacy worker does not answer; then nothing is changed.
        """
        move = record.move
        if self._read().layer.strip() not in ("", make_layer(move, "added").strip()):
            command = commands.start(self.project.project, move.legacy)
            self.run(command, f"{move.legacy} does not start")
            if reason := self._ask_legacy(move, ANSWERING):
                raise StepError(
                    f"{', '.join(move.clients)} stays with {move.target}, and both are kept: "
                    f"{move.legacy} does not answer: {reason}",
                    (f"bring {move.legacy} to answer, then run again",),
                )
            # Both are up until the clients were recreated.
            self._apply(move, "added")
        self._remove_models(record)
        if not compose.apply_layer(self.host, self.project, "", self.report):
            raise StepError(f"{self.project.project} did not come to what it was; see above")
        if move.volume:
            self._remove_volume(move)
        back = record.model_copy(update={"stage": "returned"})
        self._write(back)
        return back

    def _remove_models(self, record: MoveRecord) -> None:
        """Remove what the move created in an Ollama of the project, once nobody asks for it."""
        target = record.move.target
        try:
            if record.created:
                ollama = Client(self.host, self._describe(self._find(target)))
                for name in record.created:
                    ollama.remove(Name.parse(name))
        except (StepError, TransientError) as error:
            left = Finding(
                subject=target,
                kind="left",
                cause=f"it keeps models that the move made, {', '.join(record.created)}: {error}",
                remedy="remove them: ollama rm NAME",
                blocks=False,
            )
            self.report_plan(Plan(findings=(left,)))

    def _remove_volume(self, move: Move) -> None:
        """Remove the volume that the move made; if it stays, all is as before nonetheless."""
        project = self.project.project
        try:
            self.run(commands.remove_volume(project, move.volume), "it cannot be removed")
        except (StepError, connection.CommandTimeout) as error:
            left = Finding(
                subject=f"{project}_{move.volume}",
                kind="left",
                cause=f"the volume that the move of {move.legacy} made stays: {error}",
                remedy=f"remove it: docker volume rm {project}_{move.volume}",
                blocks=False,
            )
            self.report_plan(Plan(findings=(left,)))

    def _ask_legacy(self, move: Move, limit: float) -> str:
        """Why the legacy worker does not answer its clients' model, or nothing.

        :param limit: seconds after which it is not asked again.
        """
        ends = time.monotonic() + limit
        while True:
            try:
                address = self._find(move.legacy).addresses[0]
                name = move.models[0].name
                reason = client.check_answer(self.host, address, move.port, name)
            except StepError as error:
                reason = str(error)
            if not reason or time.monotonic() >= ends:
                return reason
            time.sleep(PAUSE)

    # What it needs of the host

    def _write(self, record: MoveRecord) -> None:
        self.run(
            commands.write_record(self.project.project),
            "where the move stands cannot be recorded",
            stdin=record.model_dump_json().encode(),
        )

    def _read(self) -> HostMove:
        (state,) = self.fetch((WorkerMove, {"project": self.project.project}), fresh=True)
        if isinstance(state, connection.Unknown):
            raise StepError(f"the project's workers cannot be read: {state.reason}")
        assert isinstance(state, HostMove)
        return state

    def _find(self, service: str) -> Runner:
        """The container of a service, which runs."""
        for runner in self._read().runners:
            if runner.service == service and runner.addresses:
                return runner
        raise StepError(
            f"no container of {service} runs that the host reaches",
            (f"start {service}, then run again",),
        )

    def _locate(self, runner: Runner) -> tuple[str, int]:
        return runner.addresses[0], DEFAULT_PORT

    def _describe(self, runner: Runner) -> Server:
        address, port = self._locate(runner)
        return Server(status="up", address=address, port=port, container=runner.id)
