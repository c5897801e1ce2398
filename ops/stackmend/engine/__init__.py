"""The container engine: installed, set, and given its accelerators, without losing what runs."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, operation

from stackmend import connection, reporting
from stackmend.engine import accelerators
from stackmend.engine.spec import EnginePolicy, FirstSettings, Installation, Settings
from stackmend.problems import in_one_line
from stackmend.raw import validate
from stackmend.reconcile import invalid

__all__ = [
    "accelerated",
    "acceleration",
    "apply_policy",
    "daemon_settings",
    "installation",
    "installed",
    "prefetch",
    "settings",
]

# Every run reads what a stack may want of its engine; what looks and acts is loaded where it is
# used.


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
    + replace: consent to replace what would fight: ``docker.io``, ``docker-ce``, ``moby-engine``,
      ``podman-docker``, ``snap``; ``container:NAME`` for one that may be gone when the engine stops
    + upgrade: consent to change the version of an engine that is there
    + settings: what daemon.json holds when an engine that is new here first starts, so that
      ``engine.settings`` need not restart it; a daemon.json that is there is left alone

    The key's fingerprint is computed here and compared before the key is in place. Packages are
    fetched before anything is stopped, and nothing is removed but what ``replace`` names. What an
    older engine of this host holds (images, volumes, containers) stays, and containers that ran run
    again; the snap's alone lie elsewhere and do not come along. An engine or a Compose that is too
    old is said to be so, and upgraded only with ``upgrade``.

    **Example:**

    .. code:: python

        from stackmend import engine

        engine.installed(
            name="Docker is here, from the company's mirror",
            repository="https://mirror.example.com/docker/linux/debian",
            version="28",
        )
    """
    from stackmend.engine.installing import Installing

    report = reporting.record(host, "engine.installed")
    try:
        wanted = validate(
            Installation,
            {
                "channel": channel,
                "version": version,
                "repository": repository,
                "key": key,
                "key_fingerprint": key_fingerprint,
                "replace": _several(replace),
                "upgrade": upgrade,
            },
        )
        first = validate(FirstSettings, {"settings": {} if settings is None else settings})
    except ValueError as error:
        yield from invalid(host, "engine.installed", in_one_line(error))
        return
    work = Installing(host, wanted, report, first.settings)
    try:
        if work.is_well():
            host.noop("Docker Engine and Compose are already here, new enough, and answer")
            return
        yield FunctionCommand(work.converge, (), {})
    finally:
        report.measured("channels", connection.channels(host), "channels")


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

    Each key that is given is set, in a mapping each key below it; what others set stays, and so do
    the order and the indentation of the file. Mirrors and insecure registries are added to those
    that are there; other lists become what is given. Comments, with which dockerd does not start,
    are taken out; the file before is kept in ``/var/lib/stackmend/engine/kept``. A file that is no
    JSON, a directory, and a key that the service also gives as a flag are refused, and nothing is
    touched.

    dockerd checks the new file before it is in place. The engine is told to read it again, or
    restarted where a changed key needs that; containers that ran then run again. Where it does not
    come up, the file before is put back, the engine started with it, and the operation fails on
    this host alone.

    **Example:**

    .. code:: python

        from stackmend import engine

        engine.settings(
            name="Logs of containers do not fill the disk",
            log={"driver": "json-file", "max_size": "10m", "max_file": 3},
        )
    """
    from stackmend.engine.daemon import Setting

    report = reporting.record(host, "engine.settings")
    try:
        wanted = validate(
            Settings,
            {
                "dns": dns,
                "mtu": mtu,
                "address_pools": address_pools,
                "log": log,
                "registry_mirrors": registry_mirrors,
                "live_restore": live_restore,
                "runtimes": runtimes,
                "settings": {} if settings is None else settings,
                "replace": _several(replace),
            },
        )
    except ValueError as error:
        yield from invalid(host, "engine.settings", in_one_line(error))
        return
    work = Setting(host, wanted.wanted(), report, wanted.replace)
    try:
        if work.is_well():
            host.noop("the engine's settings are already as wanted")
            return
        yield FunctionCommand(work.converge, (), {})
    finally:
        report.measured("channels", connection.channels(host), "channels")


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
      insist, and fail where there is none; ``none`` looks at nothing
    + repository: where NVIDIA's container toolkit comes from: the address that stands in place of
      ``https://nvidia.github.io/libnvidia-container/stable/deb`` (or ``…/rpm``), suite and
      components behind it where it has some
    + key: the key that signs it: an address, which the host reads it from, or a path on this
      machine
    + key_fingerprint: that key's, 40 hexadecimal digits; NVIDIA's own by default
    + replace: ``container:NAME`` for a container that is removed when the engine is restarted, and
      may be

    Accelerators are found by vendor and class, also where no driver has them. No driver is ever
    installed: that is told, with what to do. For NVIDIA's, the toolkit is installed, its runtime
    registered in daemon.json beside those of others, CDI turned on (Engine 25 and newer) and the
    devices described for it; then a container has to reach them, and still reach them after
    ``systemctl daemon-reload``, which is what takes a GPU from containers that were given it in the
    old way. For AMD's, a container gets ``/dev/kfd`` and ``/dev/dri`` with the numbers of their
    groups, which are told. The proof is repeated when the engine, the driver, the toolkit or the
    devices change. Where a container of somebody else's would lose its GPU by the daemon-reload,
    that part is left out, and told.

    Where there is no accelerator there is nothing to do, and that is said.

    **Example:**

    .. code:: python

        from stackmend import engine

        engine.accelerated(
            name="Containers reach the GPUs, with the toolkit of the company's mirror",
            repository="https://mirror.example.com/nvidia/stable/deb",
            key="https://mirror.example.com/nvidia/gpgkey",
        )
    """
    report = reporting.record(host, "engine.accelerated")
    try:
        wanted = validate(
            accelerators.Acceleration,
            {
                "vendor": vendor,
                "repository": repository,
                "key": key,
                "key_fingerprint": key_fingerprint,
                "replace": _several(replace),
            },
        )
    except ValueError as error:
        yield from invalid(host, "engine.accelerated", in_one_line(error))
        return
    work = accelerators.Accelerating(host, wanted, report)
    try:
        if work.is_well():
            host.noop("containers already reach every accelerator that can be used")
            return
        yield FunctionCommand(work.converge, (), {})
    finally:
        report.measured("channels", connection.channels(host), "channels")


def prefetch(policy: EnginePolicy, on: Host = host) -> None:
    """Let the next reading of any fact of a host bring what the operations here need.

    :param policy: what is wanted of the engine.
    :param on: the host; the one that pyinfra is at by default.
    """
    from stackmend.engine.facts import HostEngines

    connection.prefetch(on, HostEngines)
    accelerators.prefetch(on, policy.accelerator)


def installation(policy: EnginePolicy) -> dict[str, Any]:
    """The arguments of :func:`installed` in a stack's section ``engine``."""
    given = {name: getattr(policy, name) for name in Installation.model_fields}
    return {**given, "settings": policy.wanted()}


def daemon_settings(policy: EnginePolicy) -> dict[str, Any]:
    """The arguments of :func:`settings` in a stack's section ``engine``."""
    return {name: getattr(policy, name) for name in Settings.model_fields}


def acceleration(policy: EnginePolicy) -> dict[str, Any]:
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
        **installation(policy),
    )
    settings(
        name="The engine has the settings that are wanted",
        **daemon_settings(policy),
    )
    accelerated(
        name="Containers reach the accelerators of the host",
        **acceleration(policy),
    )


def _several(given: Sequence[str] | str) -> Sequence[str]:
    # On pyinfra's command line a single one is a text.
    return (given,) if type(given) is str else given
