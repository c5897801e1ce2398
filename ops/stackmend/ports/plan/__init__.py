"""The decision: from the ports that are wanted and those who hold them to what is done. Pure.

``target`` says what would have to be ended for a holder to let go, and ``protected`` what is never
ended; ``decide`` goes through the ports upon both. ``reserve`` keeps wanted ports from outgoing
connections, and ``respawn`` names who brought a holder back.
"""

from stackmend.ports.plan.decide import allocated, plan
from stackmend.ports.plan.model import Action, Plan, Verb
from stackmend.ports.plan.respawn import left
from stackmend.ports.plan.target import exactly
from stackmend.ports.ranges import compressed, parsed

__all__ = ["Action", "Plan", "Verb", "allocated", "compressed", "exactly", "left", "parsed", "plan"]
