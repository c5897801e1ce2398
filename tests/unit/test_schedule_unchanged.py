"""Runs that a host can do without: what it compares, and that all it cannot tell is a change."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stackmend.problems import WrongSettings
from stackmend.raw import validate
from stackmend.schedule import controller, unchanged
from stackmend.schedule.facts import parse
from stackmend.schedule.spec import TimerSpec
from stackmend.schedule.units import MARK, PATH, make_table, make_units
from stackmend.spec import parse_machine
from tests import shells
from tests.unit.rendering import assert_golden

PING = "https://ping.example/s3cret-of-the-ping?create=1"
WEB, SIDE = "a" * 64, "b" * 64

#: Each prints what lies in a file beside it, and fails where there is none.
PROGRAMS = {
    "curl": """#!/bin/sh
echo "$*" >>ROOT/argv
all=$*
case $all in
*' -K '*)
  file=${all#* -K }
  cat "${file%% *}" >>ROOT/pinged
  exec cat ROOT/says/ping
  ;;
esac
for each; do
  case $each in
  http://engine/containers/json*) cat ROOT/says/list ;;
  http://engine/containers/*) name=${each#*containers/}; cat "ROOT/says/${name%/json}" ;;
  http://engine/events*) cat ROOT/says/events ;;
  http://engine/*) cat "ROOT/says/${each##*/}" ;;
  esac || exit 22
done
""",
    "docker": """#!/bin/sh
echo "$*" >>ROOT/argv
case $* in
'ps '*) sed 's/.*"Id":"//; s/".*//' ROOT/says/list ;;
container*) shift 4; for each; do cat "ROOT/says/$each" || exit 1; done ;;
*' ls -q') cat "ROOT/says/$1s" ;;
events*) cat ROOT/says/events ;;
esac
""",
    "df": "#!/bin/sh\ncat ROOT/says/df\n",
    "date": "#!/bin/sh\ncat ROOT/says/date\n",
}

#: What the script needs beside its own shell.
TOOLS = (
    *("awk", "cat", "find", "head", "rm", "sed", "sha256sum", "sort", "stat"),
    *("timeout", "tr", "xargs"),
)


def inspect(identity: str, project: str, **state: Any) -> dict[str, Any]:
    """A container as an engine describes it, with its keys in that order."""
    probe = {"Start": "2026", "ExitCode": 0, "Output": 'it\'s "Image":" well }},"Image":"'}
    health = {"Status": "healthy", "FailingStreak": 0, "Log": [probe]}
    return {
        "Id": identity,
        "State": {"Status": "running", "Restarting": False, "StartedAt": "1", "Health": health}
        | state,
        "Image": "sha256:1",
        "ExecIDs": None,
        "HostConfig": {"Memory": 0},
        "Mounts": [{"Source": "/a"}, {"Source": "/b"}],
        "Config": {
            "Env": ["TOKEN=s3cret-of-the-shop"],
            "Labels": {"com.docker.compose.project": project, "x": '"Restarting":true'},
        },
    }


class Host:
    """A host that the script finds well, below a directory."""

    def __init__(self, root: Path, **raw: Any) -> None:
        self.root, self.home = root, root / "var/lib/stackmend/schedule/stackmend-host"
        self.tools = root / "tools"
        for name, text in PROGRAMS.items():
            self.put(f"bin/{name}", text.replace("ROOT", str(root))).chmod(0o755)
        self.tools.mkdir()
        for name in TOOLS:
            (self.tools / name).symlink_to(shells.find(name))
        self.put("src/compose.yaml", "services: {web: {image: 'lab/box:1'}}\n")
        stack = {"project": "shop", "source": str(root / "src"), "directory": f"{root}/opt/shop"}
        settings = parse_machine({"stack": stack})
        assert settings is not None
        spec = validate(TimerSpec, {"mode": "host", "every": "1min", "full_every": "30min", **raw})
        for name, content in unchanged.make_files(spec, settings):
            text = content.decode().replace(PATH, f"{root}/bin:{self.tools}")
            text = text.replace("/var/", f"{root}/var/").replace("/etc/", f"{root}/etc/")
            text = text.replace("/run/", f"{root}/run/").replace("/proc/", f"{root}/proc/")
            text = text.replace(" /usr/lib/", f" {root}/usr/lib/")
            self.put(f"{self.home}/generations/g.0/{name}", text)
        self.put(f"{self.home}/generations/g.0/inventory.py", "hosts = []\n")
        (self.home / "current").symlink_to("generations/g.0")
        self.put("etc/hosts", "127.0.0.1 localhost\n")
        self.put("run/systemd/resolve/stub.conf", "nameserver 127.0.0.53\n")
        (root / "etc/resolv.conf").symlink_to(root / "run/systemd/resolve/stub.conf")
        self.put("etc/docker/daemon.json", "{}\n")
        self.put("opt/shop/compose.yaml", "services: {}\n")
        self.put("opt/shop/data/busy", "1\n")
        self.put("srv/outside.conf", "1\n")
        for name, text in (("files", "compose.yaml\n"), ("outside", f"{root}/srv/outside.conf\n")):
            self.put(f"var/lib/stackmend/shop/{name}", text.replace("\n/", "\n").lstrip("/"))
        self.put("proc/sys/kernel/random/boot_id", "b00t\n")
        os.mknod(root / "run/docker.sock", stat.S_IFSOCK | 0o600)
        self.at(1000)
        self.containers = {WEB: inspect(WEB, "shop"), SIDE: inspect(SIDE, "other")}
        self.say("networks", '[{"Id":"n1"},{"Id":"n2"}]\n')
        self.say("volumes", '{"Volumes":[{"Name":"v1"},{"Name":"v2"}]}\n')
        self.say("events", "")
        self.say("ping", "OK")
        self.say("df", "Filesystem\n/dev/a 100 50 50 50% /\n/dev/b 100 90 10 90% /var/lib/docker\n")
        self.describe()

    def put(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def say(self, name: str, text: str) -> None:
        self.put(f"says/{name}", text)

    def at(self, uptime: int, *, drift: int = 0) -> None:
        """So many seconds after its start, by both of its clocks."""
        self.put("proc/uptime", f"{uptime}.25 7.00\n")
        self.say("date", f"{1_800_000_000 + uptime + drift}\n")

    def describe(self) -> None:
        """Have the engine describe the containers as they are now."""
        compact = {"separators": (",", ":")}
        for identity, found in self.containers.items():
            self.say(identity, json.dumps(found, **compact) + "\n")  # type: ignore[arg-type]
        listed = [{"Id": identity, "Status": "Up"} for identity in self.containers]
        self.say("list", json.dumps(listed, **compact) + "\n")  # type: ignore[arg-type]

    def ask(self, shell: list[str]) -> tuple[str, str]:
        """What the script prints, and why the run is needed."""
        done = subprocess.run(
            [*shell, str(self.home / "current/unchanged.sh")],
            env={"PATH": "/usr/bin:/bin", "http_proxy": "http://127.0.0.1:1"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        # One line in the journal at most.
        assert len(done.stderr.splitlines()) <= 1, done.stderr
        return done.stdout.strip(), done.stderr.strip()

    def run(self, shell: list[str]) -> None:
        """A full run that finds nothing to do."""
        said = self.ask(shell)
        assert said[0] == "", said
        (self.home / "unchanged.new").replace(self.home / "unchanged")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, ping=PING)


DASH = [shells.find("dash")]


def test_a_run_is_skipped_where_nothing_has_happened(host: Host, each_shell: list[str]) -> None:
    assert host.ask(each_shell) == ("", f"a full run: {NONE}")
    host.run(each_shell)
    host.at(1060)
    # What a healthy host does by itself.
    host.containers[WEB]["State"]["Health"]["Log"][0]["Start"] = "2027"
    host.containers[WEB]["ExecIDs"] = ["c" * 64]
    host.containers[WEB]["Mounts"].reverse()
    host.containers = dict(reversed(host.containers.items()))
    host.describe()
    host.say("networks", '[{"Id":"n2"},{"Id":"n1"}]\n')
    host.put("opt/shop/data/busy", "2\n")
    for _ in range(2):
        assert host.ask(each_shell) == ("unchanged", "")
    assert not (host.home / "unchanged.new").exists()
    assert (host.home / "unchanged").stat().st_mode & 0o777 == 0o600
    # Heard of, each time, and by nobody else.
    pinged = (host.root / "pinged").read_text()
    assert pinged.count('url = "https://ping.example/s3cret-of-the-ping/0?create=1"') == 2
    asked = (host.root / "argv").read_text()
    assert "s3cret" not in asked
    assert "events?since=1800001000&until=1800001060&filters=%7B%22event%22%3A%5B%22create" in asked
    assert "exec" not in asked
    assert "s3cret" not in (host.home / "unchanged").read_text()


NONE = "the last run did not find everything well, or none has ended since"
FILE = "a file that a run reads has changed"
ENGINE = "a container, a network or a volume has changed"
SILENT = "the engine does not answer, or not as expected"
CLOCK = "somebody set the clock"


def _change(path: str) -> Callable[[Host], object]:
    return lambda host: host.put(path, "changed\n")


def _state(identity: str, **state: Any) -> Callable[[Host], object]:
    def change(host: Host) -> None:
        host.containers[identity]["State"].update(state)
        host.describe()

    return change


def _say(name: str, text: str) -> Callable[[Host], object]:
    return lambda host: host.say(name, text)


def _unhealthy(host: Host) -> None:
    host.containers[WEB]["State"]["Health"]["Status"] = "unhealthy"
    host.describe()


def _remove(host: Host) -> None:
    del host.containers[SIDE]
    host.describe()


def _forge(host: Host) -> None:
    # A stopped web, and a label that would put back what it looked like.
    host.containers[WEB]["State"]["StartedAt"] = "2"
    host.containers[WEB]["Config"]["Labels"]["y"] = '","FailingStreak":0\n=engine 0\n'
    host.describe()


FAULTS: dict[str, tuple[Callable[[Host], object], str]] = {
    "settings": (_change("var/lib/stackmend/schedule/stackmend-host/current/inventory.py"), FILE),
    "project": (_change("opt/shop/compose.yaml"), FILE),
    "removed": (lambda host: (host.root / "opt/shop/compose.yaml").unlink(), FILE),
    "override": (_change("opt/shop/compose.override.yaml"), FILE),
    "outside": (_change("srv/outside.conf"), FILE),
    "daemon": (_change("etc/docker/daemon.json"), FILE),
    "drop-in": (_change("etc/systemd/system/docker.service.d/a.conf"), FILE),
    "resolver": (_change("run/systemd/resolve/stub.conf"), FILE),
    "hosts": (_change("etc/hosts"), FILE),
    "own unit": (_change("etc/systemd/system/stackmend-host.service"), FILE),
    "image": (_change("var/lib/docker/image/overlay2/repositories.json"), FILE),
    "pause": (_change("var/lib/stackmend/pauses.json"), FILE),
    "limits": (_change("var/lib/stackmend/limits.json"), FILE),
    "engine restarted": (_change("run/docker.pid"), FILE),
    "container restarted": (_state(WEB, StartedAt="2"), ENGINE),
    "foreign container stopped": (_state(SIDE, Status="exited"), ENGINE),
    "container gone": (_remove, ENGINE),
    "forged": (_forge, ENGINE),
    "network": (_say("networks", '[{"Id":"n1"}]\n'), ENGINE),
    "volume": (_say("volumes", '{"Volumes":[]}\n'), ENGINE),
    "event": (_say("events", '{"Type":"image","Action":"pull"}\n'), "something happened on"),
    "unhealthy": (_unhealthy, "a container of the project is not healthy"),
    "restarting": (_state(WEB, Restarting=True), "a container of the project is not healthy"),
    "no engine": (lambda host: (host.root / "says/events").unlink(), SILENT),
    "no list": (_say("list", ""), SILENT),
    "strange list": (_say("list", '[{"Names":["x"],"Id":"' + WEB + '"}]\n'), SILENT),
    "list of paths": (_say("list", '[{"Id":"' + "../" * 21 + 'x"}]\n'), SILENT),
    "refused": (_say("networks", '{"message":"page not found"}\n'), SILENT),
    "noise": (_say("volumes", "Warning: x\n"), SILENT),
    "cut off": (lambda host: (host.root / f"says/{SIDE}").unlink(), SILENT),
    "other boot": (_change("proc/sys/kernel/random/boot_id"), "the host has started since"),
    "earlier boot": (lambda host: host.at(900), "the host has started since"),
    "set back": (lambda host: host.at(1060, drift=-3600), CLOCK),
    "set forward": (lambda host: host.at(1060, drift=90), CLOCK),
    "due": (lambda host: host.at(2790), "the last is 29 min old"),
    "no clock": (_say("date", ""), "the clock cannot be read"),
    "disk": (_say("df", "F\n/dev/a 1 1 1 50% /\n/dev/b 1 1 1 91% /x\n"), "a disk is more than"),
    "no disk": (_say("df", "F\n/dev/a 1 1 1 50% /\n"), "a disk is more than"),
    "no ping": (lambda host: (host.root / "says/ping").unlink(), "the ping did not arrive"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happened_is_a_full_run(host: Host, fault: str) -> None:
    make, reason = FAULTS[fault]
    host.run(DASH)
    host.at(1060)
    make(host)
    output, message = host.ask(DASH)
    assert output == ""
    assert message.startswith(f"a full run: {reason}")
    # Until one ends well no run is skipped.
    assert not (host.home / "unchanged").exists()
    compares = (host.home / "unchanged.new").exists()
    assert compares is (reason not in (SILENT, "the clock cannot be read"))


def test_a_host_with_busybox_alone_compares_as_well(host: Host) -> None:
    for name in TOOLS:
        (host.tools / name).unlink()
        (host.tools / name).symlink_to(shells.find("busybox"))
    for fault in ("project", "daemon", "container restarted", "forged", "volume", "unhealthy"):
        (host.home / "unchanged").unlink(missing_ok=True)
        host.at(1000)
        host.run(["busybox", "sh"])
        host.at(1060)
        assert host.ask(["busybox", "sh"]) == ("unchanged", "")
        make, reason = FAULTS[fault]
        make(host)
        output, message = host.ask(["busybox", "sh"])
        assert output == ""
        assert message.startswith(f"a full run: {reason}"), fault


def test_runs_are_skipped_until_the_next_is_due(host: Host) -> None:
    host.run(DASH)
    # A timer is never exact.
    host.at(1000 + 1769)
    assert host.ask(DASH)[0] == "unchanged"
    host.at(1000 + 1771)
    assert "29 min old" in host.ask(DASH)[1]


def test_what_is_kept_is_compared_as_it_is(host: Host) -> None:
    for text in (
        "",
        "b00t\n",
        "b00t x y z\n",
        "b00t 1800001000 1000\n",
        "\n" * 9,
        "b00t -5 -5 a b",
    ):
        (host.home / "unchanged").write_text(text)
        output, message = host.ask(DASH)
        assert output == ""
        assert message
    host.run(DASH)
    kept = (host.home / "unchanged").rename(host.root / "elsewhere")
    (host.home / "unchanged").symlink_to(kept)
    assert host.ask(DASH)[1].endswith(NONE)


def test_without_curl_the_engine_is_asked_by_its_own_client(
    host: Host, each_shell: list[str]
) -> None:
    (host.root / "bin/curl").unlink()
    (host.home / "current/ping").unlink()
    host.put("says/list", f'"Id":"{WEB}"\n"Id":"{SIDE}"\n')
    host.run(each_shell)
    host.at(1060)
    assert host.ask(each_shell) == ("unchanged", "")
    asked = (host.root / "argv").read_text()
    assert "--since 1800001000 --until 1800001060" in asked
    assert "event=exec" not in asked
    host.say("events", '{"Action":"oom"}\n')
    assert "something happened" in host.ask(each_shell)[1]


def test_a_host_that_lacks_a_tool_runs_in_full(host: Host) -> None:
    # It needs no others: these are all that it can find.
    for path in (*host.tools.iterdir(), host.root / "bin/df", host.root / "bin/date"):
        # The engine here is made of these, and asked by curl.
        if path.name in ("cat", "sed", "timeout"):
            continue
        (host.home / "unchanged").unlink(missing_ok=True)
        host.run(DASH)
        hidden = path.rename(host.root / "hidden")
        output, message = host.ask(DASH)
        assert output == "", path.name
        assert message or path.name == "rm"
        hidden.rename(path)


def test_an_answer_without_an_end_is_cut_off(host: Host) -> None:
    host.run(DASH)
    host.put("bin/curl", "#!/bin/sh\nexec yes '[]'\n").chmod(0o755)
    assert host.ask(DASH) == ("", f"a full run: {SILENT}")


# When it is asked, and what is kept


def spec(**raw: Any) -> TimerSpec:
    return validate(TimerSpec, {"mode": "host", "every": "1min", "full_every": "30min", **raw})


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"mode": "controller"}, '"full_every" means nothing in mode controller'),
        ({"every": "30min"}, '"full_every" must be longer than "every"'),
        ({"full_every": 60}, "full_every: "),
        ({"full_every": "25h"}, "full_every: "),
    ],
)
def test_wrong_settings_name_the_field(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongSettings) as error:
        spec(**raw)
    assert said in str(error.value)


def test_each_run_is_a_full_one_by_default() -> None:
    plain = spec(full_every=None)
    settings = parse_machine({"stack": {"engine": {}}})
    assert settings is not None
    assert [*unchanged.make_files(plain, settings)] == []
    text = "".join(make_units(plain, controller.make_host_job(plain), 252).values())
    assert "unchanged" not in text
    # A host without a project has none to compare.
    (script,) = dict(unchanged.make_files(spec(), settings)).values()
    assert b"project=''\n" in script


def test_units_ask_before_a_run() -> None:
    for version in (252, 242):
        units = make_units(spec(), controller.make_host_job(spec()), version)
        assert_golden("schedule", f"unchanged_{version}", next(iter(units.values())))
    tools = ("flock", "timeout", "logger")
    table = make_table(spec(), controller.make_host_job(spec()), "ai1", tools)
    assert_golden("schedule", "unchanged_cron", table)
    assert "s3cret" not in f"{table}{units}"


def list_commands(text: str) -> dict[str, list[str]]:
    """What systemd starts for a unit, by its kind."""
    lines = re.findall(r"^(ExecCondition|ExecStart)=(.*)$", text, re.MULTILINE)
    return {
        key: [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line)]
        for key, line in lines
    }


@pytest.mark.parametrize(
    ("script", "skips"),
    [
        ("echo unchanged\n", True),
        ("echo unchanged; exit 3\n", True),
        ("exit 0\n", False),
        ("exit 1\n", False),
        ("echo unchanged; echo more\n", False),
        ("kill -9 $$\n", False),
        (None, False),
    ],
)
def test_only_one_word_skips_a_run(tmp_path: Path, script: str | None, skips: bool) -> None:
    path, ran = tmp_path / "unchanged.sh", tmp_path / "ran"
    if script is not None:
        path.write_text(script)
    job = controller.make_host_job(spec()).model_copy(
        update={
            "unchanged": str(path),
            "command": ("/usr/bin/touch", str(ran)),
            "lock": str(tmp_path / "lock"),
        }
    )
    newer = list_commands("".join(make_units(spec(), job, 252).values()))
    # What systemd takes for a run that is not needed, and for one that is.
    assert subprocess.run(newer["ExecCondition"]).returncode == int(skips)
    assert newer["ExecStart"][:2] == ["/usr/bin/env", "/usr/bin/touch"]
    older = list_commands("".join(make_units(spec(), job, 242).values()))
    assert "ExecCondition" not in older
    subprocess.run(older["ExecStart"], check=True)
    assert ran.exists() is not skips
    ran.unlink(missing_ok=True)
    table = make_table(spec(random_delay=0), job, "ai1", ("flock", "timeout"), own=True)
    command = table.splitlines()[1].split(" ", 5)[5].replace("\\%", "%")
    command = command.replace("/var/log/", f"{tmp_path}/")
    subprocess.run(["sh", "-c", command], check=True)
    assert ran.exists() is not skips


def record(*outcomes: str, **more: Any) -> Any:
    hosts = {str(n): SimpleNamespace(outcome=outcome) for n, outcome in enumerate(outcomes)}
    return SimpleNamespace(**{"complete": True, "left_out": (), "hosts": hosts, **more})


@pytest.mark.parametrize(
    ("ended", "kept"),
    [
        (record("converged"), True),
        (record("changed"), False),
        (record("paused"), False),
        (record("converged", "locked"), False),
        (record("converged", complete=False), False),
        (record("converged", left_out=("x",)), False),
        (record(), False),
        (None, False),
    ],
)
def test_only_a_run_that_found_nothing_to_do_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Any, kept: bool
) -> None:
    monkeypatch.setattr(unchanged, "HOME", str(tmp_path))
    waiting = tmp_path / "stackmend-host/unchanged.new"
    waiting.parent.mkdir()
    waiting.write_text("x\n")
    waiting.with_name("unchanged").write_text("before\n")
    # By hand: this is no run of the timer's.
    monkeypatch.delenv(MARK, raising=False)
    unchanged.keep(ended)
    assert waiting.exists()
    monkeypatch.setenv(MARK, "stackmend-host")
    for _ in range(2):
        unchanged.keep(ended)
        left = [path.name for path in waiting.parent.iterdir()]
        assert left == (["unchanged"] if kept else [])


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://x.example/id/", "https://x.example/id/0"),
        ("https://x.example/id?a=1&b=2", "https://x.example/id/0?a=1&b=2"),
        ('https://x.example/"\\', 'https://x.example/\\"\\\\/0'),
    ],
)
def test_the_address_of_a_ping(url: str, address: str) -> None:
    assert f'url = "{address}"\n' in unchanged.format_ping(url)


@pytest.mark.parametrize(("result", "failed"), [("exec-condition", False), ("exit-code", True)])
def test_a_run_that_was_skipped_has_not_failed(result: str, failed: bool) -> None:
    names = ("host", "state", "leftovers", "tools", "gpus", "pythons", "whole")
    bodies = dict.fromkeys(names, "") | {"host": "|root 0"}
    bodies["state"] = f"|unit service\n|Result={result}\n|ExecMainStatus=1"
    text = "\n".join(f"\nm begin {name}\n{body}\n.0\nm end" for name, body in bodies.items())
    assert bool(parse(text.split("\n"), "m", "stackmend-host").failure) is failed
