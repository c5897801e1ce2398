"""``images.sh`` in each shell that a host may have, with images that carry a megabyte."""

from __future__ import annotations

import subprocess
from pathlib import Path

from stackmend.connection import scripts
from tests.marks import MARK


def _run(each_shell: list[str], tools: Path, *references: str) -> list[str]:
    text = scripts.read_frame() + scripts.read_script("stackmend.compose", "images")
    done = subprocess.run(
        [*each_shell, "-c", f'mark={MARK}\n{text}images "$@"', "images", *references],
        env={"PATH": f"{tools}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return [line[1:] for line in done.stdout.splitlines() if line.startswith("|")]


def _docker(tools: Path, text: str) -> None:
    tools.mkdir()
    (tools / "docker").write_text(f"#!/bin/sh\n{text}\n")
    (tools / "docker").chmod(0o755)


def test_a_path_of_a_megabyte_keeps_nobody_waiting(each_shell: list[str], tmp_path: Path) -> None:
    long = '["sha256:aa",{"/' + "|" * 2**20 + '":{}},null,null]'
    (tmp_path / "said").write_text(f'{long}\n["sha256:bb",null,null,null]\n')
    _docker(tmp_path / "bin", f"cat {tmp_path}/said")
    rows = _run(each_shell, tmp_path / "bin", "api:1", "redis:7")
    assert rows == [f"{long} api:1", '["sha256:bb",null,null,null] redis:7']


def test_where_one_is_missing_each_is_asked_alone(each_shell: list[str], tmp_path: Path) -> None:
    _docker(
        tmp_path / "bin",
        'for last; do :; done; case "$*" in *gone*) exit 1 ;; esac; echo "[\\"$last\\"]"',
    )
    rows = _run(each_shell, tmp_path / "bin", "api:1", "gone:7")
    assert rows == ['["api:1"] api:1', "- gone:7"]
