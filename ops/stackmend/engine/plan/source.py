"""Where a host's engine comes from: packages, repository and key, by distribution."""

import re

from stackmend.decision import Refusal
from stackmend.engine.plan.model import File
from stackmend.engine.spec import DOCKER_FINGERPRINTS, Installation
from stackmend.engine.state import HostEngine, Origin, Release
from stackmend.frozen import Frozen

DOCKER = "https://download.docker.com/linux"

#: Docker's own packages, of apt and of dnf.
DOCKER_PACKAGES = (
    "docker-ce",
    "docker-ce-cli",
    "containerd.io",
    "docker-buildx-plugin",
    "docker-compose-plugin",
)

#: Keyrings that distributions verify their own packages with.
_OWN_KEYRING = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}

#: Docker's directory for what is not named there itself.
_DNF_FAMILIES = {
    "fedora": "fedora",
    "rhel": "rhel",
    "centos": "centos",
    "rocky": "centos",
    "almalinux": "centos",
    "ol": "centos",
}

_SOURCES = "/etc/apt/sources.list.d/stackmend-docker.sources"

_HEAD = "# Written by stackmend: changes are lost.\n"


class Source(Frozen):
    """Where a host's engine comes from.

    :param engine: the package whose version is the engine's.
    :param alike: those that must have the same version.
    :param compose: the package that Compose is in.
    :param packages: all that are needed.
    :param extras: those that are taken where they are to be had.
    :param address: what is asked for packages; empty for what the host asks anyway.
    :param target: the suite that packages are taken from, where the host would not by itself.
    :param files: what says so to the package manager.
    :param used: the file of somebody else's that says so already.
    :param key: where the signing key is read from; empty where the host has it.
    :param keyring: where that key goes.
    :param expected: the fingerprints that it may have.
    """

    engine: str
    alike: tuple[str, ...] = ()
    compose: str
    packages: tuple[str, ...]
    extras: tuple[str, ...] = ()
    address: str = ""
    target: str = ""
    files: tuple[File, ...] = ()
    used: str = ""
    key: str = ""
    keyring: str = ""
    expected: tuple[str, ...] = ()


def source(wanted: Installation, state: HostEngine) -> Source | Refusal:
    """Where the engine of a host comes from, or why from nowhere."""
    match state.manager, wanted.channel:
        case "apt", "docker":
            return _apt_docker(wanted, state)
        case "apt", "distro":
            return _apt_distro(wanted, state)
        case "dnf", "docker":
            return _dnf_docker(wanted, state)
        case "apk", "distro":
            return _apk(wanted, state)
        case "dnf", _:
            return Refusal(
                subject="engine",
                reason=f"{_name(state)} has no engine that is tried with this",
                remedy='"channel": "docker" in the stack\'s "engine" section',
            )
        case "apk", _:
            return Refusal(
                subject="engine",
                reason=f"Docker has no repository for {_name(state)}",
                remedy='"channel": "distro" in the stack\'s "engine" section',
            )
    return Refusal(
        subject="engine",
        reason=f"{_name(state)} has none of apt-get, dnf and apk",
        remedy="install Docker Engine and Compose there by hand, and leave the section "
        '"engine" out of the stack',
    )


def apt_family(release: Release) -> str:
    """``debian`` or ``ubuntu``, where a release has the suites of one; else empty."""
    if release.id in ("debian", "ubuntu"):
        return release.id
    # What is like Ubuntu names the suite of Ubuntu that it is made from.
    return "ubuntu" if "ubuntu" in release.like and release.codename else ""


def _apt_docker(wanted: Installation, state: HostEngine) -> Source | Refusal:
    family = apt_family(state.release)
    address, suite, components = _parts(wanted.repository)
    address = address or (f"{DOCKER}/{family}" if family else "")
    suite = suite or (state.release.codename if family else "")
    if not address or not suite:
        return Refusal(
            subject="engine",
            reason=f"which of Docker's repositories {_name(state)} takes is not known",
            remedy=f'"repository": "{DOCKER}/debian SUITE stable" in the stack\'s "engine" '
            "section, with the suite that it is made from",
        )
    keyring = "/etc/apt/keyrings/stackmend-docker.asc"
    used = _used(state.origins, address)
    files: tuple[File, ...] = ()
    if not used:
        files += (_deb822(address, suite, components or "stable", keyring),)
    if wanted.version:
        files += (_held(("docker-ce", "docker-ce-cli"), wanted.version),)
    return Source(
        engine="docker-ce",
        alike=("docker-ce-cli",),
        compose="docker-compose-plugin",
        packages=DOCKER_PACKAGES,
        extras=_confinement(state),
        address=address,
        files=files,
        used=used,
        key="" if used else wanted.key or f"{address}/gpg",
        keyring="" if used else keyring,
        expected=() if used else (wanted.key_fingerprint or DOCKER_FINGERPRINTS["apt"],),
    )


def _apt_distro(wanted: Installation, state: HostEngine) -> Source | Refusal:
    family = apt_family(state.release)
    address, suite, components = _parts(wanted.repository)
    ours = any(origin.path == _SOURCES for origin in state.origins)
    if suite and suite == state.release.codename and not wanted.key and not ours:
        # The host's own suite: it has that already, and apt takes no second entry of it. What a
        # newer suite brings along may give the host that suite's name, so ours stays.
        address = suite = ""
    if address and not suite:
        return Refusal(
            subject="engine",
            reason=f"which suite of {address} is meant is not said",
            remedy=f'"repository": "{address} SUITE main" in the stack\'s "engine" section',
        )
    own = _OWN_KEYRING.get(family, "")
    if address and not wanted.key and not own:
        return Refusal(
            subject="engine",
            reason=f"which key signs {address} is not said",
            remedy='"key" and "key_fingerprint" in the stack\'s "engine" section',
        )
    if wanted.key and not wanted.key_fingerprint:
        return Refusal(
            subject="engine",
            reason=f"the fingerprint of {wanted.key} is not said",
            remedy='"key_fingerprint" in the stack\'s "engine" section, as gpg --show-keys has it',
        )
    keyring = "/etc/apt/keyrings/stackmend-docker.asc" if wanted.key else ""
    files: tuple[File, ...] = ()
    if address:
        files += (
            _deb822(address, suite, components or "main", keyring or own),
            _low(suite),
        )
    if wanted.version:
        files += (_held(("docker.io", "docker-cli"), wanted.version),)
    compose = "docker-compose-v2" if family == "ubuntu" else "docker-compose"
    return Source(
        engine="docker.io",
        compose=compose,
        packages=("docker.io", compose),
        extras=("docker-cli", "docker-buildx", "iptables", *_confinement(state)),
        address=address,
        target=suite,
        files=files,
        key=wanted.key,
        keyring=keyring,
        expected=(wanted.key_fingerprint,) if wanted.key else (),
    )


def _dnf_docker(wanted: Installation, state: HostEngine) -> Source | Refusal:
    family = _DNF_FAMILIES.get(state.release.id, "")
    address, *_ = _parts(wanted.repository)
    address = address or (f"{DOCKER}/{family}" if family else "")
    if not address:
        return Refusal(
            subject="engine",
            reason=f"which of Docker's repositories {_name(state)} takes is not known",
            remedy=f'"repository": "{DOCKER}/centos" in the stack\'s "engine" section, or the one '
            "that it is made from",
        )
    keyring = "/etc/pki/rpm-gpg/stackmend-docker.asc"
    used = _used(state.origins, address)
    text = (
        f"{_HEAD}[stackmend-docker]\nname=Docker\n"
        f"baseurl={address}/$releasever/$basearch/stable\n"
        f"enabled=1\ngpgcheck=1\ngpgkey=file://{keyring}\n"
    )
    return Source(
        engine="docker-ce",
        alike=("docker-ce-cli",),
        compose="docker-compose-plugin",
        packages=DOCKER_PACKAGES,
        address=address,
        files=() if used else (File(path="/etc/yum.repos.d/stackmend-docker.repo", text=text),),
        used=used,
        key="" if used else wanted.key or f"{address}/gpg",
        keyring="" if used else keyring,
        expected=() if used else (wanted.key_fingerprint or DOCKER_FINGERPRINTS["dnf"],),
    )


def _apk(wanted: Installation, state: HostEngine) -> Source | Refusal:
    if wanted.key:
        return Refusal(
            subject="engine",
            reason="apk knows no OpenPGP keys",
            remedy='put the repository\'s key into /etc/apk/keys there, and take "key" out of '
            'the stack\'s "engine" section',
        )
    address, *_ = _parts(wanted.repository)
    return Source(
        engine="docker",
        compose="docker-cli-compose",
        packages=("docker", "docker-cli-compose"),
        extras=("docker-cli-buildx",),
        address=address,
        target=address,
    )


def _confinement(state: HostEngine) -> tuple[str, ...]:
    """Under AppArmor no container starts without its tools, which a minimal image lacks."""
    return ("apparmor",) if state.apparmor else ()


def _parts(repository: str) -> tuple[str, str, str]:
    address, _, rest = repository.partition(" ")
    suite, _, components = rest.partition(" ")
    return address.rstrip("/"), suite, components


def _used(origins: tuple[Origin, ...], address: str) -> str:
    """The file of somebody else's that names an address already."""
    for origin in origins:
        if origin.path.rpartition("/")[2].startswith("stackmend-"):
            continue
        lines = (line.strip() for line in origin.text.splitlines())
        if any(address in line for line in lines if not line.startswith("#")):
            return origin.path
    return ""


def _deb822(address: str, suite: str, components: str, keyring: str) -> File:
    return File(
        path=_SOURCES,
        text=f"{_HEAD}Types: deb\nURIs: {address}\nSuites: {suite}\n"
        + ("" if suite.endswith("/") else f"Components: {components}\n")
        + f"Signed-By: {keyring}\n",
    )


def _low(suite: str) -> File:
    """What a suite has is taken only where it is asked for."""
    pins = "\n".join(
        f"Package: *\nPin: release {letter}={suite}\nPin-Priority: 100\n" for letter in "na"
    )
    return File(path="/etc/apt/preferences.d/stackmend-suite", text=_HEAD + pins)


def _held(packages: tuple[str, ...], version: str) -> File:
    """No upgrade of the host's takes the engine beyond the version that it is held at."""
    # With an epoch or without, and no 28.50 for 28.5.
    form = f"/^([0-9]+:)?{re.escape(version)}([.+~-]|$)/"
    pins = f"Package: {' '.join(packages)}\nPin: version {form}\nPin-Priority: 995\n"
    return File(path="/etc/apt/preferences.d/stackmend-engine", text=_HEAD + pins)


def _name(state: HostEngine) -> str:
    return state.release.name or state.release.id or state.system
