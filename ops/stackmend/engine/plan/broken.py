"""What becomes of a daemon.json that the engine does not start with."""

from collections.abc import Mapping, Sequence
from typing import Any

from stackmend.decision import Refusal
from stackmend.engine.plan.flags import find_conflicts, parse_flags
from stackmend.engine.plan.merge import merge, parse_config
from stackmend.engine.plan.model import RestoreConfig
from stackmend.engine.state import HostEngine
from stackmend.paths import STATE_ROOT

_REMEDY = 'fix it there, or add "allow": ["config"] to the stack\'s "engine" section'


def find_fault(state: HostEngine) -> str:
    """Why the engine does not start with the daemon.json that it has; empty where it does."""
    config = state.config
    if config.kind != "file" or config.problem:
        return ""
    try:
        observed, comments = parse_config(config.text)
    except ValueError as error:
        # dockerd reads some that are no settings of ours, as a key that stands twice.
        return str(error) if config.refused else ""
    if comments and state.status == "up":
        # What sets the engine takes them out.
        return ""
    conflicts = find_conflicts(parse_flags(state.service.flags), observed)
    if config.refused or not conflicts:
        return config.refused
    return f"docker.service gives {', '.join(conflicts)} as a flag as well"


def plan_restoration(
    state: HostEngine, reason: str, allow: Sequence[str], desired: Mapping[str, Any] | None = None
) -> RestoreConfig | Refusal:
    """Put an earlier daemon.json in the place of one that the engine does not start with.

    :param state: what the host has.
    :param reason: why the engine does not start with it.
    :param allow: what may be done: ``config``.
    :param desired: settings that it is to hold at once.
    """
    subject = state.config.real or state.config.path
    reason = f"dockerd does not start with it: {reason}"
    copied = state.config.copied
    if copied is None or _is_conflicting(state, copied.text):
        return Refusal(
            subject=subject,
            reason=f"{reason}; stackmend knows no earlier one that dockerd reads",
            remedy="fix it there; stackmend guesses nothing",
        )
    proven = copied.path.endswith("/proven.json")
    which = (
        "the one that the engine was last seen to run with"
        if proven
        else "the newest of those before that dockerd reads"
    )
    reason = f"{reason}; {copied.path} is {which}"
    if "config" not in allow:
        return Refusal(subject=subject, reason=reason, remedy=_REMEDY)
    return RestoreConfig(
        subject=subject,
        cause=reason,
        undo=f"its copy in {STATE_ROOT}/engine/kept, which ends in .broken",
        text=merge(copied.text, desired or {}).text,
        restart=state.status != "up",
    )


def _is_conflicting(state: HostEngine, text: str) -> bool:
    try:
        observed, _ = parse_config(text)
    except ValueError:
        return True
    return bool(find_conflicts(parse_flags(state.service.flags), observed))
