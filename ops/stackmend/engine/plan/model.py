"""What this room's decisions are made of, beyond what every decision is."""

from typing import Literal

from stackmend import decision
from stackmend.frozen import Frozen

Verb = Literal[
    "install", "trust", "write source", "start", "enable", "start again", "set", "take up"
]


class File(Frozen):
    """A file that is to be in place, with mode 0644."""

    path: str
    text: str


class Action(decision.Action):
    """One step.

    :param packages: what is installed, by name; of those in ``extras`` what there is.
    :param extras: what is installed where it is to be had.
    :param removing: packages that make room.
    :param snap: whether the snap is switched off.
    :param files: what is written.
    :param source: where a key is read from.
    :param expected: the fingerprints that a key may have.
    :param keyring: where a key goes.
    :param config: for ``install``, the daemon.json that a new engine starts with.
    :param text: what daemon.json is to hold.
    :param restart: whether a changed key of it needs more than that it is read again.
    """

    verb: Verb
    packages: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    removing: tuple[str, ...] = ()
    snap: bool = False
    files: tuple[File, ...] = ()
    source: str = ""
    expected: tuple[str, ...] = ()
    keyring: str = ""
    config: str = ""
    text: str = ""
    restart: bool = False


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""
