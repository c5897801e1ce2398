"""Files put in place below a directory that others may change, in each shell of some host.

What is judged lies outside: nothing there may be written, removed, or given another mode or owner,
whatever is planted below the project's directory, and whenever.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stackmend.compose import commands
from stackmend.compose.plan.actions import InstallFiles
from stackmend.compose.source import File, Source
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied
from stackmend.connection import scripts
from tests.shells import find

Picture = dict[str, tuple[int, int, int, str, int]]


@dataclass
class Host:
    """A directory that stands for a host: its project, its memory, and what is none of ours."""

    root: Path
    shell: list[str]
    tools: str
    hooks: str = ""

    def __post_init__(self) -> None:
        for path in (self.project, self.memory, self.foreign):
            path.mkdir(parents=True, mode=0o755)
        (self.foreign / "victim").write_text("precious\n")
        (self.foreign / "app.cfg").write_text("theirs\n")
        (self.foreign / "sub").mkdir()
        (self.foreign / "sub" / "deep.cfg").write_text("theirs\n")
        os.chown(self.foreign / "victim", os.geteuid(), os.getegid())
        (self.foreign / "victim").chmod(0o600)

    @property
    def project(self) -> Path:
        return self.root / "opt" / "shop"

    @property
    def memory(self) -> Path:
        return self.root / "state" / "shop"

    @property
    def foreign(self) -> Path:
        return self.root / "etc"

    def stage(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Have these files wait where the script takes them from."""
        shutil.rmtree(self.memory / "staged", ignore_errors=True)
        source = Source({name: File(mode, text.encode()) for name, (mode, text) in files.items()})
        _, sent = commands.stage(self.spec(), source)
        with tarfile.open(fileobj=io.BytesIO(sent)) as tar:
            # Python knows no filter before 3.11.4.
            safe: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(self.memory / "staged", **safe)
        (self.memory / "staged/digest").write_text("0" * 64)

    def remember(self) -> subprocess.CompletedProcess[bytes]:
        """Run what makes a version's record the one that counts."""
        words = shlex.split(commands.record(self.spec(), "0" * 64).get_raw_value())
        return subprocess.run(
            ["env", f"PATH={self.tools}", *self.shell, *words[1:]],
            input=commands.make_record_archive(RECORD),
            capture_output=True,
            timeout=60,
            check=False,
        )

    def spec(self, directory: Path | None = None) -> ComposeSpec:
        return ComposeSpec.model_validate(
            {"project": "shop", "source": ".", "directory": str(directory or self.project)}
        )

    def install(
        self, *gone: str, generation: str = "1", directory: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run what puts the staged files in place, and removes these."""
        subject = str(directory or self.project)
        action = InstallFiles(subject=subject, cause="", removed=gone)
        command = commands.install(self.spec(directory), action, generation)
        words = shlex.split(command.get_raw_value())
        return subprocess.run(
            ["env", f"PATH={self.tools}", *self.shell, words[1], self.hooks + words[2], *words[3:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def picture(self) -> Picture:
        """All that is none of ours, by its owner, mode, links and content."""
        return {
            str(path.relative_to(self.root)): (
                (found := path.lstat()).st_mode,
                found.st_uid,
                found.st_gid,
                path.read_text() if path.is_file() else "",
                found.st_mtime_ns if path.is_file() else 0,
            )
            for path in sorted([self.foreign, *self.foreign.rglob("*")])
        }

    def temporary(self) -> list[str]:
        """What an install has left beside the files."""
        return [path.name for path in self.root.rglob(".stackmend*")]


@pytest.fixture
def host(each_shell: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """With the tools that belong to the shell."""
    monkeypatch.setattr(commands, "STATE_ROOT", str(tmp_path / "host" / "state"))
    tools = "/usr/bin:/bin"
    if each_shell[1:] == ["sh"]:
        tools = str(tmp_path / "bin")
        Path(tools).mkdir()
        done = subprocess.run([each_shell[0], "--list"], capture_output=True, text=True, check=True)
        for name in done.stdout.split():
            Path(tools, name).symlink_to(each_shell[0])
    return Host(tmp_path / "host", each_shell, tools)


FILES = {
    "compose.yaml": (0o644, "services: {}\n"),
    ".env": (0o600, "KEY=secret\n"),
    "conf/app.cfg": (0o644, "ours\n"),
    "conf/run.sh": (0o755, "#!/bin/sh\n"),
    "conf/sub/deep.cfg": (0o640, "ours, deep\n"),
    "odd names/- a 'b' \\x $(id).cfg": (0o644, "odd\n"),
    "odd names/\\n": (0o644, "a backslash\n"),
    "a\\n/b\\t": (0o644, "more of them\n"),
}


def test_files_come_with_their_modes_and_nothing_else_does(host: Host) -> None:
    host.stage(FILES)
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    for name, (mode, text) in FILES.items():
        path = host.project / name
        assert (path.stat().st_mode & 0o7777, path.read_text()) == (mode, text), name
        assert path.stat().st_nlink == 1
    assert (host.project / "conf").stat().st_mode & 0o7777 == 0o755
    assert host.temporary() == []


def test_what_an_earlier_version_kept_as_a_tree_is_installed(host: Host) -> None:
    """A rollback to what it proved; one of its own files may be called as a list of ours."""
    wanted = {**FILES, "files": (0o644, "theirs\n")}
    for name, (mode, text) in wanted.items():
        path = host.memory / "staged" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    there = [path for path in host.project.rglob("*") if path.is_file()]
    assert {
        str(path.relative_to(host.project)): (path.stat().st_mode & 0o7777, path.read_text())
        for path in there
    } == wanted


def test_what_is_equal_stays_and_what_goes_is_kept(host: Host) -> None:
    host.stage(FILES)
    assert host.install().returncode == 0
    same = (host.project / "compose.yaml").stat().st_ino
    host.stage({**FILES, "conf/app.cfg": (0o644, "newer\n"), "conf/run.sh": (0o644, "#!/bin/sh\n")})
    (host.project / ".env").chmod(0o666)
    (host.project / "old").mkdir()
    (host.project / "old" / "a b").write_text("was\n")
    done = host.install("old/a b", "old/never", generation="2")
    assert (done.returncode, done.stderr) == (0, "")
    assert (host.project / "compose.yaml").stat().st_ino == same
    assert (host.project / "conf/app.cfg").read_text() == "newer\n"
    assert (host.project / "conf/run.sh").stat().st_mode & 0o7777 == 0o644
    assert (host.project / ".env").stat().st_mode & 0o7777 == 0o600
    assert not (host.project / "old/a b").exists()
    kept = host.memory / "replaced" / "2"
    assert {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()} == {
        ".env",
        "conf/app.cfg",
        "conf/run.sh",
        "old/a b",
    }
    assert (kept / "conf/app.cfg").read_text() == "ours\n"


# What is planted below the project's directory before a run


def link_at_the_old_temporary_name(host: Host) -> None:
    """As a container that mounts ``./conf`` can make it."""
    (host.project / "conf").mkdir()
    (host.project / "conf/.stackmend-new.app.cfg").symlink_to(host.foreign / "victim")
    (host.project / "conf/.stackmend-new.run.sh").symlink_to(host.foreign / "not-there")


def directory_is_a_link(host: Host) -> None:
    (host.project / "conf").symlink_to(host.foreign)


def directory_is_a_relative_link(host: Host) -> None:
    (host.project / "conf").mkdir()
    (host.project / "conf/sub").symlink_to("../../../etc/sub")


def file_is_a_link(host: Host) -> None:
    (host.project / "conf").mkdir()
    (host.project / "conf/app.cfg").symlink_to(host.foreign / "victim")


def file_is_a_link_to_nowhere(host: Host) -> None:
    (host.project / "conf").mkdir()
    (host.project / "conf/app.cfg").symlink_to(host.foreign / "not-there")


def file_is_a_link_to_a_directory(host: Host) -> None:
    (host.project / "conf").mkdir()
    (host.project / "conf/app.cfg").symlink_to(host.foreign)


def file_is_a_fifo(host: Host) -> None:
    (host.project / "conf").mkdir()
    os.mkfifo(host.project / "conf/app.cfg")


def file_is_larger_than_any(host: Host) -> None:
    """Sparse, so that whoever reads or keeps it has no end."""
    (host.project / "conf").mkdir()
    (host.project / "conf/app.cfg").touch()
    os.truncate(host.project / "conf/app.cfg", 2**42)


def file_is_a_directory(host: Host) -> None:
    (host.project / "conf/app.cfg/full").mkdir(parents=True)


def directory_is_a_file(host: Host) -> None:
    (host.project / "conf").write_text("x")


def project_is_a_link_that_its_owner_made(host: Host) -> None:
    host.project.rmdir()
    host.project.symlink_to(host.foreign)
    host.project.parent.chmod(0o777)


PLANTED: dict[Callable[[Host], None], tuple[str, str]] = {
    directory_is_a_link: ("opt/shop/conf is a link", "conf/app.cfg"),
    directory_is_a_relative_link: ("opt/shop/conf/sub is a link", "conf/sub/deep.cfg"),
    file_is_a_link: ("opt/shop/conf/app.cfg is a link", "conf/app.cfg"),
    file_is_a_link_to_nowhere: ("opt/shop/conf/app.cfg is a link", "conf/app.cfg"),
    file_is_a_link_to_a_directory: ("opt/shop/conf/app.cfg is a link", "conf/app.cfg"),
    file_is_a_fifo: ("opt/shop/conf/app.cfg is in the way", "conf/app.cfg"),
    file_is_larger_than_any: (
        "opt/shop/conf/app.cfg is larger than any file of a project",
        "conf/app.cfg",
    ),
    file_is_a_directory: ("opt/shop/conf/app.cfg is in the way", "conf/app.cfg"),
    directory_is_a_file: ("opt/shop/conf is in the way", "conf/app.cfg"),
    project_is_a_link_that_its_owner_made: ("opt/shop is a link", "app.cfg"),
}


def listing(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.rglob("*"))


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_what_is_in_the_way_is_named_and_nothing_is_touched(
    host: Host, plant: Callable[[Host], None]
) -> None:
    said, gone = PLANTED[plant]
    plant(host)
    before, files = host.picture(), listing(host.project)
    host.stage(FILES)
    done = host.install()
    assert done.returncode == 1
    assert said in done.stderr
    assert (host.picture(), listing(host.project)) == (before, files)
    # The same where a file there is to be removed.
    host.stage({"compose.yaml": FILES["compose.yaml"]})
    done = host.install(gone)
    assert done.returncode == 1
    assert said in done.stderr
    assert (host.picture(), listing(host.project)) == (before, files)


def test_a_name_that_could_be_foreseen_is_no_way_out(host: Host) -> None:
    link_at_the_old_temporary_name(host)
    before = host.picture()
    host.stage(FILES)
    assert host.install().returncode == 0
    assert (host.project / "conf/app.cfg").read_text() == "ours\n"
    assert host.picture() == before


def test_an_inode_that_is_also_elsewhere_is_replaced_and_not_written(host: Host) -> None:
    (host.project / "conf").mkdir()
    (host.project / "conf/app.cfg").hardlink_to(host.foreign / "victim")
    (host.foreign / "same").write_text("#!/bin/sh\n")
    (host.foreign / "same").chmod(0o600)
    (host.project / "conf/run.sh").hardlink_to(host.foreign / "same")
    before = host.picture()
    host.stage(FILES)
    assert host.install().returncode == 0
    assert (host.project / "conf/run.sh").stat().st_mode & 0o777 == 0o755
    host.stage({"compose.yaml": FILES["compose.yaml"]})
    assert host.install("conf/app.cfg", generation="2").returncode == 0
    assert host.picture() == before


@pytest.mark.parametrize(
    "name", ["../../etc/victim", "/etc/victim", "", ".", "conf/..", "a//b", "a\nb"]
)
def test_a_path_that_leads_elsewhere_is_refused(host: Host, name: str) -> None:
    before = host.picture()
    host.stage(FILES)
    done = host.install(name)
    assert done.returncode == 1
    assert "no path below" in done.stderr
    assert host.picture() == before
    assert listing(host.project) == []


def test_links_of_root_above_the_project_are_followed(host: Host) -> None:
    (host.root / "data").mkdir()
    (host.root / "opt/stacks").symlink_to("../data")
    host.stage(FILES)
    done = host.install(directory=host.root / "opt/stacks/shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert (host.root / "data/shop/conf/app.cfg").read_text() == "ours\n"
    # Where others may write, nobody knows who made it.
    (host.root / "opt").chmod(0o775)
    done = host.install(directory=host.root / "opt/stacks/shop")
    assert done.returncode == 1
    assert "opt/stacks is a link" in done.stderr


def test_a_memory_that_is_not_roots_alone_is_refused(host: Host) -> None:
    host.stage(FILES)
    for mode in (0o777, 0o775):
        host.memory.parent.chmod(mode)
        done = host.install()
        assert done.returncode == 1
        assert "chmod go-w" in done.stderr
    assert listing(host.project) == []


def test_what_a_killed_run_left_is_gone_after_the_next(host: Host) -> None:
    """And nothing of what lies there under a name that only looks like it."""
    host.stage(FILES)
    slow = host.root / "slow"
    slow.mkdir()
    (slow / "mv").write_text("#!/bin/sh\nkill -9 $PPID; sleep 1\n")
    (slow / "mv").chmod(0o755)
    tools, host.tools = host.tools, f"{slow}:{host.tools}"
    (host.project / ".stackmend.mine").mkdir()
    (host.project / ".stackmend.mine/file").write_text("x")
    host.install()
    host.tools = tools
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert host.temporary() == [".stackmend.mine"]
    assert (host.project / ".stackmend.mine/file").exists()


# What is planted while a run is under way


@contextlib.contextmanager
def again_and_again(*acts: Callable[[], object]) -> Iterator[None]:
    """Do these things in turn, as fast as it goes, within the block."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            for act in acts:
                with contextlib.suppress(OSError):
                    act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_what_changes_meanwhile_leads_nowhere(host: Host) -> None:
    """A directory and a file that become links and back, faster than any check."""
    conf, link = host.project / "conf", host.project / "link"
    conf.mkdir()
    before = host.picture()
    away: list[Path] = []

    def swap() -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(host.foreign)
        away.append(host.project / f"away-{len(away)}")
        conf.rename(away[-1])
        link.rename(conf)

    def back() -> None:
        conf.unlink()
        away[-1].rename(conf)

    def name() -> None:
        for beside in conf.glob(".stackmend*/"):
            (beside / "app.cfg").unlink(missing_ok=True)
            (beside / "app.cfg").symlink_to(host.foreign / "victim")

    def linger() -> None:
        time.sleep(random.random() / 1000)

    with again_and_again(swap, linger, back, linger, name):
        for turn in range(8):
            host.stage({**FILES, "conf/app.cfg": (0o644, f"ours {turn}\n")})
            host.install(generation=str(turn))
    assert host.picture() == before
    kept = host.memory / "replaced"
    assert not [path for path in kept.rglob("*") if path.is_symlink()]


def test_a_new_directory_that_becomes_a_link_while_it_is_filled_leads_nowhere(host: Host) -> None:
    """As root in a container that mounts the project can do it, who enters every directory."""
    before = host.picture()

    def swap() -> None:
        for inner in host.project.glob(".stackmend*/new*/sub"):
            inner.rename(inner.with_name("away"))
            inner.symlink_to(host.foreign / "sub")

    def plant() -> None:
        for inner in host.project.glob(".stackmend*/new*"):
            (inner / "sub").symlink_to(host.foreign / "sub")
            (inner / "deep.cfg").symlink_to(host.foreign / "victim")

    with again_and_again(swap, plant):
        for turn in range(8):
            new = {f"new{turn}/{name}deep.cfg": (0o666, "ours\n") for name in ("", "sub/", "z/")}
            host.stage({**FILES, **new})
            host.install(generation=str(turn))
    assert host.picture() == before


# What is moved elsewhere between two steps: functions of the shell, which busybox calls too, act at
# these very moments. Only root can be somebody else.


def attacker() -> str:
    if os.geteuid():
        return ""
    return f"{find('setpriv')} --reuid 65534 --regid 65534 --clear-groups"


@dataclass
class Moved:
    """A directory of another's project, and one with the sticky bit on the same file system."""

    host: Host

    def __post_init__(self) -> None:
        self.conf.mkdir(mode=0o755)
        self.sticky.mkdir()
        self.sticky.chmod(0o1777)
        self.theirs.write_text("precious\n")
        self.theirs.chmod(0o600)
        if not os.geteuid():
            os.chown(self.conf, 65534, 65534)
            os.chown(self.theirs, 1234, 1234)
        self.before = self.host.picture()

    @property
    def conf(self) -> Path:
        return self.host.project / "conf"

    @property
    def sticky(self) -> Path:
        return self.host.foreign / "tmp"

    @property
    def theirs(self) -> Path:
        return self.sticky / "app.cfg"

    def hooks(self, *, replaced: bool, once: str) -> str:
        """Replace what waits once it is made, and move it away once it is held and ``once``."""
        conf, mv, mkdir = shlex.quote(str(self.conf)), find("mv"), find("mkdir")
        by = attacker() if replaced else ""
        swap = f'(cd {conf} && {by} {mv} "$it" away && {by} {mkdir} -m 755 "$it")'
        move = f'{by} {mv} "../${{PWD##*/}}" ../../../../etc/tmp/got'
        return f"""
mktemp() {{
  made=$(command mktemp "$@") || return
  it=${{made##*/}}
  case $made in *.stackmend.*) {swap if replaced else ":"} >&2 ;; esac
  printf '%s\\n' "$made"
}}
env() {{
  command env "$@" || return
  case $PWD in */.stackmend.*) if {once}; then {move} >&2; fi ;; esac
}}
"""

    def untouched(self) -> bool:
        now = self.host.picture()
        return {name: now.get(name) for name in self.before} == self.before


IN_CONF = {name: FILES[name] for name in ("conf/app.cfg", "conf/run.sh")}


@pytest.fixture
def moved(host: Host) -> Moved:
    return Moved(host)


def test_what_waits_in_anothers_directory_lands_nowhere_else(moved: Moved) -> None:
    """Whose directory it is moves it to where others' files lie."""
    host = moved.host
    host.stage(IN_CONF)
    host.hooks = moved.hooks(replaced=True, once="[ -e ./app.cfg ]")
    done = host.install()
    assert moved.untouched()
    assert done.returncode == 1
    assert "is not as it was made a moment ago" in done.stderr
    # Nothing is removed from, or written into, what is another's.
    assert [path.name for path in moved.conf.glob(".stackmend*/*")] == []


def test_what_waits_goes_to_the_directory_that_was_looked_at(moved: Moved) -> None:
    """As root in a container that mounts all of it can move it."""
    host = moved.host
    host.stage(IN_CONF)
    host.hooks = moved.hooks(replaced=False, once="[ -e ./app.cfg ]")
    host.install()
    assert moved.untouched()
    assert (moved.sticky / "got").is_dir()
    assert moved.theirs.read_text() == "precious\n"
    assert {path.name for path in moved.conf.iterdir()} == {"app.cfg", "run.sh"}
    assert (moved.conf / "app.cfg").read_text() == "ours\n"


@pytest.mark.parametrize("replaced", [True, False])
def test_a_single_file_lands_nowhere_else(moved: Moved, replaced: bool) -> None:
    host = moved.host
    own = host.root / "own"
    own.mkdir(mode=0o700)
    (own / "app.cfg").write_text("ours\n")
    hooks = moved.hooks(replaced=replaced, once="[ ! -e ../../../../etc/tmp/got ]")
    script = (
        scripts.read_script("stackmend.connection", "walk")
        + hooks
        + 'hold "$1" && lay "$2" app.cfg\n'
    )
    done = subprocess.run(
        ["env", f"PATH={host.tools}", *host.shell, "-c", script, "sh", str(moved.conf), str(own)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert moved.untouched(), done.stderr
    if replaced:
        assert done.returncode == 1
        assert not (moved.conf / "app.cfg").exists()
    else:
        assert (moved.conf / "app.cfg").read_text() == "ours\n"
    assert (own / "app.cfg").read_text() == "ours\n"


def within(host: Host, *paths: str) -> subprocess.CompletedProcess[str]:
    command = commands.check_mounts(host.spec(), [str(host.project / path) for path in paths])
    assert command is not None
    words = shlex.split(command.get_raw_value())
    return subprocess.run(
        ["env", f"PATH={host.tools}", *host.shell, *words[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_mounted_lies_behind_no_link_that_a_container_may_have_made(host: Host) -> None:
    for path in ("data/redis", "data/q/new", "elsewhere"):
        (host.project / path).mkdir(parents=True)
    paths = ("data", "data/redis", "data/q/new/deep", "big", "conf/app.cfg")
    # Beside what containers mount, a link is the owner's of the directory: root's here.
    (host.project / "big").symlink_to(host.project / "elsewhere")
    assert (within(host, *paths).returncode, within(host, *paths).stderr) == (0, "")
    for name in ("redis", "q"):
        (host.project / "data" / name).rename(host.project / "data" / f"{name}.old")
        (host.project / "data" / name).symlink_to(host.foreign)
    done = within(host, *paths)
    assert done.returncode == 1
    assert [line.partition(" is a link")[0] for line in done.stderr.splitlines()] == [
        f"{host.project}/data/q",
        f"{host.project}/data/redis",
    ]
    # Where nothing above it is mounted, it is root's again.
    assert within(host, "data/redis").returncode == 0
    done = within(host, ".", "big")
    assert done.stderr.startswith(f"{host.project}/big is a link")
    if os.geteuid() == 0:
        os.chown(host.project / "data", 65534, 65534)
        assert within(host, "data/redis").stderr.startswith(f"{host.project}/data/redis is a link")


RECORD = Applied(
    project="shop",
    directory="/opt/shop",
    source="0" * 64,
    files={"compose.yaml": "0" * 64},
    config={},
    services={},
    applied_at=0,
)


def test_nothing_is_remembered_that_was_taken_away(host: Host) -> None:
    host.stage(FILES)
    assert host.install().returncode == 0
    lost = host.project / "conf/app.cfg"
    lost.unlink()
    done = host.remember()
    assert done.returncode == 1
    assert done.stderr.decode().startswith("conf/app.cfg was put in place and is no longer there")
    assert not (host.memory / "applied.json").exists()
    lost.write_text("ours\n")
    done = host.remember()
    assert (done.returncode, done.stderr) == (0, b"")
    assert (host.memory / "applied.json").exists()


def test_what_another_version_left_staged_is_not_remembered(host: Host) -> None:
    """One that was rolled back, or whose run ended early: it is nothing to go back to."""
    host.stage(FILES)
    (host.memory / "staged/digest").write_text("1" * 64)
    good = host.memory / f"good-{'0' * 64}"
    good.mkdir()
    (good / "files").write_text("proven")
    done = host.remember()
    assert (done.returncode, done.stderr) == (0, b"")
    assert (good / "files").read_text() == "proven"
    assert not (host.memory / "staged").exists()


RENAMERS = ("mv", "python3", "perl", "ln")


@pytest.mark.parametrize("tool", RENAMERS)
@pytest.mark.parametrize("name", ["file", "directory"])
def test_what_cannot_be_renamed_is_not_copied(host: Host, tool: str, name: str) -> None:
    """A directory may be another file system's when it is taken up again."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as there:
        target = host.root / "target"
        target.mkdir()
        assert Path(there).stat().st_dev != target.stat().st_dev
        (Path(there) / "file").write_text("ours\n")
        (Path(there) / "directory").mkdir()
        (Path(there) / "directory" / "file").write_text("ours\n")
        done = placed(host, tool, Path(there), target, name)
        assert done.returncode != 0
        assert done.stderr
        assert list(target.iterdir()) == []
        assert (Path(there) / name).exists()


@pytest.mark.parametrize("tool", RENAMERS)
def test_each_tool_renames_over_what_is_there(host: Host, tool: str) -> None:
    there, target = host.root / "there", host.root / "target"
    for directory in (there, target):
        directory.mkdir()
    for name in ("a", "-n", "b c"):
        (there / name).write_text("ours\n")
        (target / name).write_text("theirs\n")
    assert placed(host, tool, there, target, "./a", "./-n", "./b c").stderr == ""
    assert {path.name: path.read_text() for path in target.iterdir()} == dict.fromkeys(
        ("a", "-n", "b c"), "ours\n"
    )
    assert list(there.iterdir()) == []


def placed(
    host: Host, tool: str, there: Path, target: Path, *names: str
) -> subprocess.CompletedProcess[str]:
    """What ``place`` of walk.sh does on a host that has this tool for it."""
    tools = host.root / "tools of it"
    tools.mkdir()
    for name in ("sh", "mv", "ln", "rm", *([tool] if tool in ("python3", "perl") else [])):
        path = tools / name
        # pyenv's is a script for bash.
        real = os.path.realpath(sys.executable) if name == "python3" else shutil.which(name)
        assert real is not None, name
        # Only the newest mv can be told not to copy.
        refuse = '[ "$1" != --no-copy ] || exit 1\n' if name == "mv" else ""
        path.write_text(f'#!/bin/sh\n{refuse}exec {real} "$@"\n')
        path.chmod(0o755)
    if tool == "mv":
        if "--no-copy" not in subprocess.run(["mv", "--help"], capture_output=True).stdout.decode():
            pytest.skip("this mv cannot be told not to copy")
        (tools / "mv").write_text('#!/bin/sh\nexec /bin/mv "$@"\n')
    text = scripts.read_script("stackmend.connection", "walk")
    text += 'cd "$1" && exec 4<. && cd "$2" && shift 2 && place "$@"\n'
    return subprocess.run(
        [
            *("env", f"PATH={tools}", find("dash"), "-c", text, "sh"),
            *(str(target), str(there), *names),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["conf/app.cfg", "odd names/a \\ b.cfg", ".env"])
def test_a_mount_point_is_named_before_anything_is_touched(host: Host, name: str) -> None:
    """Also where it is to be removed; one with the right content is in nobody's way."""
    unshare = find("unshare")
    mine = [unshare, "-m"] if os.geteuid() == 0 else [unshare, "-rm"]
    if subprocess.run([*mine, "true"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    file = host.project / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mounted\n")
    bind = 'mount --bind "$0" "$0" && exec "$@"'
    host.shell = [*mine, find("sh"), "-c", bind, str(file), *host.shell]
    said = f"opt/shop/{name} is a mount point"
    host.stage({**FILES, name: (0o644, "ours\n")})
    done = host.install()
    assert done.returncode == 1
    assert said in done.stderr
    assert not (host.project / "compose.yaml").exists()
    host.stage({"compose.yaml": FILES["compose.yaml"]})
    done = host.install(name)
    assert done.returncode == 1
    assert said in done.stderr
    host.stage({**FILES, name: (file.stat().st_mode & 0o777, "mounted\n")})
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert file.read_text() == "mounted\n"


def test_many_files_are_written_once_and_a_new_directory_is_moved_as_a_whole(host: Host) -> None:
    """What is counted is work: on a machine that is busy, time says little."""
    if host.shell[1:] == ["sh"]:
        pytest.skip("busybox calls its own tools and none that count")
    log = host.root / "log"
    counting = host.root / "counting"
    counting.mkdir()
    for name in ("mv", "python3", "tar", "sha256sum", "rm", "cp"):
        real = shutil.which(name, path=host.tools)
        script = f'#!/bin/sh\nfor name do echo "{name} $name"; done >>{log}\nexec {real} "$@"\n'
        (counting / name).write_text(script)
        (counting / name).chmod(0o755)
    host.tools = f"{counting}:{host.tools}"
    many = {f"data/{n % 3}/{n}": (0o644, f"{n}\n") for n in range(300)}
    host.stage({**FILES, **many})
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(path.is_file() for path in host.project.rglob("*")) == len(FILES) + len(many)
    said = log.read_text().splitlines()
    assert {"mv ./data", "python3 ./data"} & set(said)
    assert [line for line in said if line.startswith(("sha256sum ", "cp "))] == []
    assert len(said) < 150
    # With all in place, what is there is read once, and what changes is written alone.
    log.write_text("")
    host.stage({**FILES, **many, "data/1/1": (0o644, "other\n")})
    assert host.install(generation="2").returncode == 0
    said = log.read_text().splitlines()
    assert (host.project / "data/1/1").read_text() == "other\n"
    renamed = [line for line in said if line.startswith(("mv ./", "python3 ./"))]
    assert renamed in (["mv ./1"], ["python3 ./1"])
    assert sum(line.startswith("sha256sum ./") for line in said) == len(FILES) + len(many)
    assert [path.name for path in (host.memory / "replaced/2").rglob("*") if path.is_file()] == [
        "1"
    ]
