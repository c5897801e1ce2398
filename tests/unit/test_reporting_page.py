"""The page of a run: its figures, its bytes, what a hostile text does to it, and a real browser.

``UPDATE_GOLDEN=1 pytest`` writes ``golden/reporting_page`` anew.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest

from stackmend.reporting import fleet, page, reader
from stackmend.reporting.state import HostRecord, Outcome, RunRecord
from stackmend.reporting.write import save
from stackmend.worker import pictures
from tests import browser
from tests.unit.benchmark_results import make_result

GOLDEN = Path(__file__).with_name("golden") / "reporting_page" / "diagnosis.html"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</title></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% include 'page.css' %}",
    "]]><!-- & &amp; &lt;",
    "ai\u202egnp.exe\u2066",
    "模型 🦙 نموذج",
    "a\nb\x1b[31m\x00\t",
    "\u05d0\u05d1\u05d2 \u0627\u0628",
    "zero\u200bwidth\u2060joined\ufeff",
    "x" * 10_000,
    " ",
    "",
)


def operation(text: str) -> dict[str, Any]:
    action = {"verb": text, "subject": text, "cause": text, "undo": text, "destructive": True}
    return {
        "name": text,
        "findings": [
            {"subject": text, "kind": text, "cause": text, "evidence": [text], "remedy": text},
            {"subject": text, "kind": "", "cause": text, "blocks": False},
        ],
        "planned": [action],
        "done": [
            {**action, "started": NOW, "seconds": 2.04, "result": "done"},
            {**action, "started": None, "seconds": 0.5, "result": "failed"},
        ],
        "refusals": [{"subject": text, "reason": text, "remedy": text}],
        "errors": [{"message": text, "log": [text, text]}],
        "measured": {text or "empty": {"value": 1.25, "unit": text}},
        "seconds": 12.345,
    }


def diagnosis(text: str) -> dict[str, Any]:
    finding = {
        "incident": text,
        "title": text,
        "severity": "warning",
        "subjects": [text, text],
        "evidence": [{"line": text, "source": text, "age": 90.0}],
        "explained_by": text,
        "explains": [text, text],
        "steps": [text],
        "remedy": text,
        "inventory": text,
        "proof": text,
    }
    checks = [
        {"name": text, "status": status, "reason": text}
        for status in ("ok", "finding", "unknown", "skipped")
    ]
    return {"findings": [finding], "checks": checks, "notes": [text]}


def record(hosts: dict[str, Any], ended: datetime = NOW, **changes: Any) -> RunRecord:
    times = {"started": ended - timedelta(seconds=75), "ended": ended}
    about = {"controller": "here", "mode": "apply", "complete": True}
    return RunRecord.model_validate({**times, **about, "hosts": hosts, **changes})


def make_all() -> RunRecord:
    """A host of each outcome, and one for each hostile text."""
    hosts = {outcome: {"outcome": outcome} for outcome in get_args(Outcome)}
    hosts["unmanaged"]["reason"] = "nothing was asked of this host"
    hosts["unreachable"]["errors"] = [{"message": "connection refused", "log": []}]
    hosts["unknown"]["interrupted_at"] = "compose.stack: pull web"
    for number, text in enumerate(HOSTILE):
        operations = [operation(text), {"name": "idle", "seconds": 0.25}]
        hosts[f"{number} {text}"] = {
            "outcome": "failed",
            "operations": operations,
            "diagnosis": diagnosis(text),
        }
    return record(hosts, complete=False, interrupted="SIGTERM")


class Cells(HTMLParser):
    """The rows of each table: the text of each cell, or the exact value that it stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self._title = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        if values.get("class") == "scroll":
            self._title = values["aria-label"] or ""
            self.tables[self._title] = []
        elif tag == "tr":
            self.tables[self._title].append([])
        elif tag in ("th", "td"):
            self.tables[self._title][-1].append("")

    def handle_data(self, data: str) -> None:
        if self._title and self.tables[self._title] and self.tables[self._title][-1]:
            self.tables[self._title][-1][-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._title = ""


def parse(text: str) -> Cells:
    cells = Cells()
    cells.feed(text)
    return cells


def count(host: HostRecord, field: str) -> str:
    if field == "findings" and host.diagnosis is not None:
        return str(len(host.diagnosis.findings))
    own = len(host.errors) if field == "errors" else 0
    return str(own + sum(len(getattr(op, field)) for op in host.operations))


def test_its_figures_are_those_of_the_record() -> None:
    run = make_all()
    _, *rows = parse(page.render(run)).tables["Hosts"]
    assert len(rows) == len(run.hosts)
    for row, host in zip(rows, run.hosts.values(), strict=True):
        fields = ("findings", "done", "refusals", "errors")
        assert row[1:6] == [host.outcome, *(count(host, field) for field in fields)]
        assert float(row[6]) == round(sum(op.seconds for op in host.operations), 3)
        assert row[7] == "in this run"


def test_runs_before_it_stand_below_it_the_latest_first() -> None:
    earlier = [
        record({"a": {"outcome": "converged"}}, NOW - timedelta(minutes=number))
        for number in range(1, page.MOST_BEFORE + 10)
    ]
    later = record({"a": {"outcome": "failed"}}, NOW + timedelta(minutes=1))
    text = page.render(record({"a": {"outcome": "changed"}}), [*earlier[::-1], later])
    _, *rows = parse(text).tables["Runs before"]
    assert len(rows) == page.MOST_BEFORE
    assert [row[0] for row in rows[:2]] == ["2026-01-02 03:03:05 UTC", "2026-01-02 03:02:05 UTC"]
    assert {row[2] for row in rows} == {"1 host: 1 converged"}
    assert "Runs before" not in page.render(record({"a": {"outcome": "changed"}}))


def test_the_title_begins_with_what_needs_a_person() -> None:
    outcomes: list[Outcome] = ["converged", "unmanaged", "refused", "failed", "converged"]
    hosts = {str(number): {"outcome": outcome} for number, outcome in enumerate(outcomes)}
    title = "5 hosts: 1 failed, 1 refused, 2 converged, 1 unmanaged"
    assert page.format_outcomes(record(hosts)) == title


def test_all_that_a_record_says_is_on_it() -> None:
    numbers = itertools.count()

    def number_texts(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                f"text {next(numbers)};" if key == "told" else key: number_texts(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [number_texts(inner) for inner in value]
        return f"text {next(numbers)};" if value == "told" else value

    told = operation("told")
    done, dry = told | {"planned": []}, told | {"done": []}
    for mode, parts, words in (
        ("apply", done, ["tried without success: ", "destructive", "12.345 s"]),
        ("dry", dry, ["planned: ", "dry run, nothing was changed"]),
    ):
        first = next(numbers) + 1
        operations = [number_texts(parts)]
        host = {"outcome": "failed", "operations": operations}
        text = page.render(record({"a": host}, mode=mode))
        missing = [each for each in range(first, next(numbers)) if f"text {each};" not in text]
        assert missing == []
        assert [word for word in words if word not in text] == []


DIAGNOSIS = {
    "findings": [
        {
            "incident": "port-taken",
            "title": "A port that the stack needs is already allocated",
            "severity": "error",
            "subjects": ["127.0.0.1:8000/tcp"],
            "evidence": [
                {"line": "held by <nginx>", "source": "ports.free", "age": 0.0},
                {"line": "port is already allocated", "source": "log of api", "age": 90.0},
            ],
            "explains": ["service-down"],
            "remedy": "stop what holds the port",
            "inventory": '"on_conflict": "stop"',
            "proof": "ports.free finds it free",
        },
        {
            "incident": "service-down",
            "title": "A service does not run",
            "severity": "error",
            "subjects": ["api", "worker"],
            "explained_by": "port-taken",
            "steps": ["start api: it exited with code 0"],
        },
        {"title": "disk: almost full", "severity": "warning"},
    ],
    "checks": [
        {"name": "port-taken", "status": "finding"},
        {"name": "mtu", "status": "unknown", "reason": "no answer"},
        {"name": "oom-killed", "status": "unknown", "reason": "no answer"},
        {"name": "model-missing", "status": "skipped", "reason": "service-down"},
    ],
    "notes": ["redis: check: none asks whether it takes writes"],
}


def test_a_diagnosis_is_shown_as_recorded() -> None:
    hosts = {
        "ill": {"outcome": "drifted", "diagnosis": DIAGNOSIS},
        "well": {"outcome": "converged", "diagnosis": {"checks": DIAGNOSIS["checks"][:1]}},
    }
    found = re.findall(r"<details.*?</details>\n", page.render(record(hosts)), re.S)
    text = "".join(found)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert "Nothing is known of it." not in text


def test_all_that_a_diagnosis_says_stands_by_itself() -> None:
    host = {"outcome": "drifted", "diagnosis": diagnosis("x\u202e<b>")}
    text = page.render(record({"a": host}))
    # Once for each text of the finding, two checks with their names and reasons, and the note.
    assert text.count(r"<bdi>x\u202e&lt;b&gt;</bdi>") == 13 + 4 + 1
    assert "<b>x" not in text


def test_a_hostile_text_is_text() -> None:
    text = page.render(make_all())
    seen = parse(text)
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & {*seen.tags}
    # Two of each host and outcome at most, and none that a text holds.
    assert seen.tags.count("svg") == len(make_all().hosts) + len({*get_args(Outcome)})
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert seen.attributes <= {
        *("lang", "charset", "http-equiv", "content", "name", "datetime", "class", "id", "role"),
        *("tabindex", "aria-label", "scope", "href", "value", "open"),
        *("viewbox", "preserveaspectratio", "x", "y", "width", "height", "aria-hidden"),
    }
    assert set(re.findall(r'href="([^"]*)"', text)) == {
        f"#h{number}" for number in range(1, len(make_all().hosts) + 1)
    }
    assert not set(text) & {"\u202e", "\u2066", "\x1b", "\x00"}
    assert r"ai\u202egnp.exe" in text
    assert "49" not in re.findall(r"<bdi>(\d+)</bdi>", text)


def test_it_may_use_its_one_style_sheet_and_nothing_else() -> None:
    text = page.render(make_all())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in style
    assert "style=" not in text


def test_equal_runs_make_equal_pages() -> None:
    assert page.render(make_all()) == page.render(make_all())


def test_runs_before_a_record_are_found_beside_it(tmp_path: Path) -> None:
    paths = [
        save(
            record({"a": {"outcome": "changed"}}, NOW + timedelta(minutes=number)).model_dump(
                mode="json"
            ),
            tmp_path,
            NOW + timedelta(minutes=number),
            f"{number:06x}",
        )
        for number in range(6)
    ]
    paths[2].write_text("[]")
    (tmp_path / "notes.json").write_text("{}")
    found = reader.list_before(paths[4], 3)
    assert [each.ended.minute for each in found] == [5, 7]
    assert reader.list_before(tmp_path / "nowhere" / paths[0].name, 3) == []


def list_saved() -> list[RunRecord]:
    """Runs whose hosts, logs and labels are hostile, the latest last; it left two hosts out."""
    known = {"outcome": "converged"}
    gone = {"outcome": "failed", "operations": [operation("gone")]}
    return [
        record({"converged": known, "changed": {"outcome": "failed"}}, NOW - timedelta(2)),
        record({"converged": known, "a": gone, HOSTILE[0]: gone}, NOW - timedelta(1)),
        make_all().model_copy(update={"left_out": (HOSTILE[2], HOSTILE[5])}),
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of these records, beside which a page is made as ``stackmend report`` makes it."""
    directory = tmp_path_factory.mktemp("page")
    paths = [
        save(run.model_dump(mode="json"), directory, run.ended, f"{number:06x}")
        for number, run in enumerate(list_saved())
    ]
    results = [make_result(f"ai1 {HOSTILE[0]} \u202egnp", model=HOSTILE[1], past=3)]
    before = reader.list_before(paths[-1], fleet.MOST_RUNS)
    fragments = [pictures.render_fragment(results)]
    page.write(directory / "run.html", reader.read(paths[-1]), before, fragments)
    return paths


@pytest.fixture(scope="module")
def seen(saved: list[Path]) -> list[dict[str, Any]]:
    return browser.observe(saved[-1].with_name("run.html"))


@pytest.mark.slow
def test_a_browser_shows_it_at_each_width_in_each_scheme(seen: list[dict[str, Any]]) -> None:
    assert [(view["at"], view["scheme"]) for view in seen] == [
        (360, "light"),
        (360, "dark"),
        (1280, "light"),
        (1280, "dark"),
    ]
    for view in seen:
        assert view["messages"] == []
        assert [url.rpartition("/")[2] for url in view["requests"]] == ["run.html"]
        assert view["title"] == page.format_outcomes(make_all())
        assert view["scrolled"] == view["width"], "nothing is wider than the screen"
        assert len(view["ids"]) == len({*view["ids"]})
        # A link leads to its host, though it was folded.
        assert [shown for _, shown in view["followed"]] == [True]
    backgrounds = {view["scheme"]: view["background"] for view in seen}
    assert backgrounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}


def count_in_json(host: dict[str, Any], field: str) -> int:
    if field == "findings" and host["diagnosis"]:
        return len(host["diagnosis"]["findings"])
    own = len(host["errors"]) if field == "errors" else 0
    return own + sum(len(each[field]) for each in host["operations"])


FIELDS = ("findings", "done", "refusals", "errors")


@pytest.mark.slow
def test_its_figures_in_a_browser_are_those_of_the_saved_json(
    seen: list[dict[str, Any]], saved: list[Path]
) -> None:
    """Each cell of the table of hosts; of a name, which may be hostile, how it begins."""
    earlier = json.loads(saved[1].read_bytes())["hosts"]
    hosts = json.loads(saved[-1].read_bytes())["hosts"]
    now = "2026-01-02 03:04:05 UTC"
    since = {"converged": "2025-12-31 03:04:05 UTC"}
    expected = [(name, host, "in this run", since.get(name, now)) for name, host in hosts.items()]
    unknown = "never, left out of this run"
    gone = "1 d before, no host of this run's inventory"
    expected += [(name, None, unknown, "") for name in sorted((HOSTILE[2], HOSTILE[5]))]
    expected += [
        (name, earlier[name], gone, "2026-01-01 03:04:05 UTC") for name in sorted((HOSTILE[0], "a"))
    ]
    for view in seen:
        (table,) = [table for table in view["tables"] if table["title"] == "Hosts"]
        assert len(table["headings"]) == 9
        assert len(table["rows"]) == len(expected) == len(hosts) + 4
        for row, (name, host, known, moment) in zip(table["rows"], expected, strict=True):
            first, outcome, *figures, last_known, so_since = row
            end = None if name.isalpha() else 2
            assert first["text"].strip()[:end] == name[:end]
            assert outcome["text"].strip() == (host["outcome"] if host else "not known")
            if host is None:
                assert [cell["text"] for cell in figures] == [""] * 5
            else:
                values = [json.loads(value) for cell in figures for value in cell["values"]]
                seconds = sum(each["seconds"] for each in host["operations"])
                numbers = [count_in_json(host, field) for field in FIELDS]
                assert values == [*numbers, pytest.approx(seconds, abs=0.0005)]
                assert [json.loads(cell["text"]) for cell in figures] == values
            assert (last_known["text"].strip(), so_since["text"].strip()) == (known, moment)


@pytest.mark.slow
def test_its_runs_before_in_a_browser_are_those_of_the_saved_json(
    seen: list[dict[str, Any]], saved: list[Path]
) -> None:
    expected = [
        ("2026-01-01 03:04:05 UTC", "3 hosts: 2 failed, 1 converged", saved[1]),
        ("2025-12-31 03:04:05 UTC", "2 hosts: 1 failed, 1 converged", saved[0]),
    ]
    for view in seen:
        (table,) = [table for table in view["tables"] if table["title"] == "Runs before"]
        assert len(table["headings"]) == 8
        assert len(table["rows"]) == len(expected)
        for row, (ended, outcomes, path) in zip(table["rows"], expected, strict=True):
            hosts = json.loads(path.read_bytes())["hosts"].values()
            numbers = [str(sum(count_in_json(host, field) for host in hosts)) for field in FIELDS]
            texts = [cell["text"].strip() for cell in row]
            assert texts == [ended, "apply", outcomes, *numbers, "2 min"]
            assert [value for cell in row for value in cell["values"]] == numbers
    assert sum(int(number) for number in numbers) == 0, "the oldest run has none"


@pytest.mark.slow
def test_its_findings_and_history_in_a_browser_are_those_of_the_saved_json(
    seen: list[dict[str, Any]], saved: list[Path]
) -> None:
    runs = [json.loads(path.read_bytes())["hosts"] for path in saved]
    listed = set()
    for host in runs[-1].values():
        listed |= {("failed", each["message"]) for each in host["errors"]}
        for each in host["diagnosis"]["findings"] if host["diagnosis"] else ():
            if not each["explained_by"]:
                listed.add((each["severity"], each["incident"], each["title"], *each["subjects"]))
        for op in host["operations"]:
            listed |= {("failed", op["name"], error["message"]) for error in op["errors"]}
            listed |= {("refused", each["subject"], each["reason"]) for each in op["refusals"]}
    assert {word for word, *_ in listed} == {"failed", "refused", "warning"}
    words = Counter(f"{word}:" for word, *_ in listed)
    histories = {
        name: [run[name]["outcome"] for run in runs if name in run]
        for name in (*runs[-1], *sorted((HOSTILE[2], HOSTILE[5])), *sorted((HOSTILE[0], "a")))
    }
    for view in seen:
        assert Counter(each["word"] for each in view["findings"]) == words
        assert ["unreachable"] in [each["hosts"] for each in view["findings"]]
        assert len(view["strips"]) == len(histories)
        for strip, (name, had) in zip(view["strips"], histories.items(), strict=True):
            counts = {outcome: had.count(outcome) for outcome in had}
            bars = sum(1 for _ in itertools.groupby(had))
            assert strip["bars"] == bars, name
            total, _, rest = strip["text"].partition(": ")
            shown = {
                word: int(number) for number, word in (x.split() for x in rest.split(", ") if x)
            }
            assert (total, shown) == (
                f"{len(had)} run{'s' * (len(had) != 1)}" if had else "in no run shown here",
                counts,
            )


@pytest.mark.slow
def test_a_hostile_text_makes_no_element_and_moves_nothing(seen: list[dict[str, Any]]) -> None:
    for view in seen:
        assert not {"script", "img", "iframe", "object", "link", "base", "form"} & {*view["tags"]}
        assert view["wide"] == [], "nothing leaves the screen where nobody can scroll to it"
        # Each foreign text turns its own direction alone.
        assert view["directions"] == ["isolate"]
        texts = [row[0]["text"] for table in view["tables"] for row in table["rows"]]
        assert any("\\u202e" in text for text in texts)
        assert any("\\u200b" in text for text in texts)
        assert not [text for text in texts if {*text} & {*"\u202e\u2066\u200b\u2060\x1b\x00"}]


@pytest.mark.slow
def test_all_text_can_be_read_in_light_and_in_dark(seen: list[dict[str, Any]]) -> None:
    for view in seen:
        assert len(view["contrasts"]) > 5
        assert {pair: ratio for pair, ratio in view["contrasts"].items() if ratio < 4.5} == {}
