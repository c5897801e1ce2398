"""What ends something, in a real shell on real processes; every value arrives as it is."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyinfra.api import StringCommand

from stackmend.connection import read_script
from stackmend.ports import commands
from stackmend.ports.commands import ABSENT, CHANGED, DUE, MISSING, RECORD, TAKEN
from stackmend.ports.plan.model import (
    CloseConnections,
    Member,
    Stop,
    StopContainer,
    StopProcess,
    StopProgram,
    StopUnits,
    StopWindowsProcess,
)
from stackmend.ports.state import Container, Process, Program, Socket, WindowsProcess

NAME = "20260101T120000Z-1"
PORT = "0.0.0.0:6379/tcp"
#: What a shell, an option parser or a careless format would trip over.
NASTY = (
    "it's",
    'a "b"',
    "$(touch pwned)",
    "`touch pwned`",
    "$HOME",
    "two\nlines\n",
    "\\n\\",
    "-n",
    "--",
    "*",
    "~",
    "%s%n",
    "äöü 日本語 \U0001f525",
    " a  b ",
    "\x01\x7f\t\r",
    "; touch pwned",
    "'\"'\"'",
    "a=b",
    "END",
)

#: A process that listens, says so, and does on SIGTERM what it is told to.
HOLDER = """
import os, signal, socket, sys, time
how, ready = sys.argv[1:3]
held = socket.create_server(("127.0.0.1", 0))
def write(word):
    with open(ready, "a") as file:
        file.write(word + "\\n")
def told(*_):
    write("told")
    if how == "end":
        os._exit(0)
    if how == "become":
        os.set_inheritable(held.fileno(), True)
        os.execv("/bin/sleep", ["sleep", "60"])
    if how == "let go":
        held.close()
signal.signal(signal.SIGTERM, told)
if how == "large":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    kept = bytearray(os.urandom(1 << 20)) * 512
if how == "parent" and os.fork() == 0:
    how = "ignore"
    ready += ".child"
if how == "parent":
    how = "end"
write("ready")
while True:
    time.sleep(60)
"""

#: The same as far as it is ended by what it is told, for users who may run nothing of ours.
PLAIN = 'echo ready >>"$2"; while :; do sleep 1; done'

#: What scripts may need of a host that has no python3.
TOOLS = (
    "awk cat chmod cmp cp cut date du env find getent grep head id ls mkdir mktemp mv od paste pwd "
    "readlink rm sed setpriv setsid sh sleep sort stat sync tail touch tr"
).split()


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PATH on which there is no python3."""
    tools = tmp_path_factory.mktemp("tools")
    for name in TOOLS:
        where = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
        assert where, f"this machine has no {name}"
        (tools / name).symlink_to(where)
    assert shutil.which("python3", path=str(tools)) is None
    return tools


@pytest.fixture(params=["python3", "no python3"])
def path(request: pytest.FixtureRequest, bare: Path, tmp_path: Path) -> str:
    if request.param == "no python3":
        return str(bare)
    with_it = tmp_path / "with"
    with_it.mkdir()
    (with_it / "python3").symlink_to(sys.executable)
    return f"{with_it}:{bare}"


@dataclass
class Running:
    """A process of the test's own."""

    popen: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def process(self) -> Process:
        return described(self.pid)

    @property
    def inodes(self) -> tuple[int, ...]:
        return sockets(self.pid)

    @property
    def words(self) -> list[str]:
        return self.output.read_text().split() if self.output.exists() else []

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None


def described(pid: int) -> Process:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Process(pid=pid, started=int(fields[19]), exe=str(Path(f"/proc/{pid}/exe").readlink()))


def sockets(pid: int) -> tuple[int, ...]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            name = str(path.readlink())
            if name.startswith("socket:["):
                found.append(int(name[8:-1]))
    return tuple(found)


def dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(condition: str, what: object, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until, condition
        time.sleep(0.02)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[object]:
    started: list[Running] = []

    def start(how: str, *more: str, place: Path = tmp_path, **given: object) -> Running:
        output = place / f"said-{len(started)}"
        program = (
            ["/bin/sh", "-c", PLAIN, "sh"] if how == "plain" else [sys.executable, "-c", HOLDER]
        )
        argv = [*program, how, str(output), *more]
        popen = subprocess.Popen(argv, stderr=subprocess.DEVNULL, **given)  # type: ignore[call-overload]
        one = Running(popen, output)
        started.append(one)
        eventually("it listens", lambda: "ready" in one.words)
        return one

    yield start
    for one in started:
        one.popen.kill()
        one.popen.wait()


def ending(process: Process, *inodes: int, more: tuple[Member, ...] = ()) -> Stop:
    members = (Member(process=process, inodes=inodes), *more)
    return action(StopProcess, members=members)


def action(kind: type[Stop], **more: object) -> Stop:
    given = {"subject": "it", "cause": "why", "ports": (PORT,), **more}
    return kind.model_validate(given)


def run(
    command: StringCommand, path: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", command.get_raw_value()],
        env={"PATH": path, "HOME": "/nowhere"},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


def end(
    what: Stop, root: Path, path: str, grace: float = 5, record: str = NAME
) -> subprocess.CompletedProcess[bytes]:
    return run(commands.execute(what, record, grace, str(root)), path)


# A process


def test_a_process_is_recorded_and_ended(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    environ = {"PATH": "/usr/bin:/bin", **{f"V{i}": value for i, value in enumerate(NASTY)}}
    place = tmp_path / "it's\n$(x) ä"
    place.mkdir()
    one = holder("end", *NASTY, env=environ, cwd=place)
    argv, left = (Path(f"/proc/{one.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    done = end(ending(one.process, *one.inodes), tmp_path / "root", path)
    assert (done.returncode, done.stderr) == (0, b"")
    eventually("it is gone", lambda: not one.alive)
    assert one.words == ["ready", "told"], "it was asked, once"
    record = tmp_path / "root" / NAME
    assert record.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in record.iterdir()} == {0o600}
    assert (record / "argv").read_bytes() == argv
    assert (record / "environ").read_bytes() == left
    assert (record / "cwd").read_bytes() == os.fsencode(place)
    assert (record / "kind").read_text() == "command"
    assert (record / "ports").read_text() == PORT
    assert (record / "done").exists()
    assert f"Uid:\t{os.getuid()}\t" in (record / "status").read_text()


def test_what_ignores_the_request_is_killed_after_its_grace(  # type: ignore[no-untyped-def]
    holder, tmp_path: Path, path: str
) -> None:
    one = holder("ignore")
    since = time.monotonic()
    done = end(ending(one.process, *one.inodes), tmp_path, path, grace=2)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - since >= 2
    assert one.popen.wait(5) == -signal.SIGKILL
    assert one.words == ["ready", "told"]


@pytest.mark.parametrize("wrong", ["start time", "program", "socket", "no start time"])
def test_another_process_of_that_number_is_left_alone(  # type: ignore[no-untyped-def]
    holder, tmp_path: Path, path: str, wrong: str
) -> None:
    one = holder("end")
    process, inodes = one.process, one.inodes
    match wrong:
        case "start time":
            process = process.model_copy(update={"started": process.started - 1})
        case "no start time":
            process = process.model_copy(update={"started": 0})
        case "program":
            process = process.model_copy(update={"exe": "/usr/bin/other"})
        case "socket":
            inodes = (1,)
    done = end(ending(process, *inodes), tmp_path / "root", path)
    assert done.returncode == CHANGED
    assert b"nothing was signalled" in done.stderr
    assert one.alive
    assert one.words == ["ready"]
    assert list((tmp_path / "root").iterdir()) == [], "nothing was ended, nothing is recorded"


chooses_numbers = pytest.mark.skipif(
    not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), reason="needs to choose a number"
)


def again(holder: Callable[[str], Running], first: Running) -> Running:
    """Another process of the same program and number."""
    first.popen.kill()
    first.popen.wait()
    for _ in range(200):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
        second = holder("end")
        if second.pid == first.pid:
            return second
        second.popen.kill()
        second.popen.wait()
    raise AssertionError("the kernel gave the number to nobody again")


@chooses_numbers
def test_a_number_that_is_used_again_is_left_alone(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    first = holder("end")
    action = ending(first.process)
    second = again(holder, first)
    done = end(action, tmp_path / "root", path)
    assert done.returncode == CHANGED
    assert second.alive
    assert second.words == ["ready"]


@chooses_numbers
@pytest.mark.parametrize("tool", ["python3", "grep"])
def test_a_number_that_is_used_again_after_it_was_recorded_is_left_alone(  # type: ignore[no-untyped-def]
    holder, tmp_path: Path, bare: Path, tool: str
) -> None:
    """Each look at a process counts until the next: the last one is right before the signal."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    real = sys.executable if tool == "python3" else bare / tool
    (hooks / tool).write_text(
        f"#!/bin/sh\n: >{tmp_path}/there\n"
        f'while [ ! -e {tmp_path}/go ]; do sleep 0.05; done\nexec {real} "$@"\n'
    )
    (hooks / tool).chmod(0o755)
    first = holder("end")
    command = commands.execute(ending(first.process), NAME, 5, str(tmp_path / "root"))
    with ThreadPoolExecutor() as threads:
        running = threads.submit(run, command, f"{hooks}:{bare}")
        eventually("it was looked at", lambda: (tmp_path / "there").exists())
        second = again(holder, first)
        (tmp_path / "go").write_text("")
        done = running.result()
    assert done.returncode == CHANGED, done.stderr
    assert list((tmp_path / "root").iterdir()) == []
    assert second.alive
    assert second.words == ["ready"]


def test_a_process_that_is_gone_is_said_to_be(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    one = holder("end")
    action = ending(one.process, *one.inodes)
    one.popen.kill()
    # Not waited for, its number is a dead process's still.
    eventually("it is dead", lambda: "Z" in Path(f"/proc/{one.pid}/stat").read_text())
    assert end(action, tmp_path / "root", path).returncode == ABSENT
    one.popen.wait()
    assert end(action, tmp_path / "root", path).returncode == ABSENT
    assert list((tmp_path / "root").iterdir()) == []


def test_what_takes_its_time_to_end_did_not_become_another_program(  # type: ignore[no-untyped-def]
    holder, tmp_path: Path, path: str
) -> None:
    # While the kernel takes its memory back, a process has no program, and is there.
    one = holder("large")
    done = end(ending(one.process, *one.inodes), tmp_path, path, grace=5)
    assert done.returncode == 0, done.stderr
    assert one.popen.wait(5) == -signal.SIGTERM


def test_what_becomes_another_program_is_not_killed(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    one = holder("become")
    done = end(ending(one.process, *one.inodes), tmp_path, path, grace=1)
    assert done.returncode == CHANGED
    assert b"was not killed" in done.stderr
    assert one.alive
    assert Path(f"/proc/{one.pid}/comm").read_text() == "sleep\n"
    assert (tmp_path / NAME / "argv").exists(), "it was asked to end: that stays recorded"


def test_what_lets_go_of_the_port_is_not_killed(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    one = holder("let go")
    done = end(ending(one.process, *one.inodes), tmp_path, path, grace=1)
    assert done.returncode == 0, done.stderr
    assert one.alive
    assert one.words == ["ready", "told"]


def test_a_child_with_the_same_socket_is_ended_after_its_parent(  # type: ignore[no-untyped-def]
    holder, tmp_path: Path, path: str
) -> None:
    one = holder("parent")
    children = Path(f"/proc/{one.pid}/task/{one.pid}/children")
    (child,) = map(int, children.read_text().split())
    child_said = Path(f"{one.output}.child")
    eventually("the child listens", lambda: child_said.exists())
    more = (Member(process=described(child), inodes=one.inodes),)
    done = end(ending(one.process, *one.inodes, more=more), tmp_path, path, grace=1)
    assert done.returncode == 0, done.stderr
    assert one.popen.wait(5) == 0
    assert child_said.read_text().split() == ["ready", "told"]
    eventually("the child is dead", lambda: dead(child))
    assert (tmp_path / NAME / "pid").read_text() == str(one.pid)


def test_what_cannot_be_recorded_is_not_ended(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    one = holder("end")
    action = ending(one.process, *one.inodes)
    (tmp_path / NAME).mkdir()
    assert end(action, tmp_path, path).returncode == TAKEN
    (tmp_path / "file").write_text("")
    assert end(action, tmp_path / "file", path).returncode not in (0, CHANGED, ABSENT)
    assert one.words == ["ready"]
    assert list((tmp_path / NAME).iterdir()) == []


# Connections

#: What ss says of two connections from one port; a program may call itself whatever it likes.
LISTED = """\
ESTAB 0 0 [::ffff:192.0.2.1]:40000 [::ffff:192.0.2.7]:443 uid:33 ino:77 sk:1 <->
ESTAB 0 0 192.0.2.1:40000 198.51.100.1:80 timer:(keepalive,5sec,0) ino:78 sk:2 <->
"""


def close(tmp_path: Path, shell: str, *inodes: int, works: bool = True) -> tuple[int, list[str]]:
    """The exit status, and the calls that were to close something."""
    (tmp_path / "listed").write_text(LISTED)
    fake = f"""#!/bin/sh
case " $* " in
*" -K "*) echo "$*" >>{tmp_path}/calls; [ {int(works)} = 0 ] || : >{tmp_path}/listed ;;
*) cat {tmp_path}/listed ;;
esac
"""
    (tmp_path / "ss").write_text(fake)
    (tmp_path / "ss").chmod(0o755)
    (tmp_path / "calls").write_text("")
    sockets = tuple(
        Socket(
            protocol="tcp", address="192.0.2.1", port=40000, state="ESTAB", inode=inode, peer="x"
        )
        for inode in inodes
    )
    action = CloseConnections(subject="one", cause="", ports=(PORT,), sockets=sockets)
    done = run(commands.execute(action, NAME, 5, str(tmp_path / "root")), f"{tmp_path}:{shell}")
    assert not (tmp_path / "root").exists(), "there is nothing to bring back"
    return done.returncode, (tmp_path / "calls").read_text().splitlines()


def test_only_the_connection_that_was_looked_at_is_closed(tmp_path: Path, path: str) -> None:
    assert close(tmp_path, path, 78) == (
        0,
        ["-K -H -n -t state connected src 192.0.2.1:40000 dst 198.51.100.1:80"],
    )
    status, (call,) = close(tmp_path, path, 77)
    assert status == 0
    assert call.endswith("src [::ffff:192.0.2.1]:40000 dst [::ffff:192.0.2.7]:443")


@pytest.mark.parametrize("inode", [7, 778, 40000])
def test_a_connection_that_is_gone_is_told_and_no_other_closed(
    tmp_path: Path, path: str, inode: int
) -> None:
    assert close(tmp_path, path, inode) == (ABSENT, [])


def test_a_kernel_that_closes_no_connection_is_told(tmp_path: Path, path: str) -> None:
    status, calls = close(tmp_path, path, 78, works=False)
    assert (status, len(calls)) == (69, 1)


# Bringing it back


@pytest.mark.parametrize("user", ["the same user", "another user"])
def test_a_command_comes_back_as_it_was(  # type: ignore[no-untyped-def]
    holder, tmp_path: Path, path: str, user: str
) -> None:
    how, more = "end", {}
    if user == "another user":
        if os.getuid() != 0:
            pytest.skip("only root can be another user")
        how = "plain"
        more = {"user": 12345, "group": 54321, "extra_groups": [777, 888]}
    with tempfile.TemporaryDirectory() as shared:
        where = Path(shared)
        where.chmod(0o1777)
        place = where / "it's\n$(x) ä"
        place.mkdir()
        comes_back(lambda **given: holder(how, *NASTY, place=where, **given, **more), where, path)


def comes_back(start: Callable[..., Running], tmp_path: Path, path: str) -> None:
    (place,) = tmp_path.iterdir()
    environ = {"PATH": "/usr/bin:/bin", **{f"V{i}": value for i, value in enumerate(NASTY)}}
    one = start(env=environ, cwd=place, umask=0o027)

    def shape(pid: int) -> dict[str, object]:
        root = Path(f"/proc/{pid}")
        kept = ("Uid", "Gid", "Groups", "Umask")
        return {
            "argv": (root / "cmdline").read_bytes(),
            "environ": sorted((root / "environ").read_bytes().split(b"\0")),
            "cwd": str((root / "cwd").readlink()),
            "exe": str((root / "exe").readlink()),
            **{
                line.partition(":")[0]: line.split()
                for line in (root / "status").read_text().splitlines()
                if line.startswith(kept)
            },
        }

    before = shape(one.pid)
    root = tmp_path / "root"
    root.mkdir()
    assert end(ending(one.process, *one.inodes), root, path).returncode == 0
    one.popen.wait(5)
    one.output.unlink()

    def restore(*, observe: bool = False, record: str = "latest") -> int:
        done = run(commands.restore(record, observe=observe, root=str(root)), path, tmp_path)
        assert done.returncode in (0, DUE), done.stderr
        # What would be started needs its ports.
        ports = f"{PORT}\n" if done.returncode == DUE else ""
        assert done.stdout.decode() == f"{NAME}\n{ports}", done.stderr
        return done.returncode

    assert restore(observe=True) == DUE
    assert not one.output.exists(), "to observe changes nothing"
    assert restore() == 0
    pid = int((root / NAME / "restored").read_text().split()[0])
    try:
        eventually("it listens", lambda: one.words == ["ready"])
        assert shape(pid) == before
        assert os.getsid(pid) != os.getsid(0), "it outlives who brought it back"
        assert restore(observe=True) == 0
        assert restore(record=NAME) == 0
        assert one.words == ["ready"], "the second time changes nothing"
        assert not (tmp_path / "pwned").exists()
        assert not (place / "pwned").exists()
    finally:
        os.kill(pid, signal.SIGKILL)


def test_two_records_of_one_process_bring_back_one(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    """Whoever was cut off while it had its grace is followed by one who ends it."""
    one = holder("end")
    assert end(ending(one.process, *one.inodes), tmp_path, path).returncode == 0
    one.popen.wait(5)
    second = NAME.replace("-1", "-2")
    shutil.copytree(tmp_path / NAME, tmp_path / second)
    (tmp_path / NAME / "done").unlink()
    for record in (second, NAME, second):
        done = run(commands.restore(record, observe=False, root=str(tmp_path)), path)
        assert done.returncode == 0, done.stderr
    pid = int((tmp_path / second / "restored").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    assert not (tmp_path / NAME / "restored").exists()


def test_what_is_gone_cannot_come_back(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    place = tmp_path / "place"
    place.mkdir()
    one = holder("end", cwd=place)
    assert end(ending(one.process, *one.inodes), tmp_path / "root", path).returncode == 0
    one.popen.wait(5)
    place.rmdir()
    done = run(commands.restore(NAME, observe=False, root=str(tmp_path / "root")), path)
    assert done.returncode == 69
    assert f"its directory {place} is not there any more" in done.stderr.decode()


def test_what_ends_at_once_is_not_called_back(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    one = holder("end")
    assert end(ending(one.process, *one.inodes), tmp_path, path).returncode == 0
    one.popen.wait(5)
    argv = (tmp_path / NAME / "argv").read_bytes().split(b"\0")
    argv[1] = b"-Z"  # no option of Python's: it ends before it has begun
    (tmp_path / NAME / "argv").write_bytes(b"\0".join(argv))
    done = run(commands.restore(NAME, observe=False, root=str(tmp_path)), path)
    assert done.returncode == 69
    assert b"ended at once" in done.stderr


def test_what_never_ended_is_not_started_a_second_time(holder, tmp_path: Path, path: str) -> None:  # type: ignore[no-untyped-def]
    one = holder("become")
    assert end(ending(one.process, *one.inodes), tmp_path, path, grace=1).returncode == CHANGED
    done = run(commands.restore(NAME, observe=True, root=str(tmp_path)), path)
    assert done.returncode == 0


def test_there_is_no_such_record(tmp_path: Path, path: str) -> None:
    for record in ("latest", NAME):
        for root in (tmp_path, tmp_path / "nowhere"):
            done = run(commands.restore(record, observe=True, root=str(root)), path)
            assert done.returncode == MISSING


def test_the_latest_record_is_the_last_one_by_number(tmp_path: Path, path: str) -> None:
    for name in ("20260101T120000Z-9", "20260101T120000Z-10", "20251231T235959Z-11"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kind").write_text("windows")
        (tmp_path / name / "image").write_text("nginx.exe")
    (tmp_path / "lock").write_text("")
    done = run(commands.restore("latest", observe=False, root=str(tmp_path)), path)
    assert done.stdout == b"20260101T120000Z-10\n"
    assert done.returncode == 69
    assert b"nginx.exe ran on Windows" in done.stderr


def made(root: Path, name: str, days: float = 0, size: int = 10) -> Path:
    """A record of something, of some age."""
    record = root / name
    record.mkdir()
    (record / "kind").write_text("unit")
    (record / "environ").write_bytes(b"x" * size)
    then = time.time() - days * 86400
    os.utime(record, (then, then))
    return record


def claim(root: Path, shell: list[str], name: str) -> None:
    """Make a record as each script of the room does."""
    script = (
        read_script("stackmend.connection", "walk")
        + read_script("stackmend.ports", "record")
        + 'claim unit "0.0.0.0:80/tcp"\n'
    )
    done = subprocess.run(
        [*shell, "-c", script, "claim", str(root), name], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_old_records_go_and_the_last_ones_stay(tmp_path: Path, each_shell: list[str]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(25):
        made(root, f"20250101T000000Z-{number}", days=300)
    young = [made(root, f"20250201T000000Z-{number}", days=3) for number in range(12)]
    claim(root, each_shell, "20250301T000000Z-1")
    left = {path.name for path in root.iterdir()}
    # The last twenty, by number and not by letter.
    old = {f"20250101T000000Z-{number}" for number in range(18, 25)}
    assert left == {"20250301T000000Z-1", *(path.name for path in young), *old}
    claim(root, each_shell, "20250301T000000Z-2")
    assert len(list(root.iterdir())) == 20


def test_young_records_stay_within_their_bytes(tmp_path: Path, each_shell: list[str]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(60):
        made(root, f"20250101T000000Z-{number}", days=1, size=100_000)
    claim(root, each_shell, "20250101T000000Z-60")
    left = sorted(int(path.name.rpartition("-")[2]) for path in root.iterdir())
    assert left == list(range(left[0], 61))
    assert 20 + 5 < len(left) <= 20 + 10


def test_what_is_no_record_is_never_pruned(tmp_path: Path, each_shell: list[str]) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    for number in range(30):
        made(root, f"20250601T000000Z-{number}", days=100)
    strange = ["20240101T000000Z-1x", "0Z-1", "2024010\nT000000Z-1", "20240101T000000Z-", "lock"]
    for name in strange:
        made(root, name, days=300)
    (root / "20240101T000000Z-7").symlink_to(elsewhere)
    inside = root / "20250601T000000Z-1"
    (inside / "way").symlink_to(elsewhere)
    os.utime(inside, (0, 0))
    # The clock went back: the one that is being made is the oldest by its name.
    claim(root, each_shell, "20230101T000000Z-1")
    left = {path.name for path in root.iterdir()}
    assert left >= {*strange, "20240101T000000Z-7", "20230101T000000Z-1"}
    assert not inside.exists()
    assert (elsewhere / "precious").read_text() == "kept"
    assert len(left) == len(strange) + 2 + 19


@pytest.mark.parametrize("wrong", ["", "..", "../x", "-1", "x/y", NAME + "\n", "20260101T120000Z"])
def test_a_record_has_a_name_of_its_own_kind(wrong: str) -> None:
    assert RECORD.fullmatch(NAME)
    assert RECORD.fullmatch("latest")
    assert not RECORD.fullmatch(wrong)


# What other programs are told


@pytest.fixture
def tools(bare: Path, tmp_path: Path) -> Path:
    """Programs that write down how many words they were given, and these."""
    tools = tmp_path / "bin"
    tools.mkdir()
    return tools


def stub(tools: Path, name: str, answers: str = "") -> None:
    output = tools.parent / "said"
    body = f'#!/bin/sh\nprintf "%s\\0" "{name}" $# "$@" >>{output}\n{answers}\n'
    (tools / name).write_text(body)
    (tools / name).chmod(0o755)


def calls(tools: Path) -> list[list[str]]:
    output = tools.parent / "said"
    left = output.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
    found = []
    while left:
        count = int(left[1])
        found.append([left[0], *left[2 : count + 2]])
        left = left[count + 2 :]
    return found


@pytest.mark.parametrize("name", NASTY)
def test_a_supervisor_gets_the_words_as_they_are(tools: Path, bare: Path, name: str) -> None:
    stub(tools, "supervisorctl")
    program = Program(
        supervisor="supervisord",
        name=name,
        stop=("supervisorctl", "stop", name),
        start=("supervisorctl", "start", name, ""),
    )
    root, path = tools.parent / "root", f"{tools}:{bare}"
    done = end(action(StopProgram, program=program), root, path)
    assert done.returncode == 0, done.stderr
    assert calls(tools) == [["supervisorctl", "stop", name]]
    for _ in range(2):
        done = run(commands.restore("latest", observe=False, root=str(root)), path)
        assert done.returncode == 0, done.stderr
    assert calls(tools)[1:] == [["supervisorctl", "start", name, ""]]


@pytest.mark.parametrize("name", NASTY)
def test_units_are_stopped_together(tools: Path, bare: Path, name: str) -> None:
    answers = (
        'case "$*" in *ActiveState*) if [ -e "$0.stopped" ]; then echo ActiveState=inactive; '
        "else echo ActiveState=active; fi ;; *UnitFileState*) echo UnitFileState=enabled ;; "
        'stop*) : >"$0.stopped" ;; esac'
    )
    stub(tools, "systemctl", answers)
    units = (f"{name}.socket", f"{name}.service")
    done = end(action(StopUnits, units=units), tools.parent / "root", f"{tools}:{bare}")
    assert done.returncode == 0, done.stderr
    assert [call for call in calls(tools) if call[1] == "stop"] == [
        ["systemctl", "stop", "--", *units]
    ]


def test_a_unit_that_does_not_start_is_not_enabled(tools: Path, bare: Path) -> None:
    answers = (
        'was() { if [ -e "$0.stopped" ]; then echo "$2"; else echo "$1"; fi; }\n'
        'case "$*" in *ActiveState*) was ActiveState=active ActiveState=inactive ;; '
        "*UnitFileState*) was UnitFileState=enabled UnitFileState=disabled ;; "
        "*LoadState*) echo LoadState=loaded ;; "
        'stop*) : >"$0.stopped" ;; start*) exit 1 ;; esac'
    )
    stub(tools, "systemctl", answers)
    root, path = tools.parent / "root", f"{tools}:{bare}"
    done = end(action(StopUnits, units=("redis.service",)), root, path)
    assert done.returncode == 0, done.stderr
    observed = run(commands.restore(NAME, observe=True, root=str(root)), path)
    assert (observed.returncode, observed.stdout.decode()) == (DUE, f"{NAME}\n{PORT}\n")
    (tools.parent / "said").unlink()
    acted = run(commands.restore(NAME, observe=False, root=str(root)), path)
    assert acted.returncode == 69
    assert [call[1] for call in calls(tools) if call[1] != "show"] == ["start"]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("docker", ["docker"]),
        ("docker:unix:///run/it's.sock", ["docker", "-H", "unix:///run/it's.sock"]),
        ("podman", ["podman"]),
    ],
)
@pytest.mark.parametrize("id_", ["abc", *NASTY])
def test_a_container_is_stopped_on_its_own_engine(
    tools: Path, bare: Path, engine: str, words: list[str], id_: str
) -> None:
    answers = (
        'case "$*" in *inspect*AutoRemove*) echo "true false false on-failure:3" ;; '
        "*inspect*) echo false ;; esac"
    )
    stub(tools, words[0], answers)
    one = Container(id=id_, name="cache", engine=engine)
    done = end(action(StopContainer, container=one), tools.parent / "root", f"{tools}:{bare}")
    assert done.returncode == 0, done.stderr
    reported = [call for call in calls(tools) if "inspect" not in call]
    assert reported == [[*words, "update", "--restart=no", "--", id_], [*words, "stop", "--", id_]]
    assert (tools.parent / "root" / NAME / "restart").read_text() == "on-failure:3"


@pytest.mark.skipif(os.getuid() != 0, reason="only root acts for another user")
@pytest.mark.parametrize("tool", ["runuser", "sudo"])
def test_what_is_a_users_own_is_stopped_as_that_user(tools: Path, bare: Path, tool: str) -> None:
    answers = (
        'case "$*" in *inspect*AutoRemove*) echo "true false false no:0" ;; '
        "*inspect*) echo false ;; *ActiveState*) echo ActiveState=inactive ;; "
        "*UnitFileState*) echo UnitFileState=enabled ;; esac"
    )
    stub(tools, tool, answers)
    root, path = tools.parent / "root", f"{tools}:{bare}"
    one = Container(id="it's", name="cache", engine="podman:nobody")
    done = end(action(StopContainer, container=one), root, path)
    assert done.returncode == 0, done.stderr
    units = action(StopUnits, units=("a b.service",), manager="nobody")
    done = end(units, root, path, record=NAME.replace("-1", "-2"))
    assert done.returncode == 0, done.stderr
    user = pwd.getpwnam("nobody")
    as_whom = [tool, *(["-n"] if tool == "sudo" else []), "-u", "nobody", "--", "env"]
    as_whom += [
        f"HOME={user.pw_dir}",
        "USER=nobody",
        f"XDG_RUNTIME_DIR=/run/user/{user.pw_uid}",
        f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{user.pw_uid}/bus",
    ]
    reported = [call for call in calls(tools) if "stop" in call]
    assert reported == [
        [*as_whom, "podman", "stop", "--", "it's"],
        [*as_whom, "systemctl", "--user", "stop", "--", "a b.service"],
    ]


def test_an_unnamed_volume_is_not_lost(tools: Path, bare: Path) -> None:
    answers = (
        'case "$*" in *inspect*AutoRemove*) echo "true false true no:0" ;; '
        f"*inspect*Mounts*) echo 'named {'a1' * 32} ' ;; esac"
    )
    stub(tools, "docker", answers)
    one = Container(id="abc", name="cache")
    done = end(action(StopContainer, container=one), tools.parent / "root", f"{tools}:{bare}")
    assert done.returncode == 78
    assert not [call for call in calls(tools) if "inspect" not in call]


def test_who_was_cut_off_leaves_the_restart_policy_to_the_next(tools: Path, bare: Path) -> None:
    answers = (
        'case "$*" in *inspect*AutoRemove*) echo "true false false $(cat "$0.policy"):0" ;; '
        "*inspect*) echo false ;; "
        'update*) echo no >"$0.policy" ;; stop*) [ ! -e "$0.cut" ] || exit 1 ;; esac'
    )
    stub(tools, "docker", answers)
    (tools / "docker.policy").write_text("always")
    (tools / "docker.cut").write_text("")
    one = action(StopContainer, container=Container(id="abc", name="cache"))
    root, path = tools.parent / "root", f"{tools}:{bare}"
    assert end(one, root, path).returncode == 74
    (tools / "docker.cut").unlink()
    second = NAME.replace("-1", "-2")
    assert end(one, root, path, record=second).returncode == 0
    assert (root / second / "restart").read_text() == "always"


WINDOWS = WindowsProcess(pid=4321, image="redis server.exe")


def windows(tools: Path, bare: Path, rows: str, status: int = 0) -> int:
    stub(tools, "tasklist.exe", f"cat; printf '%b' '{rows}'")
    stub(tools, "taskkill.exe", f"cat; exit {status}")
    done = end(
        action(StopWindowsProcess, process=WINDOWS), tools.parent / "root", f"{tools}:{bare}"
    )
    return done.returncode


ROW = '"System","4","N/A"\\r\\n"redis server.exe","4321","N/A"\\r\\n'


def test_a_windows_process_is_ended_by_its_number(tools: Path, bare: Path) -> None:
    assert windows(tools, bare, ROW) == 0
    assert calls(tools)[-1] == ["taskkill.exe", "/PID", "4321", "/F"]


@pytest.mark.parametrize(
    ("rows", "status", "result"),
    [
        (ROW.replace("4321", "43210"), 0, ABSENT),
        (ROW.replace("redis server", "nginx"), 0, CHANGED),
        ("", 0, 71),
        (ROW, 1, 74),
        (ROW, 128, 74),
    ],
)
def test_a_windows_process_is_not_ended(
    tools: Path, bare: Path, rows: str, status: int, result: int
) -> None:
    assert windows(tools, bare, rows, status) == result
    assert list((tools.parent / "root").iterdir()) == []
    assert bool(status) == any(call[0] == "taskkill.exe" for call in calls(tools))
