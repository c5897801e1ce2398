"""The decision: from the engine that is wanted and the one that is there to what is done. Pure.

``installed`` says what a host needs to have an engine, ``source`` where that comes from, ``rivals``
what is in its way and ``chosen`` which versions it is; ``settings`` says what daemon.json needs,
upon ``merge`` and ``flags``.
"""

from ops.engine.plan.chosen import Chosen, chosen
from ops.engine.plan.installed import plan
from ops.engine.plan.merge import merged
from ops.engine.plan.model import Action, File, Plan, Verb
from ops.engine.plan.settings import begun_with
from ops.engine.plan.settings import plan as plan_settings
from ops.engine.plan.source import Source, source

__all__ = [
    "Action",
    "Chosen",
    "File",
    "Plan",
    "Source",
    "Verb",
    "begun_with",
    "chosen",
    "merged",
    "plan",
    "plan_settings",
    "source",
]
