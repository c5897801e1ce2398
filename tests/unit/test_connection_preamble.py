"""What comes before our own part of a channel is nobody's, whoever wrote it and however much."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api import StringCommand

from stackmend.connection import channel, run
from stackmend.connection.preamble import IGNORED, Preamble, make_marker, skip
from stackmend.connection.process import LocalProcess
from stackmend.connection.settings import Settings
from tests.connected import local


def split(data: bytes, places: list[int]) -> Iterator[bytes]:
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    yield from (data[start:end] for start, end in pairwise(cuts))


@given(st.binary(max_size=9000), st.binary(max_size=200), st.lists(st.integers(0, 10_000)))
def test_what_is_behind_the_mark_comes_whole_however_it_is_cut(
    before: bytes, after: bytes, places: list[int]
) -> None:
    mark = make_marker().value
    # The start of a mark is none.
    sent = before + mark[:-1] + b"\n" + mark + after
    preamble = Preamble(mark)
    assert b"".join(map(preamble.strip, split(sent, places))) == after
    assert preamble.over


@given(st.binary(max_size=9000), st.lists(st.integers(0, 10_000)))
def test_without_a_mark_nothing_is_ours_and_the_end_of_it_is_kept(
    sent: bytes, places: list[int]
) -> None:
    preamble = Preamble(make_marker().value)
    assert b"".join(map(preamble.strip, split(sent, places))) == b""
    assert not preamble.over
    assert preamble.before == sent[-4096:]


def test_two_marks_count_in_their_order_only() -> None:
    preamble = Preamble(b"one", b"two")
    assert preamble.strip(b"two one t") == b""
    assert not preamble.over
    assert preamble.strip(b"wo three") == b" three"


@pytest.mark.parametrize("elevated", [False, True])
@pytest.mark.parametrize("script", ["true", "true\ntrue", "true " + "#" * 5000])
def test_no_echo_of_a_command_is_a_mark(elevated: bool, script: str) -> None:
    settings = Settings(sudo=elevated, sudo_password="x" if elevated else None)
    call = channel._compose(settings, StringCommand(script), None, 60)
    sent = call.line.encode() + call.head + call.body
    assert call.marker
    assert call.marker not in sent
    assert not call.prompt or call.prompt not in sent
    assert call.marker != channel._compose(settings, StringCommand(script), None, 60).marker


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=60))
def test_sudos_login_shell_changes_nothing_of_a_command(text: str) -> None:
    """sudo -i puts a backslash before all that is not plain, but for the dollar sign."""
    script = f'printf %s {shlex.quote(text)}; printf %s $((1 + 1)) "${{HOME:-x}}"'
    word = channel._encode_script(script)
    escaped = "".join(c if c.isalnum() or c in "_-$" else f"\\{c}" for c in word)
    done = subprocess.run(
        ["sh", "-c", f"sh -c {escaped}"], env={"PATH": "/usr/bin:/bin"}, capture_output=True
    )
    assert done.stdout.decode() == f"{text}2x"


def test_a_stream_is_read_up_to_the_mark_and_no_byte_further() -> None:
    mark = make_marker()
    noise = "yes welcome | head -c 300000; printf %s " + mark.value.decode()[:20] + "; "
    process = LocalProcess(f"{noise}{mark.command} printf abc; cat")
    assert skip(process, mark.value).over
    assert process.read(1) == b"a"
    assert process.read(2) == b"bc"
    process.close()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_shells_of_a_command_do_not_talk(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "profile"
    profile.write_text("echo welcome; echo warning >&2\n")
    monkeypatch.setenv("BASH_ENV", str(profile))
    monkeypatch.setenv("ENV", str(profile))
    with local(_shell_executable=shell) as host:
        for script in ("bash -c 'echo a'", "bash -c 'echo a'\ntrue"):
            assert run(host, script) == (0, b"a\n", b"")


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_what_would_steer_docker_is_taken_out_and_named(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "tcp://192.0.2.1:2375; echo 'x\n\"$(echo y)"
    for name in ("DOCKER_HOST", "COMPOSE_FILE", "COMPOSE_PROFILES"):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_CONFIG", "/srv/docker")
    script = f'env | grep -a -e ^DOCKER_ -e ^COMPOSE_ | sort; echo "${IGNORED}"'
    with local(_shell_executable=shell) as host:
        kept = "DOCKER_CONFIG=/srv/docker\nDOCKER_CONTEXT=default\n"
        assert run(host, script).text == f"{kept} DOCKER_HOST COMPOSE_FILE COMPOSE_PROFILES\n"
        # What the settings say is meant.
        said = run(host, script, _env={"DOCKER_HOST": "tcp://192.0.2.9:1"}).text
        assert "DOCKER_HOST=tcp://192.0.2.9:1\n" in said
    assert value not in said


def test_a_command_that_another_one_takes_the_place_of_has_not_run() -> None:
    """As a forced command of sshd's does: by its status it went well."""
    call = channel._compose(Settings(), StringCommand("echo ours"), None, 60)
    for instead, said in (("echo backups only", "backups only"), ("set -v; echo $1", "printf")):
        process = LocalProcess(f"set -- {shlex.quote(call.line)}; {instead}")
        preamble = skip(process, call.marker)
        assert not preamble.over
        assert said.encode() in preamble.before
        process.close()
