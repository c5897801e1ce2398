"""What lies at many paths, in each shell of some host: the same whether they are few or many."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stackmend.connection.scripts import read_script

MANY = [
    f"d{number % 7}/deep/a rather long name of a file, number {number}" for number in range(200)
]
ODD = ["-n", "a b", "back\\slash", "quo'te", "d1/$(id)", "d1/ lead"]


def digests(shell: list[str], root: Path, paths: list[str]) -> list[str]:
    script = read_script("stackmend.connection", "walk") + 'digests "$1" 1000\n'
    done = subprocess.run(
        [*shell, "-c", script, "digests", str(root)],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def line(root: Path, path: str) -> str:
    return f"{hashlib.sha256((root / path).read_bytes()).hexdigest()}  {path}"


def sparse(path: Path, size: int) -> None:
    """Of this size by what is said of it; to read it would take longer than anybody waits."""
    path.touch()
    os.truncate(path, size)


PLANTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda path: path.symlink_to("/etc/passwd"), "!link  {path}"),
    "fifo": (lambda path: os.mkfifo(path), "!other  {path}"),
    "directory": (lambda path: (path / "x").mkdir(parents=True), "!directory  {path}"),
    "a larger \\one": (lambda path: sparse(path, 1001), "!large  {path}"),
    "by far": (lambda path: sparse(path, 2**42), "!large  {path}"),
    "missing": (lambda path: None, "-  {path}"),
    "empty directory": (lambda path: path.mkdir(), "-  {path}"),
}


@pytest.mark.parametrize("more", [[], MANY], ids=["few", "many"])
def test_what_lies_there_is_told(each_shell: list[str], tmp_path: Path, more: list[str]) -> None:
    paths = [*more, *ODD]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    right = [line(tmp_path, path) for path in paths]
    assert digests(each_shell, tmp_path, paths) == right
    for name, (plant, said) in PLANTS.items():
        planted = f"d1/{name}"
        plant(tmp_path / planted)
        found = digests(each_shell, tmp_path, [*paths, planted])
        assert said.format(path=planted) in found
        assert found[: len(right)] == right
        if said.startswith("!large"):
            assert found[len(right) :] == [said.format(path=planted), f"?  {planted}"]
    (tmp_path / "d1").rename(tmp_path / "away")
    (tmp_path / "d1").symlink_to("away")
    found = digests(each_shell, tmp_path, paths)
    assert found.count("!link  d1") == 1
    assert "?  d1/$(id)" in found
    assert not any(one.endswith("  d1/$(id)") and len(one) > 60 for one in found)
    for odd in ("../x", "/etc/passwd", "a//b", "./a", "d0/.."):
        assert f"!odd  {odd}" in digests(each_shell, tmp_path, [*paths, odd])


def test_without_the_directory_nothing_is_there(each_shell: list[str], tmp_path: Path) -> None:
    assert digests(each_shell, tmp_path / "none", MANY) == [f"-  {path}" for path in MANY]
