"""Masking, writing and wording of a record."""

import contextlib
import importlib
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
from unittest.mock import Mock

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pyinfra.api import HiddenValue

from stackmend import reporting
from stackmend.cli import output
from stackmend.decision import Action, Locked, Refusal
from stackmend.diagnosis import Diagnosis
from stackmend.redaction import MASK
from stackmend.reporting import schema, summary, write
from stackmend.reporting.__main__ import main
from stackmend.reporting.clean import clean
from stackmend.reporting.collect import Collector
from stackmend.reporting.reader import ReportError
from stackmend.reporting.state import Done, OperationRecord, RunRecord
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
    if secret in MASK:
        return
    data = {
        "outcome": "failed",
        "log": [f"{before}{secret}{after}", json.dumps(secret), repr(secret)],
    }
    masked = clean(data, {secret})
    assert masked["outcome"] == "failed"
    assert all(secret not in text.replace(MASK, "\0") for text in masked["log"])
    assert json.dumps(secret)[1:-1] not in masked["log"][1].replace(MASK, "\0")


def filled(model: type[BaseModel], texts: Iterator[str]) -> dict[str, Any]:
    """Data of a part of the record: every text that it may hold is one of those given."""
    data: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        if kind is str:
            data[name] = next(texts)
        elif parts == [str]:
            data[name] = [next(texts), next(texts)]
        elif get_origin(kind) in (tuple, dict) and issubclass(parts[-1], BaseModel):
            inner = filled(parts[-1], texts)
            data[name] = [inner] if get_origin(kind) is tuple else {"web": inner}
        elif kind is float and field.is_required():
            data[name] = 1.5
    if issubclass(model, Action):
        # What its class has beside what all have, at any depth.
        data["path"] = next(texts)
        data["files"] = [{"content": next(texts), next(texts): [next(texts), next(texts)]}]
    fixed = {"outcome": "failed", "result": "failed", "started": NOW}
    return data | {name: value for name, value in fixed.items() if name in model.model_fields}


def concluded(texts: list[str], secrets: set[str], mode: str) -> tuple[Any, str, str]:
    """A record of these texts at the end of a run: its file, the words and metrics, a table."""
    data = filled(RunRecord, itertools.cycle(texts))
    times = {"started": NOW, "ended": NOW, "mode": mode, "complete": False}
    made = RunRecord.model_validate(data | times)
    shown = [io.StringIO(), Terminal()]
    with TemporaryDirectory() as where, pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "build", lambda run, ended: made)
        patch.setattr(write, "find_directory", lambda run: Path(where))
        patch.setattr(write, "get_secrets", lambda: frozenset(secrets))
        asked = {"stack": {"report": {"metrics": "out.prom"}}}
        state = SimpleNamespace(cwd=where, inventory=[SimpleNamespace(name="web", data=asked)])
        for out in shown:
            run: Any = SimpleNamespace(id="abc123", endings={}, quiet=False, state=state)
            with contextlib.redirect_stderr(out):
                path = write.conclude(run)
            assert path is not None, out.getvalue()
        words, table = (out.getvalue().replace(where, "") for out in shown)
        metrics = [(Path(where) / name).read_text() for name in ("out.prom", ".out.prom.json")]
        written = json.loads((Path(where) / "latest.json").read_text())
        return written, "\n".join([words, *metrics]), table


def test_each_text_of_a_record_is_tried() -> None:
    """A field that the record gets is tried with the others; what it holds is in the file."""
    said, words, table = concluded(["tried"], set(), "apply")
    assert strings(said).count("tried") >= 25
    assert words.count("tried") > 10
    assert "│" in table


@pytest.mark.slow
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
    bare, *spoken = concluded([f"{before}{MASK}{after}"], set(), mode)
    assume(not any(holds(text, secret) for text in (*strings(bare), json.dumps(bare), *spoken)))

    said, *spoken = concluded(texts, {secret}, mode)

    assert said["mode"] == mode
    assert said["hosts"]["web"]["outcome"] == "failed"
    for text in (*strings(said), json.dumps(said), *spoken):
        assert not holds(text, secret)
        # What an action holds of its class is cut behind its first line.
        assert MASK in text or text in strings(bare) or text.endswith(" more lines)")
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
    assert clean([text], {secret}) == [masked]


def test_the_longer_secret_wins_over_the_one_inside_it() -> None:
    assert clean("hunter2hunter2", {"hunter2", "hunter2hunter2"}) == MASK


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


RESTART = {"verb": "restart", "subject": "ai/api", "cause": "unhealthy", "container": "ai-api-1"}

MIXED = record(
    web1={"outcome": "converged"},
    web2={
        "outcome": "failed",
        "operations": [
            {
                "name": "compose.stack",
                "findings": [
                    {
                        "subject": "ai/api",
                        "kind": "unhealthy",
                        "cause": "its check fails",
                        "evidence": ["HTTP 500", *(f"line {n}" for n in range(2, 9))],
                        "remedy": "see its log",
                    }
                ],
                "planned": [RESTART],
                "done": [{**RESTART, "started": NOW, "seconds": 2.04, "result": "failed"}],
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
        "        found: ai/api: unhealthy: its check fails",
        "               HTTP 500",
        *(f"               line {number}" for number in range(2, 7)),
        "               … (2 more in the report)",
        "               remedy: see its log",
        "        tried without success: restart ai/api (2.0 s)",
        "        failed: ai/api is unhealthy still",
        "                | a",
        "                | b",
        "    web3: unreachable",
        "      connection refused",
        "--> stackmend: 3 hosts: 1 converged, 1 failed, 1 unreachable; "
        "not well: web2 (failed), web3 (unreachable); report: /r/x.json",
    ]


def test_findings_that_fail_nothing_are_counted() -> None:
    finding = {"subject": "https://x.lan", "kind": "loss", "cause": "packet loss"}
    for number, words in (
        (0, "1 host: 1 converged"),
        (1, "1 host: 1 converged; 1 finding that fails nothing"),
        (8, "1 host: 1 converged; 8 findings that fail nothing"),
    ):
        operation = {"name": "connectivity.checked", "findings": [finding] * number}
        made = record(web={"outcome": "converged", "operations": [operation]})
        assert summary.format_last_line(made, None) == words


def test_steps_that_are_called_the_same_have_their_causes() -> None:
    steps = [
        {"verb": "measure", "subject": "ollama", "cause": "it has to be faster"},
        {"verb": "measure", "subject": "ollama", "cause": "clients call it now"},
        {"verb": "stop", "subject": "llm", "cause": "api calls ollama"},
    ]
    finding = {"subject": "llm", "kind": "legacy worker", "cause": "it serves models"}
    operation = {"name": "worker.engine", "findings": [finding], "planned": steps}
    out = io.StringIO()
    summary.show(record(web={"outcome": "drifted", "operations": [operation]}), None, out)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines[lines.index("planned: measure ollama") :][:5] == [
        "planned: measure ollama",
        "cause: it has to be faster",
        "planned: measure ollama",
        "cause: clients call it now",
        "planned: stop llm",
    ]
    assert "cause: api calls ollama" not in lines


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


def test_the_name_of_a_host_does_not_act_on_the_terminal() -> None:
    foreign = record(**{"x\x1b]0;owned\x07\u202e": {"outcome": "failed"}})
    for out in (io.StringIO(), Terminal()):
        summary.show(foreign, None, out)
        assert out.getvalue().count(r"x\x1b]0;owned\x07\u202e (failed)") == 1
        assert not {"\x07", "\u202e"} & {*out.getvalue()}
    terminal = Terminal()
    output.print_json(foreign, terminal)
    assert terminal.getvalue().isascii()
    assert json.loads(terminal.getvalue()) == foreign.model_dump(mode="json")


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


RECORDED = Path(__file__).parent / "reports" / "version-1.json"


def test_a_report_of_version_1_is_read_as_one_of_version_2() -> None:
    """As stackmend wrote it before version 2, in a run of its own."""
    made = reporting.read(RECORDED)
    assert (made.schema_version, made.hosts["web"].outcome) == (2, "unreachable")
    ai, _, shop, wiki = made.hosts["@local"].operations
    (finding,) = ai.findings
    assert (finding.subject, finding.kind, finding.cause, finding.evidence) == (
        "ai/redis",
        "stopped",
        "exited with code 137",
        ("OOMKilled is true", "out of memory"),
    )
    assert [(one.verb, one.undo, one.destructive) for one in ai.planned] == [
        ("start", "stop it", True)
    ]
    done = [*ai.done, *wiki.done]
    assert [(one.verb, one.result, one.seconds, one.started) for one in done] == [
        ("start", "done", 0.25, None),
        ("start", "failed", 0.25, None),
    ]
    (refusal,) = shop.refusals
    assert refusal.remedy == 'to take it, add to the stack: allow = ["container:redis"]'
    assert wiki.errors[0].log == ("line one", "line two")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["mode"], "wet", "mode: must be 'dry' or 'apply'"),
        (["schema_version"], 3, "schema_version: must be 1 or 2; got 3"),
        (["hosts", "web", "outcome"], 5, "hosts.web.outcome: must be "),
        (
            ["hosts", "@local", "operations", 2, "refusals", 0, "consent"],
            ["x"],
            "hosts.@local.operations[2].refusals[0].consent: must be text",
        ),
        (
            ["hosts", "@local", "operations", 0, "done", 0, "mood"],
            "x",
            "hosts.@local.operations[0].done[0].mood: unknown key",
        ),
    ],
)
def test_what_is_no_report_is_said_with_its_field(
    tmp_path: Path, path: list[Any], value: object, message: str
) -> None:
    data = json.loads(RECORDED.read_text())
    inner = data
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ReportError) as raised:
        reporting.read(file)
    assert str(raised.value).startswith(f"{file}: {message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b"null", b'{"a": 1, "a": 2}', b"[" * 999]
)
def test_what_is_no_record_at_all(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "wrong.json"
    file.write_bytes(content)
    with pytest.raises(ReportError) as raised:
        reporting.read(file)
    assert str(raised.value).startswith(f"{file}: ")


def test_the_committed_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m stackmend.reporting --schema > ops/stackmend/reporting/schema-2.json``."""
    assert main(["--schema"]) == 0
    assert capsys.readouterr().out == schema.PATH.read_text()


class Everything(Action):
    """An action with whatever fields one may have."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    verb: str = "set"
    hidden: HiddenValue = HiddenValue("hunter2")
    secret: SecretStr = SecretStr("hunter2")
    password: str = "hunter2"
    raw: bytes = b"\xffhunter2"
    argv: tuple[str, ...] = ("redis-server", "--requirepass", "hunter2", "redis://me:hunter2@db/")
    text: str = '{\n "proxy": "http://me:hunter2@proxy/",\n "x": 1\n}'
    line: str = '{"password": "hunter2"}'
    long: str = "x" * 1_000_000
    many: tuple[int, ...] = tuple(range(1000))
    env: dict[str, str]
    named: dict[str, int]


def test_the_fields_of_an_action_neither_leak_nor_bloat() -> None:
    deep: Any = "bottom"
    for _ in range(1000):
        deep = [deep]
    report = Collector("room.set")
    action = Everything(
        subject="x",
        cause="c",
        env={"API_TOKEN": "hunter2", "MODE": "fast"},
        named={f"n{number}": number for number in range(1000)},
    )
    report.add_done(action, started=NOW, seconds=1, ok=True)
    data = report.done[0].model_dump(mode="json") | {"deep": deep}

    (done,) = clean({"done": [data]}, {"hunter2"})["done"]

    # It is hidden where nobody told that it is secret, too.
    (untold,) = clean({"done": [data]}, set())["done"]
    for text in (json.dumps(done), json.dumps({**untold, "raw": ""})):
        assert "hunter2" not in text
        assert "68756e74657232" not in text
        assert len(text) < 5000
    assert (done["verb"], done["subject"], done["started"]) == ("set", "x", "2026-01-02T03:04:05Z")
    assert done["argv"] == ["redis-server", "--requirepass", "***", "redis://me:***@db/"]
    assert done["env"] == {"API_TOKEN": MASK, "MODE": "fast"}
    assert done["text"] == "{… (3 more lines)"
    assert done["long"].endswith("… (999,500 more characters)")
    assert done["many"][-2:] == [49, "… (950 more)"]
    assert (done["named"]["n49"], done["named"]["…"]) == (49, "950 more")
    assert "… (1 entries)" in json.dumps(done["deep"], ensure_ascii=False)
    Done.model_validate(done)


def test_the_fields_of_no_action_are_those_of_the_report() -> None:
    """They stand beside them."""
    waiting, classes = [Action], set()
    for room in ("access", "basics", "compose", "engine", "engine.accelerators", "models", "ports"):
        importlib.import_module(f"stackmend.{room}.plan")
    while waiting:
        classes.add(cls := waiting.pop())
        waiting += cls.__subclasses__()
    ours = {cls for cls in classes if not cls.__module__.startswith("stackmend.reporting")}
    assert len(ours) > 7
    own = set(Done.model_fields) - set(Action.model_fields)
    assert {cls: own & set(cls.model_fields) for cls in ours} == {cls: set() for cls in ours}


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
    assert shown.stderr.startswith(f"no report: {path}: "), shown.stderr
    assert "Traceback" not in shown.stderr


FOUND = {"findings": [{"title": "x", "severity": "error"}]}
UNREAD = {"checks": [{"name": "compose.stack", "status": "unknown", "reason": "no answer"}]}
LOCKED = Locked(subject="host", reason="another run is at work here", remedy="wait for it")
REFUSED = Refusal(subject="host", reason="not ours", remedy="allow it")


@pytest.mark.parametrize(
    ("outcome", "diagnosis", "fields"),
    [
        ("converged", {}, {}),
        ("drifted", FOUND, {}),
        # What cannot be read fails no host, and is never well.
        ("unknown", UNREAD, {"errors": [{"message": "no answer"}]}),
        ("unknown", {}, {"errors": [{"message": "no answer"}]}),
        ("drifted", FOUND, {"errors": [{"message": "no answer"}]}),
        # Another run explains what could not be read, and hides nothing that was found.
        ("locked", UNREAD, {"refusals": [LOCKED]}),
        ("drifted", FOUND, {"refusals": [LOCKED]}),
        ("refused", FOUND, {"refusals": [LOCKED, REFUSED]}),
        ("unknown", None, {}),
    ],
)
def test_what_a_host_is_that_was_only_observed(
    outcome: str, diagnosis: dict[str, Any] | None, fields: dict[str, Any]
) -> None:
    host: Any = Mock()
    host.name = "web"
    diagnoses = {} if diagnosis is None else {"web": Diagnosis.model_validate(diagnosis)}
    failed: set[Any] = set()
    state = SimpleNamespace(failed_hosts=failed)
    run: Any = SimpleNamespace(observed=True, diagnoses=diagnoses, state=state)
    operations = [OperationRecord.model_validate({"name": "x", **fields})]
    assert write._classify_outcome(run, host, operations, dry=True) == outcome
    failed.add(host)
    assert write._classify_outcome(run, host, operations, dry=True) == "failed"
