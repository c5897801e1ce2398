"""What a host says of what new networks and containers have to fit in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stackmend.compose.facts import DEFAULT_POOLS, parse_declared, parse_surroundings
from stackmend.compose.state import Surroundings
from tests.marks import MARK


def framed(**sections: str) -> list[str]:
    lines = []
    for name, text in sections.items():
        lines += [f"{MARK} begin {name}", *(f"|{line}" for line in text.split("\n"))]
        lines += [".0", f"{MARK} end"]
    return lines


ROUTES = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0
eth0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0
eth0 0000A8C0 010011AC 0003 0 0 0 0000FFFF 0 0 0"""


def around(gpu: str = "", **info: Any) -> Surroundings:
    said = json.dumps({"NCPU": 4, "Runtimes": {"runc": {}}, **info})
    networks = '["bridge",[{"Subnet":"172.17.0.0/16"}]]\n["host",null]\na warning'
    return parse_surroundings(
        framed(networks=networks, info=said, routes=ROUTES, gpu=gpu, absent="/etc/a b.conf"), MARK
    )


def test_all_that_is_there() -> None:
    found = around()
    assert found.subnets == {"bridge": ("172.17.0.0/16",), "host": ()}
    # Neither the default route nor what lies behind a gateway.
    assert found.routes == ("172.17.0.0/16",)
    assert (found.cpus, found.absent, found.pools) == (4, ("/etc/a b.conf",), DEFAULT_POOLS)


def test_pools_of_the_settings() -> None:
    found = around(DefaultAddressPools=[{"Base": "10.0.0.0/8", "Size": 24}])
    assert found.pools == (("10.0.0.0/8", 24),)


@pytest.mark.parametrize(
    ("said", "gpus"),
    [
        ("", "none"),
        ("bus 0x8086", "none"),
        ("bus 0x10de", "no driver"),
        ("bus 0x10de\ndriver\ndriver", "no toolkit"),
        ("bus 0x10de\ndriver\nhook", "usable"),
        ("driver\nhook", "usable"),
        ("bus 0x10de\ncdi\ndriver", None),
        ("bus 0x1002", None),
    ],
)
def test_gpus(said: str, gpus: str | None) -> None:
    assert around(said).gpus == gpus


def test_a_runtime_of_the_engines_settings() -> None:
    assert around("driver", Runtimes={"nvidia": {}}).gpus == "usable"


def test_what_is_not_said_is_not_known() -> None:
    found = parse_surroundings(framed(networks=""), MARK)
    assert found == Surroundings()


def test_warnings_of_compose() -> None:
    warned = (
        'time="2026-01-01T00:00:00Z" level=warning msg="The \\"PORT\\" variable is not set. '
        'Defaulting to a blank string."'
    )
    said = framed(
        unpacked="/tmp/x",
        config='{"services": {}}',
        problem=f"{warned}\n{warned}\nsomething else",
        differs="",
        images="",
    )
    found = parse_declared(said, MARK, "/opt/shop")
    assert found.warnings == ('The "PORT" variable is not set. Defaulting to a blank string.',)
