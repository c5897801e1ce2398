"""The record of real pyinfra runs, read from disk as a user would."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from stackmend import reporting
from stackmend.reporting.state import Outcome, RunRecord
from tests.lab import controller

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

#: Not ours: what others read reports with.
VALIDATOR = Draft202012Validator(
    json.loads((ROOT / "ops/stackmend/reporting/schema-2.json").read_bytes()),
    format_checker=FormatChecker(),
)

OPERATION = """
from datetime import UTC, datetime
from typing import Literal
from pydantic import SecretStr
from pyinfra import host
from pyinfra.api import operation, FunctionCommand, StringCommand
from stackmend import reporting
from stackmend.decision import Action, Finding, Locked, Paused, Plan, Refusal
from stackmend.reporting import announce

class Start(Action):
    verb: Literal["start"] = "start"
    containers: tuple[str, ...]
    text: str
    password: SecretStr = SecretStr("never shown")

@operation()
def mended(project, then="done"):
    report = reporting.record(host, f"room.mended ({project})")
    report.add_measure("channels", 1, "channels")
    if then == "nothing":
        host.noop("all is well")
        return
    redis = f"{project}/redis"
    finding = Finding(
        subject=redis,
        kind="stopped",
        cause="exited with code 137",
        evidence=("OOMKilled is true", "out of memory"),
        remedy="give it more memory",
    )
    if then == "wait":
        busy = Locked(subject="host", reason="another run is at work here", remedy="wait for it")
        announce.report_plan(host, report, Plan(refusals=(busy,)))
        yield StringCommand("false")
        return
    if then == "pause":
        held = Paused(subject="host", reason="paused by ann", remedy="resume it")
        announce.report_plan(host, report, Plan(findings=(finding,), refusals=(held,)))
        yield StringCommand("true")
        return
    if then == "refuse":
        refusal = Refusal(subject=redis, reason="not ours", remedy='"allow": ["redis"]')
        announce.report_plan(host, report, Plan(findings=(finding,), refusals=(refusal,)))
        yield StringCommand("false")
        return
    action = Start(
        subject=redis,
        cause="exited",
        destructive=True,
        undo="stop it",
        containers=("redis-1",),
        text="{\\n" + "x" * 10000,
    )
    announce.report_plan(host, report, Plan(findings=(finding,), actions=(action,)))
    def act(state, host):
        now = datetime.now(UTC)
        report.add_done(action, started=now, seconds=0.25, ok=then == "done")
        if then != "done":
            report.add_error("redis ended at once", ["line one", "password is s3cr'et"])
        return then == "done"
    yield FunctionCommand(act, (), {})
"""


def pyinfra(
    directory: Path,
    *arguments: str,
    inventory: str = "@local",
    reports: str = "",
    stdin: bytes = b"",
) -> controller.Run:
    """What pyinfra does in the directory; records go where they go without a setting."""
    env = {"STACKMEND_REPORTS": reports}
    return controller.run(inventory, *arguments, cwd=directory, env=env, stdin=stdin, timeout=180)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "room.py").write_text(OPERATION)
    (tmp_path / "config.py").write_text("from stackmend import reporting\nreporting.install()\n")
    return tmp_path


def deploy(site: Path, *lines: str) -> str:
    (site / "deploy.py").write_text(
        "from room import mended\nfrom stackmend import reporting\n" + "\n".join(lines) + "\n"
    )
    return "deploy.py"


def written(site: Path) -> RunRecord:
    latest = site / "var/reports/latest.json"
    assert latest.is_symlink()
    records = sorted((site / "var/reports").glob("2*.json"))
    assert [latest.resolve()] == records
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}\.json", records[0].name)
    assert records[0].stat().st_mode & 0o777 == 0o600
    VALIDATOR.validate(json.loads(latest.read_bytes()))
    return reporting.read(latest)


def test_what_was_found_and_done_is_told_once_although_pyinfra_evaluates_twice(site: Path) -> None:
    (site / "config.py").unlink()
    # Without --yes pyinfra prepares, asks and then executes.
    file = deploy(site, "mended('ai')", "mended('blog', then='nothing')")
    run = pyinfra(site, file, stdin=b"\n")
    assert run.rc == 0, run.out
    record = written(site)
    assert (record.mode, record.complete) == ("apply", True)
    host = record.hosts["@local"]
    assert host.outcome == "changed"
    ai, blog = host.operations
    assert ai.name == "room.mended (ai)"
    assert [finding.model_dump() for finding in ai.findings] == [
        {
            "subject": "ai/redis",
            "kind": "stopped",
            "cause": "exited with code 137",
            "evidence": ("OOMKilled is true", "out of memory"),
            "remedy": "give it more memory",
            "blocks": True,
        }
    ]
    (planned,), (done,) = ai.planned, ai.done
    assert planned.model_dump() == {
        "verb": "start",
        "subject": "ai/redis",
        "cause": "exited",
        "destructive": True,
        "undo": "stop it",
        "containers": ["redis-1"],
        "text": "{… (1 more lines)",
        "password": "*MASKED*",
    }
    assert done.model_dump(exclude={"started", "seconds", "result"}) == planned.model_dump()
    assert (done.result, done.seconds) == ("done", 0.25)
    assert record.started <= done.started <= record.ended
    assert (ai.succeeded, ai.changed, blog.succeeded, blog.changed) == (True, True, True, False)
    assert (blog.measured["channels"].value, blog.measured["channels"].unit) == (1, "channels")
    assert "1 host: 1 changed; report: " in run.out.splitlines()[-1]
    # What was destroyed is told with the way back.
    lines = [line.strip() for line in run.out.splitlines()]
    assert lines[lines.index("done: start ai/redis (0.2 s)") + 1] == "undo: stop it"


def test_a_run_that_finds_nothing_ends_with_one_line(site: Path) -> None:
    run = pyinfra(site, deploy(site, "mended('ai', then='nothing')"), "-y")
    assert run.rc == 0
    assert written(site).hosts["@local"].outcome == "converged"
    ours = run.out[run.out.index("Disconnecting") :].splitlines()[1:]
    assert len(ours) == 1
    assert "1 converged" in ours[0]
    assert "not well" not in ours[0]


def test_a_dry_run_is_reported_as_such(site: Path) -> None:
    run = pyinfra(site, deploy(site, "mended('ai')"), "--dry")
    assert run.rc == 0
    record = written(site)
    assert (record.mode, record.hosts["@local"].outcome) == ("dry", "drifted")
    assert not record.hosts["@local"].operations[0].done
    assert "planned: start ai/redis (destructive)" in run.out
    assert "not well: @local (drifted)" in run.out


RUNS: dict[str, tuple[str, str, list[str]]] = {
    # Outcome: what there is to do, the inventory, how it is run.
    "converged": ("nothing", "['@local']", ["-y"]),
    "changed": ("done", "['@local']", ["-y"]),
    "drifted": ("done", "['@local']", ["--dry"]),
    "refused": ("refuse", "['@local']", ["-y"]),
    "locked": ("wait", "['@local']", ["-y"]),
    "paused": ("pause", "['@local']", ["-y"]),
    "failed": ("fail", "['@local']", ["-y"]),
    # A local port that nothing listens on: refused at once.
    "unreachable": ("done", "[('gone', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1})]", ["-y"]),
    "unmanaged": ("", "['@local']", ["-y"]),
    # A dry run with --yes evaluates nothing, so it claims nothing.
    "unknown": ("done", "['@local']", ["--dry", "-y"]),
}


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_report_of_each_outcome_is_as_the_schema_says(site: Path, outcome: str) -> None:
    then, hosts, words = RUNS[outcome]
    (site / "inventory.py").write_text(f"hosts = {hosts}\n")
    lines = [f"mended('ai', then={then!r})"] if then else []
    pyinfra(site, deploy(site, *lines), *words, inventory="inventory.py")
    assert [host.outcome for host in written(site).hosts.values()] == [outcome]


PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBrlXCFeFJ9sFfXVWsKqBQYBXOQ1vPCvDrbQG4nGqUV0 me\n"
NO_STACK = "@local: unmanaged: nothing was asked of this host: no `stack` in its data"


@pytest.mark.parametrize("words", [["-y"], ["--dry"]], ids=" ".join)
def test_a_host_without_a_stack_is_said_to_be_asked_for_nothing(
    site: Path, words: list[str]
) -> None:
    run = pyinfra(site, deploy(site), *words)
    assert run.rc == 0
    record = written(site)
    assert (record.complete, record.hosts["@local"].outcome) == (True, "unmanaged")
    assert NO_STACK in run.out
    assert "ended early" not in run.out
    # Where nothing at all was asked, nothing is proven.
    assert record.list_not_well() == {"@local": "unmanaged"}


def test_a_host_whose_stack_has_nothing_for_a_deploy_is_said_to_be_so(site: Path) -> None:
    key = site / "id.pub"
    key.write_text(PUBLIC_KEY)
    access = {"user": "ops", "public_keys": str(key)}
    (site / "inventory.py").write_text(
        f"hosts = [('@local', {{'stack': {{'access': {access}}}}})]\n"
    )
    run = pyinfra(site, deploy(site), "-y", inventory="inventory.py")
    assert written(site).hosts["@local"].outcome == "unmanaged", run.out
    assert "this deploy applies nothing that its `stack` holds" in run.out


@pytest.mark.parametrize("words", [["-y"], ["--dry"], ["--dry", "-y"]], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("benchmark", "no `worker.benchmark` in its `stack`"),
        ("site", "this deploy applies nothing that its `stack` holds"),
    ],
)
def test_a_dry_run_says_the_same_of_a_deploy_that_asks_nothing(
    site: Path, name: str, reason: str, words: list[str]
) -> None:
    key = site / "id.pub"
    key.write_text(PUBLIC_KEY)
    access = {"user": "ops", "public_keys": str(key)}
    (site / "inventory.py").write_text(
        f"hosts = [('@local', {{'stack': {{'access': {access}}}}})]\n"
    )
    run = pyinfra(site, str(ROOT / f"deploy/{name}.py"), *words, inventory="inventory.py")
    assert run.rc == 0, run.out
    assert written(site).hosts["@local"].outcome == "unmanaged", run.out
    assert reason in run.out


def test_a_dry_run_of_a_deploy_that_breaks_proves_nothing(site: Path) -> None:
    (site / "inventory.py").write_text(
        "hosts = [('@local', {'stack': {'report': {}, 'engine': {}}})]\n"
    )
    pyinfra(site, deploy(site, "1 / 0"), "--dry", inventory="inventory.py")
    assert written(site).hosts["@local"].outcome == "unknown"


def test_a_deploy_that_breaks_is_not_said_to_have_asked_nothing(site: Path) -> None:
    run = pyinfra(site, deploy(site, "1 / 0"), "-y")
    assert run.rc == 1
    record = written(site)
    assert (record.complete, record.hosts["@local"].outcome) == (False, "unknown")


def test_json_output_stays_json(site: Path) -> None:
    run = pyinfra(site, deploy(site, "mended('ai')"), "-y", "--json")
    assert json.loads(run.stdout)["results"]["totals"]["error"] == 0
    assert "report: " in run.out


def test_a_refusal_names_its_remedy(site: Path) -> None:
    run = pyinfra(site, deploy(site, "mended('ai', then='refuse')"), "-y")
    assert run.rc == 1
    assert written(site).hosts["@local"].outcome == "refused"
    assert """refused: ai/redis: not ours. Remedy: "allow": ["redis"]""" in run.out
    assert """remedy: "allow": ["redis"]""" in run.out
    # What would mend a finding is told of each.
    assert run.out.count("emedy: give it more memory") == 2


def test_a_host_that_is_refused_something_beside_its_lock_counts_as_refused(site: Path) -> None:
    calls = ["mended('ai', then='refuse', _ignore_errors=True)", "mended('blog', then='wait')"]
    run = pyinfra(site, deploy(site, *calls), "-y")
    assert written(site).hosts["@local"].outcome == "refused", run.out


def test_no_secret_reaches_the_report_or_the_terminal(site: Path) -> None:
    run = pyinfra(
        site,
        deploy(site, 'reporting.secret("s3cr\'et")', "mended('ai', then='fail')"),
        "-y",
    )
    assert run.rc == 1
    record = written(site)
    assert record.hosts["@local"].outcome == "failed"
    assert record.hosts["@local"].operations[0].errors[0].log[1] == "password is *MASKED*"
    assert "s3cr" not in (site / "var/reports/latest.json").read_text()
    assert "s3cr" not in run.out


def test_an_operation_that_only_pyinfra_knows_is_in_the_record_too(site: Path) -> None:
    (site / "deploy.py").write_text(
        "from pyinfra.operations import server\n"
        "server.shell(name='first', commands=['true'])\n"
        "server.shell(name='second', commands=['false'])\n"
        "server.shell(name='third', commands=['true'])\n"
    )
    assert pyinfra(site, "deploy.py", "-y").rc == 1
    host = written(site).hosts["@local"]
    assert host.outcome == "failed"
    assert [(op.name, op.succeeded, op.changed) for op in host.operations] == [
        ("first", True, True),
        ("second", False, False),
        ("third", None, False),
    ]


def test_hosts_that_cannot_be_reached_are_in_the_record(site: Path) -> None:
    # A local port that nothing listens on: refused at once.
    (site / "inventory.py").write_text(
        "far = [('gone', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1}), '@local']\n"
    )
    file = deploy(site, "mended('ai', then='nothing')")
    assert pyinfra(site, file, "-y", inventory="inventory.py").rc == 1
    record = written(site)
    assert {name: host.outcome for name, host in record.hosts.items()} == {
        "gone": "unreachable",
        "@local": "converged",
    }
    assert record.hosts["gone"].errors[0].message


def test_a_run_that_reaches_no_host_at_all_is_reported(site: Path) -> None:
    (site / "inventory.py").write_text(
        "far = [('gone', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1})]\n"
    )
    run = pyinfra(site, deploy(site, "mended('ai')"), "-y", inventory="inventory.py")
    assert run.rc != 0
    assert written(site).hosts["gone"].outcome == "unreachable"
    assert "not well: gone (unreachable)" in run.out


def test_hosts_outside_the_limit_are_not_part_of_the_run(site: Path) -> None:
    (site / "inventory.py").write_text("some = ['@local', ('gone', {'ssh_port': 1})]\n")
    file = deploy(site, "mended('ai', then='nothing')")
    pyinfra(site, file, "-y", "--limit", "@local", inventory="inventory.py")
    assert set(written(site).hosts) == {"@local"}


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_run_that_is_interrupted_is_reported_as_unfinished(
    site: Path, number: signal.Signals, status: int
) -> None:
    (site / "deploy.py").write_text(
        "from pyinfra.operations import server\n"
        "server.shell(name='first', commands=['touch started; sleep 30'])\n"
        "server.shell(name='second', commands=['touch never'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pyinfra", "@local", "deploy.py", "-y"],
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(ROOT / "ops")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (site / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    began = time.monotonic()
    _, stderr = process.communicate(timeout=120)
    assert time.monotonic() - began < 5
    assert process.returncode == status
    record = written(site)
    assert not (site / "never").exists()
    assert (record.complete, record.hosts["@local"].outcome) == (False, "unknown")
    assert (record.interrupted, record.hosts["@local"].interrupted_at) == (number.name, "first")
    assert f"{number.name} ended the run early" in stderr


def test_looking_at_facts_reports_nothing(site: Path) -> None:
    assert pyinfra(site, "fact", "server.Hostname").rc == 0
    assert not (site / "var").exists()


def test_the_inventory_says_where_and_the_environment_overrules_it(site: Path) -> None:
    (site / "inventory.py").write_text(
        "some = [('@local', {'stack': {'report': {'directory': 'here'}}})]\n"
    )
    file = deploy(site, "mended('ai', then='nothing')")
    pyinfra(site, file, "-y", inventory="inventory.py")
    assert (site / "here/latest.json").exists()
    elsewhere = site / "there"
    pyinfra(site, file, "-y", inventory="inventory.py", reports=str(elsewhere))
    assert (elsewhere / "latest.json").exists()
    assert len(list((site / "here").glob("2*.json"))) == 1


def test_a_directory_that_cannot_be_written_fails_nothing(site: Path) -> None:
    (site / "var").write_text("a file where a directory should be")
    run = pyinfra(site, deploy(site, "mended('ai', then='nothing')"), "-y")
    assert run.rc == 0
    assert "the report could not be written" in run.out
    assert "1 converged" in run.out
