"""What the probe tells of a record's files, in each shell of some host: what differs alone."""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from pyinfra.api import FactProcessError, StringCommand

from stackmend.compose import commands, facts
from stackmend.compose.facts import ComposeStack
from stackmend.compose.source import File, Source
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied, StackState

FILES = {f"data/{n % 3}/a b {n}": f"{n}\n" for n in range(300)} | {"compose.yaml": "{}\n"}


class Host:
    """A directory that stands for a host without an engine, on which these files were proven."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root, self.shell = root, shell
        self.project = root / "opt"
        for name, text in FILES.items():
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(text)
        self.spec = ComposeSpec(project="shop", source=Path(), directory=str(self.project))
        self.record()

    def record(self) -> None:
        """Make these files the ones that were proven."""
        applied = Applied(
            project="shop",
            directory=str(self.project),
            source="abc",
            files={name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()},
            config={},
            services={},
            applied_at=0,
        )
        self.run(commands.record(self.spec, "abc"), commands.make_record_archive(applied))

    def run(self, command: StringCommand, sent: bytes = b"") -> None:
        """Run one of our commands."""
        words = shlex.split(command.get_raw_value())
        subprocess.run([*self.shell, *words[1:]], input=sent, timeout=60, check=True)

    @property
    def memory(self) -> Path:
        return self.root / "state" / "shop"

    def probe(self, path: str = "/usr/bin:/bin") -> tuple[StackState, int]:
        """The state, and how many bytes of output tell of its files."""
        fact = ComposeStack()
        words = shlex.split(fact.command("shop", str(self.project)).get_raw_value())
        mark, script = words[2], words[6:]
        done = subprocess.run(
            ["env", f"PATH={path}", *self.shell, "-c", *script],
            input=f"{mark}\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        lines = done.stdout.split("\n")
        told = lines[lines.index(f"{mark} begin files") :]
        return fact.process(lines), len("".join(told[: told.index(f"{mark} end")]))


@pytest.fixture
def host(each_shell: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    for module in (commands, facts):
        monkeypatch.setattr(module, "STATE_ROOT", str(tmp_path / "state"))
    return Host(tmp_path, each_shell)


def digests() -> dict[str, str | None]:
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}


def test_files_as_recorded_are_told_by_their_number(host: Host) -> None:
    state, size = host.probe()
    assert state.files == digests()
    assert size < 200


def test_what_differs_is_told_of_each_file(host: Host) -> None:
    (host.project / "data/1/a b 1").write_text("other\n")
    (host.project / "data/1/a b 4").unlink()
    (host.project / "data/2/a b 2").unlink()
    (host.project / "data/2/a b 2").symlink_to("a b 5")
    state, _ = host.probe()
    other = hashlib.sha256(b"other\n").hexdigest()
    assert state.files == digests() | {
        "data/1/a b 1": other,
        "data/1/a b 4": None,
        "data/2/a b 2": "?",
    }
    assert state.obstacles == {"data/2/a b 2": "link"}


def test_a_record_that_is_being_replaced_is_compared_here(host: Host) -> None:
    """A run that was killed while it wrote the record, and a record of before."""
    (host.memory / "digests").unlink()
    (host.project / "compose.yaml").write_text("x\n")
    state, _ = host.probe()
    assert state.files == digests() | {"compose.yaml": hashlib.sha256(b"x\n").hexdigest()}


def test_a_service_on_other_files_is_known_by_any_name(host: Host) -> None:
    names = ("web", ".web", "...", "-web")
    host.run(commands.mark_stale(host.spec, names))
    assert {*host.probe()[0].stale} == {*names}


@pytest.mark.parametrize("cut_short", [False, True])
def test_files_that_a_killed_run_sent_are_private_and_go_with_the_next_record(
    host: Host, cut_short: bool
) -> None:
    source = Source({"db.env": File(0o644, b"PASSWORD=s3cr\n"), "a/run": File(0o755, b"")})
    old = os.umask(0)
    try:
        command, sent = commands.stage(host.spec, source, unpacked=True)
        for _ in range(2):
            host.run(command, sent)
    finally:
        os.umask(old)
    left = host.memory / "staged"
    if cut_short:
        left = left.rename(host.memory / "staged.new")
    # Two runs leave no more than one.
    assert sorted(path.name for path in host.memory.glob("staged*")) == [left.name]
    for place in (left, left / "tree"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    inside = [path for path in left.iterdir() if path.is_file()]
    assert {path.name for path in inside} >= {"0.tar", "1.tar", "files"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in inside} == {0o600}
    assert host.probe()[0].staged
    host.record()
    assert not host.probe()[0].staged
    assert not [*host.memory.glob("staged*")]


@pytest.mark.parametrize("lost", ["files", "digests"])
def test_files_that_were_not_looked_at_are_not_taken_for_equal(host: Host, lost: str) -> None:
    """The lists and the record do not agree: nothing follows from them."""
    kept = (host.memory / lost).read_text().splitlines(keepends=True)
    (host.memory / lost).write_text("".join(kept[:-1]))
    if lost == "files":
        with pytest.raises(FactProcessError, match="did not look at all files"):
            host.probe()
    else:
        # One is told of that need not have been.
        assert host.probe()[0].files == digests()


@pytest.mark.parametrize("mode", [None, 0o644, 0o755])
def test_a_docker_that_nobody_may_execute_is_not_one_that_is_absent(
    host: Host, tmp_path: Path, mode: int | None
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name != "docker":
            (programs / program.name).symlink_to(program)
    docker = tmp_path / "some where/docker"
    docker.parent.mkdir()
    if mode is not None:
        docker.write_text("#!/bin/sh\nexit 1\n")
        docker.chmod(mode)
    engine = host.probe(f"{docker.parent}:{programs}")[0].engine
    status = {None: "absent", 0o644: "unexecutable", 0o755: "unknown"}[mode]
    assert engine.status == status
    if mode == 0o644:
        assert engine.reason == str(docker)
