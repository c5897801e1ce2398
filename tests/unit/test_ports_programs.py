"""The programs in other languages that the room's scripts run: valid, and sent as they are."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from stackmend.connection import read_script

ROOM = Path("ops/stackmend/ports")
#: Those that run on a host: the scripts name them by a variable.
PROGRAMS = ("bind.py", "bind.pl", "bound.py", "end.py", "launch.py")


def received(name: str, room: str, shell: list[str]) -> str:
    """What a shell has in the variable of a program."""
    variable = name.replace(".", "_")
    body = read_script(room, name) + f'printf %s "${variable}"'
    done = subprocess.run([*shell, "-c", body], capture_output=True, check=True, timeout=30)
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_arrives_as_it_is_but_for_its_comments(name: str, each_shell: list[str]) -> None:
    lines = (ROOM / name).read_text().splitlines()
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("# ")]
    assert received(name, "stackmend.ports", each_shell) == "\n".join(kept) + "\n"


def test_nothing_in_a_program_is_the_shells(
    each_shell: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = "it's \"$HOME\" $(id) `id` \\n \\\n'\\''\n;exit 1\n#\n"
    (tmp_path / "odd.py").write_text(program)
    monkeypatch.setattr("stackmend.connection.scripts.files", lambda room: tmp_path)
    read_script.cache_clear()
    assert received("odd.py", "x", each_shell) == program
    read_script.cache_clear()


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith(".py")])
def test_a_program_is_one_of_the_oldest_python_that_hosts_have(name: str) -> None:
    ast.parse((ROOM / name).read_text(), feature_version=(3, 6))


@pytest.mark.skipif(shutil.which("perl") is None, reason="there is no perl here")
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith(".pl")])
def test_a_program_is_valid_perl(name: str) -> None:
    done = subprocess.run(["perl", "-wc", ROOM / name], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr.decode()) == (0, f"{ROOM / name} syntax OK\n")


def test_every_program_is_tested() -> None:
    # What is no part of the package is run with its arguments, and not imported.
    scripts = "".join(path.read_text() for path in ROOM.glob("*.sh"))
    used = {path.name for path in ROOM.iterdir() if f"${path.name.replace('.', '_')}" in scripts}
    assert used == set(PROGRAMS)
