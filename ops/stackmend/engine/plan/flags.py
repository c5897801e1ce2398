"""What a dockerd is set to by the flags that its service starts it with."""

from collections.abc import Mapping, Sequence
from typing import Any

#: Flags whose key in daemon.json has another name.
_KEYS = {
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cluster-store-opt": "cluster-store-opts",
    "default-address-pool": "default-address-pools",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "graph": "data-root",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
_SHORT = {
    "-b": "bridge",
    "-D": "debug",
    "-g": "data-root",
    "-G": "group",
    "-H": "hosts",
    "-l": "log-level",
    "-p": "pidfile",
    "-s": "storage-driver",
}
#: Flags that no value follows.
_SWITCHES = frozenset(
    "debug experimental icc init ip-forward ip-forward-no-drop ip-masq iptables ip6tables ipv6 "
    "live-restore no-new-privileges raw-logs rootless selinux-enabled tls tlsverify "
    "userland-proxy validate bridge-accept-fwmark".split()
)

#: Keys that dockerd takes from both.
_BOTH = frozenset({"runtimes"})


def parse_flags(flags: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What the flags set: key of daemon.json → the values, as they are written."""
    found: dict[str, list[str]] = {}
    words = list(flags)
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            key = _KEYS.get(name, name)
        elif word[:2] in _SHORT:
            key, value = _SHORT[word[:2]], word[2:].removeprefix("=")
            name, equals = key, value
        else:
            continue
        if not equals:
            value = "true"
            if name not in _SWITCHES and words and not words[0].startswith("-"):
                value = words.pop(0)
        found.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in found.items()}


def find_conflicts(
    flags: Mapping[str, Sequence[str]], config: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Keys that both have: with those dockerd does not start."""
    return {
        key: tuple(values) for key, values in flags.items() if key in config and key not in _BOTH
    }


def has_value(values: Sequence[str], value: Any) -> bool:
    """Whether flags set a key to a value already."""
    if isinstance(value, bool):
        return values[-1].lower() in (("true", "1", "t") if value else ("false", "0", "f"))
    if isinstance(value, list):
        split = [part for item in values for part in item.split(",")]
        return split == value or list(values) == value
    if isinstance(value, Mapping):
        return dict(item.partition("=")[::2] for item in values) == dict(value)
    return values[-1] == str(value)
