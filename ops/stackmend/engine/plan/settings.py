"""What is to be done so that an engine has the desired settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from stackmend.decision import Finding, Refusal
from stackmend.engine.plan.broken import find_fault, plan_restoration
from stackmend.engine.plan.flags import find_conflicts, has_value, parse_flags
from stackmend.engine.plan.merge import Change, merge, parse_config
from stackmend.engine.plan.model import InstallEngine, Plan, SetConfig, SettingsPlan, TakeUp
from stackmend.engine.plan.rivals import refuse_auto_removed
from stackmend.engine.plan.service import refuse_hung, refuse_unexecutable
from stackmend.engine.state import HostEngine

#: Keys that an engine takes up when it is told to read the file again. All others need a restart.
RELOADED = frozenset(
    "authorization-plugins debug default-runtime insecure-registries labels live-restore "
    "max-concurrent-downloads max-concurrent-uploads max-download-attempts registry-mirrors "
    "runtimes shutdown-timeout".split()
)


def plan_settings(
    desired: Mapping[str, Any],
    replace: Sequence[str],
    state: HostEngine,
    allow: Sequence[str] = (),
) -> SettingsPlan:
    """What is to be done so that daemon.json holds settings and the engine runs with them.

    :param desired: the settings, as daemon.json has them.
    :param replace: ``container:NAME`` for those that may be gone when the engine restarts.
    :param state: what the host has.
    :param allow: what may be done beyond that: ``config``.
    """
    if not desired and not state.pending:
        return SettingsPlan()
    if refusal := _check_host(state):
        return SettingsPlan(refusals=(refusal,))
    flags = parse_flags(state.service.flags)
    # What a flag sets already, daemon.json need not hold.
    rest = {
        key: value
        for key, value in desired.items()
        if key not in flags or not has_value(flags[key], value)
    }
    fault = find_fault(state)
    if fault and "config" in allow:
        restored = plan_restoration(state, fault, allow, rest)
        if isinstance(restored, Refusal):
            return SettingsPlan(refusals=(restored,))
        return SettingsPlan(actions=(restored,))
    try:
        observed, _ = parse_config(state.config.text)
        merged = merge(state.config.text, rest)
    except ValueError as error:
        return SettingsPlan(refusals=(_refuse_config(state, fault, str(error)),))
    conflicts = find_conflicts(flags, {**observed, **rest})
    if conflicts:
        return SettingsPlan(
            refusals=tuple(_refuse_flag(key, values, state) for key, values in conflicts.items())
        )
    action: SetConfig | TakeUp
    findings = tuple(map(_describe_change, merged.changes))
    subject, restart = state.config.real or state.config.path, True
    if merged.changes or merged.comments:
        restart = state.status != "up" or any(
            change.key.partition(".")[0] not in RELOADED for change in merged.changes
        )
        action = SetConfig(
            subject=subject,
            cause=_explain(merged.changes, comments=merged.comments),
            undo="engine.restored with the name of its copy",
            text=merged.text,
            restart=restart,
        )
    elif state.pending:
        action = TakeUp(
            subject=subject, cause="it was changed, and the engine was not seen to run with it"
        )
    else:
        return SettingsPlan()
    if refusals := refuse_hung(state) + refuse_unexecutable(state):
        return SettingsPlan(findings=findings, refusals=tuple(refusals))
    if restart and "live-restore" not in _list_switches(observed, flags):
        refusals = refuse_auto_removed(state, replace)
        if refusals:
            return SettingsPlan(findings=findings, refusals=tuple(refusals))
    return SettingsPlan(findings=findings, actions=(action,))


def add_first_settings(plan: Plan, desired: Mapping[str, Any], state: HostEngine) -> Plan:
    """A plan that installs an engine, with the settings that it starts with.

    Only an engine that is new and has no daemon.json starts with them: :func:`plan_settings` sets
    any other once it is there. The step that sets them stands before the one that installs, and
    both are one command: the packages start the engine.

    :param plan: the plan.
    :param desired: the settings, as daemon.json has them.
    :param state: what the host has.
    """
    *before, last = plan.actions or (None,)
    if not isinstance(last, InstallEngine) or last.removing or last.snap or state.daemons:
        return plan
    path = state.config.path
    if state.pending and state.config.kind == "file":
        # An interrupted installation put it there, and no engine was seen to run with it.
        return plan.model_copy(
            update={"actions": (*before, last.model_copy(update={"config": path}))}
        )
    new = state.status == "absent" and "dockerd" not in state.programs
    if not new or not desired or state.config.kind != "missing" or state.config.real:
        return plan
    settings = plan_settings(desired, (), state)
    first, *_ = settings.actions or (None,)
    if settings.refusals or not isinstance(first, SetConfig):
        return plan
    first = first.model_copy(update={"undo": f"rm {path}; systemctl restart docker"})
    return plan.model_copy(
        update={
            "findings": (*plan.findings, *settings.findings),
            "actions": (*before, first, last.model_copy(update={"config": path})),
        }
    )


def _list_switches(config: Mapping[str, Any], flags: Mapping[str, Sequence[str]]) -> set[str]:
    """Switches that are on in the engine that runs."""
    switches = {key for key, value in config.items() if value is True}
    return switches | {key for key, values in flags.items() if values[-1].lower() == "true"}


def _check_host(state: HostEngine) -> Refusal | None:
    config = state.config
    if state.system != "Linux":
        return Refusal(
            subject="engine",
            reason=f"the engine's settings on {state.system} are not in a daemon.json of its own",
            remedy="set them in Docker Desktop",
        )
    if not state.root:
        return Refusal(
            subject=config.path,
            reason="this user cannot write it",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    if config.kind == "directory":
        return Refusal(
            subject=config.path,
            reason="it is a directory (Docker makes one where a container mounts a file that "
            "does not exist), and dockerd does not start with it",
            remedy=f"rmdir {config.path}, there",
        )
    if config.kind == "other":
        return Refusal(
            subject=config.path, reason="it is not a file", remedy="see what it is, and remove it"
        )
    if config.kind == "missing" and config.real:
        return Refusal(
            subject=config.path,
            reason=f"it is a link to {config.real}, which does not exist",
            remedy="make that file, or remove the link",
        )
    if config.problem:
        return Refusal(
            subject=config.path,
            reason=f"cannot read it: {config.problem}",
            remedy="fix it there; stackmend guesses nothing",
        )
    return None


def _refuse_config(state: HostEngine, fault: str, reason: str) -> Refusal:
    refused = plan_restoration(state, fault, ()) if fault else None
    if isinstance(refused, Refusal):
        return refused
    return Refusal(
        subject=state.config.path,
        reason=f"nothing can be set in it: {reason}",
        remedy="fix it there; stackmend guesses nothing",
    )


def _refuse_flag(key: str, values: Sequence[str], state: HostEngine) -> Refusal:
    files = ", ".join(state.service.sources) or "what starts dockerd"
    return Refusal(
        subject=f"{state.config.path}: {key}",
        reason=f"docker.service gives {key} as a flag ({', '.join(values)}), and dockerd does not "
        "start where it stands in daemon.json as well",
        remedy=f"take the flag out of {files}, or the key out of daemon.json and the stack's "
        '"engine" section',
    )


def _describe_change(change: Change) -> Finding:
    return Finding(
        subject=change.key,
        kind="setting",
        cause=f"is {change.before or 'not set'}, should be {change.after}",
    )


def _explain(changes: Sequence[Change], *, comments: bool) -> str:
    causes = [", ".join(dict.fromkeys(change.key for change in changes))] if changes else []
    if comments:
        causes.append("it holds comments, with which dockerd does not start")
    return "; ".join(causes)
