"""What is to be done about a legacy worker. Pure.

``evidence`` recognises it, ``design`` says what its move is, ``layer`` what is laid over the
project's files at each stage, ``decide`` the steps that are left.
"""

from stackmend.worker.move.plan.actions import (
    Action,
    AddService,
    Change,
    ImportModel,
    Measure,
    Plan,
    PutBack,
    Repoint,
    Retire,
)
from stackmend.worker.move.plan.decide import (
    add_comparison,
    advance,
    begin,
    change_settings,
    explain_grace,
    explain_return,
    format_unit,
    is_final,
    make_confirmed,
    make_return,
    plan,
    return_failed,
)
from stackmend.worker.move.plan.design import Designed, assemble_move, make_key
from stackmend.worker.move.plan.evidence import find_silent, identify, list_candidates
from stackmend.worker.move.plan.layer import make_layer

__all__ = [
    "Action",
    "AddService",
    "Change",
    "Designed",
    "ImportModel",
    "Measure",
    "Plan",
    "PutBack",
    "Repoint",
    "Retire",
    "add_comparison",
    "advance",
    "assemble_move",
    "begin",
    "change_settings",
    "explain_grace",
    "explain_return",
    "find_silent",
    "format_unit",
    "identify",
    "is_final",
    "list_candidates",
    "make_confirmed",
    "make_key",
    "make_layer",
    "make_return",
    "plan",
    "return_failed",
]
