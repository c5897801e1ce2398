"""A decision in the making: what was found, what follows for each service, what is refused."""

import posixpath
from collections.abc import Mapping, Sequence

from stackmend.checks.state import CheckResult
from stackmend.compose import drift
from stackmend.compose.plan.declaration import scale
from stackmend.compose.plan.model import Action, Finding, Kind, Refusal, Verb
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Container, Declared, StackState

UNDO: Mapping[str, str] = {
    "attach": "docker network disconnect",
    "detach": "docker network connect",
    "unpause": "docker pause",
    "start": "docker stop",
    "recreate": "the files and images before are kept; a rollback puts them back",
    "up": "docker compose rm --stop",
}


class Notes:
    """The facts that a decision rests on, and what is noted of it."""

    def __init__(
        self,
        spec: ComposeSpec,
        files: Mapping[str, str],
        digest: str,
        state: StackState,
        declared: Declared,
        checks: Sequence[CheckResult],
        tried: frozenset[str],
        ignored: Mapping[str, frozenset[str]],
    ) -> None:
        self.ignored = ignored
        self.spec, self.files, self.digest = spec, files, digest
        self.state, self.declared, self.checks, self.tried = state, declared, checks, tried
        self.applied = state.applied
        self.services = declared.services
        self.secrets = spec.secrets() | drift.secret_values(declared.config)
        if self.applied:
            self.secrets |= drift.secret_values(self.applied.config)
            self.secrets |= frozenset(self.applied.secrets)
        self.findings: list[Finding] = []
        self.refusals: list[Refusal] = []
        self.first: list[Action] = []
        self.last: list[Action] = []
        self.steps: dict[str, list[Action]] = {}
        self.fetched: set[str] = set()

    def _find(
        self,
        subject: str,
        kind: Kind,
        cause: str,
        *,
        blocks: bool = True,
        evidence: Sequence[str] = (),
    ) -> None:
        # The engine's own words and a service's output may quote any secret.
        finding = Finding(
            subject=subject,
            kind=kind,
            cause=drift.masked(cause, self.secrets),
            evidence=tuple(drift.masked(line, self.secrets) for line in evidence),
            blocks=blocks,
        )
        if finding not in self.findings:
            self.findings.append(finding)

    def _refuse(self, subject: str, reason: str, remedy: str) -> None:
        reason = drift.masked(reason, self.secrets)
        refusal = Refusal(subject=subject, reason=reason, remedy=remedy)
        if refusal not in self.refusals:
            self.refusals.append(refusal)

    def _before(
        self,
        verb: Verb,
        container: str,
        cause: str,
        *,
        names: tuple[str, ...],
        undo: str,
    ) -> None:
        """Take a foreign container out of the way first; once, however much it holds."""
        cause = drift.masked(cause, self.secrets)
        for at, other in enumerate(self.first):
            if (other.verb, other.container, other.names) == (verb, container, names):
                causes = dict.fromkeys((other.cause, cause))
                self.first[at] = other.model_copy(update={"cause": "; ".join(causes)})
                return
        self.first.append(
            Action(
                verb=verb,
                subject=container,
                cause=cause,
                container=container,
                names=names,
                destructive=True,
                undo=undo,
            )
        )

    def _do(
        self,
        name: str,
        verb: Verb,
        kind: Kind,
        cause: str,
        container: Container | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        cause = self._placed(name, container, cause)
        self._find(name, kind, cause)
        self._step(name, verb, cause, container, names)

    def _placed(self, name: str, container: Container | None, cause: str) -> str:
        """A cause with the name of its container, where the service has several."""
        several = container is not None and scale(self.services[name]) > 1
        return f"{container.name}: {cause}" if container and several else cause

    def _step(
        self,
        name: str,
        verb: Verb,
        cause: str,
        container: Container | None = None,
        names: tuple[str, ...] = (),
        *,
        mend: bool = False,
    ) -> None:
        """Add a step for a service, or let it join the stronger one that is already planned."""
        cause = drift.masked(cause, self.secrets)
        steps = self.steps.setdefault(name, [])
        whole = next((step for step in steps if step.verb in ("recreate", "up")), None)
        if whole and (whole.verb == "recreate" or verb == "up"):
            if cause not in whole.cause:
                steps[steps.index(whole)] = whole.model_copy(
                    update={"cause": f"{whole.cause}; {cause}", "mend": whole.mend or mend}
                )
            return
        if verb == "recreate":
            causes = [step.cause for step in steps]
            mend = mend or any(step.mend for step in steps)
            steps.clear()
            cause = "; ".join(dict.fromkeys([*causes, cause]))
            container = None
        steps.append(
            Action(
                verb=verb,
                subject=name,
                cause=cause,
                container=container.id if container else "",
                names=names,
                undo=UNDO.get(verb, ""),
                mend=mend,
            )
        )

    def _mend(
        self,
        name: str,
        verb: Verb,
        kind: Kind,
        cause: str,
        container: Container,
        *,
        found: bool = False,
    ) -> None:
        """Restart what failed by itself, as often as the limits of mending allow."""
        cause = self._placed(name, container, cause)
        if not found:
            self._find(name, kind, cause)
        if any(step.verb == "recreate" and not step.mend for step in self.steps.get(name, ())):
            # It is made anew for another reason, which may well be the cure.
            return
        policy = self.spec.mend
        recent = [
            mend.at
            for mend in self.state.mends
            if mend.service == name and self.state.now - mend.at < policy.window
        ]
        if name not in self.tried and len(recent) >= policy.attempts:
            self._refuse(
                name,
                f"{cause}. It was mended {len(recent)} times in the last "
                f"{policy.window / 60:g} minutes, and is left alone",
                f"look at `docker logs` of {container.name}; mend.attempts sets the limit",
            )
            return
        if recent and name not in self.tried and policy.backoff:
            pause = policy.backoff[min(len(recent), len(policy.backoff) - 1)]
            left = pause - (self.state.now - max(recent))
            if left > 0:
                self._refuse(
                    name,
                    f"{cause}. It was mended {self.state.now - max(recent):.0f} s ago",
                    f"run again in {left:.0f} s; mend.backoff sets the pause",
                )
                return
        self._step(name, verb, cause, container, mend=True)

    def _changed_files(self) -> list[str]:
        """Project files whose content is not what the running containers were made with."""
        if not self.applied:
            return [path for path in self.declared.differs or () if path in self.files]
        was = self.applied.files
        return [
            path
            for path in sorted({*self.files, *was})
            if self.files.get(path) != was.get(path)
            or self.state.files.get(path, was.get(path)) != was.get(path)
        ]

    def _ref(self, name: str) -> str:
        body = self.services[name]
        return str(body.get("image") or f"{self.spec.project}-{name}")

    def _inside(self, path: str) -> str | None:
        """A path on the host relative to the project's directory, or None where it lies outside."""
        if path == self.spec.directory:
            return ""
        prefix = self.spec.directory + "/"
        return posixpath.normpath(path[len(prefix) :]) if path.startswith(prefix) else None

    def _network_name(self, key: str) -> str:
        network = (self.declared.config.get("networks") or {}).get(key) or {}
        return str(network.get("name") or f"{self.spec.project}_{key}")

    def _key(self, network: str) -> str | None:
        for key in self.declared.config.get("networks") or {}:
            if self._network_name(key) == network:
                return str(key)
        return None

    def _is_ours(self, network: str) -> bool:
        return self._key(network) is not None
