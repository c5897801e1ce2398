"""What lies beneath containers and is the engine's: rules of the packet filter, bridges, ports.

All of it the engine makes when it starts, and never again while it runs: reading its settings again
or making another network brings back what that network needs, and nothing of the others.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

from stackmend.decision import Finding, Refusal
from stackmend.engine.plan.flags import has_value, parse_flags
from stackmend.engine.plan.merge import parse_config
from stackmend.engine.plan.model import (
    Action,
    AttachPort,
    Plan,
    RaiseBridge,
    RemoveRule,
    RestartEngine,
    RestoreAddress,
)
from stackmend.engine.plan.rivals import refuse_auto_removed
from stackmend.engine.spec import Installation
from stackmend.engine.state import HostEngine, Network, Rule

_BRIDGE = "com.docker.network.bridge."


def plan_beneath(spec: Installation, state: HostEngine) -> Plan:
    """What brings back what an engine that answers made for its containers.

    :param spec: what may be done for it.
    :param state: what the host has.
    """
    settings = _read_settings(state)
    actions: list[Action] = list(_plan_devices(state))
    findings: list[Finding] = []
    refusals: list[Refusal] = []
    for rule, names in _list_foreign_rules(state):
        found = _make_rule_plan(rule, names, spec.allow)
        if isinstance(found, Finding):
            findings.append(found)
        else:
            actions.append(found)
    if lost := find_lost(state, settings):
        findings.append(
            Finding(
                subject="engine",
                kind="lost rules",
                cause="what the engine made in the kernel for its networks is gone",
                evidence=lost,
                blocks=False,
            )
        )
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        cause = f"{lost[0]}{more}: only a start of the engine makes it again"
        if "restart" not in spec.allow:
            refusals.append(_refuse_restart(cause))
        elif state.restarted:
            refusals.append(
                Refusal(
                    subject="engine",
                    reason=f"{lost[0]}{more}, also since stackmend restarted it for that",
                    remedy="see `journalctl -u docker` and what else changes the packet filter "
                    "there",
                )
            )
        else:
            live = settings.get("live-restore") is True
            refusals += [] if live else refuse_auto_removed(state, spec.replace)
            actions.append(
                RestartEngine(
                    subject="engine",
                    cause=cause,
                    destructive=not live,
                    bridges=tuple(network.bridge for network in _list_used(state)),
                )
            )
    return Plan(findings=tuple(findings), actions=tuple(actions), refusals=tuple(refusals))


def find_lost(state: HostEngine, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What the engine made in the kernel for networks with containers, and is not there."""
    used = _list_used(state)
    lost = [
        f"{network.bridge}, the bridge of the network {network.name}, does not exist"
        for network in used
        if state.devices and network.bridge not in state.devices
    ]
    if used and state.forwarding == "0" and settings.get("ip-forward") is not False:
        lost.append("the host forwards nothing: /proc/sys/net/ipv4/ip_forward is 0")
    if state.rules is None or settings.get("iptables") is False:
        return tuple(lost)
    if settings.get("firewall-backend", "iptables") != "iptables":
        return tuple(lost)
    rules = [(rule.table.removeprefix("other "), shlex.split(rule.text)) for rule in state.rules]
    forward = [words for table, words in rules if (table, words[1]) == ("filter", "FORWARD")]
    for network in used:
        bridge = network.bridge
        if not any(table == "filter" and bridge in words for table, words in rules):
            lost.append(f"the packet filter has no rule for {bridge}, the network {network.name}")
        elif not any("DOCKER" in word or word == bridge for words in forward for word in words):
            lost.append("nothing in the packet filter's chain FORWARD leads to Docker's rules")
        lost += [
            f"nothing masquerades for {subnet}, the network {network.name}"
            for subnet in network.subnets
            if _is_masquerading(network)
            and not any("MASQUERADE" in words and subnet in words for _, words in rules)
        ]
    published = False
    for port in state.published:
        # The engine leads it to one of them.
        places = {
            f"{network.containers[port.container]}:{port.port}"
            for network in used
            if port.container in network.containers and _is_masquerading(network)
        }
        published = published or bool(places)
        if places and not any(
            str(port.host_port) in words and not places.isdisjoint(words) for _, words in rules
        ):
            lost.append(
                f"nothing leads from port {port.host_port}/{port.protocol} to {port.container}"
            )
    if published and not any(
        words[1] == "PREROUTING" and "DOCKER" in words for table, words in rules if table == "nat"
    ):
        lost.append("nothing in the chain PREROUTING leads to Docker's rules")
    return tuple(dict.fromkeys(lost))


def _read_settings(state: HostEngine) -> dict[str, Any]:
    try:
        config, _ = parse_config(state.config.text)
    except ValueError:
        config = {}
    for key, values in parse_flags(state.service.flags).items():
        if key in ("iptables", "ip-forward", "live-restore"):
            config[key] = has_value(values, value=True)
        elif key in ("firewall-backend", "data-root"):
            config[key] = values[-1]
    return config


def _list_used(state: HostEngine) -> list[Network]:
    return [network for network in state.networks if network.containers]


def _is_masquerading(network: Network) -> bool:
    mode = network.options.get(f"{_BRIDGE}gateway_mode_ipv4", "nat")
    asked = network.options.get(f"{_BRIDGE}enable_ip_masquerade", "true")
    return not network.internal and asked == "true" and mode.startswith("nat")


def _plan_devices(state: HostEngine) -> Iterator[Action]:
    for network in _list_used(state):
        device = state.devices.get(network.bridge)
        if device is None:
            continue
        if not device.up:
            yield RaiseBridge(
                subject=network.bridge,
                cause=f"the bridge of the network {network.name} is down",
                undo=f"ip link set dev {network.bridge} down",
            )
        inhibited = network.options.get(f"{_BRIDGE}inhibit_ipv4") == "true"
        for address in () if inhibited else network.gateways:
            if address not in device.addresses:
                yield RestoreAddress(
                    subject=network.bridge,
                    cause=f"the bridge of the network {network.name} lost its address {address}",
                    undo=f"ip address del {address} dev {network.bridge}",
                    address=address,
                )
    for port in state.loose:
        yield AttachPort(
            subject=port.device,
            cause=f"the port of {port.container} is off the bridge {port.bridge}",
            undo=f"ip link set dev {port.device} nomaster",
            bridge=port.bridge,
        )


def _refuse_restart(cause: str) -> Refusal:
    return Refusal(
        subject="engine",
        reason=cause,
        remedy='add "allow": ["restart"] to the stack\'s "engine" section; containers are stopped '
        "with it and started again, but where live-restore is on",
    )


def _list_foreign_rules(state: HostEngine) -> Iterator[tuple[Rule, list[str]]]:
    """Rules of others that drop traffic of containers, and whose, before Docker's own are asked."""
    ended: set[str] = set()
    for rule in state.rules or ():
        words = shlex.split(rule.text)
        chain = words[1]
        if rule.table != "filter" or chain not in ("DOCKER-USER", "FORWARD") or chain in ended:
            continue
        target = words[words.index("-j") + 1] if "-j" in words[:-1] else ""
        if target == "RETURN" and len(words) == 4:
            ended.add(chain)
        # Docker asks DOCKER-USER before anything else.
        if "DOCKER" in target and target != "DOCKER-USER":
            ended.add(chain)
        if target in ("DROP", "REJECT"):
            # Whatever stands there in place of an address.
            with suppress(ValueError):
                if names := _find_concerned(words, state):
                    yield rule, names


def _find_concerned(words: Sequence[str], state: HostEngine) -> list[str]:
    """The containers that a rule keeps from each other; none where it is about the way in."""
    if "!" in words or "INVALID" in words:
        return []
    values = {word: value for word, value in pairwise(words) if word in _SELECTORS}
    used = _list_used(state)
    bridges = {network.bridge for network in used}
    if any(values[word] not in bridges for word in ("-i", "-o") if word in values):
        return []
    if values.keys() == {"-i", "-o"} and values["-i"] == values["-o"]:
        # Docker's own, of a network whose containers do not reach each other.
        used = [network for network in used if network.bridge == values["-i"]]
        if any(network.options.get(f"{_BRIDGE}enable_icc") == "false" for network in used):
            return []
    addresses = {
        name: ip_address(address)
        for network in used
        if not {values.get("-i"), values.get("-o")} - {None} or network.bridge in values.values()
        for name, address in network.containers.items()
    }
    subnets = [ip_network(values[word], strict=False) for word in ("-s", "-d") if word in values]
    if not all(any(address in subnet for address in addresses.values()) for subnet in subnets):
        return []
    return sorted(
        name
        for name, address in addresses.items()
        if not subnets or any(address in subnet for subnet in subnets)
    )


_SELECTORS = ("-s", "-d", "-i", "-o")


def _make_rule_plan(rule: Rule, names: Sequence[str], allow: Sequence[str]) -> Finding | RemoveRule:
    cause = f"somebody's rule of the packet filter drops traffic of {', '.join(names)}"
    counted = f"{rule.packets} packets, {rule.octets} bytes"
    if f"rule:{rule.text}" in allow:
        _, chain, rest = rule.text.split(" ", 2)
        return RemoveRule(
            subject=rule.text,
            cause=f"{cause} ({counted} so far)",
            destructive=True,
            undo=f"iptables -I {chain} {rule.position} {rest}",
        )
    return Finding(
        subject="packet filter",
        kind="foreign rule",
        cause=f"{cause}: {rule.text}",
        evidence=(f"{counted} so far", f"it is rule {rule.position} of its chain"),
        remedy=f'to remove it, add "allow": ["rule:{rule.text}"] to the stack\'s "engine" section',
        blocks=False,
    )
