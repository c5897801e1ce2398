"""After ``stackmend init``: answers that are wrong in a way that the host alone can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko
import pytest

from tests import ssh_server

COMMAND = str(Path(sys.executable).with_name("stackmend"))
COMPOSE = "services: {web: {image: lab/box}}\n"

#: The wrong answer, and the one reason for it.
WRONG: dict[str, tuple[Sequence[str], str]] = {
    "key": (
        ("--host", "ai1={right}", "--user", "ops", "--key", "keys/other"),
        "Authentication error (username=ops, key={home}/keys/other) (Authentication failed.) "
        "[ops@127.0.0.1, port {port}]",
    ),
    "no-key": (
        ("--host", "ai1={right}", "--user", "ops", "--key", "keys/none"),
        "Invalid private key file: {home}/keys/none [ops@127.0.0.1, port {port}]",
    ),
    "locked-key": (
        ("--host", "ai1={right}", "--user", "ops", "--key", "keys/locked"),
        "The private key {home}/keys/locked has a passphrase, and there is no terminal to ask for "
        "it: set ssh_key_password, or leave ssh_key out and add the key to ssh-agent "
        "[ops@127.0.0.1, port {port}]",
    ),
    "user": (
        ("--host", "ai1={right}", "--user", "oops", "--key", "keys/right"),
        "Authentication error (username=oops, key={home}/keys/right) (Authentication failed.) "
        "[oops@127.0.0.1, port {port}]",
    ),
    "port": (
        ("--host", "ai1=127.0.0.1:1", "--user", "ops", "--key", "keys/right"),
        "Could not connect ([Errno None] Unable to connect to port 1 on 127.0.0.1)",
    ),
    "name": (
        ("--host", "ai1=nowhere.invalid:2222", "--user", "ops", "--key", "keys/right"),
        "Could not resolve hostname ([Errno -2] Name or service not known) "
        "[ops@nowhere.invalid, port 2222]",
    ),
}


class User:
    """A directory with a project and keys, and a server that one of them is right for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / ".ssh").mkdir()
        (home / "shop").mkdir()
        (home / "shop/compose.yaml").write_text(COMPOSE)
        (home / "keys").mkdir()
        self.key = paramiko.RSAKey.generate(2048)
        self.key.write_private_key_file(str(home / "keys/right"))
        other = paramiko.RSAKey.generate(2048)
        other.write_private_key_file(str(home / "keys/other"))
        other.write_private_key_file(str(home / "keys/locked"), password="a passphrase")
        (home / "keys/none").write_text("no key\n")
        self.port = 0

    def fill(self, text: str) -> str:
        right = f"127.0.0.1:{self.port}"
        return text.format(home=self.home, port=self.port, right=right)

    def start(self, *words: str) -> subprocess.Popen[str]:
        reports = str(self.home / f"reports-{words[0]}")
        own = {"HOME": str(self.home), "NO_COLOR": "1", "STACKMEND_REPORTS": reports}
        return subprocess.Popen(
            [COMMAND, *words],
            cwd=self.home,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # No terminal of whoever runs the tests is asked for a passphrase.
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    user = User(tmp_path_factory.mktemp("home"))
    with ssh_server.serving("ops", user.key) as server:
        user.port = server.port
        (user.home / ".ssh/known_hosts").write_text(server.known)
        yield user


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_that_the_host_refuses_has_one_reason(user: User, name: str) -> None:
    options, reason = WRONG[name]
    made = user.start("init", name, "--source", "shop", *map(user.fill, options))
    assert made.communicate(timeout=60)[0] is not None
    assert made.returncode == 0
    for command, running in [(word, user.start(word, name)) for word in ("doctor", "site")]:
        out, err = running.communicate(timeout=120)
        assert running.returncode == 3, out + err
        assert "Traceback" not in out + err, out + err
        first, second, last = out.splitlines()
        assert (first.strip(), second.strip()) == ("ai1: unreachable", user.fill(reason))
        assert "1 host: 1 unreachable" in last
        # While it runs: that it is unreachable, and none of the reasons once more.
        line = err.rpartition(": ")[2] if name == "locked-key" else err
        assert line.strip().partition(" (")[0] in ("ai1: unreachable", "unreachable"), err
        latest = user.home / f"reports-{command}/latest.json"
        host = json.loads(latest.read_bytes())["hosts"]["ai1"]
        assert [each["message"] for each in host["errors"]] == [user.fill(reason)]


@pytest.mark.slow
def test_a_key_that_is_none_fails_its_own_host_alone(user: User) -> None:
    """And the right answers are let in: what refuses the others is what is wrong alone."""
    reach = {"ssh_hostname": "127.0.0.1", "ssh_port": user.port, "ssh_user": "ops"}
    source = {
        "stack": {"project": "shop", "source": str(user.home / "shop"), "directory": "/opt/x"}
    }
    hosts = [
        (name, {**reach, **source, "ssh_key": str(user.home / "keys" / key)})
        for name, key in (("bad", "none"), ("good", "right"))
    ]
    (user.home / "two.py").write_text(f"hosts = {hosts!r}\n")
    doctor = user.start("doctor", "two.py", "--json")
    out, err = doctor.communicate(timeout=120)
    assert doctor.returncode == 1, err
    outcomes = {name: host["outcome"] for name, host in json.loads(out)["hosts"].items()}
    assert outcomes == {"bad": "unreachable", "good": "refused"}, err
