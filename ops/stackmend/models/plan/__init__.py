"""The decision: from the models that are wanted and what the server has to what is done. Pure.

``decide`` goes through the wanted models, ``space`` says whether the disk can hold what is to be
fetched, and ``rest`` sees to what nobody asked for.
"""

from stackmend.models.plan.decide import plan
from stackmend.models.plan.model import Action, Made, Plan, Verb
from stackmend.models.plan.stored import ask, begun, carried, forgotten, remembered, stored, whole
from stackmend.models.plan.words import human

__all__ = [
    "Action",
    "Made",
    "Plan",
    "Verb",
    "ask",
    "begun",
    "carried",
    "forgotten",
    "human",
    "plan",
    "remembered",
    "stored",
    "whole",
]
