"""The decision: from the desired models and what the server has to what is done. Pure.

``decide`` goes through the desired models, ``space`` says whether the disk can hold what is to be
fetched, ``unmanaged`` is what is not desired, and ``stages`` says which action waits for which.
"""

from stackmend.models.plan.decide import plan as plan
from stackmend.models.plan.derived import list_bases as list_bases
from stackmend.models.plan.format import format_size as format_size
from stackmend.models.plan.leftovers import add_leftovers as add_leftovers
from stackmend.models.plan.leftovers import drop_leftovers as drop_leftovers
from stackmend.models.plan.leftovers import keep_leftovers as keep_leftovers
from stackmend.models.plan.model import Action as Action
from stackmend.models.plan.model import Ask as Ask
from stackmend.models.plan.model import Copy as Copy
from stackmend.models.plan.model import Create as Create
from stackmend.models.plan.model import DeleteBlob as DeleteBlob
from stackmend.models.plan.model import DropBlob as DropBlob
from stackmend.models.plan.model import ModelSource as ModelSource
from stackmend.models.plan.model import Plan as Plan
from stackmend.models.plan.model import Prune as Prune
from stackmend.models.plan.model import Pull as Pull
from stackmend.models.plan.model import RemoveName as RemoveName
from stackmend.models.plan.model import UpdateRecord as UpdateRecord
from stackmend.models.plan.stages import arrange as arrange
from stackmend.models.plan.stages import find_missing_base as find_missing_base
from stackmend.models.plan.stored import add_answer as add_answer
from stackmend.models.plan.stored import add_corrupt as add_corrupt
from stackmend.models.plan.stored import add_digests as add_digests
from stackmend.models.plan.stored import add_entry as add_entry
from stackmend.models.plan.stored import drop_answers as drop_answers
from stackmend.models.plan.stored import drop_entries as drop_entries
from stackmend.models.plan.stored import has_blob as has_blob
from stackmend.models.plan.stored import is_intact as is_intact
from stackmend.models.plan.stored import measure_present as measure_present
from stackmend.models.plan.stored import merge_problems as merge_problems
from stackmend.models.plan.stored import select_to_ask as select_to_ask
from stackmend.models.plan.stored import select_to_check as select_to_check
