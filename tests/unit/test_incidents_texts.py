"""A pasted error gets its incident: as people meet it, and whatever somebody pastes."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend import redaction
from stackmend.incidents import Incident, TextPattern, diagnose_text, list_incidents
from stackmend.incidents.known import KNOWN
from stackmend.incidents.texts import MAXIMUM, rank
from stackmend.text import VALUE_LIMIT
from tests import hostile

EXAMPLES = [
    (incident.id, example)
    for incident in KNOWN
    for pattern in incident.patterns
    for example in pattern.examples
]
IDS = {incident.id for incident in KNOWN}
TEXTS = yaml.safe_load(Path(__file__).with_name("error_texts.yaml").read_text(encoding="utf-8"))

#: Classes of trouble with the outside world, and what their texts are to be diagnosed as.
FAULTS = {
    "name": "network-outside",
    "timeout": "network-outside",
    "reset": "network-outside",
    "empty-reply": "network-outside",
    "route": "network-outside",
    "ipv6": "network-outside",
    "proxy": "network-outside",
    "portal": "network-outside",
    "outage": "network-outside",
    "clock": "clock-skew",
    "rate-limit": "rate-limited",
}
#: A bare gaierror names no host: it may be a service's as well.
NAMELESS = "socket.gaierror: [Errno -2] Nome ou serviço desconhecidos"


def names(text: str) -> list[str]:
    return [match.incident for match in diagnose_text(text)]


@pytest.mark.parametrize("incident", KNOWN, ids=lambda incident: incident.id)
def test_every_incident_has_patterns_and_each_matches_its_examples(incident: Incident) -> None:
    assert incident.patterns
    for pattern in incident.patterns:
        for example in pattern.examples:
            assert pattern.search(example.lower()), example


@pytest.mark.parametrize(("incident", "example"), EXAMPLES)
def test_an_example_is_diagnosed_as_its_own_incident_first(incident: str, example: str) -> None:
    assert names(example)[0] == incident
    # As some consoles and file systems write accents.
    assert names(unicodedata.normalize("NFD", example))[0] == incident
    assert names(example.upper())[0] == incident


@pytest.mark.parametrize(
    ("text", "incident"),
    [
        (text, FAULTS[fault])
        for fault, entries in TEXTS.items()
        for entry in entries
        for text in entry.values()
        if fault in FAULTS and text != NAMELESS
    ],
)
def test_errors_of_the_outside_world_are_known(text: str, incident: str) -> None:
    assert names(text)[0] == incident


def test_mangled_accents_are_read_as_well() -> None:
    text = "wsarecv: Foi forçado o cancelamento de uma conexão existente pelo host remoto."
    mangled = text.encode().decode("cp850")
    assert mangled != text
    assert names(mangled) == ["network-outside"]


@pytest.mark.parametrize("text", ["", " \n ", "all is well", "\x1b[0m\r\n", "port 8000 is free"])
def test_what_is_no_trouble_has_no_incident(text: str) -> None:
    assert diagnose_text(text) == ()


def test_a_match_says_which_line_and_what_to_do() -> None:
    text = "Creating network\nError: Bind for 0.0.0.0:8000 failed: port is already allocated\nbye"
    (match,) = diagnose_text(text)
    assert match.incident == "port-taken"
    assert match.number == 2
    assert match.line == "Error: Bind for 0.0.0.0:8000 failed: port is already allocated"
    assert match.severity == "error"
    assert match.remedy.startswith("stop what holds the port")
    assert '"ports": ' in match.inventory
    assert match.proof


def test_the_cause_stands_before_what_it_causes() -> None:
    text = "ai-api-1 Restarting (1) 4 seconds ago\nwrite /data: no space left on device"
    assert names(text) == ["disk-full", "restart-loop"]


def test_colours_between_words_are_no_obstacle() -> None:
    assert names("port is \x1b[31malready\x1b[0m allocated") == ["port-taken"]


def test_the_end_of_a_long_text_counts_and_its_lines_are_numbered_from_its_beginning() -> None:
    lines = MAXIMUM // 4
    (match,) = diagnose_text("\nabc" * lines + "\nport is already allocated")
    assert match.number == lines + 2
    assert names("port is already allocated" + "\nabc" * lines) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([example for _, example in EXAMPLES]),
            hostile.hostile_text(nul=True, longest=5000),
            st.text(max_size=50),
        ),
        max_size=8,
    ).map("".join)
)
def test_whatever_is_pasted_gives_safe_lines_of_known_incidents(text: str) -> None:
    matches = diagnose_text(text)
    assert len({match.incident for match in matches}) == len(matches)
    for match in matches:
        assert match.incident in IDS
        assert len(match.line) <= 10 * VALUE_LIMIT
        assert not [c for c in match.line if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
        assert 1 <= match.number <= text.count("\n") + 1


#: What repeats a pattern's own words, cut short of a match, is what backtracking is worst at.
CUT = [
    *("x", "(" * 7, "https://a.b ", "host='a', port=1", "connecterror ", "dial tcp: lookup a"),
    *(example[:-2] for _, example in EXAMPLES),
]


@pytest.mark.slow
def test_no_text_takes_long_whatever_it_repeats() -> None:
    for unit in CUT:
        text = unit * (16_384 // len(unit))
        began = time.process_time()
        diagnose_text(text)
        assert time.process_time() - began < 1.5, unit


def test_a_text_of_the_largest_size_is_read_in_seconds() -> None:
    began = time.process_time()
    diagnose_text("".join(CUT) * (MAXIMUM // sum(map(len, CUT))))
    assert time.process_time() - began < 15


def test_text_beyond_the_limit_costs_nothing() -> None:
    began = time.process_time()
    assert diagnose_text("port is already allocated" + "connecterror " * 4_000_000) == ()
    assert time.process_time() - began < 15


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "is no regular expression"),
        ("a?", "matches the empty text"),
        ("a.*b", "repeats without an end"),
        ("a+b", "repeats without an end"),
        ("ab{2,}", "repeats without an end"),
        ("(ab){1,9}c", "repeats a group"),
        (".{1,90}a.{1,90}", "may match in 8100 ways"),
        ("(?:a|aa)" * 13 + "c", "may match in 8192 ways"),
        ("(?:a|(?:aa|a{1,3}))" * 6 + "c", "may match in 15625 ways"),
        ("(a|aa)(?=a|aa)" * 7 + "c", "may match in 16384 ways"),
        ("a?" * 13 + "c", "may match in 8192 ways"),
        ("(?:ab)?+c", "repeats a group"),
        ("a++b", "repeats without an end"),
        ("Port", "must be in small letters"),
    ],
)
def test_a_pattern_that_could_take_long_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TextPattern(pattern=pattern, examples=("x",))


@pytest.mark.parametrize(
    "pattern",
    ["\\+a\\*", "[*+]a", "a\\D", "a{1,9}+b", "a (?:b|c)?d", "a?+b", "a|b|c" * 20, "[|(]{1,3}a"],
)
def test_what_only_seems_to_take_long_is_taken(pattern: str) -> None:
    TextPattern(pattern=pattern, examples=("x",))


def test_incidents_that_cause_each_other_have_an_order_all_the_same() -> None:
    def make(name: str, *explains: str) -> Incident:
        return Incident(
            id=name, title="x", severity="error", explains=explains, remedy="x", proof="x"
        )

    circle = [make("a", "b"), make("b", "c"), make("c", "a"), make("d", "a")]
    assert rank(circle) == {"a": 3, "b": 3, "c": 3, "d": 0}


def test_what_an_incident_explains_is_an_incident() -> None:
    for incident in KNOWN:
        assert {*incident.explains} <= IDS - {incident.id}, incident.id
    # No known one causes itself by way of others.
    order = rank(KNOWN)
    for incident in KNOWN:
        for name in incident.explains:
            assert order[name] > order[incident.id], (incident.id, name)


def test_ids_are_unique_and_one_of_a_user_takes_the_place_of_ours() -> None:
    assert len(IDS) == len(KNOWN)
    own = KNOWN[0].model_copy(update={"title": "mine"})
    listed = list_incidents([own])
    assert listed[0].title == "mine"
    assert [each.id for each in listed].count(own.id) == 1
    assert len(listed) == len(KNOWN)


LOGIN = "redis://:hunter2secret@redis:6379/0 password=hunter2"


@pytest.mark.parametrize("before", ["", "x " * 400, "x" * 100])
def test_a_line_is_shown_without_what_looks_like_a_secret(before: str) -> None:
    (match,) = diagnose_text(f"{before}{LOGIN} port is already allocated")
    assert "hunter2" not in match.line
    assert "port is already allocated" in match.line


def test_half_of_a_secret_is_not_shown_where_a_long_line_is_cut() -> None:
    redaction.register("the-first-half-and-the-second-half")
    for width in range(60, 130):
        text = (
            f"the-first-half-and-the-second-half{'.' * width} port is already allocated{'.' * 500}"
        )
        (match,) = diagnose_text(text)
        assert "second-half" not in match.line
        assert "port is already allocated" in match.line


@pytest.mark.parametrize(("incident", "example"), EXAMPLES)
def test_an_example_is_one_too_without_what_looks_like_a_secret(
    incident: str, example: str
) -> None:
    assert names(redaction.format_foreign_line(example))[0] == incident
