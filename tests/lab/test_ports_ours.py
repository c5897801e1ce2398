"""Ports that are free or our own; and the same answers with whatever tools and login there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.fixtures import Lab
from tests.lab.holders import HOLD, Shelf, hide, pids
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import EVERYTHING, Runs

OURS = {"project": "ours", "directory": "/opt/ours"}
RANGE = "127.0.0.1:21050-21052"
FREE = ["21060", "21061/udp", "[::1]:21062"]
#: What can be told apart without any tool but a shell.
HELD = (
    "python",
    "user",
    "reuseport",
    "loopback",
    "dual",
    "udp",
    "bound",
    "stubborn",
    "unit",
    "idle",
    "awake",
    "host-network",
    "restarting",
)
HARMLESS = ("v6only", "namespace")

#: What a host may lack, and what is then left to look with.
LACKING = {
    "nothing": (),
    "python3": ("python3",),
    "ss": ("ss",),
    "python3 and ss": ("python3", "ss"),
    "python3, perl and ss": ("python3", "perl", "ss"),
}


@pytest.fixture(scope="module")
def shelf(lab: Lab) -> Iterator[Shelf]:
    host = lab.take(1)[0]
    host.put(
        "/opt/ours/compose.yaml",
        yaml.safe_dump(
            {
                "services": {
                    "web": {
                        "image": "lab/box:1",
                        "ports": [f"{RANGE}:8050-8052", "21053:80", "21054:53/udp"],
                    }
                }
            }
        ),
    )
    host.sh(
        "sysctl -q -w net.ipv6.conf.lo.disable_ipv6=0; cd /opt/ours; docker compose -p ours up -d"
    )
    shelf = Shelf(host)
    shelf.put(*HELD, *HARMLESS)
    yield shelf
    shelf.clear()
    host.sh("sysctl -q -w net.ipv6.conf.lo.disable_ipv6=1")


@pytest.fixture
def host(shelf: Shelf) -> LabHost:
    return shelf.host


@pytest.fixture
def runs(shelf: Shelf, tmp_path: Path) -> Runs:
    return Runs(tmp_path, shelf.host)


# Free, or ours


@pytest.mark.parametrize("policy", ["report", "stop"])
def test_what_is_free_or_ours_is_left_as_it_is(host: LabHost, runs: Runs, policy: str) -> None:
    before, moment, mark = host.identities(), host.now(), host.mark()
    result = runs.free(
        [RANGE, "21053", "21054/udp", *FREE], **OURS, on_conflict=policy, allow=EVERYTHING
    )
    assert result.run.rc == 0, result.run.out
    assert "No changes" in result.run.out
    assert result.host["outcome"] == "converged"
    assert [result.all(what) for what in ("findings", "planned", "done", "refusals")] == [[]] * 4
    assert host.identities() == before
    assert host.events_since(moment) == []
    assert not host.exists("/var/lib/stackmend/ports")
    assert len(host.sessions_since(mark)) == 1


def test_the_verdicts_are_told_apart(runs: Runs) -> None:
    desired = ",".join([RANGE, "21053", "21054/udp", *FREE])
    done = runs.fact(f"{desired}", "project=ours", "directory=/opt/ours")
    statuses = {key: row["status"] for key, row in done["ports"].items()}
    ours = ["21050/tcp", "21051/tcp", "21052/tcp", "21053/tcp", "21054/udp"]
    assert statuses == {
        **dict.fromkeys(ours, "ours"),
        **dict.fromkeys(("21060/tcp", "21061/udp", "21062/tcp"), "free"),
    }


@pytest.mark.parametrize(
    "whose",
    [{"project": "theirs", "directory": "/opt/ours"}, {"project": "ours", "directory": "/opt"}],
    ids=["another project", "another directory"],
)
def test_what_only_looks_like_ours_is_held(
    host: LabHost, runs: Runs, whose: dict[str, str]
) -> None:
    before = host.identities()
    result = runs.free(["21053"], **whose)
    assert result.run.rc == 1, result.run.out
    assert result.rules(21053), result.run.out
    assert host.identities() == before


def test_what_bears_our_labels_from_its_image_is_held(host: LabHost, runs: Runs) -> None:
    """docker commit keeps Compose's labels: no rule for the project ends what runs from it."""
    host.docker("commit", "ours-web-1", "snap:1")
    host.docker("run", "-d", "--name", "mydebug", "-p", "21058:80", "snap:1")
    before = host.identities()
    try:
        found = runs.fact("21053,21058", "project=ours", "directory=/opt/ours")
        assert {key: row["status"] for key, row in found["ports"].items()} == {
            "21053/tcp": "ours",
            "21058/tcp": "held",
        }
        allow = ["project:ours", "project:*"]
        result = runs.free(["21058"], **OURS, on_conflict="stop", allow=allow)
        assert result.run.rc == 1, result.run.out
        assert result.rules(21058) == ["container:mydebug"], result.run.out
        assert host.identities() == before
        # By its own name it is.
        result = runs.free(["21058"], **OURS, on_conflict="stop", allow=["container:mydebug"])
        assert result.run.rc == 0, result.run.out
        assert host.inspect("mydebug")["State"]["Status"] == "exited"
        assert host.inspect("ours-web-1")["State"]["Status"] == "running"
    finally:
        host.docker("rm", "-f", "mydebug")
        host.docker("image", "rm", "-f", "snap:1")


def test_a_stopped_container_of_ours_holds_nothing(host: LabHost, runs: Runs) -> None:
    host.docker("stop", "ours-web-1")
    try:
        result = runs.free([RANGE, "21053"], **OURS)
        assert result.run.rc == 0, result.run.out
        assert "No changes" in result.run.out
    finally:
        host.docker("start", "ours-web-1")


# The same answer with whatever there is to look with


def answers(found: dict[str, Any]) -> dict[str, tuple[str, frozenset[str]]]:
    """Port → its status and who holds it: what may not depend on how it was found out."""
    result = {}
    for port, row in found["ports"].items():
        who = set()
        for holder in row.get("holders", ()):
            container, process = holder.get("container") or {}, holder.get("process") or {}
            unit = (holder.get("unit") or {}).get("name", "").rpartition(".")[0]
            who.add(container.get("name") or unit or f"{holder['kind']} {process.get('pid')}")
        result[port] = (row["status"], frozenset(who))
    return result


@pytest.fixture(scope="module")
def expected(shelf: Shelf) -> dict[str, tuple[str, frozenset[str]]]:
    """What is true, from outside."""
    who = {
        "unit": {"lab-unit"},
        "idle": {"lab-idle"},
        "awake": {"lab-awake"},
        "host-network": {"host-network"},
        "restarting": {"restarting"},
    }
    result: dict[str, tuple[str, frozenset[str]]] = {}
    for key in HELD:
        bare = {f"process {pid}" for pid in pids(shelf.host, shelf[key].port)}
        result[shelf[key].desired] = ("held", frozenset(who.get(key, bare)))
    return {**result, **{shelf[key].desired: ("free", frozenset()) for key in HARMLESS}}


@pytest.mark.parametrize("lacking", LACKING)
def test_the_answer_does_not_depend_on_the_tools(
    shelf: Shelf, runs: Runs, expected: dict[str, tuple[str, frozenset[str]]], lacking: str
) -> None:
    back = hide(shelf.host, *LACKING[lacking])
    try:
        found = runs.fact(",".join(shelf.desired()))
    finally:
        back()
    result, bound = answers(found), shelf["bound"].desired
    want = dict(expected)
    rows = found["ports"].values()
    if "python3" in LACKING[lacking]:
        # That something has it is certain as long as it can be tried.
        tried = "perl" not in LACKING[lacking]
        if result[bound] != want[bound]:
            assert result[bound][0] in (("held",) if tried else ("held", "unknown", "free"))
            want[bound] = result[bound]
        if not tried:
            # Whether a socket of IPv6 takes IPv4 as well is in no table: never an innocent's end.
            for name in ("dual", "v6only", "host-network"):
                assert result[shelf[name].desired][0] == "unknown"
                want[shelf[name].desired] = result[shelf[name].desired]
    assert result == want
    statuses = {row["evidence"] for row in rows if row["status"] == "free"}
    assert len(statuses) == 1, statuses
    by = {
        "nothing": "python3",
        "ss": "python3",
        "python3": "perl",
        "python3 and ss": "perl",
        "python3, perl and ss": "/proc/net",
    }
    assert by[lacking] in statuses.pop()


@pytest.mark.parametrize("user", ["operator", "keeper"])
def test_the_answer_does_not_depend_on_the_login(
    shelf: Shelf, tmp_path: Path, expected: dict[str, tuple[str, frozenset[str]]], user: str
) -> None:
    found = Runs(tmp_path, shelf.host, user).fact(",".join(shelf.desired()))
    assert answers(found) == expected


def test_without_rights_what_cannot_be_seen_is_never_free(shelf: Shelf, tmp_path: Path) -> None:
    """As operator, and without sudo."""
    runs = Runs(tmp_path, shelf.host, "operator")
    runs.extra = {"_sudo": False}
    found = runs.fact(",".join(shelf.desired(HELD)))
    assert found.get("root", True) is False
    assert {row["status"] for row in found["ports"].values()} <= {"held", "unknown"}


def test_a_person_can_read_the_fact(shelf: Shelf, runs: Runs) -> None:
    done = runs.fact_run("21001", as_json=False)
    assert done.rc == 0, done.out
    (pid,) = pids(shelf.host, 21001)
    printed = done.out[done.out.index("PortHolders") :]
    assert str(pid) in printed
    assert "hold.py" in printed
    assert "null" not in printed


# With consent, by each kind of rule


def test_a_consent_that_names_something_else_is_none(shelf: Shelf, runs: Runs) -> None:
    before = shelf.picture()
    others = ["exe:/usr/bin/perl*", "unit:*", "container:*", "project:*", "user:keeper"]
    result = runs.stop(shelf.desired(["python", "user"]), allow=others)
    assert result.run.rc == 1, result.run.out
    assert result.host["outcome"] == "refused"
    assert result.rules() == ["exe:/usr/bin/python3.11"]
    assert result.all("planned") == []
    assert shelf.picture() == before


@dataclass(frozen=True)
class Consent:
    """Who runs it with what there is, what is freed, and the rules that name exactly that."""

    user: str
    lacking: str
    names: tuple[str, ...]
    allow: tuple[str, ...]


CONSENTS = {
    "a program": Consent(
        "root", "python3, perl and ss", ("python", "stubborn"), ("exe:/usr/bin/python3.*",)
    ),
    "a user": Consent("keeper", "python3 and ss", ("user",), ("user:keeper",)),
    "a unit": Consent(
        "operator", "nothing", ("unit", "idle"), ("unit:lab-unit.*", "unit:lab-idle.*")
    ),
    "a container": Consent("keeper", "python3", ("host-network",), ("container:host-networ?",)),
}


@pytest.mark.parametrize("case", CONSENTS)
def test_it_is_freed_with_whatever_there_is(shelf: Shelf, tmp_path: Path, case: str) -> None:
    consent = CONSENTS[case]
    ended = {name for one in CONSENTS.values() for name in one.names}
    others = [name for name in shelf.here if name not in ended]
    before = shelf.picture(*others)
    back = hide(shelf.host, *LACKING[consent.lacking])
    try:
        runs = Runs(tmp_path, shelf.host, consent.user)
        result = runs.stop(shelf.desired(consent.names), allow=consent.allow)
    finally:
        back()
    assert result.run.rc == 0, result.run.out
    assert result.host["outcome"] == "changed"
    assert shelf.taken_within(2, *consent.names) == set()
    assert shelf.picture(*others) == before


def test_a_project_is_consent_enough_for_its_containers(host: LabHost, runs: Runs) -> None:
    result = runs.stop(["21053"], allow=["project:our*"])
    assert result.run.rc == 0, result.run.out
    assert host.inspect("ours-web-1")["State"]["Status"] == "exited"


# What a service only started for somebody is not that service


@pytest.mark.parametrize("service", ["ssh", "cron"])
def test_a_child_of_a_login_or_a_job_is_a_process(shelf: Shelf, runs: Runs, service: str) -> None:
    host, port = shelf.host, {"ssh": 21071, "cron": 21072}[service]
    command = f"setsid {HOLD} tcp 0.0.0.0 {port} < /dev/null > /dev/null 2>&1 &"
    # Its control group, wherever the hierarchies are mounted.
    host.run(
        f"path=$(grep -E '^0:|name=systemd' /proc/$(systemctl show -p MainPID --value {service})"
        "/cgroup | head -n 1 | cut -d : -f 3); for root in '' /systemd /unified; do "
        "echo $$ > /sys/fs/cgroup$root$path/cgroup.procs; done; " + command
    )
    host.wait_for(f"ss -Hltn 'sport = :{port}' | grep -q .")
    main = f"systemctl show -p MainPID,ActiveState {service}"
    (pid,), before = pids(host, port), host.sh(main)
    assert f"/{service}.service" in host.sh(f"cat /proc/{pid}/cgroup")
    (holder,) = runs.fact(str(port))["ports"][f"{port}/tcp"]["holders"]
    assert (holder["kind"], holder["process"]["pid"]) == ("process", pid)
    result = runs.stop([port], allow=["exe:/usr/bin/python3.11"])
    assert result.run.rc == 0, result.run.out
    assert pids(host, port) == []
    assert host.sh(main) == before
