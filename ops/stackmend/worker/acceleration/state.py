"""What a model server computes with, from the host's bus to its loaded models: models only."""

from typing import Literal

from stackmend.frozen import Frozen
from stackmend.worker.context import Shape

#: The links between an accelerator and a model, in the order in which each needs those before it.
LinkName = Literal[
    "host", "driver", "toolkit", "reservation", "container", "server", "model", "reload"
]

#: ``unused``: nothing needs it, as in a host without an accelerator.
LinkStatus = Literal["ok", "broken", "unknown", "unused"]


class Link(Frozen):
    """One link of the chain.

    :param reason: what is wrong, or why it is not known.
    :param evidence: what says so, line by line.
    :param remedy: what would mend it.
    :param blocks: whether it fails the operation where an accelerator is expected.
    """

    name: LinkName
    status: LinkStatus
    kind: str = ""
    reason: str = ""
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    blocks: bool = True

    @property
    def unused(self) -> bool:
        """Whether nothing needs it."""
        return self.status == "unused"


class AcceleratorChain(Frozen):
    """What lies between an accelerator of a host and the loaded models.

    :param processor: where the loaded models are: ``cpu``, ``gpu``, ``35% gpu``; empty where none
        is loaded and the server does not say what it computes with.
    :param links: in their order.
    :param notes: what is worth knowing of them and no fault.
    """

    processor: str
    links: tuple[Link, ...]
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> Link | None:
        """The first link that is broken."""
        return next((link for link in self.links if link.status == "broken"), None)

    def get_link(self, name: LinkName) -> Link:
        """The link of a name."""
        return next(link for link in self.links if link.name == name)

    def __str__(self) -> str:
        used = ", ".join(f"{link.name} {link.status}" for link in self.links if not link.unused)
        return "; ".join(filter(None, (used, self._format_unused(), *self.notes)))

    def _format_unused(self) -> str:
        """The links that nothing needs, and why the first of them is not needed."""
        unused = [link for link in self.links if link.unused]
        if not unused:
            return ""
        names, reason = ", ".join(link.name for link in unused), unused[0].reason
        # What a note says is said once.
        return f"not needed: {names}" + (f" ({reason})" if reason not in self.notes else "")


class Gpu(Frozen):
    """A GPU as ``nvidia-smi`` lists it.

    :param memory: bytes that it has; 0 where it does not say.
    :param used: bytes of them that are in use.
    """

    name: str
    memory: int = 0
    used: int = 0


class Smi(Frozen):
    """What ``nvidia-smi`` answers.

    :param status: its exit status; ``None`` where it is not there.
    :param output: what it printed beside the GPUs.
    :param driver: the version of the driver.
    """

    status: int | None = None
    output: str = ""
    driver: str = ""
    gpus: tuple[Gpu, ...] = ()


class Cpu(Frozen):
    """What a host computes with.

    :param model: its name.
    :param cores: physical cores; processors where the host does not say.
    :param performance: of the cores, those that Ollama computes with by default: not the slow ones
        of a processor that has two kinds; 0 where the host does not say.
    :param processors: that are online.
    :param architecture: as ``uname -m`` has it.
    :param flags: those of its instruction sets that matter: ``avx``, ``avx2``, ``avx512f``,
        ``f16c``, ``fma``; ``None`` where the host does not list any.
    :param governors: of its clock, with the driver and, where there is one, the preference.
    """

    model: str = ""
    cores: int = 0
    performance: int = 0
    processors: int = 0
    architecture: str = ""
    flags: tuple[str, ...] | None = None
    governors: tuple[str, ...] = ()


class Memory(Frozen):
    """A host's memory, in bytes.

    :param swapped_in: pages that came in from swap, at each sample.
    """

    total: int = 0
    available: int = 0
    swap: int = 0
    swap_free: int = 0
    swapped_in: tuple[int, ...] = ()


class Engine(Frozen):
    """What the engine has for accelerators.

    :param reason: why it cannot be asked; empty where it can.
    :param runtimes: its runtimes, by name.
    :param default_runtime: the one that containers have without naming any.
    :param cdi: whether it reads descriptions of devices (CDI).
    :param cgroup_driver: who makes control groups of containers: ``systemd`` or ``cgroupfs``.
    """

    reason: str = ""
    version: str = ""
    runtimes: tuple[str, ...] = ()
    default_runtime: str = ""
    cdi: bool = False
    cgroup_driver: str = ""


class DeviceRequest(Frozen):
    """Devices that a container was made with, as Compose reserves them."""

    driver: str = ""
    count: int = 0
    ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()


class Container(Frozen):
    """The container of a model server.

    :param status: as Docker has it.
    :param image: as its service names it.
    :param devices: the paths on the host of the devices that it was made with.
    :param memory: bytes that it may have; 0 for no limit.
    :param quota: CPUs that it, or a control group above it, may use; 0 for no limit.
    :param cpuset: CPUs that it is bound to; 0 for all.
    :param threads: that its command names; 0 for none.
    :param settings: those of its environment that matter here.
    """

    id: str
    name: str
    status: str = ""
    image: str = ""
    runtime: str = ""
    requests: tuple[DeviceRequest, ...] = ()
    devices: tuple[str, ...] = ()
    privileged: bool = False
    memory: int = 0
    quota: float = 0.0
    cpuset: int = 0
    threads: int = 0
    settings: tuple[tuple[str, str], ...] = ()

    def find_setting(self, *names: str) -> str:
        """The value of the first of these variables that is set; empty for none."""
        return _find_setting(self.settings, names)


def _find_setting(pairs: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> str:
    settings = dict(pairs)
    return next((settings[name] for name in names if name in settings), "")


class InnerNode(Frozen):
    """A device file inside the container.

    :param problem: why the server's user cannot open it; empty where it can.
    """

    path: str
    problem: str = ""


class Inside(Frozen):
    """What the container itself has of accelerators.

    :param reason: why nothing can be executed in it; empty where it can.
    :param nodes: the device files.
    :param smi: the exit status of ``nvidia-smi`` there; ``None`` where it is not there.
    :param output: what that printed.
    """

    reason: str = ""
    nodes: tuple[InnerNode, ...] = ()
    smi: int | None = None
    output: str = ""


class Scope(Frozen):
    """What systemd lets a container's control group open, and would again at a daemon-reload.

    :param policy: ``strict`` or ``closed`` where only what is listed may be opened.
    :param allowed: device files, ``/dev/char/MAJOR:MINOR`` or kinds of them (``char-NAME``), each
        with the access that is allowed.
    :param numbers: of the host's device files of NVIDIA's GPUs, ``MAJOR:MINOR``.
    """

    policy: str
    allowed: tuple[tuple[str, str], ...] = ()
    numbers: tuple[tuple[str, str], ...] = ()


class Usage(Frozen):
    """What the processes of the server use.

    :param resident: bytes in memory.
    :param swapped: bytes in swap.
    :param periods: of its quota, so far; 0 without one.
    :param throttled: how many of them it was held back in.
    """

    resident: int = 0
    swapped: int = 0
    periods: int = 0
    throttled: int = 0


class LoadedModel(Frozen):
    """A model in the server's memory.

    :param size: bytes in all, its context included.
    :param size_vram: bytes of them on an accelerator.
    :param context: tokens.
    :param expires: when it is unloaded, as the server writes it.
    """

    name: str
    digest: str = ""
    size: int = 0
    size_vram: int = 0
    context: int = 0
    expires: str = ""


class StoredModel(Frozen):
    """A model that the server has, in memory or not.

    :param size: bytes of its files.
    """

    name: str
    size: int = 0


class Device(Frozen):
    """What the server found to compute with, as its log has it.

    :param library: ``CUDA``, ``ROCm``, ``Vulkan``, ``cpu`` and the like.
    :param memory: as it prints it, such as ``23.6 GiB``.
    """

    library: str
    name: str = ""
    memory: str = ""


class Load(Frozen):
    """A model that the server loaded, as its log has it.

    :param at: when it began, in seconds since 1970.
    :param model: the file that it was loaded from, without its directory.
    :param context: tokens of one request; 0 where the log does not say.
    :param parallel: requests at one time; 0 where the log does not say.
    :param threads: that it computes with; 0 where the log does not say.
    :param seconds: that it took; ``None`` where it did not end.
    :param is_reduced: whether the server itself took a smaller context, for want of memory.
    """

    at: float
    model: str
    context: int = 0
    parallel: int = 0
    threads: int = 0
    seconds: float | None = None
    is_reduced: bool = False


class Call(Frozen):
    """A request that the server answered, as its log has it.

    :param at: when it ended, in seconds since 1970.
    :param seconds: that it took.
    :param client: the address that it came from.
    """

    at: float
    seconds: float
    client: str
    path: str
    status: int


class Mark(Frozen):
    """Something else that the server's log says about its models.

    :param kind: ``started``: the server; ``evicting``: a model, for want of memory; ``crashed``: a
        model's process ended by itself.
    """

    at: float
    kind: Literal["started", "evicting", "crashed"]


class ServerLog(Frozen):
    """What the server's log says.

    :param devices: what it found when it started; ``None`` where the log does not say.
    :param warnings: what it said then about accelerators that it does not use.
    :param layers: layers of the last model that are on an accelerator, and all of them.
    :param reason: why it was not read to its end; empty where it was.
    :param since: seconds since 1970 from which on it is read, where more was asked for.
    """

    devices: tuple[Device, ...] | None = None
    warnings: tuple[str, ...] = ()
    layers: tuple[int, int] | None = None
    loads: tuple[Load, ...] = ()
    calls: tuple[Call, ...] = ()
    marks: tuple[Mark, ...] = ()
    reason: str = ""
    since: float | None = None


class Client(Frozen):
    """A container that may ask the server.

    :param service: its Compose service, or its name.
    :param addresses: that it has.
    :param settings: those of its environment that set a context or how long a model stays.
    """

    service: str
    addresses: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


class WorkerAcceleration(Frozen):
    """What a model server computes with, and what keeps it from computing faster.

    :param now: seconds since 1970.
    :param vram: bytes of memory of each AMD device's own, by its address on the PCI bus.
    :param has_dxg: whether the host has Windows' device file of GPUs, ``/dev/dxg``.
    :param container: its container; ``None`` where it has none.
    :param settings: what matters of its environment, where it is a process of the host.
    :param is_local: whether the server runs on this host; of another's only the models are read.
    :param reason: why the server does not say what it is; empty where it does.
    :param answers: whether it answers at all.
    :param unit: of systemd, where the server is a process of one.
    :param inside: what the container has of accelerators; ``None`` where it does not run.
    :param scope: what systemd knows of the container's control group; ``None`` where it has none.
    :param address: where it answers from the host, with its port; ``None`` where it does not.
    :param samples: the loaded models, at each sample; none where the server does not list them.
    :param stored: the models that the server has.
    :param shape: of the largest of them; ``None`` where it was not asked for.
    :param gateways: addresses that requests come from which a container of the host did not send.
    """

    now: float
    is_local: bool = True
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    vram: tuple[tuple[str, int], ...] = ()
    has_dxg: bool = False
    smi: Smi = Smi()
    engine: Engine = Engine()
    container: Container | None = None
    settings: tuple[tuple[str, str], ...] = ()
    unit: str = ""
    reason: str = ""
    answers: bool = True
    version: str = ""
    address: tuple[str, int] | None = None
    inside: Inside | None = None
    scope: Scope | None = None
    usage: Usage = Usage()
    samples: tuple[tuple[LoadedModel, ...], ...] = ()
    stored: tuple[StoredModel, ...] = ()
    shape: Shape | None = None
    log: ServerLog = ServerLog()
    clients: tuple[Client, ...] = ()
    gateways: tuple[str, ...] = ()

    def find_setting(self, *names: str) -> str:
        """The value of the first of these variables that the server has; empty for none."""
        return _find_setting(self._get_settings(), names)

    def has_setting(self, name: str) -> bool:
        """Whether the server has this variable, be it empty."""
        return name in dict(self._get_settings())

    def _get_settings(self) -> tuple[tuple[str, str], ...]:
        return self.settings if self.container is None else self.container.settings

    def find_vram(self, address: str) -> int:
        """Bytes of memory of an AMD device's own; 0 where the host does not say."""
        return dict(self.vram).get(address, 0)

    @property
    def largest(self) -> StoredModel | None:
        """The largest of the models that the server has."""
        return max(self.stored, key=lambda model: model.size, default=None)

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """The loaded models at the last sample."""
        return self.samples[-1] if self.samples else ()


def describe_processor(size: int, size_vram: int) -> str:
    """Where a model of this size lies: ``cpu``, ``gpu`` or ``35% gpu``.

    :param size: bytes in all.
    :param size_vram: bytes of them on an accelerator.
    """
    if size_vram <= 0:
        return "cpu"
    if size_vram >= size:
        return "gpu"
    return f"{min(99, max(1, round(100 * size_vram / size)))}% gpu"
