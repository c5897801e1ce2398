"""Hosts as the probe tells of them, for the tests of what is decided about their engine."""

from __future__ import annotations

from typing import Any

from stackmend.engine.spec import DOCKER_FINGERPRINTS
from stackmend.engine.state import Container, HostEngine, Package, Program, Release, Service

BOOKWORM = Release(id="debian", version="12", codename="bookworm", name="Debian 12")
TRIXIE = Release(id="debian", version="13", codename="trixie", name="Debian 13")
NOBLE = Release(
    id="ubuntu", like=("debian",), version="24.04", codename="noble", name="Ubuntu 24.04"
)
MINT = Release(id="linuxmint", like=("ubuntu", "debian"), codename="noble", name="Linux Mint 22")
KALI = Release(id="kali", like=("debian",), codename="kali-rolling", name="Kali")
FEDORA = Release(id="fedora", version="42", name="Fedora 42")
ROCKY = Release(id="rocky", like=("rhel", "centos", "fedora"), version="9.6", name="Rocky 9")
ALPINE = Release(id="alpine", version="3.22", name="Alpine 3.22")

DOCKER_CE = {
    "docker-ce": "5:28.5.1-1~debian.13~trixie",
    "docker-ce-cli": "5:28.5.1-1~debian.13~trixie",
    "containerd.io": "1.7.28-1~debian.13~trixie",
    "docker-buildx-plugin": "0.29.1-1~debian.13~trixie",
    "docker-compose-plugin": "2.40.1-1~debian.13~trixie",
}
DOCKER_IO = {
    "docker.io": "26.1.5+dfsg1-9+b9",
    "docker-cli": "26.1.5+dfsg1-9+b9",
    "docker-compose": "2.26.1-4",
    "containerd": "1.7.24~ds1-6",
    "runc": "1.1.15+ds1-2",
}
RUNNING = Service(
    manager="systemd",
    load="loaded",
    active="active",
    enabled="enabled",
    fragment="/usr/lib/systemd/system/docker.service",
    flags=("-H", "fd://", "--containerd=/run/containerd/containerd.sock"),
    sources=("/usr/lib/systemd/system/docker.service",),
)


def bare(release: Release = TRIXIE, **changes: Any) -> HostEngine:
    """A host without an engine."""
    manager = {"fedora": "dnf", "rocky": "dnf", "alpine": "apk"}.get(release.id, "apt")
    state = HostEngine(
        manager=manager,  # type: ignore[arg-type]
        architecture="amd64",
        release=release,
        packages={"ca-certificates": Package(version="1")},
        service=Service(manager="systemd", load="not-found", active="inactive"),
        status="absent",
        reason="no docker client was found",
    )
    return state.model_copy(update=changes)


def packages(listed: dict[str, str], **broken: bool) -> dict[str, Package]:
    """Packages as the probe lists them; those named in `broken` are not complete."""
    return {
        "ca-certificates": Package(version="1"),
        **{
            name: Package(version=version, complete=name.replace("-", "_") not in broken)
            for name, version in listed.items()
        },
    }


def engine(listed: dict[str, str], release: Release = TRIXIE, **changes: Any) -> HostEngine:
    """A host whose engine of these packages runs."""
    name = next(iter(listed))
    upstream = listed[name].rpartition(":")[2].partition("-")[0].partition("+")[0]
    compose = listed.get("docker-compose-plugin") or listed.get("docker-compose", "")
    state = bare(
        release,
        packages=packages(listed),
        programs={
            "dockerd": Program(path="/usr/bin/dockerd", real="/usr/bin/dockerd", package=name)
        },
        service=RUNNING,
        status="up",
        reason="",
        client=upstream,
        server=upstream,
        compose=compose.partition("-")[0],
        keys={"/etc/apt/keyrings/stackmend-docker.asc": (DOCKER_FINGERPRINTS["apt"],)},
    )
    return state.model_copy(update=changes)


def runs(*names: str, auto_remove: bool = False) -> tuple[Container, ...]:
    """Running containers."""
    return tuple(Container(id=name * 8, name=name, auto_remove=auto_remove) for name in names)
