"""Whoever holds a port: told rightly, left alone without consent, ended with it, and brought back.

Every kind of holder stands on one host, each on a port of its own, and a few runs are judged from
outside for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.holders import (
    ARGUMENT,
    CWD,
    GREETING,
    HARMLESS,
    HOLDERS,
    HOME,
    SECOND,
    THIRD,
    Shelf,
    environment,
    pids,
)
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import RECORDS, Runs, Told
from tests.lab.stacks import EVERYWHERE

PYTHON = "/usr/bin/python3.11"
EVERY = tuple(HOLDERS)
HELD = tuple(name for name in EVERY if name not in HARMLESS)
#: Its process may not be ended for it, and ends in its own time.
OUTGOING = "outgoing"
#: Ended, it comes back: nothing that a consent to end it would free.
LOOP = "loop"
FREED = tuple(name for name in HELD if name not in (OUTGOING, LOOP))
#: Those that only want of consent protects: beside another refusal it would not be put to the test.
ENDABLE = (*FREED, LOOP)

#: Holder → who has its socket in the end, by the kernel's own list: the lab has what it says.
SOCKETS = {
    **{key: {"python3"} for key in FREED},
    **{key: {"docker-proxy"} for key in ("project", "restarting", "second")},
    "host-network": {"httpd"},
    "no-proxy": {"dockerd"},
    "podman": {"conmon"},
    "idle": {"systemd"},
    "awake": {"systemd", "python3"},
    "bound": set(),
    LOOP: {"python3"},
    OUTGOING: {"python3"},
}

PROCESSES = ("python", "user", "reuseport", "loopback", "dual", "udp", "bound", "stubborn", LOOP)


def kinds(name: str) -> set[str]:
    """What a holder may be called; a socket that its service has as well is either."""
    known = {
        **{key: {"process"} for key in PROCESSES},
        **{key: {"unit"} for key in ("unit", "always")},
        "idle": {"socket unit"},
        "awake": {"unit", "socket unit"},
        "supervisor": {"program"},
        OUTGOING: {"outgoing"},
    }
    return known.get(name, {"container"})


def subject(name: str) -> str:
    """What a plan must name."""
    known = {
        **{key: f"lab-{key}" for key in ("unit", "always", "idle", "awake")},
        "supervisor": "shelf",
        "project": "elsewhere-web-1",
        "restarting": "restarting",
        "host-network": "host-network",
        "second": "second",
        "no-proxy": "third",
        "podman": "pod",
    }
    return known.get(name, "")


def verb(name: str) -> str:
    """How it is asked to let go."""
    (kind,) = {kind.removeprefix("socket ") for kind in kinds(name)}
    return f"stop {kind}"


@dataclass
class Evidence:
    """What the runs said, and what the host showed from outside between them."""

    host: LabHost
    shelf: Shelf
    runs: Runs
    picture: dict[str, dict[str, str]] = field(default_factory=dict)
    taken: dict[str, set[str]] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    pids: dict[str, list[int]] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    files: list[dict[str, str]] = field(default_factory=list)
    sockets: dict[str, set[str]] = field(default_factory=dict)

    def look(self, when: str) -> None:
        self.picture[when] = self.shelf.picture()
        self.taken[when] = self.shelf.taken()

    def desired(self, *names: str) -> list[str]:
        return self.shelf.desired(names)

    def fact(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.facts["ports"][self.shelf[name].desired]
        return found

    def rules(self, names: tuple[str, ...]) -> list[str]:
        """The consent that the first run asked for, for these holders."""
        told = self.told["report"]
        return [rule for name in names for rule in told.rules(self.shelf[name].port)]


def files(host: LabHost) -> dict[str, str]:
    """What lies on the host, without the engine's passing files and the times of shared memory."""
    passing = ("/tmp/runc-process", "/dev/shm", "/etc/mtab")
    return {
        path: shown
        for path, shown in host.snapshot_files(*EVERYWHERE).items()
        if not path.startswith(passing) and path not in ("/tmp", "/var/tmp")
    }


def sockets(shelf: Shelf) -> dict[str, set[str]]:
    """Holder → the programs that have its socket, by ``ss``."""
    rows = shelf.host.sh("ss -Htuanp").splitlines()
    found: dict[str, set[str]] = {}
    for name in HELD:
        port = shelf[name].port
        mine = [row for row in rows if row.split()[4].rpartition(":")[2] == str(port)]
        found[name] = set(re.findall(r'\("([^"]+)"', " ".join(mine)))
    return found


@pytest.fixture(scope="module")
def shelf(lab: Lab) -> Iterator[Shelf]:
    shelf = Shelf(lab.take(1)[0])
    shelf.put(*EVERY)
    yield shelf
    shelf.clear()


@pytest.fixture(scope="module")
def seen(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Looked at, reported, planned, ended with exactly the consent asked for, and brought back."""
    host = shelf.host
    seen = Evidence(host, shelf, Runs(tmp_path_factory.mktemp("holders"), host))
    seen.sockets = sockets(shelf)
    seen.pids = {name: pids(host, shelf[name].port) for name in EVERY}
    seen.look("before")
    moment, seen.files = host.now(), [files(host)]
    seen.facts = seen.runs.fact(",".join(seen.desired(*EVERY)))
    seen.told["report"] = seen.runs.free(seen.desired(*ENDABLE, *HARMLESS))
    policy = {"on_conflict": "stop", "allow": seen.rules(FREED), "grace": 1, "settle": 1}
    ports = seen.desired(*FREED, *HARMLESS)
    seen.told["dry"] = seen.runs.free(ports, "--dry", **policy)
    seen.look("reported")
    seen.files.append(files(host))
    seen.events = host.events_since(moment)
    seen.told["freed"] = seen.runs.free(ports, **policy)
    seen.picture["freed"] = shelf.picture()
    seen.taken["freed"] = shelf.taken_within(10)
    seen.told["again"] = seen.runs.free(ports, **policy)
    return seen


@pytest.fixture(scope="module")
def restored(seen: Evidence) -> Evidence:
    seen.told["restored"] = seen.runs.restored(*seen.told["freed"].records)
    seen.look("restored")
    seen.told["restored again"] = seen.runs.restored(*seen.told["freed"].records)
    seen.look("restored again")
    return seen


# What the lab itself has


def test_every_holder_is_what_it_is_called(seen: Evidence) -> None:
    assert seen.taken["before"] == set(HELD)
    assert seen.sockets == SOCKETS


# Who it is


@pytest.mark.parametrize("name", HELD)
def test_it_is_told_rightly(seen: Evidence, name: str) -> None:
    found = seen.fact(name)
    assert found["status"] == "held", found
    assert len(found["holders"]) >= 1, found
    for holder in found["holders"]:
        assert holder["kind"] in kinds(name), found
        assert holder["evidence"], found
    told = [holder.get("process") or {} for holder in found["holders"]]
    if name in (*PROCESSES, OUTGOING, "supervisor", "unit", "always"):
        assert {process["pid"] for process in told} == set(seen.pids[name]), found
        for process in told:
            assert process["exe"] == PYTHON
            assert process["argv"][1] == f"{HOME}/hold.py"
            assert process["user"] == ("keeper" if name == "user" else "root")
            assert process["started"] > 0
    if name == "python":
        assert told[0]["argv"][-1] == ARGUMENT
        assert told[0]["cwd"] == CWD
    if name in ("unit", "always", "idle", "awake"):
        units = {holder["unit"]["name"].rpartition(".")[0] for holder in found["holders"]}
        assert units == {subject(name)}
    if name == "supervisor":
        assert found["holders"][0]["program"]["name"] == "shelf"
        assert found["holders"][0]["program"]["supervisor"] == "supervisord"


ENGINES = {
    "project": "docker",
    "restarting": "docker",
    "host-network": "docker",
    "second": f"docker:{SECOND}",
    "no-proxy": f"docker:{THIRD}",
    "podman": "podman",
}


@pytest.mark.parametrize("name", ENGINES)
def test_a_container_is_told_with_its_engine(seen: Evidence, name: str) -> None:
    (holder,) = seen.fact(name)["holders"]
    container = holder["container"]
    assert container["name"] == subject(name)
    assert seen.picture["before"][name].startswith(container["id"])
    assert container["engine"] == ENGINES[name]
    if name == "project":
        assert (container["project"], container["service"]) == ("elsewhere", "web")
        assert container["working_dir"] == "/opt/elsewhere"
    if name == "restarting":
        assert container["restart"] == "always"


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_does_not_stand_in_the_way_holds_nothing(seen: Evidence, name: str) -> None:
    assert seen.fact(name)["status"] == "free"
    assert seen.told["report"].about("findings", seen.shelf[name].port) == []


def test_the_parent_of_a_respawned_process_is_told(seen: Evidence) -> None:
    (holder,) = seen.fact(LOOP)["holders"]
    shell = seen.host.sh(f"ps -o ppid= -p {seen.pids[LOOP][0]}").strip()
    assert str(holder["process"]["parent"]) == shell
    assert "while :" in " ".join(seen.facts["processes"][shell]["argv"])


# Without consent


def test_a_report_fails_for_want_of_consent_and_nothing_else(seen: Evidence) -> None:
    told = seen.told["report"]
    assert told.run.rc == 1, told.run.out
    assert told.host["outcome"] == "refused"
    assert told.all("done") == []
    assert told.all("errors") == []


@pytest.mark.parametrize("name", EVERY)
def test_without_consent_nothing_happened_to_it(seen: Evidence, name: str) -> None:
    assert seen.picture["reported"][name] == seen.picture["before"][name]
    assert (name in seen.taken["reported"]) is (name in HELD)


def test_without_consent_nothing_happened_at_all(seen: Evidence) -> None:
    before, after = seen.files
    assert {
        path: after.get(path) for path in {*before, *after} if before.get(path) != after.get(path)
    } == {}
    assert seen.events == []


@pytest.mark.parametrize("name", ENDABLE)
def test_the_report_names_it_and_the_line_that_would_allow_it(seen: Evidence, name: str) -> None:
    told, port = seen.told["report"], seen.shelf[name].port
    assert told.about("findings", port), told.run.out
    refusals = told.about("refusals", port)
    # Each of the two that share a port has to let go of it.
    assert len(refusals) == (2 if name == "reuseport" else 1), refusals
    named = subject(name) or str(seen.pids[name][0])
    assert named in str([*refusals, *told.about("findings", port)])
    assert all('"on_conflict": "stop"' in row["consent"] for row in refusals), refusals
    assert len(set(told.rules(port))) == 1, refusals


# With exactly the consent that was asked for


@pytest.mark.parametrize("name", FREED)
def test_the_plan_is_the_gentlest_way(seen: Evidence, name: str) -> None:
    told = seen.told["dry"]
    planned = told.about("planned", seen.shelf[name].port)
    assert planned, told.run.out
    assert {action["action"] for action in planned} == {verb(name)}
    assert all(subject(name) in action["subject"] for action in planned)
    assert all(action["destructive"] and action["undo"] for action in planned)
    assert len(planned) == len(seen.pids[name] if name == "reuseport" else [name])


def test_a_dry_run_says_so_and_goes_on(seen: Evidence) -> None:
    told = seen.told["dry"]
    assert told.run.rc == 0, told.run.out
    assert told.host["outcome"] == "drifted"
    assert told.all("done") == []


def test_the_run_ends_well(seen: Evidence) -> None:
    told = seen.told["freed"]
    assert told.run.rc == 0, told.run.out
    assert told.host["outcome"] == "changed"
    assert all(row["ok"] for row in told.all("done"))


@pytest.mark.parametrize("name", FREED)
def test_with_consent_it_is_freed_and_stays_free(seen: Evidence, name: str) -> None:
    assert name not in seen.taken["freed"], seen.told["freed"].run.out
    if name in PROCESSES:
        assert seen.picture["freed"][name] == ""
    elif name in ("unit", "always", "idle", "awake"):
        assert "ActiveState=active" not in seen.picture["freed"][name]
        assert "ActiveState=activating" not in seen.picture["freed"][name]
        # Whether it starts with the host is not ours to change.
        enabled = re.compile("UnitFileState=.*")
        was, now = (enabled.findall(seen.picture[when][name]) for when in ("before", "freed"))
        assert now == was
    elif name == "supervisor":
        assert "STOPPED" in seen.picture["freed"][name]
    else:
        # The container itself stays, stopped.
        was, now = seen.picture["before"][name].split(), seen.picture["freed"][name].split()
        assert now[0] == was[0]
        assert now[1] == "exited"
        # With another policy the engine would start it when it starts itself.
        if name == "restarting":
            assert (was[-1], now[-1]) == ("always", "no")


@pytest.mark.parametrize("name", [LOOP, OUTGOING, *sorted(HARMLESS)])
def test_nothing_else_was_touched(seen: Evidence, name: str) -> None:
    assert seen.picture["freed"][name] == seen.picture["before"][name]


def test_engines_and_supervisors_go_on(seen: Evidence) -> None:
    engines = f"docker version && docker -H {SECOND} version && docker -H {THIRD} version"
    assert seen.host.run(f"{engines} && supervisorctl pid").returncode == 0


def test_a_second_run_has_nothing_to_do(seen: Evidence) -> None:
    told = seen.told["again"]
    assert told.run.rc == 0, told.run.out
    assert told.host["outcome"] == "converged"
    assert "No changes" in told.run.out


def test_what_was_ended_is_remembered_for_root_alone(seen: Evidence) -> None:
    modes = seen.host.sh(
        f"find {RECORDS} -mindepth 1 \\( -type d ! -perm 0700 -o -type f ! -perm 0600 \\) -print"
    )
    assert modes == ""
    assert seen.told["freed"].records
    # Its environment is written on the host, and shown nowhere.
    assert "hostname" in GREETING
    assert "$(hostname)" not in seen.told["freed"].run.out + str(seen.told["freed"].run.report)


def test_the_journal_of_the_host_says_what_was_ended_and_the_way_back(seen: Evidence) -> None:
    journal = seen.host.read("/var/lib/stackmend/journal.jsonl").decode()
    for name in FREED:
        lines = [line for line in journal.splitlines() if str(seen.shelf[name].port) in line]
        assert lines, name
        assert "ports.restored(" in lines[0]


# Brought back


def test_the_way_back_ends_well(restored: Evidence) -> None:
    told = restored.told["restored"]
    assert told.run.rc == 0, told.run.out
    again = restored.told["restored again"]
    assert again.run.rc == 0, again.run.out
    assert again.host["outcome"] == "converged", again.run.out


def lasting(name: str, picture: str) -> list[str]:
    """What must be as it was: all but numbers and times of what is started anew."""
    if name in PROCESSES:
        rows = [row for row in picture.splitlines() if row]
        return [
            " ".join(row.split()[3:]) if row[0].isdigit() and " 1 " in row else row for row in rows
        ]
    if name in ("unit", "always", "idle", "awake"):
        passing = ("MainPID", "InvocationID", "NRestarts", "SubState")
        return [row for row in picture.splitlines() if not row.startswith(passing)]
    if name == "supervisor":
        return picture.split()[1:]
    words = picture.split()
    return [words[0], words[1], words[-1]]


@pytest.mark.parametrize("name", FREED)
def test_it_is_brought_back_as_it_was(restored: Evidence, name: str) -> None:
    if name == "awake":
        # Its service comes with the next one who asks; its socket is there.
        restored.host.sh(": < /dev/tcp/127.0.0.1/21015")
        restored.host.wait_for("systemctl -q is-active lab-awake.service")
        restored.look("restored")
        restored.look("restored again")
    assert name in restored.taken["restored"], restored.told["restored"].run.out
    was, now = restored.picture["before"][name], restored.picture["restored"][name]
    assert lasting(name, now) == lasting(name, was)
    assert restored.picture["restored again"][name] == now


def test_a_command_comes_back_with_its_environment(restored: Evidence) -> None:
    (pid,) = pids(restored.host, restored.shelf["python"].port)
    assert environment(restored.host, pid)["GREETING"] == GREETING


# What cannot be freed by ending it


def test_a_respawner_is_named_and_not_fought(restored: Evidence) -> None:
    shelf, host = restored.shelf, restored.host
    (before,) = pids(host, shelf[LOOP].port)
    shell = host.sh(f"ps -o ppid= -p {before}").strip()
    # Known as soon as it holds the port again: on a busy machine that takes its time.
    told = restored.runs.stop(restored.desired(LOOP), settle=20)
    assert told.run.rc == 1, told.run.out
    assert told.host["outcome"] == "failed"
    assert len(told.all("done")) == 1
    (error,) = told.all("errors")
    assert shell in str(error)
    assert "while :" in str(error)
    assert host.sh(f"ps -o args= -p {shell}").startswith("/bin/sh -c while")
    assert LOOP in shelf.taken(LOOP)


def test_an_outgoing_connection_is_explained_and_left(restored: Evidence) -> None:
    shelf = restored.shelf
    told = restored.runs.stop(restored.desired(OUTGOING))
    assert told.run.rc == 1, told.run.out
    assert told.host["outcome"] == "refused"
    (refusal,) = told.all("refusals")
    assert str(restored.pids[OUTGOING][0]) in str([refusal, *told.all("findings")])
    assert told.rules() == []
    assert shelf.picture(OUTGOING)[OUTGOING] == restored.picture["before"][OUTGOING]
