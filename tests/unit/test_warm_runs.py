"""A run that is forked is the run that a user starts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.lab import controller
from tests.lab.paths import PROJECT

pytestmark = pytest.mark.slow

_SCRIPT = """
import os, sys, threading
from pyinfra import host, logger
from pyinfra.operations import server
logger.info(repr((sorted(os.environ.items()), os.getcwd(), sys.argv[1:], sys.path)))
logger.info(repr((os.getsid(0) == os.getpid(), threading.active_count(), sys.stdin.read())))
server.shell(commands=["exit 3" if host.data.get("fails") else "true"])
"""


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    "words", [("-y",), ("-y", "--data", "fails=1"), ("--dry",), ("--nonsense",)]
)
def test_it_says_the_same_and_ends_alike(
    tmp_path: Path, words: tuple[str, ...], elsewhere: bool
) -> None:
    deploy = tmp_path / "deploy.py"
    deploy.write_text(_SCRIPT)
    env = {"STACKMEND_REPORTS": str(tmp_path), "A_VALUE": "é=\n"}
    cwd = tmp_path if elsewhere else PROJECT
    said = []
    for program in ((), controller.pyinfra_argv()):
        run = controller.run(
            "@local", str(deploy), *words, env=env, stdin=b"typed", program=program, cwd=cwd
        )
        text = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]+|/tmp/tmp\w+", "…", run.out)
        said.append([run.rc, *text.splitlines()])
    assert said[0] == said[1]


def test_it_can_be_waited_for_and_killed() -> None:
    with controller.start("@local", "exec", "-y", "--", "sleep 60") as running:
        assert running.wait_for_output("Beginning operation run")
        assert running.process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.05)
        running.kill()
        assert running.process.poll() == -9
        assert running.wait().rc == -9


def test_one_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    deploy = tmp_path / "deploy.py"
    deploy.write_text(
        "import os\nfrom pyinfra import logger\n"
        "logger.info(os.environ.pop('MARK', 'clean'))\n"
        "import stackmend.spec\nlogger.info(getattr(stackmend.spec, 'mark', 'clean'))\n"
        "stackmend.spec.mark = 'dirty'\n"
    )
    for _ in range(2):
        run = controller.run("@local", str(deploy), "-y", env={"STACKMEND_REPORTS": str(tmp_path)})
        assert run.out.count("clean") == 2, run.out


def test_json_stays_apart_from_what_is_said() -> None:
    run = controller.run("@local", "--json", "debug-inventory")
    assert run.rc == 0
    assert json.loads(run.stdout)


def test_another_directory_has_a_config_and_modules_of_its_own(tmp_path: Path) -> None:
    assert tmp_path != PROJECT
    (tmp_path / "config.py").write_text("import beside\nbeside.begin()\n")
    (tmp_path / "beside.py").write_text(
        "import sys\nfrom pyinfra import logger\n"
        "def begin(): logger.info(f'begun in {__file__}, {\"stackmend.startup\" in sys.modules}')\n"
    )
    run = controller.run("@local", "exec", "-y", "--", "true", cwd=tmp_path)
    assert f"begun in {tmp_path}/beside.py, False" in run.out
    assert "stackmend:" not in run.out, "its config.py has no part of ours"
