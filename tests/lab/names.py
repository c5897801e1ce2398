"""A host whose resolver any of several may own, with two DNS servers of the lab's own.

The servers answer the same names with different addresses, so that an address says who was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import controller
from tests.lab.controller import Controller
from tests.lab.hosts import LabHost
from tests.lab.images import HERE
from tests.lab.ports_runs import HostRun

FIRST, SECOND = "192.0.2.53", "192.0.2.54"
PUBLIC, INTERNAL = "registry-1.docker.io", "git.lab.internal"
CHECKED = (PUBLIC, INTERNAL)

#: What each server says of both names.
SAYS = {FIRST: "192.0.2.11", SECOND: "192.0.2.12"}

ROOM = "/var/lib/stackmend/resolver"
#: What the lab's DNS servers answer.
DATA = "/var/lib/lab-dns"

_STOP = (
    "systemctl stop lab-dhclient NetworkManager systemd-networkd.socket systemd-networkd "
    "systemd-resolved nscd unbound 2>/dev/null; pkill -F /run/dnsmasq.pid; "
    "systemctl disable -q lab-dhclient NetworkManager systemd-networkd systemd-resolved nscd "
    "unbound 2>/dev/null; "
    "rm -rf /etc/systemd/network/* /run/systemd/network /etc/systemd/resolved.conf.d "
    "/etc/NetworkManager/system-connections/* /run/systemd/resolve /run/resolvconf "
    "/etc/resolvconf.conf /etc/dhcp/dhclient-enter-hooks.d/zz-stackmend /var/lib/stackmend "
    "/etc/systemd/system/stackmend-resolver.service /run/systemd/netif/links; "
    "systemctl stop 'stackmend-resolver-*' 2>/dev/null; "
    "rm -f /etc/tmpfiles.d/60-stackmend-resolver.conf /etc/unbound/unbound.conf.d/lab.conf "
    "/etc/unbound/unbound.conf.d/resolvconf_resolvers.conf; "
    "ln -sf /usr/bin/resolvectl /usr/sbin/resolvconf; ip link del tun0 2>/dev/null; "
    "ip address flush dev lan0; "
    "if [ ! -L /etc/resolv.conf ]; then chattr -i /etc/resolv.conf; fi; systemctl daemon-reload; "
)
_OWN = "umount /etc/resolv.conf 2>/dev/null; touch /lab/own-resolver; rm -f /etc/resolv.conf; "

#: How each owner comes to own the resolver, with the second server as its own, and lasts so.
OWNERS = {
    "stub": "ln -s /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; "
    "mkdir -p /etc/systemd/resolved.conf.d; "
    f"printf '[Resolve]\\nDNS={SECOND}\\n' > /etc/systemd/resolved.conf.d/10-site.conf; "
    "systemctl enable -q --now systemd-resolved",
    "uplink": "ln -s /run/systemd/resolve/resolv.conf /etc/resolv.conf; "
    "mkdir -p /etc/systemd/resolved.conf.d; "
    f"printf '[Resolve]\\nDNS={SECOND}\\n' > /etc/systemd/resolved.conf.d/10-site.conf; "
    "systemctl enable -q --now systemd-resolved",
    "networkd": "ln -s /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; "
    "printf '[Match]\\nName=lan0\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=no\\n' "
    "> /etc/systemd/network/10-lan.network; "
    "printf '[Match]\\nName=eth0 dns0\\n[Link]\\nUnmanaged=yes\\n' "
    "> /etc/systemd/network/05-lab.network; "
    "systemctl enable -q --now systemd-resolved systemd-networkd",
    "NetworkManager": "systemctl enable -q --now NetworkManager; nmcli -t device >/dev/null; "
    "nmcli connection add type ethernet ifname lan0 con-name lan ipv6.method ignore >/dev/null",
    "openresolv": "cd /opt/openresolv; cp -r lib/resolvconf /usr/lib; cp etc/resolvconf.conf /etc; "
    "cp --remove-destination sbin/resolvconf /usr/sbin/resolvconf; "
    f"printf 'nameserver {SECOND}\\nsearch lab.internal\\n' | resolvconf -a lan0.dhcp",
    "dhclient": "touch /etc/resolv.conf; systemctl enable -q --now lab-dhclient",
    "plain file": f"printf '# mine\\nsearch lab.internal\\nnameserver {SECOND}\\noptions timeout:3"
    "\\n' > /etc/resolv.conf",
    "bind mount": f"printf 'nameserver {SECOND}\\noptions timeout:3\\n' > /etc/resolv.conf",
}


def serve(host: LabHost, *servers: str, name: str, address: str) -> None:
    """Have DNS servers of the lab's own on a managed host, on addresses of its own.

    + name: what each of them resolves
    + address: to what
    """
    host.put("/opt/lab-dns.py", (HERE / "names/lab-dns.py").read_bytes())
    host.sh(
        f"ip link add dns0 type bridge; ip link set dns0 up; mkdir -p /run/lab-dns {DATA}; "
        f"for server in {' '.join(servers)}; do ip address add $server/32 dev dns0; "
        f"echo '{name} {address}' >{DATA}/$server; done; "
        f"setsid python3 /opt/lab-dns.py {' '.join(servers)} >/dev/null 2>&1 </dev/null & sleep 1"
    )


def stop_serving(host: LabHost) -> None:
    """Take them away again, and all that they left."""
    # Not the shell that has this as an argument.
    host.sh(f"pkill -f '[l]ab-dns.py'; rm -r {DATA} /run/lab-dns; ip link del dns0", check=False)


class Names:
    """Runs of the resolver's operations against one host, and what the host resolves."""

    def __init__(self, host: LabHost, directory: Path) -> None:
        self.host, self.directory = host, directory

    def serve(self, server: str, *lines: str) -> None:
        """Have a server say what it always says, or what these lines do."""
        own = [f"{name} {SAYS[server]}" for name in CHECKED]
        self.host.put(f"/var/lib/lab-dns/{server}", "".join(f"{line}\n" for line in lines or own))

    def own(self, owner: str) -> None:
        """Make the host as it was, with another owner of its resolver; it resolves by it."""
        for server in SAYS:
            self.serve(server)
        mounted = "" if owner == "bind mount" else _OWN
        if owner == "bind mount" and self.host.exists("/lab/own-resolver"):
            self.host.sh(f"{_STOP}rm -f /lab/own-resolver", timeout=90)
            self.host.power_cut()
        self.host.sh(f"{_STOP}{mounted}{OWNERS[owner]}", timeout=90)
        self.wait_for(SECOND)

    def wait_for(self, server: str) -> None:
        """Wait until the host resolves by a server."""
        self.host.wait_for(f"getent ahostsv4 {INTERNAL} | grep -q '^{SAYS[server]} '", 30)

    def resolve(self, name: str = INTERNAL) -> str:
        """The address that the host resolves a name to, empty where it resolves none."""
        found = self.host.sh(f"timeout 20 getent ahostsv4 {name}", check=False).split()
        return found[0] if found else ""

    def start(self, *words: str, **policy: Any) -> Controller:
        """The operations, under way."""
        data = {"resolver": {"check_names": CHECKED, "flush": "never", **policy}}
        inventory = controller.write_inventory(self.directory, [self.host], data=data)
        return controller.start(
            inventory,
            "tests/lab/set_resolver.py",
            *(words or ("-y",)),
            env={"STACKMEND_REPORTS": str(self.directory / "reports")},
        )

    def set(self, *servers: str, **policy: Any) -> HostRun:
        """``resolver.servers`` to its end."""
        return self._finish(servers=servers, **policy)

    def flush(self, **policy: Any) -> HostRun:
        """``resolver.cache_flushed`` to its end."""
        return self._finish(**{"flush": "symptom", **policy})

    def _finish(self, **policy: Any) -> HostRun:
        with self.start(**policy) as running:
            done = running.wait(120)
        assert "Traceback" not in done.out, done.out
        return HostRun(done, done.report["hosts"][self.host.name])

    def observe(self) -> Sequence[str]:
        """What of the resolver lies on the host: links, modes, attributes and content."""
        return self.host.sh(
            "stat -c '%N %A %U' /etc/resolv.conf; cat /etc/resolv.conf; "
            "lsattr -d /etc/resolv.conf 2>/dev/null | cut -d ' ' -f 1; "
            "find /etc/systemd/network /etc/systemd/resolved.conf.d /etc/dhcp "
            "/etc/NetworkManager/system-connections /etc/systemd/system -type f -newer "
            "/lab/baseline/done 2>/dev/null | sort | xargs -r sha256sum; "
            "sha256sum /etc/resolvconf.conf 2>/dev/null",
            check=False,
        ).splitlines()
