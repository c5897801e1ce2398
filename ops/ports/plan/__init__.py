"""The decision: from the ports that are wanted and those who hold them to what is done. Pure.

``target`` says what would have to be ended for a holder to let go, and ``protected`` what is never
ended; ``decide`` goes through the ports upon both. ``reserve`` keeps wanted ports from outgoing
connections, and ``respawn`` names who brought a holder back.
"""

from ops.ports.plan.decide import allocated, plan
from ops.ports.plan.model import Action, Plan, Verb
from ops.ports.plan.respawn import left
from ops.ports.plan.target import exactly
from ops.ports.ranges import compressed, parsed

__all__ = ["Action", "Plan", "Verb", "allocated", "compressed", "exactly", "left", "parsed", "plan"]
