"""The scripts of access in a real shell: every value arrives as it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from pyinfra.api import FactProcessError, StringCommand

from ops.access import commands
from ops.access.facts import Operator
from ops.access.plan import Action, Verb
from tests.unit.access_world import new, public, wanted

NASTY = (
    "it's",
    'a "b"',
    "$(touch pwned)",
    "`touch pwned`",
    "two\nlines",
    "\\n\\",
    "-n",
    "--",
    "*",
    "%s%n",
    "äöü 日本語",
    "; touch pwned",
    "'\"'\"'",
)

ECHO = 'for word; do printf "%s\\0" "$word"; done; exit\n'


def action(verb: Verb, *keys: str) -> Action:
    return Action(verb=verb, subject="x", cause="y", keys=keys)


@pytest.mark.parametrize("nasty", NASTY)
def test_values_arrive_as_they_are(
    nasty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = new(keys_file=nasty, spec=nasty, installer=nasty)
    for verb in ("trust", "drop"):
        command = commands.step(action(verb, nasty, "b"), wanted(), state, "m")
        assert words(command)[-5:] == ["ops", nasty, verb, nasty, "b"]
    assert words(commands.step(action("install"), wanted(), state, "m"))[-1] == nasty
    sshd = words(commands.step(action("set"), wanted(), state, nasty))
    assert sshd[-5:-2] == ["no", nasty, nasty]
    assert words(commands.confirm(nasty))[-1] == nasty
    assert words(commands.revert(nasty))[-1] == nasty
    # The mark of the reading comes through a pipe.
    probe = Operator().command(nasty).get_raw_value().partition(" | ")[2]
    assert words(StringCommand(probe))[-1] == nasty
    assert not (tmp_path / "pwned").exists()


def words(command: StringCommand) -> list[str]:
    """The words that a real shell makes of a command."""
    line = f"set -- {command.get_raw_value()}\n{ECHO}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_a_key_file_gains_and_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    """The script that edits authorized_keys, on files of this machine."""
    mine = tmp_path / ".ssh" / "authorized_keys"
    body = (Path(commands.__file__).parent / "keys.sh").read_text()
    mine.parent.mkdir()
    mine.write_text(f"# kept \\ as it is\n{public('a')}\n{public('b')} no end")
    common = f'room={tmp_path}/room\nfail() {{ echo "$2" >&2; exit "$1"; }}\n' + (
        'has() { false; }\nkeep() { mkdir -p "$room"; cp -p "$1" "$room/$2"; }\n'
    )
    body = body.replace(
        'entry=$(grep "^$user:" /etc/passwd || getent passwd "$user")',
        (f"entry=$(id -un):x:$(id -u):$(id -g)::{tmp_path}:/bin/sh"),
    )
    me = subprocess.check_output(["id", "-un"], text=True).strip()

    def edit(verb: str, *lines: str) -> None:
        argv = ["sh", "-c", common + body, "keys", me, "%h/.ssh/authorized_keys", verb, *lines]
        subprocess.run(argv, check=True)

    before = mine.read_text()
    edit("trust", public("c"))
    assert mine.read_text() == f"{before}\n{public('c')}\n"
    assert (tmp_path / "room" / f"authorized_keys.{me}").read_text() == before
    edit("drop", public("a"), public("c"))
    assert mine.read_text() == f"# kept \\ as it is\n{public('b')} no end\n"
    assert mine.stat().st_mode & 0o777 == 0o600


def said(fact: Operator, user: str) -> str:
    command = fact.command(user).get_raw_value()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return done.stdout.rstrip()


def test_the_probe_runs_to_its_end_on_this_machine() -> None:
    fact = Operator()
    state = fact.process(said(fact, "no-such-user").split("\n"))
    assert state.account is None
    assert state.keys_file == "%h/.ssh/authorized_keys"
    me = subprocess.check_output(["id", "-un"], text=True).strip()
    found = fact.process(said(fact, me).split("\n")).account
    assert found is not None
    assert (found.name, found.uid) == (me, os.getuid())


@pytest.mark.parametrize("cut", [0, 1, 5, 20, -2])
def test_a_probe_that_was_cut_off_is_not_believed(cut: int) -> None:
    fact = Operator()
    lines = said(fact, "ops").split("\n")[:cut]
    with pytest.raises(FactProcessError):
        fact.process(lines)
