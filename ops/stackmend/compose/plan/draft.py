"""A decision in the making: what it rests on, what was found, what follows, what is refused."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import TypeVar

from stackmend import decision
from stackmend.checks.state import CheckResult
from stackmend.compose import drift
from stackmend.compose.modes import find_mode
from stackmend.compose.plan.actions import (
    Action,
    Disconnect,
    Kind,
    Recreate,
    Repair,
    Restart,
    ServiceAction,
    SetAside,
    Start,
    Up,
)
from stackmend.compose.plan.declaration import count_replicas
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Checkout, Container, Declared, StackState
from stackmend.decision import Finding, Refusal

A = TypeVar("A", bound=decision.Action)


class Draft:
    """One decision: its parts read what it rests on, and note here what they find.

    The parameters are those of :func:`stackmend.compose.plan.decide.plan`.
    """

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
        checkout: Checkout | None = None,
    ) -> None:
        self.ignored, self.checkout = ignored, checkout
        self.spec, self.files, self.digest = spec, files, digest
        self.state, self.declared, self.checks, self.tried = state, declared, checks, tried
        self.applied = state.applied
        self.services = declared.services
        self.secrets = spec.secrets | drift.find_secrets(declared.config)
        if self.applied:
            self.secrets |= drift.find_secrets(self.applied.config)
            self.secrets |= frozenset(self.applied.secrets)
        self.findings: list[Finding] = []
        self.refusals: list[Refusal] = []
        #: What is done before any service, to each service, and after all of them.
        self.first: list[Action] = []
        self.steps: dict[str, list[ServiceAction]] = {}
        self.last: list[Action] = []
        #: Services that no restart helps: what they say is wrong is for their owner to put right.
        self.spared: set[str] = set()
        #: The images that steps bring.
        self.fetched: set[str] = set()

    def explain_move(self) -> str:
        """How the files' commit became another one; empty where it is the record's."""
        before = self.applied.checkout if self.applied else None
        if self.checkout is None or before is None or self.checkout == before:
            return ""
        return self.checkout.format_change(before)

    # What is noted

    def find(
        self,
        subject: str,
        kind: Kind,
        cause: str,
        *,
        blocks: bool = True,
        evidence: Sequence[str] = (),
        remedy: str = "",
    ) -> None:
        """Note what is not as it should be."""
        # The engine's own words and a service's output may quote any secret.
        finding = Finding(
            subject=subject,
            kind=kind,
            cause=drift.redact(cause, self.secrets),
            evidence=tuple(drift.redact(line, self.secrets) for line in evidence),
            remedy=remedy,
            blocks=blocks,
        )
        if finding not in self.findings:
            self.findings.append(finding)

    def is_to_mend(self, path: str, subject: str, kind: Kind, cause: str) -> bool:
        """Whether a field that differs is to be brought back; one that is warned of is noted here.

        :param path: the field's, such as ``services.api.image``.
        :param subject: what has it.
        :param kind: the kind of the finding.
        :param cause: what differs, in words.
        """
        mode = find_mode(self.spec.drift, path)
        if mode == "warn":
            remedy = f'to have it mended, leave {path} out of "drift", or set it to "mend"'
            self.find(subject, kind, f"{cause}; left as it is", remedy=remedy, blocks=False)
        return mode == "mend"

    def refuse(self, subject: str, reason: str, remedy: str) -> None:
        """Note what will not be done, and what lifts that."""
        reason = drift.redact(reason, self.secrets)
        refusal = Refusal(subject=subject, reason=reason, remedy=remedy)
        if refusal not in self.refusals:
            self.refusals.append(refusal)

    def clear_obstacle(self, action: SetAside | Disconnect) -> None:
        """Take a foreign container out of the way first; once, however much it holds."""
        action = self._redact(action)
        for at, other in enumerate(self.first):
            causes = dict.fromkeys((other.cause, action.cause))
            if action.model_copy(update={"cause": other.cause, "undo": other.undo}) == other:
                self.first[at] = other.model_copy(update={"cause": "; ".join(causes)})
                return
        self.first.append(action)

    def do(self, kind: Kind, action: ServiceAction, container: Container | None = None) -> None:
        """Note why a service, or one container of it, is not as it should be, and the step."""
        action = self._place(action, container)
        self.find(action.subject, kind, action.cause)
        self.add(action)

    def add(self, action: ServiceAction) -> None:
        """Add a step for a service, or let it join the stronger one that is already planned."""
        action = self._redact(action)
        steps = self.steps.setdefault(action.subject, [])
        mend = bool(getattr(action, "mend", False))
        for at, other in enumerate(steps):
            if isinstance(other, Recreate) or (isinstance(other, Up) and isinstance(action, Up)):
                if action.cause not in other.cause:
                    changes: dict[str, object] = {"cause": f"{other.cause}; {action.cause}"}
                    if isinstance(other, Recreate):
                        changes["mend"] = other.mend or mend
                    steps[at] = other.model_copy(update=changes)
                return
            same = {"cause": other.cause, "undo": other.undo, "mend": mend}
            if isinstance(action, Restart | Start) and action.model_copy(update=same) == other:
                causes = dict.fromkeys((other.cause, action.cause))
                steps[at] = other.model_copy(update={"cause": "; ".join(causes)})
                return
        if isinstance(action, Recreate):
            mend = mend or any(getattr(step, "mend", False) for step in steps)
            causes = dict.fromkeys([*(step.cause for step in steps), action.cause])
            action = action.model_copy(update={"cause": "; ".join(causes), "mend": mend})
            steps.clear()
        steps.append(action)

    def mend(
        self,
        kind: Kind,
        action: Start | Restart | Repair | Recreate,
        container: Container,
        *,
        found: bool = False,
    ) -> None:
        """Restart what failed by itself, as often as the limits of mending allow.

        :param found: whether what failed is noted already.
        """
        action = self._place(action, container).model_copy(update={"mend": True})
        name, cause = action.subject, action.cause
        if not found:
            self.find(name, kind, cause)
        if any(isinstance(step, Recreate) and not step.mend for step in self.steps.get(name, ())):
            # It is recreated for another reason, which may well be the cure.
            return
        policy, now = self.spec.mend, self.state.now
        recent = [
            mend.at
            for mend in self.state.mends
            if mend.service == name and now - mend.at < policy.window
        ]
        if name not in self.tried and len(recent) >= policy.attempts:
            if any(refusal.subject == name for refusal in self.refusals):
                return
            self.refuse(
                name,
                f"{cause}. stackmend mended it {len(recent)} times in the last "
                f"{policy.window / 60:g} minutes, and leaves it alone",
                f"look at `docker logs` of {container.name}; mend.attempts sets the limit",
            )
            return
        if recent and name not in self.tried and policy.backoff:
            pause = policy.backoff[min(len(recent), len(policy.backoff) - 1)]
            left = pause - (now - max(recent))
            if left > 0:
                self.refuse(
                    name,
                    f"{cause}. stackmend mended it {now - max(recent):.0f} s ago",
                    f"run again in {left:.0f} s; mend.backoff sets the pause",
                )
                return
        self.add(action)

    def _redact(self, action: A) -> A:
        return action.model_copy(update={"cause": drift.redact(action.cause, self.secrets)})

    def _place(self, action: A, container: Container | None) -> A:
        """A step whose cause names its container, where the service has several."""
        if container is None or count_replicas(self.services[action.subject]) < 2:
            return action
        return action.model_copy(update={"cause": f"{container.name}: {action.cause}"})

    # What it rests on

    def has_step(self, name: str, *kinds: type[ServiceAction]) -> bool:
        """Whether a service has a step of one of these kinds."""
        return any(isinstance(step, kinds) for step in self.steps.get(name, ()))

    def list_changed_files(self) -> list[str]:
        """Project files whose content is not what the running containers were made with."""
        if not self.applied:
            return [path for path in self.declared.differs or () if path in self.files]
        was = self.applied.files
        return [
            path
            for path in sorted({*self.files, *was})
            if self.files.get(path) != was.get(path)
            or (
                self.state.files.get(path, was.get(path)) != was.get(path)
                and find_mode(self.spec.drift, f"files.{path}") == "mend"
            )
        ]

    def name_image(self, name: str) -> str:
        """The image that a service names, or that Compose builds for it."""
        body = self.services[name]
        return str(body.get("image") or f"{self.spec.project}-{name}")

    def relativize(self, path: str) -> str | None:
        """A path on the host relative to the project's directory, or None where it lies outside."""
        if path == self.spec.directory:
            return ""
        prefix = self.spec.directory + "/"
        return posixpath.normpath(path[len(prefix) :]) if path.startswith(prefix) else None

    def name_network(self, key: str) -> str:
        """What the engine calls a network of the compose file's."""
        network = (self.declared.config.get("networks") or {}).get(key) or {}
        return str(network.get("name") or f"{self.spec.project}_{key}")

    def find_key(self, network: str) -> str | None:
        """What the compose file calls a network of the engine's."""
        for key in self.declared.config.get("networks") or {}:
            if self.name_network(key) == network:
                return str(key)
        return None
