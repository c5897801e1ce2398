"""What is to be done so that a host has the engine of its spec."""

from collections.abc import Sequence

from stackmend.decision import Finding, Refusal
from stackmend.engine.plan.beneath import plan_beneath
from stackmend.engine.plan.broken import find_fault, plan_restoration
from stackmend.engine.plan.model import (
    Action,
    File,
    Install,
    InstallEngine,
    Plan,
    RestoreConfig,
    Trust,
    WriteSource,
)
from stackmend.engine.plan.rivals import (
    KIN,
    find_rivals,
    is_installed,
    refuse_auto_removed,
)
from stackmend.engine.plan.service import plan_service, refuse_hung, refuse_unexecutable
from stackmend.engine.plan.source import Source, find_source
from stackmend.engine.plan.versions import (
    extract_upstream,
    is_old_compose,
    is_old_engine,
    is_within,
    parse_version,
)
from stackmend.engine.spec import MINIMUM_COMPOSE, MINIMUM_ENGINE, Installation
from stackmend.engine.state import HostEngine
from stackmend.steering import find_ignored

_OURS = (
    "/etc/apt/sources.list.d/stackmend-docker.sources",
    "/etc/apt/preferences.d/stackmend-suite",
    "/etc/apt/preferences.d/stackmend-engine",
    "/etc/yum.repos.d/stackmend-docker.repo",
)

_UPGRADE = 'set "upgrade": True in the stack\'s "engine" section to change it; its containers stay'


def plan_engine(spec: Installation, state: HostEngine) -> Plan:
    """What is to be done so that a host has an engine that answers.

    :param spec: which engine, where from, and what may be done for it.
    :param state: what the host has.
    """
    if refusal := _check_host(state):
        return Plan(refusals=(refusal,))
    source = find_source(spec, state)
    if isinstance(source, Refusal):
        return Plan(refusals=(source,))
    findings = _note(source, state)
    refusals, replaced = find_rivals(spec, state, source)
    refusals += [] if "restart" in spec.allow else refuse_hung(state)
    refusals += refuse_unexecutable(state)
    restored: RestoreConfig | None = None
    if fault := find_fault(state):
        put_back = plan_restoration(state, fault, spec.allow)
        if isinstance(put_back, Refusal):
            refusals.append(put_back)
        else:
            restored = put_back
    causes: list[str] = []
    missing = [name for name in source.packages if not is_installed(state, name)]
    # Of one that hangs no Compose is asked for.
    composed = state.compose or state.status == "hung"
    if missing and (not composed or missing != [source.compose]):
        partial = [name for name in missing if name in state.packages]
        names = partial or missing
        verb = "is" if len(names) == 1 else "are"
        how = "partially installed" if partial else "not installed"
        causes.append(f"{', '.join(names)} {verb} {how}")
    if is_installed(state, source.engine):
        refused, outdated = _check_versions(spec, state, source)
        refusals += refused
        causes += outdated
    if replaced:
        causes.append(f"it replaces {', '.join(replaced)}")
    if refusals:
        return Plan(findings=findings, refusals=tuple(refusals))
    actions: list[Action] = []
    if causes:
        actions += [restored] if restored else []
        actions += _plan_repository(state, source)
        removing = tuple(
            package
            for rival in replaced
            for package in KIN.get(rival, ())
            if package in state.packages and package not in (*source.packages, *source.extras)
        )
        actions.append(
            InstallEngine(
                subject=" ".join(source.packages),
                cause="; ".join(causes),
                destructive=bool(removing) or "snap" in replaced,
                undo=_find_undo(state, removing, snap="snap" in replaced),
                packages=source.packages,
                extras=source.extras,
                removing=removing,
                snap="snap" in replaced,
            )
        )
        refusals += refuse_auto_removed(state, spec.replace)
    elif state.service.load == "masked":
        refusals.append(
            Refusal(
                subject="engine",
                reason="docker.service is masked: somebody keeps it from running",
                remedy="systemctl unmask docker.service, there",
            )
        )
    else:
        # An engine that answers needs no source; one that is ours is kept as the spec says.
        if spec.version or any(origin.path in _OURS for origin in state.origins):
            actions += _plan_repository(state, source)
        serving, obstacles = plan_service(spec, state, restored)
        actions += serving
        refusals += obstacles
        if state.status == "up":
            beneath = plan_beneath(spec, state)
            findings += beneath.findings
            actions += beneath.actions
            refusals += beneath.refusals
    if refusals:
        return Plan(findings=findings, refusals=tuple(refusals))
    return Plan(findings=findings, actions=tuple(actions))


def _check_host(state: HostEngine) -> Refusal | None:
    if state.system != "Linux":
        return Refusal(
            subject="engine",
            reason=f"stackmend installs no engine on {state.system}",
            remedy='install Docker there by hand, and leave the section "engine" out of the stack',
        )
    if not state.root:
        return Refusal(
            subject="engine",
            reason="this user cannot install packages",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    return None


def _note(source: Source, state: HostEngine) -> tuple[Finding, ...]:
    notes = []
    if source.foreign:
        notes.append(
            Finding(
                subject="repository",
                kind="found",
                cause=f"{source.foreign} names {source.address} already: stackmend uses it as it "
                "is, and trusts its key",
                blocks=False,
            )
        )
    notes += [
        Finding(
            subject="engine",
            kind="rootless",
            cause=f"user {daemon.uid} runs an engine of its own (process {daemon.pid}); stackmend "
            "leaves it alone",
            blocks=False,
        )
        for daemon in state.daemons
        if daemon.uid
    ]
    return (*notes, *find_ignored("engine", state.ignored))


def _check_versions(
    spec: Installation, state: HostEngine, source: Source
) -> tuple[list[Refusal], list[str]]:
    """What stands against the versions that are there: the refusals, and why they change."""
    version = extract_upstream(state.packages[source.engine].version)
    outdated = []
    if is_old_engine(version):
        outdated.append(f"Engine {version} is older than {MINIMUM_ENGINE}")
    elif spec.version and not is_within(version, spec.version):
        if parse_version(version) > parse_version(spec.version):
            refusal = Refusal(
                subject="engine",
                reason=f"Engine {version} is newer than {spec.version}, and an older one may not "
                "read what it wrote",
                remedy=f'set "version": "{version}" in the stack\'s "engine" section',
            )
            return [refusal], []
        outdated.append(f"Engine is {version}, should be {spec.version}")
    if state.compose and is_old_compose(state.compose):
        outdated.append(f"Compose {state.compose} is older than {MINIMUM_COMPOSE}")
    elif not state.compose and is_installed(state, source.compose) and state.client:
        packaged = extract_upstream(state.packages[source.compose].version)
        if is_old_compose(packaged):
            outdated.append(f"Compose {packaged} is older than {MINIMUM_COMPOSE}")
        else:
            refusal = Refusal(
                subject="engine",
                reason=f"{source.compose} {packaged} is installed, and docker compose does not "
                "answer",
                remedy="see what `docker compose version` prints there",
            )
            return [refusal], []
    if outdated and not spec.upgrade:
        return [Refusal(subject="engine", reason="; ".join(outdated), remedy=_UPGRADE)], []
    return [], outdated


def _plan_repository(state: HostEngine, source: Source) -> list[Action]:
    """What lets the package manager find the engine, and trust where it comes from."""
    actions: list[Action] = []
    addresses = (source.address, source.key)
    https = any(address.startswith("https://") for address in addresses)
    if state.manager == "apt" and https and not is_installed(state, "ca-certificates"):
        # Without them apt trusts no certificate, and cannot fetch anything.
        actions.append(
            Install(
                subject="ca-certificates",
                cause="apt reaches the repository by https",
                packages=("ca-certificates",),
            )
        )
    if source.keyring and set(state.keys.get(source.keyring, ())) != set(source.fingerprints):
        actions.append(
            Trust(
                subject=source.fingerprints[0],
                cause=f"it signs {source.address or 'the repository'}",
                undo=f"rm {source.keyring}",
                key=source.key,
                fingerprints=source.fingerprints,
                keyring=source.keyring,
            )
        )
    return actions + _plan_files(source, state)


def _plan_files(source: Source, state: HostEngine) -> list[Action]:
    observed = {origin.path: origin.text for origin in state.origins}
    changed = [file for file in source.files if observed.get(file.path) != file.text]
    kept = {file.path for file in source.files}
    changed += [File(path=path, text="") for path in _OURS if path in observed and path not in kept]
    if not changed:
        return []
    paths = " ".join(file.path for file in changed)
    return [
        WriteSource(
            subject=paths,
            cause="it says where the engine comes from" if source.files else "no longer needed",
            undo=f"rm {paths}",
            files=tuple(changed),
        )
    ]


def _find_undo(state: HostEngine, removing: Sequence[str], *, snap: bool) -> str:
    if snap:
        return "snap enable docker"
    if not removing:
        return ""
    command = {"apt": "apt-get install", "dnf": "dnf install", "apk": "apk add"}
    return f"{command.get(state.manager, 'install')} {' '.join(removing)}"
