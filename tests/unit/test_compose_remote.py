"""What a host's answers about a git repository lead to: files, or one refusal with its remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stackmend.compose import remote
from stackmend.compose.remote import Unfetched, fetch
from stackmend.compose.spec import ComposeSpec, GitSource
from stackmend.connection import CommandTimeout, Result
from tests.unit.test_compose_git import COMPOSE, pack

FIRST, SECOND = "a" * 40, "b" * 40
SOURCE = GitSource(git="https://me:t0k3n-x@git.example.com/shop.git", ref="main")
FILES = pack(("compose.yaml", b"0", COMPOSE))


class State:
    """A run."""


class Answers:
    """A host that answers in this order, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Result | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        monkeypatch.setattr(remote.connection, "run", self._run)
        monkeypatch.setattr(remote.announce, "show_line", lambda *_: None)
        monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
        self.host: Any = SimpleNamespace(name="host", state=State())

    def _run(self, _host: object, command: Any, **options: Any) -> Result:
        # A command that hides a word goes by the input, and ends with whoever waits for it.
        assert options["tethered"]
        assert "t0k3n" not in command.get_masked_value()
        text = command.get_raw_value()
        assert text.startswith("printf '%s\\n' me t0k3n-x | ")
        self.asked.append("list" if ".com list " in text else "tree")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def refs(commit: str) -> Result:
    return Result(0, f"{commit}\trefs/heads/main\n".encode(), b"")


def failed(text: str, status: int = 128) -> Result:
    return Result(status, b"", text.encode())


def make_spec() -> ComposeSpec:
    return ComposeSpec.model_validate({"project": "shop", "source": SOURCE, "directory": "/opt/s"})


def test_one_run_decides_by_one_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Answers(monkeypatch, refs(FIRST), Result(0, FILES, b""), refs(SECOND))
    found = fetch(host.host, make_spec(), SOURCE)
    assert str(found.checkout) == f"main of https://git.example.com/shop.git, commit {FIRST[:12]}"
    assert found.source.files["compose.yaml"].content == COMPOSE.encode()
    assert fetch(host.host, make_spec(), SOURCE) is found
    assert host.asked == ["list", "tree"]


def test_whatever_else_is_desired_it_is_the_same_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Answers(
        monkeypatch, *[refs(FIRST), Result(0, FILES, b"")], *[refs(SECOND), Result(0, FILES, b"")]
    )
    spec = make_spec()
    found = fetch(host.host, spec, SOURCE)
    check = {"kind": "http", "url": "http://127.0.0.1/", "inside": "gone"}
    more = spec.model_copy(update={"env": {"A": "b"}})
    other = fetch(host.host, more, SOURCE)
    assert (other.checkout, other.packed) == (found.checkout, found.packed)
    assert other.source.files[".env"].content == b'A="b"\n'
    assert fetch(host.host, spec, SOURCE).checkout == found.checkout
    asked = ComposeSpec.model_validate({**spec.model_dump(), "source": SOURCE, "checks": [check]})
    with pytest.raises(Unfetched, match="there is no service 'gone'"):
        fetch(host.host, asked, SOURCE)
    assert host.asked == ["list", "tree"]
    with pytest.raises(Unfetched, match="has no ref other"):
        fetch(host.host, spec, SOURCE.model_copy(update={"ref": "other"}))


def test_a_ref_that_moves_meanwhile_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = failed("refs/heads/main moved while it was fetched", 75)
    host = Answers(monkeypatch, refs(FIRST), moved, refs(SECOND), Result(0, FILES, b""))
    assert fetch(host.host, make_spec(), SOURCE).checkout.commit == SECOND
    host = Answers(monkeypatch, *[refs(FIRST), moved] * 3)
    with pytest.raises(Unfetched, match="moved while it was fetched"):
        fetch(host.host, make_spec(), SOURCE)


@pytest.mark.parametrize(
    ("answer", "times", "reason", "remedy"),
    [
        (failed("git is not installed on the host", 69), 1, "git is not installed", "apt-get"),
        (failed("fatal: Authentication failed for 'https://x'"), 1, "denies it", "USER:TOKEN"),
        (failed("fatal: repository 'https://x' not found"), 1, "does not have it", 'correct "git"'),
        (failed("fatal: x: The requested URL returned error: 407"), 1, "the proxy", "environment"),
        (failed("fatal: x: Could not resolve host: x"), 4, "does not resolve", "run again"),
        (failed("fatal: x: Recv failure: Connection reset by peer"), 4, "resets", "run again"),
        (failed("something else"), 1, "something else", "run again"),
        (
            CommandTimeout("host", "reading", "it took too long"),
            4,
            "no answer in time",
            "run again",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    answer: Result | Exception,
    times: int,
    reason: str,
    remedy: str,
) -> None:
    host = Answers(monkeypatch, *[answer] * 5)
    with pytest.raises(Unfetched) as error:
        fetch(host.host, make_spec(), SOURCE)
    assert host.asked == ["list"] * times
    assert reason in error.value.refusal.reason
    assert remedy in error.value.refusal.remedy


def test_files_that_are_no_stack_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, reason in ((pack(("x", b"0", "")), "holds none of"), (b"no archive", "cannot be")):
        host = Answers(monkeypatch, refs(FIRST), Result(0, files, b""))
        with pytest.raises(Unfetched, match=reason):
            fetch(host.host, make_spec(), SOURCE)
    host = Answers(monkeypatch, Result(0, b"", b""))
    with pytest.raises(Unfetched, match="has no ref main"):
        fetch(host.host, make_spec(), SOURCE)
