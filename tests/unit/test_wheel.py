"""The built wheel, installed into an environment that has nothing else of ours."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    # What the caller's environment adds to the import path must not lend the wheel what it lacks.
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=base | env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", out, ROOT, cwd=out)
    (path,) = out.glob("stackmend-*.whl")
    return path


def test_the_wheel_holds_what_is_not_python_too(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", "ops", "deploy", cwd=ROOT).splitlines()
    assert {name for name in tracked if name.endswith((".sh", ".yaml"))} <= held
    assert set(tracked) <= held
    assert not [name for name in held if name.startswith(("tests/", "inventories/"))]


def test_the_wheel_works_where_nothing_else_of_ours_is(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin/python"
    uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python)
    run(*uv, wheel, cwd=tmp_path)
    where = run(
        python,
        "-c",
        "import ops, deploy, ops.compose, ops.checks, ops.connection, ops.reports\n"
        "print(ops.__file__, deploy.__file__, sep='\\n')",
        cwd=tmp_path,
    )
    assert all(line.startswith(str(home)) for line in where.splitlines())
    assert "pyinfra: v3.10" in run(home / "bin/pyinfra", "--version", cwd=tmp_path)
    listing = run(home / "bin/pyinfra", "@local", "--json", "debug-inventory", cwd=tmp_path)
    assert "@local" in listing
