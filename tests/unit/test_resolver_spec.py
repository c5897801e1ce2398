"""What is wrong in the section ``resolver`` is one clear error, before any host is contacted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackmend.resolver.spec import CHECK_NAMES, MAXIMUM_SERVERS, ServersSpec
from stackmend.spec import SpecError, parse_machine


def parse(**section: Any) -> Any:
    machine = parse_machine({"stack": {"resolver": section}})
    assert machine is not None
    return machine.resolver


@pytest.mark.parametrize(
    ("section", "error"),
    [
        ({"servers": ["192.0.2"]}, "servers[0]: must be the address of a DNS server"),
        ({"servers": ["192.0.2.256"]}, "servers[0]: must be the address of a DNS server"),
        ({"servers": ["192.0.2.53:53"]}, "servers[0]: must be the address of a DNS server"),
        ({"servers": ["https://192.0.2.53"]}, "servers[0]: must be the address of a DNS server"),
        (
            {"servers": ["192.0.2.53", "dns.example.com"]},
            "servers[1]: must be the address of a",
        ),
        ({"servers": ["localhost"]}, "not a name"),
        ({"servers": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]}, "must be at most 3"),
        ({"servers": ["192.0.2.53", "192.0.2.53"]}, "192.0.2.53 is there twice"),
        ({"servers": ["2001:db8::1", "2001:DB8:0::1"]}, "2001:db8::1 is there twice"),
        ({"servers": ["0.0.0.0"]}, "is no address of a server"),
        ({"servers": ["::"]}, "is no address of a server"),
        ({"servers": ["224.0.0.251"]}, "is no address of a server"),
        ({"servers": ["255.255.255.255"]}, "is no address of a server"),
        ({"servers": ["127.0.0.53"]}, "is systemd-resolved itself"),
        ({"servers": ["127.0.0.11"]}, "is Docker's resolver inside containers itself"),
        ({"servers": ["fe80::1"]}, "name its link: fe80::1%eth0"),
        ({"servers": ["2001:db8::1%eth0"]}, "only a link-local address has a link"),
        ({"servers": ["fe80::1%a b"]}, "only a link-local address has a link"),
        ({"servers": ["::ffff:192.0.2.53"]}, "is an IPv4 address; write 192.0.2.53"),
        ({"servers": []}, "servers"),
        ({"servers": [53]}, "servers[0]"),
        ({"search": ["a.example"]}, "search goes with servers, and none are named"),
        ({"on_conflict": "force"}, "on_conflict goes with servers, and none are named"),
        ({"revert_after": 9}, "revert_after goes with servers, and none are named"),
        (
            {"check_names": ["stackmend-check.invalid"]},
            "check_names[0]: stackmend-check.invalid can",
        ),
        ({"check_names": ["a.example", "Invalid."]}, "check_names[1]: invalid can have no"),
        ({"search": ["~corp.example"]}, "search[0]: ~corp.example routes names to a link"),
        ({"search": ["a b"]}, "search[0]: must be a name"),
        ({"search": ["x.example"] * 2}, "is there twice"),
        ({"search": [f"d{n}.example" for n in range(7)]}, "must be at most 6 domains"),
        ({"check_names": []}, "check_names"),
        ({"check_names": ["192.0.2.1"]}, "check_names[0]: must be a name"),
        ({"check_names": ["-x.example"]}, "check_names[0]: must be a name"),
        ({"check_names": ["a..example"]}, "check_names[0]: must be a name"),
        ({"check_names": ["$(id).example"]}, "check_names[0]: must be a name"),
        ({"on_conflict": "ask"}, "on_conflict"),
        ({"revert_after": 2}, "revert_after"),
        ({"flush": "sometimes"}, "flush"),
        ({"server": ["192.0.2.53"]}, "server: unknown key"),
    ],
)
def test_what_is_wrong_is_one_error(section: dict[str, Any], error: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse(**section)
    text = str(refused.value)
    assert text.startswith(("stack.resolver.", "stack.resolver: "))
    assert error in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("given", "servers"),
    [
        ("192.0.2.53", ("192.0.2.53",)),
        (["192.0.2.53", "2001:DB8::0053"], ("192.0.2.53", "2001:db8::53")),
        (["fe80::1%eth0"], ("fe80::1%eth0",)),
        (["127.0.0.1"], ("127.0.0.1",)),
        (["169.254.169.253"], ("169.254.169.253",)),
    ],
)
def test_what_is_right_is_as_it_is_compared(given: Any, servers: tuple[str, ...]) -> None:
    assert parse(servers=given).servers == servers


def test_names_are_compared_in_one_form() -> None:
    section = parse(servers="192.0.2.53", check_names="Git.Example.COM.", search="Example.com")
    assert (section.check_names, section.search) == (("git.example.com",), ("example.com",))


def test_the_section_alone_is_a_machine_and_changes_nothing_by_itself(tmp_path: Path) -> None:
    section = parse()
    assert section.servers is None
    assert section.flush == "symptom"
    assert section.check_names == CHECK_NAMES
    assert len(ServersSpec(servers=("192.0.2.1",) * 1).servers) <= MAXIMUM_SERVERS
