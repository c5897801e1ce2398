"""The decision: from what is wanted and what is there to what will be done, and why. Pure.

``gates`` refuse a host that cannot be worked on; ``foreign`` tells the project's own from what only
looks like it; ``decide`` goes through the project and
``service`` through each of its services, both upon ``notes``; ``health`` judges what comes up and
``record`` says what is remembered of it.
"""

from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.declaration import AROUND, levels, mounts, unpublished
from stackmend.compose.plan.foreign import obstructed, sort_out
from stackmend.compose.plan.gates import (
    failed_before,
    needs_declared,
    refuse_crowded,
    refuse_engine,
)
from stackmend.compose.plan.health import LOOP_RESTARTS, Verdict, judge, unstable, young
from stackmend.compose.plan.losses import losses
from stackmend.compose.plan.model import Action, Finding, Kind, Plan, Refusal, Verb
from stackmend.compose.plan.record import expected, recorded

__all__ = [
    "AROUND",
    "LOOP_RESTARTS",
    "Action",
    "Finding",
    "Kind",
    "Plan",
    "Refusal",
    "Verb",
    "Verdict",
    "expected",
    "failed_before",
    "judge",
    "levels",
    "losses",
    "mounts",
    "needs_declared",
    "obstructed",
    "plan",
    "recorded",
    "refuse_crowded",
    "refuse_engine",
    "sort_out",
    "unpublished",
    "unstable",
    "young",
]
