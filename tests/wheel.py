"""The built wheel, installed into an environment that has nothing else of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    # What the caller's environment adds to the import path must not lend the wheel what it lacks.
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    # Certificates of the machine, as in the Makefile: a company's proxy is known to it.
    base.setdefault("UV_SYSTEM_CERTS", "1")
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


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", out, ROOT, cwd=out)
    (path,) = out.glob("stackmend-*.whl")
    return path


@pytest.fixture(scope="session")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, beside another project's ``ops``."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", home / "bin/python")
    run(*uv, wheel, "ops", cwd=home)
    return home
