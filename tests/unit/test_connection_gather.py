"""Many facts in one script: frames that nothing written by a fact can break."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api import FactBase, FactProcessError, ShortFactBase, StringCommand
from pyinfra.api.host import Host
from pyinfra.facts import files, server

from stackmend.connection import Unknown, fetch_facts, read
from stackmend.connection.fetching import Section, join, split
from tests.connected import local

TOKEN = "c0ffee" * 5


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with local() as host:
        yield host


def shell(script: str, argv: Sequence[str] = ("sh",)) -> tuple[bytes, bytes]:
    done = subprocess.run([*argv, "-s"], input=script.encode(), capture_output=True, timeout=30)
    return done.stdout, done.stderr


def writes(out: bytes, err: bytes, status: int) -> str:
    def octal(data: bytes) -> str:
        return "".join(f"\\{byte:03o}" for byte in data)

    return f"printf '{octal(out)}'; printf '{octal(err)}' >&2; exit {status}"


class Lines(FactBase[list[str]]):
    def command(self, text: str) -> str:
        return text

    def process(self, output: list[str]) -> list[str]:
        return output

    @staticmethod
    def default() -> list[str]:
        return ["the default"]


class Raises(Lines):
    def process(self, output: list[str]) -> list[str]:
        raise KeyError(output[0])


class Refuses(Lines):
    def process(self, output: list[str]) -> list[str]:
        raise FactProcessError("two\nlines")


class NeedsMissing(Lines):
    def requires_command(self, *args: object, **kwargs: object) -> str:
        return "no-such-program"


class NeedsShell(Lines):
    def requires_command(self, *args: object, **kwargs: object) -> str:
        return "sh"


class Unready(Lines):
    def check_preconditions(self, state: object, host: object) -> str:
        return "the module is not loaded"


class Attribute(FactBase[str]):
    command = "echo from an attribute"


class Short(ShortFactBase[int]):
    fact = Lines

    def process_data(self, data: list[str]) -> int:
        return len(data)


class InBash(Lines):
    shell_executable = "bash"


contents = st.binary(max_size=60) | st.sampled_from(
    [b"\n", b"\n\n", f"\n{TOKEN[:-1]} 0 0\n".encode(), b"\n%s 0 0\n", b"\0\n\0", b"\r\n", b"\xff\n"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(contents, contents, st.integers(0, 255)), min_size=1, max_size=5))
def test_what_is_written_comes_back_byte_for_byte(written: list[tuple[bytes, bytes, int]]) -> None:
    stdout, stderr = shell(join([(writes(*each), None, 30) for each in written], TOKEN))
    expected = [Section(out, err, str(status)) for out, err, status in written]
    assert split(stdout, stderr, TOKEN, len(written)) == expected


@settings(deadline=None)
@given(st.lists(contents, min_size=1, max_size=4), st.data())
def test_a_stream_cut_short_never_gives_a_wrong_section(
    written: list[bytes], data: st.DataObject
) -> None:
    stdout = f"\n{TOKEN} begin\n".encode() + b"".join(
        out + f"\n{TOKEN} {index} 0\n".encode() for index, out in enumerate(written)
    )
    cut = stdout[: data.draw(st.integers(0, len(stdout)))]
    for section, out in zip(split(cut, b"", TOKEN, len(written)), written, strict=True):
        assert section.status is None or section.stdout == out


@pytest.mark.parametrize(
    "hostile",
    [
        "exit 9",
        "set -e; false; echo not reached",
        "cd /; umask 0; PATH=/nowhere; LC_ALL=none",
        "__frame=oops; __status=9",
        "printf() { echo mine; }; alias printf=false",
        "exec >/dev/null",
        "exec >&- 2>&-",
        "trap 'echo late' EXIT",
        "cat; read -r line; cat",
        "if [ 1 ]; then",
        "echo 'never closed",
        "cat <<EOF\nno end",
        "( ( echo",
        "} ; {",
        "echo \\",
        "kill -9 $(sh -c 'echo $PPID')",
        "# only a comment",
        "return 3",
        "break; continue",
        "printf 'no newline'",
        "sleep 0.2 &",
        "IFS=0123456789abcdef",
        "set -u; set -f; set -- a b",
    ],
)
def test_a_hostile_fact_leaves_its_neighbours_alone(hostile: str, each_shell: list[str]) -> None:
    echo = 'printf "%s" "$PWD|$#|"; cat'
    alone = split(*shell(join([(echo, None, 30)], TOKEN), each_shell), TOKEN, 1)[0]
    assert alone.status == "0"
    before, middle, after = split(
        *shell(join([(echo, None, 30), (hostile, None, 30), (echo, None, 30)], TOKEN), each_shell),
        TOKEN,
        3,
    )
    assert before == alone
    assert after == alone
    assert middle.status is not None


def test_the_end_of_the_whole_script_is_told_from_an_empty_output() -> None:
    script = join(
        [
            ("echo a", None, 30),
            ("kill -9 $STACKMEND_READER; sleep 1", None, 30),
            ("echo b", None, 30),
        ],
        TOKEN,
    )
    first, second, third = split(*shell(script), TOKEN, 3)
    assert first == Section(b"a\n", b"", "0")
    assert second.status is None
    assert third.status is None


def test_what_a_profile_says_first_belongs_to_nobody() -> None:
    stdout, stderr = shell("echo welcome; echo warning >&2\n" + join([("echo a", None, 30)], TOKEN))
    assert split(stdout, stderr, TOKEN, 1) == [Section(b"a\n", b"", "0")]


def test_values_and_reasons(host: Host) -> None:
    cases: list[tuple[type, dict[str, str], object]] = [
        (Lines, {"text": "echo a; echo; echo ' b '"}, ["a", "", " b "]),
        (Lines, {"text": "printf 'a\\r\\nb'"}, ["a\r", "b"]),
        (Lines, {"text": "printf '\\377\\n'"}, ["\ufffd"]),
        (Lines, {"text": "true"}, ["the default"]),
        (Lines, {"text": "echo no >&2; exit 3"}, Unknown("exit status 3: no")),
        (Lines, {"text": "echo said; false"}, Unknown("exit status 1: said")),
        (Raises, {"text": "echo x"}, Unknown("not understood: KeyError: 'x'")),
        (Refuses, {"text": "echo x"}, Unknown("not understood: two lines")),
        (NeedsMissing, {"text": "echo x"}, ["the default"]),
        (NeedsShell, {"text": "echo x; exit 1"}, Unknown("exit status 1: x")),
        (Unready, {"text": "echo x"}, Unknown("the module is not loaded")),
        (Attribute, {}, "from an attribute"),
        (Short, {"text": "echo a; echo b"}, 2),
        (Short, {"text": "false"}, Unknown("exit status 1")),
        (InBash, {"text": "a=(1 2); echo ${#a[@]}"}, ["2"]),
    ]
    values = fetch_facts(host, [(fact, kwargs) for fact, kwargs, _ in cases])
    assert values == [expected for _, _, expected in cases]


def test_pyinfras_own_facts_say_what_pyinfra_says(host: Host) -> None:
    wanted: list[tuple[type, dict[str, str]]] = [
        (server.Hostname, {}),
        (server.Kernel, {}),
        (server.Users, {}),
        (server.Groups, {}),
        (server.LinuxDistribution, {}),
        (server.Os, {}),
        (server.Which, {"command": "sh"}),
        (server.Which, {"command": "no-such-program"}),
        (server.LinuxName, {}),
        (files.File, {"path": "/etc/passwd"}),
        (files.File, {"path": "/nowhere"}),
        (files.Directory, {"path": "/etc"}),
        (files.Link, {"path": "/etc/passwd"}),
        (files.FindFiles, {"path": "/etc/apt"}),
        (files.Sha256File, {"path": "/etc/passwd"}),
        (files.FileContents, {"path": "/etc/passwd"}),
    ]
    values = fetch_facts(host, wanted)
    assert values == [host.get_fact(fact, **kwargs) for fact, kwargs in wanted]


def test_wrong_arguments_are_the_callers_mistake(host: Host) -> None:
    with pytest.raises(TypeError):
        fetch_facts(host, [(Lines, {"wrong": "echo"})])
    with pytest.raises(TypeError):
        read(host, dict)


def test_one_question_put_twice_is_asked_once(host: Host, tmp_path: object) -> None:
    counting = {"text": f"echo x >>{tmp_path}/times; cat {tmp_path}/times"}
    assert fetch_facts(host, [(Lines, counting), (Lines, counting)]) == [["x"], ["x"]]


def test_a_masked_value_reaches_the_host_and_no_argument_list(host: Host) -> None:
    from pyinfra.api import HiddenValue, QuoteString

    class Secret(Lines):
        def command(self) -> StringCommand:  # type: ignore[override]
            look = "grep -lsz 'hidden-v[a]lue' /proc/[0-9]*/cmdline | wc -l; echo"
            return StringCommand(look, QuoteString(HiddenValue("hidden-value")))

    assert fetch_facts(host, [(Secret, {})]) == [["0", "hidden-value"]]
