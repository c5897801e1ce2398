"""What this room's decision is made of: kinds of findings, and one class for each verb."""

from typing import ClassVar, Literal

from stackmend import decision
from stackmend.frozen import Frozen

Kind = Literal[
    "missing",
    "created",
    "stopped",
    "exited",
    "paused",
    "starting",
    "unhealthy",
    "restart loop",
    "hung",
    "scale",
    "changed",
    "image",
    "content",
    "files",
    "source",
    "drift",
    "orphan",
    "leftover",
    "adopted",
    "foreign",
    "ignored",
    "check",
    "link",
    "patch",
    "warning",
    "unknown",
]


class Tag(Frozen):
    """A name that an image has, or is given."""

    image_id: str
    name: str


class Pull(decision.Action):
    """Pull a service's image."""

    prepares: ClassVar[bool] = True

    verb: Literal["pull"] = "pull"


class Build(decision.Action):
    """Build a service's image.

    :param keep: the foreign image that has its name, and the name under which it is kept.
    """

    prepares: ClassVar[bool] = True

    verb: Literal["build"] = "build"
    keep: Tag | None = None


class InstallFiles(decision.Action):
    """Put the project's files in place; the subject is their directory.

    :param removed: files that the project no longer has.
    :param outdated: services that run on the files before until they are recreated.
    """

    verb: Literal["install files"] = "install files"
    removed: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()


class RestoreFiles(decision.Action):
    """Put back the files and images of the record; the subject is their directory.

    :param source: the digest of the record's files.
    :param removed: files that came after them.
    :param tags: what the record's image names meant.
    :param containers: the containers of services that came after them.
    :param outdated: services that run on the files that failed until they are recreated.
    :param failed: the attempt that failed, where that is still to be remembered.
    """

    verb: Literal["restore files"] = "restore files"
    source: str
    removed: tuple[str, ...] = ()
    tags: tuple[Tag, ...] = ()
    containers: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    failed: str = ""


class SetAside(decision.Action):
    """Stop a foreign container and give it another name."""

    verb: Literal["set aside"] = "set aside"
    destructive: bool = True
    container: str


class Disconnect(decision.Action):
    """Take a foreign container off a network of the project's."""

    verb: Literal["disconnect"] = "disconnect"
    destructive: bool = True
    container: str
    network: str


class RemoveNetwork(decision.Action):
    """Remove a network, with every container taken off it."""

    verb: Literal["remove network"] = "remove network"


class RemoveLeftover(decision.Action):
    """Remove what an interrupted recreation left beside a service's container; volumes are kept."""

    verb: Literal["remove leftover"] = "remove leftover"
    container: str


class Rename(decision.Action):
    """Give a service's container the name that an interrupted recreation did not give it."""

    verb: Literal["rename"] = "rename"
    container: str
    name: str


class _ServiceAction(decision.Action):
    """A step that is done to a service.

    :param depends_on: services with an earlier step that must be healthy, or complete, before it.
    """

    depends_on: tuple[str, ...] = ()


class _ContainerAction(_ServiceAction):
    """A step that is done to one container of a service."""

    container: str


class Attach(_ContainerAction):
    """Attach a container to a network, under the names that it has there."""

    verb: Literal["attach"] = "attach"
    undo: str = "docker network disconnect"
    network: str
    address: str = ""
    aliases: tuple[str, ...] = ()


class Detach(_ContainerAction):
    """Take a container off a network that it is not declared on."""

    verb: Literal["detach"] = "detach"
    undo: str = "docker network connect"
    network: str


class Unpause(_ContainerAction):
    """Let a paused container go on."""

    verb: Literal["unpause"] = "unpause"
    undo: str = "docker pause"


class Resume(_ContainerAction):
    """Let a container go on whose process is stopped by a signal."""

    verb: Literal["resume"] = "resume"


class SetPolicy(_ContainerAction):
    """Set when the engine restarts a container by itself.

    :param policy: as the engine has it, such as ``unless-stopped`` or ``on-failure:3``.
    """

    verb: Literal["set restart policy"] = "set restart policy"
    undo: str = "docker update --restart=no"
    policy: str


class Start(_ContainerAction):
    """Start a container.

    :param mend: whether it counts against the limits of mending this service.
    """

    verb: Literal["start"] = "start"
    undo: str = "docker stop"
    mend: bool = False


class Restart(_ContainerAction):
    """Restart a container.

    :param mend: whether it counts against the limits of mending this service.
    """

    verb: Literal["restart"] = "restart"
    mend: bool = False


class Repair(_ContainerAction):
    """Cut off what is broken of a redis's append-only file, keep a copy of all of it, and start it.

    :param mend: whether it counts against the limits of mending this service.
    """

    verb: Literal["repair"] = "repair"
    destructive: bool = True
    undo: str = "the files before are kept beside it"
    mend: bool = False


class Recreate(_ServiceAction):
    """Put new containers in the place of a service's.

    :param batch: Compose is given those of one batch together.
    :param mend: whether it counts against the limits of mending this service.
    """

    verb: Literal["recreate"] = "recreate"
    undo: str = "the files and images before are kept; a rollback puts them back"
    batch: int = 0
    mend: bool = False


class Up(_ServiceAction):
    """Have Compose create what a service lacks, and recreate what differs.

    It is planned where only Compose can tell what differs, such as an image that is yet to come.

    :param batch: Compose is given those of one batch together.
    """

    verb: Literal["up"] = "up"
    undo: str = "docker compose rm --stop"
    batch: int = 0


class Remove(decision.Action):
    """Remove a container; its volumes are kept."""

    verb: Literal["remove"] = "remove"
    container: str


class Record(decision.Action):
    """Prove that the stack is healthy, and record what was proven."""

    lasts: ClassVar[bool] = False

    verb: Literal["record"] = "record"


#: A step that is done to a service.
ServiceAction = (
    Attach | Detach | Unpause | Resume | SetPolicy | Start | Restart | Repair | Recreate | Up
)

#: A step that one command of the engine's carries out.
EngineAction = (
    SetAside
    | Disconnect
    | RemoveNetwork
    | RemoveLeftover
    | Rename
    | Attach
    | Detach
    | Unpause
    | Resume
    | SetPolicy
    | Start
    | Restart
    | Repair
    | Remove
)

Action = Pull | Build | InstallFiles | RestoreFiles | EngineAction | Recreate | Up | Record


#: What was found, what will be done, in order, and what will not.
Plan = decision.Plan[Action]
