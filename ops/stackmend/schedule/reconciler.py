"""The parts of the loop that are a timer's own."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from stackmend import connection, reporting
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.problems import Problem
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.restraint import rules as restraint
from stackmend.restraint.state import Memory
from stackmend.schedule import commands, controller, unchanged, wheels
from stackmend.schedule.bundle import Bundle, make_bundle
from stackmend.schedule.calendar import format_calendar
from stackmend.schedule.facts import HOME, Schedule
from stackmend.schedule.plan import (
    Action,
    Bring,
    Desired,
    Remove,
    Write,
    find_mended,
    make_generation,
    plan,
)
from stackmend.schedule.spec import TimerSpec
from stackmend.schedule.state import HostSchedule
from stackmend.schedule.units import CONFINED, MARK, log_in, make_trial

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pyinfra.api.host import Host

    from stackmend.decision import Plan
    from stackmend.reporting import Collector


#: Each host's program is held in memory while it is sent.
_turns = threading.BoundedSemaphore(4)


@dataclass
class ScheduleReconciler(Reconciler[HostSchedule, Action]):
    """The timer of one host."""

    subject = "timer"
    step_limit = commands.LIMIT
    # A copy that cannot be made must not keep the host's own runs from mending it: limits hold for
    # what is mended. Pauses do hold here, see `observe`.
    is_restrained: ClassVar[bool] = False

    host: Host
    spec: TimerSpec
    report: Collector
    settings: BaseModel | None = None

    @cached_property
    def bundle(self) -> Bundle | None:
        """What the host needs to mend itself; ``None`` where it does not."""
        if self.spec.mode != "host" or not self.spec.present:
            return None
        if self.settings is None:
            raise Problem('settings: mode "host" needs those of the host, as `check` gives them')
        own: dict[str, object] = {"directory": f"{HOME}/{self.spec.unit}/reports"}
        if self.spec.ping:
            own["ping"] = self.spec.ping
        if self.spec.notify:
            targets = getattr(getattr(self.settings, "report", None), "notify", ())
            if not targets:
                raise Problem('notify: there is nobody to notify: add "notify" to "report"')
            own["notify"] = [*targets]
        bundle = make_bundle(self.settings, own)
        for path, content in unchanged.make_files(self.spec, self.settings):
            bundle.files[f"fleet/{path}"] = (0o600, content)
        return bundle

    @cached_property
    def desired(self) -> Desired:
        """What the host is to have."""
        if self.bundle is not None:
            return Desired(
                spec=self.spec,
                job=controller.make_host_job(self.spec),
                host=self.host.name,
                generation=f"{wheels.find_program(self.spec.notify)}-{self.bundle.digest}",
            )
        job, problem = controller.make_fleet_job(self.host, self.spec)
        return Desired(spec=self.spec, job=job, host=self.host.name, problem=problem)

    def observe(self, *, fresh: bool = False) -> Observation[HostSchedule, Action]:
        """Read the host and plan. Changes nothing."""
        # A confined run of mode host's may have nowhere to put one, and needs none.
        own = self.spec.mode == "controller"
        token = controller.get_token() if own else controller.Token("", "")
        arguments = {
            "unit": self.spec.unit,
            "calendar": format_calendar(self.spec.interval, self.spec.at),
            "token": token.path,
            "secret": token.secret,
            "mode": self.spec.mode,
            "user": self.desired.job.user,
        }
        (state,) = self.fetch((Schedule, arguments), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "its timers")
        found = plan(self.desired, state)
        memory = self.memory
        if not isinstance(memory, Memory):
            reason = memory.reason if memory is not None else "nothing was read"
            memory = Memory(now=0, pauses_problem=reason)
        for pause in memory.list_pauses():
            if not pause.only:
                reporting.mark_paused(self.host, restraint.describe_pause(pause))
        desired = restraint.Desired(operation=self.report.name, fingerprint="")
        return Observation(restraint.hold_back(found, None, memory, desired), state)

    def execute(self, plan: Plan[Action], state: HostSchedule, lease: connection.Lease) -> bool:
        """Carry out the actions of a plan in its order."""
        for action in plan.actions:
            lease.check()
            with self.step(action):
                match action:
                    case Bring():
                        self._bring_or_halt(action, state)
                    case Write():
                        self._write(action, state)
                    case Remove():
                        command = commands.remove(self.spec.unit, self.desired.job.user)
                        problem = f"could not remove {self.spec.unit}"
                        self.run(command, problem, timeout=commands.REMOVE_LIMIT)
        return True

    def _bring_or_halt(self, action: Bring, state: HostSchedule) -> None:
        """Bring; where that fails, the copy before must not put back what this run has applied."""
        try:
            self._bring(action, state)
        except StepError as error:
            begins = state.active or (state.init == "cron" and bool(state.files))
            if not begins or not _has_other_settings(self.desired, state):
                raise
            command = commands.stop(self.spec.unit, self.desired.job.user)
            self.run(command, f"{error}; and its timer, which keeps older settings, does not stop")
            raise StepError(
                f"{error}; stackmend stopped {self.spec.unit}, which would put older settings "
                "back, until a run brings these"
            ) from None

    def _bring(self, action: Bring, state: HostSchedule) -> None:
        with fleet.leave_out(self.host):
            begins = _turns.acquire(timeout=commands.LIMIT)
        if not begins:
            raise StepError("timed out waiting for other hosts that get their programs")
        try:
            self._bring_now(action, state)
        finally:
            _turns.release()

    def _bring_now(self, action: Bring, state: HostSchedule) -> None:
        assert self.bundle is not None
        program = f"{wheels.find_program(self.spec.notify)}-{action.tag}"
        generation = make_generation(self.desired.generation, action.tag)
        more = {}
        known = connection.run(self.host, commands.has_program(self.spec.unit, program))
        if not known.ok:
            found = wheels.collect(state, action.tag, self.spec.wheels, notify=self.spec.notify)
            more = {f"wheels/{name}": content for name, content in found.items()}
        trial = make_trial(self.spec, log_in(self.desired.job, state.login), state.version)
        command = commands.bring(self.spec.unit, generation, program, action.python, trial)
        self.run(
            command,
            "the host cannot mend itself yet",
            stdin=self.bundle.make_archive(more),
            timeout=commands.LIMIT,
        )

    def _write(self, action: Write, state: HostSchedule) -> None:
        cron = state.cron if state.init == "cron" else ""
        if self.spec.mode == "controller":
            controller.make_directories(self.desired.job)
        command = commands.set_units(self.spec.unit, self.desired.job.user, cron=cron)
        stdin = "=\n".join(action.files.values()).encode()
        try:
            self.run(command, "the timer is not set", stdin=stdin, timeout=commands.UNITS_LIMIT)
        except StepError as error:
            if error.status == commands.REFUSED:
                raise StepError(f"systemd does not take the units: {error}") from None
            raise


def _has_other_settings(desired: Desired, state: HostSchedule) -> bool:
    """Whether a host mends itself by other settings than those of this run."""
    return state.generation.split("-")[1:2] != desired.generation.split("-")[1:2]


def note_confined(host: Host, spec: TimerSpec) -> None:
    """Report where a run that a timer began is confined, and is to change this machine.

    :param host: the host that stands for this machine.
    :param spec: the timer that may have begun it.
    """
    if not os.environ.get(CONFINED) or os.environ.get(MARK) != spec.unit:
        return
    job, _ = controller.make_fleet_job(host, spec)
    found = find_mended(Desired(spec=spec, job=job, host=host.name), confined=True)
    if found.findings:
        reporting.record(host, "schedule.timer").add_plan(found)
