"""The resolver's scripts in real shells: values arrive, and files come back, as they were."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from stackmend.resolver import commands
from stackmend.resolver.facts import ServerAnswers
from stackmend.resolver.plan import File, SetServers, Setting
from tests.shells import NAMES, find
from tests.unit.test_access_commands import NASTY, words
from tests.unit.test_root_writes import ran

SHELLS = {"dash": [find("dash")], "bash": [find("bash")], "busybox": [find("busybox"), "sh"]}


def action(**changes: Any) -> SetServers:
    fields: dict[str, Any] = {
        "subject": "DNS servers",
        "cause": "x",
        "owner": "plain file",
        "servers": ("192.0.2.53",),
    }
    return SetServers.model_validate({**fields, **changes})


@pytest.mark.parametrize("nasty", NASTY)
def test_values_arrive_as_they_are(
    nasty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setting = Setting(uuid=nasty, device="eth0", path=nasty, values=(("ipv4.dns", nasty),))
    made = action(files=(File(path=nasty, text=nasty),), settings=(setting,), reload=("resolved",))
    arrived = words(commands.set_servers(made, nasty, 9))
    assert arrived[-9:] == [
        *("keep", nasty, ""),
        *("put", nasty, nasty),
        *("connection", nasty, f"ipv4.dns={nasty}"),
    ]
    assert arrived[-13:-11] == [nasty, "9"]
    assert words(commands.confirm(nasty, [nasty, "b"]))[-3:] == [nasty, nasty, "b"]
    assert words(commands.revert(nasty))[-1] == nasty
    asked = ServerAnswers().command((nasty,), ("a.example",)).get_raw_value()
    assert nasty in words_of(asked.partition(" | ")[2])
    assert not (tmp_path / "pwned").exists()


def words_of(line: str) -> list[str]:
    done = subprocess.run(
        ["sh", "-c", f'set -- {line}\nfor word; do printf "%s\\0" "$word"; done'],
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    ("cache", "command"),
    [
        ("systemd-resolved", "resolvectl flush-caches"),
        ("nscd", "nscd -i hosts"),
        ("windows", "ipconfig.exe /flushdns"),
        ("macos", "dscacheutil -flushcache\nkillall -HUP mDNSResponder"),
    ],
)
# busybox has a killall of its own, and no Mac has busybox.
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_cache_is_flushed_by_its_own_command(
    shell: str, cache: Any, command: str, tmp_path: Path
) -> None:
    for name in ("resolvectl", "nscd", "ipconfig.exe", "dscacheutil", "killall"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/said\n')
        program.chmod(0o755)
    done = ran(commands.flush(cache), SHELLS[shell], path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text() == f"{command}\n"


class Place:
    """A host's room, file and link below a directory of this machine."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root, self.shell = root, shell
        self.etc, self.room = root / "etc", root / "room"
        self.bin = root / "bin"
        for path in (self.etc, self.bin, root / "units"):
            path.mkdir(mode=0o755)
        for name in ("systemctl", "chattr"):
            self.program(name, "exit 0")
        # Nothing of this machine's services is to be asked, and no timer to be left.
        self.program("systemd-run", "exit 0")
        self.program("setsid", "exit 0")
        self.moved = (
            ("/etc/systemd/system", root / "units"),
            ("/etc/resolv.conf", self.etc / "resolv.conf"),
            ("/var/lib/stackmend/resolver", self.room),
            ("/run/stackmend-resolver", root / "busy"),
        )

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, command: Any) -> subprocess.CompletedProcess[str]:
        return ran(command, self.shell, *self.moved, path=self.bin)

    def seen(self) -> dict[str, tuple[Any, ...]]:
        return {
            path.name: (
                path.is_symlink() and path.readlink(),
                path.read_text(),
                path.stat().st_mode,
            )
            for path in sorted(self.etc.iterdir())
        }


@pytest.fixture(params=NAMES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    tmp_path.chmod(0o755)
    return Place(tmp_path, SHELLS[request.param])


def files(place: Place, how: Any) -> tuple[File, ...]:
    return (
        File(path="/etc/resolv.conf", text="nameserver 192.0.2.53\n", how=how),
        File(path=str(place.etc / "new.conf"), text="ours\n"),
        File(path=str(place.etc / "old.conf"), text="ours\n"),
    )


@pytest.mark.parametrize(
    ("before", "how"),
    [
        ("file", "put"),
        ("file", "in place"),
        ("link", "put"),
        ("link", "replace"),
        ("nothing", "put"),
    ],
)
def test_what_was_there_comes_back(place: Place, before: str, how: Any) -> None:
    """The old state, whole: links, modes, and what was not there."""
    resolv_conf = place.etc / "resolv.conf"
    if before == "link":
        (place.etc / "site.conf").write_text("nameserver 192.0.2.60\n")
        (place.etc / "site.conf").chmod(0o640)
        resolv_conf.symlink_to("site.conf")
    elif before == "file":
        resolv_conf.write_text("# mine\nnameserver 192.0.2.60\n")
        resolv_conf.chmod(0o604)
    (place.etc / "old.conf").write_text("theirs\n")
    (place.etc / "old.conf").chmod(0o600)
    seen = place.seen()
    done = place.run(commands.set_servers(action(files=files(place, how)), "m1", 60))
    assert done.returncode == 0, done.stderr
    assert resolv_conf.read_text() == "nameserver 192.0.2.53\n"
    assert resolv_conf.is_symlink() is (before == "link" and how != "replace")
    assert (place.etc / "old.conf").read_text() == "ours\n"
    assert (place.room / "armed").read_text() == "m1\n"
    # Another run takes an unconfirmed change over, with what was before it.
    again = action(files=files(place, how)[:1])
    assert place.run(commands.set_servers(again, "m2", 60)).returncode == 0
    assert place.run(commands.revert("m1")).returncode == 0
    assert (place.etc / "new.conf").exists(), "the revert of the first is none of the second's"
    done = place.run(commands.revert("m2"))
    assert done.returncode == 0, done.stderr
    assert place.seen() == seen
    assert not (place.room / "armed").exists()
    assert not list((place.root / "units").glob("*.service"))
    assert not (place.root / "busy").exists()


def test_a_write_that_fails_is_reverted_at_once(place: Place) -> None:
    (place.etc / "resolv.conf").write_text("nameserver 192.0.2.60\n")
    theirs = place.root / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    made = (*files(place, "put")[:2], File(path=str(theirs / "x.conf"), text="ours\n"))
    done = place.run(commands.set_servers(action(files=made), "m", 60))
    assert done.returncode == 74
    assert "others than root may write to" in done.stderr
    assert not (place.etc / "new.conf").exists()
    assert (place.etc / "resolv.conf").read_text() == "nameserver 192.0.2.60\n"
    assert not (place.room / "armed").exists()


# busybox runs its own df and cp.
@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("full", ["room", "units", "timer"])
def test_what_cannot_be_armed_changes_nothing_and_leaves_nothing(
    shell: str, full: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    place = Place(tmp_path, SHELLS[shell])
    (place.etc / "resolv.conf").write_text("nameserver 192.0.2.60\n")
    if full == "timer":
        place.program("systemd-run", "echo 'Unit x.timer not found' >&2; exit 1")
        place.moved += (("[ -d /run/systemd/system ]", place.root / "true"),)
        (place.root / "true").symlink_to("/bin/true")
    elif full == "units":
        place.moved += (("[ -d /run/systemd/system ]", place.root / "true"),)
        (place.root / "true").symlink_to("/bin/true")
        (place.root / "units").rmdir()
        (place.root / "units").write_text("")
    else:
        place.program("cp", "echo 'cp: No space left on device' >&2; exit 1")
    seen = place.seen()
    place.program("df", "printf 'Filesystem\\nx 9 9 0 100%% /\\n'")
    done = place.run(commands.set_servers(action(files=files(place, "put")[:1]), "m", 60))
    assert done.returncode in (71, 74)
    reason = " ".join(done.stderr.splitlines()[-3:])
    assert "nothing is changed; " in reason
    assert "is full: see df -h " in reason
    assert place.seen() == seen
    left = {path.name for path in place.room.iterdir()} - {"kept"}
    assert not left, done.stderr
    assert not (place.root / "busy").exists()
    assert not (place.root / "units").is_dir() or not list(
        (place.root / "units").rglob("*.service")
    )


@pytest.mark.parametrize("locks", ["i", "a", "ia"])
def test_a_locked_file_is_locked_again(place: Place, locks: str) -> None:
    """Also where a link leads to it, and when it is reverted."""
    place.program("lsattr", f'echo "---{locks}---e--- $3"')
    place.program("chattr", f'echo "$1 $3" >>{place.root}/calls')
    (place.etc / "site.conf").write_text("nameserver 192.0.2.60\n")
    (place.etc / "resolv.conf").symlink_to("site.conf")
    made = commands.set_servers(action(files=files(place, "put")[:1]), "m", 60)
    done = place.run(made)
    assert done.returncode == 0, done.stderr
    site = place.etc / "site.conf"
    assert calls(place) == [f"-{locks} {site}", f"+{locks} {site}"]
    assert place.run(commands.revert("m")).returncode == 0
    assert calls(place) == [f"-{locks} {site}", f"+{locks} {site}"]


def test_names_that_do_not_resolve_confirm_nothing(place: Place) -> None:
    (place.etc / "resolv.conf").write_text("nameserver 192.0.2.60\n")
    done = place.run(commands.set_servers(action(files=files(place, "put")[:1]), "m", 60))
    assert done.returncode == 0, done.stderr
    place.program("getent", '[ "$2" = good.example ]')
    place.program("sleep", "exit 0")
    done = place.run(commands.confirm("m", ["good.example", "bad.example"]))
    assert (done.returncode, "does not resolve bad.example" in done.stderr) == (68, True)
    assert (place.room / "armed").exists()
    assert place.run(commands.confirm("m", ["good.example"])).returncode == 0
    assert not (place.room / "armed").exists()
    done = place.run(commands.confirm("m", ["good.example"]))
    assert (done.returncode, "has reverted the change already" in done.stderr) == (75, True)
    assert 'raise stack["resolver"]["revert_after"]' in done.stderr


def calls(place: Place) -> list[str]:
    """What services were told since the last time."""
    log = place.root / "calls"
    found = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def test_a_revert_has_every_service_take_it_up(place: Place) -> None:
    """Also those of a run before that was killed, and whose change another took over."""
    place.program("systemctl", f'echo "$*" >>{place.root}/calls')
    (place.etc / "resolv.conf").write_text("nameserver 192.0.2.60\n")
    first = action(files=files(place, "put")[:1], reload=("resolved",))
    assert place.run(commands.set_servers(first, "m1", 60)).returncode == 0
    calls(place)
    assert place.run(commands.set_servers(action(), "m2", 60)).returncode == 0
    assert "reload-or-restart systemd-resolved.service" not in calls(place)
    assert place.run(commands.revert("m2")).returncode == 0
    assert "reload-or-restart systemd-resolved.service" in calls(place)
    assert (place.etc / "resolv.conf").read_text() == "nameserver 192.0.2.60\n"


@pytest.mark.slow
def test_a_revert_that_no_service_takes_up_is_over(place: Place) -> None:
    """The files are back: what somebody writes later is not reverted at the next start."""
    place.program("sleep", "exit 0")
    (place.etc / "resolv.conf").write_text("nameserver 192.0.2.60\n")
    made = action(files=files(place, "put")[:1], reload=("resolved",))
    assert place.run(commands.set_servers(made, "m", 60)).returncode == 0
    place.program("systemctl", "exit 5")
    assert place.run(commands.revert("m")).returncode == 5
    assert (place.etc / "resolv.conf").read_text() == "nameserver 192.0.2.60\n"
    assert not (place.room / "armed").exists()
    (place.etc / "resolv.conf").write_text("nameserver 192.0.2.61\n")
    assert place.run(commands.revert("m")).returncode == 0
    assert (place.etc / "resolv.conf").read_text() == "nameserver 192.0.2.61\n"


def test_a_file_that_others_may_lead_astray_is_not_written(place: Place) -> None:
    """Its link leads into a directory of somebody else's, who waits with a link beside it."""
    theirs = place.root / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    (theirs / "site.conf").write_text("nameserver 192.0.2.60\n")
    precious = place.root / "precious"
    precious.write_text("root's\n")
    (theirs / "site.conf.stackmend").symlink_to(precious)
    (place.etc / "resolv.conf").symlink_to(theirs / "site.conf")
    done = place.run(commands.set_servers(action(files=files(place, "put")[:1]), "m", 60))
    assert (done.returncode, "nothing is changed" in done.stderr) == (74, True)
    assert (theirs / "site.conf").read_text() == "nameserver 192.0.2.60\n"
    assert precious.read_text() == "root's\n"
    assert not (place.room / "armed").exists()


@pytest.mark.parametrize("target", ["settings.conf", "real/resolv.conf"])
def test_what_a_link_leads_to_comes_back(place: Place, target: str) -> None:
    """Of an owner's settings as well as of resolv.conf, whatever its name."""
    real = place.etc / "real"
    real.mkdir(mode=0o755)
    name = "resolv.conf" if target.startswith("real/") else "dhcpcd.conf"
    (place.etc / target).write_text("theirs\n")
    (place.etc / name).symlink_to(target)
    path = "/etc/resolv.conf" if name == "resolv.conf" else str(place.etc / name)
    made = action(files=(File(path=path, text="ours\n"),))
    done = place.run(commands.set_servers(made, "m", 60))
    assert done.returncode == 0, done.stderr
    assert (place.etc / target).read_text() == "ours\n"
    assert (place.etc / name).is_symlink()
    assert place.run(commands.revert("m")).returncode == 0
    assert (place.etc / target).read_text() == "theirs\n"
    assert (place.etc / name).is_symlink()


def test_a_link_to_a_file_that_is_not_there_yet_is_written_through(place: Place) -> None:
    (place.etc / "resolv.conf").symlink_to("site.conf")
    done = place.run(commands.set_servers(action(files=files(place, "put")[:1]), "m", 60))
    assert done.returncode == 0, done.stderr
    assert (place.etc / "site.conf").read_text() == "nameserver 192.0.2.53\n"
    assert place.run(commands.revert("m")).returncode == 0
    assert (place.etc / "resolv.conf").readlink() == Path("site.conf")
    assert not (place.etc / "site.conf").exists()


def test_nothing_is_confirmed_while_it_is_reverted(place: Place) -> None:
    (place.etc / "resolv.conf").write_text("nameserver 192.0.2.60\n")
    assert (
        place.run(commands.set_servers(action(files=files(place, "put")[:1]), "m", 60)).returncode
        == 0
    )
    # A revert holds its turn, and ends while the confirmation waits for its own.
    away = f"sleep 1; rm -rf {place.root}/busy {place.room}/armed"
    place.program("getent", f"mkdir {place.root}/busy; ({away}) >/dev/null 2>&1 &")
    done = place.run(commands.confirm("m", ["good.example"]))
    assert (done.returncode, "has reverted the change already" in done.stderr) == (75, True)
