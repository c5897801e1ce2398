"""What is decided about an engine that somebody broke, as text: found, done, refused.

Each scenario's plan lies as plain text below ``golden/engine_mending``. ``UPDATE_GOLDEN=1 pytest``
writes them anew; what then changes is to be read as the change of behaviour that it is.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from stackmend.decision import Plan
from stackmend.engine.facts import parse_rules
from stackmend.engine.plan import RestoreConfig, plan_engine, plan_settings
from stackmend.engine.spec import Installation
from stackmend.engine.state import (
    Config,
    Copy,
    Daemon,
    Device,
    HostEngine,
    Loose,
    Network,
    Published,
)
from tests.unit import engine_world as world
from tests.unit.rendering import render

GOLDEN = Path(__file__).parent / "golden" / "engine_mending"
KEPT = "/var/lib/stackmend/engine/kept"
PROVEN = Copy(path=f"{KEPT}/proven.json", text='{\n  "mtu": 1400\n}\n')
EARLIER = Copy(path=f"{KEPT}/daemon.json.20260101T000000.000000Z", text='{"mtu": 1300}\n')
CUT = "unexpected end of JSON input"

SCENARIOS: dict[str, Callable[[], Plan[Any]]] = {}


def scenario(build: Callable[[], Plan[Any]]) -> Callable[[], Plan[Any]]:
    SCENARIOS[build.__name__] = build
    return build


def broken(
    text: str, refused: str = CUT, copied: Copy | None = PROVEN, **changes: Any
) -> HostEngine:
    """A host whose engine is down, with this daemon.json."""
    config = Config(kind="file", text=text, refused=refused, copied=copied)
    down = {
        "status": "stopped",
        "reason": "Cannot connect to the Docker daemon",
        "server": "",
        "config": config,
    }
    return world.engine(world.DOCKER_IO, **{**down, **changes})


def installed(state: HostEngine, *allow: str) -> Plan[Any]:
    return plan_engine(Installation(channel="distro", allow=allow), state)


@scenario
def a_client_that_nobody_may_execute() -> Plan[Any]:
    """It says nothing of the engine, which is not restarted, with consent neither."""
    reason = "/usr/bin/docker is there, and nobody may execute it"
    state = world.engine(
        world.DOCKER_IO, status="unexecutable", reason=reason, server="", client=""
    )
    return installed(state, "restart", "config")


@scenario
def a_file_that_is_cut_off_without_consent() -> Plan[Any]:
    """daemon.json ends in the middle; nobody said that another may be put back."""
    return installed(broken('{"dns": ['))


@scenario
def a_file_that_is_cut_off() -> Plan[Any]:
    """daemon.json ends in the middle: the proven one is put back, which starts the engine."""
    return installed(broken('{"dns": ['), "config")


@scenario
def a_wrong_type_under_an_engine_that_runs() -> Plan[Any]:
    """The engine runs, and would not start again: it reads the file put back, and goes on."""
    state = broken('{"dns": 5}', "cannot unmarshal number", EARLIER, status="up", server="26.1.5")
    return installed(state, "config")


@scenario
def a_key_that_the_service_sets_by_a_flag() -> Plan[Any]:
    """dockerd finds nothing wrong with "hosts" until its service gives it as a flag, too."""
    return installed(broken('{"hosts": ["unix:///run/docker.sock"]}', refused=""), "config")


@scenario
def no_earlier_file_is_known() -> Plan[Any]:
    """Nothing to put back: refused, with consent as well."""
    return installed(broken('{"no-such-key": 1}', "no-such-key", None), "config")


@scenario
def an_earlier_file_that_cannot_work_either() -> Plan[Any]:
    """The proven one has a key that the service sets by a flag by now."""
    copied = PROVEN.model_copy(update={"text": '{"hosts": []}'})
    return installed(broken("[]", copied=copied), "config")


@scenario
def settings_of_a_file_that_is_cut_off() -> Plan[Any]:
    """The proven one comes back with the settings in it, in one step."""
    return plan_settings({"mtu": 1280, "debug": True}, (), broken('{"dns": ['), ("config",))


@scenario
def settings_without_consent() -> Plan[Any]:
    """Nothing is set in a file that is none."""
    return plan_settings({"mtu": 1280}, (), broken('{"dns": ['))


# Beneath the containers

RULES = """*filter
[0:0] -A FORWARD -j DOCKER-USER
[9:540] -A FORWARD -j DOCKER-ISOLATION-STAGE-1
[0:0] -A FORWARD -o br-shop -j DOCKER
[0:0] -A FORWARD -i br-shop ! -o br-shop -j ACCEPT
[0:0] -A DOCKER -d 172.18.0.3/32 ! -i br-shop -o br-shop -p tcp -m tcp --dport 80 -j ACCEPT
[0:0] -A DOCKER-USER -j RETURN
*nat
[0:0] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[0:0] -A POSTROUTING -s 172.18.0.0/16 ! -o br-shop -j MASQUERADE
[0:0] -A DOCKER ! -i br-shop -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.3:80
"""
SHOP = Network(
    name="shop_default",
    bridge="br-shop",
    subnets=("172.18.0.0/16",),
    gateways=("172.18.0.1/16",),
    containers={"shop-redis-1": "172.18.0.2", "shop-api-1": "172.18.0.3"},
)
API = Published(container="shop-api-1", port=80, protocol="tcp", host_port=8080)
BRIDGE = Device(addresses=("172.18.0.1/16",))


def running(rules: str = RULES, **changes: Any) -> HostEngine:
    """A host whose engine runs a project; its packet filter has these rules."""
    beneath = {
        "containers": world.runs("shop-redis-1", "shop-api-1"),
        "networks": (SHOP,),
        "published": (API,),
        "rules": tuple(parse_rules(rules.splitlines())),
        "devices": {"br-shop": BRIDGE},
        "forwarding": "1",
    }
    return world.engine(world.DOCKER_IO, **{**beneath, **changes})


def without(*words: str) -> str:
    """The rules but for those with one of these words."""
    lines = RULES.splitlines()
    return "\n".join(line for line in lines if not any(word in line for word in words))


def with_first(chain: str, rule: str) -> str:
    """The rules with one more, the first of its chain."""
    lines = RULES.splitlines()
    at = next(index for index, line in enumerate(lines) if f"-A {chain} " in line)
    return "\n".join([*lines[:at], f"[5:300] -A {chain} {rule}", *lines[at:]])


DROP = "-d 172.18.0.3/32 -j DROP"


@scenario
def rules_that_are_all_there() -> Plan[Any]:
    """Nothing to do."""
    return installed(running(), "restart")


@scenario
def rules_flushed_without_consent() -> Plan[Any]:
    """Every chain is empty; nobody said that the engine may be restarted."""
    return installed(running("*filter\n*nat"))


@scenario
def rules_flushed() -> Plan[Any]:
    """Every chain is empty: the engine is restarted."""
    return installed(running("*filter\n*nat"), "restart")


@scenario
def rules_of_the_table_nat_flushed() -> Plan[Any]:
    """No way out, and none in."""
    return installed(running(RULES.partition("*nat")[0]), "restart")


@scenario
def rules_that_a_restart_did_not_bring() -> Plan[Any]:
    """The engine is not restarted again and again for what it does not make."""
    return installed(running("*filter\n*nat", restarted=True), "restart")


@scenario
def rules_flushed_over_a_container_that_would_be_gone() -> Plan[Any]:
    """A container that is removed when the engine stops needs its own consent."""
    containers = world.runs("passing", auto_remove=True)
    return installed(running("*filter\n*nat", containers=containers), "restart")


@scenario
def rules_flushed_where_containers_live_on() -> Plan[Any]:
    """With live-restore a restart of the engine ends nothing."""
    config = Config(kind="file", text='{"live-restore": true}')
    containers = world.runs("passing", auto_remove=True)
    state = running("*filter\n*nat", config=config, containers=containers)
    return installed(state, "restart")


@scenario
def a_rule_of_somebody() -> Plan[Any]:
    """It is told as it stands, with its counters."""
    return installed(running(with_first("DOCKER-USER", DROP)))


@scenario
def a_rule_of_somebody_with_consent() -> Plan[Any]:
    """The one that is named is removed; another that is like it stays."""
    rules = with_first("DOCKER-USER", DROP).replace(
        "*nat", "[0:0] -A DOCKER-USER -s 172.18.0.2/32 -j REJECT\n*nat"
    )
    rules = rules.replace("[0:0] -A DOCKER-USER -j RETURN\n", "")
    return installed(running(rules), f"rule:-A DOCKER-USER {DROP}")


@scenario
def a_bridge_that_is_down_and_lost_its_address() -> Plan[Any]:
    """Both come back, without a restart."""
    return installed(running(devices={"br-shop": Device(up=False)}))


@scenario
def a_port_that_is_off_its_bridge() -> Plan[Any]:
    """It goes back where its container's address belongs."""
    loose = Loose(container="shop-redis-1", device="veth1a2b", bridge="br-shop")
    return installed(running(loose=(loose,)))


@scenario
def a_bridge_that_is_gone() -> Plan[Any]:
    """Only the engine makes it."""
    return installed(running(devices={"eth0": Device()}), "restart")


# What an engine needs to run


@scenario
def containerd_is_stopped() -> Plan[Any]:
    """The engine answers, and can start nothing."""
    return installed(running(containerd="inactive"))


@scenario
def a_pid_file_of_another_process() -> Plan[Any]:
    """It is removed, and the engine started."""
    return installed(broken("{}", refused="", pid_file=(4711, "sleep")))


@scenario
def a_pid_file_beside_a_broken_daemon_json() -> Plan[Any]:
    """What keeps the engine from starting goes first."""
    return installed(broken('{"dns": [', pid_file=(4711, "sleep")), "config")


@scenario
def a_corrupt_database_without_consent() -> Plan[Any]:
    """The engine would know none of its networks."""
    return installed(broken("{}", refused="", database="invalid database"))


@scenario
def a_corrupt_database() -> Plan[Any]:
    """It is moved aside where the engine's settings say it is, and the engine started."""
    state = broken('{"data-root": "/srv/docker"}', refused="", database="invalid database")
    return installed(state, "repair:networks")


@scenario
def an_engine_that_hangs() -> Plan[Any]:
    """It is named, and left alone."""
    reason = "docker did not answer within 10 seconds"
    state = broken(
        "{}",
        refused="",
        status="unknown",
        reason=reason,
        daemons=(Daemon(pid=812, unit="docker.service"),),
    )
    return installed(state, "restart", "config")


def carry(action: Any) -> Iterable[str]:
    if isinstance(action, RestoreConfig):
        yield f"{'restart' if action.restart else 'reload'} with {json.dumps(action.text)}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_plan_is_as_it_was_agreed(name: str) -> None:
    text = f"# {SCENARIOS[name].__doc__}\n" + render(SCENARIOS[name](), carry)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    agreed = path.read_text(encoding="utf-8") if path.exists() else ""
    difference = difflib.unified_diff(agreed.splitlines(), text.splitlines(), lineterm="")
    assert text == agreed, "\n".join(difference)


def test_no_golden_text_is_left_behind() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)


def test_what_can_be_set_is_set_without_consent() -> None:
    """A wrong type that the settings replace: nothing of somebody else's is put back for it."""
    state = broken('{"dns": 5}', "cannot unmarshal number")
    plan = plan_settings({"dns": ["192.0.2.53"]}, (), state)
    assert [action.verb for action in plan.actions] == ["set"]


def test_comments_are_left_to_the_settings_while_the_engine_runs() -> None:
    state = broken("{} // mine", "invalid character '/'", status="up")
    assert installed(state).empty
    assert installed(broken("{} // mine", "invalid character '/'")).refusals


@pytest.mark.parametrize("consent", ["", "configs", "rule:", "rule:-D FORWARD 1", "rule:-A\nx"])
def test_consent_names_what_there_is(consent: str) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        Installation(allow=(consent,))


@pytest.mark.parametrize(
    "changes",
    [
        {"config": Config(kind="file", text='{"iptables": false}')},
        {"config": Config(kind="file", text='{"firewall-backend": "nftables"}')},
        {"rules": None},
        {"networks": (SHOP.model_copy(update={"containers": {}}),), "published": ()},
    ],
)
def test_an_engine_that_makes_no_rules_lost_none(changes: dict[str, Any]) -> None:
    state = running("*filter\n*nat").model_copy(update=changes)
    assert installed(state, "restart").empty


@pytest.mark.parametrize(
    "options",
    [
        {"com.docker.network.bridge.enable_ip_masquerade": "false"},
        {"com.docker.network.bridge.gateway_mode_ipv4": "routed"},
    ],
)
def test_a_network_that_is_not_masqueraded(options: dict[str, str]) -> None:
    network = SHOP.model_copy(update={"options": options})
    rules = without("MASQUERADE")
    assert installed(running(rules), "restart").actions
    assert installed(running(rules, networks=(network,)), "restart").empty
    internal = SHOP.model_copy(update={"internal": True})
    assert installed(running(rules, networks=(internal,)), "restart").empty


def test_a_port_of_a_container_on_several_networks_leads_to_one_of_them() -> None:
    back = Network(name="back", bridge="br-back", containers={"shop-api-1": "172.19.0.3"})
    rules = RULES + "*filter\n[0:0] -A FORWARD -o br-back -j DOCKER"
    devices = {"br-shop": BRIDGE, "br-back": Device()}
    for networks in ((SHOP, back), (back, SHOP)):
        assert installed(running(rules, networks=networks, devices=devices)).empty
    inside = back.model_copy(update={"internal": True})
    state = running(rules, networks=(inside,), devices=devices)
    assert installed(state).empty, "nothing leads into a network that is internal"


@pytest.mark.parametrize(
    "words", ["MASQUERADE", "DNAT", "PREROUTING", "-A FORWARD", "br-shop"], ids=str
)
def test_each_rule_that_is_missed(words: str) -> None:
    (action,) = installed(running(without(words)), "restart").actions
    assert action.verb == "restart"


def test_rules_of_an_iptables_that_the_engine_brings() -> None:
    """Rules of the other iptables count as there; none of them is told as somebody's."""
    lines = with_first("DOCKER-USER", DROP).splitlines()
    rules = (*parse_rules(["*filter"]), *parse_rules(lines, foreign=True))
    plan = installed(running().model_copy(update={"rules": rules}), "restart")
    assert plan.empty
    assert not plan.findings


@pytest.mark.parametrize(
    "rule",
    [
        "-i eth0 -d 172.18.0.3/32 -j DROP",
        "-s 10.0.0.0/8 -d 172.18.0.3/32 -j DROP",
        "! -s 10.0.0.0/8 -j DROP",
        "-d 203.0.113.9/32 -j DROP",
        "-m conntrack --ctstate INVALID -j DROP",
        "-d 172.18.0.3/32 -j ACCEPT",
        "-d 172.18.0.3/32 -j LOG",
        '-m comment --comment "-s" -d nowhere -j DROP',
    ],
)
def test_rules_that_keep_no_container_from_another(rule: str) -> None:
    assert not installed(running(with_first("DOCKER-USER", rule))).findings


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("-s 172.18.0.2/32 -d 172.18.0.3/32 -j REJECT", "shop-api-1, shop-redis-1"),
        ("-i br-shop -d 172.18.0.2/32 -j DROP", "shop-redis-1"),
        ("-j DROP", "shop-api-1, shop-redis-1"),
        ("-i br-shop -o br-shop -j DROP", "shop-api-1, shop-redis-1"),
        ("-d 172.18.0.2/32 -p tcp -m tcp --dport 6379 -j DROP", "shop-redis-1"),
    ],
)
@pytest.mark.parametrize("chain", ["DOCKER-USER", "FORWARD"])
def test_rules_that_do(rule: str, names: str, chain: str) -> None:
    plan = installed(running(with_first(chain, rule)))
    (finding,) = plan.findings
    assert finding.cause.endswith(f"drops traffic of {names}: -A {chain} {rule}")
    assert plan.empty, "somebody may mean it: what it breaks is told by the checks"
