"""What this room's decision is made of, beyond what every decision is."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from stackmend import decision
from stackmend.frozen import Frozen
from stackmend.models.spec import Name
from stackmend.models.state import Manifest


class ModelSource(Frozen):
    """What a model is created from, as it is on the controller now.

    :param digest: a sha256 over all of it, in hexadecimal.
    :param files: bytes of each file that the server is given, by digest (``sha256:…``).
    :param base: the model that it is created from, if it is.
    :param problem: why it cannot be read, if it cannot.
    """

    digest: str = ""
    files: Mapping[str, int] = {}
    base: Name | None = None
    problem: str = ""


class ModelAction(decision.Action):
    """A step towards one desired model.

    :param for_model: the key of that model; the steps of one model are in order, those of
        different models do not wait for each other.
    """

    for_model: str


class DeleteBlob(ModelAction):
    """Delete a blob that a pull would keep although it is broken."""

    verb: Literal["delete blob"] = "delete blob"
    digest: str


class Pull(ModelAction):
    """Pull a model, by the name that its registry has for it.

    :param manifest: what is pulled; ``None`` where the registry did not say.
    :param bytes: how many are to be fetched.
    :param insecure: whether the server is to speak plain HTTP to the registry.
    :param unreachable: why the registry cannot be pulled from, where only another host may give it.
    """

    prepares: ClassVar[bool] = True

    verb: Literal["pull"] = "pull"
    name: Name
    manifest: Manifest | None = None
    bytes: int = 0
    insecure: bool = False
    unreachable: str = ""


class Copy(ModelAction):
    """Give a model that was pulled by another name its own.

    :param original: the name that it was pulled by.
    :param manifest: what was pulled; ``None`` where the registry did not say.
    """

    verb: Literal["copy"] = "copy"
    name: Name
    original: Name
    manifest: Manifest | None = None


class RemoveName(ModelAction):
    """Remove the name that a model was pulled by, once it has its own."""

    verb: Literal["remove"] = "remove"
    name: Name


class Create(ModelAction):
    """Create a model from files of the controller.

    :param source: what it is created from.
    :param bytes: how many are to be sent.
    """

    verb: Literal["create"] = "create"
    name: Name
    source: ModelSource
    bytes: int = 0


class Ask(ModelAction):
    """Have a model answer that has not answered since it or its server last changed."""

    lasts: ClassVar[bool] = False

    verb: Literal["ask"] = "ask"
    name: Name


class DropBlob(decision.Action):
    """Delete a blob that stackmend brought or replaced, and that no model needs."""

    verb: Literal["delete blob"] = "delete blob"
    for_model: ClassVar[str] = ""
    digest: str


class Prune(decision.Action):
    """Remove a model that stackmend pulled and that is no longer desired."""

    verb: Literal["remove"] = "remove"
    for_model: ClassVar[str] = ""
    destructive: bool = True
    name: Name


class UpdateRecord(decision.Action):
    """Drop models from the record of those that stackmend pulled.

    :param dropped: their names, as the record has them.
    """

    lasts: ClassVar[bool] = False

    verb: Literal["record"] = "record"
    for_model: ClassVar[str] = ""
    dropped: tuple[str, ...]


Action = DeleteBlob | Pull | Copy | RemoveName | Create | Prune | UpdateRecord | DropBlob | Ask


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""
