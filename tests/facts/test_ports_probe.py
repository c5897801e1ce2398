"""The probe of ports, run here: in every shell there is, with and without its tools."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from stackmend.ports.facts import PortHolders
from stackmend.ports.state import HostPorts, PortState, Process
from tests.marks import answer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def probe(
    ports: str, shell: list[str] | None = None, env: Mapping[str, str] | None = None, **more: str
) -> HostPorts:
    """What the fact says of this machine."""
    return answer(PortHolders, ports, shell=shell or ["sh"], env=env, **more)


@contextlib.contextmanager
def held(address: str = "127.0.0.1", listen: bool = True, udp: bool = False) -> Iterator[int]:
    """A port of this very process."""
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as one:
        one.bind((address, 0))
        if listen and not udp:
            one.listen(1)
        yield one.getsockname()[1]


def of(state: HostPorts) -> PortState:
    (row,) = state.ports
    return row


def process_of(state: HostPorts) -> Process:
    (holder,) = of(state).holders
    assert holder.process is not None
    return holder.process


@pytest.fixture
def few(tmp_path: Path) -> Mapping[str, str]:
    """A PATH with what every host has and nothing more."""
    tools = "sh awk cat date grep head id ls od readlink sed tail tr xargs uname"
    for name in tools.split():
        found = shutil.which(name)
        assert found, name
        (tmp_path / name).symlink_to(found)
    return {"PATH": str(tmp_path)}


def test_every_shell_tells_the_same(each_shell: list[str]) -> None:
    with held() as port:
        state = probe(f"127.0.0.1:{port}", each_shell)
    assert of(state).status == "held"
    assert process_of(state).pid == os.getpid()


def test_who_we_are_is_told_and_guarded() -> None:
    with held() as port:
        state = probe(f"{port},{port}/udp")
    tcp, udp = state.ports
    assert (tcp.status, udp.status) == ("held", "free")
    me = tcp.holders[0].process
    assert me is not None
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert (me.pid, me.parent, me.uid) == (os.getpid(), os.getppid(), os.getuid())
    assert me.started == int(stat[19])
    assert me.exe == str(Path("/proc/self/exe").readlink())
    assert me.cwd == str(Path.cwd())
    assert me.pid in state.guarded
    assert os.getppid() in state.guarded


def child(*argv: str, name: str = "") -> subprocess.Popen[bytes]:
    """A process that holds a port, prints it, and calls itself as it likes."""
    code = (
        "import socket, sys\n"
        "one = socket.socket(); one.bind(('127.0.0.1', 0)); one.listen()\n"
        f"open('/proc/self/comm', 'w').write({name!r}) if {name!r} else None\n"
        "print(one.getsockname()[1], flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@contextlib.contextmanager
def running(*argv: str, name: str = "") -> Iterator[tuple[int, int]]:
    with child(*argv, name=name) as one:
        assert one.stdout is not None
        yield one.pid, int(one.stdout.readline())
        one.kill()


ARGUMENTS = ["", "a b", "$(id)", "it's", 'say "x"', "two\nlines", "-n", "ä", "\\", "==x end 0"]


def test_arguments_arrive_exactly() -> None:
    with running(*ARGUMENTS) as (pid, port):
        found = process_of(probe(f"127.0.0.1:{port}"))
    assert found.pid == pid
    assert list(found.argv[3:]) == ARGUMENTS


def test_nobody_can_make_the_processes_unreadable() -> None:
    """What stands between them is nothing that another process can know."""
    for known in ("/proc/sys/kernel/random/boot_id", "/proc/version", "/proc/self/environ"):
        output = Path(known).read_bytes().decode(errors="ignore").replace("\0", " ")
        with running(output, output * 3) as (pid, port):
            found = process_of(probe(f"127.0.0.1:{port}"))
        assert found.pid == pid
        assert found.argv[3] == output[: len(found.argv[3])]


def called_dockerd(socket_path: Path, *before: str) -> subprocess.Popen[bytes]:
    """A process called dockerd that says where it is asked, and an engine's socket there."""
    code = (
        "import sys\nopen('/proc/self/comm', 'w').write('dockerd')\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    python = str(Path(sys.executable).resolve())
    words = [*before, python, "-I", "-S", "-c", code, "-H", f"unix://{socket_path}"]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another")
@pytest.mark.parametrize(
    ("before", "asked"),
    [
        ((), True),
        (("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"), False),
        (("unshare", "--mount"), False),
    ],
)
def test_root_asks_no_engine_that_anybody_may_name(
    before: tuple[str, ...], asked: bool, tmp_path: Path
) -> None:
    tools, place, reported = tmp_path / "tools", tmp_path / "engine.sock", tmp_path / "told"
    tools.mkdir()
    (tools / "docker").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{reported}\nexit 1\n')
    (tools / "docker").chmod(0o755)
    with socket.socket(socket.AF_UNIX) as engine, called_dockerd(place, *before) as one:
        engine.bind(str(place))
        assert one.stdout is not None
        if one.stdout.readline() != b"ready\n":
            pytest.skip(f"this machine has no {before}")
        with held() as port:
            probe(f"127.0.0.1:{port}", env={"PATH": f"{tools}:{os.environ['PATH']}"})
        one.kill()
    assert (f"unix://{place}" in reported.read_text()) is asked


NAMES = ['a",pid=1,fd=1)', "two\nlines", "users:((", ") R 1 1", "sshd", "x y", '"']


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tool", ["ss", "/proc/net"])
def test_a_name_cannot_put_the_blame_on_another(
    name: str, tool: str, tmp_path: Path, few: Mapping[str, str]
) -> None:
    env = dict(few)
    if tool == "ss":
        (tmp_path / "ss").symlink_to(shutil.which("ss") or "/nowhere")
    with running(name=name) as (pid, port):
        row = of(probe(f"127.0.0.1:{port}", env=env))
    assert row.status == "held"
    pids = {one.process.pid for one in row.holders if one.process}
    # Where a name breaks the row in two, nobody is named.
    assert pids in ({pid}, set())
    assert pids or "\n" in name


@pytest.mark.parametrize("target", ["a 7 -> {}", "{}", "a\n/proc/1/fd:\nl 1 0 0 64 J 1 0 3 -> {}"])
def test_an_open_file_cannot_put_the_blame_on_another(
    target: str, tmp_path: Path, few: Mapping[str, str]
) -> None:
    """Where a descriptor leads to is told by a link, which names whatever file it is."""
    folder = tmp_path / "files"
    with running() as (pid, port), held() as other:
        inode = next(
            words[9]
            for words in map(str.split, Path("/proc/net/tcp").read_text().splitlines())
            if words[1] == f"0100007F:{port:04X}"
        )
        path = folder / target.format(f"socket:[{inode}]")
        path.parent.mkdir(parents=True)
        with path.open("w"):
            state = probe(f"127.0.0.1:{port},127.0.0.1:{other}", env=few)
        (row,) = (row for row in state.ports if row.desired.port == port)
    assert {one.process.pid for one in row.holders if one.process} == {pid}


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("how", ["beside it", "its settings"])
def test_nobody_has_root_start_a_client_of_his_own(how: str, tmp_path: Path) -> None:
    """Who calls himself supervisord is not asked by the client that he names."""
    ran = tmp_path / "ran"
    client = tmp_path / "supervisorctl"
    client.write_text(f"#!/bin/sh\nid -u >>{ran}\n")
    client.chmod(0o755)
    tmp_path.chmod(0o777)
    env = {} if how == "beside it" else {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    named = f"{tmp_path}/supervisord" if how == "beside it" else "supervisord"
    code = (
        "import os, socket, sys; open('/proc/self/comm', 'w').write('supervisord')\n"
        "os.setuid(65534)\n"
        "one = socket.socket(); one.bind(('127.0.0.1', 0)); one.listen()\n"
        "print(one.getsockname()[1], flush=True); sys.stdin.read()"
    )
    python = str(Path(sys.executable).resolve())
    argv = [python, "-c", code, named, "-c", f"{tmp_path}/supervisord.conf"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        row = of(probe(f"127.0.0.1:{int(one.stdout.readline())}", env=env))
        one.kill()
    assert row.status == "held"
    assert not ran.exists()


def test_a_bound_socket_is_found() -> None:
    with held(listen=False) as port:
        state = probe(f"127.0.0.1:{port}")
    (holder,) = of(state).holders
    if os.getuid() != 0:
        # Whoever may not look into another process is told so.
        assert holder.kind == "process" or "only root" in holder.why_hidden
        return
    assert (process_of(state).pid, holder.evidence) == (os.getpid(), ("pidfd_getfd",))
    assert holder.sockets[0].state == "BOUND"


def test_the_probe_holds_nothing_afterwards() -> None:
    with held() as port:
        pass
    for _ in range(2):
        assert of(probe(f"127.0.0.1:{port}")).status == "free"


@pytest.mark.parametrize("tools", [("perl",), ("ss",), ()], ids=lambda tools: "+".join(tools))
def test_fewer_tools(tools: tuple[str, ...], tmp_path: Path, few: Mapping[str, str]) -> None:
    for tool in tools:
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/nowhere")
    evidence = {("perl",): "bind (perl)", ("ss",): "ss", (): "/proc/net"}[tools]
    with held() as port, held(udp=True) as other:
        state = probe(f"127.0.0.1:{port},127.0.0.1:{other}/udp", env=few)
    for row in state.ports:
        assert (row.status, row.evidence.startswith(evidence)) == ("held", True), row
        assert row.holders[0].process is not None
        assert row.holders[0].process.pid == os.getpid()
    free = of(probe(f"127.0.0.1:{port}", env=few))
    assert free.status == "free"


def test_an_address_that_is_not_ours(few: Mapping[str, str]) -> None:
    for env in (dict(os.environ), few):
        row = of(probe("203.0.113.7:80", env=env))
        assert row.status == "unknown"
        assert "does not have the address 203.0.113.7" in row.problem


@pytest.mark.parametrize("ports", ["1-4096", ",".join(map(str, range(1, 8192, 2)))])
def test_as_many_as_may_be_asked(ports: str) -> None:
    with held() as port:
        state = probe(ports)
    assert len(state.ports) == 4096
    assert {row.status for row in state.ports} <= {"free", "held", "ours", "unknown"}
    assert port
