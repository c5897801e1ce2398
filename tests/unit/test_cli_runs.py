"""The command around real runs of pyinfra here: what it prints, and what it exits with."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from stackmend import cli, get_deploy_directory, reporting
from stackmend.reporting.state import RunRecord
from tests.unit.test_cli_exit_codes import record as make_record
from tests.unit.test_reporting_run import OPERATION

pytestmark = pytest.mark.slow

SCHEMA = Path(__file__).parents[2] / "ops/stackmend/reporting/schema-2.json"

#: The command, with the deploys of the directory that it runs in.
DRIVER = """
import sys
from pathlib import Path
from stackmend import cli
from stackmend.cli import runs
runs.get_deploy_directory = Path.cwd
cli.main(sys.argv[1:])
"""

#: A host of each end: what `mended` does there, and nothing that listens on the port of the last.
HOSTS = {
    "converged": ("nothing", "@local"),
    "changed": ("done", "@local"),
    "refused": ("refuse", "@local"),
    "locked": ("wait", "@local"),
    "failed": ("fail", "@local"),
    "unreachable": ("done", "away"),
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "room.py").write_text(OPERATION)
    return tmp_path


def write(site: Path, then: str, *hosts: str, inventory: str = "") -> None:
    data = {"@local": {}, "away": {"ssh_hostname": "127.0.0.1", "ssh_port": 1}}
    rows = [(host, data[host]) for host in hosts or ("@local",)]
    (site / "fleet.py").write_text(f"{inventory}\nhosts = {rows}\n")
    (site / "site.py").write_text(
        "from pyinfra import host\nfrom room import mended\nfrom stackmend import reporting\n"
        f"mended('ai', then={then!r})\nreporting.end_deploy(host)\n"
    )


def start(site: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "STACKMEND_REPORTS": "", "NO_COLOR": "", **env}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        cwd=site,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(site: Path, *words: str, **env: str) -> tuple[int, str, str]:
    """The exit code, and what went to standard output and standard error."""
    with start(site, *words, **env) as process:
        out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err, err
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("converged", 0),
        ("changed", 0),
        ("failed", 1),
        ("refused", 1),
        ("unreachable", 3),
        ("locked", 4),
    ],
)
def test_each_end_has_its_code_and_its_line(site: Path, end: str, code: int) -> None:
    then, host = HOSTS[end]
    write(site, then, host)
    rc, out, err = run(site, "site", "fleet.py")
    assert (rc, f"1 {end}" in out) == (code, True), out + err
    lines = [line.strip() for line in err.splitlines() if line.strip().startswith(f"{host}: ")]
    assert [re.sub(r"\(.*", "", line).strip() for line in lines] == [f"{host}: {end}"]
    # The same of the record, where somebody asks later.
    assert run(site, "report")[0] == code


def test_a_change_has_a_code_where_it_is_asked_for(site: Path) -> None:
    write(site, "done")
    assert run(site, "site", "fleet.py", "--dry")[0] == 0
    rc, out, err = run(site, "site", "fleet.py", "--dry", "--detailed-exitcode")
    assert rc == 10, out + err
    assert "@local: drifted" in err
    assert run(site, "site", "fleet.py", "--detailed-exitcode")[0] == 10
    write(site, "nothing")
    assert run(site, "site", "fleet.py", "--detailed-exitcode")[0] == 0


def test_a_dry_run_asks_nobody_whether_to_go_on_without_a_host(site: Path) -> None:
    write(site, "done", "@local", "away")
    rc, out, err = run(site, "site", "fleet.py", "--dry")
    assert rc == 3, out + err
    assert "1 drifted, 1 unreachable" in out


def test_each_finding_is_printed_once_and_the_steps_where_they_are_asked_for(site: Path) -> None:
    write(site, "done")
    rc, out, err = run(site, "site", "fleet.py")
    assert rc == 0, out + err
    assert (out + err).count("exited with code 137") == 1
    assert (out + err).count("OOMKilled is true") == 1
    assert "done: start ai/redis" in out
    assert "Loading" not in err
    assert len(err.splitlines()) == 1
    rc, out, err = run(site, "site", "fleet.py", "-v")
    assert rc == 0
    assert "--> Loading inventory..." in err
    assert "exited with code 137" in err


def test_what_fails_nothing_is_shown_as_well(site: Path) -> None:
    write(site, "nothing")
    (site / "site.py").write_text(
        "from pyinfra import host\nfrom pyinfra.api import operation\n"
        "from stackmend import reporting\nfrom stackmend.decision import Finding, Plan\n"
        "@operation()\n"
        "def checked():\n"
        "    found = Finding(subject='disk', kind='almost full', cause='98 %', blocks=False)\n"
        "    reporting.record(host, 'disk.checked').add_plan(Plan(findings=(found,)))\n"
        "    return\n"
        "    yield\n"
        "checked()\n"
    )
    rc, out, err = run(site, "site", "fleet.py")
    assert rc == 0, err
    assert "found: disk: almost full: 98 %" in out
    assert "found: disk: almost full: 98 %" in run(site, "report")[1]


@pytest.mark.parametrize("then", ["done", "fail"])
@pytest.mark.parametrize("verbose", [(), ("-v",)], ids=["", "verbose"])
def test_nothing_but_json_is_on_standard_output(
    site: Path, then: str, verbose: Sequence[str]
) -> None:
    write(site, then, inventory="import os\nprint('loud')\nos.system('echo louder')")
    rc, out, err = run(site, "site", "fleet.py", "--json", *verbose)
    record = json.loads(out)
    Draft202012Validator(json.loads(SCHEMA.read_bytes())).validate(record)
    assert record == json.loads((site / "var/reports/latest.json").read_bytes())
    assert rc == (0 if then == "done" else 1)
    assert {"loud", "louder"} <= {*err.splitlines()}
    assert run(site, "report", "--json")[1] == out


def test_a_secret_is_in_no_output(site: Path) -> None:
    write(site, "fail", inventory="from stackmend import reporting\nreporting.secret('s3cr\\'et')")
    for words in (["--json"], ["-v"], []):
        rc, out, err = run(site, "site", "fleet.py", *words)
        assert rc == 1
        assert "s3cr" not in out + err
        assert "*MASKED*" in out


BREAKS = "def broken(*arguments):\n    raise KeyError('out of order')\n"


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["", "json"])
def test_metrics_and_notices_that_break_leave_the_run_as_it_ended(
    site: Path, words: Sequence[str]
) -> None:
    write(site, "done")
    report = {"metrics": "out.prom", "ping": "http://127.0.0.1:1/secret-check"}
    (site / "fleet.py").write_text(
        f"{BREAKS}from stackmend.reporting import notify, textfile\n"
        "notify.send = textfile.write = broken\n"
        f"hosts = [('@local', {{'stack': {{'engine': {{}}, 'report': {report}}}}})]\n"
    )
    rc, out, err = run(site, "site", "fleet.py", *words)
    assert rc == 0, err
    assert '"changed"' in out if words else "1 changed" in out
    assert "the metrics could not be written: KeyError('out of order')" in err
    assert "the notices could not be sent: KeyError('out of order')" in err
    assert "names no host" not in err


def test_a_run_without_a_record_is_not_said_to_have_had_no_host(site: Path) -> None:
    breaks = f"{BREAKS}from stackmend.reporting import write\nwrite.build = broken"
    write(site, "done", inventory=breaks)
    rc, out, err = run(site, "site", "fleet.py")
    assert (rc, out) == (1, ""), err
    assert "Error: there is no record of the run" in err
    assert "names no host" not in err


WRONG: dict[str, tuple[Callable[[Path], object], Sequence[str], str]] = {
    "no-inventory": (lambda site: None, ["nowhere.py"], "no inventory: there is no 'nowhere.py'"),
    "no-python": (
        lambda site: (site / "fleet.py").write_text("hosts = [\n"),
        ["fleet.py"],
        "fleet.py line 1: '[' was never closed",
    ),
    "settings": (
        lambda site: (site / "fleet.py").write_text(
            "hosts = [('@local', {'stack': {'project': 'x', 'sorce': '.'}})]\n"
        ),
        ["fleet.py"],
        "stack.sorce: unknown key (did you mean source?)",
    ),
    "no-host": (lambda site: None, ["fleet.py", "--limit", "nobody"], "names no host, or --limit"),
    "no-stack": (
        lambda site: (site / "site.py").write_text(
            "from pyinfra import host\nfrom stackmend import reporting\nreporting.end_deploy(host)"
        ),
        ["fleet.py"],
        "no `stack` in its data",
    ),
    "argument": (
        lambda site: (site / "site.py").write_text(
            "from pyinfra.api import OperationError, operation\n@operation()\ndef wrong():\n"
            "    raise OperationError('ports: must be a list')\n    yield\nwrong()\n"
        ),
        ["fleet.py", "--dry"],
        "ports: must be a list",
    ),
    "option": (lambda site: None, ["fleet.py", "--dyr"], "No such option"),
    "nothing": (lambda site: None, [], "Missing argument 'INVENTORY'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_and_wrong_settings_have_one_code(site: Path, name: str) -> None:
    spoil, words, message = WRONG[name]
    write(site, "nothing")
    spoil(site)
    rc, out, err = run(site, "site", *words)
    assert rc == 2, out + err
    assert (out + err).count(message) == 1


def test_a_directory_stands_for_its_fleet(site: Path) -> None:
    write(site, "nothing")
    (site / "my").mkdir()
    (site / "fleet.py").rename(site / "my/fleet.py")
    assert run(site, "site", "my")[0] == 0


def test_a_connector_is_an_inventory(site: Path) -> None:
    write(site, "nothing")
    rc, out, err = run(site, "site", "@local")
    assert (rc, "1 converged" in out) == (0, True), err
    rc, _, err = run(site, "site", "@nowhere/x")
    assert (rc, "nowhere" in err) == (2, True), err


def test_a_report_is_found_by_its_path_and_by_its_directory(site: Path) -> None:
    write(site, "fail")
    run(site, "site", "fleet.py")
    latest = site / "var/reports/latest.json"
    texts = {run(site, "report", *words)[1] for words in ([], [str(latest)], [str(latest.parent)])}
    assert len(texts) == 1
    latest.resolve().write_text("[]")
    rc, out, err = run(site, "report")
    assert (rc, out) == (2, "")
    assert "no report: " in err


def test_the_report_that_is_named_is_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"20260102T03040{second}Z-abcdef.json" for second in range(2)]
    (tmp_path / "latest.json").symlink_to(names[0])
    paths = []

    def read(path: Path) -> RunRecord:
        paths.append(path)
        # Another run ends meanwhile.
        (tmp_path / "latest.json").unlink()
        (tmp_path / "latest.json").symlink_to(names[1])
        return make_record("failed")

    monkeypatch.setattr(reporting, "read", read)
    shown = CliRunner().invoke(cli.cli, ["report", str(tmp_path)], standalone_mode=False)
    assert paths == [tmp_path / names[0]]
    assert f"report: {tmp_path / names[0]}" in shown.output


def test_a_report_is_written_as_a_page_with_the_runs_before_it(site: Path) -> None:
    write(site, "nothing")
    run(site, "site", "fleet.py")
    time.sleep(1)  # records are named by seconds
    write(site, "fail")
    run(site, "site", "fleet.py")
    opener = site / "opener"
    opener.write_text('#!/bin/sh\necho "$1" >opened\n')
    opener.chmod(0o755)
    rc, out, err = run(site, "report", "--html", "pages/run.html", "--open", BROWSER=f"{opener} %s")
    assert (rc, out) == (1, ""), err
    assert err.splitlines()[0] == "wrote pages/run.html"
    text = (site / "pages/run.html").read_text()
    assert "<title>1 host: 1 failed</title>" in text
    assert "1 host: 1 converged" in text
    assert (site / "opened").read_text().strip() == (site / "pages/run.html").as_uri()
    rc, _, err = run(site, "report", "--open")
    assert (rc, "--open opens the page of --html; name one" in err) == (2, True)
    (site / "file").write_text("")
    rc, _, err = run(site, "report", "--html", "file/run.html")
    assert (rc, "cannot write file/run.html" in err) == (2, True), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("words", [(), ("--json",)], ids=["", "json"])
def test_a_signal_ends_a_run_with_its_own_code_and_a_record(
    site: Path, number: signal.Signals, words: Sequence[str]
) -> None:
    write(site, "done")
    with (site / "site.py").open("a") as file:
        file.write("import time\nopen('there', 'w').close()\ntime.sleep(60)\n")
    with start(site, "site", "fleet.py", *words) as process:
        wait_for(site / "there")
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert json.loads((site / "var/reports/latest.json").read_bytes())["interrupted"] == number.name
    if words:
        assert json.loads(out)["interrupted"] == number.name
    else:
        assert f"{number.name} ended the run early" in out
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_before_the_inventory_is_loaded(
    site: Path, number: signal.Signals
) -> None:
    write(site, "done")
    (site / "config.py").write_text("import time\nopen('there', 'w').close()\ntime.sleep(60)\n")
    with start(site, "site", "fleet.py") as process:
        wait_for(site / "there")
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert not (site / "var").exists()


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, "it never came to its moment"
        time.sleep(0.02)


def run_at_terminal(site: Path, *words: str, **env: str) -> str:
    """What a person sees."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "STACKMEND_REPORTS": "", "TERM": "xterm-256color", **env}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        cwd=site,
        env={name: value for name, value in environment.items() if name != "NO_COLOR" or value},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:  # the terminal's other end is closed
            pass
        process.wait(60)
    os.close(ours)
    return seen.decode()


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10\d)(?:;\d+)*m")


def test_a_terminal_has_colours_unless_somebody_wants_none(site: Path) -> None:
    write(site, "fail")
    seen = run_at_terminal(site, "site", "fleet.py", "-v", NO_COLOR="")
    assert COLOUR.search(seen)
    assert "│" in seen
    assert not COLOUR.search(run_at_terminal(site, "site", "fleet.py", "-v", NO_COLOR="1"))
    assert not COLOUR.search(run_at_terminal(site, "report", NO_COLOR="1"))
    assert "\x1b" not in "".join(map(str, run(site, "site", "fleet.py", "-v")))


ERROR = "Bind for 0.0.0.0:80 failed: port is already allocated"


@pytest.mark.parametrize("before", [2, 300_000])
def test_a_pasted_error_is_named(site: Path, before: int) -> None:
    log = site / "log.txt"
    log.write_text("all is quiet\n" * before + f"{ERROR}\n" + "\x1b[31mbye\n" * 3)
    rc, out, err = run(site, "doctor", "--text", "log.txt")
    assert rc == 1, err
    assert "port-taken" in out
    assert f"[line {before + 1}]" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    with log.open() as stdin:
        again = subprocess.run(
            [sys.executable, "-c", DRIVER, "doctor", "--text", "-", "--json"],
            cwd=site,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert again.returncode == 1, again.stderr
    (match,) = json.loads(again.stdout)
    assert (match["incident"], match["number"], match["line"]) == ("port-taken", before + 1, ERROR)


def test_a_text_about_nothing_known_is_no_finding(site: Path) -> None:
    (site / "log.txt").write_text("all is quiet\n")
    rc, out, _ = run(site, "doctor", "--text", "log.txt")
    assert (rc, out) == (0, "no known incident found\n")


@pytest.mark.parametrize("words", [(), ("fleet.py", "--text", "-"), ("--text", "nowhere.txt")])
def test_the_doctor_wants_one_thing_to_look_at(site: Path, words: Sequence[str]) -> None:
    rc, out, err = run(site, "doctor", *words)
    assert (rc, out) == (2, ""), err


def test_what_is_of_an_inventory_is_no_option_for_a_text(site: Path) -> None:
    (site / "log.txt").write_text("all is quiet\n")
    for words in (["--limit", "web"], ["-v"]):
        rc, out, err = run(site, "doctor", "--text", "log.txt", *words)
        assert (rc, out, "are for an INVENTORY" in err) == (2, "", True), err


def run_in_shell(site: Path, words: str) -> tuple[int, list[str], list[str]]:
    """The same by a shell, with its redirections."""
    (site / "driver.py").write_text(DRIVER)
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} driver.py {words}"],
        cwd=site,
        env={**os.environ, "STACKMEND_REPORTS": "", "NO_COLOR": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stdout.splitlines(), ended.stderr.splitlines()


def test_a_text_may_be_the_output_of_a_command(site: Path) -> None:
    (site / "log.txt").write_text(f"{ERROR}\n")
    rc, out, err = run_in_shell(site, "doctor --text <(cat log.txt)")
    assert (rc, err) == (1, [])
    assert "port-taken" in out[0]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("doctor --text - <&-", "standard input is closed"),
        ("doctor --text /dev/fd/77", "cannot be read"),
        ("init my <&-", "--host: name a host"),
        (f"report {'x' * 300}", "no report: "),
        ("report --json >/dev/full", "No space left on device"),
        ("report >/dev/full", "No space left on device"),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line(site: Path, words: str, reason: str) -> None:
    write(site, "nothing")
    if "/dev/full" in words:
        run(site, "site", "fleet.py")
    rc, out, err = run_in_shell(site, words)
    assert (rc, out) == (2, []), err
    assert len(err) == 1, err
    assert reason in err[0]


def test_a_report_that_nobody_reads_to_its_end_is_no_error(site: Path) -> None:
    write(site, "nothing")
    run(site, "site", "fleet.py")
    assert run_in_shell(site, "report --json | true")[2] == []


@pytest.mark.parametrize("words", ["", "--json", "-v"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full"])
def test_a_run_whose_output_goes_nowhere_ends_as_it_would(
    site: Path, words: str, closed: str
) -> None:
    write(site, "done")
    rc, out, err = run_in_shell(site, f"site fleet.py --detailed-exitcode {words} {closed}")
    assert rc == 10, out + err
    assert not [line for line in out + err if "Traceback" in line or "Exception ignored" in line]
    record = reporting.read(site / "var/reports/latest.json")
    assert {host.outcome for host in record.hosts.values()} == {"changed"}
    # The same of a report that nobody can read.
    assert run_in_shell(site, f"report {closed.replace('/dev/full', '/dev/null')}")[0] == 0


def test_a_shell_completes_the_words(site: Path) -> None:
    words = {"COMP_WORDS": "stackmend site --d", "COMP_CWORD": "2"}
    rc, out, _ = run(site, _STACKMEND_COMPLETE="bash_complete", **words)
    assert rc == 0
    assert out.splitlines() == ["plain,--dry", "plain,--detailed-exitcode"]
    for shell in ("bash", "zsh", "fish"):
        assert "_STACKMEND_COMPLETE" in run(site, _STACKMEND_COMPLETE=f"{shell}_source")[1]


@pytest.mark.parametrize("wait", ["soon", "-1", "30h"])
def test_a_time_to_wait_that_is_none_is_wrong_usage(site: Path, wait: str) -> None:
    write(site, "done")
    code, out, err = run(site, "site", "fleet.py", "--wait", wait)
    assert (code, out) == (2, "")
    assert "Invalid value for '--wait': must be " in err


def test_a_record_that_is_none_is_wrong_usage(site: Path) -> None:
    write(site, "done")
    (site / "undo.py").write_text((get_deploy_directory() / "undo.py").read_text())
    (site / "theirs.json").write_text('{"hosts": "; rm -rf /"}')
    for record in ("theirs.json", "ffffff", "nowhere.json"):
        code, out, err = run(site, "undo", "fleet.py", record)
        assert code == 2, (out, err)
        assert f"no record '{record}'" in err
