"""The decision: from what is desired and what is there to what will be done, and why. Pure.

``gates`` refuse a host that cannot be worked on; ``foreign`` tells the project's own from what only
looks like it; ``decide`` goes through the project, ``resources`` through what services are made of
and ``service`` through each of them, all noting what they find in one ``draft``; ``order`` puts the
steps in order; ``rollback`` leads back to what was proven; ``health`` classifies what comes up and
``record`` makes the record of it.
"""

from stackmend.compose.plan.actions import (
    Action,
    Attach,
    Build,
    Detach,
    Disconnect,
    Finding,
    InstallFiles,
    Kind,
    Plan,
    Pull,
    Record,
    Recreate,
    Refusal,
    Remove,
    RemoveNetwork,
    Restart,
    RestoreFiles,
    Resume,
    ServiceAction,
    SetAside,
    Start,
    Tag,
    Unpause,
    Up,
)
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.declaration import (
    AROUND,
    find_unpublished,
    list_mounts,
    sort_into_levels,
)
from stackmend.compose.plan.foreign import find_obstructions, sort_out
from stackmend.compose.plan.gates import (
    explain_hold,
    is_declaration_needed,
    refuse_crowded,
    refuse_engine,
)
from stackmend.compose.plan.health import (
    LOOP_RESTARTS,
    Health,
    classify,
    find_unstable,
    is_complete,
    is_young,
)
from stackmend.compose.plan.losses import find_losses
from stackmend.compose.plan.order import (
    Progress,
    Staging,
    choose_staging,
    decide_with_images,
    drop_record,
    is_change,
    is_writing,
    split_batches,
    split_images,
)
from stackmend.compose.plan.record import make_record, read_declaration
from stackmend.compose.plan.rollback import (
    hold_back,
    is_intact_before,
    is_restored,
    restore_spec,
    roll_back,
)

__all__ = [
    "AROUND",
    "LOOP_RESTARTS",
    "Action",
    "Attach",
    "Build",
    "Detach",
    "Disconnect",
    "Finding",
    "Health",
    "InstallFiles",
    "Kind",
    "Plan",
    "Progress",
    "Pull",
    "Record",
    "Recreate",
    "Refusal",
    "Remove",
    "RemoveNetwork",
    "Restart",
    "RestoreFiles",
    "Resume",
    "ServiceAction",
    "SetAside",
    "Staging",
    "Start",
    "Tag",
    "Unpause",
    "Up",
    "choose_staging",
    "classify",
    "decide_with_images",
    "drop_record",
    "explain_hold",
    "find_losses",
    "find_obstructions",
    "find_unpublished",
    "find_unstable",
    "hold_back",
    "is_change",
    "is_complete",
    "is_declaration_needed",
    "is_intact_before",
    "is_restored",
    "is_writing",
    "is_young",
    "list_mounts",
    "make_record",
    "plan",
    "read_declaration",
    "refuse_crowded",
    "refuse_engine",
    "restore_spec",
    "roll_back",
    "sort_into_levels",
    "sort_out",
    "split_batches",
    "split_images",
]
