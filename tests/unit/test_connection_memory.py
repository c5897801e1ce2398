"""How long what was read stays true."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyinfra.api import FactBase, HiddenValue, QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.context import ctx_host
from pyinfra.facts.server import Hostname

from stackmend.connection import (
    Unknown,
    derive,
    fetch_facts,
    fetching,
    invalidate,
    keep,
    prefetch,
    read,
    run,
    spawn,
)
from tests.connected import local


class Turn(FactBase[int]):
    """How often it has been read: every reading leaves a mark in a file."""

    def command(self, file: str) -> str:
        return f"echo x >>{file}; wc -l <{file}"

    def process(self, output: list[str]) -> int:
        return int(output[0])


class Broken(Turn):
    def command(self, file: str) -> str:
        return f"echo x >>{file}; false"


class Batch(FactBase[str]):
    """The process id of the shell that reads it: equal for what was read together."""

    def command(self, label: str) -> str:
        return f": {label}; echo $STACKMEND_READER"


@pytest.fixture
def host() -> Iterator[Host]:
    with local() as host:
        yield host


@pytest.fixture
def turn(host: Host, tmp_path: Path) -> Callable[[], int]:
    return lambda: read(host, Turn, file=str(tmp_path / "turns"))


def test_what_was_read_is_not_read_again(host: Host, turn: Callable[[], int]) -> None:
    assert [turn(), turn(), turn()] == [1, 1, 1]
    with ctx_host.use(host):
        from pyinfra import host as current

        assert read(current, Turn, file="/dev/null") == read(host, Turn, file="/dev/null")


@pytest.mark.parametrize(
    "act",
    [
        lambda host, path: run(host, "true"),
        lambda host, path: run(host, "false"),
        lambda host, path: host.run_shell_command(StringCommand("true")),
        lambda host, path: host.put_file(io.BytesIO(b"x"), str(path / "put")),
        lambda host, path: host.get_file("/etc/hostname", io.BytesIO()),
        lambda host, path: host.get_fact(Hostname),
        lambda host, path: spawn(host, "cat").close(),
        lambda host, path: invalidate(host),
    ],
    ids=["run", "run that fails", "pyinfra's command", "put", "get", "fact", "spawn", "invalidate"],
)
def test_any_command_makes_it_untrue(
    host: Host, turn: Callable[[], int], tmp_path: Path, act: Callable[[Host, Path], object]
) -> None:
    assert turn() == 1
    act(host, tmp_path)
    assert turn() == 2
    assert turn() == 2


def test_a_derived_value_is_computed_once_for_each_reading(
    host: Host, turn: Callable[[], int], tmp_path: Path
) -> None:
    computed: list[int] = []

    def double(key: str = "double") -> int:
        reading = turn()
        return derive(host, key, [reading], lambda: computed.append(reading) or 2 * reading)

    assert [double(), double()] == [2, 2]
    # Each question has its own answer.
    assert double("other") == 2
    assert computed == [1, 1]
    run(host, "true")
    assert [double(), double()] == [4, 4]
    assert computed == [1, 1, 2]


def test_an_invalidated_reading_takes_along_what_was_derived_from_it(host: Host) -> None:
    """Also where a value is handed in again that was read before."""
    reading = object()
    first = derive(host, "key", [reading], object)
    assert derive(host, "key", [reading], object) is first
    assert derive(host, "key", [object()], object) is not first
    first = derive(host, "key", [reading], object)
    invalidate(host)
    assert derive(host, "key", [reading], object) is not first


def test_a_value_that_cannot_be_derived_is_not_kept(host: Host) -> None:
    with pytest.raises(ZeroDivisionError):
        derive(host, "key", [], lambda: 1 // 0)
    assert derive(host, "key", [], lambda: 1) == 1


def test_what_a_room_keeps_of_a_host_survives_its_readings(host: Host) -> None:
    class Notes(list[int]):
        pass

    keep(host, Notes).append(1)
    invalidate(host)
    run(host, "true")
    assert keep(host, Notes) == [1]
    with local() as other:
        assert keep(other, Notes) == []


def test_a_put_that_fails_counts_too(host: Host, turn: Callable[[], int]) -> None:
    assert turn() == 1
    with pytest.raises(OSError, match="nowhere"):
        host.put_file(io.BytesIO(b"x"), "/nowhere/at/all")
    assert turn() == 2


def test_looking_does_not(host: Host, turn: Callable[[], int]) -> None:
    assert turn() == 1
    run(host, "true", readonly=True)
    fetch_facts(host, [(Hostname, {})])
    with spawn(host, "cat", readonly=True):
        assert turn() == 1
    assert turn() == 1


def test_while_a_command_is_held_open_nothing_read_outlives_it(
    host: Host, turn: Callable[[], int]
) -> None:
    with spawn(host, "cat"):
        assert [turn(), turn()] == [1, 1]
    assert turn() == 2


def test_it_grows_old(host: Host, turn: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(fetching.time, "monotonic", lambda: now[0])
    assert turn() == 1
    now[0] += fetching.MAX_AGE
    assert turn() == 1
    now[0] += 0.1
    assert turn() == 2


def test_each_host_for_itself(host: Host, turn: Callable[[], int]) -> None:
    assert turn() == 1
    with local() as other:
        run(other, "true")
    assert turn() == 1


def test_arguments_and_settings_are_part_of_the_question(host: Host, tmp_path: Path) -> None:
    file = str(tmp_path / "turns")
    assert read(host, Turn, file=file) == 1
    assert read(host, Turn, file=file, _env={"A": "1"}) == 2
    assert read(host, Turn, file=file, _env={"A": "1"}) == 2
    assert read(host, Turn, file=file, _chdir="/") == 3
    assert read(host, Turn, file=file) == 1


def test_what_is_expected_is_read_together(host: Host) -> None:
    for name in ("a", "b", "c"):
        prefetch(host, Batch, label=name)
    first = read(host, Batch, label="b")
    assert [read(host, Batch, label=name) for name in ("a", "b", "c")] == [first] * 3
    assert read(host, Batch, label="unexpected") != first
    run(host, "true")
    again = read(host, Batch, label="a")
    assert again != first
    assert read(host, Batch, label="c") == again


def test_only_what_is_not_valid_is_read_again(host: Host, tmp_path: Path) -> None:
    file = str(tmp_path / "turns")
    assert read(host, Turn, file=file) == 1
    prefetch(host, Turn, file=file)
    read(host, Batch, label="a")
    assert (tmp_path / "turns").read_text() == "x\n"


def test_what_is_expected_as_another_user_is_not_read_along(host: Host, tmp_path: Path) -> None:
    file = str(tmp_path / "turns")
    prefetch(host, Turn, file=file, _env={"A": "1"})
    read(host, Batch, label="a")
    assert not (tmp_path / "turns").exists()


def test_could_not_tell_is_remembered_when_the_host_said_so(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "turns"
    assert isinstance(read(host, Broken, file=str(file)), Unknown)
    assert isinstance(read(host, Broken, file=str(file)), Unknown)
    assert file.read_text() == "x\n"


def test_could_not_ask_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: broken' >&2; exit 1\n")
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with local(_sudo=True) as host:
        assert read(host, Hostname) == Unknown("sudo: broken")
        sudo.write_text('#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n')
        assert read(host, Hostname) == run(host, "uname -n").text.strip()


def test_a_hung_fact_does_not_hide_those_before_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hangs(FactBase[str]):
        command = "sleep 30"

    asked = [(Batch, {"label": "a"}), (Hangs, {}), (Batch, {"label": "b"})]
    monkeypatch.setattr(fetching, "PROBE_TIMEOUT", 1)
    before, hung, behind = fetch_facts(host, asked)
    assert int(before) == int(behind) > 0
    assert hung == Unknown("did not end within 1 s")
    # All of them together have a limit as well.
    monkeypatch.setattr(fetching, "PROBE_TIMEOUT", 30)
    monkeypatch.setattr(fetching, "TIMEOUT", 1)
    values = fetch_facts(host, asked)
    assert int(values[0]) > 0
    assert values[1:] == [Unknown("did not end within 1 s")] * 2


def test_what_hung_once_is_not_waited_for_by_others(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hangs(FactBase[str]):
        command = "sleep 30"

    class Declares(Hangs):
        limit = 3.0
        command = "sleep 2; echo slow"

    prefetch(host, Hangs)
    monkeypatch.setattr(fetching, "PROBE_TIMEOUT", 1)
    started = time.monotonic()
    read(host, Batch, label="a")
    assert 1 <= time.monotonic() - started < 8
    run(host, "true")
    assert host.connector_data["stackmend"].memory["slow"]
    assert read(host, Declares) == "slow"
    # It is neither read with others again, nor told as of before to whoever asks for it.
    assert read(host, Hangs) == Unknown("did not end within 1 s")


def test_two_hidden_values_are_two_questions(host: Host) -> None:
    class Says(FactBase[str]):
        def command(self, value: HiddenValue) -> StringCommand:
            return StringCommand("echo", QuoteString(value))

    assert read(host, Says, value=HiddenValue("one")) == "one"
    assert read(host, Says, value=HiddenValue("two")) == "two"


def test_a_mistake_of_the_caller_is_no_lost_connection(host: Host) -> None:
    def stumble(data: bytes) -> None:
        raise FileNotFoundError(data)

    with pytest.raises(FileNotFoundError):
        run(host, "echo x", on_stdout=stumble)
