"""What a host has of a legacy worker, and where its move stands: models only."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stackmend.frozen import Frozen
from stackmend.worker.benchmark.state import Comparison
from stackmend.worker.move.spec import Service, check_model, check_path


class ModelFile(Frozen):
    """A GGUF file that a process names.

    :param path: in its container.
    :param size: bytes; 0 where it cannot be read.
    :param inode: what tells that two paths are one file; empty where it cannot be read.
    """

    path: str
    size: int = 0
    inode: str = ""


class Runner(Frozen):
    """A running container of the project, as far as it says what it serves.

    :param process: its first process, on the host.
    :param image_labels: labels of its image.
    :param command: its entrypoint and command, word by word.
    :param libraries: files of an inference library that its processes have mapped.
    :param files: the GGUF files that its processes name.
    :param accelerated: whether it was given a GPU or another device.
    :param addresses: those that it has on its networks, as the host sees them.
    :param ports: TCP ports that it exposes.
    :param published: ports of the host that lead to it.
    :param settings: the digest of what Compose made it of, and its limits of CPU and memory.
    """

    service: str
    id: str
    image: str
    image_id: str = ""
    process: int = 0
    image_labels: Mapping[str, str] = {}
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    libraries: tuple[str, ...] = ()
    files: tuple[ModelFile, ...] = ()
    accelerated: bool = False
    addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    published: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


class Answer(Frozen):
    """What a server said when it was asked as one of OpenAI's API.

    :param server: its header ``Server``.
    :param names: the ids of its models.
    :param owners: who owns them, as it says.
    :param props: whether it describes itself as llama.cpp's server does.
    :param context: tokens of one request's context; 0 is not known.
    :param serial: whether it describes itself as llama-cpp-python at ``/openapi.json``.
    :param silence: why it was not asked for its models; empty where it was.
    """

    address: str
    port: int
    server: str = ""
    names: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    props: bool = False
    context: int = Field(default=0, ge=0)
    serial: bool = False
    silence: str = ""


class Legacy(Frozen):
    """A worker that serves models by an engine of before.

    :param engine: the engine, as far as it is known.
    :param evidence: what says so, line by line.
    :param answer: what it said; ``None`` where nothing answers.
    """

    runner: Runner
    engine: str
    evidence: tuple[str, ...]
    answer: Answer | None = None

    @property
    def service(self) -> str:
        """The service that it is."""
        return self.runner.service


class Model(Frozen):
    """A model of the legacy worker.

    :param name: the name that clients ask for.
    :param path: its file in the legacy worker's container.
    :param context: tokens of its context there; 0 is not known.
    :param present: whether the new service has it already, and it is used as it is.
    :param cause: why the new one has to have it.
    """

    name: Annotated[str, AfterValidator(check_model)]
    path: Annotated[str, AfterValidator(check_path)]
    context: int = Field(default=0, ge=0, le=1 << 30)
    present: bool = False
    cause: str = ""


#: Where a move stands: what was done last. ``returning`` is on its way back, and ``returned`` is
#: back because the new one is not faster.
Stage = Literal[
    "planned",
    "added",
    "imported",
    "measured",
    "repointed",
    "confirmed",
    "retired",
    "returning",
    "returned",
]


class Move(Frozen):
    """What is to be done on one host, with all that is needed to go on with it or to go back.

    :param legacy: the service that is moved.
    :param port: that it listens on.
    :param target: the service that takes its place.
    :param added: the section of the service that is added; empty where the project has it.
    :param volume: the key of the volume that is added for its models; empty for none.
    :param clients: the services that call it.
    :param repointed: the sections of services, by name, that have them call the new one.
    :param engine: the engine of the legacy worker.
    :param evidence: what says so.
    :param grace: seconds that each client has to end what it has under way.
    :param base: the section of the service that is added, without the user's settings and image.
    """

    legacy: Service
    port: int = Field(ge=1, le=65535)
    target: Service
    added: Mapping[str, Any] = {}
    volume: Annotated[str, Field(pattern="^[a-zA-Z0-9._-]*$")] = ""
    clients: tuple[Service, ...]
    models: tuple[Model, ...]
    repointed: Mapping[str, Mapping[str, Any]]
    engine: str = ""
    evidence: tuple[str, ...] = ()
    grace: Mapping[Service, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    base: Mapping[str, Any] = {}


class MoveRecord(Frozen):
    """Where a move stands. It comes back from a host: what could not be there is no record.

    :param key: what the decision rests on; another one is another decision.
    :param reason: why it goes back, or went back.
    :param remedy: what has to be done before it is tried again; empty where nothing has to.
    :param at: when both were measured last, in seconds since 1970; 0 is never.
    :param failed: whether it goes back because a step failed: then a next run tries again.
    :param failures: how often it did so.
    :param removed: whether the legacy worker's container was removed.
    :param created: the models that were created in an Ollama that the project had.
    :param before: both measured while the clients called the legacy worker.
    :param after: both measured while they called the new one.
    """

    version: Literal[1] = 1
    project: str
    key: str
    stage: Stage
    move: Move
    reason: str = ""
    remedy: str = ""
    at: float = Field(default=0.0, ge=0, le=1e11, allow_inf_nan=False)
    failed: bool = False
    failures: int = Field(default=0, ge=0)
    removed: bool = False
    created: tuple[Annotated[str, AfterValidator(check_model)], ...] = ()
    before: Comparison | None = None
    after: Comparison | None = None


class HostMove(Frozen):
    """What one reading of a host says.

    :param runners: the project's running containers.
    :param record: where a move stands; ``None`` where none was begun.
    :param record_problem: why the record cannot be read.
    :param layer: what is laid over the project's files.
    :param gpu: whether containers can be given an NVIDIA GPU.
    :param free: bytes that are free where containers have their volumes; ``None`` is not known.
    :param available: bytes of memory that programs may still take; ``None`` is not known.
    :param gpu_free: bytes that are free on its GPUs; ``None`` is not known.
    :param volumes: the volumes that are called as one that a move of the project would make.
    :param problem: why the engine cannot be asked; nothing else is known then.
    """

    runners: tuple[Runner, ...] = ()
    record: MoveRecord | None = None
    record_problem: str = ""
    layer: str = ""
    gpu: bool = False
    free: int | None = None
    available: int | None = None
    gpu_free: int | None = None
    volumes: tuple[str, ...] = ()
    problem: str = ""


class ProjectView(Frozen):
    """What is known of the project, of what Compose makes of it.

    :param config: ``docker compose config``, with unescaped values.
    :param image_env: the environment that images bring, by the names that services have for them.
    :param compose_files: the compose files that make it up, in their order.
    :param directory: where they are on the host.
    :param checked: the services that checks of the stack name.
    :param asked: the ports of the host that checks of the stack ask.
    :param served: the models of an Ollama that the project has; ``None`` where none answers.
    :param minimum_free: bytes that must stay free where Docker keeps volumes.
    :param busy: the services that compute for others now, by name, with what says so.
    :param absent: the files that are set for models, and that the legacy worker has not.
    :param problem: why it cannot be read, or must not be changed now.
    :param waits: whether what brings it to its files comes before the move, in the same run.
    """

    config: Mapping[str, Any] = {}
    image_env: Mapping[str, Mapping[str, str]] = {}
    files: Mapping[str, bytes] = {}
    compose_files: tuple[str, ...] = ()
    directory: str = ""
    checked: tuple[str, ...] = ()
    asked: tuple[int, ...] = ()
    served: tuple[str, ...] | None = None
    minimum_free: int = 0
    busy: Mapping[str, str] = {}
    absent: tuple[str, ...] = ()
    problem: str = ""
    waits: bool = False
