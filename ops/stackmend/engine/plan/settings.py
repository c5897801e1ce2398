"""What is to be done so that an engine is set as wanted."""

from collections.abc import Mapping, Sequence
from typing import Any

from stackmend.decision import Finding, Refusal
from stackmend.engine.plan import flags as flag
from stackmend.engine.plan.merge import Change, merged, parsed
from stackmend.engine.plan.model import Action, Plan
from stackmend.engine.plan.rivals import passing
from stackmend.engine.state import HostEngine
from stackmend.paths import STATE_ROOT

#: Keys that an engine takes up when it is told to read the file again. All others need a restart.
RELOADED = frozenset(
    "authorization-plugins debug default-runtime insecure-registries labels live-restore "
    "max-concurrent-downloads max-concurrent-uploads max-download-attempts registry-mirrors "
    "runtimes shutdown-timeout".split()
)


def plan(wanted: Mapping[str, Any], replace: Sequence[str], state: HostEngine) -> Plan:
    """What is to be done so that daemon.json holds settings and the engine runs with them.

    :param wanted: the settings, as daemon.json has them.
    :param replace: ``container:NAME`` for those that may be gone when the engine is restarted.
    :param state: what the host has.
    """
    if not wanted and not state.pending:
        return Plan()
    if refused := _unfit(state):
        return Plan(refusals=(refused,))
    given = flag.given(state.service.flags)
    # What a flag says already needs no second word.
    rest = {
        key: value
        for key, value in wanted.items()
        if key not in given or not flag.says(given[key], value)
    }
    try:
        held, _ = parsed(state.config.text)
        found = merged(state.config.text, rest) if rest else merged(state.config.text, {})
    except ValueError as error:
        return Plan(refusals=(_invalid(state, str(error)),))
    both = flag.conflicts(given, {**held, **rest})
    if both:
        return Plan(refusals=tuple(_both(key, values, state) for key, values in both.items()))
    actions: list[Action] = []
    findings: tuple[Finding, ...] = ()
    if found.changes or found.comments:
        restart = state.status != "up" or any(
            change.key.partition(".")[0] not in RELOADED for change in found.changes
        )
        findings = tuple(_finding(change) for change in found.changes)
        actions.append(
            Action(
                verb="set",
                subject=state.config.real or state.config.path,
                cause=_cause(found.changes, comments=found.comments),
                undo=f"its copy in {STATE_ROOT}/engine/kept, and systemctl restart docker",
                text=found.text,
                restart=restart,
            )
        )
    elif state.pending:
        restart = True
        actions.append(
            Action(
                verb="take up",
                subject=state.config.real or state.config.path,
                cause="it was changed, and the engine was not seen to run with it",
                restart=True,
            )
        )
    if actions and restart and "live-restore" not in _on(held, given):
        refusals = passing(state, replace)
        if refusals:
            return Plan(findings=findings, refusals=tuple(refusals))
    return Plan(findings=findings, actions=tuple(actions))


def begun_with(decided: Plan, wanted: Mapping[str, Any], state: HostEngine) -> Plan:
    """A plan that installs an engine, with the settings that it starts with.

    Only an engine that is new and has no daemon.json starts with them: any other is set once it is
    there, by what :func:`plan` says. The step that sets them stands before the one that installs,
    and is done together with it: the packages start the engine.

    :param decided: the plan.
    :param wanted: the settings, as daemon.json has them.
    :param state: what the host has.
    """
    *before, last = decided.actions or (None,)
    if last is None or last.verb != "install" or last.removing or last.snap or state.daemons:
        return decided
    path = state.config.path
    if state.pending and state.config.kind == "file":
        # An installation was broken off, and what it put there was never started with.
        return decided.model_copy(
            update={"actions": (*before, last.model_copy(update={"config": path}))}
        )
    new = state.status == "absent" and "dockerd" not in state.programs
    if not new or not wanted or state.config.kind != "missing" or state.config.real:
        return decided
    settings = plan(wanted, (), state)
    if settings.refusals or not settings.actions:
        return decided
    first = settings.actions[0].model_copy(update={"undo": f"rm {path}; systemctl restart docker"})
    return decided.model_copy(
        update={
            "findings": (*decided.findings, *settings.findings),
            "actions": (*before, first, last.model_copy(update={"config": path})),
        }
    )


def _on(held: Mapping[str, Any], given: Mapping[str, Sequence[str]]) -> set[str]:
    """Switches that are on in the engine that runs."""
    named = {key for key, value in held.items() if value is True}
    return named | {key for key, values in given.items() if values[-1].lower() == "true"}


def _unfit(state: HostEngine) -> Refusal | None:
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
            reason="it cannot be written by this user",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    if config.kind == "directory":
        return Refusal(
            subject=config.path,
            reason="it is a directory (Docker makes one where a container mounts a file that is "
            "not there), and dockerd does not start with it",
            remedy=f"rmdir {config.path}, there",
        )
    if config.kind == "other":
        return Refusal(
            subject=config.path, reason="it is no file", remedy="see what it is, and remove it"
        )
    if config.kind == "missing" and config.real:
        return Refusal(
            subject=config.path,
            reason=f"it is a link to {config.real}, which is not there",
            remedy="make that file, or remove the link",
        )
    if config.problem:
        return Refusal(
            subject=config.path,
            reason=f"it cannot be read: {config.problem}",
            remedy="mend it there; nothing of it is guessed",
        )
    return None


def _invalid(state: HostEngine, reason: str) -> Refusal:
    return Refusal(
        subject=state.config.path,
        reason=f"it is no JSON that dockerd reads: {reason}",
        remedy="mend it there: the engine does not start with it either, and nothing is guessed",
    )


def _both(key: str, values: Sequence[str], state: HostEngine) -> Refusal:
    files = ", ".join(state.service.sources) or "what starts dockerd"
    return Refusal(
        subject=f"{state.config.path}: {key}",
        reason=f"docker.service gives {key} as a flag ({', '.join(values)}), and dockerd does not "
        "start where it stands in daemon.json as well",
        remedy=f"take the flag out of {files}, or the key out of daemon.json and the stack's "
        '"engine" section',
    )


def _finding(change: Change) -> Finding:
    return Finding(
        subject=change.key,
        kind="setting",
        cause=f"is {change.before or 'not set'}, and is to be {change.after}",
    )


def _cause(changes: Sequence[Change], *, comments: bool) -> str:
    said = [", ".join(dict.fromkeys(change.key for change in changes))] if changes else []
    if comments:
        said.append("comments are taken out, with which dockerd does not start")
    return "; ".join(said)
