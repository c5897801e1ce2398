"""``resolve.sh`` in each shell that a host may have: nothing of the files stays on the host."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from stackmend.compose import commands
from stackmend.compose.source import File, Source
from stackmend.compose.spec import ComposeSpec
from tests.marks import MARK


@pytest.fixture
def argv(each_shell: list[str], tmp_path: Path) -> list[str]:
    """The command, for a host whose Compose answers as soon as a file ``go`` is there."""
    spec = ComposeSpec.model_validate(
        {"project": "shop", "source": ".", "directory": str(tmp_path / "project")}
    )
    tools = tmp_path / "bin"
    tools.mkdir()
    waits = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    (tools / "docker").write_text(f"#!/bin/sh\n{waits}\necho '{{}}'\n")
    (tools / "docker").chmod(0o755)
    _, *rest = shlex.split(commands.resolve(spec, (), MARK).get_raw_value())
    return ["env", f"PATH={tools}:/usr/bin:/bin", *each_shell, *rest]


@pytest.fixture
def files() -> bytes:
    """A project's files, as they are given to it."""
    return commands.make_resolve_archive(Source({"secret.env": File(0o600, b"KEY=abc\n")}), {})


@pytest.mark.parametrize("reader", ["stays", "goes"])
def test_no_file_stays(argv: list[str], files: bytes, reader: str, tmp_path: Path) -> None:
    """Not even when the connection is lost meanwhile, which is seen only when it is written to."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write(f"{MARK}\n".encode() + files)
        run.stdin.close()
        lines = iter(run.stdout.readline, b"")
        assert any(b"begin unpacked" in line for line in lines)
        work = Path(next(lines).decode().strip()[1:])
        assert any(b"begin config" in line for line in lines)
        assert (work / "secret.env").read_text() == "KEY=abc\n"
        if reader == "goes":
            run.stdout.close()
        (tmp_path / "go").touch()
        if reader == "stays":
            assert b"begin images" in run.stdout.read()
        run.wait(30)
    assert not work.exists()
