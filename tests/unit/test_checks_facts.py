"""From the probe's lines to results in words, and from any value to a command that only asks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend.checks import ExecCheck, HttpCheck, TcpCheck
from stackmend.checks.facts import CheckResults, parse
from stackmend.checks.spec import NameCheck
from stackmend.checks.state import CheckResult
from tests.marks import checked

HTTP = HttpCheck(url="http://127.0.0.1:8000/healthz", contains="ok")
BETWEEN = HttpCheck(url="http://api:8000/healthz", inside="worker")
TCP = TcpCheck(address="redis:6379", inside="api")
NAME = NameCheck(hostname="redis", inside="api")
EXEC = ExecCheck(service="redis", command=("redis-cli", "ping"), contains="PONG")


def result(check: HttpCheck | TcpCheck | ExecCheck | NameCheck, *lines: str) -> CheckResult:
    """What comes of one check and the probe's lines about it."""
    (found,) = parse(
        [
            "checks 1",
            f"0 spec {json.dumps(check.model_dump(mode='json'))}",
            *(f"0 {line}" for line in lines),
            "end",
        ]
    )
    return found


def inspected(name: str, service: str, pid: int = 0, **fields: Any) -> str:
    state = {"Status": "running" if pid else "exited", **fields.pop("state", {})}
    networks = {
        network: {"IPAddress": address, "Gateway": "172.18.0.1", "Aliases": [service]}
        for network, address in fields.pop("networks", {}).items()
    }
    ports = fields.pop("ports", None)
    return "inspect " + "\t".join(
        [str(pid), *(json.dumps(x) for x in (f"/{name}", "p", service, state, networks, ports))]
    )


SEEN = ["method curl", "ms 30", "tries 2"]


@pytest.mark.parametrize(
    ("check", "lines", "evidence"),
    [
        (
            HTTP,
            ["method curl", "ms 12", "tries 1", "rc 0", "status 200", "found yes", "result passed"],
            "GET http://127.0.0.1:8000/healthz from the host: "
            "HTTP 200 with the text that was asked in 12 ms",
        ),
        (
            BETWEEN,
            [
                "container p-worker-2 3",
                "method nsenter+curl",
                "ms 9",
                "status 200",
                "result passed",
            ],
            "GET http://api:8000/healthz from inside worker (p-worker-2, the first of 3 that run): "
            "HTTP 200 in 9 ms",
        ),
        (
            HTTP,
            [*SEEN, "rc 0", "status 503", "result failed", "out database is gone"],
            "GET http://127.0.0.1:8000/healthz from the host: "
            "HTTP 503 instead of 200 (tried twice)",
        ),
        (
            HTTP,
            [*SEEN, "rc 0", "status 200", "found no", "result failed"],
            "GET http://127.0.0.1:8000/healthz from the host: "
            'HTTP 200, but without the text "ok" (tried twice)',
        ),
        (
            HTTP,
            [*SEEN, "rc 28", "status 200", "found no", "result failed"],
            "GET http://127.0.0.1:8000/healthz from the host: "
            "HTTP 200, but the answer was not complete within 5 s (tried twice)",
        ),
        (
            HTTP,
            [*SEEN, "rc 124", "result failed"],
            "GET http://127.0.0.1:8000/healthz from the host: no answer within 5 s (tried twice)",
        ),
        (
            TCP,
            ["method nsenter+bash", "rc 7", "result failed", "said Connection refused"],
            "connect to redis:6379 from inside api: "
            "connection refused: nothing listens on port 6379 of redis",
        ),
        (
            TCP,
            [
                "method nsenter+bash",
                "rc 7",
                "result failed",
                "said redis: Name or service not known",
            ],
            "connect to redis:6379 from inside api: the name redis does not resolve",
        ),
        (
            TCP,
            ["method nsenter+bash", "rc 7", "result failed", "said No route to host"],
            "connect to redis:6379 from inside api: no route to redis",
        ),
        (
            TCP,
            ["asleep redis paused paused", "method nsenter+bash", "rc 0", "result failed"],
            "connect to redis:6379 from inside api: "
            "accepted, but by the kernel only: redis is paused and answers nothing",
        ),
        (
            TCP,
            ["stopped api p-api-1=exited p-api-2=paused", "result failed"],
            "connect to redis:6379 from inside api: "
            "api is not running: p-api-1 is exited, p-api-2 is paused",
        ),
        (
            NAME,
            ["container p-api-1 1", "method exec+resolver", "rc 124", "result unknown"],
            "resolve redis from inside api: not known: no answer came in time",
        ),
        (
            TCP,
            ["reason containers cannot be looked up: permission denied", "result unknown"],
            "connect to redis:6379 from inside api: "
            "not known, containers cannot be looked up: permission denied",
        ),
        (
            EXEC,
            ["container p-redis-1 1", "rc 0", "ms 40", "found yes", "result passed"],
            "run redis-cli ping in redis: "
            "ended with exit code 0 with the text that was asked in 40 ms",
        ),
        (
            EXEC,
            ["rc 1", "result failed", "out Could not connect to Redis"],
            "run redis-cli ping in redis: "
            "ended with exit code 1 instead of 0; it said: Could not connect to Redis",
        ),
        (
            EXEC,
            ["rc time", "left p-redis-1", "result failed"],
            "run redis-cli ping in redis: had not ended after 5 s; it said nothing; "
            "it may still run there: only root can end it",
        ),
    ],
)
def test_the_evidence_is_a_sentence(check: Any, lines: list[str], evidence: str) -> None:
    assert result(check, *lines).evidence == evidence


def test_a_diagnosis_between_services() -> None:
    found = result(
        TCP,
        *SEEN,
        "rc 7",
        "result failed",
        "said Connection refused",
        "resolved 172.18.0.3 ",
        inspected("p-api-1", "api", 100, networks={"a": "172.18.0.2"}),
        "listen 100",
        "listen 100 00000000:1F40",
        inspected("p-redis-1", "redis", 200, networks={"a": "172.18.0.3"}),
        "listen 200",
        "listen 200 0100007F:18EB",
        "listen 200 00000000000000000000000001000000:18EB",
        "listen 200 0B00007F:9C41",
        "forwarding 1",
        "tables iptables",
    )
    assert found.details == (
        "curl said: Connection refused",
        "seen from there redis is 172.18.0.3",
        "p-redis-1 listens on 127.0.0.1:6379 and [::1]:6379 only: "
        "nothing outside it can reach that",
    )
    assert found.hints == ("loopback-only",)


def test_a_diagnosis_of_a_detached_service() -> None:
    found = result(
        TCP,
        "rc 6",
        "result failed",
        "resolved",
        inspected("p-api-1", "api", 100, networks={"a": "172.18.0.2"}),
        inspected("p-redis-1", "redis", 200),
    )
    assert found.hints == ("name-not-resolved", "no-shared-network")
    assert found.details == (
        "seen from there the name redis has no address",
        "p-api-1 and p-redis-1 share no network: p-api-1 is on a, p-redis-1 on none",
    )


def test_a_diagnosis_from_the_host() -> None:
    ports = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}], "9/udp": None}
    health = {"Status": "unhealthy", "Log": [{"Output": "old"}, {"Output": "no\n memory"}]}
    found = result(
        HTTP,
        "rc 56",
        "result failed",
        "resolved 127.0.0.1 ",
        "own 127.0.0.1",
        "host-listen 0100007F:1F40",
        inspected(
            "p-api-1",
            "api",
            100,
            networks={"a": "172.18.0.2", "b": "172.19.0.2"},
            ports=ports,
            state={"Health": health},
        ),
        "listen 100",
        inspected("p-other-1", "other", 300, networks={"a": "172.18.0.9"}),
        "forwarding 0",
        "tables iptables",
        "nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "nat -A POSTROUTING -s 172.19.0.0/16 ! -o br-1 -j MASQUERADE",
        "forward -P FORWARD DROP",
    )
    assert found.evidence.endswith("the connection was reset before an answer came")
    assert found.details == (
        "p-api-1 publishes its port 8000 as 8000",
        "in p-api-1 nothing listens on port 8000 (ports heard: none)",
        "on the host, port 8000 is listened to on 127.0.0.1",
        "the healthcheck of p-api-1 says unhealthy: no memory",
        "the host forwards nothing: /proc/sys/net/ipv4/ip_forward is 0",
        "the host's FORWARD chain drops everything: Docker's rules are gone from it",
        "Docker's NAT rules are gone from the host: no jump to its chain in OUTPUT",
        "nothing masquerades for the network a: what p-api-1 sends out gets no answer",
    )
    assert found.hints == (
        "nothing-listens",
        "unhealthy",
        "forwarding-off",
        "forwarding-blocked",
        "nat-missing",
        "masquerade-missing",
    )


def test_a_rule_of_somebody_that_drops_is_named() -> None:
    drop = "-A DOCKER-USER -d 172.18.0.2/32 -j DROP"
    lines = (
        "rc 28",
        "result failed",
        inspected("p-redis-1", "redis", 200, networks={"a": "172.18.0.2"}),
    )
    found = result(TCP, *lines, f"drop [5:300] {drop}")
    assert "traffic-dropped" in found.hints
    named = f"somebody's rule of the packet filter drops traffic of p-redis-1: {drop} "
    assert f"{named}(5 packets, 300 bytes so far)" in found.details
    for other in (
        "-A DOCKER-USER -i eth0 -d 172.18.0.2/32 -j DROP",
        "-A DOCKER-USER -s 10.0.0.0/8 -d 172.18.0.2/32 -j DROP",
        "-A DOCKER-USER ! -s 10.0.0.0/8 -d 172.18.0.2/32 -j DROP",
        "-A FORWARD -d x -j DROP",
    ):
        assert "traffic-dropped" not in result(TCP, *lines, f"drop [5:300] {other}").hints


API = inspected("p-api-1", "api", 300, networks={"a": "172.18.0.3"})
REDIS = inspected("p-redis-1", "redis", 200, networks={"a": "172.18.0.2"})


def named(*lines: str, check: Any = TCP) -> list[str]:
    """The rules that are named of a check that got no answer, and hinted at."""
    to = "127.0.0.1" if check.source is None else "172.18.0.2"
    found = result(check, "rc 28", "result failed", f"resolved {to}", REDIS, API, *lines)
    texts = [line for line in found.details if "somebody's rule" in line]
    assert bool(texts) is bool({"traffic-blocked", "traffic-dropped"} & {*found.hints})
    return texts


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "drop raw [5:300] -A PREROUTING -s 172.18.0.3/32 -p tcp -m tcp --dport 6379 -j DROP",
            "somebody's rule of the table raw of the packet filter drops traffic of p-api-1: "
            "-A PREROUTING -s 172.18.0.3/32 -p tcp -m tcp --dport 6379 -j DROP "
            "(5 packets, 300 bytes so far)",
        ),
        (
            "drop mangle [1:60] -A POSTROUTING -d 172.18.0.0/16 -o br-1 -j DROP",
            "somebody's rule of the table mangle of the packet filter drops traffic of p-api-1, "
            "p-redis-1: -A POSTROUTING -d 172.18.0.0/16 -o br-1 -j DROP "
            "(1 packets, 60 bytes so far)",
        ),
        (
            "drop [2:9] -A mine -d 172.18.0.2/32 -j REJECT --reject-with icmp-port-unreachable",
            "somebody's rule of the packet filter rejects traffic of p-redis-1: -A mine -d "
            "172.18.0.2/32 -j REJECT --reject-with icmp-port-unreachable "
            "(2 packets, 9 bytes so far)",
        ),
        (
            "nft inet lab in ip daddr { 172.18.0.2, 10.0.0.1 } tcp dport 6000-7000 counter drop",
            "somebody's rule of the packet filter (nft table inet lab, chain in) drops traffic of "
            "p-redis-1: ip daddr { 172.18.0.2, 10.0.0.1 } tcp dport 6000-7000 counter drop",
        ),
        (
            'nft inet lab in iifname "br-1" tcp dport { 80, 6379 } reject',
            "somebody's rule of the packet filter (nft table inet lab, chain in) rejects traffic "
            'of port 6379: iifname "br-1" tcp dport { 80, 6379 } reject',
        ),
    ],
)
def test_a_rule_between_two_services_is_named(line: str, text: str) -> None:
    assert named(line) == [text]


@pytest.mark.parametrize(
    "line",
    [
        # It met nothing.
        "drop raw [0:0] -A PREROUTING -s 172.18.0.3/32 -j DROP",
        # Another port, another address, another way in, another protocol, an exception.
        "drop raw [5:300] -A PREROUTING -s 172.18.0.3/32 -p tcp -m tcp --dport 6380 -j DROP",
        "drop raw [5:300] -A PREROUTING -s 172.18.0.9/32 -j DROP",
        "drop raw [5:300] -A PREROUTING -d 172.18.0.2/32 ! -i br-1 -j DROP",
        "drop raw [5:300] -A PREROUTING -d 172.18.0.2/32 -i eth0 -j DROP",
        "drop raw [5:300] -A PREROUTING -s 172.18.0.3/32 -p udp -j DROP",
        "nft inet lab in ip daddr != 172.18.0.2 drop",
        'nft inet lab in iifname "eth0" ip daddr 172.18.0.2 drop',
        "nft inet lab in ip daddr 172.18.0.2 udp dport 53 drop",
        # What others send to that port may be all that it met.
        "drop [9:900] -A INPUT -p tcp -m tcp --dport 6379 -j DROP",
        "nft inet lab in tcp dport 6379 drop",
        # Nothing between two containers comes by there.
        "drop [10:600] -A INPUT -s 172.16.0.0/12 -j DROP",
        "drop [10:600] -A OUTPUT -d 172.18.0.2/32 -j REJECT",
        "drop mangle [10:600] -A INPUT -d 172.18.0.2/32 -j DROP",
        # It asks for more, which nobody knows of the check's packets.
        "drop [5:300] -A DOCKER-USER -s 172.18.0.3/32 -m conntrack --ctstate INVALID -j DROP",
        "drop [5:300] -A DOCKER-USER -s 172.18.0.3/32 -m state --state RELATED -j DROP",
        "drop [5:300] -A DOCKER-USER -d 172.18.0.2/32 -m limit --limit 5/sec -j DROP",
        "drop [5:300] -A DOCKER-USER -d 172.18.0.2/32 -p tcp -m connlimit --connlimit-above 9 "
        "--connlimit-mask 32 --connlimit-saddr -j REJECT --reject-with tcp-reset",
        "drop [5:300] -A FORWARD -d 172.18.0.2/32 -m hashlimit --hashlimit-name x -j DROP",
        "drop raw [5:300] -A PREROUTING -s 0.0.0.0/0 -m set --match-set badips src -j DROP",
        "drop raw [5:300] -A PREROUTING -s 172.18.0.3/32 -m string --string x --algo bm -j DROP",
        "drop raw [5:300] -A PREROUTING -s 172.18.0.3/32 -m recent --update --name x -j DROP",
        "drop raw [5:300] -A PREROUTING -s 172.18.0.3/32 -m mark --mark 0x1 -j DROP",
        "drop raw [5:300] -A PREROUTING -s 172.18.0.3/32 -p tcp -m tcp --tcp-flags FIN,SYN "
        "FIN,SYN -j DROP",
        "nft inet lab in ip saddr 172.18.0.3 ct state invalid counter packets 9 bytes 540 drop",
        "nft inet lab in ip saddr 172.18.0.3 ct state established,related drop",
        "nft inet lab in ip saddr 172.18.0.3 limit rate over 5/second drop",
        "nft inet lab in ip saddr 172.18.0.3 meta mark 0x1 drop",
        "nft inet lab in ip saddr 172.18.0.3 counter packets 0 bytes 0 drop",
        # Words in it that do nothing.
        'drop [5:300] -A DOCKER-USER -s 172.18.0.3/32 -m comment --comment "no -j DROP" -j RETURN',
        'nft inet lab in ip saddr 172.18.0.3 log prefix "no drop " accept',
        # Words of a host that are no rule.
        "drop raw [5:300] -A PREROUTING -s nobody -j DROP",
        "drop -A PREROUTING -s 172.18.0.3/32 -j DROP",
        "nft drop",
        "nft inet lab in ip daddr {} tcp dport a-b drop",
    ],
)
def test_a_rule_about_something_else_is_not(line: str) -> None:
    assert named(line) == []


@pytest.mark.parametrize(
    ("rule", "whose"),
    [
        ("-A DOCKER-USER -j DROP", "all containers"),
        ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited", "all containers"),
        ("-A DOCKER-USER -p tcp -m conntrack --ctstate NEW,INVALID -j DROP", "all containers"),
        ("-A DOCKER-USER -i br-abc -o br-abc -j DROP", "all of br-abc"),
        ("-A DOCKER-USER -i br-+ -j DROP", "all of br-+"),
        ("-A DOCKER-USER -p tcp -m tcp --dport 6379 -j DROP", "port 6379"),
        (
            '-A DOCKER-USER -s 172.18.0.3/32 -m comment --comment "a ! udp \\" -j x" -j DROP',
            "p-api-1",
        ),
        ("-A DOCKER-USER -s 172.18.0.3/32 -m comment --comment udp -j DROP", "p-api-1"),
    ],
)
def test_a_rule_about_everything_is_named_where_it_met_something(rule: str, whose: str) -> None:
    (text,) = named(f"drop [5:300] {rule}")
    assert f"s traffic of {whose}: {rule} (5 packets" in text
    assert not named(f"drop [0:0] {rule}")
    for before in (
        "-A DOCKER-USER -j RETURN",
        "-A DOCKER-USER -s 172.16.0.0/12 -j ACCEPT",
        "-A DOCKER-USER -m set --match-set good src -j RETURN",
        "-A DOCKER-USER ! -i eth0 -j RETURN",
        "-A FORWARD -j DOCKER-FORWARD",
    ):
        shields = before.split()[1] == rule.split()[1] or before.endswith("ACCEPT")
        assert len(named(f"drop [9:9] {before}", f"drop [5:300] {rule}")) == 1 - shields
    for before in (
        "-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A DOCKER-USER -s 10.0.0.0/8 -j RETURN",
        "-A DOCKER-USER -i eth0 -j RETURN",
        "-A DOCKER-USER -j LOG --log-prefix x",
        "-A FORWARD -j DOCKER-USER",
    ):
        assert named(f"drop [9:9] {before}", f"drop [5:300] {rule}"), before


def test_a_rule_of_another_network_is_not_named() -> None:
    network = {"IPAddress": "172.18.0.2", "NetworkID": "0123456789abcdef"}
    fields = ("/p-redis-1", "p", "redis", {"Status": "running"}, {"a": network}, None)
    redis = "inspect " + "\t".join(["200", *map(json.dumps, fields)])
    lines = ("rc 28", "result failed", "resolved 172.18.0.2", redis)
    for bridge, named in (
        ("br-0123456789ab", True),
        ("br-0123456789ac", False),
        ("docker0", False),
    ):
        rule = f"drop [5:300] -A DOCKER-USER -i {bridge} -o {bridge} -j DROP"
        assert ("traffic-dropped" in result(TCP, *lines, rule).hints) is named


@pytest.mark.parametrize(
    ("elements", "count"),
    [
        ("10.0.0.1, 172.18.0.2 }", 1),
        ("10.0.0.1, 172.18.0.0-172.18.0.9 }", 1),
        ("172.18.0.0/16 timeout 1h expires 59m, }", 1),
        ("10.0.0.1, 172.19.0.0-172.18.0.9, a-b }", 0),
    ],
)
def test_a_set_of_addresses_is_read(elements: str, count: int) -> None:
    rule = "nft ip mine forward ip daddr @blocked tcp dport @ports drop"
    sets = ("nftset ip mine ports 80,", "nftset ip mine ports 6379 }")
    assert len(named(rule, *sets, f"nftset ip mine blocked {elements}")) == count
    assert not named(rule, *sets, f"nftset ip other blocked {elements}")


@pytest.mark.parametrize(
    "rule",
    [
        'ip daddr 172.18.0.2 log prefix "udp != x " drop',
        'ip daddr 172.18.0.2 counter packets 3 bytes 9 drop comment "not udp ! x"',
        "ip daddr 172.18.0.2 meta l4proto { tcp, udp } th dport 6379 drop",
        "ip daddr 172.18.0.2 ct state new reject with icmp type port-unreachable",
        'iifname { "eth0", "br-1" } ip daddr 172.18.0.2 drop',
    ],
)
def test_words_in_a_rule_of_nftables_hide_nothing(rule: str) -> None:
    (text,) = named(f"nft inet lab in {rule}")
    assert text.endswith(f": {rule}")


SAVED = """*filter
:INPUT ACCEPT [9:9]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:mine - [0:0]
[9:9] -A INPUT -s 10.0.0.0/8 -j mine
[9:9] -A INPUT -s 10.1.0.0/16 -j mine
[9:9] -A FORWARD -j DOCKER-USER
[9:9] -A FORWARD -o br-1 -j DOCKER
[2:9] -A DOCKER -j DROP
[0:0] -A DOCKER-USER -j RETURN
[3:9] -A mine -g mine
[3:9] -A mine -j DROP
[0:0] -A mine -j REJECT --reject-with icmp-port-unreachable
COMMIT
*raw
:PREROUTING ACCEPT [9:9]
[1:60] -A PREROUTING -s 172.18.0.3/32 -j DROP
COMMIT
"""
RULESET = """table ip filter {
\tchain INPUT {
\t\ttype filter hook input priority filter; policy drop;
\t\tip saddr 1.2.3.4 drop
\t}
}
table inet fw {
\tset blocked {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 10.0.0.1,
\t\t\t     172.18.0.2 }
\t}

\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\tiifname vmap { "lo" : jump lo, "eth0" : jump far }
\t\tip daddr @blocked drop comment "our policy"
\t}

\tchain far {
\t\treject
\t}
}
table netdev early {
\tchain a {
\t\ttype filter hook ingress device "eth0" priority filter; policy accept;
\t}
\tchain b {
\t\ttype filter hook ingress devices = { br-1, eth0 } priority filter; policy accept;
\t}
}
"""


def run_awk(name: str, text: str) -> list[str]:
    script = Path("ops/stackmend/checks/probe.sh").read_text()
    (program,) = re.findall(rf"^{name}='\n(.*?)'\n", script, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        ["awk", program], input=text, capture_output=True, text=True, check=True, timeout=20
    )
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_a_long_set_leaves_room_for_the_rules() -> None:
    many = "\n".join(["elements = { 10.0.0.1,", *["10.0.0.2,"] * 5000, "10.0.0.3 }", "}"])
    ruleset = f"table inet fw {{\nset a {{\n{many}\nchain b {{\nip daddr @a drop\n}}\n}}\n"
    lines = run_awk("checks_nft", ruleset)
    assert (len(lines), lines[-1]) == (1001, "nft inet fw b ip daddr @a drop")


def test_the_probe_reads_rules_and_what_leads_to_them() -> None:
    assert run_awk("checks_drops", SAVED) == [
        "[9:9] -A FORWARD -j DOCKER-USER",
        "[9:9] -A FORWARD -o br-1 -j DOCKER",
        "[0:0] -A DOCKER-USER -j RETURN",
        "[3:9] -A mine -j DROP",
        "raw [1:60] -A PREROUTING -s 172.18.0.3/32 -j DROP",
    ]
    assert run_awk("checks_jumps", SAVED) == [
        "filter INPUT mine",
        "filter FORWARD DOCKER-USER",
        "filter FORWARD DOCKER",
        "filter mine mine",
    ]
    assert run_awk("checks_nft", RULESET) == [
        "nftset inet fw blocked 10.0.0.1,",
        "nftset inet fw blocked 172.18.0.2 }",
        "edge inet/fw @input input",
        "edge inet/fw input lo",
        "edge inet/fw input far",
        'nft inet fw input ip daddr @blocked drop comment "our policy"',
        "nft inet fw far reject",
        "edge netdev/early @ingress a",
        "edge netdev/early @ingress-own b",
    ]


UFW = "drop [9:540] -A ufw-user-input -s 172.16.0.0/12 -p tcp -m tcp --dport 6379 -j DROP"
BY_UFW = ("edge filter INPUT ufw-before-input", "edge filter ufw-before-input ufw-user-input")
NFT = "nft inet fw input ip saddr 172.16.0.0/12 drop"


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ((UFW, *BY_UFW), 0),
        ((UFW, *BY_UFW, "edge filter FORWARD ufw-user-input"), 1),
        ((UFW, *BY_UFW, "called 172.18.0.1"), 1),
        ((NFT, "edge inet/fw @input input"), 0),
        ((NFT, "edge inet/fw @input in", "edge inet/fw in input"), 0),
        ((NFT, "edge inet/fw @ingress input"), 0),
        ((NFT, "edge inet/fw @ingress-own input"), 1),
        ((NFT, "edge inet/fw @forward input"), 1),
        ((NFT, "edge inet/other @input input"), 1),
        ((NFT, "edge inet/fw @input input", "called 172.18.0.1"), 1),
        ((NFT, "edge inet/fw a input", "edge inet/fw input a"), 1),
    ],
)
def test_a_rule_counts_where_the_packets_come_by(lines: tuple[str, ...], count: int) -> None:
    assert len(named(*lines)) == count


def test_a_call_from_the_host_or_of_oneself_is_not_forwarded() -> None:
    rule = "-d 172.18.0.2/32 -j DROP"
    assert not named(f"drop [5:300] -A FORWARD {rule}", check=HTTP)
    assert named(f"drop [5:300] -A OUTPUT {rule.replace('172.18.0.2', '127.0.0.1')}", check=HTTP)
    lines = ("rc 7", "result failed", REDIS, f"drop [5:300] -A FORWARD {rule}")
    on_host = inspected("p-api-1", "api", 300, networks={"host": ""})
    lines_on_host = ("rc 7", "result failed", "resolved 172.18.0.2", on_host, REDIS)
    assert "traffic-blocked" in result(TCP, *lines_on_host, f"drop [5:300] -A OUTPUT {rule}").hints
    forwarded = result(TCP, *lines_on_host, f"drop [5:300] -A FORWARD {rule}")
    assert "traffic-dropped" not in forwarded.hints
    own = TcpCheck(address="redis:6379", inside="redis")
    for to in ("172.18.0.2", "127.0.0.1"):
        assert "traffic-dropped" not in result(own, *lines, f"resolved {to}").hints


@pytest.mark.parametrize(
    ("rule", "whose"),
    [
        ("-A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 8000 -j REJECT", "the host"),
        ("-A OUTPUT -o lo -p tcp -m tcp --dport 8000 -j REJECT", "port 8000"),
        ("-A INPUT -i lo -p tcp -m multiport --dports 22,8000:8100 -j DROP", "port 8000"),
    ],
)
def test_a_rule_on_the_loopback_is_named(rule: str, whose: str) -> None:
    (text,) = named(f"drop [3:180] {rule}", check=HTTP)
    assert f"s traffic of {whose}: {rule} (3 packets" in text


def test_rules_in_nftables_are_not_called_missing() -> None:
    found = result(
        HTTP, "rc 28", "result failed", "tables iptables", "nftable table ip docker-bridges"
    )
    assert found.hints == ("port-not-published",)


def test_what_this_host_publishes_does_not_explain_another() -> None:
    other = HttpCheck(url="http://registry.example/")
    found = result(
        other, "rc 28", "result failed", "resolved 203.0.113.9", "own 127.0.0.1", "own 10.0.0.1"
    )
    assert found.details == ("seen from the host registry.example is 203.0.113.9",)


def test_no_answer_is_never_no_result() -> None:
    assert [r.outcome for r in CheckResults.default()] == ["unknown"]
    assert parse([]) == CheckResults.default()
    assert parse(["sh: 1: Syntax error"]) == CheckResults.default()
    cut = parse(["checks 2", f"0 spec {json.dumps(HTTP.model_dump(mode='json'))}", "0 result pas"])
    assert [(r.name, r.outcome) for r in cut] == [(HTTP.name, "unknown"), ("check 2", "unknown")]
    assert "it was cut off" in cut[0].evidence
    fatal = parse(["checks 1", f"0 spec {TCP.model_dump_json()}", "fatal no directory", "end"])
    assert "no directory" in fatal[0].evidence
    assert parse(["checks 0", "end"]) == ()


@given(
    st.lists(
        st.one_of(
            st.text(),
            st.from_regex(r"[012] (result|rc|ms|inspect|listen|resolved|nat|own|stopped) .*"),
            st.sampled_from(
                [
                    "0 result failed",
                    "0 result passed",
                    "0 stopped",
                    "0 asleep",
                    "0 inspect 1\tnull\tnull\tnull\tnull\tnull\tnull",
                    '0 inspect 1\t"/a"\t"p"\t"redis"\t[]\t[]\t[]',
                    '0 inspect 1\t"/a"\t"p"\t"redis"\t{"Health": 3}\t{"n": 4}\t{"1/tcp": 5}',
                    "0 nat -A X -s 999.1.1.1/99 MASQUERADE",
                    '0 inspect 1\t"a"\t"p"\t""\t{"Status":"dead"}\t{"n":{"IPAddress":"x"}}\t1',
                    "0 own x",
                    "0 resolved x y z",
                ]
            ),
        )
    )
)
def test_whatever_comes_it_is_as_many_results_as_checks(lines: list[str]) -> None:
    specs = [f"{i} spec {c.model_dump_json()}" for i, c in enumerate((TCP, HTTP, EXEC))]
    # A probe repeats nothing: what other lines say of how many were asked comes first.
    lines = [line for line in lines if not re.fullmatch(r"(checks .*|\d+ spec .*)", line)]
    results = parse(["checks 3", *specs, *lines])
    assert [found.name for found in results] == [TCP.name, HTTP.name, EXEC.name]


def test_wrong_checks_are_refused_before_the_host_is_asked() -> None:
    with pytest.raises(ValidationError):
        CheckResults().command("p", [{"kind": "tcp", "address": "nowhere"}])


@pytest.mark.usefixtures("foreseen")
def test_checks_may_come_as_text() -> None:
    text = json.dumps([EXEC.model_dump(mode="json")])
    assert CheckResults().command("p", text) == CheckResults().command("p", [EXEC])


def test_nothing_asked_costs_nothing() -> None:
    command = CheckResults().command("p", []).get_raw_value()
    assert len(command) < 150
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert parse(checked(command, done.stdout)) == ()


# Whatever can be an argument: a NUL cannot, and a lone surrogate is not text.
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
tricky = st.sampled_from(
    [
        "'",
        '"',
        "$(touch ran)",
        "`touch ran`",
        "\n",
        "; touch ran;",
        "-n",
        "--",
        "\\",
        "%s",
        "é",
        "!",
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    project=anything | tricky,
    words=st.lists(anything | tricky, max_size=4),
    text=(anything | tricky).filter(bool),
)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_values_arrive_exactly_and_never_run(
    shell: str,
    project: str,
    words: list[str],
    text: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("values")
    check = ExecCheck(service="api", command=("program", *words), contains=text)
    command = CheckResults().command(project, [check]).get_raw_value()
    # The functions are replaced by one that writes down what each call was given.
    names = ("checks_begin", "checks_containers", "checks_exec", "checks_end")
    functions = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\"; }}\n" for name in names)
    calls = command[command.index("\nchecks_begin ") : command.rindex(") | quoted")]
    script = f"checks_dir={shlex.quote(str(directory))}\n{functions}{calls}"
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, check=True, cwd=directory, timeout=20
    )
    given_values = done.stdout.decode().split("\0")[:-1]
    assert given_values == [
        *("checks_begin", project, "2", "yes"),
        "checks_containers",
        *("checks_exec", "0", "5", "api", "0", "yes", text, "program", *words),
        "checks_end",
    ]
    assert [path.name for path in directory.iterdir()] == ["attempt"]
