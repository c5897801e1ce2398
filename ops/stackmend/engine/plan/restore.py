"""Whether a change of daemon.json may be taken back."""

from __future__ import annotations

from typing import Literal

from stackmend import decision
from stackmend.decision import Refusal
from stackmend.engine.plan.rivals import refuse_auto_removed
from stackmend.engine.plan.service import refuse_hung, refuse_unexecutable
from stackmend.engine.state import HostEngine

#: What the file holds: what it held before the change; what the change set; something else; or
#: there are no copies of such a change.
Kept = Literal["as before", "due", "changed", "unknown"]


class PutConfigBack(decision.Action):
    """Put back the daemon.json, the subject, that a change replaced.

    :param stamp: of the change.
    """

    verb: Literal["put back"] = "put back"
    cause: str = "what was set is to be taken back"
    undo: str = "engine.settings sets it again"
    stamp: str


def plan_return(
    state: HostEngine, path: str, stamp: str, kept: Kept
) -> decision.Plan[PutConfigBack]:
    """What is to be done so that daemon.json is as it was before a change.

    :param state: what the host has.
    :param path: the file.
    :param stamp: of the change.
    :param kept: what the file holds.
    """
    match kept:
        case "as before":
            return decision.Plan()
        case "unknown":
            refusal = Refusal(
                subject=path,
                reason=f"the host keeps no copy of what was there before {stamp}",
                remedy="write it as it is to be, and restart the engine",
            )
            return decision.Plan(refusals=(refusal,))
        case "changed":
            refusal = Refusal(
                subject=path,
                reason=f"it was changed since {stamp}: what is in it now would be lost",
                remedy="compare it with its copy in the directory engine/kept of stackmend's own, "
                "and take back by hand what is to go",
            )
            return decision.Plan(refusals=(refusal,))
    refusals = (
        *refuse_hung(state),
        *refuse_unexecutable(state),
        *refuse_auto_removed(state, ()),
    )
    if refusals:
        return decision.Plan(refusals=refusals)
    return decision.Plan(actions=(PutConfigBack(subject=path, stamp=stamp),))
