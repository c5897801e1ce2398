"""What a project is, as far as a move of its legacy worker has to know it. Changes nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from stackmend import compose, connection
from stackmend.models.spec import DEFAULT_PORT
from stackmend.worker.move import client, commands
from stackmend.worker.move.state import Answer, HostMove, Legacy, ProjectView, Runner

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.compose.spec import ComposeSpec
    from stackmend.worker.benchmark.spec import BenchmarkSpec
    from stackmend.worker.move.spec import MovePolicy


@dataclass(frozen=True)
class ProjectObserver:
    """Asks what the containers of a project serve, and reads what Compose makes of its files.

    :param host: the host.
    :param spec: what is desired of the legacy worker.
    :param project: the project, as ``compose.stack`` has it.
    """

    host: Host
    spec: MovePolicy
    project: ComposeSpec

    def ask(self, candidates: tuple[tuple[Runner, int], ...]) -> dict[str, Answer]:
        """What each container answers as a server of OpenAI's API, by its id.

        :param candidates: the containers that may be legacy workers, each with its port.
        """
        found: dict[str, Answer] = {}
        for runner, port in candidates:
            for address in runner.addresses[:1]:
                spec = self._describe_server("openai", runner.service, port)
                if answer := client.read_answer(self.host, spec, address, port):
                    found[runner.id] = answer
        return found

    def describe(self, state: HostMove, legacy: Legacy) -> ProjectView:
        """The project, and what keeps its legacy worker from being moved.

        :param state: what the host has.
        :param legacy: the legacy worker.
        """
        found = compose.observe_project(self.host, self.project)
        if isinstance(found, str):
            return ProjectView(problem=found)
        problem = ""
        if found.names_files:
            problem = (
                "the project's .env names its compose files, and no other can be laid over them"
            )
        elif not found.converged:
            problem = f"{self.project.project} is not yet what its files declare, or not healthy"
        return ProjectView(
            config=found.declared.config,
            image_env={name: image.env for name, image in found.declared.images.items()},
            files=found.files,
            compose_files=found.laid_over,
            directory=self.project.directory,
            checked=self._list_checked(),
            asked=self._list_asked(),
            served=self._list_served(state),
            minimum_free=int(self.project.minimum_free),
            busy={} if problem else self._list_busy(state, legacy),
            absent=self._list_absent(legacy.runner),
            problem=problem,
            waits=not found.converged,
        )

    def _list_absent(self, runner: Runner) -> tuple[str, ...]:
        """The files that are set for models, and that the legacy worker has not."""
        known = {file.path for file in runner.files if file.size}
        if not (paths := sorted({*self.spec.models.values()} - known)):
            return ()
        command = commands.list_absent(runner.id, paths)
        try:
            result = connection.run(self.host, command, readonly=True, timeout=connection.TIMEOUT)
        except connection.CommandTimeout:
            return ()
        lines = result.text.splitlines()
        return tuple(path for path in paths if path in lines)

    def _list_busy(self, state: HostMove, legacy: Legacy) -> dict[str, str]:
        """Which of the two computes for others now, by the rule of ``worker.benchmarked``."""
        target, port = self.spec.target, legacy.answer.port if legacy.answer else None
        silence = legacy.answer.silence if legacy.answer else ""
        found = {legacy.service: silence or self._read_busy("openai", legacy.service, port)}
        if any(runner.service == target for runner in state.runners):
            found[target] = self._read_busy("ollama", target, None)
        return {service: reason for service, reason in found.items() if reason}

    def _read_busy(
        self, target: Literal["openai", "ollama"], service: str, port: int | None
    ) -> str:
        """What a service computes for others now; nothing where that may be disturbed."""
        if "busy" in self.spec.allow:
            return ""
        from stackmend.worker.benchmark import occupation

        return occupation.read_busy(self.host, self._describe_server(target, service, port))

    def _describe_server(
        self, target: Literal["openai", "ollama"], service: str, port: int | None
    ) -> BenchmarkSpec:
        """A service as ``worker.benchmarked`` has it, with the consent of this room."""
        from stackmend.worker.benchmark import BenchmarkSpec

        return BenchmarkSpec(
            target=target,
            service=service,
            port=port,
            project=self.project.project,
            allow=("busy",) if "busy" in self.spec.allow else (),
        )

    def _list_checked(self) -> tuple[str, ...]:
        """The services that checks are asked in, or that their addresses name."""
        named = [name for _, name in self.project.list_named_services()]
        for check in self.project.checks:
            address = getattr(check, "url", None) or getattr(check, "address", None) or ""
            if getattr(check, "inside", None):
                named.append(
                    urlsplit(address if "//" in address else f"//{address}").hostname or ""
                )
        return tuple(sorted({*filter(None, named)}))

    def _list_asked(self) -> tuple[int, ...]:
        """The ports that checks ask of the host itself."""
        found = set()
        for check in self.project.checks:
            address = getattr(check, "url", None) or getattr(check, "address", None) or ""
            if address and not getattr(check, "inside", None):
                with suppress(ValueError):
                    found.add(urlsplit(address if "//" in address else f"//{address}").port or 80)
        return tuple(sorted(found))

    def _list_served(self, state: HostMove) -> tuple[str, ...] | None:
        """The models of an Ollama that the project has already."""
        for runner in state.runners:
            if runner.service == self.spec.target and runner.addresses:
                return client.list_models(self.host, runner.addresses[0], DEFAULT_PORT)
        return None
