"""The decision: from the engine that is wanted and the one that is there to what is done. Pure.

``installed`` says what a host needs to have an engine, ``source`` where that comes from, ``rivals``
what is in its way and ``chosen`` which versions it is; ``settings`` says what daemon.json needs,
upon ``merge`` and ``flags``.
"""

from stackmend.engine.plan.chosen import Chosen, chosen
from stackmend.engine.plan.installed import plan
from stackmend.engine.plan.merge import merged
from stackmend.engine.plan.model import Action, File, Plan, Verb
from stackmend.engine.plan.settings import begun_with
from stackmend.engine.plan.settings import plan as plan_settings
from stackmend.engine.plan.source import Source, source

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
