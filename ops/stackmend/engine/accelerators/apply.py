"""Carry out a plan and prove it. What is to be done is decided by ``plan``, never here."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING

from stackmend import connection, decision
from stackmend.acting import act_upon
from stackmend.engine import commands as engine_commands
from stackmend.engine import trust
from stackmend.engine.accelerators import commands
from stackmend.engine.accelerators.look import Look, Reader
from stackmend.engine.accelerators.plan import Step, settings
from stackmend.engine.daemon import Setting
from stackmend.engine.plan import Action
from stackmend.engine.state import HostEngine
from stackmend.errors import StepError
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.connection import Lease, Result

#: Seconds that a proof may take: an engine that hangs is none.
PATIENCE = 300.0

#: What belongs together: a repository that gives nothing is taken back.
_BRINGING = ("trust", "write source", "install")

_OUTCOMES = {
    commands.NOT_STARTED: "no container can be started with the accelerators",
    commands.NOT_REACHED: "a container that was given the accelerators does not reach them",
    commands.LOST: "a container loses the accelerators once systemd has read its units anew "
    "(systemctl daemon-reload, which every upgrade of a package may run); an Engine from 25 on "
    'gives them by CDI, which stays: "upgrade": True in the stack\'s "engine" section',
}


class Accelerating(Reader):
    """The accelerators of one host, to be reached from containers."""

    def converge(self, state: "State", host: "Host") -> bool:
        """Do what is to be done, prove it from inside a container, and say whether it is so.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            return act_upon(self.look(), self, engine_commands.LOCK)
        except (StepError, connection.RemoteError) as error:
            self.failed(str(error))
        return False

    def carry_out(self, look: Look, lease: "Lease") -> bool:
        """Do the first steps, look, and go on with what is then to be done."""
        while look.plan.actions:
            assert look.engine is not None, "a plan that acts rests on a state"
            if look.engine.status != "up":
                said = look.engine.reason or look.engine.status
                raise StepError(f"there is no engine that answers: {said}")
            lease.check()
            first = look.plan.actions[0]
            if isinstance(first, Step):
                self._step(first)
            elif first.verb in _BRINGING:
                together = takewhile(lambda one: one.verb in _BRINGING, look.plan.actions)
                self._bring(list(together), look.engine)
            else:
                setting = Setting(self.host, settings(look.engine), self.report, self.spec.replace)
                if not setting.carry_out(setting.look_again(), lease):
                    return False
            look = self.look_again()
            if look.plan.actions[:1] == (first,):
                raise StepError(f"not proven: this would still be to be done: {first}")
        if not look.plan.empty:
            self.tell(look.plan)
        return look.plan.empty

    def _bring(self, actions: Sequence[decision.Action], engine: HostEngine) -> None:
        """Have the toolkit from its repository; where that gives nothing, its file is as before."""
        placed: list[str] = []
        before = {one.path: one.text for one in engine.origins}
        try:
            for action in actions:
                assert isinstance(action, Action)
                if action.verb == "trust":
                    # Read and compared before anything of it is on the host.
                    key = trust.key(
                        self.host, action.source, action.expected, "toolkit_key_fingerprint"
                    )
                with announce.track(self.host, self.report, action):
                    if action.verb == "trust":
                        self._place(action.keyring, key)
                    elif action.verb == "write source":
                        for file in action.files:
                            self._place(file.path, file.text.encode())
                            placed.append(file.path)
                    else:
                        self._install(action, engine)
        except StepError:
            # The host's own upgrades would fail with it.
            for path in placed:
                self._place(path, before.get(path, "").encode(), closing=True)
            raise

    def _install(self, action: Action, engine: HostEngine) -> None:
        refresh = engine_commands.refresh(engine.manager, "", action.packages)
        found = self._must(refresh, "the package lists cannot be read").text
        absent = [one for one in action.packages if f"candidate {one} " not in found]
        if absent:
            connection.run(self.host, engine_commands.drop_lists(), closing=True)
            rows = [line.partition(" ") for line in found.splitlines()]
            why = "; ".join(rest for word, _, rest in rows if word == "unread")
            raise StepError(
                f"no repository of the host has {', '.join(absent)}{f': {why}' if why else ''}"
            )
        self._must(
            engine_commands.install(engine.manager, "", action.packages, engine=False),
            f"{action.subject} cannot be installed",
        )

    def _step(self, step: Step) -> None:
        with announce.track(self.host, self.report, step):
            if step.verb == "describe":
                what = f"{step.path} cannot be written"
                self._must(commands.describe(step.path, _stamp()), what)
                return
            command = commands.prove(step.evidence, step.groups, step.ways)
            result = connection.run(self.host, command, timeout=PATIENCE)
            for line in result.text.splitlines():
                word, _, rest = line.partition(" ")
                if word == "seen":
                    announce.show_line(self.host, f"  seen from inside a container: {rest}")
                elif word == "again":
                    announce.show_line(self.host, "  and again after systemctl daemon-reload")
                elif word == "spared":
                    announce.show_line(
                        self.host,
                        "  not tried after systemctl daemon-reload, which would take their "
                        f"accelerators from {rest.strip()}",
                    )
            if not result.ok:
                what = _OUTCOMES.get(result.status, "the accelerators cannot be proven")
                raise StepError(f"{what}: {_said(result)}")

    def _place(self, path: str, content: bytes, *, closing: bool = False) -> None:
        command = engine_commands.place(path, _stamp())
        self._must(command, f"{path} cannot be written", stdin=content, closing=closing)

    def _must(
        self,
        command: "StringCommand",
        what: str,
        stdin: bytes | None = None,
        *,
        closing: bool = False,
    ) -> "Result":
        result = connection.run(
            self.host, command, stdin=stdin, timeout=engine_commands.LIMIT, closing=closing
        )
        if not result.ok:
            raise StepError(f"{what}: {_said(result)}")
        return result


def _said(result: "Result") -> str:
    return result.error_text.strip() or f"exit status {result.status}"


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
