"""How a host resolves names: models only, filled by the probes, read by the plan."""

from collections.abc import Mapping
from typing import Literal

from stackmend.frozen import Frozen

#: What a cache is called.
CacheName = Literal["systemd-resolved", "dnsmasq", "unbound", "nscd", "macos", "windows"]


class Connection(Frozen):
    """An active connection of NetworkManager.

    :param uuid: its own name.
    :param kind: such as ``802-3-ethernet``, ``vpn`` or ``wireguard``.
    :param device: the link.
    :param path: the file that holds it; empty where it is held in memory alone.
    :param settings: the settings that say which servers it has, as ``nmcli`` prints them.
    """

    uuid: str
    kind: str
    device: str
    path: str
    settings: Mapping[str, str] = {}


class Link(Frozen):
    """One link, as far as names are concerned.

    :param servers: those that systemd-resolved or systemd-networkd has for it.
    :param domains: those that systemd-resolved has; one that begins with ``~`` routes alone.
    :param network: the ``.network`` file by which systemd-networkd manages it; empty where it does
        not.
    :param lasting: the servers that files of systemd-networkd, or a lease of its, name for it;
        without the link of an address.
    :param tunnel: whether it is a tunnel: tun, tap, WireGuard, or named as one.
    :param default: whether a default route leads over it.
    """

    name: str
    servers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    network: str = ""
    lasting: tuple[str, ...] = ()
    tunnel: bool = False
    default: bool = False


class ResolvConf(Frozen):
    """``/etc/resolv.conf`` itself.

    :param target: where it leads, where it is a symbolic link.
    :param mounted: whether it is a mount of its own, as in a container.
    :param attributes: the letters that ``lsattr`` prints, through the link.
    :param kind: what it is: ``file``, which may be missing; ``directory``; ``special`` for a FIFO
        or a device; ``astray`` for a link that leads to itself or into no directory.
    :param closed: what root itself may not write where the file is to be written.
    :param text: what is in it, through the link.
    """

    target: str = ""
    mounted: bool = False
    attributes: str = ""
    kind: Literal["file", "directory", "special", "astray"] = "file"
    closed: str = ""
    text: str = ""

    @property
    def locked(self) -> str:
        """The attributes by which not even root may change it as it is."""
        return "".join(letter for letter in "ia" if letter in self.attributes)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that it names."""
        return tuple(word for line in self._list("nameserver") for word in line[1:2])

    @property
    def search(self) -> tuple[str, ...]:
        """The domains that it has searched; the last line counts."""
        lines = self._list("search", "domain")
        return tuple(lines[-1][1:]) if lines else ()

    def _list(self, *keywords: str) -> list[list[str]]:
        lines = [line.split() for line in self.text.splitlines()]
        return [words for words in lines if words and words[0] in keywords]


class HostResolver(Frozen):
    """What a host resolves names by.

    :param root: whether the probe could read everything.
    :param file: ``/etc/resolv.conf``.
    :param mode: systemd-resolved's ``ResolvConfMode``; empty where it does not run.
    :param running: which of resolved, networkd, NetworkManager, dhclient and dhcpcd run.
    :param startup: what ``systemctl is-enabled`` says of systemd-resolved; empty without systemd.
    :param dns: what NetworkManager does with servers (its ``Mode``); empty where it does not run.
    :param resolvconf: ``openresolv`` or ``resolvconf`` where the host has one; empty where not.
    :param wsl: whether the host is WSL2.
    :param tools: the programs that were found.
    :param servers: systemd-resolved's own, beside those of links.
    :param domains: the same, of domains.
    :param links: the links.
    :param connections: NetworkManager's active connections.
    :param records: interface → servers, as openresolv holds them.
    :param searches: the same, of domains that are searched.
    :param routes: server of ``/etc/resolv.conf`` → the link over which it is reached.
    :param files: the files that stackmend may write, as far as they are there.
    :param armed: the mark of an unconfirmed change, which the host is about to revert.
    :param resolved: those of the names asked for that its own resolver has an address for; None
        where the host has nothing to ask it with.
    """

    root: bool = True
    file: ResolvConf = ResolvConf()
    mode: str = ""
    running: tuple[str, ...] = ()
    startup: str = ""
    dns: str = ""
    resolvconf: str = ""
    wsl: bool = False
    tools: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    connections: tuple[Connection, ...] = ()
    records: Mapping[str, tuple[str, ...]] = {}
    searches: Mapping[str, tuple[str, ...]] = {}
    routes: Mapping[str, str] = {}
    files: Mapping[str, str] = {}
    armed: str = ""
    resolved: tuple[str, ...] | None = None


class Reply(Frozen):
    """What a server answers for one name.

    :param code: DNS's own, 0 for no error and 3 for a name that does not exist; -1 for an answer
        that is no DNS, -2 for one that is cut short over UDP and does not come over TCP.
    :param addresses: of the name.
    :param late: whether it came only when the server was asked again, after a second.
    """

    code: int
    addresses: tuple[str, ...] = ()
    late: bool = False


class Answers(Frozen):
    """What servers answer, asked from the host.

    :param replies: server → name → its reply; a name that got none is missing.
    """

    replies: Mapping[str, Mapping[str, Reply]] = {}


class Cache(Frozen):
    """A DNS cache that runs on the host.

    :param name: what it is.
    :param size: entries that it holds; None where it does not say.
    :param upstream: the servers that it asks, as far as its settings name them.
    :param names: those that are compared.
    :param cached: name → its reply.
    :param raw: name → the replies of the servers behind it.
    """

    name: CacheName
    size: int | None = None
    upstream: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    cached: Mapping[str, Reply] = {}
    raw: Mapping[str, tuple[Reply, ...]] = {}


class HostCaches(Frozen):
    """The DNS caches of a host.

    :param root: whether the probe could read everything.
    :param caches: those that run.
    """

    root: bool = True
    caches: tuple[Cache, ...] = ()
