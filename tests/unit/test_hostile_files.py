"""Files of the controller that are no files, cannot be read, or change: one error, and soon."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from stackmend import controller_files
from stackmend.compose import source
from stackmend.compose.spec import ComposeSpec
from stackmend.connection.first_contact.hostkey import KnownHosts
from stackmend.controller_files import Unreadable, read
from stackmend.engine import trust
from stackmend.errors import StepError
from stackmend.spec import SpecError, check

ROOT = Path(__file__).parents[2]
WEB = "services: {web: {image: 'lab/box:1'}}\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP7kQ8FQx0zE2gAVoVJ4o7KkvXQ9VX2b5nD3nq2mJ0aB me\n"


class Hangs(Exception):
    """What is waited for does not come."""


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A test that hangs ends by an error."""

    def hangs(signum: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "compose.yaml").write_text(WEB)
    return root


def stack(root: Path, **more: Any) -> dict[str, Any]:
    return {"project": "shop", "source": str(root), "directory": "/opt/shop", **more}


def problem(settings: Any) -> str:
    with pytest.raises(SpecError) as raised:
        check({"stack": settings})
    said = str(raised.value)
    assert said.startswith("stack.")
    assert "\n" not in said
    assert len(said) < 1200
    return said


def pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


def directory(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 1024**3)


Make = Callable[[Path], None]

#: What lies in the place of a file, and words that say so.
KINDS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "pipe": (pipe, ("named pipe",)),
    "socket": (a_socket, ("socket",)),
    "directory": (directory, ("directory",)),
    "device": (device, ("device", "outside the project")),
    "loop": (loop, ("leads nowhere", "Too many levels of symbolic links")),
    "huge": (huge, ("more than",)),
}


# Below the source directory


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["compose.yaml", "compose.override.yaml", ".env", "web.env", ".dockerignore", "a/b"]
)
def test_what_is_no_file_in_the_source_directory(root: Path, name: str, kind: str) -> None:
    make, words = KINDS[kind]
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).unlink(missing_ok=True)
    make(root / name)
    settings = stack(root, env={"A": "1"})
    if kind == "directory" and name not in ("compose.yaml", ".env"):
        assert check({"stack": settings}) is not None
        return
    if kind == "directory":
        (root / name / "x").write_text("x")
    said = problem(settings)
    assert said.startswith("stack.source: ")
    assert name in said
    assert any(word in said for word in words)


def test_nothing_is_read_before_all_is_known_to_be_small(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").write_bytes(bytes(1024**2))
    huge(root / "z")
    monkeypatch.setattr(controller_files, "read", lambda *_: pytest.fail("it was read"))
    assert "holds more than 64 MiB (at z); keep data in volumes" in problem(stack(root))


def test_the_number_of_files_has_a_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAXIMUM_FILES", 10)
    for number in range(10):
        (root / f"d{number}").mkdir()
    assert "holds more than 10 files and directories" in problem(stack(root))


def test_a_file_that_vanishes_is_no_smaller_project(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "app.conf").write_text("x")
    listed = controller_files.walk_tree

    def tree(*args: Any) -> Iterator[Any]:
        yield from listed(*args)
        (root / "app.conf").unlink()

    monkeypatch.setattr(controller_files, "walk_tree", tree)
    said = problem(stack(root))
    assert said == "stack.source: app.conf cannot be read: No such file or directory"


@pytest.mark.parametrize("how", ["grows", "replaced", "written"])
def test_a_file_that_changes_while_it_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    path = root / "app.conf"
    path.write_text("x" * 100)
    opened = os.open

    def open_later(name: Any, *args: Any, **kwargs: Any) -> int:
        if Path(name).name == "app.conf" and how == "replaced":
            (root / "other").write_text("y" * 100)
            (root / "other").rename(path)
        descriptor = opened(name, *args, **kwargs)
        if Path(name).name == "app.conf" and how != "replaced":
            monkeypatch.undo()
            with path.open("a" if how == "grows" else "r+") as file:
                file.write("y")
            os.utime(path, (5, 5))
        return descriptor

    monkeypatch.setattr(os, "open", open_later)
    said = problem(stack(root))
    assert said.startswith("stack.source: app.conf changed while it was read; run again once")


def test_a_directory_that_changes_while_it_is_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "conf").mkdir()
    scanned = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "conf":
            (root / "later").write_text("x")
        return scanned(path)

    monkeypatch.setattr(os, "scandir", scandir)
    os.utime(root, (5, 5))
    assert "changed while it was read" in problem(stack(root))


# What other settings name


def settings_of(field: str, path: Path, root: Path) -> dict[str, Any]:
    keys = root.parent / "me.pub"
    keys.write_text(KEY)
    access = {"user": "ops", "public_keys": [str(keys)]}
    return {
        "access.public_keys[0]": stack(root, access={**access, "public_keys": [str(path)]}),
        "access.known_hosts": stack(root, access={**access, "known_hosts": str(path)}),
        "engine.key": stack(root, engine={"key": str(path)}),
        "engine.toolkit_key": stack(root, engine={"toolkit_key": str(path)}),
        "models.wanted[0].gguf": stack(
            root, models={"service": "web", "wanted": [{"name": "a", "gguf": str(path)}]}
        ),
        "models.wanted[0].modelfile": stack(
            root, models={"service": "web", "wanted": [{"name": "a", "modelfile": str(path)}]}
        ),
    }[field]


FIELDS = [
    "access.public_keys[0]",
    "access.known_hosts",
    "engine.key",
    "engine.toolkit_key",
    "models.wanted[0].gguf",
    "models.wanted[0].modelfile",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", FIELDS)
def test_what_is_no_file_where_a_setting_names_one(root: Path, field: str, kind: str) -> None:
    make, words = KINDS[kind]
    path = root.parent / "named.pub"
    make(path)
    settings = settings_of(field, path, root)
    if kind == "huge" and field.endswith("gguf"):
        assert check({"stack": settings}) is not None  # Weights are that large.
        return
    said = problem(settings)
    assert said.startswith(f"stack.{field}: ")
    assert str(path) in said
    assert any(word in said for word in words)


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "access.known_hosts"])
def test_a_file_that_is_not_there_is_told_before_contact(root: Path, field: str) -> None:
    said = problem(settings_of(field, root.parent / "none.pub", root))
    assert said.startswith(f"stack.{field}: ")
    assert said.endswith("none.pub cannot be read: No such file or directory")


@pytest.mark.parametrize("field", FIELDS)
def test_a_home_that_nobody_has(root: Path, field: str) -> None:
    if field.startswith("models"):
        (root.parent / "Modelfile").write_text("FROM ~nobody-of-that-name/a.gguf\n")
        field, path = "models.wanted[0].modelfile", root.parent / "Modelfile"
    else:
        path = Path("~nobody-of-that-name/named.pub")
    said = problem(settings_of(field, path, root))
    assert said.startswith(f"stack.{field}: ~nobody-of-that-name/")
    assert said.endswith("begins with the home directory of a user who does not exist")


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "device", "loop"])
@pytest.mark.parametrize("line", ["FROM ./own.gguf", "FROM llama3.2:1b\nADAPTER own.gguf"])
def test_what_a_modelfile_names(root: Path, kind: str, line: str) -> None:
    modelfile = root.parent / "Modelfile"
    modelfile.write_text(f"{line}\n")
    KINDS[kind][0](root.parent / "own.gguf")
    said = problem(settings_of("models.wanted[0].modelfile", modelfile, root))
    assert said.startswith("stack.models.wanted[0].modelfile: ")
    assert any(word in said for word in KINDS[kind][1])


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"FROM a\nPARAMETER x " + b"[" * 100_000,
        b"FROM a\nPARAMETER x " + b"9" * 100_000,
        b"WHAT " + b"\x1b" * 1000,
        b'FROM a\nSYSTEM """' + b"x" * 100_000,
        b"FROM " + b"a" * 100_000,
        b"FROM a\0b",
        b"FROM ./" + b"a" * 100_000,
        b"\0",
        b"",
    ],
)
def test_a_modelfile_of_any_content(root: Path, content: bytes) -> None:
    modelfile = root.parent / "Modelfile"
    modelfile.write_bytes(content)
    settings = settings_of("models.wanted[0].modelfile", modelfile, root)
    with contextlib.suppress(SpecError):
        check({"stack": settings})
        return
    assert "\x1b" not in problem(settings)


def test_recorded_keys_are_read_as_files(tmp_path: Path) -> None:
    """The file that the inventory does not name lies beside it, and is read when it is needed."""

    def judge() -> KnownHosts:
        return KnownHosts(path, "h", fingerprint="", strict=False, warn=lambda _: None)

    path = tmp_path / "known_hosts"
    assert judge().new
    key = KEY.rsplit(" ", 1)[0]
    path.write_text(f"# note\n\nshort line\nh {key}\nother {key}\nh unknown-kind AAAA\n")
    assert not judge().new
    for wrong, words in (
        (
            f"@cert-authority *.lan {key}\nh {key[:-1]}\n",
            "line 2 is not a host's key; correct or remove it",
        ),
        ("h ssh-ed25519 AAAA\n", "line 1 is not a host's key; correct or remove it"),
    ):
        path.write_text(wrong)
        with pytest.raises(OSError, match=words):
            judge()
    path.unlink()
    pipe(path)
    with pytest.raises(OSError, match="known_hosts is a named pipe, not a file"):
        judge()


def test_a_repositorys_key_is_read_as_a_file(tmp_path: Path) -> None:
    pipe(tmp_path / "key")
    with pytest.raises(StepError, match="key is a named pipe, not a file"):
        trust.read_key(None, str(tmp_path / "key"), ())  # type: ignore[arg-type]


# Reading


def test_what_became_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    known = controller_files.read_status(path)
    path.unlink()
    pipe(path)
    with pytest.raises(Unreadable, match="is a named pipe, not a file"):
        read(path, 10, known)


def test_a_limit_is_the_last_that_passes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read(path, 10) == b"0123456789"
    with pytest.raises(Unreadable, match="holds 10 bytes, more than the 9 that it may"):
        read(path, 9)


# As somebody who may not read everything

_SERVER = """
import json, os, sys
from stackmend.compose.source import load
import stackmend.engine.openpgp, stackmend.models.modelfiles
from stackmend.spec import SpecError, check

for line in sys.stdin:
    if os.fork():
        os.wait()
        continue
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        answer = {"files": sorted(load(check({"stack": json.loads(line)})).files)}
    except SpecError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
    os._exit(0)
"""

AsNobody = Callable[[Any], dict[str, Any]]


@pytest.fixture(scope="module")
def as_nobody() -> Iterator[AsNobody]:
    """Checks settings as a user who may not read what root may: in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        to, answers = server.stdin, server.stdout

        def ask(settings: Any) -> dict[str, Any]:
            to.write(f"{json.dumps(settings)}\n")
            to.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield ask


@pytest.fixture
def public() -> Iterator[Path]:
    """A project below a directory that everybody may search, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        root = top / "above" / "shop"
        (root / "conf").mkdir(parents=True)
        (root / "compose.yaml").write_text(WEB)
        (root / "conf" / "app.conf").write_text("x")
        yield root
        for path in (top / "above", root, root / "conf"):
            path.chmod(0o755)


def test_a_readable_project_is_read_whole(as_nobody: AsNobody, public: Path) -> None:
    assert as_nobody(stack(public)) == {"files": ["compose.yaml", "conf/app.conf"]}


@pytest.mark.parametrize(
    ("path", "mode", "words"),
    [
        ("conf", 0o000, "stack.source: {source} conf cannot be read: Permission denied"),
        ("conf", 0o311, "stack.source: {source} conf cannot be read: Permission denied"),
        ("conf", 0o644, "stack.source: conf/app.conf cannot be read: Permission denied"),
        ("conf/app.conf", 0o000, "stack.source: conf/app.conf cannot be read: Permission denied"),
        ("compose.yaml", 0o000, "stack.source: compose.yaml cannot be read: Permission denied"),
        (".", 0o000, "stack.source: {source} cannot be read: Permission denied"),
        (".", 0o644, "stack.source: {source} cannot be read: Permission denied"),
        (".", 0o311, "stack.source: {source} cannot be read: Permission denied"),
        ("..", 0o000, "stack.source: {source} cannot be read: Permission denied"),
        ("..", 0o644, "stack.source: {source} cannot be read: Permission denied"),
    ],
)
def test_what_cannot_be_read_is_no_smaller_project(
    as_nobody: AsNobody, public: Path, path: str, mode: int, words: str
) -> None:
    (public / path).chmod(mode)
    assert as_nobody(stack(public)) == {"error": words.format(source=public)}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("where", ["file", "directory"])
def test_what_a_setting_names_and_nobody_may_read(
    as_nobody: AsNobody, public: Path, field: str, where: str
) -> None:
    above = public.parent / "private"
    above.mkdir()
    (above / "named.pub").write_text(KEY)
    settings = settings_of(field, above / "named.pub", public)
    (above if where == "directory" else above / "named.pub").chmod(0o000)
    try:
        said = as_nobody(settings)["error"]
    finally:
        above.chmod(0o755)
    assert said.startswith(f"stack.{field}: ")
    assert said.endswith("named.pub cannot be read: Permission denied")


def test_ten_thousand_files_are_read_quickly(root: Path) -> None:
    for number in range(100):
        (root / f"d{number}").mkdir()
        for other in range(100):
            (root / f"d{number}" / f"f{other}").write_bytes(b"x" * 100)
    spec = ComposeSpec.model_validate(stack(root))
    begun = time.process_time()
    assert len(source.load(spec).files) == 10_001
    assert time.process_time() - begun < 2
