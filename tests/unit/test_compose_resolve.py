"""``resolve.sh`` in each shell that a host may have: nothing of the files stays on the host."""

from __future__ import annotations

import json
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


def make_service(**options: object) -> dict[str, object]:
    """A service as Compose prints it."""
    return {"command": None, "environment": {"image": "none/of:these"}, "x-more": {}, **options}


#: What Compose makes of files, and whether it is asked for their images as well.
CONFIGS: list[tuple[dict[str, object], bool]] = [
    (
        {"web": make_service(image="a/web:1"), "side": make_service(image="a/side:2@sha256:0")},
        False,
    ),
    ({"web": make_service(image="a/web:1"), "made": make_service(build={"context": "/x"})}, True),
    ({"web": make_service(image='a/"web')}, True),
    ({"web": make_service(image=None), "side": make_service(image="")}, True),
    ({"web": {}, "side": make_service(image="a/side:2")}, True),
    ({}, True),
]


@pytest.mark.parametrize("indent", [2, None])
@pytest.mark.parametrize(("services", "asked"), CONFIGS)
def test_compose_is_asked_for_images_only_where_it_has_not_named_them(
    argv: list[str],
    files: bytes,
    tmp_path: Path,
    services: dict[str, object],
    asked: bool,
    indent: int | None,
) -> None:
    others = {"web": {"image": "none/of:these", "driver": {"image": "none/of:these"}}}
    config = {"name": "shop", "networks": others, "services": services, "x-services": others}
    (tmp_path / "config").write_text(json.dumps(config, indent=indent))
    (tmp_path / "bin/docker").write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n'
        f"case $* in *--format*json) cat {tmp_path}/config ;; *--images) echo its/own:1 ;; esac\n"
    )
    (tmp_path / "project").mkdir()
    done = subprocess.run(argv, input=f"{MARK}\n".encode() + files, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    calls = (tmp_path / "asked").read_text()
    asked = asked or indent is None
    assert ("config --images" in calls) is asked
    (inspected,) = [line for line in calls.splitlines() if line.startswith("image inspect")]
    images = {"its/own:1"} if asked else {"a/web:1", "a/side:2@sha256:0"}
    assert set(inspected.partition(" -- ")[2].split()) == images
