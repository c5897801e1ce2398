"""What a host says may hold anything; shown, it steers no terminal and fills no screen."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.text import make_lines_printable, make_printable

FOREIGN = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\x00\x07\x08\r\n\t\x1b\x7f\x85\x9b\x9d\u202e\u2066\u2028\u2029\ufeff\ud800"
        ),
    ),
    max_size=60,
)
#: Categories of characters that steer or cannot be seen.
STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
#: Format characters that are seen: signs of Arabic, Syriac, Kaithi, hieroglyphs, shorthand, music.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
SEEN |= {*range(0x13430, 0x13460), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)}


def steers(text: str) -> set[str]:
    return {
        character
        for character in text
        if unicodedata.category(character) in STEERING and ord(character) not in SEEN
    }


@settings(deadline=None)
@given(FOREIGN)
def test_nothing_in_one_line_steers_a_terminal(text: str) -> None:
    assert steers(make_printable(text)) == set()


@settings(deadline=None)
@given(FOREIGN)
def test_lines_and_tabs_stay_where_there_are_several(text: str) -> None:
    shown = make_lines_printable(text)
    assert steers(shown) <= {"\n", "\t"}
    assert shown.count("\n") == text.count("\n")


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=60))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    seen = "".join(c for c in text if c not in "\u115f\u1160\u3164\uffa0")
    assert make_printable(seen) == make_lines_printable(seen) == seen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
        ("\x9b31m", r"\x9b31m"),
        ("50%\r100%", r"50%\r100%"),
        ("a\x00b", r"a\x00b"),
        ("exe\u202etxt.sh", r"exe\u202etxt.sh"),
        ("half \ud83d", r"half \ud83d"),
        ("two\nlines\tand a tab", r"two\nlines\tand a tab"),
        ("\U000e0041", r"\U000e0041"),
        ("naïve ünïcode 日本 🙂", "naïve ünïcode 日本 🙂"),
    ],
)
def test_a_value_is_one_line(text: str, shown: str) -> None:
    assert make_printable(text) == shown


def test_a_long_line_is_cut_and_says_by_how_much() -> None:
    assert make_printable("x" * 10_000_000, 1000) == "x" * 1000 + "… (9,999,000 more characters)"
    assert make_lines_printable("a\n" + "x" * 30 + "\nb", limit=10).split("\n") == [
        "a",
        "xxxxxxxxxx… (20 more characters)",
        "b",
    ]


def test_of_many_lines_the_last_ones_are_shown() -> None:
    text = "\n".join(map(str, range(1000)))
    assert make_lines_printable(text, lines=3) == "… (997 earlier lines)\n997\n998\n999"


def test_line_ends_of_another_system_are_no_control_characters() -> None:
    assert make_lines_printable("one\r\ntwo\r\n") == "one\ntwo\n"
