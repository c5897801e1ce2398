"""What this room's decisions are made of, beyond what every decision is."""

from typing import Literal

from stackmend import decision
from stackmend.frozen import Frozen


class File(Frozen):
    """A file that is to be in place, with mode 0644; without text it is to be gone."""

    path: str
    text: str


class Trust(decision.Action):
    """Put the key of a repository in place.

    :param key: where it is read from: an address, or a path on the controller.
    :param fingerprints: those that it may have.
    :param keyring: where it goes.
    """

    verb: Literal["trust"] = "trust"
    key: str
    fingerprints: tuple[str, ...]
    keyring: str


class WriteSource(decision.Action):
    """Write the files that tell the package manager where packages come from."""

    verb: Literal["write source"] = "write source"
    files: tuple[File, ...]


class Install(decision.Action):
    """Install packages that start nothing."""

    verb: Literal["install"] = "install"
    packages: tuple[str, ...]


class InstallEngine(decision.Action):
    """Install an engine, and start it with what ran before.

    :param packages: by name; which versions is decided once the host has read its lists anew.
    :param extras: packages that are installed as well where a repository has them.
    :param removing: packages that make room.
    :param snap: whether the snap is switched off.
    :param config: the daemon.json that a new engine starts with; empty for none.
    """

    verb: Literal["install"] = "install"
    packages: tuple[str, ...]
    extras: tuple[str, ...] = ()
    removing: tuple[str, ...] = ()
    snap: bool = False
    config: str = ""


class Start(decision.Action):
    """Start the engine, now and with the host."""

    verb: Literal["start"] = "start"


class Enable(decision.Action):
    """Have the engine start with the host."""

    verb: Literal["enable"] = "enable"


class StartAgain(decision.Action):
    """Start the containers that ran before the engine was stopped."""

    verb: Literal["start again"] = "start again"


class StartContainerd(decision.Action):
    """Start containerd, which the engine works upon."""

    verb: Literal["start"] = "start"


class RemovePidFile(decision.Action):
    """Remove a pid file, the subject, that keeps the engine from starting.

    :param pid: what it holds.
    """

    verb: Literal["remove"] = "remove"
    pid: int


class MoveDatabase(decision.Action):
    """Move the engine's database of networks, the subject, out of its way."""

    verb: Literal["move"] = "move"


class RestartEngine(decision.Action):
    """Restart the engine, which makes its rules again, and start the containers that ran.

    :param bridges: devices that the packet filter has rules for, then.
    """

    verb: Literal["restart"] = "restart"
    bridges: tuple[str, ...]


class RestoreAddress(decision.Action):
    """Give a bridge, the subject, its address back."""

    verb: Literal["give back"] = "give back"
    address: str


class RaiseBridge(decision.Action):
    """Set a bridge, the subject, up."""

    verb: Literal["set up"] = "set up"


class AttachPort(decision.Action):
    """Put a container's port, the subject, on its bridge."""

    verb: Literal["attach"] = "attach"
    bridge: str


class RemoveRule(decision.Action):
    """Remove a rule of the packet filter, the subject."""

    verb: Literal["remove"] = "remove"


class SetConfig(decision.Action):
    """Write daemon.json, the subject, and have the engine run with it.

    :param text: what it is to hold.
    :param restart: whether a changed key needs more than that the engine reads it again.
    """

    verb: Literal["set"] = "set"
    text: str
    restart: bool


class RestoreConfig(decision.Action):
    """Put a daemon.json, the subject, back that the engine does not start with.

    :param text: what it is to hold.
    :param restart: whether the engine is down; one that runs reads the file again.
    """

    verb: Literal["put back"] = "put back"
    text: str
    restart: bool


class TakeUp(decision.Action):
    """Have the engine run with a daemon.json, the subject, that it was not seen to run with."""

    verb: Literal["take up"] = "take up"


Action = (
    Trust
    | WriteSource
    | Install
    | SetConfig
    | RestoreConfig
    | InstallEngine
    | Start
    | StartContainerd
    | RemovePidFile
    | MoveDatabase
    | Enable
    | StartAgain
    | RestartEngine
    | RestoreAddress
    | RaiseBridge
    | AttachPort
    | RemoveRule
)
SettingsAction = SetConfig | RestoreConfig | TakeUp


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""


class SettingsPlan(decision.Plan[SettingsAction]):
    """The same of an engine's settings."""
