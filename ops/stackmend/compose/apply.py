"""Carry out a plan and prove it. What is to be done is decided by ``plan``, never here."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import tenacity

from stackmend import connection
from stackmend.checks.state import CheckResult
from stackmend.compose import commands, drift
from stackmend.compose.look import Look, failed
from stackmend.compose.plan import (
    Action,
    Plan,
    Verb,
    levels,
    losses,
    mounts,
    obstructed,
    recorded,
)
from stackmend.compose.prove import LOG_LINES, Prover
from stackmend.compose.state import Applied, Container, Declared, StackState
from stackmend.errors import StepError
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.connection import Result

#: Seconds for which a mended service may be unhealthy before the next stronger remedy.
PATIENCE = 10.0

#: What a registry says where asking again cannot help.
FINAL = ("not found", "denied", "manifest unknown", "invalid reference", "unauthorized")

#: What Compose tells on its way: where it stands, not what went wrong.
PROGRESS = re.compile(
    r"\s*(?:(?:Container|Network|Volume|Image) )?\S+ +"
    r"(?:Creat|Recreat|Start|Stopp|Remov|Wait|Runn|Pull|Build)(?:e|ed|ing) *"
)

#: What changes the stack to another one, rather than mending the one that was proven.
CHANGES = frozenset({"changed", "image", "content", "files", "orphan"})


@dataclass
class Project(Prover):
    """One project on one host, to be brought to what is wanted.

    :param remedy: asked with the engine's words where a container cannot be started; where it
        returns true the start is tried once more.
    """

    remedy: "Callable[[Host, str], bool] | None" = None

    def converge(self, state: "State", host: "Host") -> bool:
        """Bring the host to what is wanted, prove it, and say whether it is so.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            look = self.look()
            if look.plan.refusals:
                self.tell(look.plan)
                return False
            with connection.hold_lock(self.host, commands.lock(self.spec)):
                # Whoever held the lock until now may have changed what was read before, and one
                # who was killed may have left a command behind that still does.
                settled = self._run(commands.SETTLED, tethered=True)
                self._must(settled, "timed out waiting for a command of an earlier run")
                connection.invalidate(self.host)
                return self._converge()
        except (StepError, connection.RemoteError) as error:
            self._failed(failed(error))
        return False

    def _converge(self) -> bool:
        look = self.look()
        self.tell(look.plan)
        if look.plan.refusals:
            return False
        assert look.state is not None, "a plan without refusals rests on a state"
        if look.held:
            return self._keep(look)
        before = look.state.applied
        assert look.declared is not None, "a plan that acts rests on a declaration"
        declared = look.declared
        changes = before is not None and (
            before.source != self.source.digest
            or any(finding.kind in CHANGES for finding in look.plan.findings)
        )
        self._prepare(look.plan, before, look.state)
        if refused := self._lost(look.plan, look.state):
            self._retag(before)
            self.tell(refused)
            return False
        try:
            self._switch(look.plan, look.state, declared)
            state = self._prove(declared, before, changes=changes)
        except (StepError, connection.RemoteError) as error:
            failure = failed(error)
            if before is None or not changes or self.spec.on_failure == "keep":
                raise failure from None
            self._failed(failure)
            self._roll_back(before, declared, look.state)
            return False
        self._remember(before, declared, state)
        return True

    def _keep(self, look: Look) -> bool:
        """Mend the stack that runs, while the wanted one is not tried again."""
        if any(action.verb == "install files" for action in look.plan.actions):
            # The one who rolled back did not come to the end of it.
            assert look.state is not None, "what is held back was decided from a state"
            assert look.state.applied is not None, "and from a record"
            self._files_back(look.state.applied, self._declared())
            look = self.look()
            self.tell(look.plan)
        assert look.state is not None, "what is held back was decided from a state"
        assert look.state.applied is not None, "and from a record"
        self.installed = look.state.applied
        declared = recorded(look.state.applied, look.state)
        doing = look.plan.model_copy(
            update={"actions": tuple(a for a in look.plan.actions if a.verb != "record")}
        )
        self._switch(doing, look.state, declared)
        self._settle(declared)
        self._failed(StepError(look.held))
        return False

    def _prepare(self, decided: Plan, before: Applied | None, state: StackState) -> None:
        """Have everything at hand before anything is stopped."""
        verbs = {action.verb for action in decided.actions}
        stale = before is None or before.source != self.source.digest
        if not stale and not verbs & {"install files", "pull", "build"}:
            return
        unpacked = not verbs.isdisjoint({"pull", "build"})
        command, archive = commands.stage(self.spec, self.source, unpacked=unpacked)
        self._must(
            self._run(command, stdin=archive),
            "the project's files could not be sent",
        )
        try:
            for action in decided.actions:
                if action.verb in ("pull", "build"):
                    with self._doing(action):
                        self._image(action)
        except StepError:
            self._retag(before)
            raise

    def _lost(self, decided: Plan, state: StackState) -> Plan | None:
        """A plan that only refuses, where an image that has come now would leave data behind."""
        if not any(action.verb in ("pull", "build") for action in decided.actions):
            return None
        anew = [a.subject for a in decided.actions if a.verb in ("recreate", "up")]
        refusals = losses(self.spec, state, self._declared(), anew)
        return Plan(findings=decided.findings, refusals=refusals) if refusals else None

    def _image(self, action: Action) -> None:
        what = (
            f"{action.subject}: its image cannot be {'built' if action.verb == 'build' else 'had'}"
        )
        command = commands.prepare(self.spec, self._files, action)

        def once() -> "Result":
            # Nothing of the stack changes by it: whoever comes next need not wait for it.
            return self._run(command, limit=commands.IMAGE_LIMIT, tethered=True)

        if action.verb == "pull":
            once = tenacity.retry(
                retry=tenacity.retry_if_result(_passing),
                stop=tenacity.stop_after_attempt(3),
                wait=tenacity.wait_exponential(multiplier=2, max=20),
                retry_error_callback=lambda attempt: attempt.outcome.result(),  # type: ignore[union-attr]
            )(once)
        self._must(once(), what)

    def _switch(self, decided: Plan, state: StackState, declared: Declared) -> None:
        """From here on the running stack changes."""
        generation = datetime.fromtimestamp(state.now, UTC).strftime("%Y%m%dT%H%M%SZ")
        by_service: dict[str, list[Action]] = {}
        anew = [action.subject for action in decided.actions if action.verb == "recreate"]
        for action in decided.actions:
            if action.verb == "install files":
                self._mark(anew)
                with self._doing(action):
                    self._must(
                        self._run(commands.install(self.spec, action, generation)),
                        "the project's files could not be put in place",
                    )
            elif action.verb in ("set aside", "disconnect stranger", "remove network"):
                self._one(action, state)
            elif action.verb not in ("pull", "build", "record", "remove"):
                by_service.setdefault(action.subject, []).append(action)
        rounds = levels(declared.services)
        for index, names in enumerate(rounds):
            doing = [action for name in names for action in by_service.get(name, ())]
            if not doing:
                continue
            self._round(doing, state, declared)
            later = {name for names in rounds[index + 1 :] for name in names if name in by_service}
            self._await_conditions(declared, set(names), later)
        for action in decided.actions:
            if action.verb == "remove":
                self._one(action, state)

    def _round(self, doing: Sequence[Action], state: StackState, declared: Declared) -> None:
        made = [action.subject for action in doing if action.verb in ("recreate", "up")]
        self._unobstructed(declared, made)
        self.touched.update(action.subject for action in doing)
        # To have waited for what was still starting is no remedy.
        self.tried.update(action.subject for action in doing if action.verb != "up")
        # A service counts once a run, however many containers and remedies there are.
        mends = {action.subject: action.verb for action in doing if action.mend}
        for name, verb in mends.items():
            if name not in self.counted:
                self._run(commands.mended(self.spec, verb, name))
        self.counted.update(mends)
        for action in doing:
            if action.verb not in ("recreate", "up"):
                self._one(action, state)
        for verb in ("recreate", "up"):
            group = [action for action in doing if action.verb == verb]
            if not group:
                continue
            names = [action.subject for action in group]
            with self._doing(*group):
                command = commands.up(
                    self.spec,
                    self._files,
                    names,
                    anew=verb == "recreate",
                    mounted=mounts(declared.config),
                )
                self._start(command, f"{', '.join(names)} could not be created", names)

    def _unobstructed(self, declared: Declared, names: Sequence[str]) -> None:
        """Fail where something foreign has come since that Compose would take for these services'.

        Compose chooses by labels, and would end it.
        """
        if names and (came := obstructed(declared.services, self._state(), names)):
            raise StepError(f"{', '.join(names)} must not be created now: {'; '.join(came)}")

    def _one(self, action: Action, state: StackState) -> None:
        with self._doing(action):
            self._start(
                commands.act(self.spec, action, state),
                f"could not {action.verb} {action.subject}",
                [action.subject],
            )

    def _start(self, command: "StringCommand", what: str, services: Sequence[str]) -> None:
        """Run what starts containers; once more where what kept them from it could be removed."""
        result = self._run(command)
        if not result.ok and self.remedy is not None and self.remedy(self.host, result.error_text):
            result = self._run(command)
        self._must(result, what, services)

    def _await_conditions(self, declared: Declared, names: set[str], later: set[str]) -> None:
        """Wait for what the services of later rounds demand of those of this one."""
        needed = {
            target
            for name in later
            for target, settings in (declared.services[name].get("depends_on") or {}).items()
            if target in names and settings.get("condition") != "service_started"
        }
        if needed:
            self._settle(declared, needed)

    def _prove(self, declared: Declared, before: Applied | None, *, changes: bool) -> StackState:
        """Wait until all is well, and try once more where that is within policy."""
        once_more = not changes or before is None
        while True:
            problem: StepError | None = None
            checks: tuple[CheckResult, ...] = ()
            try:
                state = self._settle(declared, patience=PATIENCE if once_more else None)
                checks = self._await_checks()
            except StepError as failure:
                problem, state = failure, self._state()
            left = self._left(declared, before, state, checks)
            if problem is None and not left.problems and not left.refusals:
                return state
            again = [action for action in left.actions if action.verb != "record"]
            if not once_more or not again or left.refusals:
                raise problem or self._unproven(left, state)
            once_more = False
            self.tell(left)
            self._switch(left, state, declared)

    def _remember(self, before: Applied | None, declared: Declared, state: StackState) -> None:
        then = self._then(before, declared, state)
        self._must(
            self._run(
                commands.remember(self.spec, self.source.digest),
                stdin=commands.record_archive(then),
            ),
            "what was proven could not be written down",
        )

    def _retag(self, before: Applied | None) -> None:
        for service in (before.services if before else {}).values():
            if service.image and service.image_id:
                self._run(commands.tag(service.image_id, service.image))

    def _mark(self, names: Sequence[str]) -> None:
        """Remember what is to be made anew, for whoever comes after a kill."""
        if names:
            self._must(
                self._run(commands.stale(self.spec, names)),
                "what is to be made anew could not be written down",
            )

    def _roll_back(self, before: Applied, declared: Declared, found: StackState) -> None:
        """Put the files and images back that were proven well, and the services on them.

        ``found`` is the host as it was before this run.
        """
        spec = self.spec.model_copy(
            update={"directory": before.directory, "profiles": before.profiles}
        )
        announce.show_line(
            self.host, f"{self.spec.project}: rolling back to what was proven well before"
        )
        self._mark(sorted(self.touched & set(before.services)))
        self._run(commands.mended(self.spec, "rollback", self.source.digest))
        self._files_back(before, declared)
        self.installed = before
        old = recorded(before, self._state())
        touched = sorted(self.touched & set(old.services))
        missing = sorted(set(old.services) - set(declared.services))
        again: tuple[tuple[Verb, list[str]], ...] = (("recreate", touched), ("up", missing))
        for verb, names in again:
            if names:
                self._unobstructed(old, names)
                with self._doing(*(_back(verb, name) for name in names)):
                    command = commands.up(
                        spec,
                        self._files,
                        names,
                        anew=verb == "recreate",
                        mounted=mounts(old.config),
                    )
                    result = self._run(command)
                    self._must(result, f"{', '.join(names)} could not be put back", names)
        self._settle(old)
        stood = all(found.files.get(path) == was for path, was in before.files.items())
        if stood and not found.stale:
            # What was not touched runs on the files before, as it did.
            self._must(self._run(commands.fresh(self.spec)), "what was done could not be written")
        announce.show_line(
            self.host, f"{self.spec.project}: rolled back, and well as it was before"
        )

    def _files_back(self, before: Applied, declared: Declared) -> None:
        """Put back the files and images that were proven well; end services that came after."""
        self._retag(before)
        came: tuple[Container, ...] = ()
        # Where the engine does not answer, the files are still put back.
        with suppress(StepError):
            came = self._state().containers
        fresh = declared.services.keys() - before.config.get("services", {}).keys()
        gone = [path for path in self.source.files if path not in before.files]
        with self._doing(_back("install files", before.directory)):
            for one in came:
                if one.service in fresh and not one.oneoff:
                    self._run(commands.remove(one.id))
            self._must(
                self._run(commands.restore(self.spec, before, gone)),
                "the files before could not be put back",
            )

    def _run(
        self,
        command: "StringCommand",
        *,
        stdin: bytes | None = None,
        limit: float = commands.LIMIT,
        tethered: bool = False,
    ) -> "Result":
        return connection.run(
            self.host,
            commands.alone(self.spec, command),
            stdin=stdin,
            timeout=commands.PATIENCE + limit,
            tethered=tethered,
        )

    def _must(self, result: "Result", what: str, services: Sequence[str] = ()) -> None:
        if result.ok:
            return
        lines = (result.error_text or result.text).splitlines()
        said = [line for line in lines if line.strip() and not PROGRESS.fullmatch(line)]
        secrets = self.secrets
        reason = drift.masked(" ".join(said[-3:]) or f"exit status {result.status}", secrets)
        log = [drift.masked(line, secrets) for line in said[-LOG_LINES:]]
        if services:
            state = self._state()
            log += self._logs(services, state)
        raise StepError(f"{what}: {reason}", log)

    def _doing(self, *actions: Action) -> AbstractContextManager[None]:
        """Tell the report and the host's journal what is done, however it ends."""
        return announce.track(self.host, self.report, *actions, within=self.spec.project)


def _back(verb: Verb, subject: str) -> Action:
    return Action(verb=verb, subject=subject, cause="rolled back to what was proven well before")


def _passing(result: "Result") -> bool:
    """Whether a pull failed in a way that may pass by itself."""
    said = result.error_text.lower()
    return not result.ok and not any(word in said for word in FINAL)
