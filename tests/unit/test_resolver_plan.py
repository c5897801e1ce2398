"""What is decided about a host's DNS servers and caches, as text and as properties.

Each scenario's plan lies as plain text below ``golden/resolver_plan``. ``UPDATE_GOLDEN=1 pytest``
writes them anew; what then changes is to be read as the change of behaviour that it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.decision import Plan
from stackmend.resolver.plan import SetServers, plan_caches, plan_servers
from stackmend.resolver.plan.owners import find_owner, plan_owner
from stackmend.resolver.spec import CachesSpec
from stackmend.resolver.state import Answers, Cache, HostCaches, HostResolver, Link, Reply
from tests.unit import resolver_world as world
from tests.unit.rendering import render
from tests.unit.resolver_world import FIRST, GOOD, INTERNAL, NONE, OLD, PUBLIC, SECOND

GOLDEN = Path(__file__).parent / "golden" / "resolver_plan"
TUNNEL = Link(name="tun0", servers=("198.18.0.1",), domains=("corp.example",), tunnel=True)
LAN = Link(name="eth0", servers=(OLD,), network="/run/systemd/network/10-netplan-eth0.network")

SCENARIOS: dict[str, Callable[[], Plan[Any]]] = {
    # Owners.
    "plain_file": lambda: world.make_plan(
        world.plain(file=world.resolv_conf(f"# mine\nsearch a.example\nnameserver {OLD}\n"))
    ),
    "plain_file_with_search": lambda: world.make_plan(
        world.plain(file=world.resolv_conf(f"domain x\nnameserver {OLD}\noptions rotate\n")),
        world.desired(FIRST, search=["a.example"]),
    ),
    "plain_file_that_something_makes_anew": lambda: world.make_plan(
        world.plain(file=world.resolv_conf(target="../run/connman/resolv.conf"))
    ),
    "bind_mount": lambda: world.make_plan(
        world.plain(
            file=world.resolv_conf("nameserver 127.0.0.11\noptions ndots:0\n", mounted=True),
            tools=("systemd-tmpfiles",),
        ),
        world.desired("fe80::1%eth0"),
    ),
    "bind_mount_without_systemd": lambda: world.make_plan(
        world.plain(file=world.resolv_conf(mounted=True))
    ),
    "resolved": lambda: world.make_plan(world.stub()),
    "resolved_with_search": lambda: world.make_plan(
        world.stub(servers=()), world.desired(search=["a.example"])
    ),
    "resolved_that_is_down": lambda: world.make_plan(world.stub(mode="", servers=(), links=())),
    "networkd": lambda: world.make_plan(world.networkd()),
    "networkd_and_resolved_both_have_servers": lambda: world.make_plan(
        world.networkd(servers=(OLD,))
    ),
    "networkd_at_run_time_alone": lambda: world.make_plan(
        world.networkd(
            Link(
                name="eth0",
                servers=(FIRST, SECOND),
                network="/etc/systemd/network/10-lan.network",
                lasting=(OLD,),
                default=True,
            )
        )
    ),
    "networkd_whose_file_names_a_server_of_a_link": lambda: world.make_plan(
        world.networkd(
            Link(
                name="eth0",
                servers=("fe80::1%eth0",),
                network="/etc/systemd/network/10-lan.network",
                lasting=("fe80::1",),
                default=True,
            )
        ),
        world.desired("fe80::1%eth0"),
    ),
    "netplan": lambda: world.make_plan(world.networkd(LAN)),
    "network_manager": lambda: world.make_plan(world.manager()),
    "network_manager_with_servers_of_two_families": lambda: world.make_plan(
        world.manager(), world.desired(FIRST, "2001:db8::53", search=["a.example"])
    ),
    "network_manager_whose_file_is_another_s": lambda: world.make_plan(
        world.manager(
            world.connection(
                settings={
                    "ipv4.dns": f"{FIRST},{SECOND}",
                    "ipv4.ignore-auto-dns": "yes",
                    "ipv6.dns": "",
                    "ipv6.ignore-auto-dns": "yes",
                }
            )
        )
    ),
    "network_manager_behind_resolved": lambda: world.make_plan(
        world.stub(
            servers=(),
            links=(Link(name="eth0", servers=(OLD,), default=True),),
            connections=(world.connection(),),
        )
    ),
    "network_manager_behind_resolved_with_servers_of_two_families": lambda: world.make_plan(
        world.stub(
            servers=(),
            links=(Link(name="eth0", servers=("2001:db8::53", FIRST), default=True),),
            connections=(
                world.connection(settings={"ipv4.dns": FIRST, "ipv6.dns": "2001:db8::53"}),
            ),
        ),
        world.desired(FIRST, "2001:db8::53"),
    ),
    "network_manager_at_run_time_alone": lambda: managed({"ipv4.dns": OLD}),
    "network_manager_at_run_time_alone_with_a_lease": lambda: managed({"dns": OLD}),
    "network_manager_at_run_time_alone_that_names_one_of_two": lambda: managed({"ipv4.dns": FIRST}),
    "network_manager_whose_lease_names_them": lambda: managed({"dns": f"{SECOND},{FIRST}"}),
    "network_manager_whose_profile_and_lease_name_one_each": lambda: managed(
        {"ipv4.dns": FIRST, "dns": f"{FIRST},{SECOND}"}
    ),
    "network_manager_whose_ipv6_takes_none": lambda: managed(
        {
            "ipv4.dns": f"{FIRST},{SECOND}",
            "ipv6.method": "ignore",
            "ipv6.dns": "2001:db8::1",
        }
    ),
    "network_manager_by_netplan": lambda: world.make_plan(
        world.manager(
            world.connection(
                path="/run/NetworkManager/system-connections/netplan-eth0.nmconnection"
            )
        )
    ),
    "network_manager_without_ipv6": lambda: world.make_plan(
        world.manager(world.connection(settings={"ipv6.method": "disabled"})),
        world.desired("2001:db8::53"),
    ),
    "network_manager_without_a_connection": lambda: world.make_plan(
        world.manager(world.connection(kind="wireguard"))
    ),
    "openresolv": lambda: world.make_plan(world.openresolv()),
    "resolvconf": lambda: world.make_plan(
        world.openresolv(
            resolvconf="resolvconf",
            file=world.resolv_conf(target="/run/resolvconf/resolv.conf"),
            files={},
        )
    ),
    "openresolv_with_search": lambda: world.make_plan(
        world.openresolv(), world.desired(search=["a.example"])
    ),
    "openresolv_that_keeps_a_server_of_before": lambda: world.make_plan(
        world.openresolv(
            file=world.resolv_conf(
                f"# Generated by resolvconf\nnameserver {FIRST}\nnameserver {OLD}\n"
            )
        ),
        world.desired(FIRST),
    ),
    "resolvconf_that_keeps_a_server_of_before": lambda: world.make_plan(
        world.openresolv(
            resolvconf="resolvconf",
            file=world.resolv_conf(
                f"nameserver {FIRST}\nnameserver {OLD}\n", target="/run/resolvconf/resolv.conf"
            ),
            files={
                "/etc/resolvconf/resolv.conf.d/head": "# stackmend: resolver.servers\n"
                f"nameserver {FIRST}\n# stackmend: end\n"
            },
            resolved=(PUBLIC, INTERNAL),
        ),
        world.desired(FIRST),
    ),
    "dhclient": lambda: world.make_plan(
        world.plain(running=("dhclient",), tools=("dhclient-hooks",)),
        world.desired(search=["a.example"]),
    ),
    "dhclient_would_write_it_again": lambda: world.make_plan(
        world.plain(
            file=world.resolv_conf(f"nameserver {FIRST}\nnameserver {SECOND}\n"),
            running=("dhclient",),
            tools=("dhclient-hooks",),
        )
    ),
    "dhclient_without_hooks": lambda: world.make_plan(world.plain(running=("dhclient",))),
    # Read of no such host: from the manuals of dhcpcd 9.4 and 10, and of WSL 2.
    "dhcpcd": lambda: world.make_plan(
        world.plain(
            file=world.resolv_conf(f"# Generated by dhcpcd from eth0.dhcp\nnameserver {OLD}\n"),
            running=("dhcpcd",),
            files={"/etc/dhcpcd.conf": "hostname\ninterface eth0\nmetric 10\n"},
        )
    ),
    "wsl": lambda: world.make_plan(
        world.plain(
            file=world.resolv_conf(
                "# This file was automatically generated by WSL. To stop automatic generation…\n"
                "nameserver 172.25.80.1\n",
                target="/mnt/wsl/resolv.conf",
            ),
            wsl=True,
            files={"/etc/wsl.conf": "[boot]\nsystemd=true\n[network]\nhostname=box\n"},
        )
    ),
    # What is left alone, or refused.
    "as_desired": lambda: world.make_plan(world.plain(), world.desired(OLD)),
    "immutable": lambda: world.make_plan(world.plain(file=world.resolv_conf(attributes="----i--"))),
    "immutable_forced": lambda: world.make_plan(
        world.plain(file=world.resolv_conf(attributes="----i--")),
        world.desired(on_conflict="force"),
    ),
    "a_tunnel_with_its_own_domain": lambda: world.make_plan(world.stub(links=(TUNNEL,))),
    "a_link_with_a_routing_domain": lambda: world.make_plan(
        world.networkd(
            LAN,
            Link(name="lab0", servers=("198.18.0.1",), domains=("~lab.example",), network="/x"),
        )
    ),
    "a_link_that_takes_all_names": lambda: world.make_plan(
        world.stub(links=(TUNNEL.model_copy(update={"domains": ("~.",)}),))
    ),
    "a_link_that_takes_all_names_forced": lambda: world.make_plan(
        world.stub(links=(TUNNEL.model_copy(update={"domains": ("~.",)}),)),
        world.desired(on_conflict="force"),
    ),
    "a_link_set_at_run_time": lambda: world.make_plan(
        world.stub(links=(Link(name="eth0", servers=(OLD,), default=True),))
    ),
    "a_link_set_at_run_time_as_desired": lambda: unmanaged(),
    "a_link_set_at_run_time_as_systemd_resolved_is": lambda: unmanaged(servers=(FIRST, SECOND)),
    "a_vpn_in_one_list": lambda: world.make_plan(
        world.openresolv(
            records={"eth0.dhcp": (OLD,), "tun0.openvpn": ("198.18.0.1",)}, links=(TUNNEL,)
        )
    ),
    "a_vpn_that_came_after_openresolv_was_told": lambda: world.make_plan(
        openresolv_with_a_vpn(), world.desired(FIRST, search=["a.example"])
    ),
    "a_vpn_that_came_after_openresolv_was_told_and_force": lambda: world.make_plan(
        openresolv_with_a_vpn(),
        world.desired(FIRST, search=["a.example"], on_conflict="force"),
    ),
    "openresolv_whose_lease_names_others": lambda: world.make_plan(
        openresolv_with_a_vpn(records={"eth0.dhcp": (SECOND, "$(id)", "a*")}, searches={}),
        world.desired(FIRST, search=["a.example"]),
    ),
    "openresolv_with_a_pattern_of_an_earlier_run": lambda: world.make_plan(
        world.openresolv(
            file=world.resolv_conf(f"# Generated by resolvconf\nnameserver {FIRST}\n"),
            files={
                "/etc/resolvconf.conf": "# stackmend: resolver.servers\n"
                f'name_servers="{FIRST}"\nreplace="${{replace:+$replace }}nameserver/*/"\n'
                "# stackmend: end\n"
            },
        ),
        world.desired(FIRST),
    ),
    "a_server_behind_a_vpn": lambda: world.make_plan(
        world.plain(routes={OLD: "wg0"}, links=(Link(name="wg0", tunnel=True),))
    ),
    "a_vpn_of_network_manager": lambda: world.make_plan(
        world.manager(
            world.connection(),
            world.connection(kind="vpn", device="tun0", settings={"dns": "198.18.0.1"}),
        )
    ),
    "append_only": lambda: world.make_plan(world.plain(file=world.resolv_conf(attributes="--a-e"))),
    "a_link_that_takes_all_names_as_desired": lambda: routed("refuse"),
    "a_link_that_takes_all_names_as_forced": lambda: routed("force"),
    # Servers as desired, and names that do not resolve.
    "as_desired_and_silent": lambda: failing(Answers()),
    "as_desired_and_one_of_two_names": lambda: failing(
        Answers(replies={OLD: {PUBLIC: GOOD, INTERNAL: NONE}}), resolved=(PUBLIC,)
    ),
    "as_desired_and_the_resolver_is_broken": lambda: failing(world.answers(OLD)),
    "as_desired_without_getent": lambda: failing(world.answers(OLD), resolved=None),
    # What starts with the host.
    "resolved_that_does_not_start_with_the_host": lambda: world.make_plan(
        world.stub(startup="disabled")
    ),
    "resolved_as_desired_that_does_not_start_with_the_host": lambda: world.make_plan(
        world.stub(startup="enabled-runtime"), world.desired(OLD)
    ),
    "resolved_that_is_masked": lambda: world.make_plan(
        world.stub(mode="", servers=(), links=(), startup="masked")
    ),
    "resolved_that_is_not_installed": lambda: world.make_plan(
        world.stub(mode="", servers=(), links=(), startup="not-found")
    ),
    # Files that are none, or cannot be written again as they are.
    "a_directory": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("", kind="directory"))
    ),
    "a_fifo": lambda: world.make_plan(world.plain(file=world.resolv_conf("", kind="special"))),
    "a_link_to_itself": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("", kind="astray", target="resolv.conf"))
    ),
    "a_link_of_resolved_that_is_down": lambda: world.make_plan(
        world.stub(
            mode="",
            servers=(),
            links=(),
            file=world.resolv_conf(
                "", kind="astray", target="../run/systemd/resolve/stub-resolv.conf"
            ),
        )
    ),
    "a_link_of_network_manager_without_it": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("", target="/run/NetworkManager/resolv.conf"))
    ),
    "a_link_of_resolvconf_without_it": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("", target="/run/resolvconf/resolv.conf"))
    ),
    "read_only": lambda: world.make_plan(
        world.plain(file=world.resolv_conf(target="/mnt/iso/resolv.conf", closed="/mnt/iso/"))
    ),
    "a_file_that_is_too_large": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("# x\n" * 16385))
    ),
    "a_file_that_is_no_utf_8": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("# caf\ufffd\nnameserver 192.0.2.60\n"))
    ),
    "a_file_with_a_nul": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("# a\0b\nnameserver 192.0.2.60\n"))
    ),
    "a_file_with_a_form_feed": lambda: world.make_plan(
        world.plain(file=world.resolv_conf("# a\fnameserver 192.0.2.61\n"))
    ),
    "settings_of_an_owner_that_are_no_utf_8": lambda: world.make_plan(
        world.openresolv(files={"/etc/resolvconf.conf": "# \ufffd\n"})
    ),
    "without_root": lambda: world.make_plan(world.plain(root=False)),
    "armed": lambda: world.make_plan(world.plain(armed="m"), world.desired(OLD)),
    # Servers that are no good.
    "servers_that_are_no_good": lambda: plan_servers(
        world.desired(FIRST, SECOND, OLD),
        world.plain(),
        Answers(
            replies={
                SECOND: {PUBLIC: NONE, INTERNAL: NONE},
                OLD: {PUBLIC: GOOD, INTERNAL: Reply(code=2)},
            }
        ),
    ),
    "a_server_that_invents": lambda: plan_servers(
        world.desired(FIRST),
        world.plain(),
        Answers(replies={FIRST: {PUBLIC: GOOD, INTERNAL: GOOD, "stackmend-check.invalid": GOOD}}),
    ),
    "a_server_that_is_slow": lambda: plan_servers(
        world.desired(FIRST),
        world.plain(),
        Answers(replies={FIRST: {PUBLIC: GOOD.model_copy(update={"late": True}), INTERNAL: GOOD}}),
    ),
    "servers_that_answer_otherwise": lambda: plan_servers(
        world.desired(FIRST, SECOND, OLD),
        world.plain(file=world.resolv_conf("")),
        Answers(
            replies={
                FIRST: {PUBLIC: Reply(code=-1), INTERNAL: Reply(code=-1)},
                SECOND: {PUBLIC: Reply(code=-1), INTERNAL: GOOD},
                OLD: {PUBLIC: GOOD, INTERNAL: Reply(code=-2)},
            }
        ),
    ),
    # Caches.
    "a_stale_cache": lambda: caches(stale("systemd-resolved")),
    "a_cache_that_knows_a_name_no_more": lambda: caches(stale("nscd", raw=NONE)),
    "a_cache_that_does_not_know_a_new_name": lambda: caches(stale("dnsmasq", cached=NONE)),
    "a_cache_of_a_name_with_many_addresses": lambda: caches(
        stale("unbound", raw=Reply(code=0, addresses=("192.0.2.9", "192.0.2.11")))
    ),
    "a_cache_whose_server_fails": lambda: caches(stale("unbound", raw=Reply(code=2))),
    "a_cache_whose_servers_are_silent": lambda: caches(
        Cache(name="systemd-resolved", upstream=(FIRST, SECOND), names=(PUBLIC, INTERNAL))
    ),
    "a_cache_that_answers_though_its_servers_are_silent": lambda: caches(
        Cache(
            name="systemd-resolved",
            upstream=(FIRST,),
            names=(PUBLIC, INTERNAL),
            cached={PUBLIC: GOOD, INTERNAL: NONE},
        )
    ),
    "a_cache_that_answers_though_its_server_refuses": lambda: caches(
        stale("unbound", cached=GOOD, raw=Reply(code=5))
    ),
    "a_cache_that_answers_one_of_two_names_while_its_servers_are_silent": lambda: caches(
        Cache(
            name="dnsmasq",
            upstream=(FIRST,),
            names=(PUBLIC, INTERNAL),
            cached={PUBLIC: GOOD, INTERNAL: Reply(code=2)},
        )
    ),
    "nscd_that_finds_nothing_while_its_servers_are_silent": lambda: caches(
        Cache(name="nscd", upstream=(FIRST,), names=(INTERNAL,), cached={INTERNAL: NONE})
    ),
    "a_cache_that_names_no_servers": lambda: caches(
        Cache(name="unbound", names=(INTERNAL,), cached={INTERNAL: GOOD})
    ),
    "a_cache_that_does_not_answer": lambda: caches(
        Cache(name="dnsmasq", upstream=(FIRST,), names=(INTERNAL,), raw={INTERNAL: (GOOD,)})
    ),
    "caches_of_which_no_name_is_to_be_compared": lambda: caches(
        Cache(name="nscd", upstream=(FIRST,)), Cache(name="windows")
    ),
    "caches_that_are_flushed_in_any_case": lambda: plan_caches(
        CachesSpec(when="always"),
        HostCaches(
            caches=(
                Cache(name="systemd-resolved", size=3),
                Cache(name="nscd", size=0),
                Cache(name="dnsmasq"),
                Cache(name="windows"),
                Cache(name="macos"),
            )
        ),
    ),
    "a_cache_that_flushing_does_not_mend": lambda: plan_caches(
        CachesSpec(), HostCaches(caches=(stale("dnsmasq"),)), ["dnsmasq"]
    ),
    "caches_without_root": lambda: plan_caches(CachesSpec(), HostCaches(root=False)),
}


def openresolv_with_a_vpn(**changes: Any) -> HostResolver:
    """Told of FIRST once, with what a lease says dropped; wg0 came later, the lease is gone."""
    block = (
        "# stackmend: resolver.servers\n"
        'name_servers=""\n'
        f'name_servers_append="{FIRST}"\n'
        f'replace="${{replace:+$replace }}nameserver/{OLD}/"\n'
        'search_domains="a.example"\n'
        'search_domains_append=""\n'
        'replace_sub="${replace_sub:+$replace_sub }search/lab.example/"\n'
        'replace_sub="${replace_sub:+$replace_sub }domain/lab.example/"\n'
        "# stackmend: end\n"
    )
    fields: dict[str, Any] = {
        "file": world.resolv_conf(
            "# Generated by resolvconf\nsearch a.example corp.lan\nnameserver 10.8.0.1\n"
            f"nameserver {FIRST}\n"
        ),
        "records": {"wg0": ("10.8.0.1",)},
        "searches": {"wg0": ("corp.lan",)},
        "links": (Link(name="wg0", tunnel=True),),
        "files": {"/etc/resolvconf.conf": block},
        "resolved": (PUBLIC, INTERNAL),
    }
    return world.openresolv(**{**fields, **changes})


def managed(settings: dict[str, str]) -> Plan[Any]:
    """A link of NetworkManager's that has the servers desired by now."""
    link = Link(name="eth0", servers=(FIRST, SECOND), default=True)
    return world.make_plan(
        world.stub(servers=(), links=(link,), connections=(world.connection(settings=settings),))
    )


def unmanaged(**changes: Any) -> Plan[Any]:
    """A link of nobody's that has the servers desired by now."""
    link = Link(name="eth0", servers=(FIRST, SECOND), default=True)
    return world.make_plan(world.stub(**{"servers": (), "links": (link, TUNNEL), **changes}))


def failing(answers: Answers, resolved: tuple[str, ...] | None = ()) -> Plan[Any]:
    state = world.plain(resolved=resolved)
    return plan_servers(world.desired(OLD), state, answers)


def routed(on_conflict: str) -> Plan[Any]:
    tunnel = TUNNEL.model_copy(update={"domains": ("~.",)})
    return world.make_plan(world.stub(links=(tunnel,)), world.desired(OLD, on_conflict=on_conflict))


def stale(
    name: Any,
    cached: Reply = Reply(code=0, addresses=("192.0.2.11",)),  # noqa: B008 - frozen
    raw: Reply = Reply(code=0, addresses=("192.0.2.21",)),  # noqa: B008
) -> Cache:
    return Cache(
        name=name,
        upstream=(FIRST,),
        names=(INTERNAL,),
        cached={INTERNAL: cached},
        raw={INTERNAL: (raw,)},
    )


def caches(*found: Cache) -> Plan[Any]:
    return plan_caches(CachesSpec(), HostCaches(caches=found))


def carries(action: Any) -> Iterator[str]:
    if not isinstance(action, SetServers):
        return
    for file in action.files:
        yield f"{file.how}: {file.path}"
        yield from (f"  | {line}" for line in file.text.splitlines())
    for setting in action.settings:
        yield f"connection of {setting.device}"
        yield from (f"  | {key} = {value}" for key, value in setting.values)
    if action.reload:
        yield f"reload {', '.join(action.reload)}"
    if action.locked:
        yield f"locked again: {action.locked}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_golden(name: str) -> None:
    text = render(SCENARIOS[name](), carries)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    known = path.read_text()
    assert text == known, "\n".join(difflib.unified_diff(known.split("\n"), text.split("\n")))


def test_no_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCENARIOS)


# What holds for every host.

ADDRESSES = st.lists(
    st.sampled_from([FIRST, SECOND, OLD, "2001:db8::53", "127.0.0.1"]), max_size=3, unique=True
).map(tuple)
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "# Generated by NetworkManager",
                "# Generated by resolvconf",
                "# Generated by dhcpcd",
                "options rotate",
                "search a.example",
                "domain b.example",
                "nameserver",
                "",
                "# stackmend: resolver.servers",
                "# stackmend: end",
            ]
        ),
        st.sampled_from([FIRST, OLD]).map(lambda server: f"nameserver {server}"),
    ),
    max_size=6,
).map(lambda lines: "".join(f"{line}\n" for line in lines))
LINKS = st.builds(
    Link,
    name=st.sampled_from(["eth0", "lan0", "tun0"]),
    servers=ADDRESSES,
    domains=st.sampled_from([(), ("corp.example",), ("~corp.example",), ("~.",)]),
    network=st.sampled_from(["", "/etc/systemd/network/10-x.network"]),
    tunnel=st.booleans(),
    default=st.booleans(),
)
STATES = st.builds(
    HostResolver,
    file=st.builds(
        lambda text, mounted, target, attributes: world.resolv_conf(
            text, mounted=mounted, target=target, attributes=attributes
        ),
        TEXTS,
        st.booleans(),
        st.sampled_from(["", "", "../run/systemd/resolve/stub-resolv.conf", "/mnt/wsl/x"]),
        st.sampled_from(["", "----i---"]),
    ),
    mode=st.sampled_from(["", "stub", "uplink", "foreign"]),
    running=st.sampled_from([(), ("dhclient",), ("dhcpcd",), ("resolved",)]),
    resolvconf=st.sampled_from(["", "openresolv", "resolvconf"]),
    tools=st.sampled_from([(), ("dhclient-hooks", "systemd-tmpfiles")]),
    servers=ADDRESSES,
    links=st.lists(LINKS, max_size=3, unique_by=lambda link: link.name).map(tuple),
    connections=st.sampled_from([(), (world.connection(),)]),
    files=st.dictionaries(
        st.sampled_from(["/etc/resolvconf.conf", "/etc/dhcpcd.conf", "/etc/wsl.conf"]), TEXTS
    ),
)
SPECS = st.builds(
    lambda servers, search, conflict: world.desired(
        *(servers or (FIRST,)), search=search, on_conflict=conflict
    ),
    ADDRESSES,
    st.sampled_from([(), ("a.example",)]),
    st.sampled_from(["refuse", "force"]),
)


@given(STATES, SPECS)
def test_nothing_is_done_beside_a_refusal_or_before_servers_are_asked(
    state: HostResolver, spec: Any
) -> None:
    silent = plan_servers(spec, state, Answers())
    assert not silent.actions
    plan = world.make_plan(state, spec)
    assert not (plan.actions and plan.refusals)
    for refusal in (*silent.refusals, *plan.refusals):
        assert refusal.reason
        assert refusal.remedy


@given(STATES, SPECS)
def test_links_that_are_not_ours_are_never_written(state: HostResolver, spec: Any) -> None:
    for action in world.make_plan(state, spec).actions:
        written = {file.path for file in action.files} | {item.device for item in action.settings}
        for link in state.links:
            if link.tunnel and link.network and action.owner == "systemd-resolved":
                others = [other for other in state.links if other.network and not other.tunnel]
                name = link.network.rpartition("/")[2]
                assert others or not [path for path in written if name in path]


@given(STATES, SPECS)
def test_an_immutable_file_is_written_by_force_alone(state: HostResolver, spec: Any) -> None:
    for action in world.make_plan(state, spec).actions:
        if spec.on_conflict == "refuse" and state.file.locked:
            assert "/etc/resolv.conf" not in {file.path for file in action.files}


@given(STATES, SPECS)
def test_files_that_were_written_are_as_desired(state: HostResolver, spec: Any) -> None:
    """Written once and read again, nothing of them is to be written."""
    owner, _ = find_owner(state)
    if owner in ("systemd-resolved", "NetworkManager", "WSL"):
        return
    made = plan_owner(owner, spec, state)
    if made.refusals:
        return
    files = {**state.files, **{file.path: file.text for file in made.files}}
    file = state.file.model_copy(
        update={
            "text": files.get(
                "/etc/resolv.conf",
                # Its owner writes it anew.
                f"# Generated by {'dhcpcd' if owner == 'dhcpcd' else 'resolvconf'}\n"
                f"search {' '.join(spec.search)}\n"
                + "".join(f"nameserver {server}\n" for server in spec.servers)
                if owner in ("openresolv", "resolvconf", "dhcpcd")
                else state.file.text,
            )
        }
    )
    again = plan_owner(owner, spec, state.model_copy(update={"file": file, "files": files}))
    assert not again.cause, again
