"""The room of ``docs/adding-a-room.md`` is short, and as clean as the house's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.example_room import PAGE, read_page, write_room

ROOT = Path(__file__).parents[2]
#: The most lines that the room may have, empty ones counted.
LIMIT = 150


def test_the_room_is_short() -> None:
    room = [text for name, text in read_page().items() if name.startswith("keepalive/")]
    assert len(room) == 9
    assert sum(len(text.splitlines()) for text in room) <= LIMIT


def test_the_page_names_each_file_where_it_says_where_they_lie() -> None:
    layout = PAGE.read_text().partition("my-rooms/\n")[2].partition("\n\n")[0]
    assert [name for name in read_page() if name.rpartition("/")[2] not in layout] == []
    assert {"deploy.py", "inventory.py"} <= read_page().keys()


def run_ruff(directory: Path, *arguments: str) -> str:
    # The house's own rules, and stackmend as what it is there: somebody else's package.
    page_alone = 'lint.per-file-ignores={"deploy.py"=["D100"],"inventory.py"=["D100"]}'
    settings = (str(ROOT / "pyproject.toml"), 'src=["."]', page_alone)
    config = [word for setting in settings for word in ("--config", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", *config, "."],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_room_passes_the_linter(tmp_path: Path) -> None:
    write_room(tmp_path)
    assert run_ruff(tmp_path, "check") == ""
    assert run_ruff(tmp_path, "format", "--check") == ""


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    write_room(tmp_path)
    (tmp_path / "keepalive/spec.py").write_text("import os\n")
    found = run_ruff(tmp_path, "check")
    assert "F401" in found
    assert "keepalive/spec.py" in found


def test_the_scripts_of_the_room_pass_the_linter(tmp_path: Path) -> None:
    write_room(tmp_path)
    shellcheck = Path(sys.executable).parent / "shellcheck"
    scripts = sorted(map(str, tmp_path.rglob("*.sh")))
    assert len(scripts) == 2
    done = subprocess.run(
        [shellcheck, "--shell", "sh", *scripts], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
