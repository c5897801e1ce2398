"""What root writes of a host's settings and of its memory, in real shells: nothing leads astray."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError
from pyinfra.api import StringCommand

from stackmend.access import commands as access
from stackmend.basics import commands as basics
from stackmend.compose import commands as compose
from stackmend.compose.spec import ROOMS, ComposeSpec
from stackmend.connection import read_script
from stackmend.engine import commands as engine
from stackmend.engine.accelerators import commands as accelerators
from stackmend.ports import commands as ports
from stackmend.reporting import journal
from stackmend.resolver import commands as resolver

SHARED = read_script("stackmend.connection", "walk") + read_script("stackmend.connection", "put")

Done = subprocess.CompletedProcess[str]


def sh(
    shell: list[str], body: str, *arguments: str, stdin: str = "", path: Path | None = None
) -> Done:
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    return subprocess.run(
        [*shell, "-c", body, "sh", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )


def ran(
    command: StringCommand,
    shell: list[str],
    *moved: tuple[str, Path],
    stdin: str = "",
    path: Path | None = None,
) -> Done:
    """Run a script with some of the host's places elsewhere."""
    _, option, body, _, *arguments = shlex.split(command.get_raw_value())
    assert option == "-c"
    for place, there in moved:
        body = body.replace(place, str(there))
        arguments = [word.replace(place, str(there)) for word in arguments]
    return sh(shell, body, *arguments, stdin=stdin, path=path)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    return directory


def put(shell: list[str], file: Path, stdin: str, *source: str) -> Done:
    return sh(shell, f'{SHARED}put "$@"', str(file), *source, stdin=stdin)


def state(file: Path) -> tuple[int, str]:
    return file.stat().st_mode & 0o7777, file.read_text()


def test_runs_that_begin_at_once_make_one_directory(each_shell: list[str], etc: Path) -> None:
    """Each part of it may appear while another run looks for it."""
    body = f'{SHARED}until [ -e "$2" ]; do :; done; private "$1"; code=$?; exit $code'
    for number in range(12):
        go, room = etc / f"go{number}", etc / f"s{number}/a/b/c"
        runs = [
            subprocess.Popen(
                [*each_shell, "-c", body, "sh", str(room), str(go)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        go.touch()
        errors = [run.communicate(timeout=60)[1] for run in runs]
        assert [run.returncode for run in runs] == [0] * 6, errors
        assert errors == [""] * 6
        assert room.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_file_keeps_its_permissions(each_shell: list[str], etc: Path, mode: int) -> None:
    file = etc / "a setting.conf"
    file.write_text("password = secret\n")
    file.chmod(mode)
    done = put(each_shell, file, "new\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert state(file) == (mode, "new\n")
    assert list(etc.iterdir()) == [file]


def test_a_new_file_and_one_put_back(each_shell: list[str], etc: Path) -> None:
    file, before = etc / "deeper/down/x.conf", etc / "before"
    assert put(each_shell, file, "new\n").returncode == 0
    assert state(file) == (0o644, "new\n")
    assert file.parent.stat().st_mode & 0o777 == 0o755
    before.write_text("before\n")
    before.chmod(0o600)
    assert put(each_shell, file, "", str(before)).returncode == 0
    assert state(file) == (0o600, "before\n")
    assert [one.name for one in file.parent.iterdir()] == ["x.conf"]


def test_a_link_that_root_made_is_followed_and_stays(each_shell: list[str], etc: Path) -> None:
    real = etc / "kept/elsewhere.conf"
    real.parent.mkdir()
    real.write_text("before\n")
    for target in (str(real), "kept/elsewhere.conf", "not/there/yet.conf"):
        link = etc / "link.conf"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert put(each_shell, link, f"{target}\n").returncode == 0
        assert link.is_symlink()
        assert link.read_text() == f"{target}\n"


OBSTACLES = {
    "a directory that others may write to": 'chmod 0777 "$1"',
    "another's directory": 'chown nobody "$1"',
    "a directory that a group may write to": 'chmod 0775 "$1"',
    "one above it that others may write to": 'chmod 0777 "$1/.."',
    "another's link": 'chmod 0777 "$1"; ln -s "$2" "$1/x.conf"',
    "a directory of that name": 'mkdir "$1/x.conf"',
    "a FIFO": 'mkfifo "$1/x.conf"',
    "a link to a FIFO": 'mkfifo "$1/fifo"; ln -s fifo "$1/x.conf"',
    "a link to itself": 'ln -s x.conf "$1/x.conf"',
    "a file in its directory's place": 'rmdir "$1"; : >"$1"',
}


@pytest.mark.parametrize("plant", OBSTACLES)
def test_what_is_in_the_way_is_named_and_nothing_is_written(
    each_shell: list[str], tmp_path: Path, plant: str
) -> None:
    etc, victim = tmp_path / "above/etc", tmp_path / "victim"
    etc.mkdir(parents=True)
    victim.write_text("precious\n")
    victim.chmod(0o600)
    subprocess.run(["sh", "-c", OBSTACLES[plant], "sh", etc, victim], check=True)
    there = sorted(etc.parent.rglob("*"))
    done = put(each_shell, etc / "x.conf", "evil\n")
    assert done.returncode != 0
    assert str(etc.parent) in done.stderr
    assert any(word in done.stderr for word in ("chown", "replace", "move"))
    assert sorted(etc.parent.rglob("*")) == there
    assert state(victim) == (0o600, "precious\n")


@pytest.mark.parametrize("name", [".x.conf.stackmend-new", "x.conf.stackmend-new", "x.conf.new"])
def test_no_name_can_be_foreseen(
    each_shell: list[str], etc: Path, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (etc / name).symlink_to(victim)
    assert put(each_shell, etc / "x.conf", "new\n").returncode == 0
    assert state(victim)[1] == "precious\n"
    assert (etc / name).is_symlink()


def memory(place: Path, how: str) -> None:
    """A memory of ours that somebody else has his hand in."""
    place.mkdir(parents=True)
    if how == "open":
        place.chmod(0o777)
    elif how == "another's":
        os.chown(place, 65534, -1)
    else:
        elsewhere = place.parent / "elsewhere"
        place.rename(elsewhere)
        elsewhere.chmod(0o777)
        place.symlink_to(elsewhere)


SPEC = ComposeSpec(project="ai", source="/", directory="/opt/ai")


@pytest.mark.parametrize("name", ["access", "engine", "models", "ports", "resolver"])
def test_no_project_shares_a_rooms_memory(name: str) -> None:
    with pytest.raises(ValidationError, match=f"/var/lib/stackmend/{name}; choose") as refused:
        ComposeSpec(project=name, source="/", directory="/opt/ai")
    assert refused.value.errors()[0]["loc"] == ("project",)
    assert ComposeSpec(project=f"{name}-1", source="/", directory="/opt/ai").project == f"{name}-1"


def test_every_room_that_remembers_has_a_name_that_no_project_has() -> None:
    kept = set()
    for script in Path(journal.__file__).parents[1].rglob("*"):
        if script.suffix in (".py", ".sh"):
            kept |= set(
                re.findall(
                    r"(?:/var/lib/stackmend|\{(?:paths\.)?STATE_ROOT\})/([a-z0-9_-]+)(?![a-z0-9._-])",
                    script.read_text(),
                )
            )
    assert kept - {"ai"} == ROOMS


MEMORY = Path("/var/lib/stackmend")
COMMANDS: dict[str, StringCommand] = {
    "the engine's place": engine.place("/etc/apt/sources.list.d/stackmend-x", "s"),
    "the engine's switch": engine.switch("/etc/docker/daemon.json", [], "s", "restart"),
    "the engine's start": engine.start("/etc/docker/daemon.json"),
    "the accelerators' description": accelerators.build_description("/etc/cdi/nvidia.yaml", "s"),
    "the accelerators' proof": accelerators.build_proof("x", [], []),
    "the access's confirmation": access.confirm("m"),
    "the access's revert": access.revert("m"),
    "the resolver's confirmation": resolver.confirm("m", ["a.example"]),
    "the resolver's revert": resolver.revert("m"),
    "the ports' record": ports._build_script("reserve", ports.ROOT, "r", "80"),
    "the services that are to be recreated": compose.mark_stale(SPEC, ["web"]),
    "the services that are recreated": compose.clear_stale(SPEC, ["web"]),
    "an attempt": compose.record_mend(SPEC, "restart", "web"),
    "the journal": journal.append("{}"),
}


@pytest.mark.parametrize("how", ["open", "another's", "linked"])
@pytest.mark.parametrize("what", COMMANDS)
def test_memory_that_others_may_write_to_is_refused(tmp_path: Path, what: str, how: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    place = tmp_path / "stackmend"
    memory(place, how)
    # What would change this machine does nothing, whatever the script makes of it.
    names = ("docker", "dockerd", "service", "systemctl", "rc-service", "rc-update", "nvidia-ctk")
    path = tools(tmp_path, **dict.fromkeys(names, ":"))
    before = sorted(tmp_path.rglob("*"))
    moved = ((str(MEMORY), place), ("/etc", tmp_path / "etc"))
    done = ran(COMMANDS[what], ["sh"], *moved, path=path)
    assert done.returncode != 0
    assert "others than root may write to" in done.stderr
    assert "chown it to root" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_record_that_others_may_write_to_starts_nothing(
    tmp_path: Path, each_shell: list[str]
) -> None:
    record = tmp_path / "ports/20260101T000000Z-1"
    record.mkdir(parents=True)
    for name, content in {"kind": "program", "start": "touch\0ran\0", "name": "x"}.items():
        (record / name).write_text(content)
    (tmp_path / "ports").chmod(0o777)
    for look in (True, False):
        command = ports.restore("latest", observe=look, root=str(tmp_path / "ports"))
        done = ran(command, each_shell)
        assert done.returncode == 69
        assert "others than root may write to" in done.stderr
    (tmp_path / "ports").chmod(0o700)
    assert (
        ran(
            ports.restore("latest", observe=True, root=str(tmp_path / "ports")), each_shell
        ).returncode
        == 3
    )


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/x", "a/b", "web/"])
@pytest.mark.parametrize("command", [compose.mark_stale, compose.clear_stale])
def test_no_name_of_a_service_leads_out_of_the_list(
    tmp_path: Path, name: str, command: object
) -> None:
    assert callable(command)
    (tmp_path / "ai").mkdir()
    (tmp_path / "ai/x").write_text("kept")
    done = ran(command(SPEC, ["web", name]), ["sh"], (str(MEMORY), tmp_path))
    assert done.returncode != 0
    assert "is no name of a service" in done.stderr
    assert [one.name for one in (tmp_path / "ai").iterdir()] == ["x"]


def test_services_come_on_the_list_and_off_it(tmp_path: Path, each_shell: list[str]) -> None:
    def after(command: StringCommand) -> list[str]:
        assert ran(command, each_shell, (str(MEMORY), tmp_path)).returncode == 0
        return sorted(one.name for one in (tmp_path / "ai").glob("stale/*"))

    assert after(compose.clear_stale(SPEC, ["web"])) == []
    assert after(compose.mark_stale(SPEC, ["web", "-n", "a.b"])) == ["-n", "a.b", "web"]
    assert after(compose.clear_stale(SPEC, ["web", "gone", "-n"])) == ["a.b"]
    assert after(compose.clear_stale(SPEC)) == []
    assert not (tmp_path / "ai/stale").exists()


def tools(tmp_path: Path, **scripts: str) -> Path:
    """A PATH on which these programs are what the test says."""
    directory = tmp_path / "tools"
    directory.mkdir()
    for name, script in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_sshds_configuration_is_shown_to_nobody_new(tmp_path: Path, mode: int) -> None:
    ssh, room = tmp_path / "ssh", tmp_path / "room"
    ssh.mkdir()
    main = ssh / "sshd_config"
    main.write_text("Port 22\n")
    main.chmod(mode)
    # An sshd that takes all it is given, and reads no directory until it is told to.
    path = tools(
        tmp_path,
        sshd=f'[ "$1" != -T ] || ! grep -q Include {main} || echo passwordauthentication no',
        **{"systemd-run": ":", "systemctl": ":", "setsid": ":"},
    )
    command = access._build_script("sshd", "no", "user=x", "m", "60", "exit 0")
    moved = (("/var/lib/stackmend/access", room), ("/etc/ssh", ssh))
    ran(command, ["sh"], *moved, path=path)
    assert state(main) == (mode, f"Include {ssh}/sshd_config.d/*.conf\nPort 22\n")
    part = ssh / "sshd_config.d/00-stackmend.conf"
    assert part.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in part.parent.iterdir()] == [part.name]
    assert {one.name for one in ssh.iterdir()} == {"sshd_config", "sshd_config.d"}


def test_dnfs_file_is_shown_to_nobody_new(tmp_path: Path, each_shell: list[str]) -> None:
    dnf = tmp_path / "dnf"
    dnf.mkdir()
    file = dnf / "automatic.conf"
    file.write_text("[email]\npassword = secret\n")
    file.chmod(0o600)
    command = basics._build_script("updates", "dnf", str(tmp_path / "kept"))
    done = ran(command, each_shell, ("/etc/dnf", dnf))
    assert (done.returncode, done.stderr) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "upgrade_type = security" in file.read_text()
    assert [one.name for one in dnf.iterdir()] == ["automatic.conf"]


def test_the_engines_files_are_put_kept_and_removed(tmp_path: Path, each_shell: list[str]) -> None:
    file, root = tmp_path / "etc/apt/x.list", tmp_path / "memory"
    moved = ((engine.ROOT, root),)
    for content, number in (("first\n", 1), ("second\n", 2)):
        done = ran(engine.place(str(file), f"s{number}"), each_shell, *moved, stdin=content)
        assert (done.returncode, done.stderr) == (0, "")
        assert state(file) == (0o644, content)
    assert ran(engine.place(str(file), "s3"), each_shell, *moved).returncode == 0
    assert list(file.parent.iterdir()) == []
    kept = {one.name: one.read_text() for one in (root / "kept").iterdir()}
    assert kept == {"x.list.s2": "first\n", "x.list.s3": "second\n"}
    assert {one.name for one in root.iterdir()} == {"kept"}


def test_no_script_that_root_runs_foresees_a_name_in_the_hosts_settings() -> None:
    """Beside a file of the host's settings every name comes from mktemp, through ``put``."""
    rooms = Path(journal.__file__).parents[1]
    for script in rooms.rglob("*.sh"):
        words = script.read_text()
        assert ".stackmend-new" not in words, script
        ours = r"\$(state|room|root|\{root:\?\}|1)\b|\$\{root"
        for line in words.splitlines():
            assert re.search(ours, line) or not re.search(r"\.new\b", line), line


def test_the_journal_is_json_still(tmp_path: Path, each_shell: list[str]) -> None:
    moved = ((str(MEMORY), tmp_path / "stackmend"),)
    for _ in range(2):
        done = ran(journal.append('{"a": 1}'), each_shell, *moved)
        assert (done.returncode, done.stderr) == (0, "")
    file = tmp_path / "stackmend/journal.jsonl"
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"a": 1}] * 2
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
