"""Whose a resolver is, and what would be written there, from what real hosts printed.

Those named ``documented_…`` were not recorded: see ``record_resolver.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stackmend.resolver.facts import Resolver
from stackmend.resolver.plan import find_owner
from tests.unit.resolver_world import FIRST, desired, make_plan

FIXTURES = Path(__file__).parent / "resolver.facts.Resolver"
OWNERS = {
    "bind_mount": (
        "bind mount",
        ["/etc/resolv.conf", "/etc/tmpfiles.d/60-stackmend-resolver.conf"],
    ),
    "dhclient": ("dhclient", ["/etc/resolv.conf", "/etc/dhcp/dhclient-enter-hooks.d/zz-stackmend"]),
    "networkd": ("systemd-resolved", ["/etc/systemd/network/10-lan.network.d/60-stackmend.conf"]),
    "networkmanager": ("NetworkManager", []),
    "openresolv": ("openresolv", ["/etc/resolvconf.conf"]),
    "plain_file": ("plain file", ["/etc/resolv.conf"]),
    "stub": ("systemd-resolved", ["/etc/systemd/resolved.conf.d/60-stackmend.conf"]),
    "stub_with_a_tunnel": (
        "systemd-resolved",
        ["/etc/systemd/resolved.conf.d/60-stackmend.conf"],
    ),
    "uplink": ("systemd-resolved", ["/etc/systemd/resolved.conf.d/60-stackmend.conf"]),
    "documented_dhcpcd": ("dhcpcd", ["/etc/dhcpcd.conf"]),
    "documented_netplan": (
        "systemd-resolved",
        ["/etc/systemd/network/10-netplan-lan0.network.d/60-stackmend.conf"],
    ),
    "documented_wsl2": ("WSL", ["/etc/wsl.conf", "/etc/resolv.conf"]),
}


def test_every_reading_is_judged() -> None:
    assert {path.stem for path in FIXTURES.glob("*.yaml")} == set(OWNERS)


@pytest.mark.parametrize("name", OWNERS)
def test_the_owner_of_a_real_host_is_found(name: str) -> None:
    fact = Resolver()
    fact.command()
    output = yaml.safe_load((FIXTURES / f"{name}.yaml").read_text())["output"]
    state = fact.process(output.split("\n"))
    owner, files = OWNERS[name]
    assert find_owner(state)[0] == owner
    plan = make_plan(state, desired(FIRST))
    assert not plan.refusals
    (action,) = plan.actions
    assert [file.path for file in action.files] == files
    assert [item.device for item in action.settings] == (
        ["lan0"] if owner == "NetworkManager" else []
    )
