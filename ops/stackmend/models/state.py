"""What a model server has: models only, filled by the probe, read by the plan."""

from collections.abc import Mapping
from typing import Literal

from stackmend.frozen import Frozen
from stackmend.models.spec import Name

ServerStatus = Literal["up", "absent", "stopped", "not-ollama", "auth", "unreachable", "unknown"]

#: What part of the way to a registry failed.
RegistryLayer = Literal["name", "connect", "tls", "http"]


class Place(Frozen):
    """The directory of the models.

    :param path: the directory that holds ``manifests`` and ``blobs``.
    :param container: the container that the path is to be looked up in, through ``docker exec``;
        empty where it is a path of the host's own.
    :param process: the process in whose mount namespace the path is to be looked up; 0 for none.
    :param owner: ``UID:GID`` of the directory that holds the blobs.
    """

    path: str
    container: str = ""
    process: int = 0
    owner: str = ""


class Server(Frozen):
    """Whether the model server can be asked, and if not, why not.

    :param status: ``stopped``: its container does not run; ``absent``: no container and no server;
        ``unknown``: nothing could be asked.
    :param reason: why it is not ``up``.
    :param version: Ollama's version.
    :param address: its address, as the host sees it; empty where it does not answer.
    :param port: likewise.
    :param tls: whether it speaks https.
    :param container: the container's id; empty for a server without one.
    :param container_name: its name.
    :param state: what Docker says of it: ``running``, ``restarting``, ``exited`` and the like.
    :param health: what its healthcheck says: ``healthy``, ``starting``, ``unhealthy`` or empty.
    :param started: what its start is known by; empty where that cannot be read.
    :param proxy: the proxy that the server itself pulls through, if it names one.
    :param place: the directory of its models; ``None`` where its disk cannot be reached.
    """

    status: ServerStatus
    reason: str = ""
    version: str = ""
    address: str = ""
    port: int = 0
    tls: bool = False
    container: str = ""
    container_name: str = ""
    state: str = ""
    health: str = ""
    started: str = ""
    memory: str = ""
    proxy: str = ""
    place: Place | None = None

    @property
    def may_start(self) -> bool:
        """Whether it may answer in a moment by itself: it starts, or Docker starts it again.

        Not where somebody stopped it, and not where Docker calls it unhealthy. A server that
        answers only inside its container never answers outside.
        """
        silent = self.status == "unreachable" and not self.version
        running = self.state == "running" and self.health != "unhealthy"
        return self.is_starting or (running and silent)

    @property
    def instance(self) -> str:
        """What changes with its version, with each start, and with the memory that it may take."""
        return " ".join(filter(None, (self.version, self.container, self.started, self.memory)))

    @property
    def is_starting(self) -> bool:
        """Whether Docker says that it starts."""
        return self.state == "restarting" or (self.state == "running" and self.health == "starting")


class Layer(Frozen):
    """A blob of a model.

    :param digest: ``sha256:`` and 64 hexadecimal digits.
    :param size: bytes.
    :param media_type: what it is.
    """

    digest: str
    size: int
    media_type: str = ""


class StoredModel(Frozen):
    """A model that the server has.

    :param name: its name.
    :param digest: the sha256 of its manifest, in hexadecimal, as ``/api/tags`` shows it.
    :param size: bytes of all its blobs.
    :param quantization: such as ``Q4_K_M``; empty where it is not known.
    :param family: such as ``llama``.
    :param parameters: such as ``1.2B``.
    :param layers: its blobs, the config first; ``None`` where the server's disk cannot be read.
    :param modified: seconds since the epoch.
    :param served: whether ``/api/tags`` lists it; ``None`` where that was not answered.
    """

    name: Name
    digest: str = ""
    size: int = 0
    quantization: str = ""
    family: str = ""
    parameters: str = ""
    layers: tuple[Layer, ...] | None = None
    modified: float = 0
    served: bool | None = None


class LoadedModel(Frozen):
    """A model that is in memory.

    :param size: bytes in all.
    :param size_vram: bytes of them on a GPU: 0 is the CPU alone.
    :param context: tokens.
    :param expires: when it is unloaded, as the server writes it.
    """

    name: Name
    size: int = 0
    size_vram: int = 0
    context: int = 0
    expires: str = ""


class BlobProblem(Frozen):
    """A blob that is not what the manifests say.

    :param digest: ``sha256:…``
    :param kind: ``missing``; ``truncated`` is another size than the manifest's; ``corrupt`` is
        another content than the digest's.
    :param models: the models that need it, by name.
    :param size: bytes that it should have.
    :param found: bytes that it has; ``None`` where it is missing.
    """

    digest: str
    kind: Literal["missing", "truncated", "corrupt"]
    models: tuple[str, ...]
    size: int
    found: int | None = None


class PartialDownload(Frozen):
    """A download that did not end yet.

    :param digest: ``sha256:…``
    :param bytes: how many of it have arrived.
    :param allocated: how many the disk has given for it.
    :param modified: when it was last written to, in seconds since the epoch.
    """

    digest: str
    bytes: int
    allocated: int = 0
    modified: float = 0


class Recorded(Frozen):
    """A model that stackmend pulled or created.

    :param digest: the digest that it then had.
    :param at: when, in seconds since the epoch.
    :param made_from: for a model that was created: the sha256 of what it was created from.
    :param base: for a model that was created from another: the digest that this one then had.
    """

    digest: str
    at: float = 0
    made_from: str = ""
    base: str = ""


class Answered(Frozen):
    """A model that has answered.

    :param digest: the digest that it then had.
    :param server: the :attr:`Server.instance` that it was on.
    :param at: when that was read, in seconds since the epoch.
    """

    digest: str
    server: str = ""
    at: float = 0


class Record(Frozen):
    """What the file on the host holds.

    :param models: the models that stackmend pulled or created, by their names as :class:`Name`
        shows them.
    :param answered: the desired models that have answered, by their keys.
    :param leftovers: digests of blobs that stackmend brought, or whose models it replaced: those
        that no model needs may go.
    """

    version: Literal[1] = 1
    models: Mapping[str, Recorded] = {}
    answered: Mapping[str, Answered] = {}
    leftovers: tuple[str, ...] = ()


class NamedModel(Frozen):
    """A model that the stack's own configuration names.

    :param name: the model.
    :param service: whose configuration names it.
    :param variable: the environment variable.
    """

    name: Name
    service: str
    variable: str


class StoreState(Frozen):
    """Everything the plan needs to know of one model server.

    :param now: the host's clock, in seconds since the epoch.
    :param server: whether it can be asked.
    :param models: what it has.
    :param loaded: what is in memory; ``None`` where that was not answered.
    :param blobs: bytes of every blob file on the disk by digest, partial ones left out; ``None``
        where the disk cannot be read.
    :param problems: blobs that are not what the manifests say.
    :param hashed: whether contents were verified against digests.
    :param partials: downloads that did not end yet.
    :param free: bytes free on the disk of the models; ``None`` where that is not known.
    :param record: what stackmend pulled; empty where nothing was recorded.
    :param record_problem: why the record cannot be read, if it cannot.
    :param named: the models that the stack's own configuration names.
    :param reason: why the disk cannot be read, if it cannot.
    """

    now: float
    server: Server
    models: tuple[StoredModel, ...] = ()
    loaded: tuple[LoadedModel, ...] | None = None
    blobs: Mapping[str, int] | None = None
    problems: tuple[BlobProblem, ...] = ()
    hashed: bool = False
    partials: tuple[PartialDownload, ...] = ()
    free: int | None = None
    record: Record = Record()
    record_problem: str = ""
    named: tuple[NamedModel, ...] = ()
    reason: str = ""

    def find_model(self, name: Name) -> StoredModel | None:
        """The model of this name, if the server has it."""
        return next((model for model in self.models if model.name.key == name.key), None)

    def find_entry(self, name: Name) -> Recorded | None:
        """The record of having pulled a model of this name."""
        return self.record.models.get(str(name))

    def is_ours(self, name: Name) -> bool:
        """Whether a name is free, or the model of this name is the one that stackmend pulled."""
        model, entry = self.find_model(name), self.find_entry(name)
        return model is None or (entry is not None and entry.digest in ("", model.digest))

    def has_answered(self, model: StoredModel) -> bool:
        """Whether a model has answered since it or the server last changed."""
        answered = self.record.answered.get(model.name.key)
        return answered is not None and (answered.digest, answered.server) == (
            model.digest,
            self.server.instance,
        )


class Manifest(Frozen):
    """What a registry says a model is.

    :param digest: the sha256 of the manifest's bytes, in hexadecimal.
    :param layers: its blobs, the config first.
    :param raw: the manifest as the registry gave it.
    """

    digest: str
    layers: tuple[Layer, ...]
    raw: str = ""

    @property
    def size(self) -> int:
        """Bytes of all blobs, each counted once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())

    def is_equal(self, model: StoredModel) -> bool:
        """Whether a stored model is this one.

        Ollama before 0.19 wrote a manifest of its own, so that only the blobs' digests tell.
        """
        if model.digest == self.digest:
            return True
        return model.layers is not None and [layer.digest for layer in model.layers] == [
            layer.digest for layer in self.layers
        ]


class RegistryAnswer(Frozen):
    """The answer of a registry about one model.

    :param status: ``absent``: it answers and has no such model; ``unreachable``: it could not be
        asked, or did not answer the question.
    :param manifest: the model, where it was found.
    :param suggestions: for an absent model: known names that are like it, the likest first.
    :param layer: for an unreachable one: which part of the way failed.
    :param code: the HTTP status where that is the layer; 0 for none.
    :param reason: why it is not ``found``, in one line.
    """

    status: Literal["found", "absent", "unreachable"]
    manifest: Manifest | None = None
    suggestions: tuple[str, ...] = ()
    layer: RegistryLayer | None = None
    code: int = 0
    reason: str = ""


#: The answers of the registries, by the name that was asked for, as :class:`Name` shows it.
Registry = Mapping[str, RegistryAnswer]
