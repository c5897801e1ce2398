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
    :param extras: those that are installed as well where a repository has them.
    :param address: what is asked for packages; empty for what the host asks anyway.
    :param target: the suite that packages are taken from, where the host would not by itself.
    :param files: what says so to the package manager.
    :param foreign: the file of somebody else's that says so already.
    :param key: where the signing key is read from; empty where the host has it.
    :param keyring: where that key goes.
    :param fingerprints: those that it may have.
    """

    engine: str
    alike: tuple[str, ...] = ()
    compose: str
    packages: tuple[str, ...]
    extras: tuple[str, ...] = ()
    address: str = ""
    target: str = ""
    files: tuple[File, ...] = ()
    foreign: str = ""
    key: str = ""
    keyring: str = ""
    fingerprints: tuple[str, ...] = ()


def find_source(spec: Installation, state: HostEngine) -> Source | Refusal:
    """Where the engine of a host comes from, or why from nowhere."""
    match state.manager, spec.channel:
        case "apt", "docker":
            return _find_apt_docker(spec, state)
        case "apt", "distro":
            return _find_apt_distro(spec, state)
        case "dnf", "docker":
            return _find_dnf_docker(spec, state)
        case "apk", "distro":
            return _find_apk(spec, state)
        case "dnf", _:
            return Refusal(
                subject="engine",
                reason=f"{_name_host(state)} has no engine that stackmend is tested with",
                remedy='set "channel": "docker" in the stack\'s "engine" section',
            )
        case "apk", _:
            return Refusal(
                subject="engine",
                reason=f"Docker has no repository for {_name_host(state)}",
                remedy='set "channel": "distro" in the stack\'s "engine" section',
            )
    return Refusal(
        subject="engine",
        reason=f"{_name_host(state)} has none of apt-get, dnf and apk",
        remedy="install Docker Engine and Compose there by hand, and leave the section "
        '"engine" out of the stack',
    )


def find_apt_family(release: Release) -> str:
    """``debian`` or ``ubuntu``, where a release has the suites of one; else empty."""
    if release.id in ("debian", "ubuntu"):
        return release.id
    # What is like Ubuntu names the suite of Ubuntu that it derives from.
    return "ubuntu" if "ubuntu" in release.like and release.codename else ""


def _find_apt_docker(spec: Installation, state: HostEngine) -> Source | Refusal:
    family = find_apt_family(state.release)
    address, suite, components = _split_repository(spec.repository)
    address = address or (f"{DOCKER}/{family}" if family else "")
    suite = suite or (state.release.codename if family else "")
    if not address or not suite:
        return Refusal(
            subject="engine",
            reason="stackmend does not know which of Docker's repositories "
            f"{_name_host(state)} takes",
            remedy=f'set "repository": "{DOCKER}/debian SUITE stable" in the stack\'s "engine" '
            "section, with the suite it derives from",
        )
    keyring = "/etc/apt/keyrings/stackmend-docker.asc"
    foreign = _find_foreign(state.origins, address)
    files: tuple[File, ...] = ()
    if not foreign:
        files += (_format_deb822(address, suite, components or "stable", keyring),)
    if spec.version:
        files += (_pin_version(("docker-ce", "docker-ce-cli"), spec.version),)
    return Source(
        engine="docker-ce",
        alike=("docker-ce-cli",),
        compose="docker-compose-plugin",
        packages=DOCKER_PACKAGES,
        extras=_list_confinement(state),
        address=address,
        files=files,
        foreign=foreign,
        key="" if foreign else spec.key or f"{address}/gpg",
        keyring="" if foreign else keyring,
        fingerprints=() if foreign else (spec.key_fingerprint or DOCKER_FINGERPRINTS["apt"],),
    )


def _find_apt_distro(spec: Installation, state: HostEngine) -> Source | Refusal:
    family = find_apt_family(state.release)
    address, suite, components = _split_repository(spec.repository)
    ours = any(origin.path == _SOURCES for origin in state.origins)
    if suite and suite == state.release.codename and not spec.key and not ours:
        # The host's own suite: it has that already, and apt takes no second entry of it. What a
        # newer suite brings along may give the host that suite's name, so ours stays.
        address = suite = ""
    if address and not suite:
        return Refusal(
            subject="engine",
            reason=f"the spec names no suite of {address}",
            remedy=f'set "repository": "{address} SUITE main" in the stack\'s "engine" section',
        )
    own = _OWN_KEYRING.get(family, "")
    if address and not spec.key and not own:
        return Refusal(
            subject="engine",
            reason=f"the spec names no key that signs {address}",
            remedy='set "key" and "key_fingerprint" in the stack\'s "engine" section',
        )
    if spec.key and not spec.key_fingerprint:
        return Refusal(
            subject="engine",
            reason=f"the spec has no fingerprint of {spec.key}",
            remedy='set "key_fingerprint" in the stack\'s "engine" section, as gpg --show-keys '
            "prints it",
        )
    keyring = "/etc/apt/keyrings/stackmend-docker.asc" if spec.key else ""
    files: tuple[File, ...] = ()
    if address:
        files += (
            _format_deb822(address, suite, components or "main", keyring or own),
            _pin_suite(suite),
        )
    if spec.version:
        files += (_pin_version(("docker.io", "docker-cli"), spec.version),)
    compose = "docker-compose-v2" if family == "ubuntu" else "docker-compose"
    return Source(
        engine="docker.io",
        compose=compose,
        packages=("docker.io", compose),
        extras=("docker-cli", "docker-buildx", "iptables", *_list_confinement(state)),
        address=address,
        target=suite,
        files=files,
        key=spec.key,
        keyring=keyring,
        fingerprints=(spec.key_fingerprint,) if spec.key else (),
    )


def _find_dnf_docker(spec: Installation, state: HostEngine) -> Source | Refusal:
    family = _DNF_FAMILIES.get(state.release.id, "")
    address, *_ = _split_repository(spec.repository)
    address = address or (f"{DOCKER}/{family}" if family else "")
    if not address:
        return Refusal(
            subject="engine",
            reason="stackmend does not know which of Docker's repositories "
            f"{_name_host(state)} takes",
            remedy=f'set "repository": "{DOCKER}/centos" in the stack\'s "engine" section, or that '
            "of the distribution it derives from",
        )
    keyring = "/etc/pki/rpm-gpg/stackmend-docker.asc"
    foreign = _find_foreign(state.origins, address)
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
        files=() if foreign else (File(path="/etc/yum.repos.d/stackmend-docker.repo", text=text),),
        foreign=foreign,
        key="" if foreign else spec.key or f"{address}/gpg",
        keyring="" if foreign else keyring,
        fingerprints=() if foreign else (spec.key_fingerprint or DOCKER_FINGERPRINTS["dnf"],),
    )


def _find_apk(spec: Installation, state: HostEngine) -> Source | Refusal:
    if spec.key:
        return Refusal(
            subject="engine",
            reason="apk knows no OpenPGP keys",
            remedy='put the repository\'s key into /etc/apk/keys there, and take "key" out of '
            'the stack\'s "engine" section',
        )
    address, *_ = _split_repository(spec.repository)
    return Source(
        engine="docker",
        compose="docker-cli-compose",
        packages=("docker", "docker-cli-compose"),
        extras=("docker-cli-buildx",),
        address=address,
        target=address,
    )


def _list_confinement(state: HostEngine) -> tuple[str, ...]:
    """Under AppArmor no container starts without its tools, which a minimal image lacks."""
    return ("apparmor",) if state.apparmor else ()


def _split_repository(repository: str) -> tuple[str, str, str]:
    address, _, rest = repository.partition(" ")
    suite, _, components = rest.partition(" ")
    return address.rstrip("/"), suite, components


def _find_foreign(origins: tuple[Origin, ...], address: str) -> str:
    """The file of somebody else's that names an address already."""
    for origin in origins:
        if origin.path.rpartition("/")[2].startswith("stackmend-"):
            continue
        lines = (line.strip() for line in origin.text.splitlines())
        if any(address in line for line in lines if not line.startswith("#")):
            return origin.path
    return ""


def _format_deb822(address: str, suite: str, components: str, keyring: str) -> File:
    return File(
        path=_SOURCES,
        text=f"{_HEAD}Types: deb\nURIs: {address}\nSuites: {suite}\n"
        + ("" if suite.endswith("/") else f"Components: {components}\n")
        + f"Signed-By: {keyring}\n",
    )


def _pin_suite(suite: str) -> File:
    """What a suite has is installed only where a run asks for it."""
    pins = "\n".join(
        f"Package: *\nPin: release {letter}={suite}\nPin-Priority: 100\n" for letter in "na"
    )
    return File(path="/etc/apt/preferences.d/stackmend-suite", text=_HEAD + pins)


def _pin_version(packages: tuple[str, ...], version: str) -> File:
    """No upgrade of the host takes the engine beyond the version that it is held at."""
    # With an epoch or without, and no 28.50 for 28.5.
    form = f"/^([0-9]+:)?{re.escape(version)}([.+~-]|$)/"
    pins = f"Package: {' '.join(packages)}\nPin: version {form}\nPin-Priority: 995\n"
    return File(path="/etc/apt/preferences.d/stackmend-engine", text=_HEAD + pins)


def _name_host(state: HostEngine) -> str:
    return state.release.name or state.release.id or state.system
