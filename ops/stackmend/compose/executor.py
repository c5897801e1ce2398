"""Carry out the steps of a plan in their order. ``plan`` decides what they are, never this."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stackmend import connection, retries
from stackmend.compose import commands
from stackmend.compose.observer import LOG_LINES
from stackmend.compose.plan.actions import (
    Action,
    Build,
    InstallFiles,
    Plan,
    Pull,
    Record,
    Recreate,
    RestoreFiles,
    Up,
)
from stackmend.compose.plan.declaration import list_mounts
from stackmend.compose.plan.foreign import find_obstructions
from stackmend.compose.plan.format import drop_repeated
from stackmend.compose.plan.order import (
    Progress,
    choose_staging,
    decide_with_images,
    split_batches,
    split_images,
)
from stackmend.compose.plan.record import list_tags
from stackmend.compose.plan.rollback import restore_spec
from stackmend.compose.source import name_files
from stackmend.compose.state import Applied, Declared, StackState
from stackmend.errors import StepError
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host

    from stackmend.compose.observer import Observer
    from stackmend.compose.source import Source
    from stackmend.compose.spec import ComposeSpec
    from stackmend.compose.waiter import Waiter
    from stackmend.connection import Lease, Result

#: What Compose prints of its progress, which is not what went wrong.
PROGRESS = re.compile(
    r"\s*(?:(?:Container|Network|Volume|Image) )?\S+ +"
    r"(?:Creat|Recreat|Start|Stopp|Remov|Wait|Runn|Pull|Build)(?:e|ed|ing) *"
)


@dataclass(frozen=True)
class Snapshot:
    """What a host has of a project.

    :param declared: the services that it is to have.
    :param changes: whether the plan makes the stack another one, which is taken back if it fails.
    :param held: whether the services are the record's, because the desired files failed.
    """

    state: StackState
    declared: Declared
    changes: bool = False
    held: bool = False


@dataclass
class Executor:
    """What carries out steps for one project on one host.

    :param options: what names the project's files to Compose.
    :param lease: the lock; each step checks it first.
    :param step: reports and journals what its block does.
    :param verify: waits until the stack is healthy, and returns the record of it.
    :param on_bind_error: asked with the engine's words where a container cannot be started; where
        it returns true the start is tried once more.
    :param packed: the files of the commit that the source is, for the host to keep.
    :param progress: what was done to services so far.
    """

    host: Host
    spec: ComposeSpec
    source: Source
    options: tuple[str, ...]
    observer: Observer
    waiter: Waiter
    lease: Lease
    step: Callable[..., AbstractContextManager[None]]
    verify: Callable[[Executor, Snapshot], Applied]
    on_bind_error: Callable[[Host, str], bool] | None = None
    packed: bytes = b""
    progress: Progress = field(default_factory=Progress)

    def take_record(self, applied: Applied) -> Executor:
        """The same for the files of a record, which lie on the host."""
        options = name_files(applied.files, names_files=applied.names_files)
        return replace(self, spec=restore_spec(self.spec, applied), options=options)

    def prepare(self, decided: Plan, snapshot: Snapshot) -> Plan:
        """Have files and images at hand before anything is stopped; the plan of what follows.

        :raises StepError: an image does not come; then images have the names that they had.
        """
        applied = snapshot.state.applied
        how = choose_staging(decided.actions, applied, self.source.digest)
        if how != "none":
            unpacked = how == "tree"
            command, archive = commands.stage(self.spec, self.source, unpacked=unpacked)
            self.run(command, "cannot send the project's files", stdin=archive)
        images, _ = split_images(decided.actions)
        if not images:
            return decided
        try:
            self.walk(images, snapshot, commands.locate_staging(self.spec))
        except StepError:
            self._restore_tags(applied)
            raise
        declared = self.observer.resolve()
        following = decide_with_images(decided, self.spec, snapshot.state, declared)
        if following.refusals:
            self._restore_tags(applied)
        return following

    def walk(self, actions: Iterable[Action], snapshot: Snapshot, directory: str = "") -> None:
        """Carry out steps in their order.

        :param directory: where the files are that images are built from; the project's directory
            by default.
        :raises StepError: a step failed.
        """
        for batch in split_batches(actions):
            self.lease.check()
            depends_on = {name for action in batch for name in getattr(action, "depends_on", ())}
            if depends_on:
                self.waiter.wait_until_healthy(snapshot.declared, snapshot.state, depends_on)
            self._refuse_obstructed(batch, snapshot)
            for action in batch:
                if self.progress.is_counted(action):
                    # What is not counted would be mended for ever.
                    command = commands.record_mend(self.spec, action.verb, action.subject)
                    self.run(command, f"cannot count the attempt to mend {action.subject}")
                self.progress = self.progress.advance(action)
            self._execute(batch, snapshot, directory or self.spec.directory)

    def _execute(self, batch: Sequence[Action], snapshot: Snapshot, directory: str) -> None:
        action = batch[0]
        match action:
            case Recreate() | Up():
                self._create(batch, snapshot, recreate=isinstance(action, Recreate))
            case Record():
                applied = self.verify(self, snapshot)
                with self.step(action):
                    command = commands.record(self.spec, applied.source)
                    archive = commands.make_record_archive(applied, self.packed)
                    self.run(command, "cannot record what was proven", stdin=archive)
            case Pull() | Build():
                with self.step(action):
                    self._fetch_image(action, directory)
            case InstallFiles():
                self._mark_stale(action.outdated)
                with self.step(action):
                    now = datetime.fromtimestamp(snapshot.state.now, UTC)
                    command = commands.install(self.spec, action, f"{now:%Y%m%dT%H%M%SZ}")
                    self.run(command, "cannot put the project's files in place")
                self.progress = self.progress.model_copy(update={"installed": True})
            case RestoreFiles():
                self._mark_stale(action.outdated)
                with self.step(action):
                    self._restore_files(action)
            case _:
                with self.step(action):
                    command = commands.act(self.spec, action, snapshot.state)
                    failure = f"could not {action.verb} {action.subject}"
                    self._start(command, failure, [action.subject])

    def _refuse_obstructed(self, batch: Sequence[Action], snapshot: Snapshot) -> None:
        """Fail before anything is begun where something foreign has come since.

        Compose chooses by labels, and would end what bears those of these services.
        """
        names = [action.subject for action in batch if isinstance(action, Recreate | Up)]
        if not names:
            return
        services = snapshot.declared.services
        if came := find_obstructions(services, self.observer.read_state(), names):
            raise StepError(f"cannot create {', '.join(names)} now: {'; '.join(came)}")

    def _create(self, batch: Sequence[Action], snapshot: Snapshot, *, recreate: bool) -> None:
        names = [action.subject for action in batch]
        mounted = list_mounts(snapshot.declared.config)
        command = commands.build_up(
            self.spec, self.options, names, recreate=recreate, mounted=mounted
        )
        with self.step(*batch):
            self._start(command, f"cannot create {', '.join(names)}", names)

    def _start(self, command: StringCommand, failure: str, services: Sequence[str]) -> None:
        """Run what starts containers; once more where what kept them from it could be removed."""
        result = self.attempt(command)
        ask = self.on_bind_error
        if not result.ok and ask is not None and ask(self.host, result.error_text):
            result = self.attempt(command)
        self._check(result, failure, services)

    def _fetch_image(self, action: Pull | Build, directory: str) -> None:
        command = commands.fetch_image(self.spec, self.options, action, directory)

        def report(text: str) -> None:
            announce.show_line(self.host, f"  {action.subject}: {self.observer.redact(text)}")

        # Nothing of the stack changes by it: whoever comes next need not wait for it.
        result = retries.retry(
            lambda left: self.attempt(command, timeout=left, tethered=True),
            limit=commands.IMAGE_LIMIT,
            on_retry=report,
        )
        self._check(result, f"{action.subject}: cannot {action.verb} its image", remote=True)

    def _restore_files(self, action: RestoreFiles) -> None:
        if action.failed:
            self.attempt(commands.record_mend(self.spec, "rollback", action.failed))
        # Whatever the engine can still do of it, the files are put back.
        for tag in action.tags:
            self.attempt(commands.tag(tag))
        for container in action.containers:
            self.attempt(commands.remove(container))
        self.run(commands.restore(self.spec, action), "cannot put back the files before")

    def _restore_tags(self, applied: Applied | None) -> None:
        for tag in list_tags(applied) if applied else ():
            self.attempt(commands.tag(tag))

    def _mark_stale(self, names: Sequence[str]) -> None:
        """Record what is to be recreated, for whoever comes after a kill."""
        if names:
            command = commands.mark_stale(self.spec, names)
            self.run(command, "cannot record what is to be recreated")

    def discard_staged(self) -> None:
        """Remove the files that were sent and not proven: the project's secrets are among them."""
        with suppress(connection.RemoteError):
            self.lease.check()
            self.attempt(commands.discard_staged(self.spec))

    def run(self, command: StringCommand, failure: str, **options: Any) -> None:
        """Run a command that has to succeed, as :meth:`attempt` does.

        :param failure: what did not succeed otherwise.
        :raises StepError: it did not.
        """
        self._check(self.attempt(command, **options), failure)

    def attempt(
        self,
        command: StringCommand,
        *,
        stdin: bytes | None = None,
        timeout: float = commands.LIMIT,
        tethered: bool = False,
    ) -> Result:
        """Run a command, once no command of an earlier run changes the project."""
        return connection.run(
            self.host,
            commands.run_exclusively(self.spec, command),
            stdin=stdin,
            timeout=commands.BUSY_TIMEOUT + timeout,
            tethered=tethered,
        )

    def _check(
        self, result: Result, failure: str, services: Sequence[str] = (), *, remote: bool = False
    ) -> None:
        """Raise where a command failed.

        :param remote: whether it spoke to the outside world, so that its cause has a class.
        """
        if result.ok:
            return
        output = (result.error_text or result.text).splitlines()
        lines = [line for line in output if line.strip() and not PROGRESS.fullmatch(line)]
        lines = drop_repeated(lines)
        reason = " ".join(lines[-3:]) or f"exit status {result.status}"
        if remote:
            if cause := retries.find_result_cause(result):
                reason = retries.format_cause(cause)
            lines = drop_repeated([*filter(str.strip, result.text.splitlines()), *lines])
        # What the reason holds already is not shown again below it.
        last = lines[-LOG_LINES:] if len(lines) > 3 else []
        log = [self.observer.redact(line) for line in last]
        if services:
            log += self.observer.read_logs(services, self.observer.read_state())
        raise StepError(f"{failure}: {self.observer.redact(reason)}", log)
