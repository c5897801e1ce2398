"""DNS messages, and what the probes of the resolver print: read as what they are, or not at all."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.resolver.dns import make_question, parse_answer
from stackmend.resolver.facts import Caches, Resolver, ServerAnswers, _identify
from stackmend.resolver.state import Reply
from tests.marks import MARK

IDENTITY = b"\x12\x0a"
NAME = "git.lab.internal"
QUESTION = b"\3git\3lab\x08internal\0"


def message(*records: bytes, code: int = 0, identity: bytes = IDENTITY) -> str:
    head = identity + bytes((0x81, 0x80 | code, 0, 1, 0, len(records), 0, 0, 0, 0))
    return (head + QUESTION + b"\0\1\0\1" + b"".join(records)).hex()


def record(kind: int, data: bytes, name: bytes = b"\xc0\x0c") -> bytes:
    return name + bytes((0, kind, 0, 1, 0, 0, 0, 60, 0, len(data))) + data


def test_a_question_is_what_a_shell_sends() -> None:
    question = make_question(NAME, 6, IDENTITY)
    sent = subprocess.run(["bash", "-c", 'printf %b "$1"', "x", question], capture_output=True)
    assert sent.stdout == (IDENTITY + b"\1\0\0\1\0\0\0\0\0\0" + QUESTION + bytes((0, 28, 0, 1)))
    assert b"\n" in sent.stdout, "a byte that would part a line, and so a datagram"


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (message(record(1, bytes((192, 0, 2, 11)))), Reply(code=0, addresses=("192.0.2.11",))),
        (
            message(record(5, b"\1x\xc0\x0c"), record(1, b"\1\2\3\4", b"\1x\xc0\x0c")),
            Reply(code=0, addresses=("1.2.3.4",)),
        ),
        (message(record(28, b"\0" * 15 + b"\1")), Reply(code=0, addresses=("::1",))),
        (message(), Reply(code=0)),
        (message(code=3), Reply(code=3)),
        (message(code=2), Reply(code=2)),
        (message().replace("8180", "8380"), Reply(code=-2)),
        (
            message(record(1, b"\1\2\3\4")).replace("8180", "8380"),
            Reply(code=0, addresses=("1.2.3.4",)),
        ),
        (message(identity=b"\0\0"), None),
        (message().replace("8180", "0100"), None),
        (message().replace(b"git".hex(), b"xyz".hex()), None),
        (message(record(1, b"\1\2\3\4"))[:-2], Reply(code=0)),
        ("", None),
        ("zz", None),
        ("12", None),
    ],
)
def test_an_answer_says_what_it_says_or_nothing(text: str, reply: Reply | None) -> None:
    assert parse_answer(text, NAME, IDENTITY) == reply


@given(st.binary(max_size=600))
def test_no_answer_breaks_anything(data: bytes) -> None:
    for raw in (data, IDENTITY + data, bytes.fromhex(message())[:12] + data):
        found = parse_answer(raw.hex(), NAME, IDENTITY)
        assert found is None or 0 <= found.code <= 15 or found == Reply(code=-2)


def frame(**sections: list[str]) -> list[str]:
    lines = []
    for name, body in {**sections, "whole": []}.items():
        lines += [
            "",
            f"{MARK} begin {name}",
            *(f"|{line}" for line in body),
            "",
            ".0",
            f"{MARK} end",
        ]
    return lines


HOST = ["root 0", "target ", "tool bash", "running resolved", "armed "]


def probe(**sections: list[str]) -> list[str]:
    fixed = {"host": HOST, "text": ["nameserver 127.0.0.53"], "routes": [], "default": ["eth0"]}
    return frame(**{**fixed, "links": ["plain eth0 "], **sections})


def test_scopes_of_resolved_are_told_apart(foreseen: str) -> None:
    fact = Resolver()
    fact.command()
    state = fact.process(
        probe(
            links=["plain eth0 /etc/systemd/network/a b.network", "tunnel tun0 "],
            mode=['s "stub"'],
            dns=["Global: 192.0.2.53 192.0.2.54", "Link 2 (eth0): 192.0.2.60", "Link 3 (tun0):"],
            domain=["Global:", "Link 3 (tun0): ~corp.example x.example", "Failed to x"],
        )
    )
    assert state.servers == ("192.0.2.53", "192.0.2.54")
    eth0, tun0 = state.links
    assert (eth0.servers, eth0.default, eth0.tunnel) == (("192.0.2.60",), True, False)
    assert eth0.network == "/etc/systemd/network/a b.network"
    assert (tun0.domains, tun0.tunnel) == (("~corp.example", "x.example"), True)
    assert state.mode == "stub"


@pytest.mark.parametrize(
    ("sections", "resolved"),
    [({}, None), ({"resolved": []}, ()), ({"resolved": ["b.example", NAME]}, (NAME,))],
)
def test_names_that_resolve_are_those_asked_for(
    sections: dict[str, list[str]], resolved: tuple[str, ...] | None, foreseen: str
) -> None:
    fact = Resolver()
    fact.command((NAME, "a.example"))
    assert fact.process(probe(**sections)).resolved == resolved


def test_connections_have_the_servers_that_they_have_now(foreseen: str) -> None:
    fact = Resolver()
    fact.command()
    state = fact.process(
        probe(
            connections=["u1:802-3-ethernet:eth0:/etc/x:y.nmconnection", "odd"],
            settings=[
                "u1 ipv4.method:auto",
                "u1 ipv4.dns:192.0.2.1, 192.0.2.2",
                "u1 IP4.DNS[1]:192.0.2.9",
                "u1 IP6.DNS[1]:2001:db8::53",
            ],
        )
    )
    (connection,) = state.connections
    assert connection.path == "/etc/x:y.nmconnection"
    assert connection.settings == {
        "ipv4.method": "auto",
        "ipv4.dns": "192.0.2.1,192.0.2.2",
        "ipv4.has-dns": "yes",
        "ipv6.has-dns": "yes",
        "dns": "192.0.2.9,2001:db8::53",
    }


def test_records_are_those_of_their_interfaces(foreseen: str) -> None:
    fact = Resolver()
    fact.command()
    state = fact.process(
        probe(
            records=["192.0.2.1 eth0.dhcp", "10.8.0.1 wg0", "192.0.2.2 eth0.dhcp"],
            searches=["lab.example eth0.dhcp", "corp.lan wg0"],
        )
    )
    assert state.records == {"eth0.dhcp": ("192.0.2.1", "192.0.2.2"), "wg0": ("10.8.0.1",)}
    assert state.searches == {"eth0.dhcp": ("lab.example",), "wg0": ("corp.lan",)}


@pytest.mark.parametrize(
    ("named", "lasting"),
    [
        ("192.0.2.53", "192.0.2.53"),
        ("192.0.2.53:53", "192.0.2.53"),
        ("192.0.2.53:53%eth0#dns.example", "192.0.2.53"),
        ("192.0.2.53#dns.example", "192.0.2.53"),
        ("192.0.2.53:5353", "192.0.2.53:5353"),
        ("2001:DB8:0::53", "2001:db8::53"),
        ("[2001:db8::53]:53", "2001:db8::53"),
        ("[2001:db8::53]", "2001:db8::53"),
        ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ("fe80::1%eth0", "fe80::1"),
        ("_gateway", "_gateway"),
    ],
)
def test_a_server_is_the_same_however_systemd_takes_it(
    named: str, lasting: str, foreseen: str
) -> None:
    fact = Resolver()
    fact.command()
    lines = ["eth0 file 192.0.2.1", "eth0 file ", f"eth0 file {named}", "eth0 lease 192.0.2.9", ""]
    (link,) = fact.process(probe(lasting=lines)).links
    assert link.lasting == (lasting, "192.0.2.9")


def test_answers_of_both_families_are_one(foreseen: str) -> None:
    fact = ServerAnswers()
    fact.command(("192.0.2.53", "192.0.2.54"), (NAME,))
    identity = _identify(NAME, MARK)
    right = message(record(1, b"\1\2\3\4"), identity=identity)
    lines = [
        f"192.0.2.53 {NAME} 6 {message(identity=identity)}",
        f"192.0.2.53 {NAME} 4 {right}",
        f"192.0.2.53 other.example 4 {right}",
        f"192.0.2.54 {NAME} 4 {message(code=3)}",
        "192.0.2.54",
    ]
    for ordered in (lines, lines[::-1]):
        answers = fact.process(frame(answers=ordered))
        assert answers.replies == {
            "192.0.2.53": {NAME: Reply(code=0, addresses=("1.2.3.4",))},
            # One of another reading is none.
            "192.0.2.54": {NAME: Reply(code=-1)},
        }


@contextmanager
def serving(udp: Callable[[bytes], bytes], *, tcp: bool) -> Iterator[int]:
    """A DNS server on a port of its own."""
    links: list[socket.socket] = []

    def stream() -> None:
        with suppress(TimeoutError):
            while True:
                link, _ = listener.accept()
                links.append(link)
                asked = link.recv(4096)
                assert int.from_bytes(asked[:2]) == len(asked) - 2
                records = [record(1, b"\1\2\3\4")] * 40
                answer = bytes.fromhex(message(*records, identity=asked[2:4]))
                # In parts, as networks have it, and left open behind it.
                link.sendall(len(answer).to_bytes(2) + answer[:99])
                time.sleep(0.05)
                link.sendall(answer[99:])

    def datagrams() -> None:
        with suppress(TimeoutError):
            while True:
                asked, peer = receiver.recvfrom(4096)
                receiver.sendto(udp(asked), peer)

    with socket.socket() as listener, socket.socket(type=socket.SOCK_DGRAM) as receiver:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        receiver.bind(("127.0.0.1", port))
        threads = [threading.Thread(target=datagrams)]
        if tcp:
            listener.listen()
            threads.append(threading.Thread(target=stream))
        for place in (listener, receiver):
            place.settimeout(3)
        for thread in threads:
            thread.start()
        yield port
        for thread in threads:
            thread.join()
        for link in links:
            link.close()


def answer_slowly(asked: bytes) -> bytes:
    """One question waits behind the other."""
    time.sleep(0.7)
    return bytes.fromhex(message(code=3, identity=asked[:2]))


@pytest.mark.parametrize(
    ("udp", "tcp", "reply"),
    [
        ("cut", True, Reply(code=0, addresses=("1.2.3.4",))),
        ("cut", False, Reply(code=-2)),
        ("garbage", False, Reply(code=-1)),
        ("whole", False, Reply(code=3)),
        ("slow", False, Reply(code=3, late=True)),
    ],
)
def test_an_answer_is_fetched_whole(udp: str, tcp: bool, reply: Reply) -> None:
    answers: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda asked: bytes.fromhex(message(identity=asked[:2]).replace("8180", "8380", 1)),
        "garbage": lambda asked: b"SSH-2.0-OpenSSH_9.2\r\n",
        "whole": lambda asked: bytes.fromhex(message(code=3, identity=asked[:2])),
        "slow": answer_slowly,
    }
    fact = ServerAnswers()
    line = fact.command(("127.0.0.1",), (NAME,)).get_raw_value()
    with serving(answers[udp], tcp=tcp) as port:
        line = line.replace("/53", f"/{port}")
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert fact.process(done.stdout.splitlines()).replies == {"127.0.0.1": {NAME: reply}}


def test_a_host_that_cannot_ask_is_unreadable(foreseen: str) -> None:
    asking, comparing = ServerAnswers(), Caches()
    asking.command(("192.0.2.53",), (NAME,))
    comparing.command((NAME,))
    for fact in (asking, comparing):
        with pytest.raises(Exception, match="the host has no bash, od, dd, timeout or getent"):
            fact.process(frame(missing=[]))


def test_caches_are_compared_but_for_names_of_links(foreseen: str) -> None:
    fact = Caches()
    names = (NAME, "db.corp.example")
    fact.command(names)
    lines = ["nscd size 3", "unbound size x", "bind size 1"]
    for name in names:
        lines += [f"nscd asked {name}", f"nscd looked {name} 192.0.2.11 junk"]
    lines += ["nscd upstream 192.0.2.53", "nscd upstream 192.0.2.54", "bind upstream 192.0.2.55"]
    identity = _identify(NAME, MARK)
    lines.append(
        f"nscd 192.0.2.53 {NAME} 4 {message(record(1, bytes((9, 9, 9, 9))), identity=identity)}"
    )
    state = fact.process(
        frame(
            host=["root 0", "wsl yes"],
            caches=lines,
            domain=["Link 3 (tun0): ~corp.example"],
        )
    )
    nscd, unbound, windows = state.caches
    assert (nscd.size, unbound.size, windows.name) == (3, None, "windows")
    assert nscd.upstream == ("192.0.2.53", "192.0.2.54"), "one that is silent is one as well"
    assert nscd.names == (NAME,)
    assert nscd.cached == {NAME: Reply(code=0, addresses=("192.0.2.11",))}
    assert nscd.raw == {NAME: (Reply(code=0, addresses=("9.9.9.9",)),)}


def test_a_mac_has_a_cache_of_its_own(foreseen: str) -> None:
    fact = Caches()
    fact.command((NAME,))
    state = fact.process(frame(host=["root 0", "system Darwin"], caches=[], domain=[]))
    assert [cache.name for cache in state.caches] == ["macos"]
