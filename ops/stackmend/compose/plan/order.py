"""The order of a plan's steps, and what follows from the steps themselves."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from stackmend.compose.plan.actions import (
    Action,
    Build,
    InstallFiles,
    Plan,
    Pull,
    Record,
    Recreate,
    ServiceAction,
    Up,
)
from stackmend.compose.plan.declaration import sort_into_levels
from stackmend.compose.plan.losses import find_losses
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied, Declared, StackState
from stackmend.decision import Finding
from stackmend.frozen import Frozen

#: Kinds of findings that make the stack another one, rather than the one that was proven.
CHANGES = frozenset({"changed", "image", "content", "files", "orphan"})

#: How the project's files are sent before the first step: not at all, as they are kept, or also as
#: a tree that Compose pulls and builds from.
Staging = Literal["none", "archives", "tree"]


class Progress(Frozen):
    """What one run has done to services so far.

    :param touched: services that anything was done to.
    :param tried: those to which a remedy was applied; the next one is the stronger.
    :param counted: those whose mending is recorded against the limits.
    :param installed: whether files were put in place.
    """

    touched: frozenset[str] = frozenset()
    tried: frozenset[str] = frozenset()
    counted: frozenset[str] = frozenset()
    installed: bool = False

    @property
    def is_applied(self) -> bool:
        """Whether anything of the desired files has come to the stack."""
        return self.installed or bool(self.touched)

    def is_counted(self, action: Action) -> bool:
        """Whether a step is to be recorded as a mend: a service's first in a run."""
        return _is_mend(action) and action.subject not in self.counted

    def advance(self, action: Action) -> "Progress":
        """The progress once a step was begun."""
        if not isinstance(action, ServiceAction):
            return self
        name = frozenset({action.subject})
        changes = {
            "touched": self.touched | name,
            # To have waited for what was still starting is no remedy.
            "tried": self.tried if isinstance(action, Up) else self.tried | name,
            "counted": self.counted | name if _is_mend(action) else self.counted,
        }
        return self.model_copy(update=changes)


def arrange(
    services: Mapping[str, Mapping[str, Any]],
    first: Sequence[Action],
    steps: Mapping[str, Sequence[ServiceAction]],
    last: Sequence[Action],
) -> list[Action]:
    """Put steps in order: images come before anything is touched, services after those they need.

    :param first: what is done before any service; its images come first of all.
    :param steps: what is done to each service.
    :param last: what is done after all services.
    """
    ordered: list[ServiceAction] = []
    for number, names in enumerate(sort_into_levels(services)):
        level = [
            _place(step, services[name], steps, number)
            for name in names
            for step in steps.get(name, ())
        ]
        # What is done to a container comes before what may replace it.
        level.sort(key=lambda step: (isinstance(step, Up), isinstance(step, Recreate)))
        ordered += level
    outdated = tuple(step.subject for step in ordered if isinstance(step, Recreate))
    before = [
        step.model_copy(update={"outdated": outdated}) if isinstance(step, InstallFiles) else step
        for step in sorted(first, key=lambda step: not isinstance(step, Pull | Build))
    ]
    return [*before, *ordered, *last]


def separate(actions: Sequence[Action], held: Sequence[Action]) -> tuple[Action, ...]:
    """The steps of a plan that can be taken although some are held: none of what waits for those.

    The stack is not proven by them, nor recorded; where files or what is not the project's own are
    changed as well, all of it is one change, and none can.

    :param actions: the plan's.
    :param held: those of them that are not taken.
    """
    if not all(isinstance(action, ServiceAction | Record) for action in actions):
        return ()
    left = [action for action in actions if isinstance(action, ServiceAction)]
    names = {action.subject for action in held}
    while True:
        waiting = [step for step in left if step.subject in names or names & {*step.depends_on}]
        if not waiting:
            return tuple(left)
        names |= {step.subject for step in waiting}
        left = [step for step in left if step not in waiting]


def _place(
    step: ServiceAction,
    body: Mapping[str, Any],
    steps: Mapping[str, Sequence[ServiceAction]],
    level: int,
) -> ServiceAction:
    """A step with its batch, and with the services that it is to wait for."""
    depends_on = tuple(
        target
        for target, settings in (body.get("depends_on") or {}).items()
        if settings.get("condition") != "service_started" and steps.get(target)
    )
    batch = {"batch": level} if isinstance(step, Recreate | Up) else {}
    return step.model_copy(update={"depends_on": depends_on, **batch})


def split_batches(actions: Iterable[Action]) -> Iterator[tuple[Action, ...]]:
    """The steps in their order, those together that Compose is given together."""

    def get_key(numbered: tuple[int, Action]) -> tuple[str, int]:
        number, action = numbered
        if isinstance(action, Recreate | Up):
            return action.verb, action.batch
        return "", number

    for _, group in itertools.groupby(enumerate(actions), get_key):
        yield tuple(action for _, action in group)


def split_images(actions: Sequence[Action]) -> tuple[tuple[Action, ...], tuple[Action, ...]]:
    """The steps that bring images, and those that follow once the images have come."""
    images = tuple(itertools.takewhile(lambda step: isinstance(step, Pull | Build), actions))
    return images, tuple(actions[len(images) :])


def decide_with_images(
    decided: Plan, spec: ComposeSpec, state: StackState, declared: Declared
) -> Plan:
    """What follows once the images of a plan have come: its other steps, or a refusal.

    Only the image tells whether a service's next container would leave data behind.

    :param declared: the declaration with the images that have come.
    """
    images, others = split_images(decided.actions)
    names = [step.subject for step in others if isinstance(step, Recreate | Up)]
    if images and (refusals := find_losses(spec, state, declared, names)):
        return Plan(findings=decided.findings, refusals=refusals)
    return Plan(findings=decided.findings, actions=others)


def choose_staging(actions: Iterable[Action], applied: Applied | None, digest: str) -> Staging:
    """How the project's files are sent for these steps.

    :param digest: the digest over the project's files.
    """
    steps = tuple(actions)
    if any(isinstance(step, Pull | Build) for step in steps):
        return "tree"
    unknown = applied is None or applied.source != digest
    needed = any(isinstance(step, InstallFiles) for step in steps)
    return "archives" if needed or (unknown and steps) else "none"


def is_change(findings: Iterable[Finding], applied: Applied | None, digest: str) -> bool:
    """Whether a plan makes the stack another one: if that fails, the one before is put back.

    :param applied: the record of what was proven; without one there is nothing to put back.
    :param digest: the digest over the project's files.
    """
    if applied is None:
        return False
    return applied.source != digest or any(finding.kind in CHANGES for finding in findings)


def drop_record(actions: Iterable[Action]) -> tuple[Action, ...]:
    """The steps but for the record."""
    return tuple(step for step in actions if not isinstance(step, Record))


def is_writing(actions: Iterable[Action]) -> bool:
    """Whether steps write what may fill a disk."""
    return any(isinstance(step, InstallFiles | Pull | Build) for step in actions)


def is_creating(actions: Iterable[Action]) -> bool:
    """Whether steps may create containers or networks."""
    return any(isinstance(step, Recreate | Up) for step in actions)


def _is_mend(action: Action) -> bool:
    return bool(getattr(action, "mend", False))
