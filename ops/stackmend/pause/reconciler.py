"""The parts of the loop that are the pauses' own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from stackmend import reporting
from stackmend.connection import hold_lock
from stackmend.pause.plan import DropPauses, SetPause, make_pause, plan_pause, plan_resume
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.restraint import files
from stackmend.restraint.rules import describe_pause
from stackmend.restraint.spec import PauseSpec
from stackmend.restraint.state import Memory, Pause, Pauses

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import Lease
    from stackmend.pause.plan import Plan
    from stackmend.reporting import Collector
    from stackmend.restraint.spec import ResumeSpec


@dataclass
class PauseReconciler(Reconciler[Memory, SetPause | DropPauses]):
    """The pauses of one host."""

    subject = "pauses"
    is_restrained: ClassVar[bool] = False

    host: Host
    spec: PauseSpec | ResumeSpec
    report: Collector
    _pause: Pause | None = field(default=None, init=False)

    def observe(self, *, fresh: bool = False) -> Observation[Memory, SetPause | DropPauses]:
        """Read the host and plan. Changes nothing."""
        self.fetch(fresh=fresh)
        memory = self.memory
        if not isinstance(memory, Memory):
            assert memory is not None, "it was read just now"
            return observe_unreadable(memory, "what is paused")
        if isinstance(self.spec, PauseSpec):
            # It runs out when it was to, however often the host is read.
            self._pause = self._pause or make_pause(self.spec, memory.now)
            plan = plan_pause(self._pause, memory)
        else:
            plan = plan_resume(self.spec, memory)
        if not plan.actions:
            for pause in memory.list_pauses():
                if not pause.only:
                    reporting.mark_paused(self.host, describe_pause(pause))
        return Observation(plan, memory)

    def hold(self) -> AbstractContextManager[Lease]:
        """Hold the lock of the pauses alone: a run that is at work keeps nobody from pausing."""
        return hold_lock(self.host, files.LOCK)

    def execute(self, plan: Plan, state: Memory, lease: Lease) -> bool:
        """Write what is paused then."""
        for action in plan.actions:
            lease.check()
            with self.step(action):
                present = bool(action.pauses)
                content = files.dump(Pauses(pauses=action.pauses)) if present else None
                command = files.write(files.PAUSES, present=present)
                self.run(command, "cannot write what is paused", stdin=content)
        return True
