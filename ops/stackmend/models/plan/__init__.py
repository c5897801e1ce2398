"""The decision: from the desired models and what the server has to what is done. Pure.

``decide`` goes through the desired models, ``space`` says whether the disk can hold what is to be
fetched, ``unmanaged`` is what is not desired, and ``stages`` says which action waits for which.
"""

from stackmend.models.plan.decide import plan
from stackmend.models.plan.format import format_size
from stackmend.models.plan.model import (
    Action,
    Copy,
    Create,
    DeleteBlob,
    ModelSource,
    Plan,
    Prune,
    Pull,
    RemoveName,
    UpdateRecord,
)
from stackmend.models.plan.stages import Chain, arrange
from stackmend.models.plan.stored import (
    add_digests,
    add_entry,
    carry_over,
    drop_entries,
    has_blob,
    is_intact,
    measure_present,
    select_to_check,
)

__all__ = [
    "Action",
    "Chain",
    "Copy",
    "Create",
    "DeleteBlob",
    "ModelSource",
    "Plan",
    "Prune",
    "Pull",
    "RemoveName",
    "UpdateRecord",
    "add_digests",
    "add_entry",
    "arrange",
    "carry_over",
    "drop_entries",
    "format_size",
    "has_blob",
    "is_intact",
    "measure_present",
    "plan",
    "select_to_check",
]
