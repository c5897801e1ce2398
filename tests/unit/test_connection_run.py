"""One command, one process: bytes both ways, as whom, for how long, and seen by whom."""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyinfra.api import HiddenValue, QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.output import set_echo

from stackmend.connection import (
    CommandTimeout,
    PrivilegeError,
    UnsupportedConnector,
    run,
    spawn,
)
from tests.connected import connected, local

# The examples of one test may share its directory.
SHARED = [HealthCheck.function_scoped_fixture]

PASSWORD = "p'a \"$(id)\\ß"

# What sudo does with its standard input when it is told -S: it reads one line for each attempt,
# byte by byte, and asks anew up to three times. How it decides is left in files.
SUDO = r"""#!/bin/bash
log=${0%/*}
echo "$*" >>"$log/arguments"
prompt=; stdin=; noninteractive=
while :; do case $1 in
    -p) prompt=$2; shift 2;;
    -S) stdin=1; shift;;
    -n) noninteractive=1; shift;;
    -u) shift 2;;
    -*) shift;;
    *) break;;
esac; done
case $(cat "$log/policy") in
    free) exec "$@";;
    never) echo "sudo: you are not in the sudoers file" >&2; exit 1;;
esac
[ -z "$noninteractive" ] || { echo "sudo: a password is required" >&2; exit 1; }
for attempt in 1 2 3; do
    printf %s "${prompt//%%/%}" >&2
    IFS= read -r answer || break
    printf '%s\n' "$answer" >>"$log/attempts"
    [ "$answer" != "$(cat "$log/password")" ] || exec "$@"
    echo "Sorry, try again." >&2
done
echo "sudo: $attempt incorrect password attempts" >&2
exit 1
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with local() as host:
        yield host


@pytest.fixture
def sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "sudo"
    program.write_text(SUDO)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "policy").write_text("asks")
    (tmp_path / "password").write_text(PASSWORD)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=300_000))
def test_input_and_output_are_bytes_of_any_size(data: bytes) -> None:
    with local() as host:
        assert run(host, "cat", stdin=data).stdout == data


def test_output_comes_before_all_input_is_read(host: Host) -> None:
    data = os.urandom(4_000_000)
    result = run(host, "tee /dev/stderr", stdin=data)
    assert result.stdout == data
    assert result.stderr == data


def test_a_command_that_does_not_read_its_input_is_no_error(host: Host) -> None:
    assert run(host, "exit 3", stdin=bytes(5_000_000)).status == 3


def test_without_input_there_is_an_end_and_not_the_script(host: Host) -> None:
    assert run(host, "cat; echo; cat").stdout == b"\n"
    assert run(host, "cat\n" + "# padding\n" * 2000 + "cat; echo end").stdout == b"end\n"


@pytest.mark.parametrize("size", [10, 4_000, 5_000, 99_000, 130_000, 3_000_000])
def test_a_command_of_any_length(host: Host, size: int) -> None:
    value = "é'\n" * (size // 4)
    result = run(host, StringCommand("printf", "%s", QuoteString(value)))
    assert result.text == value


def test_a_very_long_command_cannot_be_given_input(host: Host) -> None:
    with pytest.raises(ValueError, match="cannot also be given input"):
        run(host, "true" + " " * 200_000, stdin=b"")


def test_status_and_streams(host: Host) -> None:
    result = run(host, "printf out; printf err >&2; exit 7")
    assert result == (7, b"out", b"err")
    assert not result.ok
    assert (result.text, result.error_text) == ("out", "err")
    assert run(host, "kill -9 $$").status == -1
    assert run(host, "printf '\\377'").text == "\ufffd"


def test_output_is_handed_on_as_it_comes(host: Host) -> None:
    arrived: list[tuple[float, bytes]] = []
    run(
        host,
        "echo a; sleep 0.3; echo b",
        on_stdout=lambda data: arrived.append((time.time(), data)),
    )
    assert [data for _, data in arrived] == [b"a\n", b"b\n"]
    assert arrived[1][0] - arrived[0][0] > 0.2


awkward = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40
) | st.sampled_from(
    ["$(touch pwned)", "`id`", "'", '"', "-n", "a\nb", "\\", "; exit 9", "ß 漢 \u202e"]
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=awkward, directory=awkward.filter(lambda name: name not in ("", ".", "..")))
def test_environment_and_directory_arrive_exactly(
    tmp_path: Path, value: str, directory: str
) -> None:
    where = tmp_path / directory.replace("/", "_")[:40]
    where.mkdir(exist_ok=True)
    with local() as host:
        result = run(
            host, 'printf "%s\\0%s" "$V" "$(pwd; echo .)"', _chdir=str(where), _env={"V": value}
        )
    assert result.stdout == value.encode() + b"\0" + str(where).encode() + b"\n."


def test_a_directory_that_is_not_there_stops_the_command(host: Host) -> None:
    result = run(host, "echo ran", _chdir="/nowhere")
    assert result.status != 0
    assert result.stdout == b""


def test_a_time_limit_ends_the_command_and_its_children(host: Host) -> None:
    mark = "71.0717"
    started = time.monotonic()
    with pytest.raises(CommandTimeout) as caught:
        run(host, f"echo partial; sleep {mark} & sleep {mark}", timeout=2)
    assert time.monotonic() - started < 30
    assert caught.value.stdout == b"partial\n"
    assert isinstance(caught.value, TimeoutError)
    assert "did not end within 2 s" in str(caught.value)
    assert run(host, f"pgrep -f '[s]leep {mark}'").stdout == b""


def test_a_command_that_ignores_the_signal_is_killed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackmend.connection.channel.KILL_AFTER", 1)
    with pytest.raises(CommandTimeout):
        run(host, "trap '' TERM; while :; do sleep 0.1; done", timeout=0.3)


def test_an_exit_status_like_that_of_timeout_is_no_timeout(host: Host) -> None:
    assert run(host, "exit 124", timeout=20).status == 124


def test_the_limit_of_the_operation_counts(host: Host) -> None:
    with pytest.raises(CommandTimeout):
        run(host, "sleep 20", _timeout=1)


def test_what_is_hidden_stays_out_of_argument_lists(host: Host) -> None:
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c 'geheimn[i]s'; true;"
    command = StringCommand(look, "printf", "%s", QuoteString(HiddenValue("geheimnis")))
    assert run(host, command).text == "0\ngeheimnis"
    shown = run(host, look + ' printf %s "$S"', _env={"S": HiddenValue("geheimnis")})
    assert shown.text == "0\ngeheimnis"
    with pytest.raises(ValueError, match="secret") as caught:
        run(host, command, stdin=b"x")
    assert "geheimnis" not in str(caught.value)


def test_what_is_printed_is_masked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    set_echo(lambda message=None, **_: printed.append(str(message)))
    monkeypatch.setattr(host.state, "print_input", True)
    monkeypatch.setattr(host.state, "print_output", True)
    try:
        run(host, StringCommand("echo shown; : ", QuoteString(HiddenValue("geheimnis"))))
    finally:
        set_echo(lambda message=None, **_: None)
    assert len(printed) == 2
    assert "echo shown" in printed[0]
    assert "geheimnis" not in printed[0]
    assert printed[1].endswith("shown")


def test_arguments_come_from_the_operation_the_host_and_the_command(host: Host) -> None:
    host.current_op_global_arguments = {"_env": {"V": "operation"}}  # type: ignore[typeddict-item]
    try:
        assert run(host, "echo $V").text == "operation\n"
        assert run(host, "echo $V", _env={"V": "given"}).text == "given\n"
        own = StringCommand("echo $V", _env={"V": "command"})
        assert run(host, own).text == "command\n"
    finally:
        host.current_op_global_arguments = None
    with local(_chdir="/usr") as other:
        assert run(other, "pwd").text == "/usr\n"


def test_what_is_not_pyinfras_is_refused(host: Host) -> None:
    with pytest.raises(TypeError, match="user"):
        run(host, "true", user="me")
    with pytest.raises(PrivilegeError, match="_sudo_user"):
        run(host, "true", _su_user="nobody")


def test_a_connector_without_channels_is_refused() -> None:
    with connected("@chroot//") as other, pytest.raises(UnsupportedConnector, match="@ssh"):
        run(other, "true")


@pytest.mark.slow
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=100_000) | st.sampled_from([b"\n", b"no newline", b"a\n\nb"]),
       policy=st.sampled_from(["asks", "free"]))  # fmt: skip
def test_the_password_never_mixes_with_the_input(sudo: Path, data: bytes, policy: str) -> None:
    (sudo / "policy").write_text(policy)
    with local(_sudo=True, _sudo_password=PASSWORD) as host:
        assert run(host, "cat; printf err >&2; exit 5", stdin=data) == (5, data, b"err")
        assert run(host, "cat; echo " + "x" * 6000).text == "x" * 6000 + "\n"
        assert run(host, "cat").stdout == b""


def test_the_password_is_in_no_argument_list_and_no_message(sudo: Path) -> None:
    with local(_sudo=True, _sudo_password=PASSWORD) as host:
        everything = run(host, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null")
        assert PASSWORD.encode() not in everything.stdout
        assert PASSWORD not in repr(run(host, "false"))
    assert PASSWORD not in (sudo / "arguments").read_text()
    with local(_sudo=True, _sudo_password="wrong-secret") as host:
        with pytest.raises(PrivilegeError) as caught:
            run(host, "echo ran")
        assert "wrong-secret" not in str(caught.value)


def test_a_wrong_password_is_tried_once_and_the_input_is_never_tried(sudo: Path) -> None:
    with (
        local(_sudo=True, _sudo_password="wrong") as host,
        pytest.raises(PrivilegeError, match="refused the password"),
    ):
        run(host, f"touch {shlex.quote(str(sudo / 'ran'))}", stdin=b"line\nline\n")
    assert (sudo / "attempts").read_text() == "wrong\n"
    assert not (sudo / "ran").exists()


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_user_who_may_not_is_told_in_sudos_words(sudo: Path, password: str | None) -> None:
    (sudo / "policy").write_text("never")
    with (
        local(_sudo=True, _sudo_password=password) as host,
        pytest.raises(PrivilegeError, match="not in the sudoers file"),
    ):
        run(host, "true")


def test_a_missing_password_is_asked_for_once(sudo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(
        "stackmend.connection.channel.getpass", lambda prompt: asked.append(prompt) or PASSWORD
    )
    with local(_sudo=True) as host:
        assert run(host, "echo a").text == "a\n"
        assert run(host, "echo b").text == "b\n"
    assert len(asked) == 1
    assert "@local" in asked[0]


def test_a_missing_password_without_a_terminal_is_an_error_with_the_way_out(sudo: Path) -> None:
    with local(_sudo=True) as host, pytest.raises(PrivilegeError, match="_sudo_password"):
        run(host, "true")


def test_time_limits_are_set_on_the_far_side_of_sudo(sudo: Path) -> None:
    with local(_sudo=True, _sudo_password=PASSWORD) as host:
        with pytest.raises(CommandTimeout):
            run(host, "sleep 30", timeout=0.5)
        assert run(host, "cat", stdin=b"x", timeout=9).stdout == b"x"
    assert "timeout -k" in (sudo / "arguments").read_text().splitlines()[0]


@pytest.mark.parametrize("policy", ["asks", "free"])
def test_a_command_held_open(sudo: Path, policy: str) -> None:
    (sudo / "policy").write_text(policy)
    with (
        local(_sudo=True, _sudo_password=PASSWORD) as host,
        spawn(host, 'while read -r a; do echo "<$a>"; done; echo over >&2; exit 4') as stream,
    ):
        for word in (b"one", b"two"):
            stream.write(word + b"\n")
            assert stream.read() == b"<" + word + b">\n"
        assert not stream.closed
        stream.close_stdin()
        assert stream.read() == b""
        assert stream.wait() == 4
        assert stream.closed
        assert stream.error_text.endswith("over\n")


def test_what_is_held_open_ends_with_its_holder(host: Host, tmp_path: Path) -> None:
    with spawn(host, f"cat; touch {shlex.quote(str(tmp_path / 'over'))}"):
        assert not (tmp_path / "over").exists()
    deadline = time.monotonic() + 30
    while not (tmp_path / "over").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_cannot_be_held_open_says_why(sudo: Path) -> None:
    (sudo / "policy").write_text("never")
    with local(_sudo=True) as host, pytest.raises(PrivilegeError, match="sudoers"):
        spawn(host, "cat")
