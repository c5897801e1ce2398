"""Carry out what installs an engine, and prove it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from stackmend import connection
from stackmend.acting import act_upon
from stackmend.decision import Refusal
from stackmend.engine import commands, trust
from stackmend.engine.look import Look, Reader
from stackmend.engine.plan import Action, Plan, Source, begun_with, chosen, plan, source
from stackmend.engine.spec import Installation
from stackmend.engine.state import HostEngine
from stackmend.errors import StepError
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.connection import Lease, Result
    from stackmend.reporting import Collector


class _TakenBack(Exception):
    """The engine did not come up with the settings that it was to start with, and has none now."""


class _Available(NamedTuple):
    """What there is of some packages: every version of each, the newest first; the one that would
    be taken; why some lists could not be read.
    """

    versions: dict[str, list[str]]
    candidates: dict[str, str]
    unread: list[str]


class Installing(Reader):
    """One host that is to have an engine.

    :param wanted: which, and what may be done for it.
    :param settings: what daemon.json is to hold when an engine that is new here first starts.
    """

    def __init__(
        self,
        host: "Host",
        wanted: Installation,
        report: "Collector",
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(host, report)
        self.wanted = wanted
        self.settings = dict(settings)

    def decide(self, state: HostEngine) -> Plan:
        """What is to be done so that the host has the engine."""
        return begun_with(plan(self.wanted, state), self.settings, state)

    def converge(self, state: "State", host: "Host") -> bool:
        """Install the engine, prove that it answers, and say whether it does.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            return act_upon(self.look(), self, commands.LOCK)
        except (StepError, connection.RemoteError) as error:
            self.failed(str(error))
        return False

    def carry_out(self, look: Look, lease: "Lease") -> bool:
        """Install what a look found missing, and prove that the engine answers."""
        if look.state is None or look.plan.refusals:
            return False
        # Set before the engine first starts, which the packages do: it is done with them.
        begin = next((one for one in look.plan.actions if one.verb == "set"), None)
        for action in look.plan.actions:
            lease.check()
            if action is not begin and not self._act(action, look.state, begin):
                return False
        again = self.look_again()
        if again.plan.empty:
            return True
        self.tell(again.plan)
        if again.plan.actions:
            left = "; ".join(str(action) for action in again.plan.actions)
            self.failed(f"not proven: this would still be to be done: {left}")
        return False

    def _act(self, action: Action, state: HostEngine, begin: Action | None) -> bool:
        match action.verb:
            case "trust":
                # Read and compared before anything of it is on the host.
                key = trust.key(self.host, action.source, action.expected)
                with announce.track(self.host, self.report, action):
                    self._place(action.keyring, key)
            case "write source":
                with announce.track(self.host, self.report, action):
                    for file in action.files:
                        self._place(file.path, file.text.encode())
            case "install":
                return self._install(action, state, begin if action.config else None)
            case _:
                with announce.track(self.host, self.report, action):
                    self._must(commands.start(state.config.path), "the engine does not start")
        return True

    def _install(self, action: Action, state: HostEngine, begin: Action | None) -> bool:
        origin = source(self.wanted, state)
        assert isinstance(origin, Source), "what is refused plans no action"
        if origin.engine not in action.packages:
            self._available(state, "", action.packages)
            command = commands.install(state.manager, "", action.packages, engine=False)
        else:
            packages = (*action.packages, *action.extras)
            try:
                found = self._available(state, origin.target, packages)
            except StepError:
                self._take_back(origin, state)
                raise
            decided = chosen(self.wanted, state, found.versions, found.candidates)
            if isinstance(decided, Refusal):
                self._take_back(origin, state)
                unread = "".join(f"; package lists cannot be read: {one}" for one in found.unread)
                refusal = decided.model_copy(update={"reason": decided.reason + unread})
                self.tell(Plan(refusals=(refusal,)))
                return False
            for one in found.unread:
                announce.show_line(self.host, f"  package lists cannot be read: {one}")
            announce.show_line(self.host, f"  Engine {decided.engine}, Compose {decided.compose}")
            command = commands.install(
                *(state.manager, origin.target, decided.names, action.removing),
                snap=action.snap,
                config=action.config,
            )
        with suppress(_TakenBack), ExitStack() as together:
            if begin is not None:
                together.enter_context(announce.track(self.host, self.report, begin))
            with announce.track(self.host, self.report, action):
                done = self._must(
                    command,
                    f"{action.subject} cannot be installed",
                    stdin=begin.text.encode() if begin else None,
                )
            for line in done.text.splitlines():
                announce.show_line(
                    self.host, f"  the engine does not come up with its settings yet: {line}"
                )
            if done.text:
                raise _TakenBack
        return True

    def _available(self, state: HostEngine, target: str, packages: Sequence[str]) -> "_Available":
        """What there is of some packages, from lists that are read anew."""
        result = self._must(
            commands.refresh(state.manager, target, packages), "the package lists cannot be read"
        )
        found = _Available({}, {}, [])
        for line in result.text.splitlines():
            kind, _, rest = line.partition(" ")
            name, _, version = rest.partition(" ")
            if kind == "candidate":
                found.candidates[name] = version
            elif kind == "version":
                found.versions.setdefault(name, []).append(version)
            elif kind == "unread":
                found.unread.append(rest)
        return found

    def _take_back(self, origin: Source, state: HostEngine) -> None:
        """Remove the files of a source that gave nothing: the host's own upgrades would fail."""
        connection.run(self.host, commands.drop_lists(), closing=True)
        have = {one.path for one in state.origins} | set(state.keys)
        for path in (*(file.path for file in origin.files), origin.keyring):
            if path and path not in have:
                self._place(path, b"", closing=True)

    def _place(self, path: str, content: bytes, *, closing: bool = False) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._must(
            commands.place(path, stamp), f"{path} cannot be written", stdin=content, closing=closing
        )

    def _must(
        self,
        command: "StringCommand",
        what: str,
        stdin: bytes | None = None,
        *,
        closing: bool = False,
    ) -> "Result":
        result = connection.run(
            self.host, command, stdin=stdin, timeout=commands.LIMIT, closing=closing
        )
        if not result.ok:
            said = result.error_text.strip() or f"exit status {result.status}"
            raise StepError(f"{what}: {said}")
        return result
