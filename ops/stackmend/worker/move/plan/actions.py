"""The steps of a move: one class per verb."""

from typing import ClassVar, Literal

from stackmend import decision


class MoveAction(decision.Action):
    """One of them: each lays another file over the project, or rests on one that was laid."""

    all_services: ClassVar[bool] = True


class AddService(MoveAction):
    """Add the new service, start it, and wait until it is healthy; nothing calls it yet."""

    verb: Literal["add"] = "add"
    undo: str = "it is removed again with its volume, which nothing else has"


class ImportModel(MoveAction):
    """Give the new service a model of the legacy worker, copied on the host itself.

    :param name: the name that clients ask for.
    :param path: its file in the legacy worker's container.
    :param context: tokens of its context there; 0 is not known.
    """

    verb: Literal["import"] = "import"
    name: str
    path: str
    context: int = 0


class Measure(MoveAction):
    """Measure both, taking turns.

    :param phase: whether clients call the legacy worker meanwhile (``before``) or the new one.
    """

    lasts: ClassVar[bool] = False

    verb: Literal["measure"] = "measure"
    phase: Literal["before", "after"]


class Repoint(MoveAction):
    """Have clients call the new service, and ask it from where they are; both are up."""

    verb: Literal["re-point"] = "re-point"
    undo: str = "the clients are recreated as they were"


class Retire(MoveAction):
    """Stop the legacy worker, and keep its container and its volumes; nothing starts it again.

    :param remove: whether the container is removed.
    """

    verb: Literal["stop"] = "stop"
    undo: str = "see the chapter on moving a legacy worker: how to go back"
    remove: bool = False


class Change(MoveAction):
    """Have the service that was added run with the settings of now."""

    verb: Literal["change"] = "change"
    undo: str = "put the settings back, and run again"


class PutBack(MoveAction):
    """Have clients call the legacy worker again, then remove what the move added."""

    verb: Literal["put back"] = "put back"


Action = AddService | ImportModel | Measure | Repoint | Retire | Change | PutBack

Plan = decision.Plan[Action]
