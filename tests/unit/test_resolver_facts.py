"""DNS messages, and what the probes of the resolver print: read as what they are, or not at all."""

from __future__ import annotations

import subprocess

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
        assert found is None or 0 <= found.code <= 15


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
            ],
        )
    )
    (connection,) = state.connections
    assert connection.path == "/etc/x:y.nmconnection"
    assert connection.settings == {
        "ipv4.method": "auto",
        "ipv4.dns": "192.0.2.1,192.0.2.2",
        "ipv4.has-dns": "yes",
        "dns": "192.0.2.9",
    }


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
        assert answers.replies == {"192.0.2.53": {NAME: Reply(code=0, addresses=("1.2.3.4",))}}, (
            "one of an other reading is none"
        )


def test_a_host_that_cannot_ask_is_unreadable(foreseen: str) -> None:
    fact = ServerAnswers()
    fact.command(("192.0.2.53",), (NAME,))
    with pytest.raises(Exception, match="the host has no bash, od, dd or timeout"):
        fact.process(frame(missing=[]))


def test_caches_are_compared_but_for_names_of_links(foreseen: str) -> None:
    fact = Caches()
    names = (NAME, "db.corp.example")
    fact.command(names)
    lines = ["nscd size 3", "unbound size x", "bind size 1"]
    for name in names:
        lines.append(f"nscd looked {name} 192.0.2.11 junk")
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
    assert nscd.cached == {NAME: Reply(code=0, addresses=("192.0.2.11",))}
    assert nscd.raw == {NAME: (Reply(code=0, addresses=("9.9.9.9",)),)}


def test_a_mac_has_a_cache_of_its_own(foreseen: str) -> None:
    fact = Caches()
    fact.command((NAME,))
    state = fact.process(frame(host=["root 0", "system Darwin"], caches=[], domain=[]))
    assert [cache.name for cache in state.caches] == ["macos"]
