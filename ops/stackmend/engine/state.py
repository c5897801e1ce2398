"""What a host has of container engines, as the probe printed it."""

from collections.abc import Mapping
from typing import Literal

from stackmend.frozen import Frozen

Manager = Literal["apt", "dnf", "apk", ""]


class Release(Frozen):
    """Which distribution a host runs, as its ``os-release`` has it.

    :param id: ``debian``, ``ubuntu``, ``fedora``, ``rocky`` …
    :param like: what it calls itself like, nearest first.
    :param codename: the suite of the distribution that it is like, where that has names.
    :param name: for people.
    """

    id: str = ""
    like: tuple[str, ...] = ()
    version: str = ""
    codename: str = ""
    name: str = ""


class Package(Frozen):
    """A package that has to do with container engines.

    :param version: as the package manager writes it.
    :param complete: whether it is installed to the end; an interrupted one is not.
    """

    version: str
    complete: bool = True


class Program(Frozen):
    """A program on the PATH.

    :param path: where the probe found it.
    :param real: where that leads to.
    :param package: the package that owns it; empty for none.
    """

    path: str
    real: str = ""
    package: str = ""


class Daemon(Frozen):
    """A dockerd that runs.

    :param unit: the systemd unit that it belongs to.
    :param argv: its command line, with the variables of its unit put in.
    :param uid: whose it is; anybody's but 0 is a rootless engine of a user.
    """

    pid: int
    uid: int = 0
    unit: str = ""
    argv: tuple[str, ...] = ()


class Service(Frozen):
    """The engine's service.

    :param manager: ``systemd``, ``openrc`` or ``sysv``; empty where none was found.
    :param load: ``loaded``, ``masked``, ``not-found`` …
    :param active: ``active``, ``inactive``, ``failed`` …
    :param enabled: ``enabled``, ``disabled`` …
    :param fragment: the file that declares it.
    :param flags: the words that it starts dockerd with, variables put in.
    :param sources: the files that flags can come from: the unit, its drop-ins, its environment.
    """

    manager: Literal["systemd", "openrc", "sysv", ""] = ""
    load: str = ""
    active: str = ""
    enabled: str = ""
    fragment: str = ""
    flags: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class Container(Frozen):
    """A running container.

    :param auto_remove: whether it is removed when it stops.
    """

    id: str
    name: str
    auto_remove: bool = False


class Copy(Frozen):
    """An earlier daemon.json that stackmend kept, and that dockerd reads.

    :param path: where it is.
    :param text: what it holds.
    """

    path: str
    text: str


class Config(Frozen):
    """The engine's daemon.json.

    :param kind: ``file``, ``missing``, ``directory`` or ``other``.
    :param path: where it is, or is to be.
    :param real: where that leads to, where it is a symbolic link.
    :param text: what it holds.
    :param problem: why the probe could not read it.
    :param refused: why dockerd would not start with it, in dockerd's words.
    :param copied: the last one that the engine was seen to run with, or else the newest that
        stackmend kept and dockerd reads; only where the file is another one than that.
    """

    kind: Literal["file", "missing", "directory", "other"] = "missing"
    path: str = "/etc/docker/daemon.json"
    real: str = ""
    text: str = ""
    problem: str = ""
    refused: str = ""
    copied: Copy | None = None


class Origin(Frozen):
    """One of the files that say where packages come from, and whose signature counts.

    :param path: where it is.
    :param text: what it holds.
    """

    path: str
    text: str


class Network(Frozen):
    """A network of the engine upon a bridge.

    :param bridge: its device.
    :param gateways: the bridge's own addresses, with their prefix, as ``172.18.0.1/16``.
    :param options: as the engine shows them.
    :param containers: those that run in it: name → address.
    """

    name: str
    bridge: str
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    internal: bool = False
    options: Mapping[str, str] = {}
    containers: Mapping[str, str] = {}


class Published(Frozen):
    """A port that a container publishes.

    :param port: the container's.
    """

    container: str
    port: int
    protocol: str
    host_port: int


class Rule(Frozen):
    """A rule of the packet filter, as ``iptables-save`` prints it.

    :param position: in its chain, from 1.
    """

    table: str
    text: str
    position: int = 0
    packets: int = 0
    octets: int = 0


class Device(Frozen):
    """A network device; its addresses with their prefix."""

    up: bool = True
    addresses: tuple[str, ...] = ()


class Loose(Frozen):
    """A container's port that is on no bridge."""

    container: str
    device: str
    bridge: str


EngineStatus = Literal["up", "absent", "unexecutable", "stopped", "forbidden", "hung", "unknown"]


class HostEngine(Frozen):
    """What a host has of container engines.

    :param system: what ``uname -s`` prints.
    :param architecture: as the package manager names it.
    :param packages: those that have to do with engines, by name.
    :param snap: whether the snap ``docker`` is installed and enabled.
    :param programs: ``docker``, ``dockerd`` and ``containerd``, by name.
    :param daemons: every dockerd that runs in the host's own namespace.
    :param status: of the engine that answers at the usual place; ``unexecutable`` where nobody may
        execute the client.
    :param reason: what docker printed instead of an answer.
    :param client: the version of the docker client.
    :param server: the version of the engine that answers.
    :param compose: the version of ``docker compose``; empty where there is none.
    :param containers: those that run.
    :param origins: files that name Docker as a source of packages, and ours.
    :param keys: path → fingerprints of the keyrings that those of ours are signed with.
    :param pending: whether daemon.json changed and the engine was not seen to run with it.
    :param apparmor: whether the kernel confines by AppArmor.
    :param left: containers that ran before the engine was stopped, and do not run since.
    :param ignored: what of the environment would lead commands to another engine.
    :param root: whether the probe could read everything.
    :param networks: those of the engine that answers.
    :param rules: those of the packet filter that are Docker's, or asked before; ``None`` where
        they cannot be read.
    :param devices: by name.
    :param forwarding: what ``/proc/sys/net/ipv4/ip_forward`` holds.
    :param restarted: whether the engine was restarted for rules that did not come.
    :param containerd: the state of ``containerd.service``, which dockerd is told to use; empty
        where it uses its own.
    :param pid_file: the number and the name of a process that the engine's pid file names, and that
        is no dockerd.
    :param database: why the engine does not start with its database of networks.
    """

    system: str = "Linux"
    architecture: str = ""
    manager: Manager = ""
    release: Release = Release()
    packages: Mapping[str, Package] = {}
    snap: bool = False
    programs: Mapping[str, Program] = {}
    daemons: tuple[Daemon, ...] = ()
    service: Service = Service()
    status: EngineStatus = "unknown"
    reason: str = ""
    client: str = ""
    server: str = ""
    compose: str = ""
    containers: tuple[Container, ...] = ()
    config: Config = Config()
    origins: tuple[Origin, ...] = ()
    keys: Mapping[str, tuple[str, ...]] = {}
    pending: bool = False
    apparmor: bool = False
    left: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    root: bool = True
    networks: tuple[Network, ...] = ()
    published: tuple[Published, ...] = ()
    rules: tuple[Rule, ...] | None = None
    devices: Mapping[str, Device] = {}
    loose: tuple[Loose, ...] = ()
    forwarding: str = ""
    restarted: bool = False
    containerd: str = ""
    pid_file: tuple[int, str] | None = None
    database: str = ""
