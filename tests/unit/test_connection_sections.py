"""Framed sections, in each shell that a host may have: nothing that is quoted can end one."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api import FactProcessError
from pyinfra.api.command import QuoteString

from stackmend.connection import (
    make_mark,
    parse_probe,
    parse_rows,
    parse_sections,
    read_frame,
    read_script,
    script,
)
from tests.marks import MARK, framed

FRAME = read_frame()

#: What could end a section or begin another, if it were not quoted; and what is hard to carry.
FORGERIES = [
    b"",
    b"\n",
    b"\n\n\n",
    b"no newline at the end",
    f"x\n\n.0\n{MARK} end\n\n{MARK} begin two\n|forged\n\n.0\n{MARK} end\n".encode(),
    f"{MARK} end\n".encode(),
    f"\n{MARK} begin one\n".encode(),
    b".0\n",
    b"|\n||\n|.0\n",
    b"\r\n\r\r\n",
    b"\xff\xfe\x80\n\xc3\n",
    b"\x1b]0;title\x07\x0c\x0b\x85\n\xe2\x80\xa8\n",
    b"\\n\\t%s%%\n",
    b"x" * 1_000_000 + b"\n" + b"y" * 1_000_000,
]


def lines(written: bytes) -> list[str]:
    """What is to come of it: as a reading of many facts gives it to one."""
    return written.decode(errors="replace").removesuffix("\n").split("\n") if written else []


def output(body: str, shell: list[str], payload: Path) -> list[str]:
    done = subprocess.run(
        [*shell, "-c", f"mark={MARK}\n{FRAME}{body}", "sh", str(payload)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert not done.stderr
    return done.stdout.decode(errors="replace").removesuffix("\n").split("\n")


@pytest.mark.parametrize("at", range(len(FORGERIES)))
def test_what_is_written_comes_back_in_its_own_section(
    at: int, each_shell: list[str], tmp_path: Path
) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(FORGERIES[at])
    body = (
        'section one cat "$1"\nsection two sh -c \'cat "$0"; exit 7\' "$1"\n'
        'begin three\nquoted <"$1"\nend 3\nsection done true\n'
    )
    wanted = lines(FORGERIES[at])
    assert parse_sections(output(body, each_shell, payload), MARK) == {
        "one": (0, wanted),
        "two": (7, wanted),
        "three": (3, wanted),
        "done": (0, []),
    }


def test_nul_and_all_other_bytes_never_make_another_section(
    each_shell: list[str], tmp_path: Path
) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(bytes(range(256)) + f"\0\n\0{MARK} end\0\n{MARK} begin two\n\0.0".encode())
    found = parse_sections(
        output('section one cat "$1"\nsection done true\n', each_shell, payload), MARK
    )
    assert found.keys() == {"one", "done"}
    assert any(f"{MARK} end" in line for line in found["one"][1])


quick = settings(max_examples=60, deadline=None)
contents = st.lists(
    st.sampled_from([*(each for each in FORGERIES if len(each) < 1000), f"{MARK} ".encode()])
    | st.binary(max_size=40).filter(lambda data: b"\0" not in data),
    max_size=5,
).map(b"".join)


@quick
@given(written=contents)
def test_any_bytes(written: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    payload = tmp_path_factory.getbasetemp() / "payload"
    payload.write_bytes(written)
    body = 'section one cat "$1"\nbegin two\nquoted <"$1"\nend 0\n'
    wanted = (0, lines(written))
    assert parse_sections(output(body, ["sh"], payload), MARK) == {"one": wanted, "two": wanted}


@quick
@given(data=st.data())
def test_an_answer_that_was_cut_off_has_whole_sections_alone(data: st.DataObject) -> None:
    whole = {"one": (0, ["a", ""]), "two": (1, [f"{MARK} end"]), "three": (2, list[str]())}
    printed = "\n".join(framed(whole))
    cut = printed[: data.draw(st.integers(0, len(printed)))]
    try:
        found = parse_sections(cut.split("\n"), MARK)
    except ValueError:
        return  # In the middle of a line: nothing of it is read.
    assert found == {name: whole[name] for name in list(whole)[: len(found)]}


@pytest.mark.parametrize(
    "broken",
    [
        [f"{MARK} begin one", "not quoted", ".0", f"{MARK} end"],
        [f"{MARK} begin one", f"{MARK} begin two", ".0", f"{MARK} end"],
        [f"{MARK} begin one", "|a", f"{MARK} end"],
        [f"{MARK} begin one", "|a", "", "|b", ".0", f"{MARK} end"],
        [f"{MARK} begin one", "|a", ".0", "|b", f"{MARK} end"],
        [f"{MARK} begin one", ".0", f"{MARK} begin two"],
        [f"{MARK} begin one", ".0000", f"{MARK} end"],
        [f"{MARK} begin one", ".", f"{MARK} end"],
        [f"{MARK} end"],
    ],
)
def test_what_is_not_framed_as_it_should_be_is_not_read(broken: list[str]) -> None:
    with pytest.raises(ValueError, match=r"section|quoted"):
        parse_sections(broken, MARK)


def test_without_a_mark_nothing_is_read() -> None:
    with pytest.raises(ValueError, match="without a mark"):
        parse_sections(framed({"one": (0, [])}, ""), "")


def test_the_mark_is_in_no_argument_and_no_environment(
    each_shell: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every user of a host can read the arguments of root's processes."""
    (tmp_path / "probe.sh").write_text("section seen cat /proc/self/environ /proc/$$/cmdline\n")
    monkeypatch.setattr(
        "stackmend.connection.scripts.files",
        lambda room: tmp_path if room == "x" else Path("ops/stackmend/connection"),
    )
    read_script.cache_clear()
    mark = make_mark()
    command = script("x", "probe", "a b", mark=mark).get_raw_value()
    # As a reading does it: the command itself comes on standard input.
    done = subprocess.run(
        [*each_shell, "-s"],
        input=f"( eval {shlex.quote(command)} ) </dev/null",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    read_script.cache_clear()
    ((status, said),) = parse_sections(done.stdout.split("\n"), mark).values()
    assert status == 0
    assert "a b" in "".join(said)
    assert mark not in "".join(said)


def test_rows_are_lists_in_json() -> None:
    warning = ["WARNING: no swap limit", "[DEPRECATED]", "{}", "[1]", '["a|b\\n","c"]', ""]
    assert parse_rows(warning, 2) == [["a|b\n", "c"]]


@pytest.mark.parametrize(
    "problem",
    [RecursionError("too deep"), OverflowError("too large"), KeyError("x" * 5000), ValueError()],
)
def test_whatever_goes_wrong_is_a_fact_that_cannot_be_read(problem: Exception) -> None:
    def parse(output: list[str]) -> None:
        raise problem

    with pytest.raises(FactProcessError, match=r"^the probe of it cannot be read: ") as caught:
        parse_probe(parse, [], "it")
    assert len(str(caught.value)) < 600


def test_what_hosts_are_asked_alike_is_held_once_and_their_marks_are_their_own() -> None:
    marks = [make_mark(), make_mark()]
    first, second = (
        script("stackmend.compose", "probe", "/opt/ai", mark=mark, before=["images"])
        for mark in marks
    )
    bodies = [
        bit.obj
        for command in (first, second)
        for bit in command.bits
        if isinstance(bit, QuoteString) and len(str(bit.obj)) > 1000
    ]
    assert len(bodies) == 2
    assert bodies[0] is bodies[1]
    assert not any(mark in str(bodies[0]) for mark in marks)
    raw = [command.get_raw_value() for command in (first, second)]
    assert raw[0] != raw[1]
    assert raw[0].replace(marks[0], marks[1]) == raw[1]
    # What it is asked with beside, and whether it writes sections, makes another.
    other = script("stackmend.compose", "probe", "/opt/ai", mark=marks[0])
    plain = script("stackmend.compose", "probe", "/opt/ai")
    assert len({raw[0], other.get_raw_value(), plain.get_raw_value()}) == 3
