"""Greetings of a real postgres, whose answers the unit tests have as recorded ones.

It is the one that STACKMEND_TEST_POSTGRES names, the directory of its programs, or that of this
machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stackmend.checks.state import CheckResult
from tests.unit.checks_peer import Shell, make_shell

Ask = Callable[..., CheckResult]

# It refuses to run as root.
USER: dict[str, Any] = {"user": "nobody"} if os.getuid() == 0 else {}


@pytest.fixture(scope="module")
def programs() -> Path:
    if named := os.environ.get("STACKMEND_TEST_POSTGRES"):
        return Path(named)
    found = shutil.which("postgres")
    if found is None:
        pytest.skip("no postgres on PATH, and STACKMEND_TEST_POSTGRES names none")
    return Path(found).resolve().parent


@pytest.fixture(scope="module")
def directory(programs: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        if USER:
            shutil.chown(path, **USER)
        subprocess.run(
            [programs / "initdb", "-D", path, "-U", "postgres", "-N"],
            check=True,
            capture_output=True,
            timeout=120,
            **USER,
        )
        yield path


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return make_shell(tmp_path_factory.mktemp("shell") / "bin", "bash")


@contextlib.contextmanager
def running(programs: Path, directory: Path, shell: Shell, rule: str, *words: str) -> Iterator[Ask]:
    """A postgres with a rule of who may come in, and what asks it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (directory / "pg_hba.conf").write_text(f"{rule}\n")
    options = [f"-p{port}", f"-k{directory}", "-clisten_addresses=127.0.0.1", *words]
    with (directory / "log").open("ab") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", directory, *options], stderr=log, **USER
        )

    def ask(**fields: Any) -> CheckResult:
        check = {"kind": "greeting", "protocol": "postgres", "address": f"127.0.0.1:{port}"}
        return shell.check([check | fields])[0]

    try:
        deadline = time.monotonic() + 60
        while "connection refused" in ask().evidence and time.monotonic() < deadline:
            time.sleep(0.2)
        if not words:
            while "starting up" in ask().evidence and time.monotonic() < deadline:
                time.sleep(0.2)
        yield ask
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.slow
def test_a_real_postgres(programs: Path, directory: Path, shell: Shell) -> None:
    every = "host all all 127.0.0.1/32"
    with running(programs, directory, shell, f"{every} scram-sha-256") as ask:
        assert "it is a postgres, and asks for a password (SCRAM)" in ask().evidence
        assert ask().ok
        assert ask(user="nobody").ok
    log = (directory / "log").read_text()
    assert "FATAL" not in log.replace("FATAL:  the database system is starting up", "")
    assert "startup packet" not in log
    with running(programs, directory, shell, f"{every} trust") as ask:
        assert "lets in without a password" in ask().evidence
        role = ask(user="nobody")
        assert 'refuses: role "nobody" does not exist (28000)' in role.evidence
        database = ask(user="postgres", database="nothere")
        assert 'refuses: database "nothere" does not exist (3D000)' in database.evidence
    with running(programs, directory, shell, "host all all 192.0.2.0/24 trust") as ask:
        assert ask().ok
        assert "no pg_hba.conf entry" in ask(user="postgres").evidence
    (directory / "recovery.signal").touch()
    waiting = "-crestore_command=sleep 60"
    with running(programs, directory, shell, f"{every} trust", waiting) as ask:
        starting = ask()
        assert starting.outcome == "failed"
        assert "the database system is starting up (57P03)" in starting.evidence
