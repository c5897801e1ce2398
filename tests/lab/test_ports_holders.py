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
from tests.lab.ports_runs import RECORDS, HostRun, Runs
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
    result: dict[str, HostRun] = field(default_factory=dict)
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
        result = self.result["report"]
        return [rule for name in names for rule in result.rules(self.shelf[name].port)]


def files(host: LabHost) -> dict[str, str]:
    """What lies on the host, without the engine's passing files and the times of shared memory."""
    passing = ("/tmp/runc-process", "/dev/shm", "/etc/mtab")
    return {
        path: printed
        for path, printed in host.snapshot_files(*EVERYWHERE).items()
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
def observed(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Looked at, reported, planned, ended with exactly the consent asked for, and brought back."""
    host = shelf.host
    observed = Evidence(host, shelf, Runs(tmp_path_factory.mktemp("holders"), host))
    observed.sockets = sockets(shelf)
    observed.pids = {name: pids(host, shelf[name].port) for name in EVERY}
    observed.look("before")
    moment, observed.files = host.now(), [files(host)]
    observed.facts = observed.runs.fact(",".join(observed.desired(*EVERY)))
    observed.result["report"] = observed.runs.free(observed.desired(*ENDABLE, *HARMLESS))
    policy = {"on_conflict": "stop", "allow": observed.rules(FREED), "grace": 1, "settle": 1}
    ports = observed.desired(*FREED, *HARMLESS)
    observed.result["dry"] = observed.runs.free(ports, "--dry", **policy)
    observed.look("reported")
    observed.files.append(files(host))
    observed.events = host.events_since(moment)
    observed.result["freed"] = observed.runs.free(ports, **policy)
    observed.picture["freed"] = shelf.picture()
    observed.taken["freed"] = shelf.taken_within(10)
    observed.result["again"] = observed.runs.free(ports, **policy)
    return observed


@pytest.fixture(scope="module")
def restored(observed: Evidence) -> Evidence:
    observed.result["restored"] = observed.runs.restored(*observed.result["freed"].records)
    observed.look("restored")
    observed.result["restored again"] = observed.runs.restored(*observed.result["freed"].records)
    observed.look("restored again")
    return observed


# What the lab itself has


def test_every_holder_is_what_it_is_called(observed: Evidence) -> None:
    assert observed.taken["before"] == set(HELD)
    assert observed.sockets == SOCKETS


# Who it is


@pytest.mark.parametrize("name", HELD)
def test_it_is_told_rightly(observed: Evidence, name: str) -> None:
    found = observed.fact(name)
    assert found["status"] == "held", found
    assert len(found["holders"]) >= 1, found
    for holder in found["holders"]:
        assert holder["kind"] in kinds(name), found
        assert holder["evidence"], found
    result = [holder.get("process") or {} for holder in found["holders"]]
    if name in (*PROCESSES, OUTGOING, "supervisor", "unit", "always"):
        assert {process["pid"] for process in result} == set(observed.pids[name]), found
        for process in result:
            assert process["exe"] == PYTHON
            assert process["argv"][1] == f"{HOME}/hold.py"
            assert process["user"] == ("keeper" if name == "user" else "root")
            assert process["started"] > 0
    if name == "python":
        assert result[0]["argv"][-1] == ARGUMENT
        assert result[0]["cwd"] == CWD
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
def test_a_container_is_told_with_its_engine(observed: Evidence, name: str) -> None:
    (holder,) = observed.fact(name)["holders"]
    container = holder["container"]
    assert container["name"] == subject(name)
    assert observed.picture["before"][name].startswith(container["id"])
    assert container["engine"] == ENGINES[name]
    if name == "project":
        assert (container["project"], container["service"]) == ("elsewhere", "web")
        assert container["working_dir"] == "/opt/elsewhere"
    if name == "restarting":
        assert container["restart"] == "always"


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_does_not_stand_in_the_way_holds_nothing(observed: Evidence, name: str) -> None:
    assert observed.fact(name)["status"] == "free"
    assert observed.result["report"].about("findings", observed.shelf[name].port) == []


def test_the_parent_of_a_respawned_process_is_told(observed: Evidence) -> None:
    (holder,) = observed.fact(LOOP)["holders"]
    shell = observed.host.sh(f"ps -o ppid= -p {observed.pids[LOOP][0]}").strip()
    assert str(holder["process"]["parent"]) == shell
    assert "while :" in " ".join(observed.facts["processes"][shell]["argv"])


# Without consent


def test_a_report_fails_for_want_of_consent_and_nothing_else(observed: Evidence) -> None:
    result = observed.result["report"]
    assert result.run.rc == 1, result.run.out
    assert result.host["outcome"] == "refused"
    assert result.all("done") == []
    assert result.all("errors") == []


@pytest.mark.parametrize("name", EVERY)
def test_without_consent_nothing_happened_to_it(observed: Evidence, name: str) -> None:
    assert observed.picture["reported"][name] == observed.picture["before"][name]
    assert (name in observed.taken["reported"]) is (name in HELD)


def test_without_consent_nothing_happened_at_all(observed: Evidence) -> None:
    before, after = observed.files
    assert {
        path: after.get(path) for path in {*before, *after} if before.get(path) != after.get(path)
    } == {}
    assert observed.events == []


@pytest.mark.parametrize("name", ENDABLE)
def test_the_report_names_it_and_the_line_that_would_allow_it(
    observed: Evidence, name: str
) -> None:
    result, port = observed.result["report"], observed.shelf[name].port
    assert result.about("findings", port), result.run.out
    refusals = result.about("refusals", port)
    # Each of the two that share a port has to let go of it.
    assert len(refusals) == (2 if name == "reuseport" else 1), refusals
    named = subject(name) or str(observed.pids[name][0])
    assert named in str([*refusals, *result.about("findings", port)])
    assert all('"on_conflict": "stop"' in row["remedy"] for row in refusals), refusals
    assert len(set(result.rules(port))) == 1, refusals


# With exactly the consent that was asked for


@pytest.mark.parametrize("name", FREED)
def test_the_plan_is_the_gentlest_way(observed: Evidence, name: str) -> None:
    result = observed.result["dry"]
    planned = result.about("planned", observed.shelf[name].port)
    assert planned, result.run.out
    assert {action["verb"] for action in planned} == {verb(name)}
    assert all(subject(name) in action["subject"] for action in planned)
    assert all(action["destructive"] and action["undo"] for action in planned)
    assert len(planned) == len(observed.pids[name] if name == "reuseport" else [name])


def test_a_dry_run_says_so_and_goes_on(observed: Evidence) -> None:
    result = observed.result["dry"]
    assert result.run.rc == 0, result.run.out
    assert result.host["outcome"] == "drifted"
    assert result.all("done") == []


def test_the_run_ends_well(observed: Evidence) -> None:
    result = observed.result["freed"]
    assert result.run.rc == 0, result.run.out
    assert result.host["outcome"] == "changed"
    assert all(row["result"] == "done" for row in result.all("done"))


@pytest.mark.parametrize("name", FREED)
def test_with_consent_it_is_freed_and_stays_free(observed: Evidence, name: str) -> None:
    assert name not in observed.taken["freed"], observed.result["freed"].run.out
    if name in PROCESSES:
        assert observed.picture["freed"][name] == ""
    elif name in ("unit", "always", "idle", "awake"):
        assert "ActiveState=active" not in observed.picture["freed"][name]
        assert "ActiveState=activating" not in observed.picture["freed"][name]
        # Whether it starts with the host is not ours to change.
        enabled = re.compile("UnitFileState=.*")
        was, now = (enabled.findall(observed.picture[when][name]) for when in ("before", "freed"))
        assert now == was
    elif name == "supervisor":
        assert "STOPPED" in observed.picture["freed"][name]
    else:
        # The container itself stays, stopped.
        was, now = observed.picture["before"][name].split(), observed.picture["freed"][name].split()
        assert now[0] == was[0]
        assert now[1] == "exited"
        # With another policy the engine would start it when it starts itself.
        if name == "restarting":
            assert (was[-1], now[-1]) == ("always", "no")


@pytest.mark.parametrize("name", [LOOP, OUTGOING, *sorted(HARMLESS)])
def test_nothing_else_was_touched(observed: Evidence, name: str) -> None:
    assert observed.picture["freed"][name] == observed.picture["before"][name]


def test_engines_and_supervisors_go_on(observed: Evidence) -> None:
    engines = f"docker version && docker -H {SECOND} version && docker -H {THIRD} version"
    assert observed.host.run(f"{engines} && supervisorctl pid").returncode == 0


def test_a_second_run_has_nothing_to_do(observed: Evidence) -> None:
    result = observed.result["again"]
    assert result.run.rc == 0, result.run.out
    assert result.host["outcome"] == "converged"
    assert "No changes" in result.run.out


def test_what_was_ended_is_remembered_for_root_alone(observed: Evidence) -> None:
    modes = observed.host.sh(
        f"find {RECORDS} -mindepth 1 \\( -type d ! -perm 0700 -o -type f ! -perm 0600 \\) -print"
    )
    assert modes == ""
    assert observed.result["freed"].records
    # Its environment is written on the host, and shown nowhere.
    assert "hostname" in GREETING
    assert "$(hostname)" not in observed.result["freed"].run.out + str(
        observed.result["freed"].run.report
    )


def test_the_journal_of_the_host_says_what_was_ended_and_the_way_back(observed: Evidence) -> None:
    journal = observed.host.read("/var/lib/stackmend/journal.jsonl").decode()
    for name in FREED:
        lines = [line for line in journal.splitlines() if str(observed.shelf[name].port) in line]
        assert lines, name
        assert "ports.restored(" in lines[0]


# Brought back


def test_the_way_back_ends_well(restored: Evidence) -> None:
    result = restored.result["restored"]
    assert result.run.rc == 0, result.run.out
    again = restored.result["restored again"]
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
    assert name in restored.taken["restored"], restored.result["restored"].run.out
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
    result = restored.runs.stop(restored.desired(LOOP), allow=["exe:*/python3*"], settle=20)
    assert result.run.rc == 1, result.run.out
    assert result.host["outcome"] == "failed"
    assert len(result.all("done")) == 1
    (error,) = result.all("errors")
    assert shell in str(error)
    assert "while :" in str(error)
    # What would allow it, to be pasted.
    assert re.search(r'or add "allow": \["exe:/usr/bin/\w*sh"\]', error["message"])
    assert host.sh(f"ps -o args= -p {shell}").startswith("/bin/sh -c while")
    assert LOOP in shelf.taken(LOOP)


def test_an_outgoing_connection_is_explained_and_left(restored: Evidence) -> None:
    shelf = restored.shelf
    result = restored.runs.stop(restored.desired(OUTGOING))
    assert result.run.rc == 1, result.run.out
    assert result.host["outcome"] == "refused"
    (refusal,) = result.all("refusals")
    assert str(restored.pids[OUTGOING][0]) in str([refusal, *result.all("findings")])
    assert result.rules() == ["connection:127.0.0.1:21110"]
    assert shelf.picture(OUTGOING)[OUTGOING] == restored.picture["before"][OUTGOING]
    other = restored.runs.stop(restored.desired(OUTGOING), allow=["connection:127.0.0.1:2111"])
    assert other.host["outcome"] == "refused", other.run.out
    assert shelf.picture(OUTGOING)[OUTGOING] == restored.picture["before"][OUTGOING]


def test_an_outgoing_connection_is_closed_and_its_program_goes_on(restored: Evidence) -> None:
    shelf, host = restored.shelf, restored.host
    (program,) = restored.pids[OUTGOING]
    policy = {"allow": ["connection:127.0.0.1:*"]}
    result = restored.runs.stop(restored.desired(OUTGOING), **policy)
    assert result.run.rc == 0, result.run.out
    assert [row["verb"] for row in result.all("done")][-1] == "close"
    assert OUTGOING not in shelf.taken(OUTGOING)
    assert host.sh(f"ps -o args= -p {program}").endswith("outgoing 127.0.0.1:21110 21010")
    # Whoever listened there does so still.
    assert host.sh("ss -Hltn 'sport = :21110'")
    again = restored.runs.stop(restored.desired(OUTGOING), **policy)
    assert again.host["outcome"] == "converged", again.run.out


def test_a_parent_that_rules_name_is_ended_with_what_it_starts(restored: Evidence) -> None:
    shelf, host = restored.shelf, restored.host
    (before,) = pids(host, shelf[LOOP].port)
    shell = host.sh(f"ps -o ppid= -p {before}").strip()
    result = restored.runs.stop(restored.desired(LOOP), settle=10)
    assert result.run.rc == 0, result.run.out
    assert [row["verb"] for row in result.all("done")] == ["stop process", "stop process"]
    assert "Traceback" not in result.run.out
    assert LOOP not in shelf.taken(LOOP)
    assert host.run(f"kill -0 {shell}").returncode != 0
    # The last record is the parent's, which starts again what held the port.
    back = restored.runs.restored("latest")
    assert back.run.rc == 0, back.run.out
    host.wait_for(f"ss -Hltn 'sport = :{shelf[LOOP].port}' | grep -q .")
