"""``git.sh`` against a real git server that misbehaves, and what is made of its answers."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shlex
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api import StringCommand

from stackmend.compose import commands
from stackmend.compose.checkout import choose_commit, list_patterns, unpack
from stackmend.compose.source import SourceError, make
from stackmend.compose.spec import ComposeSpec, GitSource
from stackmend.connectivity import classify
from stackmend.problems import WrongSettings, join_problems
from stackmend.raw import validate
from tests.shells import find

SERVER = Path("tests/lab/git_serve.py")
COMPOSE = "services:\n  web:\n    image: box:1\n"


def git(directory: Path, *words: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "lab"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "lab@example.com"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    done = subprocess.run(
        [find("git"), "-C", str(directory), *words],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


class Server:
    """Repositories that are served: one, with a work tree to commit in."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        self.tree = root / "work"
        self.tree.mkdir()
        git(self.tree, "init", "-q", "-b", "main")
        git(root, "init", "-q", "--bare", "app.git")
        self.commit({"compose.yaml": COMPOSE})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/app.git"

    def commit(self, files: dict[str, str] | None = None, ref: str = "main") -> str:
        for path, content in (files or {}).items():
            target = self.tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-q", "--allow-empty", "-m", "a change")
        git(self.tree, "push", "-q", "-f", str(self.root / "app.git"), f"HEAD:refs/heads/{ref}")
        return git(self.tree, "rev-parse", "HEAD")

    def fault(self, kind: str = "") -> None:
        (self.root / "fault").write_text(kind)
        for name in ("sent", "requests"):
            (self.root / name).unlink(missing_ok=True)

    def requests(self) -> list[str]:
        path = self.root / "requests"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("git")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, str(SERVER), str(root), str(port)]) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield Server(root, port)
        finally:
            process.kill()


@pytest.fixture
def server(served: Server) -> Server:
    served.fault()
    git(served.tree, "checkout", "-q", "-f", "main")
    return served


def make_spec(source: GitSource) -> ComposeSpec:
    raw = {"project": "shop", "source": source, "directory": "/opt/shop"}
    return ComposeSpec.model_validate(raw)


def run(
    command: StringCommand, source: GitSource, tmp_path: Path, shell: tuple[str, ...] = ("sh",)
) -> subprocess.CompletedProcess[bytes]:
    """The command as a host runs it, with an environment that would lead git astray."""
    rest = shlex.split(commands.add_login(source, command).get_raw_value())
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    (home / ".gitconfig").write_text(
        '[url "http://127.0.0.1:1/"]\n\tinsteadOf = http://127.0.0.1\n'
    )
    work = tmp_path / "tmp"
    work.mkdir(exist_ok=True)
    sh = rest.index("|") + 1
    return subprocess.run(
        [*shell, *rest[sh + 1 :]],
        input="".join(f"{word}\n" for word in rest[2 : sh - 1]).encode(),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(work),
            "GIT_DIR": "/nowhere",
            "GIT_TRACE": "2",
            "GIT_CURL_VERBOSE": "1",
            "GIT_PROXY_COMMAND": "/bin/false",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.sshCommand",
            "GIT_CONFIG_VALUE_0": "false",
        },
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def read_refs(source: GitSource, tmp_path: Path) -> subprocess.CompletedProcess[bytes]:
    spec = make_spec(source)
    return run(commands.read_git(spec, source, "list", *list_patterns(source)), source, tmp_path)


def resolve(source: GitSource, tmp_path: Path) -> tuple[str, str]:
    done = read_refs(source, tmp_path)
    assert done.returncode == 0, done.stderr
    return choose_commit(source, done.stdout.decode().splitlines())


def read_tree(
    source: GitSource, ref: str, commit: str, tmp_path: Path, *shell: str
) -> subprocess.CompletedProcess[bytes]:
    command = commands.read_tree(make_spec(source), source, ref, commit)
    done = run(command, source, tmp_path, shell or ("sh",))
    # Nothing of it stays.
    assert not list((tmp_path / "tmp").iterdir())
    done.stdout = done.stdout.removeprefix(commands.FETCHING)
    return done


def test_the_files_of_a_commit(server: Server, each_shell: list[str], tmp_path: Path) -> None:
    commit = server.commit({"app/main.py": "print(1)\n", "empty": "", "with space": "x"})
    source = GitSource(git=server.url, ref="main", insecure=True)
    ref, found = resolve(source, tmp_path)
    assert (ref, found) == ("refs/heads/main", commit)
    done = read_tree(source, ref, commit, tmp_path, *each_shell)
    assert done.returncode == 0, done.stderr
    files = unpack(done.stdout)
    assert files["app/main.py"].content == b"print(1)\n"
    assert files["app/main.py"].mode == 0o644
    assert {*files} >= {"compose.yaml", "empty", "with space"}
    assert make(make_spec(source), files).names_files is False


def test_a_directory_of_it_a_tag_and_a_commit(server: Server, tmp_path: Path) -> None:
    server.commit({"deploy/stack/compose.yaml": COMPOSE})
    git(server.tree, "tag", "-f", "-a", "-m", "first", "v1.0")
    git(server.tree, "push", "-q", "-f", str(server.root / "app.git"), "v1.0")
    commit = git(server.tree, "rev-parse", "v1.0^{commit}")
    later = server.commit({"deploy/stack/later": "x"})
    tagged = GitSource(git=server.url, ref="v1.0", path="/deploy/stack/", insecure=True)
    ref, found = resolve(tagged, tmp_path)
    assert (ref, found) == ("refs/tags/v1.0", commit)
    done = read_tree(tagged, ref, commit, tmp_path)
    assert {*unpack(done.stdout)} == {"compose.yaml"}
    pinned = GitSource(git=server.url, ref=later, path="deploy/stack")
    done = read_tree(pinned, *choose_commit(pinned, ()), tmp_path)
    assert {*unpack(done.stdout)} == {"compose.yaml", "later"}
    absent = GitSource(git=server.url, ref=later, path="nowhere")
    done = read_tree(absent, later, later, tmp_path)
    assert (done.returncode, done.stdout) == (66, b"")


def test_what_does_not_exist(server: Server, tmp_path: Path) -> None:
    source = GitSource(git=server.url, ref="nope", insecure=True)
    with pytest.raises(SourceError, match="has no ref nope"):
        resolve(source, tmp_path)
    gone = GitSource(git=server.url.replace("app", "gone"), insecure=True)
    assert classify(read_refs(gone, tmp_path).stderr.decode()) == "absent"
    unknown = GitSource(git=server.url, ref="0123456789" * 4)
    done = read_tree(unknown, unknown.ref, unknown.ref, tmp_path)
    assert done.returncode == 1
    assert classify(done.stderr.decode()) == "absent"


def test_a_ref_that_moves_between_is_told(server: Server, tmp_path: Path) -> None:
    source = GitSource(git=server.url, ref="main", insecure=True)
    ref, commit = resolve(source, tmp_path)
    server.commit({"compose.yaml": COMPOSE + "# moved\n"})
    done = read_tree(source, ref, commit, tmp_path)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"moved while it was fetched" in done.stderr


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("reset", "reset"), ("empty", "empty-reply"), ("status 503", "outage"),
        ("status 429", "rate-limit"), ("status 403", "denied"), ("login a:b", "denied"),
        ("status 407", "proxy"), ("status 404", "absent"),
    ],
)  # fmt: skip
def test_each_fault_has_its_class(server: Server, fault: str, name: str, tmp_path: Path) -> None:
    source = GitSource(git=server.url, ref="main", insecure=True)
    ref, commit = resolve(source, tmp_path)
    server.fault(fault)
    refs = read_refs(source, tmp_path)
    assert (refs.returncode != 0, classify(refs.stderr.decode())) == (True, name)
    tree = read_tree(source, ref, commit, tmp_path)
    assert (tree.returncode != 0, tree.stdout) == (True, b"")
    assert classify(tree.stderr.decode()) == name


def test_a_fetch_that_is_cut_at_ten_moments_gives_nothing(server: Server, tmp_path: Path) -> None:
    server.commit({f"data/{number}": os.urandom(9000).hex() for number in range(20)})
    source = GitSource(git=server.url, ref="main", insecure=True)
    ref, commit = resolve(source, tmp_path)
    server.fault("cut 100000000")
    assert read_tree(source, ref, commit, tmp_path).returncode == 0
    total = int((server.root / "sent").read_text())
    assert total > 100_000
    for number in range(10):
        server.fault(f"cut {total * number // 10}")
        done = read_tree(source, ref, commit, tmp_path)
        assert (done.returncode, done.stdout) == (1, b""), number
        assert classify(done.stderr.decode()) in {"reset", "empty-reply"}, done.stderr
    server.fault()
    assert len(unpack(read_tree(source, ref, commit, tmp_path).stdout)) >= 21


def test_a_login_goes_to_its_server_alone_and_is_not_shown(server: Server, tmp_path: Path) -> None:
    server.fault("login deploy:s3cr3t-%@/x")
    url = f"http://deploy:s3cr3t-%25%40%2Fx@127.0.0.1:{server.port}/app.git"
    source = GitSource(git=url, ref="main", insecure=True)
    assert "s3cr3t" not in f"{source!r} {source.url} {source.model_dump()}"
    assert source.secrets == {"s3cr3t-%@/x"}
    for login in ("t0k3n", "t0k3n:", "t0k3n:x-oauth-basic"):
        assert GitSource(git=f"https://{login}@git.lan/a.git").secrets == {"t0k3n"}
    command = commands.read_git(make_spec(source), source, "list", *list_patterns(source))
    assert "s3cr3t" not in command.get_raw_value()
    ref, commit = resolve(source, tmp_path)
    done = read_tree(source, ref, commit, tmp_path)
    assert done.returncode == 0, done.stderr
    assert any(line.split()[2] == "Basic" for line in server.requests())
    # Another server that asks gets none.
    words = command.get_raw_value().replace(source.origin + " list", "http://h.example list")
    assert words != command.get_raw_value()
    done = run(StringCommand(words), source, tmp_path)
    assert classify(done.stderr.decode()) == "denied"
    assert b"s3cr3t" not in done.stderr + done.stdout


@pytest.fixture
def stalling(server: Server) -> Iterator[str]:
    """The same repository over git://, through a relay that stops after some bytes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["daemon", "--export-all", f"--base-path={server.root}", "--listen=127.0.0.1"]
    with subprocess.Popen([find("git"), *words, f"--port={port}", "--reuseaddr"]) as daemon:
        relay = socket.create_server(("127.0.0.1", 0))
        relaying = threading.Thread(target=relay_and_stop, args=(relay, port, 60_000))
        relaying.start()
        try:
            yield f"git://127.0.0.1:{relay.getsockname()[1]}/app.git"
        finally:
            relay.shutdown(socket.SHUT_RDWR)
            relaying.join()
            daemon.terminate()


def relay_and_stop(relay: socket.socket, port: int, most: int) -> None:
    with contextlib.ExitStack() as ends, contextlib.suppress(OSError), relay:
        while True:
            near = ends.enter_context(relay.accept()[0])
            far = ends.enter_context(socket.create_connection(("127.0.0.1", port)))
            for way in ((near, far, 10**9), (far, near, most)):
                thread = threading.Thread(target=carry, args=way)
                thread.start()
                ends.callback(thread.join)
                ends.callback(hang_up, way[0])


def hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def carry(source: socket.socket, target: socket.socket, left: int) -> None:
    with contextlib.suppress(OSError):
        while left > 0 and (data := source.recv(4096)):
            target.sendall(data)
            left -= len(data)


@pytest.mark.slow
def test_a_fetch_that_stalls_ends_by_itself_and_with_its_run(
    server: Server, stalling: str, tmp_path: Path
) -> None:
    commit = server.commit({"noise": os.urandom(200_000).hex()}, ref="slow")
    source = GitSource(git=stalling, ref=commit)
    words = ("tree", "refs/heads/slow", commit, "", str(10**8), "/nowhere", "50", "10")
    command = commands.read_git(make_spec(source), source, *words)
    began = time.monotonic()
    done = run(command, source, tmp_path)
    assert (done.returncode, done.stdout) == (1, commands.FETCHING)
    assert b"nothing came for 10 seconds" in done.stderr
    assert classify(done.stderr.decode()) == "timeout"
    assert time.monotonic() - began < 40
    assert not list((tmp_path / "tmp").iterdir())
    # A signal ends git and all that it started.
    rest = shlex.split(command.get_raw_value())
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(rest, stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin
        process.stdin.write(b"\n\n")
        process.stdin.flush()
        for _ in range(200):
            if list((tmp_path / "tmp").rglob("tmp_pack_*")):
                break
            time.sleep(0.1)
        (own,) = (tmp_path / "tmp").iterdir()
        # More than one comes: from the run, and from the limit around it.
        for _ in range(3):
            process.terminate()
            time.sleep(0.001)
        assert process.wait(20) == 1
    assert not own.exists()
    open_there = [link for link in Path("/proc").glob("[0-9]*/cwd") if leads_to(link, own)]
    assert open_there == []


def leads_to(link: Path, directory: Path) -> bool:
    try:
        return str(link.readlink()).startswith(str(directory))
    except OSError:
        return False


def test_what_was_proven_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    source = GitSource(git=server.url, ref="main", insecure=True)
    ref, commit = resolve(source, tmp_path)
    packed = read_tree(source, ref, commit, tmp_path).stdout
    kept = tmp_path / "checkout"
    kept.write_bytes(f"{commit} \n".encode() + packed)
    server.fault("reset")
    words = ("tree", ref, commit, "", str(10**8), str(kept), "60", "60")
    command = commands.read_git(make_spec(source), source, *words)
    assert run(command, source, tmp_path).stdout == packed
    assert not server.requests()
    kept.write_bytes(b"f" * 40 + b" \n" + packed)
    assert run(command, source, tmp_path).returncode == 1


def test_a_hostile_repository(server: Server, tmp_path: Path) -> None:
    """Attributes, hooks, filters and submodules of a repository do nothing."""
    marker = tmp_path / "ran"
    server.commit(
        {
            ".gitattributes": "* export-subst text eol=crlf ident filter=evil\n"
            "gone export-ignore\n",
            "gone": "still here\n",
            "id": "$Format:%H$ $Id$\n",
            ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch {marker}"\n',
        },
        ref="hostile",
    )
    (server.root / "app.git" / "hooks" / "post-checkout").write_text(f"#!/bin/sh\ntouch {marker}\n")
    source = GitSource(git=server.url, ref="hostile", insecure=True)
    done = read_tree(source, *resolve(source, tmp_path), tmp_path)
    files = unpack(done.stdout)
    assert files["gone"].content == b"still here\n"
    assert files["id"].content == b"$Format:%H$ $Id$\n"
    assert not marker.exists()
    (server.tree / "link").symlink_to("../../etc/passwd")
    server.commit(ref="hostile")
    done = read_tree(source, *resolve(source, tmp_path), tmp_path)
    with pytest.raises(SourceError, match="outside the project"):
        unpack(done.stdout)
    (server.tree / "link").unlink()
    git(server.tree, "add", "-A")
    git(server.tree, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub/module")
    git(server.tree, "commit", "-q", "-m", "a submodule")
    git(server.tree, "push", "-q", "-f", str(server.root / "app.git"), "HEAD:refs/heads/hostile")
    done = read_tree(source, *resolve(source, tmp_path), tmp_path)
    with pytest.raises(SourceError, match="submodule"):
        unpack(done.stdout)
    git(server.tree, "reset", "-q", "--hard", "HEAD~1")


def test_files_that_are_too_many_bytes(server: Server, tmp_path: Path) -> None:
    commit = server.commit({"zeros": "0" * 3_000_000}, ref="large")
    source = GitSource(git=server.url, ref="large", insecure=True)
    words = ("tree", "refs/heads/large", commit, "", str(2 << 20), "/nowhere", "60", "60")
    done = run(commands.read_git(make_spec(source), source, *words), source, tmp_path)
    assert (done.returncode, done.stdout) == (1, commands.FETCHING)
    assert b"more than 2 MiB" in done.stderr
    git(server.tree, "reset", "-q", "--hard", "HEAD~1")


@pytest.mark.parametrize("url", ["ext::sh -c 'touch /tmp/x'", "file:///etc", "fd::17"])
def test_no_other_protocol_is_spoken(url: str, server: Server, tmp_path: Path) -> None:
    """Even where a URL came through."""
    source = GitSource(git=server.url, insecure=True)
    command = commands.read_git(make_spec(source), source, "list", "HEAD").get_raw_value()
    words = shlex.split(command)
    words[words.index(server.url)] = url
    _, *rest = words
    done = subprocess.run(
        ["sh", *rest], input=b"\n\n", capture_output=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert b"not allowed" in done.stderr


def test_a_scheme_is_read_without_case() -> None:
    for url in ("HTTPS://GIT.example/x", "Https://u:p@GIT.example/x"):
        source = GitSource(git=url)
        assert source.url == "https://GIT.example/x"
        assert (
            commands.read_git(make_spec(source), source, "list").get_raw_value().count("https") > 1
        )


LINES = [f"{'a' * 40}\trefs/heads/x", f"{'b' * 40}\trefs/tags/x", f"{'c' * 40}\trefs/tags/x^{{}}"]


def test_which_ref_a_name_means() -> None:
    source = GitSource(git="https://h.example/x", ref="x")
    with pytest.raises(SourceError, match="a branch and a tag"):
        choose_commit(source, LINES)
    assert choose_commit(source, LINES[1:]) == ("refs/tags/x", "c" * 40)
    full = GitSource(git="https://h.example/x", ref="refs/heads/x")
    assert choose_commit(full, LINES) == ("refs/heads/x", "a" * 40)
    assert choose_commit(GitSource(git="https://h.example/x"), [f"{'d' * 40}\tHEAD"]) == (
        "HEAD", "d" * 40,
    )  # fmt: skip
    with pytest.raises(SourceError, match="has no ref"):
        choose_commit(source, [f"{'a' * 40}\trefs/heads/y/refs/heads/x", "warning: x"])


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"git": "http://h.example/x"}, "proves nothing about who answers"),
        ({"git": "HTTP://GIT.example/x"}, "proves nothing about who answers"),
        ({"git": "Git://u:p@h.example/x"}, "proves nothing about who answers"),
        ({"git": "git://h.example/x"}, "proves nothing about who answers"),
        ({"git": "ext::sh -c id"}, "must be the URL of a repository"),
        ({"git": "-oProxyCommand=x"}, "must be the URL of a repository"),
        ({"git": "ssh://-oProxyCommand=x/y"}, "must be the URL of a repository"),
        ({"git": "https://h.example/x?a=b"}, "must be the URL of a repository"),
        ({"git": "https://h.example/x\n"}, "must be the URL of a repository"),
        ({"git": "/srv/x.git"}, "must be the URL of a repository"),
        ({"git": "https://u:t0ps3cret@h example/x"}, "must be the URL of a repository"),
        ({"git": "https://u:a%0Ab@h.example/x"}, "a login with a control character"),
        ({"git": "https://h.example/x", "ref": "-f"}, "must be a branch"),
        ({"git": "https://h.example/x", "ref": "a..b"}, "must be a branch"),
        ({"git": "https://h.example/x", "ref": "a:b"}, "must be a branch"),
        ({"git": "https://h.example/x", "ref": "HEAD^"}, "must be a branch"),
        ({"git": "https://h.example/x", "ref": "x.lock"}, "must be a branch"),
        ({"git": "https://h.example/x", "path": "../x"}, "must be a directory within"),
        ({"git": "https://h.example/x", "depth": 1}, "source.depth: unknown key"),
        ({"ref": "main"}, "source.git: missing"),
    ],
)
def test_wrong_settings_are_told_before_contact(raw: dict[str, str], problem: str) -> None:
    with pytest.raises(WrongSettings) as error:
        validate(ComposeSpec, {"project": "a", "directory": "/opt/a", "source": raw})
    said = join_problems(error.value)
    assert said.startswith("source")
    assert problem in said
    assert "t0ps3cret" not in said


def pack(*members: tuple[str, bytes, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content
            tar.addfile(info, io.BytesIO(content.encode()))
    return gzip.compress(buffer.getvalue())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([("../x", tarfile.REGTYPE, "")], "no path within"),
        ([("/x", tarfile.REGTYPE, "")], "no path within"),
        ([("a/../../x", tarfile.REGTYPE, "")], "no path within"),
        ([("x", tarfile.REGTYPE, ""), ("x", tarfile.REGTYPE, "")], "no path within"),
        ([("x", tarfile.SYMTYPE, "/etc/passwd")], "outside the project"),
        ([("x", tarfile.SYMTYPE, "y"), ("y", tarfile.SYMTYPE, "x")], "is a link to"),
        ([("x", tarfile.SYMTYPE, "gone")], "which is no file of it"),
        ([("x", tarfile.LNKTYPE, "/etc/passwd")], "neither a file nor a directory"),
        ([("x", tarfile.CHRTYPE, "")], "neither a file nor a directory"),
        ([("x", tarfile.DIRTYPE, "")], "submodule"),
        ([("x\x1b[2J", tarfile.REGTYPE, "")], "no path within"),
    ],
)
def test_archives_that_hold_what_no_project_may(
    members: list[tuple[str, bytes, str]], problem: str
) -> None:
    with pytest.raises(SourceError, match=problem):
        unpack(pack(*members))


def test_a_link_within_is_the_file_that_it_leads_to() -> None:
    archive = pack(
        ("a", tarfile.DIRTYPE, ""), ("a/x", tarfile.REGTYPE, "1"), ("y", tarfile.SYMTYPE, "a/x"),
        ("a/z", tarfile.SYMTYPE, "../y"), ("__pycache__/m.pyc", tarfile.REGTYPE, ""),
    )  # fmt: skip
    assert {path: file.content for path, file in unpack(archive).items()} == {
        "a/x": b"1", "y": b"1", "a/z": b"1",
    }  # fmt: skip


def test_a_bomb_is_no_archive() -> None:
    with pytest.raises(SourceError, match="too many"):
        unpack(gzip.compress(bytes(400 * 1024**2), 1))


@given(st.binary(max_size=3000), st.integers(0, 2), st.integers(0, 4000))
def test_whatever_a_host_sends_is_files_or_one_error(noise: bytes, how: int, at: int) -> None:
    archive = gzip.decompress(pack(("a", tarfile.REGTYPE, "1"), ("b", tarfile.SYMTYPE, "a")))
    lies = (noise, gzip.compress(noise), gzip.compress(archive[:at] + noise + archive[at:]))
    try:
        files = unpack(lies[how])
    except SourceError:
        return
    assert all(".." not in path.split("/") for path in files)
