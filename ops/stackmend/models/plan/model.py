"""What this room's decision is made of, beyond what every decision is."""

from collections.abc import Mapping
from typing import Literal

from stackmend import decision
from stackmend.frozen import Frozen
from stackmend.models.spec import Name
from stackmend.models.state import Manifest

Verb = Literal["delete blob", "pull", "copy", "create", "remove", "record"]


class Made(Frozen):
    """What a model is to be created from, as it is on the controller now.

    :param digest: a sha256 over all of it, in hexadecimal.
    :param files: bytes of each file that the server is given, by digest (``sha256:…``).
    :param problem: why it cannot be read, if it cannot.
    """

    digest: str = ""
    files: Mapping[str, int] = {}
    problem: str = ""


class Action(decision.Action):
    """One step towards models that are whole and current.

    Exactly the fields that its verb speaks of are filled.

    :param name: the model that it is about; for ``copy`` the name that is made.
    :param source: what is copied from.
    :param serves: the wanted model that the step is taken for; steps of one model are in order,
        those of different models do not wait for each other.
    :param digest: the blob that is deleted.
    :param insecure: whether the server is to speak plain HTTP to the registry.
    :param manifest: what is pulled; ``None`` where the registry could not be asked.
    :param unreachable: why its registry cannot be pulled from, where only another host may give it.
    :param bytes: how many are to be fetched.
    :param made: what it is created from.
    :param forgotten: the models that are no longer remembered.
    """

    verb: Verb
    name: Name | None = None
    source: Name | None = None
    serves: str = ""
    digest: str = ""
    insecure: bool = False
    manifest: Manifest | None = None
    unreachable: str = ""
    bytes: int = 0
    made: Made | None = None
    forgotten: tuple[str, ...] = ()


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""
