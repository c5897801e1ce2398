"""The parts of the loop that are the accelerators' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from stackmend import connection, decision
from stackmend.engine.accelerators import commands
from stackmend.engine.accelerators.facts import HostAccelerators
from stackmend.engine.accelerators.plan import Action, Describe, Plan, Verify, plan
from stackmend.engine.accelerators.state import Accelerators
from stackmend.engine.facts import HostEngines
from stackmend.engine.plan import Install, Trust, WriteSource
from stackmend.engine.state import HostEngine
from stackmend.engine.steps import (
    LIMIT,
    install_packages,
    make_stamp,
    place,
    set_config,
    trust_key,
    write_source,
)
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.engine.accelerators.spec import Acceleration
    from stackmend.reporting import Collector

#: Seconds that a proof may take: an engine that hangs is none.
TIMEOUT = 300.0

_FAILURES = {
    commands.NOT_STARTED: "no container starts with the accelerators",
    commands.NOT_REACHED: "a container that was given the accelerators does not reach them",
    commands.LOST: "a container loses the accelerators once systemd has read its units anew "
    "(systemctl daemon-reload, which every upgrade of a package may run); an Engine from 25 on "
    'gives them by CDI, which stays: set "upgrade": True in the stack\'s "engine" section',
}


class HostState(NamedTuple):
    """What a host has of engines and of accelerators."""

    engine: HostEngine
    accelerators: Accelerators


@dataclass
class AcceleratorsReconciler(Reconciler[HostState, Action]):
    """The accelerators of one host, to be reached from containers."""

    subject = "accelerators"
    step_limit = LIMIT
    advice = ('set "accelerator": "none" in the stack\'s "engine" section to run without them',)

    host: Host
    spec: Acceleration
    report: Collector

    def observe(self, *, fresh: bool = False) -> Observation[HostState, Action]:
        """Read the host and plan. Changes nothing."""
        if self.spec.vendor == "none":
            return Observation(Plan())
        engine, state = self.fetch((HostEngines, {}), (HostAccelerators, {}), fresh=fresh)
        for fact in (state, engine):
            if isinstance(fact, connection.Unknown):
                return observe_unreadable(fact, "which accelerators it has")
        return Observation(plan(self.spec, engine, state), HostState(engine, state))

    def execute(
        self, plan: decision.Plan[Action], state: HostState, lease: connection.Lease
    ) -> bool:
        """Carry out the first actions of a plan, and go on with what is then to be done.

        What the toolkit brings decides what is described, and what a proof rests on.
        """
        actions = plan.actions
        while actions:
            engine = state.engine
            if engine.status != "up":
                raise StepError(f"no engine answers: {engine.reason or engine.status}")
            lease.check()
            done = 1
            match actions[0]:
                case Describe() as action:
                    self._describe(action)
                case Verify() as action:
                    self._run_proof(action)
                case Trust() | WriteSource() | Install():
                    done = self._bring_toolkit(actions, engine)
                case action:
                    set_config(self, action, engine)
            observed = self.observe(fresh=True)
            if observed.state is None:
                break
            if observed.plan.actions[:1] == actions[:1]:
                raise StepError(f"not proven: still to do: {actions[0]}")
            if observed.plan.actions != actions[done:]:
                self.report_plan(observed.plan)
            actions, state = observed.plan.actions, observed.state
        return True

    def _bring_toolkit(self, actions: Sequence[Action], engine: HostEngine) -> int:
        """Install the toolkit from its repository; where that fails, restore the source's file.

        :returns: how many of the actions that were.
        """
        placed: list[str] = []
        before = {origin.path: origin.text for origin in engine.origins}
        kinds = Trust | WriteSource | Install
        steps = list(takewhile(lambda action: isinstance(action, kinds), actions))
        try:
            for action in steps:
                match action:
                    case Trust():
                        trust_key(self, action, "toolkit_key_fingerprint")
                    case WriteSource():
                        write_source(self, action)
                        placed += [file.path for file in action.files]
                    case Install():
                        install_packages(self, action, engine)
        except StepError:
            # The host's own upgrades would fail with it.
            for path in placed:
                place(self, path, before.get(path, "").encode(), closing=True)
            raise
        return len(steps)

    def _describe(self, action: Describe) -> None:
        path = action.subject
        with self.step(action):
            command = commands.build_description(path, make_stamp())
            self.run(command, f"cannot write {path}", timeout=LIMIT)

    def _run_proof(self, action: Verify) -> None:
        with self.step(action):
            command = commands.build_proof(action.evidence, action.groups, action.modes)
            result = connection.run(self.host, command, timeout=TIMEOUT)
            for line in result.text.splitlines():
                word, _, rest = line.partition(" ")
                match word:
                    case "seen":
                        announce.show_line(self.host, f"  seen from inside a container: {rest}")
                    case "again":
                        announce.show_line(self.host, "  and again after systemctl daemon-reload")
                    case "spared":
                        announce.show_line(
                            self.host,
                            "  not tried after systemctl daemon-reload, which would take their "
                            f"accelerators from {rest.strip()}",
                        )
            if not result.ok:
                failure = _FAILURES.get(result.status, "cannot prove the accelerators")
                raise StepError(f"{failure}: {result.reason}")
