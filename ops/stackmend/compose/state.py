"""What a host has of a Compose stack: models only, filled by the probe, read by the plan."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stackmend.addresses.spec import LinksPolicy
from stackmend.compose.spec import Directory
from stackmend.frozen import Frozen
from stackmend.paths import is_inside, is_name, is_plain
from stackmend.provenance import Origin

#: The file of ours that corrects the links of a project's own; Compose does not read it by itself.
LINKS_FILE = "compose.stackmend.yaml"

#: Another one of ours, by which a room adds services to one host's project, or changes them: what
#: it holds is kept in the project's memory on that host, see :mod:`stackmend.compose.layer`.
LAYER_FILE = "compose.stackmend.worker.yaml"

#: Both, in the order in which they are laid over a project's own files.
OUR_FILES = (LAYER_FILE, LINKS_FILE)

#: In a service's section there: its containers stay as they are, and nothing starts them.
KEPT = "x-stackmend-kept"


def _check_inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError("must be a path inside the project's directory")
    return path


def _check_outside(path: str) -> str:
    if not (path.startswith("/") and is_plain(path)):
        raise ValueError("must be an absolute path")
    return path


def _check_name(name: str) -> str:
    if not is_name(name):
        raise ValueError("must be the name of a file")
    return name


def _check_word(word: str) -> str:
    if word.startswith("-"):
        raise ValueError("must not be an option")
    return word


EngineStatus = Literal[
    "up", "absent", "unexecutable", "stopped", "forbidden", "hung", "no-compose", "unknown"
]


class Engine(Frozen):
    """Whether Docker can be asked, and if not, why not."""

    status: EngineStatus
    reason: str = ""


class Endpoint(Frozen):
    """A container's place on one network."""

    network_id: str
    address: str = ""
    aliases: tuple[str, ...] = ()


Replaced = Literal["file", "directory", "other", "kind", "missing"]


class Resolver(Frozen):
    """The DNS servers behind the engine's own.

    :param servers: their addresses.
    :param overridden: whether the engine or the service names them, and not the host.
    """

    servers: tuple[str, ...]
    overridden: bool = False


class Container(Frozen):
    """One container as the engine shows it now.

    ``shape`` is what it was created and updated to be, without what differs from one creation to
    the next (ids, addresses, times): two containers of one declaration have equal shapes.

    :param replaces: it has the passing name of one that Compose puts in another's place.
    :param health_failures: when its last healthchecks began that failed in a row, as the host has
        the time; the engine keeps five results.
    :param anonymous: its volumes without a name of their own, by where it has them.
    :param log: the last lines that it wrote, where it is down or restarts again and again.
    :param labels: its labels of Compose.
    :param image_labels: those of its image; ``None`` where the image cannot be asked.
    :param replaced: what it mounts and holds another one of than the host has by now, by its place
        in the container: both of one kind, ``kind`` where they are not, ``missing`` where the
        host has none. Files of one content are the same.
    :param resolver: the DNS servers it was given when it started; ``None`` is not known.
    :param foreign: why it is not the project's own although its labels say so, once sorted out.
    """

    id: str
    name: str
    project: str | None = None
    service: str | None = None
    number: int = 0
    oneoff: bool = False
    replaces: bool = False
    working_dir: str = ""
    config_hash: str = ""
    status: str
    health: str | None = None
    health_output: str = ""
    health_failures: tuple[float, ...] = ()
    log: tuple[str, ...] = ()
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    restart_count: int = 0
    restart: str = "no"
    started_at: float = 0
    process: str | None = None
    image: str
    image_id: str
    endpoints: Mapping[str, Endpoint] = {}
    published: tuple[str, ...] = ()
    borrows: Mapping[str, str] = {}
    anonymous: Mapping[str, str] = {}
    shape: Mapping[str, Any] = {}
    labels: Mapping[str, str] = {}
    image_labels: Mapping[str, str] | None = None
    replaced: Mapping[str, Replaced] = {}
    resolver: Resolver | None = None
    foreign: str = ""

    @property
    def origin(self) -> Origin:
        """What tells who made it."""
        return Origin(self.name, self.image_id, self.labels, self.image_labels)

    @property
    def running(self) -> bool:
        """Running and not paused."""
        return self.status == "running"


class Image(Frozen):
    """An image that is on the host.

    :param volumes: where it makes a volume of its own; ``None`` where that was not read.
    :param built_for: the project and the service that Compose built it for, by its labels.
    :param healthcheck: whether it brings one; ``None`` where that was not read.
    :param env: the environment that its containers have of it.
    :param ports: the ports that it says it listens on, such as ``6379/tcp``.
    """

    id: str
    volumes: tuple[str, ...] | None = None
    built_for: tuple[str, str] | None = None
    healthcheck: bool | None = None
    env: Mapping[str, str] = {}
    ports: tuple[str, ...] = ()


class Labelled(Frozen):
    """Whose a network or a volume is by Compose's labels.

    :param project: the project that it was made for.
    :param key: what that project's compose file calls it.
    """

    project: str = ""
    key: str = ""


class Checkout(Frozen):
    """Where a project's files come from, where that is a git repository.

    :param url: its URL without a login.
    :param ref: what is desired of it.
    :param path: the directory in it.
    :param commit: the commit that the ref is.
    """

    url: str
    ref: str
    path: str = ""
    commit: Annotated[str, Field(pattern="^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]

    def format_change(self, before: "Checkout") -> str:
        """How another one became this one, in words."""
        if self.commit != before.commit and (self.url, self.ref) == (before.url, before.ref):
            return f"{self.ref} moved from {before.commit[:12]} to {self.commit[:12]}"
        return f"source: {before} → {self}"

    def __str__(self) -> str:
        where = f", {self.path}" if self.path else ""
        return f"{self.ref} of {self.url}{where}, commit {self.commit[:12]}"


class Change(Frozen):
    """One address that stackmend corrects in a file of its own.

    :param service: the service that is given it.
    :param variable: where: the name of a variable, ``command``, …
    :param origin: the file and the line that it comes from, where that is known.
    :param old: the wrong address, as ``HOST:PORT``.
    :param new: the right one.
    :param cause: why the old one is wrong.
    :param kept: whether the application was started with the old one, and may keep that.
    """

    service: str
    variable: str
    origin: str = ""
    old: str
    new: str
    cause: str
    kept: bool = False


class Correction(Frozen):
    """What stackmend made of the wrong links of a project's own files.

    :param policy: the settings that it was made with.
    :param content: the file that is laid over the project's own; empty where none is.
    :param changes: what it corrects.
    :param left: the addresses that are wrong and not corrected, each with why, where that is known.
    :param patch: the lines of the same change to the project's own files.
    :param omitted: what is wrong and not in the patch, each with why.
    :param problem: why there is no such file, although there is something to correct.
    """

    policy: LinksPolicy
    content: str = ""
    changes: tuple[Change, ...] = ()
    left: Mapping[str, str] = {}
    patch: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()
    problem: str = ""


class Applied(Frozen):
    """What the last successful apply left, and what it was made from.

    It comes back from a host: what could not be there is no record.

    :param names_files: its own ``.env`` says which compose files there are.
    :param secrets: values that were secret then, so that no cause shows them as what was before.
    :param warnings: what Compose warned of.
    :param checkout: where the files came from, where that is a git repository.
    :param correction: what corrects links of theirs, where that was desired.
    :param covered: the values of theirs that :data:`LAYER_FILE` takes the place of, as
        :func:`stackmend.compose.layer.find_covered` describes them.
    """

    version: Literal[1] = 1
    project: str
    directory: Directory
    profiles: tuple[str, ...] = ()
    source: Annotated[str, AfterValidator(_check_name)]
    files: Mapping[Annotated[str, AfterValidator(_check_inside)], str]
    names_files: bool = False
    config: Mapping[str, Any]
    outside: Mapping[Annotated[str, AfterValidator(_check_outside)], str] = {}
    services: Mapping[Annotated[str, AfterValidator(_check_name)], "AppliedService"]
    secrets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    checkout: Checkout | None = None
    correction: Correction | None = None
    covered: Mapping[str, tuple[str, str]] = {}
    applied_at: float


class AppliedService(Frozen):
    """One service as it was when it was last proven healthy."""

    image: Annotated[str, AfterValidator(_check_word)]
    image_id: Annotated[str, AfterValidator(_check_word)]
    shape: Mapping[str, Any]


class Mended(Frozen):
    """One restart of a service by us."""

    at: float
    service: str
    action: str


class StackState(Frozen):
    """Everything the plan needs to know of one host.

    :param now: the host's clock, in seconds since the epoch.
    :param containers: those that bear the project's labels; once sorted out, its own.
    :param foreign: those that bear its labels and are not its own.
    :param neighbours: other containers that share a network with them.
    :param names: every container's name on the engine, with its project ("" for none).
    :param elsewhere: what others' containers are called, and the services that they are of, also
        where they are down.
    :param files: the recorded files' digests as they are on the host now; ``None`` is missing.
    :param obstacles: what is in the way of such files, by its path: ``link`` where a link is that
        is not followed, ``directory`` where a file should be, ``large`` for a file larger than
        any of a project's, ``other``; ``odd`` for a path that leads out of the project's
        directory.
    :param outside: the digests of files that services mount from outside the project.
    :param ignored: what of the environment would lead commands elsewhere.
    :param defaults: the files in the project's directory that Compose reads by itself, and those
        of ours.
    :param resolver: what the engine gives a container that starts now; ``None`` is not known.
    :param sharing: other projects of ours whose directory is this one's.
    :param stale: services whose containers an apply that was cut short may have left on other
        files than those in place.
    :param staged: whether files lie there that a run sent, and that was cut off since.
    :param layer: what the file :data:`LAYER_FILE` is to hold; empty for no such file.
    """

    now: float
    writable: bool = True
    engine: Engine
    containers: tuple[Container, ...] = ()
    foreign: tuple[Container, ...] = ()
    neighbours: tuple[Container, ...] = ()
    names: Mapping[str, str] = {}
    elsewhere: tuple[str, ...] = ()
    networks: Mapping[str, str] = {}
    network_labels: Mapping[str, Labelled] = {}
    volume_labels: Mapping[str, Labelled] = {}
    images: Mapping[str, Image] = {}
    applied: Applied | None = None
    applied_problem: str = ""
    files: Mapping[str, str | None] = {}
    obstacles: Mapping[str, str] = {}
    outside: Mapping[str, str | None] = {}
    mends: tuple[Mended, ...] = ()
    resolver: Resolver | None = None
    sharing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    staged: bool = False
    layer: str = ""
    ignored: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()

    def list_containers(self, name: str) -> tuple[Container, ...]:
        """The service's containers, one-off runs left out, in their order."""
        return tuple(
            sorted(
                (
                    container
                    for container in self.containers
                    if container.service == name and not container.oneoff
                ),
                key=lambda container: (container.number, container.name),
            )
        )


class Surroundings(Frozen):
    """What new networks and containers have to fit in on a host, as far as it says so.

    :param subnets: those of the engine's networks, by name.
    :param routes: the subnets that the host itself is in.
    :param pools: what the engine takes subnets from: a subnet, and the length of their prefixes.
    :param cpus: processors that a container can have; 0 where the engine does not say.
    :param gpus: how far containers can have NVIDIA's GPUs; ``None`` where it cannot be told.
    :param absent: paths that services mount and that must be there, and are not.
    """

    subnets: Mapping[str, tuple[str, ...]] = {}
    routes: tuple[str, ...] = ()
    pools: tuple[tuple[str, int], ...] = ()
    cpus: int = 0
    gpus: Literal["none", "no driver", "no toolkit", "usable"] | None = None
    absent: tuple[str, ...] = ()


class CheckedServices(Frozen):
    """Which services the declared checks of a project pass through.

    :param services: them, by the check's name.
    """

    services: Mapping[str, tuple[str, ...]] = {}


class Declared(Frozen):
    """The project as Docker Compose itself resolved it from the files that are desired.

    :param config: ``docker compose config``, with the final paths and unescaped values.
    :param hashes: ``docker compose config --hash``, per service.
    :param images: the images that services name and that are on the host.
    :param outside: digests of the files that services mount from outside the project.
    :param differs: the project's files that are not on the host as they should be; ``None`` where
        that was not read.
    :param obstacles: what is in the way of them, as in :class:`StackState`.
    :param networks: the project's networks as the engine has them now, by name, in Compose's
        words.
    :param volumes: its volumes, in the same way.
    :param warnings: what Compose warned of.
    :param free: bytes free, by the path that was measured.
    :param surroundings: what is to be created must fit in it; ``None`` where it was not read.
    """

    config: Mapping[str, Any]
    hashes: Mapping[str, str] = {}
    images: Mapping[str, Image] = {}
    outside: Mapping[str, str | None] = {}
    differs: tuple[str, ...] | None = None
    obstacles: Mapping[str, str] = {}
    networks: Mapping[str, Mapping[str, Any]] = {}
    volumes: Mapping[str, Mapping[str, Any]] = {}
    warnings: tuple[str, ...] = ()
    free: Mapping[str, int] = {}
    surroundings: Surroundings | None = None

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        """The declared services by name."""
        services: Mapping[str, Mapping[str, Any]] = self.config.get("services") or {}
        return services
