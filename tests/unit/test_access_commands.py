"""The scripts of access in a real shell: every value arrives as it is."""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pyinfra.api import FactProcessError, StringCommand

from stackmend.access import commands
from stackmend.access.facts import Operator
from stackmend.access.plan import DropKeys, InstallSudo, SetPasswordLogin, TrustKeys
from tests.shells import find
from tests.unit.access_world import new, public

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


@pytest.mark.parametrize("nasty", NASTY)
def test_values_arrive_as_they_are(
    nasty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = new(keys_file=nasty, spec=nasty, installer=nasty)
    for kind, verb in ((TrustKeys, "trust"), (DropKeys, "drop")):
        action = kind(subject="x", cause="y", keys=(nasty, "b"))
        command = commands.command(action, "ops", state, "m")
        assert words(command)[-5:] == ["ops", nasty, verb, nasty, "b"]
    install = InstallSudo(subject="x", cause="y")
    assert words(commands.command(install, "ops", state, "m"))[-1] == nasty
    harden = SetPasswordLogin(subject="x", cause="y", enabled=False)
    sshd = words(commands.command(harden, "ops", state, nasty))
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


class Home:
    """A user's home on this machine, and the script that edits ``authorized_keys`` there."""

    def __init__(self, root: Path, shell: list[str], user: tuple[str, int]) -> None:
        self.path, self.shell, self.user = root / "home" / user[0], shell, user
        self.room = root / "room"
        self.file = self.path / ".ssh" / "authorized_keys"
        self.path.mkdir(parents=True)
        # Any user reaches its home from the root.
        for above in (self.path, *self.path.parents):
            if str(above).startswith("/tmp/"):
                above.chmod(0o755)
        os.chown(self.path, user[1], -1)

    def edit(self, verb: str, *lines: str) -> subprocess.CompletedProcess[str]:
        name, uid = self.user
        command = commands._build_script("keys", name, "%h/.ssh/authorized_keys", verb, *lines)
        _, option, body, *rest = shlex.split(command.get_raw_value())
        body = body.replace("room=/var/lib/stackmend/access", f"room={self.room}")
        body = body.replace(
            'entry=$(grep "^$user:" /etc/passwd || getent passwd "$user")',
            f"entry={name}:x:{uid}:{uid}::{self.path}:/bin/sh",
        )
        argv = [*self.shell, option, body, *rest]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def home(each_shell: list[str], tmp_path: Path) -> Home:
    me = subprocess.check_output(["id", "-un"], text=True).strip()
    return Home(tmp_path, each_shell, (me, os.getuid()))


@pytest.fixture
def stranger(each_shell: list[str], tmp_path: Path) -> Home:
    """Of a user who is not root, where root can make one."""
    if os.getuid() != 0:
        pytest.skip("only root can write into another's home")
    return Home(tmp_path, each_shell, ("nobody", pwd.getpwnam("nobody").pw_uid))


def test_a_key_file_gains_and_loses_lines_and_nothing_else(home: Home) -> None:
    home.file.parent.mkdir()
    home.file.write_text(f"# kept \\ as it is\n{public('a')}\n{public('b')} no end")
    before = home.file.read_text()
    done = home.edit("trust", public("c"))
    assert (done.returncode, done.stderr) == (0, "")
    assert home.file.read_text() == f"{before}\n{public('c')}\n"
    (kept,) = (home.room / "kept").iterdir()
    assert kept.read_text() == before
    assert home.edit("drop", public("a"), public("c")).returncode == 0
    assert home.file.read_text() == f"# kept \\ as it is\n{public('b')} no end\n"
    assert home.file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.file.parent.iterdir()] == ["authorized_keys"]


def test_the_file_and_its_directory_become_the_users(stranger: Home) -> None:
    done = stranger.edit("trust", public("c"))
    assert (done.returncode, done.stderr) == (0, "")
    uid = stranger.user[1]
    for path, mode in ((stranger.file.parent, 0o700), (stranger.file, 0o600)):
        found = path.stat()
        assert (found.st_uid, found.st_mode & 0o7777) == (uid, mode)


def picture(file: Path) -> tuple[object, ...]:
    """All of a file that nobody may change."""
    found = file.lstat()
    kept = (found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns)
    return (*kept, file.read_text())


PLANTS: dict[str, Callable[[Home, Path], object]] = {
    "directory": lambda home, victim: home.file.parent.symlink_to(victim.parent),
    "file": lambda home, victim: (home.file.parent.mkdir(), home.file.symlink_to(victim)),
    "nowhere": lambda home, victim: (
        home.file.parent.mkdir(),
        home.file.symlink_to(victim.parent / "not-there"),
    ),
    "fifo": lambda home, victim: (home.file.parent.mkdir(), os.mkfifo(home.file)),
    "unreadable": lambda home, victim: (
        home.file.parent.mkdir(),
        home.file.hardlink_to(victim),
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_a_user_plants_leads_root_nowhere(stranger: Home, plant: str, tmp_path: Path) -> None:
    victim = tmp_path / "etc" / "victim"
    victim.parent.mkdir()
    victim.write_text("secret\n")
    victim.chmod(0o600)
    PLANTS[plant](stranger, victim)
    if stranger.file.parent.is_dir() and not stranger.file.parent.is_symlink():
        os.chown(stranger.file.parent, stranger.user[1], -1)
    before = picture(victim)
    done = stranger.edit("trust", public("c"))
    assert done.returncode in (73, 74), done.stderr
    assert picture(victim) == before
    assert [path.name for path in victim.parent.iterdir()] == ["victim"]


def test_a_name_that_a_user_foresees_leads_root_nowhere(stranger: Home, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("secret\n")
    stranger.file.parent.mkdir()
    (stranger.file.parent / ".stackmend-new").symlink_to(victim)
    os.chown(stranger.file.parent, stranger.user[1], -1)
    before = picture(victim)
    assert stranger.edit("trust", public("c")).returncode == 0
    assert picture(victim) == before
    assert stranger.file.read_text() == f"{public('c')}\n"


def test_what_a_user_swaps_meanwhile_leads_root_nowhere(stranger: Home, tmp_path: Path) -> None:
    """The file becomes a link to what only root reads, and back, faster than any check."""
    victim = tmp_path / "etc" / "victim"
    victim.parent.mkdir()
    victim.write_text("secret\n")
    victim.chmod(0o600)
    before = picture(victim)
    directory = stranger.file.parent
    directory.mkdir()
    os.chown(directory, stranger.user[1], -1)
    script = (
        f"cd {directory} || exit; while :; do ln -sf {victim} l; mv -f l authorized_keys; "
        "echo x >f; mv -f f authorized_keys; done"
    )
    argv = ["setpriv", "--reuid=nobody", "--clear-groups", "sh", "-c", script]
    with subprocess.Popen([find(argv[0]), *argv[1:]], start_new_session=True) as swapping:
        try:
            for _ in range(8):
                stranger.edit("trust", public("c"))
        finally:
            os.killpg(swapping.pid, signal.SIGKILL)
    assert picture(victim) == before
    seen = [path.read_text() for path in directory.iterdir() if not path.is_symlink()]
    assert not [text for text in seen if "secret" in text]


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


PLANTED = {
    "a link to what root alone reads": 'ln -s "$2" "$1"',
    "a link to a link": 'ln -s "$2" "$1.more" && ln -s "$1.more" "$1"',
    "a FIFO": 'mkfifo "$1"',
    "a link in its directory's place": 'rmdir "${1%/*}" && ln -s "${2%/*}" "${1%/*}"',
}


@pytest.mark.parametrize("plant", PLANTED)
def test_the_probe_shows_nothing_that_the_user_cannot_read(
    tmp_path: Path, each_shell: list[str], plant: str
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root reads what another cannot")
    ssh, private = tmp_path / "home/.ssh", tmp_path / "private"
    ssh.mkdir(parents=True)
    private.mkdir(mode=0o700)
    for above in (tmp_path, *tmp_path.parents):
        if str(above).startswith("/tmp/"):
            above.chmod(0o755)
    (private / "authorized_keys").write_text(f"{public('c')}\nroot:$6$secret\n")
    file = ssh / "authorized_keys"
    subprocess.run(["sh", "-c", PLANTED[plant], "sh", file, private / file.name], check=True)
    line, body = Operator().command("nobody").get_raw_value().split("|", 1)
    body = body.replace(
        'account=$(entry passwd "$user")', f"account=nobody:x:65534:65534::{ssh.parent}:/"
    )
    done = subprocess.run(
        [*each_shell, "-c", f"{line}|{body}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"|{file}" in done.stdout
    assert "secret" not in done.stdout
    assert public("c") not in done.stdout


def test_the_probe_shows_the_keys_that_the_user_can_read(tmp_path: Path) -> None:
    ssh = tmp_path / "home/.ssh"
    ssh.mkdir(parents=True)
    (ssh / "authorized_keys").write_text(f"{public('c')}\n")
    me = pwd.getpwuid(os.getuid())
    command = Operator().command(me.pw_name).get_raw_value()
    entry = f"account={me.pw_name}:x:{me.pw_uid}:{me.pw_gid}::{ssh.parent}:/"
    command = command.replace('account=$(entry passwd "$user")', entry)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert f"|{public('c')}" in done.stdout


@pytest.mark.parametrize("cut", [0, 1, 5, 20, -2])
def test_a_probe_that_was_cut_off_is_not_believed(cut: int) -> None:
    fact = Operator()
    lines = said(fact, "ops").split("\n")[:cut]
    with pytest.raises(FactProcessError):
        fact.process(lines)
