"""What an error's text is called: the corpus, hostile texts, and the time that it takes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackmend import connectivity
from stackmend.connectivity.faults import TITLES
from stackmend.connectivity.texts import MAXIMUM, find_cause

CORPUS = yaml.safe_load(Path(__file__).with_name("error_texts.yaml").read_text(encoding="utf-8"))
TEXTS = [
    (name, text) for name, entries in CORPUS.items() for entry in entries for text in entry.values()
]
ERRORS = [(name, text) for name, text in TEXTS if name != "none"]
OTHERS = [text for name, text in TEXTS if name == "none"]


@pytest.mark.parametrize(("name", "text"), ERRORS)
def test_each_error_has_its_class(name: str, text: str) -> None:
    assert connectivity.classify(text) == name


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_about_something_else_has_none(text: str) -> None:
    assert connectivity.classify(text) is None


def test_the_corpus_is_as_large_as_promised() -> None:
    programs = {next(iter(entry)).split()[0] for entries in CORPUS.values() for entry in entries}
    assert {"git", "docker", "BuildKit", "pip", "curl", "apt", "ollama"} <= programs
    assert len(ERRORS) >= 60
    assert len(OTHERS) >= 20
    assert len({text for _, text in TEXTS}) == len(TEXTS)
    # What a diagnosis alone can tell is in no text.
    assert TITLES.keys() - {name for name, _ in ERRORS} == {
        "resolver", "dns-server", "dns-blocked", "loss", "mtu", "docker-proxy",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "text"), ERRORS)
def test_it_is_the_same_in_a_log_between_others(name: str, text: str) -> None:
    """Colours, carriage returns, what stands above and what follows change nothing."""
    log = (
        "#1 [internal] load build definition from Dockerfile\n"
        "curl: (22) The requested URL returned error: 418\n"
        f"#2 1.204 \x1b[31m{text}\x1b[0m\r\n"
        "exit status 128\nmake: *** [Makefile:3: pull] Error 1\n"
    )
    assert connectivity.classify(log) == name


@given(st.sampled_from(ERRORS), st.sampled_from(ERRORS))
def test_the_cause_at_the_bottom_wins(first: tuple[str, str], last: tuple[str, str]) -> None:
    # What only follows from a cause says nothing where one stands above it.
    following = ("early eof", "eof prematuro", "hung up", "no matching distribution")
    if any(words in last[1].lower() for words in following):
        return
    assert connectivity.classify(f"{first[1]}\n{last[1]}") == last[0]


def test_the_line_that_decides_is_the_evidence() -> None:
    log = (
        "remote: Counting objects: 100% (874/874), done.\n"
        "error: RPC failed; curl 92 HTTP/2 stream 5 was not closed cleanly: CANCEL (err 8)\n"
        "fatal: early EOF\n"
    )
    found = find_cause(log)
    assert found is not None
    assert found.name == "reset"
    assert found.line == log.splitlines()[1]


@given(st.text())
def test_any_text_has_a_class_or_none(text: str) -> None:
    found = find_cause(text)
    assert found is None or (found.name in TITLES and found.line in text.replace("\r", "\n"))


PIECES = [
    "a", "\n", " ", "dial tcp [", "lookup x on 1:53: ", "lookup x.y on 8.8.8.8:53: read udp ",
    "proxyconnect tcp: ", "[2600::", "(2600:1:", "manifest for x", "a.b/", "x.y/z:", "http 40",
    "unexpected status https://", "repository '", "hostname ", "eof ", "\x1b[", "\x1b[1;", "É",
    "connection to ", "cannot connect to proxy', oserror", "dial unix ", "current time ",
    "stream error: stream id 1; ", "pull access denied for ", "certificate subject name ",
    "failed to connect to a port 1 after ", "certificate of ", "0", "::", "'",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_no_piece_takes_more_than_its_length(piece: str) -> None:
    assert measure(piece * (128 * 1024 // len(piece))) < 2


def test_a_megabyte_takes_a_moment() -> None:
    assert measure("".join(piece * (32 * 1024 // len(piece)) for piece in PIECES)) < 8


def measure(text: str) -> float:
    begin = time.process_time()
    connectivity.classify(text)
    return time.process_time() - begin


def test_of_a_longer_text_the_end_is_read() -> None:
    assert connectivity.classify("x\n" * MAXIMUM + "curl: (52) Empty reply from server") == (
        "empty-reply"
    )
