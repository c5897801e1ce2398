"""When ``stackmend reconcile`` runs by itself: times, files, decisions, and what a host gets."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from pyinfra.connectors.local import LocalConnector

from stackmend.checks.spec import HttpCheck
from stackmend.connection import read_script, signals
from stackmend.errors import StepError
from stackmend.fleet.spec import ReconcilePolicy
from stackmend.problems import Problem, WrongSettings
from stackmend.raw import validate
from stackmend.restraint.state import Memory, Pause
from stackmend.schedule import controller, get_arguments, reconciler, wheels
from stackmend.schedule.bundle import make_bundle
from stackmend.schedule.calendar import (
    DAY,
    check_expression,
    check_interval,
    format_calendar,
    format_cron,
)
from stackmend.schedule.facts import parse
from stackmend.schedule.plan import Bring, Desired, Remove, Write, make_generation, plan
from stackmend.schedule.reconciler import ScheduleReconciler, note_confined
from stackmend.schedule.spec import RESERVED, TimerSpec
from stackmend.schedule.state import HostSchedule, Interpreter
from stackmend.schedule.units import (
    MADE,
    PATH,
    STOP,
    Job,
    find_place,
    log_in,
    make_table,
    make_trial,
    make_units,
)
from stackmend.spec import SpecError, Stack, check, parse_machine
from tests.unit.rendering import assert_golden, render

ROOT = Path(__file__).parents[2]
PYTHON = Interpreter(path="/usr/bin/python3", version="3.11.2", tag="cp311")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHN0YWNrbWVuZCBmdXp6IHN0YWNrbWVuZCBmdXp6 ops"
EXPORT = (
    "export --frozen --offline --no-dev --group host --no-emit-project --no-header --no-annotate"
)
OLD_PYTHON = Interpreter(path="/usr/bin/python3", version="3.9.2", tag="cp39")
UNIT = "/etc/systemd/system/stackmend-controller.timer"
UNIT_NAME = "stackmend-controller"
CRONTAB = {"init": "cron", "version": 0, "cron": "crontab", "cron_runs": True}
JOB = Job(
    command=("/opt/100% safe/bin/stackmend", "reconcile", '/srv/my "fleet"/$HOME.py'),
    directory="/srv/my fleet",
    lock="/srv/my fleet/var/reports/.lock",
    user="ops",
    writable=("/srv/my fleet/var/reports",),
    environment={"STACKMEND_REPORTS": "/srv/my fleet/var/reports"},
    confined=True,
)


def timer(**raw: Any) -> TimerSpec:
    return validate(TimerSpec, raw)


def desired(job: Job = JOB, **raw: Any) -> Desired:
    spec = timer(**raw)
    generation = "abc" if spec.mode == "host" else ""
    return Desired(spec=spec, job=job, host="ai1", generation=generation)


def state(**changes: Any) -> HostSchedule:
    plain = {
        "root": True,
        "same": True,
        "init": "systemd",
        "version": 252,
        "machine": "x86_64",
        "library": "glibc 2.36",
        "tools": ("flock", "timeout", "logger"),
        "interpreters": (PYTHON,),
    }
    return HostSchedule.model_validate({**plain, **changes})


# Times


@pytest.mark.parametrize(
    ("seconds", "calendar", "cron"),
    [
        (60, "*-*-* *:00/01:00", "* * * * *"),
        (300, "*-*-* *:00/05:00", "*/5 * * * *"),
        (1800, "*-*-* *:00/30:00", "*/30 * * * *"),
        (3600, "*-*-* 00/01:00:00", "0 */1 * * *"),
        (43200, "*-*-* 00/12:00:00", "0 */12 * * *"),
        (DAY, "*-*-* 00:00:00", "0 0 * * *"),
    ],
)
def test_intervals(seconds: float, calendar: str, cron: str) -> None:
    assert check_interval(seconds) == seconds
    assert (format_calendar(seconds, ""), format_cron(seconds, "")) == (calendar, cron)


@pytest.mark.parametrize("seconds", [1, 30, 90, 420, 5400, 7 * 3600, 2 * DAY, 0.5])
def test_intervals_that_no_calendar_has(seconds: float) -> None:
    with pytest.raises(ValueError, match='set "at" instead'):
        check_interval(seconds)


@pytest.mark.parametrize(
    ("at", "calendar", "cron"),
    [
        ("03:00", "*-*-* 03:00:00", "0 3 * * *"),
        ("3:05", "*-*-* 03:05:00", "5 3 * * *"),
        ("daily", "daily", "0 0 * * *"),
        ("Mon..Fri 03:00", "Mon..Fri 03:00", "0 3 * * 1,2,3,4,5"),
        ("Sat..Mon 22:30", "Sat..Mon 22:30", "30 22 * * 1,6,7"),
        ("Sun,Wed 04:00", "Sun,Wed 04:00", "0 4 * * 3,7"),
        ("*-*-01 04:00:00", "*-*-01 04:00:00", ""),
        ("*:0/7", "*:0/7", ""),
        ("03:00 Europe/Lisbon", "03:00 Europe/Lisbon", ""),
        ("2027-01-01 00:00:00 UTC", "2027-01-01 00:00:00 UTC", ""),
    ],
)
def test_times(at: str, calendar: str, cron: str) -> None:
    assert check_expression(at) == at
    assert (format_calendar(None, at), format_cron(None, at)) == (calendar, cron)


@pytest.mark.parametrize(
    "at",
    ["25:00", "03:61", "soon", "03:00\nExecStart=/bin/sh", "* * * * *", "%i", "UTC", " 03:00", "3"],
)
def test_times_that_are_none(at: str) -> None:
    with pytest.raises(ValueError, match=r"man systemd\.time|is the most"):
        check_expression(at)


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_no_expression_brings_a_line_or_a_specifier_of_its_own(text: str) -> None:
    try:
        check_expression(text)
    except ValueError:
        return
    assert text.isprintable()
    assert "%" not in format_calendar(None, text or "03:00")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"every": "7min"}, "every: must be 1, 2, 3"),
        ({"every": "5min", "at": "03:00"}, '"every" and "at" exclude each other'),
        ({"mode": "hosts"}, "mode"),
        ({"mode": "host", "user": "ops"}, '"user" means nothing in mode host'),
        ({"ping": "https://x.example"}, '"ping" means nothing in mode controller'),
        ({"notify": True}, '"notify" means nothing in mode controller'),
        ({"name": "a b"}, "name: must hold lowercase letters"),
        (
            {"mode": "host", "ping": "hc.example/x"},
            "ping: must be an address that begins with http",
        ),
        ({"name": "resolver"}, "name: must not be the name of a room"),
        ({"name": "resolver-1"}, "name: must not be the name of a room"),
        ({"timeout": 5}, "timeout"),
        ({"allow": ["everything"]}, "allow"),
    ],
)
def test_wrong_settings_name_their_field(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongSettings) as error:
        timer(**raw)
    assert said in str(error.value)


def test_settings_reach_the_operation() -> None:
    stack = {"schedule": {"mode": "host", "every": "10min", "name": "night"}}
    machine = parse_machine({"stack": stack})
    assert machine is not None
    assert machine.schedule is not None
    arguments = get_arguments(machine.schedule)
    assert arguments["every"] == 600
    assert arguments["name_of_timer"] == "night"
    raw = {**arguments, "name": arguments.pop("name_of_timer")}
    del raw["name_of_timer"]
    assert validate(TimerSpec, raw) == machine.schedule


# Files


def test_units() -> None:
    confined = make_units(timer(), JOB, 252)
    assert_golden("schedule", "controller", "".join(confined.values()))
    mild = Job(
        command=("/x/stackmend", "reconcile", "/x/inventory.py"), directory="/", lock="/x/lock"
    )
    older = make_units(timer(mode="host", at="Mon..Fri 03:00", timeout="10min"), mild, 245)
    assert_golden("schedule", "host", "".join(older.values()))
    assert "FixedRandomDelay" not in "".join(older.values())
    assert all(text.startswith(MADE) for text in (*confined.values(), *older.values()))


def test_a_job_of_roots_has_the_variables_of_a_login() -> None:
    for user, has in (("root", True), ("ops", False)):
        job = JOB.model_copy(update={"user": user})
        for found in (state(login="/root"), state(login="/root", **CRONTAB)):
            (action,) = plan(desired(job), found).actions
            assert isinstance(action, Write)
            text = next(iter(action.files.values()))
            words = ("HOME=/root", "USER=root", "LOGNAME=root")
            assert [word in text for word in words] == [has] * 3
    (action,) = plan(desired(JOB.model_copy(update={"user": "root"})), state()).actions
    assert isinstance(action, Write)
    assert "HOME=" not in str(action.files)


def test_the_home_of_a_login_is_read_and_bounded() -> None:
    for home, kept in (("/root", "/root"), ('/x" "A=b', ""), ("root", ""), ("/a%b", "")):
        lines = [f"|root 0\n|login {home}"]
        names = ("host", "state", "leftovers", "tools", "gpus", "pythons", "whole")
        bodies = dict.fromkeys(names, "") | {"host": "\n".join(lines)}
        text = "\n".join(f"\nm begin {name}\n{body}\n.0\nm end" for name, body in bodies.items())
        assert parse(text.split("\n"), "m", UNIT_NAME).login == kept


def test_a_run_does_not_wait_for_an_engine_that_hangs() -> None:
    job = Job(
        command=("/x/stackmend", "reconcile", "/x/inventory.py"), directory="/", lock="/x/lock"
    )
    text = "".join(make_units(timer(mode="host"), job, 252).values())
    assert "docker.service" not in next(line for line in text.splitlines() if "After=" in line)


def test_a_table_of_cron() -> None:
    tools = ("flock", "timeout", "logger")
    table = make_table(timer(random_delay=30), JOB, "ai1", tools)
    assert_golden("schedule", "cron", table)
    # Each percent sign would end the command there.
    assert "%" not in table.replace("\\%", "")
    root = JOB.model_copy(update={"user": "root"})
    assert "/var/log/stackmend-controller.log" in make_table(timer(), root, "ai1", tools[:2])
    assert "/var/log" not in make_table(timer(), JOB, "ai1", tools[:2])
    assert "timeout --foreground" in make_table(timer(), JOB, "ai1", (*tools, "foreground"))
    assert make_table(timer(at="*:0/7"), JOB, "ai1", tools) == ""


PROGRAMS = {
    "crontab": """#!/bin/sh
file=$HOME/table.$3
case $1 in
-l) [ -e "$file" ] || { echo "no crontab for $3" >&2; exit 1; }; cat "$file" ;;
*) if [ "$3" = - ]; then cat >"$HOME/table.$2"; else cp "$3" "$HOME/table.$2"; fi ;;
esac
""",
    "systemctl": """#!/bin/sh
echo "$*" >>"$HOME/systemctl"
case $1 in
is-enabled | is-active) cat "$HOME/$1" ;;
restart) exit "$(cat "$HOME/status" 2>/dev/null || echo 0)" ;;
esac
""",
    "systemd-analyze": "#!/bin/sh\n",
}


class Machine:
    """Scripts of the room, with nothing of this machine touched."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        for name, text in PROGRAMS.items():
            self.put(f"bin/{name}", text).chmod(0o755)

    def put(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def run(self, name: str, *words: str, stdin: bytes | str = "", status: int = 0) -> str:
        shared = "".join(read_script("stackmend.connection", part) for part in ("walk", "put"))
        before = "".join(read_script("stackmend.schedule", part) for part in ("copy", "table"))
        script = before + read_script("stackmend.schedule", name)
        for root in ("/etc/", "/run/", "/var/"):
            script = script.replace(root, f"{self.root}{root}")
        env = {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "HOME": str(self.root)}
        done = subprocess.run(
            ["sh", "-c", shared + script, name, *words],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            env=env,
            capture_output=True,
        )
        assert done.returncode == status, done.stderr
        return done.stdout.decode() + done.stderr.decode()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_users_own_table_keeps_all_else(machine: Machine, tmp_path: Path) -> None:
    own = machine.put("table.ops", "MAILTO=me\n0 1 * * * mine\n")
    table = make_table(timer(), JOB, "ai1", ("flock", "timeout"), own=True)
    words = ("stackmend-controller", "crontab", "ops", str(tmp_path / "kept"))
    for _ in range(2):
        machine.run("set", *words, stdin=table)
        begin, end = "# begin stackmend-controller\n", "# end stackmend-controller\n"
        assert own.read_text() == f"MAILTO=me\n0 1 * * * mine\n{begin}{table}{end}"
    # Nothing of the probe changes what was written: the plan is empty then.
    found = state(**CRONTAB, tools=("flock", "timeout"), files={"crontab": table})
    assert plan(desired(), found).empty
    machine.run("remove", "stackmend-controller", "ops", str(tmp_path / "none"))
    assert own.read_text() == "MAILTO=me\n0 1 * * * mine\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Somebody removed the last comment by hand: nothing behind the first may go with it.
        (
            "1\n# begin stackmend-controller\n2\n3\n",
            "1\n# begin stackmend-controller\n2\n3\n# begin stackmend-controller\nnew\n"
            "# end stackmend-controller\n",
        ),
        (
            "# begin stackmend-controller\nold\n# end stackmend-controller\n1\n# end other\n",
            "1\n# end other\n# begin stackmend-controller\nnew\n# end stackmend-controller\n",
        ),
        (None, "# begin stackmend-controller\nnew\n# end stackmend-controller\n"),
    ],
)
def test_a_table_loses_no_line_of_its_owner(
    machine: Machine, tmp_path: Path, before: str | None, after: str
) -> None:
    own = tmp_path / "table.ops"
    if before is not None:
        own.write_text(before)
    machine.run("set", UNIT_NAME, "crontab", "ops", str(tmp_path / "kept"), stdin="new\n")
    assert own.read_text() == after


def test_a_table_that_cannot_be_read_is_not_replaced(machine: Machine, tmp_path: Path) -> None:
    own = machine.put("table.ops", "1\n")
    machine.put(
        "bin/crontab",
        '#!/bin/sh\n[ "$1" != -l ] || { echo full >&2; exit 1; }\n: >"$HOME/table.ops"\n',
    )
    words = (UNIT_NAME, "crontab", "ops", str(tmp_path / "kept"))
    assert "full" in machine.run("set", *words, stdin="new\n", status=73)
    assert own.read_text() == "1\n"


def test_a_timer_that_is_halted_keeps_all_else(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    unit = machine.put(f"etc/systemd/system/{UNIT_NAME}.timer", "timer\n")
    table = machine.put(f"etc/cron.d/{UNIT_NAME}", "table\n")
    machine.run("remove", UNIT_NAME, "root", "")
    assert unit.exists()
    assert not table.exists()
    assert (tmp_path / "systemctl").read_text() == f"disable --now {UNIT_NAME}.timer\n"


def test_all_of_it_goes_where_its_directory_is_a_link(machine: Machine, tmp_path: Path) -> None:
    machine.put("disk/stackmend/schedule/stackmend-host/lock", "")
    (tmp_path / "var").mkdir()
    (tmp_path / "var/stackmend").symlink_to(tmp_path / "disk/stackmend")
    home = tmp_path / "var/stackmend/schedule/stackmend-host"
    machine.run("remove", "stackmend-host", "root", str(home))
    assert [*(tmp_path / "disk/stackmend").iterdir()] == []


@pytest.mark.parametrize("before", [True, False])
def test_units_that_do_not_start_leave_what_ran_before(
    machine: Machine, tmp_path: Path, before: bool
) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    units = tmp_path / "etc/systemd/system"
    if before:
        machine.put(f"etc/systemd/system/{UNIT_NAME}.service", "old service\n")
        machine.put(f"etc/systemd/system/{UNIT_NAME}.timer", "old timer\n")
    machine.put("is-enabled", "enabled" if before else "")
    machine.put("is-active", "active" if before else "inactive")
    machine.put("status", "1")
    words = (UNIT_NAME, "", "ops", str(tmp_path / "kept"))
    machine.run("set", *words, stdin="service\n=\ntimer\n", status=70)
    left = {path.name: path.read_text() for path in units.iterdir()}
    asked = (tmp_path / "systemctl").read_text().splitlines()
    if before:
        assert left == {
            f"{UNIT_NAME}.service": "old service\n",
            f"{UNIT_NAME}.timer": "old timer\n",
        }
        assert asked[-2:] == ["daemon-reload", f"restart {UNIT_NAME}.timer"]
    else:
        assert left == {}
        assert f"disable {UNIT_NAME}.timer" in asked
        assert asked[-2:] == ["daemon-reload", f"stop {UNIT_NAME}.timer"]


def test_runs_of_cron_are_kept_apart_by_a_file_of_their_own(tmp_path: Path) -> None:
    lock, out = tmp_path / "it's a lock", tmp_path / "out"
    job = Job(command=("/bin/sh", "-c", f"echo ran >>{out}"), directory="/", lock=str(lock))
    line = make_table(timer(), job, "ai1", ("flock", "timeout", "logger"), own=True)
    command = line.splitlines()[1].split(" ", 5)[5].replace("\\%", "%")
    command = command.replace("| logger -t stackmend-controller", "")
    subprocess.run(["sh", "-c", command], check=True)
    assert out.read_text() == "ran\n"
    assert lock.stat().st_mode & 0o777 == 0o600
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "still at work" in done.stdout
    assert out.read_text() == "ran\n"


def test_only_commands_have_doubled_dollars() -> None:
    job = JOB.model_copy(update={"writable": ("/srv/$x",), "environment": {"A": "$y"}})
    text = "".join(make_units(timer(), job, 252).values())
    assert '"-/srv/$x"' in text
    assert '"A=$y"' in text
    assert "/$$HOME.py" in text


def test_a_run_that_overruns_ends_in_order() -> None:
    text = "".join(make_units(timer(), JOB, 252).values())
    assert "KillMode=process" in text
    assert timer().timeout > ReconcilePolicy().limit
    # A run of a timer's has this long for its notices.
    assert signals.LAST + signals.MORE < STOP


def test_each_host_has_a_constant_place() -> None:
    places = [find_place(f"ai{number}", 300) for number in range(50)]
    assert places == [find_place(f"ai{number}", 300) for number in range(50)]
    assert all(0 <= place < 300 for place in places)
    assert len({*places}) > 30


@pytest.mark.parametrize("job", [JOB, JOB.model_copy(update={"confined": False})])
def test_systemd_takes_the_units(job: Job, tmp_path: Path) -> None:
    if not Path("/usr/bin/systemd-analyze").exists():
        pytest.skip("no systemd-analyze here; tests/lab/test_schedule.py asks that of a host")
    paths = []
    for path, text in make_units(timer(), job, 252).items():
        paths.append(tmp_path / Path(path).name)
        paths[-1].write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True)
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line]


# Decisions


def _carry(action: Any) -> list[str]:
    match action:
        case Bring():
            return [f"python {action.python} {action.tag}"]
        case Write():
            return [*action.files]
        case Remove():
            return list(action.paths)
    raise AssertionError(action)


def _well(raw: dict[str, Any], **more: Any) -> HostSchedule:
    found = desired(**raw)
    files = make_units(found.spec, found.job, 252)
    own: dict[str, Any] = {}
    if found.spec.mode == "host":
        own = {"generation": make_generation("abc", "cp311"), "intact": True, "starts": True}
    return state(files=files, enabled=True, active=True, **own, **more)


CASES: dict[str, tuple[dict[str, Any], HostSchedule]] = {
    "new_controller": ({}, state()),
    "new_host": ({"mode": "host"}, state(same=False)),
    "edited": (
        {},
        _well({}, foreign=(f"{UNIT}.d/a.conf",)).model_copy(update={"files": {UNIT: "x\n"}}),
    ),
    "disabled": ({}, _well({}).model_copy(update={"enabled": False})),
    "stopped": ({}, _well({}).model_copy(update={"active": False})),
    "older_settings": (
        {"mode": "host"},
        _well({"mode": "host"}).model_copy(update={"generation": "old"}),
    ),
    "unread": ({}, _well({}, unread=True)),
    "another_machine": ({}, state(same=False)),
    "another_inventory": ({}, _well({}, inventory="/srv/other.py")),
    "not_root": ({}, state(root=False)),
    "macos": ({"mode": "host"}, state(system="Darwin", init="")),
    "masked": ({}, state(masked=True)),
    "misfit": ({"at": "*-02-30 03:00"}, state(misfit="Failed to parse")),
    "no_python": ({"mode": "host"}, state(interpreters=(OLD_PYTHON,))),
    "no_init": ({}, state(init="")),
    "cron": (
        {},
        state(init="cron", version=0, cron="/etc/cron.d/stackmend-controller", cron_runs=True),
    ),
    "cron_idle": ({}, state(init="cron", cron="crontab")),
    "cron_without_flock": (
        {},
        state(init="cron", cron="crontab", cron_runs=True, tools=("timeout",)),
    ),
    "cron_without_such_times": (
        {"at": "*:0/7"},
        state(init="cron", cron="crontab", cron_runs=True),
    ),
    "edited_settings": (
        {"mode": "host"},
        _well({"mode": "host"}).model_copy(update={"intact": False}),
    ),
    "removed_python": (
        {"mode": "host"},
        _well({"mode": "host"}).model_copy(update={"starts": False}),
    ),
    "program_not_started": ({}, _well({}, failure="exit-code, exit code 203")),
    "last_run_failed": ({}, _well({}, failure="exit-code, exit code 1")),
    "takes_a_gpu": ({}, state(reload_takes=("ai-ollama-1",))),
    "takes_a_gpu_with_consent": (
        {"allow": ["daemon-reload"]},
        state(reload_takes=("ai-ollama-1",)),
    ),
    "absent": (
        {"present": False},
        state(
            leftovers=(
                "/etc/systemd/system/stackmend-controller.timer",
                "/var/lib/stackmend/schedule/stackmend-controller",
            )
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_decisions(name: str) -> None:
    raw, found = CASES[name]
    assert_golden("schedule", f"plan_{name}", render(plan(desired(**raw), found), _carry))


@pytest.mark.parametrize("raw", [{}, {"mode": "host"}, {"at": "03:00"}])
def test_what_is_well_is_left(raw: dict[str, Any]) -> None:
    assert plan(desired(**raw), _well(raw)).empty
    assert plan(desired(**{**raw, "present": False}), state()).empty


def test_an_inventory_that_is_no_file_is_refused() -> None:
    found = desired().model_copy(update={"problem": ("no file", "name one")})
    (refusal,) = plan(found, state()).refusals
    assert (refusal.reason, refusal.remedy) == ("no file", "name one")


# This machine's side


def fake_host(*stacks: dict[str, Any], directory: Path) -> Any:
    """A host whose run has hosts with these settings, the first of them @local."""
    hosts = [
        SimpleNamespace(
            name=f"host{number}",
            connector_cls=object if number else LocalConnector,
            data=SimpleNamespace(dict=lambda stack=stack: {"stack": stack}),
        )
        for number, stack in enumerate(stacks)
    ]
    hosts[0].state = SimpleNamespace(inventory=hosts, cwd=str(directory))
    return hosts[0]


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fleet.py"
    path.write_text("hosts = []\n")
    monkeypatch.setattr(controller.invocation, "find_inventory", lambda state: path)
    reports = tmp_path / "reports"
    monkeypatch.setattr(controller.reporting, "find_report_directory", lambda state: reports)
    return path


def test_a_confined_run_may_keep_the_wheels_of_hosts_that_it_renews(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = inventory.parent
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    own = {"schedule": {"every": "5min"}}
    for other, has in (({"schedule": {"mode": "host"}}, True), ({"project": "ai"}, False)):
        job, problem = controller.make_fleet_job(fake_host(own, other, directory=home), timer())
        assert problem is None
        assert job.confined
        assert (str(home / "cache/stackmend/wheels") in job.writable) is has
        controller.make_directories(job)
        assert (home / "cache/stackmend/wheels").is_dir() is True or not has


def test_names_of_rooms_are_no_names_of_timers() -> None:
    rooms = {path.parent.name for path in (ROOT / "ops/stackmend").glob("*/__init__.py")}
    assert rooms == RESERVED


def test_a_confined_run_says_that_this_machine_is_mended_now(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Any] = []
    report = SimpleNamespace(add_plan=plans.append)
    monkeypatch.setattr("stackmend.reporting.record", lambda host, name: report)
    own: dict[str, Any] = {"schedule": {"every": "5min"}}
    host = fake_host(own, directory=inventory.parent)
    mended = fake_host({**own, "project": "ai"}, directory=inventory.parent)
    note_confined(mended, timer())
    monkeypatch.setenv("STACKMEND_TIMER", UNIT_NAME)
    note_confined(mended, timer())
    job, _ = controller.make_fleet_job(host, timer())
    assert '"STACKMEND_CONFINED=1"' in "".join(make_units(timer(), job, 252).values())
    monkeypatch.setenv("STACKMEND_CONFINED", "1")
    note_confined(host, timer())
    assert plans == []
    note_confined(mended, timer())
    assert [finding.kind for finding in plans[0].findings] == ["confined"]


def test_the_records_are_of_who_writes_them(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    path = tmp_path / "a/reports"
    controller.make_directories(JOB.model_copy(update={"user": "nobody", "writable": (str(path),)}))
    assert {each.owner() for each in (path, path.parent)} == {"nobody"}


def probe(machine: Machine, mode: str = "host", before: str = "") -> HostSchedule:
    """What the probe reads of a machine."""
    if before:
        machine.put("bin/python3", before).chmod(0o755)
    frame = read_script("stackmend.connection", "frame")
    script = frame + "".join(
        [read_script("stackmend.connection", "walk")]
        + [read_script("stackmend.schedule", name) for name in ("copy", "probe")]
    )
    for root in ("/etc/", "/run/", "/var/"):
        script = script.replace(root, f"{machine.root}{root}")
    words = (UNIT_NAME, "", "/dev/null", mode, "root", str(machine.root / "home"))
    env = {"PATH": f"{machine.root / 'bin'}:/usr/bin:/bin", "HOME": str(machine.root)}
    done = subprocess.run(
        ["sh", "-c", f"mark=m\n{script}", "probe", *words], env=env, capture_output=True, text=True
    )
    return parse(done.stdout.split("\n"), "m", UNIT_NAME)


def test_the_inventory_of_a_timer_is_read_back(machine: Machine, tmp_path: Path) -> None:
    path = machine.put('100% "fl\'eet"/$HOME.py', "hosts = []\n")
    job = JOB.model_copy(update={"command": ("/opt/stackmend", "reconcile", str(path))})
    text = make_units(timer(), job, 252)[f"/etc/systemd/system/{UNIT_NAME}.service"]
    machine.put(f"etc/systemd/system/{UNIT_NAME}.service", text)
    assert probe(machine).inventory == str(path)
    path.unlink()
    assert probe(machine).inventory == ""


def test_root_runs_no_python_that_others_may_replace(machine: Machine, tmp_path: Path) -> None:
    python = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    assert str(tmp_path / "bin/python3") in {
        each.path for each in probe(machine, before=python).interpreters
    }
    (tmp_path / "bin").chmod(0o777)
    assert str(tmp_path / "bin/python3") not in {each.path for each in probe(machine).interpreters}
    (tmp_path / "bin").chmod(0o755)
    (tmp_path / "bin/python3").chmod(0o757)
    assert str(tmp_path / "bin/python3") not in {each.path for each in probe(machine).interpreters}


def test_limits_of_mending_do_not_hold_for_timers_and_pauses_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not ScheduleReconciler.is_restrained
    paused: list[str] = []
    monkeypatch.setattr("stackmend.reporting.mark_paused", lambda host, text: paused.append(text))
    report = SimpleNamespace(name="schedule.timer")
    host: Any = SimpleNamespace(name="ai1")
    room = ScheduleReconciler(host, timer(), report)  # type: ignore[arg-type]
    room.__dict__["desired"] = desired()
    for pauses in ((), (Pause(who="ann", why="disk", since=0),)):
        memory = Memory(now=10, pauses=pauses)

        def fetch(*facts: Any, fresh: bool = False, memory: Memory = memory) -> list[Any]:
            room.memory = memory
            return [state()]

        monkeypatch.setattr(room, "fetch", fetch)
        found = room.observe().plan
        assert bool(found.actions) is not bool(pauses)
        assert bool(found.refusals) is bool(pauses)
    assert len(paused) == 1


@pytest.mark.parametrize(
    ("generation", "active", "halted"),
    [("p-old-cp311", True, True), ("q-new-cp311", True, False), ("p-old-cp311", False, False)],
)
def test_a_copy_that_cannot_be_renewed_puts_no_older_settings_back(
    monkeypatch: pytest.MonkeyPatch, generation: str, active: bool, halted: bool
) -> None:
    room = ScheduleReconciler(SimpleNamespace(name="ai1"), timer(mode="host"), None)  # type: ignore[arg-type]
    room.__dict__["desired"] = desired(mode="host").model_copy(update={"generation": "p-new"})
    asked: list[str] = []

    def fail(action: Bring, found: HostSchedule) -> None:
        raise StepError("no pip")

    monkeypatch.setattr(room, "_bring", fail)
    monkeypatch.setattr(room, "run", lambda command, problem: asked.append(str(command)))
    action = Bring(subject="x", cause="x", python="/usr/bin/python3", tag="cp311")
    with pytest.raises(StepError, match="no pip") as error:
        room._bring_or_halt(action, state(generation=generation, active=active))
    assert bool(asked) is halted
    assert ("stopped stackmend-host" in str(error.value)) is halted


def test_what_a_host_waits_for_the_programs_of_others_is_none_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[str] = []

    @contextlib.contextmanager
    def leave_out(host: Any) -> Iterator[None]:
        waits.append(host.name)
        yield
        waits.clear()

    class Taken:
        def acquire(self, timeout: float) -> bool:
            assert waits == ["ai1"]
            return False

    monkeypatch.setattr(reconciler.fleet, "leave_out", leave_out)
    monkeypatch.setattr(reconciler, "_turns", Taken())
    room = ScheduleReconciler(SimpleNamespace(name="ai1"), timer(mode="host"), None)  # type: ignore[arg-type]
    with pytest.raises(StepError, match="timed out waiting for other hosts"):
        room._bring(Bring(subject="x", cause="x", python="/p", tag="cp311"), state())
    assert not waits


# What a host gets


def _unpack(archive: bytes, directory: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")


def test_settings_arrive_as_they_were(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "compose.yaml").write_text("services: {web: {image: 'lab/box:1'}}\n")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    raw = {
        "project": "shop",
        "source": str(source),
        "directory": "/opt/shop",
        "env": {"TOKEN": SecretStr("s3cret"), "PLAIN": 5},
        "checks": [{"kind": "http", "url": "http://127.0.0.1:8080/"}],
        "minimum_free": "3GiB",
        "ports": {"on_conflict": "stop", "allow": ["unit:nginx.service"]},
        "resolver": {"servers": ["192.0.2.53"]},
        "access": {"user": "ops", "public_keys": KEY},
        "schedule": {"mode": "host"},
    }
    stack = parse_machine({"stack": raw})
    assert isinstance(stack, Stack)
    bundle = make_bundle(stack, {"directory": "/var/lib/x"})
    assert bundle.digest == make_bundle(stack, {"directory": "/var/lib/x"}).digest
    _unpack(bundle.make_archive({}), tmp_path / "host")
    fleet = tmp_path / "host/fleet"
    assert {oct(path.stat().st_mode & 0o777) for path in fleet.glob("*.*")} == {"0o600"}
    scope: dict[str, Any] = {"__file__": str(fleet / "inventory.py")}
    exec((fleet / "inventory.py").read_text(), scope)
    ((name, data),) = scope["hosts"]
    arrived = parse_machine(data)
    assert name == "@local"
    assert isinstance(arrived, Stack)
    assert isinstance(arrived.env["TOKEN"], SecretStr)
    kept = {field: getattr(stack, field) for field in Stack.model_fields}
    gone = {"source", "access", "schedule", "report"}
    assert {field: getattr(arrived, field) for field in kept if field not in gone} == {
        field: value for field, value in kept.items() if field not in gone
    }
    assert arrived.access is None
    assert arrived.schedule is None
    brought = Path(str(arrived.source))
    assert brought.is_relative_to(fleet)
    assert (brought / "run.sh").stat().st_mode & 0o777 == 0o755
    (source / "compose.yaml").write_text("services: {web: {image: 'lab/box:2'}}\n")
    changed = parse_machine({"stack": raw})
    assert changed is not None
    assert make_bundle(changed, {}).digest != bundle.digest


TARGETS = ("json://127.0.0.1:9/secret-of-ntfy", "mailtos://ops:s3cret@example.com")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_those_who_are_notified_come_along_where_the_schedule_says_so(tmp_path: Path) -> None:
    host = cast("Any", None)
    machine = parse_machine(
        {
            "stack": {
                "report": {"notify": list(TARGETS)},
                "schedule": {"mode": "host", "notify": True},
            }
        }
    )
    assert machine is not None
    spec = machine.schedule
    assert spec is not None
    room = ScheduleReconciler(host, spec, host, machine)
    assert room.bundle is not None
    _unpack(room.bundle.make_archive({}), tmp_path)
    assert (tmp_path / "fleet/settings.json").stat().st_mode & 0o777 == 0o600
    scope: dict[str, Any] = {"__file__": str(tmp_path / "fleet/inventory.py")}
    exec((tmp_path / "fleet/inventory.py").read_text(), scope)
    report = scope["hosts"][0][1]["stack"]["report"]
    assert report.keys() == {"directory", "notify"}
    assert [url.get_secret_value() for url in report["notify"]] == list(TARGETS)
    assert not any(url in repr(report) for url in TARGETS)
    quiet = ScheduleReconciler(host, spec.model_copy(update={"notify": False}), host, machine)
    assert quiet.bundle is not None
    assert b"secret-of-ntfy" not in quiet.bundle.make_archive({})
    assert wheels.find_program(notify=True) != wheels.find_program()


def test_where_nobody_is_to_be_notified_the_schedule_says_so_before_any_host() -> None:
    with pytest.raises(SpecError) as error:
        check({"stack": {"schedule": {"mode": "host", "notify": True}}})
    assert str(error.value).startswith("stack.schedule.notify: there is nobody to notify")


PYTHON_PROGRAM = """#!/bin/sh
[ "$2 $3" = "-m venv" ] || exit 0
mkdir -p "$5/bin"
cat >"$5/bin/stackmend" <<'END'
#!/bin/sh
here=$(dirname "$0")
if [ "$1" = --version ]; then echo "stackmend 1"; exit; fi
env >"ROOT/environment"
exit "$(cat "ROOT/trial")"
END
cp "$0" "$5/bin/python"
chmod 755 "$5/bin/stackmend"
"""


class Copy:
    """What a host mends itself with, on a machine of its own."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.home = machine, machine.root / "home/stackmend-host"
        self.home.mkdir(parents=True)
        self.python = machine.put("bin/python", PYTHON_PROGRAM.replace("ROOT", str(machine.root)))
        self.python.chmod(0o755)
        machine.put("trial", "10")

    def bring(
        self,
        generation: str,
        *,
        wheels: bool,
        status: int = 0,
        program: str = "prog",
        digest: str = hashlib.sha256(b"a wheel").hexdigest(),
    ) -> str:
        pip = b"a wheel"
        files = {"fleet/inventory.py": b"hosts = []\n", "fleet/files/0/key": b"k\n"}
        if wheels:
            files["wheels/pip-1-py3-none-any.whl"] = pip
            files["wheels/requirements.txt"] = f"pip==1 --hash=sha256:{digest}\n".encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), 0o600
                tar.addfile(entry, io.BytesIO(content))
        trial = make_trial(
            timer(mode="host"), log_in(Job(command=("x",), directory="/", lock="/x/lock"), "/r"), 0
        )
        words = (str(self.home), generation, program, str(self.python), *trial)
        return self.machine.run("bring", *words, stdin=archive.getvalue(), status=status)

    @property
    def current(self) -> str:
        return str((self.home / "current").readlink())

    def list(self, name: str) -> set[str]:
        return {path.name for path in (self.home / name).iterdir()}


@pytest.fixture
def copy(machine: Machine) -> Copy:
    return Copy(machine)


def test_what_a_host_runs_is_never_touched_by_what_renews_it(copy: Copy) -> None:
    copy.bring("a-b-cp311", wheels=True)
    assert copy.current == "generations/a-b-cp311.0"
    # The same again: somebody edited it, say. What runs stays until the switch, and one run more.
    copy.machine.put("trial", "1")
    assert "ended with 1" in copy.bring("a-b-cp311", wheels=False, status=65)
    assert copy.current == "generations/a-b-cp311.0"
    assert copy.list("generations") == {"a-b-cp311.0"}
    copy.machine.put("trial", "0")
    copy.bring("a-b-cp311", wheels=False)
    assert copy.current == "generations/a-b-cp311.1"
    assert copy.list("generations") == {"a-b-cp311.0", "a-b-cp311.1"}
    copy.bring("a-c-cp311", wheels=False)
    assert copy.list("generations") == {"a-b-cp311.1", "a-c-cp311.0"}
    assert copy.list("programs") == {"prog.0"}
    assert (copy.home / "current/venv/bin/stackmend").exists()


def test_a_program_that_does_not_start_is_brought_beside_it(copy: Copy) -> None:
    copy.bring("a-b-cp311", wheels=True)
    has = ("has_program", str(copy.home), "prog")
    copy.machine.run(*has)
    (copy.home / "programs/prog.0/bin/stackmend").unlink()
    copy.machine.run(*has, status=1)
    assert copy.bring("a-b-cp311", wheels=False, status=74) == ""
    copy.bring("a-b-cp311", wheels=True)
    assert (copy.home / "current/venv").readlink() == Path("../../programs/prog.1")
    # Nothing of a wheel is run that is not the lock's.
    words = copy.bring("a-d-cp311", wheels=True, program="other", status=70, digest="0" * 64)
    assert "pip is not the one of the lock" in words
    # What could not be installed leaves nothing.
    copy.python.write_text("#!/bin/sh\nmkdir -p $5/bin; exit 1\n")
    copy.bring("a-d-cp311", wheels=True, program="other", status=70)
    assert copy.list("programs") == {"prog.0", "prog.1"}


def test_the_trial_has_the_environment_of_the_timer(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.bring("a-b-cp311", wheels=True)
    text = (copy.machine.root / "environment").read_text()
    found = dict(line.split("=", 1) for line in text.splitlines())
    assert found["HOME"] == "/r"
    assert found["PATH"] == PATH
    assert found["STACKMEND_TIMER"] == "stackmend-host"
    words = make_trial(timer(mode="host"), Job(command=("x",), directory="/", lock="/x/lock"), 252)
    assert words[:4] == ("systemd-run", "--quiet", "--wait", "--pipe")
    assert {"--property=LockPersonality=yes", "--property=WorkingDirectory=/"} < {*words}


def test_edits_of_a_hosts_copy_are_noticed(copy: Copy) -> None:
    copy.bring("a-b-cp311", wheels=True)
    current = copy.home / "current"

    def is_intact() -> bool:
        command = f'{read_script("stackmend.schedule", "copy")}fingerprint "$1"'
        done = subprocess.run(
            ["sh", "-c", command, "x", str(current)], capture_output=True, text=True, check=True
        )
        return done.stdout == (current / "intact").read_text()

    assert is_intact()
    key, more = current / "files/0/key", current / "more"
    edits: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: key.write_text("x"), lambda: key.write_text("k\n")),
        (lambda: key.chmod(0o644), lambda: key.chmod(0o600)),
        (lambda: more.write_text(""), more.unlink),
    ]
    for edit, undo in edits:
        edit()
        assert not is_intact()
        undo()
        assert is_intact()


def make_project(directory: Path) -> dict[str, Any]:
    (directory / "src").mkdir(exist_ok=True)
    (directory / "src/compose.yaml").write_text("services: {web: {image: 'lab/box:1'}}\n")
    return {"project": "shop", "source": str(directory / "src"), "directory": "/opt/shop"}


def test_checks_set_as_objects_keep_their_kind(tmp_path: Path) -> None:
    check = HttpCheck(url="http://127.0.0.1:8080/")
    machine = parse_machine({"stack": {**make_project(tmp_path), "checks": [check]}})
    assert isinstance(machine, Stack)
    assert machine is not None
    bundle = make_bundle(machine, {})
    found = json.loads(bundle.files["fleet/settings.json"][1])["stack"]
    assert found["checks"] == [{"kind": "http", "url": "http://127.0.0.1:8080/"}]
    again = parse_machine({"stack": {**found, **make_project(tmp_path)}})
    assert isinstance(again, Stack)
    assert again.checks == machine.checks


def test_the_files_of_a_modelfile_come_along(tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    (tmp_path / "w.gguf").write_bytes(b"GGUF")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.gguf").write_bytes(b"GGUF+")

    def bring(text: str) -> dict[str, bytes]:
        path.write_text(text)
        models = {
            "endpoint": "http://127.0.0.1:1",
            "wanted": [{"name": "mine", "modelfile": str(path)}],
        }
        stack = parse_machine({"stack": {**make_project(tmp_path), "models": models}})
        assert stack is not None
        files = make_bundle(stack, {}).files.items()
        return {
            name: content
            for name, (_, content) in files
            if name.count("/") > 2 and "compose" not in name
        }

    assert bring("FROM w.gguf\nADAPTER ./more/a.gguf\n") == {
        "fleet/files/1/Modelfile": b"FROM w.gguf\nADAPTER ./more/a.gguf\n",
        "fleet/files/1/w.gguf": b"GGUF",
        "fleet/files/1/more/a.gguf": b"GGUF+",
    }
    assert [*bring("FROM base:1b\n")] == ["fleet/files/1/Modelfile"]
    (tmp_path.parent / "out.gguf").write_bytes(b"GGUF")
    for text in ("FROM ../out.gguf", f"FROM {tmp_path.parent}/out.gguf"):
        with pytest.raises(Problem, match=r"models\.wanted\[0\]\.modelfile: .*move it beside"):
            bring(text)
    with (tmp_path / "w.gguf").open("wb") as file:
        file.truncate(65 * 1024**2)
    with pytest.raises(Problem, match=r"models\.wanted\[0\]\.modelfile: .*w\.gguf"):
        bring("FROM w.gguf")


def test_the_wheel_is_this_very_stackmend() -> None:
    name, content = wheels.make_wheel()
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        code = archive.read("stackmend/schedule/plan.py")
    assert {"stackmend/deploy/site.py", "stackmend/schedule/probe.sh"} <= names
    assert code == (ROOT / "ops/stackmend/schedule/plan.py").read_bytes()
    wheels.make_wheel.cache_clear()
    assert wheels.make_wheel() == (name, content)


def _export(*more: str) -> str:
    """What the lock holds for a host."""
    command = [sys.executable, "-m", "uv", *EXPORT.split(), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _split_requirements(text: str) -> list[str]:
    return sorted(re.split(r"(?m)^(?=\S)", text)[1:])


def test_the_requirements_are_those_of_the_lock() -> None:
    assert wheels.read_requirements() == _export()
    # What sends messages comes behind the others.
    exported = _split_requirements(_export("--extra", "notify"))
    assert _split_requirements(wheels.read_requirements(notify=True)) == exported
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert json.dumps(groups["host"]).startswith('["pip')


@pytest.mark.parametrize(
    ("library", "first", "last"),
    [
        ("glibc 2.36", "manylinux_2_36_x86_64", "linux_x86_64"),
        ("ldd (Debian GLIBC 2.41-12) 2.41 ", "manylinux_2_41_x86_64", "linux_x86_64"),
        ("musl libc (x86_64) Version 1.2.5", "musllinux_1_2_x86_64", "musllinux_1_0_x86_64"),
    ],
)
def test_the_platforms_of_a_host(library: str, first: str, last: str) -> None:
    platforms = wheels.find_platforms(state(library=library))
    assert (platforms[0], platforms[-1]) == (first, last)
    assert wheels.find_platforms(state(library="unknown")) == ()
