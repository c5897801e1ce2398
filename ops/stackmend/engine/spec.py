"""What is desired of a host's container engine: validated before any host is contacted."""

import json
import re
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from stackmend.problems import abbreviate, show

Channel = Literal["docker", "distro"]
Vendor = Literal["auto", "none", "nvidia", "amd"]

#: The keys that Docker signs its repositories with: of apt's, and of dnf's.
DOCKER_FINGERPRINTS = {
    "apt": "9DC858229FC7DD38854AE2D88D81803C0EBFCD88",
    "dnf": "060A61C51B558A7F742B77AAC52FEB6B621E9F35",
}

#: The oldest Engine and the oldest Compose that everything here works with.
MINIMUM_ENGINE, MINIMUM_COMPOSE = "23", "2.20"

#: What may stand in ``replace``.
REPLACEABLE = ("docker-ce", "docker.io", "moby-engine", "podman-docker", "snap", "container:NAME")

#: What may stand in ``allow``.
ALLOWED = ("config", "restart", "repair:networks", "rule:-A CHAIN ...")

_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,2}")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}")
_REPOSITORY = re.compile(r"(?:https?|file)://[^\s\"'\\<>\[\]]+(?: [A-Za-z0-9][A-Za-z0-9./_-]*)*")
_KEY = re.compile(r"(?:https?|file)://[^\s\"'\\]+|[^\0\n:]+")
_CONTAINER = re.compile(r"container:[A-Za-z0-9][A-Za-z0-9_.-]*")
_RULE = re.compile(r"rule:-A [!-~]+( [ -~]+)?")
_SIZE = re.compile(r"[1-9][0-9]*[kmg]?")
_MIRROR = re.compile(r"https?://[^\s\"'\\/?#@]+(?:/[^\s\"'\\?#]*)?")
_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _check_version(value: str) -> str:
    if value and not _VERSION.fullmatch(value):
        raise ValueError(f"must be a version such as 28, 28.5 or 28.5.1; got {abbreviate(value)}")
    return value


def _check_fingerprint(value: str) -> str:
    """A key's fingerprint in the form that all are compared in.

    :raises ValueError: it is not 40 hexadecimal digits.
    """
    plain = value.replace(" ", "").replace(":", "").upper()
    if plain and not _FINGERPRINT.fullmatch(plain):
        raise ValueError(
            "must be a key's whole fingerprint, 40 hexadecimal digits, as "
            f"gpg --show-keys prints it; got {abbreviate(value)}"
        )
    return plain


def _check_repository(value: str) -> str:
    if value and not _REPOSITORY.fullmatch(value):
        raise ValueError(
            "must be an address such as https://mirror.example.com/linux/debian, with suite and "
            f"components behind it for the channel distro; got {abbreviate(value)}"
        )
    return value


def _check_key(value: str) -> str:
    if value and not _KEY.fullmatch(value):
        raise ValueError(
            "must be the address of a key (https://, http:// or file://, read on the host) or a "
            f"path on this machine; got {abbreviate(value)}"
        )
    return value


def _check_replace(value: str) -> str:
    if value not in REPLACEABLE[:-1] and not _CONTAINER.fullmatch(value):
        raise ValueError(f"must be one of {', '.join(REPLACEABLE)}; got {abbreviate(value)}")
    return value


def _check_allow(value: str) -> str:
    if value not in ALLOWED[:-1] and not _RULE.fullmatch(value):
        raise ValueError(f"must be one of {', '.join(ALLOWED)}; got {abbreviate(value)}")
    return value


def _check_address(value: str) -> str:
    address = ip_address(value)
    if address.is_loopback:
        raise ValueError(
            f"{show(value)} is the container itself, inside one; name a server that it can reach"
        )
    return str(address)


def _check_network(value: str) -> str:
    return str(ip_network(value))


def _check_mirror(value: str) -> str:
    if not _MIRROR.fullmatch(value):
        raise ValueError(
            f"must be an address such as https://mirror.example.com; got {abbreviate(value)}"
        )
    return value


def _check_size(value: Any) -> Any:
    text = str(value).lower() if not isinstance(value, bool) else value
    if not isinstance(text, str) or not _SIZE.fullmatch(text):
        raise ValueError(f"must be a size such as 10m, 512k or 1g; got {abbreviate(value)}")
    return text


def _check_runtimes(value: dict[str, Any]) -> dict[str, Any]:
    for name, runtime in value.items():
        if not _RUNTIME.fullmatch(name) or name == "runc":
            raise ValueError(f"{abbreviate(name)} cannot be the name of a runtime")
        if not isinstance(runtime, dict) or not {"path", "runtimeType"} & set(runtime):
            raise ValueError(f"{show(name)}: must hold a path or a runtimeType")
    return _copy_json(value)


def _check_settings(value: dict[str, Any]) -> dict[str, Any]:
    if named := set(value) & set(KEYS.values()):
        own = sorted(field for field, key in KEYS.items() if key in named)
        raise ValueError(f"{', '.join(sorted(named))} has a setting of its own: {', '.join(own)}")
    return _copy_json(value)


def _copy_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        copied: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"must be what JSON can hold: {error}") from None
    return copied


Version = Annotated[str, AfterValidator(_check_version)]
Fingerprint = Annotated[str, AfterValidator(_check_fingerprint)]
Repository = Annotated[str, AfterValidator(_check_repository)]
Key = Annotated[str, AfterValidator(_check_key)]
Allowed = tuple[Annotated[str, AfterValidator(_check_allow)], ...]

#: The key of daemon.json that each field of :class:`Settings` sets.
KEYS = {
    "dns": "dns",
    "mtu": "mtu",
    "address_pools": "default-address-pools",
    "registry_mirrors": "registry-mirrors",
    "live_restore": "live-restore",
    "runtimes": "runtimes",
}


class Log(BaseModel):
    """How the logs of containers are kept that say nothing of it themselves.

    :param driver: ``local`` and ``json-file`` turn them over by themselves.
    :param max_size: how large one file becomes, such as ``10m``; 1 to 9 and ``k``, ``m`` or ``g``.
    :param max_file: how many files are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    driver: Literal["local", "json-file", "journald", "syslog", "none"] = "json-file"
    max_size: Annotated[str, BeforeValidator(_check_size)] | None = None
    max_file: int | None = Field(default=None, ge=1, le=1000)


class AddressPool(BaseModel):
    """Addresses that networks of containers are cut from.

    :param base: the whole pool, such as ``10.200.0.0/16``.
    :param size: the length of the prefix of each network, such as 24.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Annotated[str, AfterValidator(_check_network)]
    size: int = Field(ge=1, le=128)


class Installation(BaseModel):
    """Which engine a host is to have, and where it comes from.

    :param channel: ``docker`` is Docker's own repository, ``distro`` the distribution's.
    :param version: the engine's, as far as it is to be held: ``28``, ``28.5`` or ``28.5.1``; empty
        takes the newest there is, and leaves one alone that is new enough.
    :param repository: for ``docker`` what stands in place of
        ``https://download.docker.com/linux/debian``; for ``distro`` one more suite that the engine
        is taken from, as ``ADDRESS SUITE COMPONENT…``, from which nothing else comes.
    :param key: the key that signs it: an address, or a path on the controller. Docker's lies
        beside its repository as ``gpg``.
    :param key_fingerprint: that key's, 40 hexadecimal digits; Docker's own by default.
    :param replace: consent to replace what would fight with the engine.
    :param upgrade: consent to change the version of an engine that is there.
    :param allow: consent to mend an engine: ``config`` to put the last daemon.json back that the
        engine ran with; ``restart`` to restart it, with its containers, where it hangs, or where
        only that makes its rules of the packet filter again; ``rule:-A CHAIN ...`` to remove this
        one rule, as ``iptables-save`` prints it, that drops traffic of containers;
        ``repair:networks`` to move a database of networks aside with which the engine does not
        start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: Channel = "docker"
    version: Version = ""
    repository: Repository = ""
    key: Key = ""
    key_fingerprint: Fingerprint = ""
    replace: tuple[Annotated[str, AfterValidator(_check_replace)], ...] = ()
    upgrade: bool = False
    allow: Allowed = ()


class FirstSettings(BaseModel):
    """What an engine that is new to a host starts with.

    :param settings: keys as daemon.json has them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Annotated[dict[str, Any], AfterValidator(_copy_json)]


class Settings(BaseModel):
    """What the engine's daemon.json is to hold; what is None is not touched.

    :param dns: servers that containers ask, as the containers reach them.
    :param mtu: bytes of the default bridge's frames.
    :param address_pools: what networks without addresses of their own get theirs from.
    :param log: how logs are kept and turned over.
    :param registry_mirrors: mirrors of Docker Hub, asked first.
    :param live_restore: whether containers go on while the engine is down.
    :param runtimes: name → what daemon.json holds of a runtime.
    :param settings: further keys, as daemon.json has them.
    :param replace: ``container:NAME`` for one that may be gone when the engine is restarted.
    :param allow: ``config`` to put the last daemon.json back that the engine ran with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dns: tuple[Annotated[str, AfterValidator(_check_address)], ...] | None = None
    mtu: int | None = Field(default=None, ge=576, le=65535)
    address_pools: tuple[AddressPool, ...] | None = None
    log: Log | None = None
    registry_mirrors: tuple[Annotated[str, AfterValidator(_check_mirror)], ...] | None = None
    live_restore: bool | None = None
    runtimes: Annotated[dict[str, Any], AfterValidator(_check_runtimes)] | None = None
    settings: Annotated[dict[str, Any], AfterValidator(_check_settings)] = Field(
        default_factory=dict
    )
    replace: tuple[Annotated[str, AfterValidator(_check_replace)], ...] = ()
    allow: Allowed = ()

    @property
    def daemon_json(self) -> dict[str, Any]:
        """The same as daemon.json has it, without what is not managed."""
        fields = self.model_dump(mode="json", include=set(KEYS))
        found = {KEYS[name]: value for name, value in fields.items() if value is not None}
        if self.log is not None:
            options = {
                "max-size": self.log.max_size,
                "max-file": str(self.log.max_file) if self.log.max_file else None,
            }
            found["log-driver"] = self.log.driver
            if filled := {name: value for name, value in options.items() if value}:
                found["log-opts"] = filled
        return {**found, **self.settings}


class EnginePolicy(Installation, Settings):
    """The section ``engine`` of a stack: the engine, its settings, and its accelerators.

    :param accelerator: which accelerator containers are to reach; ``auto`` is any that is found.
    :param toolkit_repository: what stands in place of
        ``https://nvidia.github.io/libnvidia-container/stable/deb`` (or ``…/rpm``).
    :param toolkit_key: the key that signs it: an address, or a path on the controller.
    :param toolkit_key_fingerprint: that key's, 40 hexadecimal digits; NVIDIA's own by default.

    Example, in ``group_data/all.py``::

        stack = {"engine": {"log": {"max_size": "10m", "max_file": 3}, "live_restore": True}}
    """

    accelerator: Vendor = "auto"
    toolkit_repository: Repository = ""
    toolkit_key: Key = ""
    toolkit_key_fingerprint: Fingerprint = ""
