"""The layers are held by import-linter; this holds that it would see what must not be."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        (
            "connection/first_contact/contact.py",
            "from .arrange import arrange",
            "No circles, not even between types",
        ),
        (
            "ports/plan/model.py",
            "from pyinfra.api import Host",
            "Decisions are pure: no pyinfra, no clock, no randomness, no I/O",
        ),
        ("ports/reconciler.py", "import httpx", "Only the connection room speaks to transports"),
    ],
)
def test_what_is_imported_for_types_alone_counts(
    tmp_path: Path, module: str, line: str, contract: str
) -> None:
    shutil.copytree(ROOT / "ops", tmp_path / "ops", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "ops/stackmend" / module
    more = f"\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {line}\n"
    path.write_text(path.read_text() + more)
    words = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}/ops:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert len(broken) == 1
    assert broken[0].startswith(f"{contract} BROKEN")
