"""A probe waits for a hung engine once, and those beside it not at all."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.host import Host

from stackmend.compose.facts import ComposeStack, EngineHung
from stackmend.compose.listening import Listening
from stackmend.compose.observer import Observer
from stackmend.compose.source import File, Source
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Declared, StackState
from stackmend.connection import (
    Unknown,
    fetch_facts,
    make_mark,
    parse_sections,
    read_frame,
    read_script,
    run,
)
from stackmend.connection.fetching import PROBE_TIMEOUT
from stackmend.engine.state import HostEngine
from tests.connected import local
from tests.unit.hostile_checks import CHECKS
from tests.unit.hostile_compose import COMPOSE, SURROUNDINGS
from tests.unit.hostile_connectivity import CONNECTIVITY
from tests.unit.hostile_machine import ACCELERATORS, ENGINE
from tests.unit.hostile_models import MODELS
from tests.unit.hostile_ports import PORTS

pytestmark = pytest.mark.slow

#: Asks the engine, through a subshell as probes do, and says what it heard.
PROBE = """
rows=$(docker ps 2>&1)
begin asked; printf '%s\\n' "$rows" | quoted; end $?
section again docker inspect x
section exec docker exec x true
"""


#: What gives an engine two seconds, of the shell that calls it, instead of ten.
QUICK = ('-k 2 "${STACKMEND_ENGINE_LIMIT:-10}"', "-k 1 2")


class Asks(FactBase[dict[str, tuple[int, list[str]]]]):
    """Docker, by the functions that all probes share."""

    def command(self, label: str) -> StringCommand:
        self._mark = make_mark()
        frame = read_frame().replace(*QUICK)
        body = f"IFS= read -r mark\n{frame}{PROBE}: {label}\n"
        return StringCommand("printf", r"'%s\n'", self._mark, "|", f"sh -c '{quote(body)}'")

    def process(self, output: list[str]) -> dict[str, tuple[int, list[str]]]:
        return parse_sections(output, self._mark)


def quote(text: str) -> str:
    return text.replace("'", "'\\''")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\nexec sleep 60\n')
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with local() as host:
        yield host


#: A client that waits, one that no signal ends, and one that has written some of its answer.
HANGS = ("exec sleep 60", "trap '' TERM; sleep 60", "printf '[\"some'; exec sleep 60")


@pytest.mark.parametrize("hangs", HANGS)
def test_it_is_waited_for_once_however_many_ask(host: Host, tmp_path: Path, hangs: str) -> None:
    (tmp_path / "docker").write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\n{hangs}\n')
    started = time.monotonic()
    found = fetch_facts(host, [(Asks, {"label": name}) for name in ("a", "b", "c")])
    assert time.monotonic() - started < 20
    assert (tmp_path / "asked").read_text() == "ps\n"
    for each in found:
        text = "the Docker daemon does not answer within 10 s"
        assert each["asked"][1][-1].endswith(text)
        assert each["again"] == each["exec"] == (124, [text])


def test_where_there_is_no_docker_no_function_stands_in_for_it(tmp_path: Path) -> None:
    for name in ("sh", "timeout", "sed"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    frame = read_frame()
    command = ["/bin/sh", "-c", f"{frame}command -v docker || echo none"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.stdout == "none\n"


#: Ends what would ask a hung engine at once, and writes down how long it would have waited.
TIMEOUT = """#!/bin/sh
limit=$1 command=$2
[ "$1" != -k ] || limit=$2+$3 command=$4
case $command in docker | ctr | podman) ;; *) exec {timeout} "$@" ;; esac
printf '%s %s\\n' "$limit" "$command" >>{directory}/waited
exit 124
"""

#: How many calls a fact's probe makes side by side, where it does: they wait at the same time.
AT_ONCE: dict[type, int] = {ComposeStack: 4}

#: Every fact that asks the engine, on a host that it knows nothing of.
ASKING = [
    pytest.param(fact, arguments, id=fact.__name__)
    for room in (COMPOSE, SURROUNDINGS, ENGINE, ACCELERATORS, MODELS, PORTS, CHECKS, CONNECTIVITY)
    for fact, arguments in room.facts
]


@pytest.mark.parametrize(("fact", "arguments"), ASKING)
def test_what_a_probe_waits_for_adds_up_to_much_less_than_it_has(
    host: Host, tmp_path: Path, fact: type, arguments: Mapping[str, Any]
) -> None:
    """A hung engine is a reading, on a slow host too, and never a host that cannot be read."""
    for name in ("ctr", "podman"):
        (tmp_path / name).symlink_to(tmp_path / "docker")
    stand_in = tmp_path / "timeout"
    stand_in.write_text(TIMEOUT.format(timeout=shutil.which("timeout"), directory=tmp_path))
    stand_in.chmod(0o755)
    (state,) = fetch_facts(host, [(fact, arguments)])
    assert not isinstance(state, Unknown), state
    waited = tmp_path / "waited"
    rows = waited.read_text().splitlines() if waited.exists() else []
    limits = [float(part) for row in rows for part in row.split()[0].split("+")]
    assert sum(limits) / AT_ONCE.get(fact, 1) <= PROBE_TIMEOUT * 2 / 3, rows
    assert not (tmp_path / "asked").exists(), "it was asked without a limit"
    if isinstance(state, HostEngine):
        assert state.containerd == "hung"
        assert state.status in ("hung", "stopped"), "whether systemd knows it, is this machine's"


@pytest.fixture
def quick(host: Host, tmp_path: Path) -> Path:
    """Where it is written for how long a hung engine would have been waited for, and is not."""
    stand_in = tmp_path / "timeout"
    stand_in.write_text(TIMEOUT.format(timeout=shutil.which("timeout"), directory=tmp_path))
    stand_in.chmod(0o755)
    return tmp_path / "waited"


def test_one_that_hung_has_less_time_until_something_is_changed(host: Host, quick: Path) -> None:
    """A later reading of the same run, be it of other facts or by a script of its own."""
    shop = make_observer(host)
    arguments = {"project": "ai", "directory": "/nowhere"}
    fetch_facts(host, [(ComposeStack, arguments)])
    fetch_facts(host, [(Listening, {"containers": ("a" * 64,)})])
    fetch_facts(host, [(ComposeStack, arguments)])
    with pytest.raises(EngineHung):
        shop.measure_free()
    run(host, "true", readonly=True)
    with pytest.raises(EngineHung):
        shop.read_surroundings(Declared(config={}))
    run(host, "true")
    fetch_facts(host, [(ComposeStack, arguments)])
    waits = [row.split()[0] for row in quick.read_text().splitlines()]
    # Four calls of that probe are made side by side, and only the first says to the others.
    assert [each for each, _ in groupby(waits)] == ["2+10", "2+3", "2+10"], waits


@pytest.mark.parametrize("ask", ["measure_free", "read_surroundings", "resolve"])
def test_what_a_plan_asks_beside_notes_that_it_hangs(
    host: Host, quick: Path, tmp_path: Path, ask: str
) -> None:
    """An engine may tell what runs, and hang at all else: its containerd hangs."""
    (tmp_path / "docker").write_text(
        """#!/bin/sh\ncase "$*" in *--format*json*) echo '{"services": {}}' ;; esac\n"""
    )
    shop = make_observer(host)
    asked = {
        "measure_free": shop.measure_free,
        "read_surroundings": lambda: shop.read_surroundings(Declared(config={})),
        "resolve": shop.resolve,
    }
    for _ in range(2):
        with pytest.raises(EngineHung):
            asked[ask]()
    assert quick.read_text() == "2+10 docker\n2+3 docker\n"


def make_observer(host: Host) -> Observer:
    """What reads a project of one file."""
    spec = ComposeSpec.model_validate({"project": "ai", "source": ".", "directory": "/nowhere"})
    return Observer(host, spec, Source({"compose.yaml": File(0o644, b"services: {}\n")}))


class Stack(ComposeStack):
    """The reading of a project, with an engine that has two seconds instead of twenty."""

    def command(self, project: str, directory: str) -> StringCommand:
        raw = super().command(project, directory).get_raw_value()
        assert QUICK[0] in raw
        return StringCommand(raw.replace(*QUICK))


@pytest.mark.parametrize("silent", ["*", "ps*", "container*", "image*", "network*", "volume*"])
def test_a_project_is_read_in_the_time_of_one_wait(host: Host, tmp_path: Path, silent: str) -> None:
    """Its calls are made side by side; what is behind the one that hangs is not asked."""
    state = tmp_path / "state/ai"
    state.mkdir(parents=True)
    (state / "images").write_text("one:1\ntwo:2\nthree:3\n")
    row = f'["{"a" * 64}","ai_default","ai-web-1","ai"]'
    (tmp_path / "docker").write_text(
        f"#!/bin/sh\ncase $1 in {silent}) exec sleep 60 ;; ps) echo '{row}' ;; esac\n"
        """case "$1 $2" in 'container inspect') echo '[]' ;; esac\n"""
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stackmend.compose.facts.STATE_ROOT", str(state.parent))
        started = time.monotonic()
        (found,) = fetch_facts(host, [(Stack, {"project": "ai", "directory": str(tmp_path)})])
    # One wait takes two seconds; one after the other they would take ten.
    assert time.monotonic() - started < 7
    assert isinstance(found, StackState), found
    assert found.engine.status == "hung"


@pytest.mark.parametrize(("name", "asked"), [("dockerd", False), ("sleep", True), (None, True)])
def test_systemd_is_asked_only_of_an_engine_that_does_not_run(
    each_shell: list[str], tmp_path: Path, name: str | None, asked: bool
) -> None:
    """The engine writes its number without an end of line; what is left may name anything."""
    (tmp_path / "proc/7").mkdir(parents=True)
    if name:
        (tmp_path / "proc/7/comm").write_text(f"{name}\n")
    (tmp_path / "docker.pid").write_text("7")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\n'
        'case $1 in show) printf "Result=exit-code\\nSubState=failed\\n" ;; esac\n'
    )
    systemctl.chmod(0o755)
    text = read_script("stackmend.connection", "failed")
    text = text.replace("/run/docker.pid", f"{tmp_path}/docker.pid")
    text = text.replace("/proc/", f"{tmp_path}/proc/").replace("/run/systemd/system", "/")
    done = subprocess.run(
        [*each_shell, "-c", f"{text}engine_failed && echo failed"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout == ("failed\n" if asked else "")
    assert (tmp_path / "asked").exists() is asked
