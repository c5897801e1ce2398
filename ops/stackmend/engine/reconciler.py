"""The parts of the loop that are the engine's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackmend import connection, decision
from stackmend.decision import Refusal
from stackmend.engine import commands
from stackmend.engine.facts import HostEngines
from stackmend.engine.plan import (
    Action,
    AttachPort,
    Enable,
    Install,
    InstallEngine,
    MoveDatabase,
    Plan,
    RaiseBridge,
    RemovePidFile,
    RemoveRule,
    RestartEngine,
    RestoreAddress,
    RestoreConfig,
    SetConfig,
    SettingsAction,
    Source,
    Start,
    StartAgain,
    StartContainerd,
    Trust,
    WriteSource,
    add_first_settings,
    find_source,
    plan_engine,
    plan_settings,
    select_packages,
)
from stackmend.engine.state import HostEngine
from stackmend.engine.steps import (
    install_packages,
    make_stamp,
    place,
    refresh,
    run_remote,
    set_config,
    trust_key,
    write_source,
)
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host

    from stackmend.engine.spec import Installation
    from stackmend.reporting import Collector


class _SettingsRemoved(Exception):
    """The engine did not come up with its first settings, and runs without them now."""


@dataclass
class InstallationReconciler(Reconciler[HostEngine, Action]):
    """The engine of one host.

    :param spec: which, and what may be done for it.
    :param settings: what daemon.json is to hold when an engine that is new here first starts.
    """

    subject = "engine"
    step_limit = commands.LIMIT

    host: Host
    spec: Installation
    report: Collector
    settings: Mapping[str, Any] = field(default_factory=dict)

    def observe(self, *, fresh: bool = False) -> Observation[HostEngine, Action]:
        """Read the host and plan. Changes nothing."""
        (state,) = self.fetch((HostEngines, {}), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "which engine it has")
        plan = add_first_settings(plan_engine(self.spec, state), self.settings, state)
        return Observation(plan, state)

    def execute(
        self, plan: decision.Plan[Action], state: HostEngine, lease: connection.Lease
    ) -> bool:
        """Carry out the actions of a plan in its order."""
        first: SetConfig | None = None
        for action in plan.actions:
            lease.check()
            match action:
                case Trust():
                    trust_key(self, action)
                case WriteSource():
                    write_source(self, action)
                case Install():
                    install_packages(self, action, state)
                case SetConfig():
                    # The packages start the engine: installing it puts the file in place, too.
                    first = action
                case RestoreConfig():
                    set_config(self, action, state)
                case InstallEngine():
                    if not self._install_engine(action, state, first):
                        return False
                case RestartEngine():
                    with self.step(action):
                        command = commands.restart(action.bridges)
                        self.run(command, "the engine does not restart", timeout=commands.LIMIT)
                case Start() | Enable() | StartAgain():
                    with self.step(action):
                        command = commands.start(state.config.path)
                        self.run(command, "the engine does not start", timeout=commands.LIMIT)
                case _:
                    with self.step(action):
                        self.run(_build_command(action), f"cannot {action.verb} {action.subject}")
        return True

    def _install_engine(
        self, action: InstallEngine, state: HostEngine, first: SetConfig | None
    ) -> bool:
        source = find_source(self.spec, state)
        assert isinstance(source, Source), "a refusal plans no action"
        try:
            lists = refresh(self, state, source.target, (*action.packages, *action.extras))
        except StepError:
            self._remove_source(source, state)
            raise
        selection = select_packages(self.spec, state, lists.versions, lists.candidates)
        unread = [f"cannot read the package lists: {reason}" for reason in lists.unread]
        if isinstance(selection, Refusal):
            self._remove_source(source, state)
            reason = "; ".join([selection.reason, *unread])
            refusal = selection.model_copy(update={"reason": reason})
            self.report_plan(Plan(refusals=(refusal,)))
            return False
        for line in (*unread, f"Engine {selection.engine}, Compose {selection.compose}"):
            announce.show_line(self.host, f"  {line}")
        command = commands.install(
            *(state.manager, source.target, selection.names, action.removing),
            snap=action.snap,
            config=action.config,
        )
        with self.step(action), suppress(_SettingsRemoved), ExitStack() as steps:
            if first is not None:
                steps.enter_context(self.step(first))
            stdin = first.text.encode() if first else None
            result = run_remote(self, command, f"cannot install {action.subject}", stdin=stdin)
            for line in result.text.splitlines():
                announce.show_line(
                    self.host, f"  the engine does not come up with its settings yet: {line}"
                )
            if result.text:
                raise _SettingsRemoved
        return True

    def _remove_source(self, source: Source, state: HostEngine) -> None:
        """Remove the files of a source that gave nothing: the host's own upgrades would fail."""
        connection.run(self.host, commands.drop_lists(), closing=True)
        observed = {origin.path for origin in state.origins} | set(state.keys)
        for path in (*(file.path for file in source.files), source.keyring):
            if path and path not in observed:
                place(self, path, b"", closing=True)


def _build_command(action: Action) -> StringCommand:
    match action:
        case StartContainerd():
            return commands.start_containerd()
        case RemovePidFile():
            return commands.remove_pid_file(action.subject, action.pid)
        case MoveDatabase():
            return commands.move_aside(action.subject, f"{make_stamp()}.broken")
        case RestoreAddress():
            return commands.restore_address(action.subject, action.address)
        case RaiseBridge():
            return commands.raise_bridge(action.subject)
        case AttachPort():
            return commands.put_on_bridge(action.subject, action.bridge)
        case RemoveRule():
            return commands.remove_rule(action.subject)
    raise AssertionError(f"{action.verb} is more than a command")


@dataclass
class SettingsReconciler(Reconciler[HostEngine, SettingsAction]):
    """The settings of one host's engine.

    :param settings: what daemon.json is to hold, among what others have in it.
    :param replace: ``container:NAME`` for those that may be gone when the engine restarts.
    :param allow: ``config`` where an earlier daemon.json may be put back.
    """

    subject = "engine"
    step_limit = commands.LIMIT
    drift = frozenset({"setting"})

    host: Host
    settings: Mapping[str, Any]
    report: Collector
    replace: Sequence[str] = ()
    allow: Sequence[str] = ()

    def observe(self, *, fresh: bool = False) -> Observation[HostEngine, SettingsAction]:
        """Read the host and plan. Changes nothing."""
        (state,) = self.fetch((HostEngines, {}), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "which engine it has")
        return Observation(plan_settings(self.settings, self.replace, state, self.allow), state)

    def execute(
        self, plan: decision.Plan[SettingsAction], state: HostEngine, lease: connection.Lease
    ) -> bool:
        """Carry out the actions of a plan in its order."""
        if state.status == "absent":
            raise StepError("there is no engine to set: engine.installed has to succeed first")
        for action in plan.actions:
            lease.check()
            set_config(self, action, state)
        return True
