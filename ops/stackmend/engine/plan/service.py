"""What lets an engine that is there answer, now and after every start of the host."""

from stackmend.decision import Refusal
from stackmend.engine.plan.flags import parse_flags
from stackmend.engine.plan.merge import parse_config
from stackmend.engine.plan.model import (
    Action,
    Enable,
    MoveDatabase,
    RemovePidFile,
    RestartEngine,
    RestoreConfig,
    Start,
    StartAgain,
    StartContainerd,
)
from stackmend.engine.spec import Installation
from stackmend.engine.state import HostEngine

PID_FILE = "/run/docker.pid"


def plan_service(
    spec: Installation, state: HostEngine, restored: RestoreConfig | None
) -> tuple[list[Action], list[Refusal]]:
    """What starts an engine, and what keeps it from starting.

    :param spec: what may be done for it.
    :param state: what the host has.
    :param restored: the step that puts a daemon.json back, and starts the engine with it.
    """
    actions: list[Action] = []
    silent = _explain_silent(state)
    if silent and "restart" in spec.allow:
        undo = "nothing: it answers again, or is as it was"
        actions.append(RestartEngine(subject="engine", cause=silent, undo=undo, bridges=()))
    elif state.status != "up":
        if refusal := _find_obstacle(spec, state):
            return [], [refusal]
        if state.pid_file:
            pid, name = state.pid_file
            actions.append(
                RemovePidFile(
                    subject=PID_FILE,
                    cause=f"it names process {pid}, which is no dockerd but {name}: the engine "
                    "does not start for it",
                    undo=f"echo {pid} >{PID_FILE}",
                    pid=pid,
                )
            )
        if state.database:
            path = _find_database(state)
            actions.append(
                MoveDatabase(
                    subject=path,
                    cause=f"the engine does not start with it: {state.database}",
                    destructive=True,
                    undo="its copy beside it, which ends in .broken, and systemctl restart docker",
                )
            )
        start = Start(subject="engine", cause=state.reason or "it does not answer")
        actions.append(restored or start)
    elif state.containerd in ("inactive", "failed"):
        actions.append(
            StartContainerd(
                subject="containerd",
                cause=f"containerd.service is {state.containerd}: the engine answers, and can "
                "start no container",
                undo="systemctl stop containerd.service",
            )
        )
    if state.status == "up" and restored:
        actions.append(restored)
    if state.status == "up" and state.service.enabled == "disabled":
        actions.append(
            Enable(
                subject="engine",
                cause="it does not start with the host",
                undo="systemctl disable docker.service",
            )
        )
    if state.left:
        actions.append(
            StartAgain(
                subject=f"{len(state.left)} containers",
                cause="they ran before the engine was stopped, and nothing has started them since",
            )
        )
    return actions, []


def refuse_unexecutable(state: HostEngine) -> list[Refusal]:
    """A client that nobody may execute: the engine may be well, and nothing asks it."""
    if state.status != "unexecutable":
        return []
    remedy = (
        "make it executable again there (`chmod 755`), or install its package again; then rerun"
    )
    return [Refusal(subject="engine", reason=state.reason, remedy=remedy)]


def refuse_hung(state: HostEngine) -> list[Refusal]:
    """An engine that takes questions and answers none: whatever it does, it is not to be lost."""
    return [_refuse_silent(state, _explain_hung(state))] if state.status == "hung" else []


def _refuse_silent(state: HostEngine, reason: str) -> Refusal:
    """The refusal to restart an engine that runs and does not answer."""
    units = "docker.socket docker" if state.containerd != "hung" else "containerd docker"
    remedy = (
        f"see what it waits for (journalctl -u docker), then run `systemctl restart {units}`; to "
        'have it done, add "allow": ["restart"] to the stack\'s "engine" section: containers are '
        "stopped with it and started again, but where live-restore is on"
    )
    return Refusal(subject="engine", reason=reason, remedy=remedy)


def _explain_hung(state: HostEngine) -> str:
    """What of an engine hangs."""
    if state.containerd == "hung":
        return f"containerd hangs, and the engine with it: {state.reason}"
    return f"the engine hangs: {state.reason}"


def _explain_silent(state: HostEngine) -> str:
    """Why an engine that runs does not answer; empty where that is not so."""
    if state.status == "hung":
        return _explain_hung(state)
    running = [daemon for daemon in state.daemons if not daemon.uid]
    # One that is starting may be one that fails, again and again.
    if state.status in ("unknown", "stopped") and running and state.service.active == "active":
        return f"dockerd (process {running[0].pid}) runs and does not answer: {state.reason}"
    return ""


def _find_obstacle(spec: Installation, state: HostEngine) -> Refusal | None:
    if silent := _explain_silent(state):
        return _refuse_silent(state, silent)
    if state.database and "repair:networks" not in spec.allow:
        return Refusal(
            subject=_find_database(state),
            reason=f"the engine does not start with it: {state.database}",
            remedy='to move it aside, add "allow": ["repair:networks"] to the stack\'s "engine" '
            "section; the engine then knows none of its networks, and Compose makes a project's "
            "anew",
        )
    return None


def _find_database(state: HostEngine) -> str:
    """The engine's database of networks, which only its settings tell while it is down."""
    try:
        config, _ = parse_config(state.config.text)
    except ValueError:
        config = {}
    flag = parse_flags(state.service.flags).get("data-root", ("",))[-1]
    root = flag or config.get("data-root") or "/var/lib/docker"
    return f"{root}/network/files/local-kv.db"
