"""The decision: from the desired ports and those who hold them to what is done. Pure.

``target`` says what would have to be stopped for a holder to let go, and ``protection`` what is
never stopped; ``decide`` goes through the ports upon both. ``remaining`` names who brought a holder
back, and ``starters`` stops it as well.
"""

from stackmend.ports.plan.decide import explain_allocated, plan
from stackmend.ports.plan.model import Action, Plan, Reserve
from stackmend.ports.plan.remaining import list_remaining
from stackmend.ports.plan.starters import plan_starters

__all__ = [
    "Action",
    "Plan",
    "Reserve",
    "explain_allocated",
    "list_remaining",
    "plan",
    "plan_starters",
]
