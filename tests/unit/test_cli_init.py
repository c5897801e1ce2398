"""``stackmend init``: what it writes, and what it says of each wrong answer.

What it writes lies as it is below ``golden/cli_init``. ``UPDATE_GOLDEN=1 pytest`` writes it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from stackmend import get_deploy_directory
from stackmend.cli import cli, new_inventory, questions
from stackmend.cli.new_inventory import Answers, NewHost, WrongAnswer, parse_hosts
from stackmend.spec import check, check_settings

GOLDEN = Path(__file__).parent / "golden" / "cli_init"
COMPOSE = "services: {web: {image: lab/box}}\n"
WITH_SERVER = """
services:
  llm: {image: "ollama/ollama:0.12.6"}
  api: {image: lab/box, environment: {OLLAMA_MODEL: mistral}}
"""

#: Options, and the inventory that they make.
CASES: dict[str, Sequence[str]] = {
    "reference": ("--host", "ai1.example.com"),
    "fleet": (
        *("--host", "ai1.example.com,gpu=192.0.2.7:2222", "--host", "v6=[2001:db8::1]:22"),
        *("--user", "ops", "--key", "~/.ssh/fleet", "--project", "llm", "--directory", "/srv/llm"),
    ),
    "local": ("--host", "@local", "--source", "my/stack"),
    "key": ("--host", "ai1", "--key", "../.ssh/fleet", "--source", "shop"),
    "beside": ("--host", "ai1", "--source", "shop"),
    "elsewhere": ("--host", "ai1", "--source", "{elsewhere}"),
    "server": ("--host", "ai1", "--source", "talk"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be in, with some projects, a key, and a home."""
    for project in ("work/my/stack", "work/shop", "elsewhere/it's"):
        (tmp_path / project).mkdir(parents=True)
        (tmp_path / project / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "work/talk").mkdir()
    (tmp_path / "work/talk/compose.yaml").write_text(WITH_SERVER)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/fleet").write_text("a key\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def init(*options: str, stdin: str | None = None) -> Result:
    done = CliRunner().invoke(cli, ["init", *options], input=stdin, standalone_mode=False)
    assert done.exception is None or isinstance(done.exception, click.ClickException), done
    return done


def load(inventory: str) -> list[dict[str, Any]]:
    """The hosts as pyinfra itself reads them."""
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "--json", inventory, "debug-inventory"],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    hosts: list[dict[str, Any]] = json.loads(done.stdout)
    return hosts


@pytest.mark.parametrize(
    ("called", "path", "named"),
    [
        (".venv/bin/stackmend", "/nowhere", ".venv/bin/stackmend"),
        ("bin/stackmend", "bin", "stackmend"),
        ("-c", "/nowhere", "stackmend"),
    ],
)
def test_the_next_command_is_one_that_a_shell_finds(
    home: Path, monkeypatch: pytest.MonkeyPatch, called: str, path: str, named: str
) -> None:
    (home / "bin").mkdir()
    (home / "bin/stackmend").touch(0o755)
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setenv("PATH", path)
    assert init("my", "--host", "@local").output.endswith(f"next: {named} site my --dry\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_valid_at_once(home: Path, name: str) -> None:
    elsewhere = str(home / "elsewhere/it's")
    done = init("my", *(option.format(elsewhere=elsewhere) for option in CASES[name]))
    assert done.output.splitlines() == [
        "wrote my/fleet.py",
        "wrote my/group_data/all.py",
        "next: stackmend site my --dry",
    ]
    written = "".join(
        f"# --- {file}\n{Path('my', file).read_text()}" for file in new_inventory.FILES
    ).replace(str(home), "/HOME")
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(written)
    assert written == golden.read_text()

    # From another directory: what is named in it is not sought where somebody happens to be.
    os.chdir("/")
    hosts = load(str(home / "work/my/fleet.py"))
    for host in hosts:
        stack = check(host["data"])
        assert stack is not None
        assert Path(str(stack.source)).is_dir()
    if name == "fleet":
        assert [host["name"] for host in hosts] == ["ai1.example.com", "gpu", "v6"]
        gpu = hosts[1]["data"]
        assert (gpu["ssh_hostname"], gpu["ssh_port"], gpu["ssh_user"]) == ("192.0.2.7", 2222, "ops")
        assert gpu["_sudo"] is True
        assert hosts[2]["data"]["ssh_hostname"] == "2001:db8::1"
    if name == "local":
        assert hosts[0]["data"]["_sudo"] is (os.geteuid() != 0)
        assert "ssh_user" not in hosts[0]["data"]


def test_what_can_be_moved_together_is_found_after_a_move(home: Path) -> None:
    init("my", *CASES["beside"])
    (home / "work").rename(home / "moved")
    (host,) = load(str(home / "moved/my/fleet.py"))
    assert host["data"]["stack"]["source"] == str(home / "moved/shop")


#: Options, and what is said of them: one line.
WRONG: dict[str, tuple[Sequence[str], str]] = {
    "no-host": ((), "--host: name a host, such as ai1.example.com, or @local"),
    "empty-host": (("--host", "a,,b"), "--host: name a host, such as ai1.example.com, or @local"),
    "option-as-host": (("--host", "-x"), "--host: '-x' is no name of a host"),
    "space-in-host": (("--host", "a b"), "--host: 'a b' is no name of a host"),
    "control-in-host": (("--host", "a\x1b[2J"), r"--host: 'a\x1b[2J' is no name of a host"),
    "connector": (("--host", "@docker/x"), "--host: '@docker/x' is no name of a host"),
    "host-twice": (("--host", "a:22,a:23"), "--host: a is there twice; call one NAME=ADDRESS"),
    "port": (("--host", "a:70000"), "--host: 'a:70000': '70000' is no port; one is 1 to 65535"),
    "empty-port": (("--host", "a:"), "--host: 'a:': '' is no port; one is 1 to 65535"),
    "bare-v6": (("--host", "2001:db8::1"), "is no name of a host, such as NAME=[ADDRESS]"),
    "address": (("--host", "a=b/c"), "--host: 'b/c' is no name or address of a host"),
    "user": (("--host", "a", "--user", "-oProxyCommand=x"), "is no name of a user, such as root"),
    "empty-user": (("--host", "a", "--user", ""), "--user: '' is no name of a user"),
    "key": (("--host", "a", "--key", "nowhere"), "--key: nowhere is no file of this machine"),
    "project": (("--host", "a", "--project", "My"), "--project: a Compose project name holds"),
    "own-name": (("--host", "a", "--project", "engine"), "--project: no project can be called"),
    "no-source": (("--host", "a", "--source", "no"), "no is not a directory on this machine"),
    "not-compose": (("--host", "a", "--source", ".."), "--source: "),
    "directory": (("--host", "a", "--directory", "opt"), "--directory: must be an absolute path"),
    "system": (("--host", "a", "--directory", "/etc"), "--directory: /etc is the system's own"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_gets_one_line_and_writes_nothing(home: Path, name: str) -> None:
    options, message = WRONG[name]
    done = init("new", *options)
    assert isinstance(done.exception, click.ClickException)
    (line,) = done.exception.format_message().splitlines()
    assert message in line
    assert not Path("new").exists()


#: What a person can enter that is not the default: a terminal enters no control character.
ASKED = sorted({*WRONG} - {"no-host", "empty-user", "control-in-host"})


@pytest.mark.parametrize("name", ASKED)
def test_a_wrong_answer_at_a_terminal_is_asked_for_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    options, message = WRONG[name]
    values = dict(zip(options[::2], options[1::2], strict=True))
    monkeypatch.setattr(questions, "is_interactive", lambda: True)
    names = ["--host", "--user", "--key", "--project", "--source", "--directory"]
    (wrong,) = [option for option in values if len(values) == 1 or option != "--host"]
    answers: list[str] = []
    for option in names:
        if option == wrong:
            answers.append(values[wrong])
        answers.append("a" if option == "--host" else "")
    done = init("new", stdin="\n".join(answers) + "\n")
    assert done.exception is None, done.output
    errors = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message.removeprefix(f"{wrong}: ") in errors[0]
    assert Path("new/fleet.py").exists()


def test_a_person_is_asked_for_what_no_option_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "is_interactive", lambda: True)
    done = init("new", "--project", "llm", stdin="ai1,ai2:2222\nops\n\n\n\n")
    assert done.exception is None, done.output
    text = Path("new/group_data/all.py").read_text()
    assert 'ssh_user = "ops"' in text
    assert '"directory": "/opt/llm"' in text
    assert "Compose project" not in done.output
    # This machine is nobody to log in to.
    done = init("here", stdin="@local\n\n\n\n")
    assert "User" not in done.output
    assert Path("here/fleet.py").exists()


@pytest.mark.parametrize("file", new_inventory.FILES)
@pytest.mark.parametrize("kind", ["file", "dangling link", "directory"])
def test_nothing_is_overwritten(home: Path, file: str, kind: str) -> None:
    path = Path("new", file)
    path.parent.mkdir(parents=True)
    if kind == "file":
        path.write_text("mine\n")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    done = init("new", "--host", "a")
    assert isinstance(done.exception, click.ClickException)
    assert f"DIRECTORY: {path} is there already, and is never overwritten" in str(done.exception)
    assert [each for each in Path("new").rglob("*.py") if each != path] == []
    assert not Path("new/nowhere").exists()
    if kind == "file":
        assert path.read_text() == "mine\n"


def test_what_cannot_be_written_as_a_whole_is_not_written(home: Path) -> None:
    Path("new").mkdir()
    Path("new/group_data").write_text("a file\n")
    done = init("new", "--host", "a")
    assert isinstance(done.exception, click.ClickException)
    assert "DIRECTORY" in str(done.exception)
    assert not Path("new/fleet.py").exists()
    done = init("new/group_data", "--host", "a")
    assert isinstance(done.exception, click.ClickException)


def answer(directory: Path, answers: Sequence[str]) -> tuple[int, str]:
    """`stackmend init my` at a real terminal, where somebody types one answer after the other."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from stackmend import cli; cli.main(['init', 'my'])"],
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    left, output = [*answers], ""
    # The terminal's end is an error of its reader.
    with process, contextlib.suppress(OSError):
        while select.select([ours], [], [], 120)[0] and (read := os.read(ours, 4096)):
            output += read.decode()
            if left and re.search(r"[])]: \Z", output):
                os.write(ours, f"{left.pop(0)}\n".encode())
        process.kill()
    os.close(ours)
    return process.returncode, output.replace("\r\n", "\n")


@pytest.mark.slow
def test_a_person_at_a_terminal_is_asked_again_until_each_answer_is_right(home: Path) -> None:
    answers = [
        *("a b", "a:70000", "ai1=127.0.0.1:2222"),
        *("-oProxyCommand=x", "ops"),
        *("nowhere", "~/.ssh/fleet"),
        *("My", "llm"),
        *("no", "shop"),
        *("/etc", "opt", ""),
    ]
    code, output = answer(home / "work", answers)
    assert code == 0, output
    errors = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 8, output
    assert output.endswith("next: stackmend site my --dry\n")
    (host,) = load(str(home / "work/my/fleet.py"))
    stack = check(host["data"])
    assert stack is not None
    assert (host["name"], host["data"]["ssh_port"], host["data"]["ssh_user"]) == (
        "ai1",
        2222,
        "ops",
    )
    assert (host["data"]["ssh_key"], stack.project) == ("~/.ssh/fleet", "llm")
    assert (str(stack.source), str(stack.directory)) == (str(home / "work/shop"), "/opt/llm")


@pytest.mark.slow
def test_somebody_who_leaves_in_the_midst_leaves_nothing(home: Path) -> None:
    code, output = answer(home / "work", ["ai1", "ops", "\x04"])
    assert (code, "Aborted." in output) == (130, True), output
    assert not (home / "work/my/fleet.py").exists()


#: What somebody changes in an inventory that was right, where, and what is said of it in one line.
EDITS: dict[str, tuple[str, str, str, str]] = {
    "typo": ("all", '"directory":', '"directroy":', "stack.directroy: unknown key (did you mean"),
    "nested": ("all", '"on_conflict"', '"on_conflcit"', "stack.ports.on_conflcit: unknown key"),
    "kind": ("all", '"project": "ai"', '"project": 5', "stack.project: must be text"),
    "value": ("all", '"report"', '"kill"', "stack.ports.on_conflict: must be 'report' or 'stop'"),
    "no mapping": ("all", "stack = {", "stack = []\nother = {", "stack: must be a mapping"),
    "source": ("all", '"shop")', '"shp")', "work/shp is not a directory on this machine"),
    "syntax": ("all", '"ai",', '"ai"', "group_data/all.py line "),
    "name": ("all", '"root"', "root", "group_data/all.py line 6: NameError: name 'root' is not"),
    "module": ("fleet", "hosts = [", "import nowhere\nhosts = [", "No module named 'nowhere'"),
    "login": ("all", "ssh_user", "ssh_usr", "ssh_usr: unknown key (did you mean ssh_user?)"),
    "key": ("all", '# ssh_key = "', 'ssh_key = "~/no', "id_ed25519 is no file of this machine"),
    "key kind": ("all", '# ssh_key = "~/', 'ssh_key = 5  # "', "ssh_key: must be text"),
    "port": ("fleet", '"ssh_port": 1', '"ssh_port": "1"', "ssh_port: must be a whole number from"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_a_wrong_edit_gets_one_clear_error_and_reaches_no_host(home: Path, name: str) -> None:
    init("my", "--host", "ai1=127.0.0.1:1", "--source", "shop")
    file, text, instead, message = EDITS[name]
    path = Path("my", {"all": "group_data/all.py", "fleet": "fleet.py"}[file])
    before = path.read_text()
    assert text in before
    path.write_text(before.replace(text, instead, 1))
    done = subprocess.run(
        [sys.executable, "-c", "from stackmend import cli; cli.main(['site', 'my'])"],
        env={**os.environ, "NO_COLOR": "1", "STACKMEND_REPORTS": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count(message) == 1, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert "Traceback" not in done.stderr
    assert not Path("var").exists(), "no run, no record"


def test_what_is_a_users_own_is_no_wrong_key() -> None:
    stack = {"project": "ai", "source": str(get_deploy_directory() / "stacks/ai")}
    own = {"ssh_keys": ["ssh-ed25519 AAAA"], "ssh_usr": "kept", "ssh_user": "ops", "rack": 5}
    more = {"ssh_allow_agent": True, "ssh_paramiko_connect_kwargs": {}, "ssh_connect_retries": 2}
    check_settings("ai1", {**own, **more, "stack": {**stack, "directory": "/opt/ai"}})


@given(st.text(max_size=40))
def test_whatever_is_entered_is_a_host_or_one_line_about_it(text: str) -> None:
    hosts, error = (), ""
    try:
        hosts = parse_hosts([text])
    except WrongAnswer as raised:
        error = str(raised)
    assert bool(hosts) != bool(error)
    assert error.isprintable()
    assert all(host.name.isascii() and not host.name.startswith("-") for host in hosts)


NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)


@given(
    hosts=st.lists(
        st.builds(
            NewHost,
            NAMES,
            st.fixed_dictionaries(
                {}, optional={"ssh_hostname": NAMES, "ssh_port": st.integers(1, 65535)}
            ),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda host: host.name,
    ),
    key=st.text(max_size=30),
    # What no path can hold is refused before.
    source=st.none()
    | st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=30).map(Path),
)
def test_each_value_is_written_as_python_has_it(
    hosts: list[NewHost], key: str, source: Path | None
) -> None:
    answers = Answers(tuple(hosts), "ops", key, "ai", source, "/opt/ai")
    written = dict(new_inventory.render(Path("/nowhere/my"), answers))
    fleet: dict[str, Any] = {}
    exec(compile(written["fleet.py"], "fleet.py", "exec"), fleet)
    data: dict[str, Any] = {"__file__": "/nowhere/my/group_data/all.py"}
    exec(compile(written["group_data/all.py"], "all.py", "exec"), data)
    expected = [(host.name, dict(host.data)) if host.data else host.name for host in hosts]
    assert fleet["hosts"] == expected
    assert data.get("ssh_key", "") == key
    if source is not None:
        assert Path(data["stack"]["source"]) == source
