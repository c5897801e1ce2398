"""What is to be done so that a host has the engine that is wanted."""

from collections.abc import Sequence

from stackmend.decision import Finding, Refusal
from stackmend.engine.plan import versions
from stackmend.engine.plan.model import Action, File, Plan
from stackmend.engine.plan.rivals import KIN, passing, rivals, whole
from stackmend.engine.plan.source import Source, source
from stackmend.engine.spec import MINIMUM_COMPOSE, MINIMUM_ENGINE, Installation
from stackmend.engine.state import HostEngine

_OURS = (
    "/etc/apt/sources.list.d/stackmend-docker.sources",
    "/etc/apt/preferences.d/stackmend-suite",
    "/etc/apt/preferences.d/stackmend-engine",
    "/etc/yum.repos.d/stackmend-docker.repo",
)

_UPGRADE = '"upgrade": True in the stack\'s "engine" section changes it, and keeps its containers'


def plan(wanted: Installation, state: HostEngine) -> Plan:
    """What is to be done so that a host has the engine that is wanted, and it answers.

    :param wanted: which engine, where from, and what may be done for it.
    :param state: what the host has.
    """
    if refused := _unfit(state):
        return Plan(refusals=(refused,))
    origin = source(wanted, state)
    if isinstance(origin, Refusal):
        return Plan(refusals=(origin,))
    findings = _notes(origin, state)
    refusals, replaced = rivals(wanted, state, origin)
    present = whole(state, origin.engine)
    causes: list[str] = []
    missing = [name for name in origin.packages if not whole(state, name)]
    if missing and (not state.compose or missing != [origin.compose]):
        broken = [name for name in missing if name in state.packages]
        verb = "is" if len(broken or missing) == 1 else "are"
        said = f"{verb} broken off half-way" if broken else f"{verb} not there"
        causes.append(f"{', '.join(broken or missing)} {said}")
    if present:
        found, more = _version(wanted, state, origin)
        refusals += found
        causes += more
    if replaced:
        causes.append(f"{', '.join(replaced)} is to be replaced")
    if refusals:
        return Plan(findings=findings, refusals=tuple(refusals))
    actions: list[Action] = []
    if causes:
        actions += _repository(state, origin)
        removing = tuple(
            name
            for one in replaced
            for name in KIN.get(one, ())
            if name in state.packages and name not in (*origin.packages, *origin.extras)
        )
        actions.append(
            Action(
                verb="install",
                subject=" ".join(origin.packages),
                cause="; ".join(causes),
                destructive=bool(removing) or "snap" in replaced,
                undo=_undo(state, removing, snap="snap" in replaced),
                packages=origin.packages,
                extras=origin.extras,
                removing=removing,
                snap="snap" in replaced,
            )
        )
        refusals += passing(state, wanted.replace)
    elif state.service.load == "masked":
        refusals.append(
            Refusal(
                subject="engine",
                reason="docker.service is masked: somebody wants it not to run",
                remedy="systemctl unmask docker.service, there",
            )
        )
    else:
        # An engine that is well needs no source; one that is ours is kept as it is wanted.
        if wanted.version or any(one.path in _OURS for one in state.origins):
            actions += _repository(state, origin)
        actions += _running(state)
    if refusals:
        return Plan(findings=findings, refusals=tuple(refusals))
    return Plan(findings=findings, actions=tuple(actions))


def _unfit(state: HostEngine) -> Refusal | None:
    if state.system != "Linux":
        return Refusal(
            subject="engine",
            reason=f"an engine is not installed on {state.system}",
            remedy='install Docker there by hand, and leave the section "engine" out of the stack',
        )
    if not state.root:
        return Refusal(
            subject="engine",
            reason="packages cannot be installed by this user",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    return None


def _notes(origin: Source, state: HostEngine) -> tuple[Finding, ...]:
    found = []
    if origin.used:
        found.append(
            Finding(
                subject="repository",
                kind="found",
                cause=f"{origin.used} names {origin.address} already: it is used as it is, and its "
                "key is taken for what it is",
                blocks=False,
            )
        )
    found += [
        Finding(
            subject="engine",
            kind="rootless",
            cause=f"user {one.uid} runs an engine of its own (process {one.pid}); it is left alone",
            blocks=False,
        )
        for one in state.daemons
        if one.uid
    ]
    return tuple(found)


def _version(
    wanted: Installation, state: HostEngine, origin: Source
) -> tuple[list[Refusal], list[str]]:
    """What stands against the versions that are there: what is refused, what is to be changed."""
    have = versions.upstream(state.packages[origin.engine].version)
    wrong = []
    if versions.engine_is_old(have):
        wrong.append(f"Engine {have} is older than {MINIMUM_ENGINE}")
    elif wanted.version and not versions.matches(have, wanted.version):
        if versions.numbers(have) > versions.numbers(wanted.version):
            refusal = Refusal(
                subject="engine",
                reason=f"Engine {have} is newer than {wanted.version}, and an older one may not "
                "read what it wrote",
                remedy=f'"version": "{have}" in the stack\'s "engine" section',
            )
            return [refusal], []
        wrong.append(f"Engine is {have}, and is to be {wanted.version}")
    if state.compose and versions.compose_is_old(state.compose):
        wrong.append(f"Compose {state.compose} is older than {MINIMUM_COMPOSE}")
    elif not state.compose and whole(state, origin.compose) and state.client:
        told = versions.upstream(state.packages[origin.compose].version)
        if versions.compose_is_old(told):
            wrong.append(f"Compose {told} is older than {MINIMUM_COMPOSE}")
        else:
            refusal = Refusal(
                subject="engine",
                reason=f"{origin.compose} {told} is installed, and docker compose does not answer",
                remedy="see what `docker compose version` says there",
            )
            return [refusal], []
    if wrong and not wanted.upgrade:
        return [Refusal(subject="engine", reason="; ".join(wrong), remedy=_UPGRADE)], []
    return [], wrong


def _repository(state: HostEngine, origin: Source) -> list[Action]:
    """What lets the package manager find the engine, and trust where it comes from."""
    actions: list[Action] = []
    asked = (origin.address, origin.key)
    https = state.manager == "apt" and any(one.startswith("https://") for one in asked)
    if https and not whole(state, "ca-certificates"):
        # Without them no certificate is known, and nothing can be fetched.
        actions.append(
            Action(
                verb="install",
                subject="ca-certificates",
                cause="the repository is reached by https",
                packages=("ca-certificates",),
            )
        )
    if origin.keyring:
        have = state.keys.get(origin.keyring, ())
        if set(have) != set(origin.expected):
            actions.append(
                Action(
                    verb="trust",
                    subject=origin.expected[0],
                    cause=f"{origin.address or 'its repository'} is signed with it",
                    undo=f"rm {origin.keyring}",
                    source=origin.key,
                    expected=origin.expected,
                    keyring=origin.keyring,
                )
            )
    return actions + _files(origin, state)


def _files(origin: Source, state: HostEngine) -> list[Action]:
    have = {one.path: one.text for one in state.origins}
    changed = [one for one in origin.files if have.get(one.path) != one.text]
    kept = {one.path for one in origin.files}
    changed += [File(path=path, text="") for path in _OURS if path in have and path not in kept]
    if not changed:
        return []
    paths = " ".join(one.path for one in changed)
    return [
        Action(
            verb="write source",
            subject=paths,
            cause="says where the engine comes from" if origin.files else "nothing needs it",
            undo=f"rm {paths}",
            files=tuple(changed),
        )
    ]


def _running(state: HostEngine) -> list[Action]:
    """What lets an engine that is there answer, now and after every start of the host."""
    service = state.service
    actions = []
    if state.status != "up":
        actions.append(
            Action(verb="start", subject="engine", cause=state.reason or "it does not answer")
        )
    elif service.enabled == "disabled":
        actions.append(
            Action(
                verb="enable",
                subject="engine",
                cause="it would not run after the next start of the host",
                undo="systemctl disable docker.service",
            )
        )
    if state.left:
        actions.append(
            Action(
                verb="start again",
                subject=f"{len(state.left)} containers",
                cause="they ran before the engine was stopped, and were not started again",
            )
        )
    return actions


def _undo(state: HostEngine, removing: Sequence[str], *, snap: bool) -> str:
    if snap:
        return "snap enable docker"
    if not removing:
        return ""
    command = {"apt": "apt-get install", "dnf": "dnf install", "apk": "apk add"}
    return f"{command.get(state.manager, 'install')} {' '.join(removing)}"
