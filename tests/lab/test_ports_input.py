"""Ports that cannot be: one clear error each, and nothing is done on any host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import Runs

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "port 0": ({"ports": [0]}, "0 is no port; ports go from 1 to 65535"),
    "port 70000": ({"ports": ["80", "70000"]}, "70000 is no port; ports go from 1 to 65535"),
    "a protocol": ({"ports": ["6379/sctp"]}, "'sctp' is not supported; it must be tcp or udp"),
    "an empty range": ({"ports": ["8010-8000"]}, "an empty range; write it as 8000-8010"),
    "no port": ({"ports": ["redis"]}, "'redis' is not a port: write PORT, FIRST-LAST"),
    "a name": ({"ports": ["localhost:80"]}, "localhost is not an IP address of the host"),
    "a rule": ({"ports": [80], "allow": ["redis"]}, "must be one of 'exe:…', 'unit:…'"),
    "a policy": ({"ports": [80], "on_conflict": "kill"}, "on_conflict"),
}


@pytest.fixture(scope="module")
def idle_host(lab: Lab) -> LabHost:
    return lab.take(1)[0]


@pytest.mark.parametrize("case", WRONG)
def test_it_is_one_error_that_says_what_would_be_right(
    idle_host: LabHost, tmp_path: Path, case: str
) -> None:
    given, output = WRONG[case]
    result = Runs(tmp_path, idle_host).execute(free=given)
    assert result.run.rc == 1, result.run.out
    (error,) = result.all("errors")
    assert output in error["message"]
    assert "\n" not in error["message"]
    assert [result.all(what) for what in ("findings", "planned", "done", "refusals")] == [[]] * 4
    assert not idle_host.exists("/var/lib/stackmend")


def test_an_address_that_the_host_does_not_have(idle_host: LabHost, tmp_path: Path) -> None:
    runs = Runs(tmp_path, idle_host)
    found = runs.fact("192.0.2.7:80,81")
    assert found["ports"]["81/tcp"]["status"] == "free"
    result = runs.stop(["192.0.2.7:80"])
    assert result.run.rc == 1, result.run.out
    assert result.host["outcome"] == "refused"
    (refusal,) = result.all("refusals")
    assert "192.0.2.7" in str(refusal)
    assert "address" in refusal["reason"]
    assert result.all("done") == []


# Ports that the kernel gives to connections


def test_a_port_that_connections_may_be_given_is_reserved_beside_what_is(
    idle_host: LabHost, tmp_path: Path
) -> None:
    host, runs = idle_host, Runs(tmp_path, idle_host)
    host.put("/etc/sysctl.d/50-theirs.conf", "net.ipv4.ip_local_reserved_ports = 45000\n")
    host.sh(
        "sysctl -q -w net.ipv4.ip_local_reserved_ports=45000,45100-45102 "
        "net.ipv4.ip_local_port_range='40000 60999'"
    )
    ports = ["127.0.0.1:45678", "45680-45681", 45101, 39000, 8080]
    printed = "cat /proc/sys/net/ipv4/ip_local_reserved_ports"
    try:
        reported = runs.free(ports)
        assert reported.run.rc == 0, reported.run.out
        assert host.sh(printed) == "45000,45100-45102"
        result = runs.free(ports, on_conflict="stop")
        assert result.run.rc == 0, result.run.out
        assert host.sh(printed) == "45000,45100-45102,45678,45680-45681"
        theirs = host.read("/etc/sysctl.d/50-theirs.conf").decode()
        assert theirs == "net.ipv4.ip_local_reserved_ports = 45000\n"
        again = runs.free(ports, on_conflict="stop")
        assert "No changes" in again.run.out, again.run.out
        # After a start of the host as well, whatever its other files say.
        host.sh("sysctl -q -w net.ipv4.ip_local_reserved_ports=; sysctl -q --system")
        assert host.sh(printed) == "45000,45100-45102,45678,45680-45681"
        back = runs.restored(*result.records)
        assert back.run.rc == 0, back.run.out
        assert host.sh(printed) == "45000,45100-45102"
    finally:
        host.sh(
            "sysctl -q -w net.ipv4.ip_local_reserved_ports= "
            "net.ipv4.ip_local_port_range='32768 60999'"
        )
