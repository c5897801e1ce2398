"""Masking, writing and wording of a record."""

import contextlib
import io
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, get_args, get_origin

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend.reporting import summary, write
from stackmend.reporting.__main__ import main
from stackmend.reporting.state import Model, RunRecord
from tests.hostile_text import NOTATIONS, holds, steering, strings
from tests.unit.test_redaction import AROUND, SECRETS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(**hosts: dict[str, object]) -> RunRecord:
    return RunRecord.model_validate(
        {
            "started": NOW,
            "ended": NOW + timedelta(seconds=2),
            "controller": "desk",
            "mode": "apply",
            "complete": True,
            "hosts": hosts,
        }
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


WORDS = st.text(min_size=4, max_size=30).filter(lambda text: len(text.strip()) >= 4)


@settings(deadline=None)  # a busy machine is no failure
@given(secret=WORDS, before=st.text(max_size=9), after=st.text(max_size=9))
def test_a_secret_is_nowhere_in_what_is_written(secret: str, before: str, after: str) -> None:
    if secret in write.MASK:
        return
    data = {
        "outcome": "failed",
        "log": [f"{before}{secret}{after}", json.dumps(secret), repr(secret)],
    }
    masked = write.mask(data, {secret})
    assert masked["outcome"] == "failed"
    assert all(secret not in text.replace(write.MASK, "\0") for text in masked["log"])
    assert json.dumps(secret)[1:-1] not in masked["log"][1].replace(write.MASK, "\0")


def filled(model: type[Model], texts: Iterator[str]) -> dict[str, Any]:
    """Data of a part of the record: every text that it may hold is one of those given."""
    data: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        if kind is str:
            data[name] = next(texts)
        elif parts == [str]:
            data[name] = [next(texts), next(texts)]
        elif get_origin(kind) in (tuple, dict) and issubclass(parts[-1], Model):
            inner = filled(parts[-1], texts)
            data[name] = [inner] if get_origin(kind) is tuple else {"web": inner}
        elif kind is float and field.is_required():
            data[name] = 1.5
    return data | ({"outcome": "failed"} if "outcome" in model.model_fields else {})


def concluded(texts: list[str], secrets: set[str], mode: str) -> tuple[Any, str, str]:
    """A record of these texts at the end of a run: its file, the words, the words and a table."""
    data = filled(RunRecord, itertools.cycle(texts))
    times = {"started": NOW, "ended": NOW, "mode": mode, "complete": False}
    made = RunRecord.model_validate(data | times)
    shown = [io.StringIO(), Terminal()]
    with TemporaryDirectory() as where, pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "build", lambda run, ended: made)
        patch.setattr(write, "directory", lambda run: Path(where))
        patch.setattr(write, "registered", lambda: frozenset(secrets))
        for out in shown:
            with contextlib.redirect_stderr(out):
                path = write.conclude(SimpleNamespace(id="abc123"))  # type: ignore[arg-type]
            assert path is not None, out.getvalue()
        words, table = (out.getvalue().replace(where, "") for out in shown)
        return json.loads((Path(where) / "latest.json").read_text()), words, table


def test_each_text_of_a_record_is_tried() -> None:
    """A field that the record gets is tried with the others; what it holds is in the file."""
    said, words, table = concluded(["tried"], set(), "apply")
    assert strings(said).count("tried") >= 25
    assert words.count("tried") > 10
    assert "│" in table


@settings(deadline=None, max_examples=150)
@given(
    SECRETS,
    st.lists(st.sampled_from(sorted(NOTATIONS)), min_size=1, max_size=7),
    AROUND,
    AROUND,
    st.sampled_from(["apply", "dry"]),
)
@example('p@ss/w\\ord "$1" it\'s', sorted(NOTATIONS), "", "", "apply")
@example("line one of it\nline two of it", sorted(NOTATIONS), "x\n", "\ny", "dry")
def test_no_field_and_no_notation_gives_a_secret_back(
    secret: str, notations: list[str], before: str, after: str, mode: str
) -> None:
    texts = [f"{before}{NOTATIONS[notation](secret)}{after}" for notation in notations]
    # What the record holds for certain may be what the secret is.
    bare, *spoken = concluded([f"{before}{write.MASK}{after}"], set(), mode)
    assume(not any(holds(text, secret) for text in (*strings(bare), *spoken)))

    said, *spoken = concluded(texts, {secret}, mode)

    assert said["mode"] == mode
    assert said["hosts"]["web"]["outcome"] == "failed"
    for text in (*strings(said), json.dumps(said), *spoken):
        assert not holds(text, secret)
        assert write.MASK in text or text in strings(bare)
    assert all(steering(text) == set() for text in spoken)


@pytest.mark.parametrize(
    ("secret", "text", "masked"),
    [
        ("it's a key", "sh: 'it'\"'\"'s a key': not found", "sh: '*MASKED*': not found"),
        ("p@ss/word", "redis://:p%40ss%2Fword@redis", "redis://:*MASKED*@redis"),
        ("first line\nsecond line", "found: second line", "found: *MASKED*"),
        ("longer than that", "longer than that, longer", "*MASKED*, longer"),
        ("abc", "abc=abcd abc", "*MASKED*=abcd *MASKED*"),
    ],
)
def test_a_secret_is_known_in_other_notations(secret: str, text: str, masked: str) -> None:
    assert write.mask([text], {secret}) == [masked]


def test_the_longer_secret_wins_over_the_one_inside_it() -> None:
    assert write.mask("hunter2hunter2", {"hunter2", "hunter2hunter2"}) == write.MASK


def test_only_whole_records_are_seen_and_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "KEEP", 3)
    keepsake = tmp_path / "notes.json"
    keepsake.write_text("{}")
    paths = [
        write.save({"number": number}, tmp_path, NOW + timedelta(minutes=number), "abc123")
        for number in range(5)
    ]
    assert json.loads((tmp_path / "latest.json").read_text()) == {"number": 4}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {path.name for path in paths[2:]} | {"latest.json", keepsake.name}


def test_a_record_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    write.save({"number": 1}, tmp_path, NOW, "abc123")
    with pytest.raises(TypeError):
        write.save({"number": object()}, tmp_path, NOW, "abc123")
    assert json.loads((tmp_path / "latest.json").read_text()) == {"number": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unknown_field_or_a_time_without_offset_is_not_a_record() -> None:
    good = record(web={"outcome": "converged"}).model_dump(mode="json")
    RunRecord.model_validate(good)
    with pytest.raises(ValidationError, match=r"hosts\.web\.mood"):
        RunRecord.model_validate(good | {"hosts": {"web": {"outcome": "converged", "mood": "x"}}})
    with pytest.raises(ValidationError, match="offset"):
        RunRecord.model_validate(good | {"ended": "2026-01-02T03:04:05"})


MIXED = record(
    web1={"outcome": "converged"},
    web2={
        "outcome": "failed",
        "operations": [
            {
                "name": "compose.stack",
                "findings": [
                    {"subject": "ai/api", "cause": "unhealthy", "evidence": "HTTP 500\nbody"}
                ],
                "planned": [{"action": "restart", "subject": "ai/api", "cause": "unhealthy"}],
                "done": [{"action": "restart", "subject": "ai/api", "seconds": 2.04, "ok": False}],
                "errors": [{"message": "ai/api is unhealthy still", "log": ["a", "b"]}],
                "succeeded": False,
            }
        ],
    },
    web3={"outcome": "unreachable", "errors": [{"message": "connection refused"}]},
)


def test_the_words_tell_what_was_wrong_what_was_done_and_what_is_left() -> None:
    out = io.StringIO()
    summary.show(MIXED, Path("/r/x.json"), out)
    assert out.getvalue().splitlines() == [
        "    web2: failed",
        "      compose.stack",
        "        found: ai/api: unhealthy",
        "               HTTP 500 …",
        "        tried without success: restart ai/api (2.0 s)",
        "        failed: ai/api is unhealthy still",
        "                | a",
        "                | b",
        "    web3: unreachable",
        "      connection refused",
        "--> stackmend: 3 hosts: 1 converged, 1 failed, 1 unreachable; "
        "not well: web2 (failed), web3 (unreachable); report: /r/x.json",
    ]


def test_a_terminal_gets_a_table_of_the_hosts() -> None:
    out = Terminal()
    summary.show(MIXED, None, out)
    assert "┃" in out.getvalue() or "│" in out.getvalue()
    assert "web1" in out.getvalue()


def test_what_a_container_logged_does_not_act_on_the_terminal() -> None:
    out = io.StringIO()
    bad = {"name": "x", "errors": [{"message": "m", "log": ["\x1b[2Jgone\r\x9b31m"]}]}
    summary.show(record(web={"outcome": "failed", "operations": [bad]}), None, out)
    assert "                | \\x1b[2Jgone\\r\\x9b31m\n" in out.getvalue()


def test_a_report_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write.save(MIXED.model_dump(mode="json"), tmp_path, NOW, "abc123")
    assert main([str(bad)]) == 1
    assert "not well: web2 (failed)" in capsys.readouterr().out
    good = write.save(
        record(a={"outcome": "changed"}).model_dump(mode="json"), tmp_path, NOW, "abc123"
    )
    assert main([str(good)]) == 0
    assert main([str(tmp_path / "none.json")]) == 2
    (tmp_path / "other.json").write_text("[]")
    assert main([str(tmp_path / "other.json")]) == 2


def test_what_a_run_imports_for_its_report_is_little() -> None:
    # A run that finds nothing to do ends with one line: neither a table nor the rooms' models.
    told = (
        "import sys, stackmend.reporting, stackmend.reporting.summary; "
        "print(sorted({'rich', 'pydantic', 'pyinfra', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", told],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "nothing", "too large"])
def test_what_is_no_file_is_no_report(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "report.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "too large":
        with path.open("wb") as file:
            file.truncate(2**40)
    shown = subprocess.run(
        [sys.executable, "-m", "stackmend.reporting", str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
    )
    assert shown.returncode == 2
    assert shown.stderr.startswith(f"no report: {path} "), shown.stderr
    assert "Traceback" not in shown.stderr
