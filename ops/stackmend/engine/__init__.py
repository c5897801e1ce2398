"""The container engine: installed, set, and given its accelerators, without losing what runs."""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, operation

from stackmend import connection
from stackmend.engine import accelerators
from stackmend.engine.spec import EnginePolicy, FirstSettings, Installation, Settings
from stackmend.raw import validate
from stackmend.reconcile import operate

if TYPE_CHECKING:
    from stackmend.engine.reconciler import InstallationReconciler, SettingsReconciler
    from stackmend.engine.restore import ReturnReconciler
    from stackmend.reporting import Collector

__all__ = [
    "accelerated",
    "apply_policy",
    "get_acceleration",
    "get_daemon",
    "get_installation",
    "installed",
    "prefetch",
    "restored",
    "settings",
]

# Every run imports this; what observes and acts is loaded where it is used.


@operation()
def installed(
    channel: str = "docker",
    version: str = "",
    repository: str = "",
    key: str = "",
    key_fingerprint: str = "",
    replace: Sequence[str] | str = (),
    upgrade: bool = False,
    settings: Mapping[str, Any] | None = None,
    allow: Sequence[str] | str = (),
) -> Generator[FunctionCommand, None, None]:
    """
    Make sure that the host has Docker Engine and Compose, new enough, and that the engine answers.

    + channel: ``docker`` takes them from Docker's own repository (Debian and Ubuntu by apt; Fedora,
      RHEL and what is like it by dnf), ``distro`` from the distribution's (Debian, Ubuntu, Alpine)
    + version: the engine's, as far as it is to be held: ``28``, ``28.5`` or ``28.5.1``; without it
      the newest is installed, and an engine that is new enough is left alone
    + repository: for ``docker`` the address that stands in place of
      ``https://download.docker.com/linux/debian``, suite and components behind it if need be; for
      ``distro`` one more suite, as ``https://deb.debian.org/debian trixie main``, from which the
      engine and what it needs is taken (the C library, on an older release), and nothing else
    + key: the key that signs that repository: an address, which the host reads it from, or a path
      on this machine; for ``docker`` it is ``gpg`` below the repository, for ``distro`` the keys
      that the distribution brings
    + key_fingerprint: that key's, 40 hexadecimal digits; Docker's own by default
    + replace: consent to replace what would conflict: ``docker.io``, ``docker-ce``,
      ``moby-engine``, ``podman-docker``, ``snap``; ``container:NAME`` for one that may be gone when
      the engine stops
    + upgrade: consent to change the version of an engine that is there
    + settings: what daemon.json holds when an engine that is new here first starts, so that
      ``engine.settings`` need not restart it; a daemon.json that is there is left alone
    + allow: consent to mend an engine. ``config`` puts the last daemon.json back that the engine
      ran with, where somebody broke it since, and keeps the broken one in
      ``/var/lib/stackmend/engine/kept``. ``restart`` restarts the engine where its rules of the
      packet filter are gone, which nothing else makes again, and starts the containers that ran.
      ``rule:-A DOCKER-USER -d 172.18.0.3/32 -j DROP`` removes this one rule of somebody's that
      drops traffic of containers, as ``iptables-save`` prints it. ``repair:networks`` moves a
      database of networks aside that the engine does not start with

    stackmend computes the key's fingerprint here, and compares it before the key is in place. It
    fetches packages before it stops anything, and removes only what ``replace`` names. What an
    older engine of this host holds (images, volumes, containers) stays, and stackmend starts the
    containers that ran; only the snap's lie elsewhere and do not come along. It refuses an engine
    or a Compose that is too old, and upgrades it only with ``upgrade``.

    **Example:**

    .. code:: python

        from stackmend import engine

        engine.installed(
            name="Docker is here, from the company's mirror",
            repository="https://mirror.example.com/docker/linux/debian",
            version="28",
        )
    """
    options = {
        "channel": channel,
        "version": version,
        "repository": repository,
        "key": key,
        "key_fingerprint": key_fingerprint,
        "replace": _wrap_single(replace),
        "upgrade": upgrade,
        "allow": _wrap_single(allow),
    }

    def build(report: "Collector") -> "InstallationReconciler":
        from stackmend.engine.reconciler import InstallationReconciler

        spec = validate(Installation, options)
        first = validate(FirstSettings, {"settings": {} if settings is None else settings})
        return InstallationReconciler(host, spec, report, first.settings)

    yield from operate(
        host,
        "engine.installed",
        build,
        converged="Docker Engine and Compose are already here, new enough, and answer",
    )


@operation()
def settings(
    dns: Sequence[str] | None = None,
    mtu: int | None = None,
    address_pools: Sequence[Any] | None = None,
    log: Mapping[str, Any] | Any | None = None,
    registry_mirrors: Sequence[str] | None = None,
    live_restore: bool | None = None,
    runtimes: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    replace: Sequence[str] | str = (),
    allow: Sequence[str] | str = (),
) -> Generator[FunctionCommand, None, None]:
    """
    Have the engine's daemon.json hold these settings, among whatever else it holds.

    + dns: servers that containers ask, as containers reach them
    + mtu: bytes of the frames of the default bridge
    + address_pools: ``{"base": "10.200.0.0/16", "size": 24}`` each: what networks get their
      addresses from
    + log: ``{"driver": "json-file", "max_size": "10m", "max_file": 3}``: how logs are kept
    + registry_mirrors: mirrors of Docker Hub, asked first
    + live_restore: whether containers go on while the engine is down
    + runtimes: name → ``{"path": …, "args": […]}``
    + settings: further keys, as daemon.json has them
    + replace: ``container:NAME`` for a container that is removed when it stops, and may be
    + allow: ``config`` puts the last daemon.json back that the engine ran with, where somebody
      broke it since

    stackmend sets each key of the arguments, in a mapping each key below it; what others set stays,
    and so do the order and the indentation of the file. It adds mirrors and insecure registries to
    those that are there, and replaces other lists. It removes comments, with which dockerd does not
    start, and keeps the file before in ``/var/lib/stackmend/engine/kept``. It refuses a file that
    is not JSON, a directory, and a key that the service also sets by a flag, and then touches
    nothing.

    dockerd checks the new file before it is in place. The engine reads it again, or restarts where
    a changed key needs that; stackmend then starts the containers that ran. Where the engine does
    not come up, stackmend restores the file before, starts the engine with it, and the operation
    fails on this host alone.

    **Example:**

    .. code:: python

        from stackmend import engine

        engine.settings(
            name="Logs of containers do not fill the disk",
            log={"driver": "json-file", "max_size": "10m", "max_file": 3},
        )
    """
    options = {
        "dns": dns,
        "mtu": mtu,
        "address_pools": address_pools,
        "log": log,
        "registry_mirrors": registry_mirrors,
        "live_restore": live_restore,
        "runtimes": runtimes,
        "settings": {} if settings is None else settings,
        "replace": _wrap_single(replace),
        "allow": _wrap_single(allow),
    }

    def build(report: "Collector") -> "SettingsReconciler":
        from stackmend.engine.reconciler import SettingsReconciler

        spec = validate(Settings, options)
        return SettingsReconciler(host, spec.daemon_json, report, spec.replace, spec.allow)

    yield from operate(
        host, "engine.settings", build, converged="the engine already has these settings"
    )


@operation()
def restored(copy: str, required: bool = True) -> Generator[FunctionCommand, None, None]:
    """
    Put back the daemon.json that ``engine.settings`` replaced, and have the engine run with it.

    + copy: the name of what was there before, as the undo of the change names it
    + required: whether the host has to have the copy; with ``False`` there is nothing to put back
      where it has none

    The engine restarts; stackmend then starts the containers that ran. Where the engine does not
    come up, it gets the file back that it had. A file that somebody has changed since is refused,
    as is a restart that would lose a container which is removed when it stops. Where there was no
    file before, there is none afterwards.

    **Example:**

    .. code:: python

        from stackmend import engine

        engine.restored(name="Logs are kept as before", copy="20260101T120000.000000Z")
    """

    def build(report: "Collector") -> "ReturnReconciler":
        from stackmend.engine.commands import COPY
        from stackmend.engine.restore import ReturnReconciler

        if not isinstance(copy, str) or not COPY.fullmatch(copy):
            raise ValueError(f"copy: must be a name such as 20260101T120000.000000Z; got {copy!r}")
        return ReturnReconciler(host, copy, report, required)

    yield from operate(host, "engine.restored", build, converged="daemon.json is as it was before")


@operation()
def accelerated(
    vendor: str = "auto",
    repository: str = "",
    key: str = "",
    key_fingerprint: str = "",
    replace: Sequence[str] | str = (),
) -> Generator[FunctionCommand, None, None]:
    """
    Have containers reach the host's accelerators, and see it from inside one.

    + vendor: ``auto`` takes what is on the PCI bus and has its driver; ``nvidia`` and ``amd``
      insist, and fail where there is none; ``none`` checks nothing
    + repository: where NVIDIA's container toolkit comes from: the address that stands in place of
      ``https://nvidia.github.io/libnvidia-container/stable/deb`` (or ``…/rpm``), suite and
      components behind it where it has some
    + key: the key that signs it: an address, which the host reads it from, or a path on this
      machine
    + key_fingerprint: that key's, 40 hexadecimal digits; NVIDIA's own by default
    + replace: ``container:NAME`` for a container that is removed when the engine is restarted, and
      may be

    stackmend finds accelerators by vendor and class, also where no driver has them. It never
    installs a driver: a finding says what to do. For NVIDIA's, it installs the toolkit, registers
    its runtime in daemon.json beside those of others, turns CDI on (Engine 25 and newer) and
    describes the devices for it; then a container has to reach them, and still reach them after
    ``systemctl daemon-reload``, which takes a GPU from containers that were given it in the old
    way. For AMD's, a container gets ``/dev/kfd`` and ``/dev/dri`` with the numbers of their groups,
    which a finding names. The proof is repeated when the engine, the driver, the toolkit or the
    devices change. Where a foreign container would lose its GPU by the daemon-reload, the proof
    leaves that part out.

    Where there is no accelerator there is nothing to do, and a finding says so.

    **Example:**

    .. code:: python

        from stackmend import engine

        engine.accelerated(
            name="Containers reach the GPUs, with the toolkit of the company's mirror",
            repository="https://mirror.example.com/nvidia/stable/deb",
            key="https://mirror.example.com/nvidia/gpgkey",
        )
    """
    options = {
        "vendor": vendor,
        "repository": repository,
        "key": key,
        "key_fingerprint": key_fingerprint,
        "replace": _wrap_single(replace),
    }

    def build(report: "Collector") -> "accelerators.AcceleratorsReconciler":
        return accelerators.AcceleratorsReconciler(
            host, validate(accelerators.Acceleration, options), report
        )

    yield from operate(
        host,
        "engine.accelerated",
        build,
        converged="containers already reach every accelerator that they can use",
    )


def prefetch(policy: EnginePolicy, on: Host = host) -> None:
    """Let the next reading of any fact of a host bring what the operations here need.

    :param policy: the section of the stack.
    :param on: the host; the one that pyinfra is at by default.
    """
    from stackmend.engine.facts import HostEngines

    connection.prefetch(on, HostEngines)
    accelerators.prefetch(on, policy.accelerator)


def get_installation(policy: EnginePolicy) -> dict[str, Any]:
    """The arguments of :func:`installed` in a stack's section ``engine``."""
    options = {name: getattr(policy, name) for name in Installation.model_fields}
    return {**options, "settings": policy.daemon_json}


def get_daemon(policy: EnginePolicy) -> dict[str, Any]:
    """The arguments of :func:`settings` in a stack's section ``engine``."""
    return {name: getattr(policy, name) for name in Settings.model_fields}


def get_acceleration(policy: EnginePolicy) -> dict[str, Any]:
    """The arguments of :func:`accelerated` in a stack's section ``engine``."""
    return {
        "vendor": policy.accelerator,
        "repository": policy.toolkit_repository,
        "key": policy.toolkit_key,
        "key_fingerprint": policy.toolkit_key_fingerprint,
        "replace": policy.replace,
    }


def apply_policy(policy: EnginePolicy) -> None:
    """Run the three operations in their order, on the host that pyinfra is at.

    :param policy: the section ``engine`` of the stack.
    """
    installed(
        name="Docker Engine and Compose are there, and answer",
        **get_installation(policy),
    )
    settings(
        name="The engine has its settings",
        **get_daemon(policy),
    )
    accelerated(
        name="Containers reach the accelerators of the host",
        **get_acceleration(policy),
    )


def _wrap_single(value: Sequence[str] | str) -> Sequence[str]:
    # On pyinfra's command line a single value is a text.
    return (value,) if type(value) is str else value
