"""The page: its figures, its bytes, and what a hostile name can do to it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stackmend import redaction
from stackmend.worker import pictures
from stackmend.worker.benchmark.state import Conditions, Load, Result
from stackmend.worker.pictures import arrange
from stackmend.worker.pictures.__main__ import main
from stackmend.worker.pictures.arrange import build_content
from stackmend.worker.pictures.charts import draw_png, draw_svg
from stackmend.worker.pictures.page import render
from tests.unit.benchmark_results import LOADS, NOW, make_queue_result, make_result
from tests.unit.pictures_pages import Page, check_figures, read_tables

ROOT = Path(__file__).parents[2]
TROUBLED = Conditions(
    throttled=2.1, throttled_periods=21, steal=0.034, swapped=120, oom_kills=1, thermal=3,
    busy=0.97, load_average=9.1, gpu_throttle=("sw_power_cap",), gpu_temperature=88,
)  # fmt: skip
RIGHT_TO_LEFT = "ai\u202egnp.exe\u2066"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% include 'page.css' %}",
    "]]><!-- & &amp; &lt;",
    "$\\frac{1}{0}$ and $",
    RIGHT_TO_LEFT,
    "模型 🦙 نموذج",
    "a\nb\x1b[31m\x00\t",
    "x" * 10_000,
    " ",
    "",
)


def make_all() -> list[Result]:
    return [
        make_result(
            "ai1", past=9, baseline_speed=1.3, conditions=TROUBLED,
            invalid=("short", "cached"), noisy="spread of 14 % is more than 10 %",
        ),
        make_result("ai2", baseline_speed=0.3, baseline_engine="llama-cpp-python", past=3),
        make_result("ai3", failed_repeat=True),
        make_queue_result("ai4"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    return render(make_all())


def test_its_figures_are_those_of_the_json(page: str) -> None:
    stored = [json.loads(result.model_dump_json()) for result in make_all()]
    assert check_figures(read_tables(page), stored) > 150


def test_hosts_stand_side_by_side_with_the_same_figures(page: str) -> None:
    tables = {table.title: table for table in read_tables(page) if table.section == "fleet"}
    throughput = tables["Throughput, all hosts"]
    assert [row[0].text for row in throughput.rows] == ["ai1", "ai2", "ai3"]
    for row, result in zip(throughput.rows, make_all(), strict=False):
        assert [float(cell.values[0]) for cell in row[1:5]] == [
            summary.median.output_tps for summary in result.summaries
        ]
    assert [row[-1].text for row in throughput.rows] == ["▼ worse", "▲ better", "-"]
    queue = tables["Throughput of the queue, all hosts"]
    assert [row[0].text for row in queue.rows] == ["ai4"]
    assert "Time for a task, all hosts" in tables


def test_a_queue_has_tasks_and_no_tokens(page: str) -> None:
    titles = {table.title for table in read_tables(page) if table.section == "m3"}
    assert not [title for title in titles if title.startswith("History")]
    assert {"Throughput of the queue", "Time for a task"} <= titles
    assert not titles & {"Throughput", "Time to first token", "Time for each further token"}
    (table,) = (t for t in read_tables(page) if (t.section, t.title) == ("m3", "Time for a task"))
    assert [float(cell.values[0]) for cell in table.column("median s")] == [
        summary.median.end[0]
        for summary in make_queue_result("ai4").summaries
        if summary.median.end
    ]


def test_what_makes_figures_doubtful_stands_beside_them(page: str) -> None:
    (table,) = (
        t for t in read_tables(page) if t.section == "m0" and t.title.startswith("Each repeat")
    )
    row = next(row for row in table.rows if row[0].text == "8" and row[1].text == "5")
    shown = dict(zip(table.headings, (cell.text for cell in row), strict=True))
    assert shown["throttled s"] == "2.10"
    assert shown["steal %"] == "3.4"
    assert shown["from swap pages"] == "120"
    assert shown["OOM kills"] == "1"
    assert shown["too hot times"] == "3"
    assert shown["GPU held back"] == "sw_power_cap"
    assert (shown["count"], shown["do not"]) == ("6", "2")
    (table,) = (
        t for t in read_tables(page) if t.section == "m0" and t.title == "Samples that do not count"
    )
    assert [[cell.text for cell in row[:3]] for row in table.rows[:2]] == [
        ["1", "short", "5"],
        ["1", "cached", "5"],
    ]
    for note in (
        "throughput is worse than before",
        "noisy at concurrency 8: spread of 14 % is more than 10 %",
        "40 samples do not count: 20 short, 20 cached",
        "pages came in from swap (concurrency 1: 120, ",
    ):
        assert note in page


def test_a_fingerprint_names_what_differs(page: str) -> None:
    (table,) = (t for t in read_tables(page) if t.section == "m1" and t.title == "Fingerprint")
    engine = next(row for row in table.rows if row[0].text == "engine")
    assert [cell.text for cell in engine[1:]] == ["ollama", "llama-cpp-python"]
    assert {row[2].text for row in table.rows if row is not engine} == {"the same"}


def test_it_needs_nothing_and_runs_nothing(page: str) -> None:
    parsed = Page(page)
    names = {name for name, _ in parsed.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "a "}
    for name, attributes in parsed.tags:
        assert not [attribute for attribute in attributes if attribute.startswith("on")]
        assert "style" not in attributes, "the policy would reject it"
        for attribute in ("href", "src", "xlink:href", "action", "data"):
            assert (attributes.get(attribute) or "#").startswith("#"), (name, attributes)
        assert "url(" not in str(attributes).replace("url(#", "")
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len({*ids})
    targets = {(a.get("href") or "")[1:] for _, a in parsed.tags if a.get("href")}
    assert targets <= {*ids}


def test_its_policy_allows_its_one_style_sheet(page: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = (
        attributes["content"]
        for name, attributes in Page(page).tags
        if name == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_has_a_title_and_its_table(page: str) -> None:
    parsed = Page(page)
    pictures_ = [attributes for name, attributes in parsed.tags if name == "svg"]
    assert len(pictures_) == 3 + 2 + 4 + 4 + 3 + 2
    ids = {attributes.get("id") for _, attributes in parsed.tags}
    for attributes in pictures_:
        assert attributes["role"] == "img"
        assert attributes["aria-labelledby"] in ids


@pytest.mark.slow
def test_equal_data_are_equal_bytes_in_any_order_and_process(page: str, tmp_path: Path) -> None:
    results = make_all()
    assert render(reversed(results)) == page
    # A reader's own settings of matplotlib would show.
    (tmp_path / "matplotlibrc").write_text(
        "axes.facecolor: red\nsvg.fonttype: path\nfont.size: 20\n"
    )
    program = (
        "import sys\n"
        "from stackmend.worker.pictures.page import render\n"
        "from stackmend.worker.pictures.charts import draw_png\n"
        "from stackmend.worker.pictures.arrange import build_content\n"
        "from tests.unit.test_pictures_page import make_all\n"
        "sys.stdout.buffer.write(render(make_all()).encode())\n"
        "sys.stdout.buffer.write(draw_png(build_content(make_all()).fleet[0].chart, 'dark'))\n"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "77",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=120, env=environment, cwd=ROOT
    )
    chart = build_content(results).fleet[0].chart
    assert chart is not None
    assert done.stdout == page.encode() + draw_png(chart, "dark"), done.stderr.decode()


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_text(name: str, page: str) -> None:
    tags = {tag for tag, _ in Page(page).tags}
    plain = make_result("plain", loads=LOADS[:2], repeats=2, baseline_speed=1.0, past=2)
    measurement = plain.measurement.model_copy(
        update={
            "host": name,
            "name": name,
            "cause": name,
            "fingerprint": plain.measurement.fingerprint.model_copy(
                update={"model": name, "engine": name, "settings": (name,), "version": name}
            ),
        }
    )
    result = plain.model_copy(update={"measurement": measurement})
    noisy = result.summaries[0].model_copy(update={"noisy": name})
    result = result.model_copy(update={"summaries": (noisy, *result.summaries[1:])})
    page = render([result, plain])
    # The same elements as of a plain name: nothing in it became one.
    assert {tag for tag, _ in Page(page).tags} <= tags
    assert not any(a.startswith("on") for _, attributes in Page(page).tags for a in attributes)
    assert "\u202e" not in page
    assert "\u2066" not in page
    assert "\x1b" not in page
    assert "\x00" not in page
    assert len(page) < 130_000
    chart = build_content([result]).sections[0].blocks[0].chart
    assert chart is not None
    ElementTree.fromstring(draw_svg(chart))
    assert draw_png(chart).startswith(b"\x89PNG")


def test_a_secret_of_the_process_is_not_on_the_page() -> None:
    redaction.register("hunter2-and-more")
    page = render([make_result("ai1", model="qwen --api-key=abcdef hunter2-and-more")])
    assert "hunter2" not in page
    assert "abcdef" not in page


@pytest.mark.parametrize(
    "result",
    [
        make_result(loads=LOADS[:1]),
        make_result(loads=LOADS[:1], baseline_speed=1.2, past=1),
        make_result(loads=(Load(rate=0.5), Load(concurrency=2))),
        make_result(invalid=("error",) * 8),
        make_result(invalid=("error",) * 8, baseline_speed=1.0, past=3),
        make_result(failed_repeat=True),
        make_result(repeats=1),
        make_result().model_copy(update={"summaries": ()}),
        make_result(loads=tuple(Load(concurrency=count) for count in range(1, 31)), past=90),
    ],
    ids=[
        "one level",
        "one level against a baseline",
        "loads of two kinds",
        "no sample counts",
        "no sample counts, but once did",
        "a repeat failed",
        "one repeat",
        "no summary",
        "many levels",
    ],
)
def test_what_is_missing_is_left_out(result: Result) -> None:
    page = render([result])
    check_figures(read_tables(page), [json.loads(result.model_dump_json())])
    assert "nan" not in page.lower().replace("dominan", "")
    assert ">None<" not in page


def test_no_sample_counts_is_said_instead_of_drawn() -> None:
    page = render([make_result(invalid=("error",) * 8)])
    assert "<svg" not in page
    assert "No sample counts: there is nothing to draw." in page


def test_measurements_of_one_host_are_told_apart() -> None:
    first = make_result("ai1")
    later = first.model_copy(
        update={"measurement": first.measurement.model_copy(update={"at": 1_796_100_000.0})}
    )
    titles = [section.title for section in build_content([later, first]).sections]
    assert titles == [
        "ai1 · service ollama · ollama · 2026-11-30 06:00 UTC",
        "ai1 · service ollama · ollama · 2026-12-01 04:40 UTC",
    ]


@pytest.mark.slow
def test_two_hundred_hosts_are_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrange, "MOST_CHARTED", 10)
    results = [
        make_result(f"host-{index:03}", speed=1 + index % 7, loads=LOADS[:2], repeats=2)
        for index in range(200)
    ]
    results[150] = make_result("host-150", loads=LOADS[:2], baseline_speed=2.0)
    page = render(results)
    tables = [table for table in read_tables(page) if table.section == "fleet"]
    assert [len(table.rows) for table in tables] == [50] * 4 * 3
    sections = build_content(results).sections
    drawn = [any(block.chart for block in section.blocks) for section in sections]
    assert sum(drawn) == 10
    assert drawn[150], "the one that got slower is among them"
    assert all(section.folded for section in sections)
    assert len(page) < 6_000_000
    check_figures(read_tables(page), [json.loads(result.model_dump_json()) for result in results])


def test_pages_and_pictures_are_written(tmp_path: Path) -> None:
    results = [
        make_result("ai/../1", past=2, loads=LOADS[:1]),
        make_result("../../x", loads=LOADS[:1]),
    ]
    where = tmp_path / "deep/er"
    path = pictures.write_pages(results, where)
    assert path == where / "benchmark.html"
    assert path.read_text(encoding="utf-8") == render(results)
    written = sorted(item.name for item in where.iterdir())
    assert "m1-ttft-ai-1-light.png" in written
    assert "m0-history-x-dark.png" not in written
    assert "m1-history-ai-1-dark.png" in written
    assert len(written) == 1 + 2 * (3 + 3 + 4)
    assert not [name for name in written if name.startswith(".")]
    for name in written:
        if name.endswith(".png"):
            head = (where / name).read_bytes()[:24]
            assert head.startswith(b"\x89PNG\r\n\x1a\n")
            assert struct.unpack(">I", head[16:20]) == (1050,)


def test_a_page_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pictures.write_page([make_result(loads=LOADS[:1])], tmp_path / "page.html")
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        pictures.write_page([make_result("other", loads=LOADS[:1])], path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_the_command_writes_a_page_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "ai1.json"
    source.write_text(make_result(loads=LOADS[:1]).model_dump_json())
    page, directory = tmp_path / "page.html", tmp_path / "png"
    assert main([str(source), "--html", str(page), "--png", str(directory)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.splitlines()[0] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len([*directory.glob("*.png")]) == 6
    assert main([str(source)]) == 0
    assert "concurrency" in capsys.readouterr().out


def test_the_command_names_a_wrong_file_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "ai1.json"
    source.write_text('{"measurement": {"schema_version": 1}}')
    assert main([str(source)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{source}: measurement.target: missing")
    assert error.count("\n") == 1


def test_without_the_extra_one_line_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "ai1.json"
    source.write_text(make_result(loads=LOADS[:1]).model_dump_json())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(source), "--html", str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err == (
        "pictures need matplotlib, which is not installed; "
        "run: pip install 'stackmend[benchmark]'\n"
    )
    assert [*tmp_path.iterdir()] == [source]
    with pytest.raises(pictures.ExtraMissingError):
        pictures.write_pages([make_result()], tmp_path / "pages")
    assert [*tmp_path.iterdir()] == [source]
    assert main([str(source)]) == 0, "the table needs no extra"


def test_importing_pictures_imports_no_matplotlib() -> None:
    program = "import sys, stackmend.worker.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_drawing_leaves_no_global_state() -> None:
    program = (
        "import sys, matplotlib\n"
        "matplotlib.rcParams['font.size'] = 33\n"
        "names = {*matplotlib.rcParams} - {'backend'}\n"
        "read = lambda: {name: matplotlib.rcParams[name] for name in names}\n"
        "before = read()\n"
        "from tests.unit.test_pictures_page import make_result, render\n"
        "render([make_result()])\n"
        "assert read() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_picture_has_the_figures_of_its_table_and_markers_at_their_places() -> None:
    content = build_content([make_result("ai1", baseline_speed=1.3)])
    block = content.sections[0].blocks[0]
    assert block.chart is not None
    root = ElementTree.fromstring(draw_svg(block.chart))
    space = "{http://www.w3.org/2000/svg}"
    texts = [
        (text.get("x"), text.get("text-anchor"), text.text) for text in root.iter(f"{space}text")
    ]
    lines = [
        float((path.get("d") or "").split()[2])
        for path in root.iter(f"{space}path")
        if path.get("class") == "s-grid"
    ]
    labels = [float(text or "") for _, anchor, text in texts if anchor == "end"]
    height = (lines[0] - lines[-1]) / (labels[-1] - labels[0])
    headings = [column.heading for column in block.table.columns]
    roles = {"now": ("f-blue s-blue", "median"), "before": ("f-orange s-orange", "baseline")}
    for series in block.chart.series:
        colour, heading = roles[series.role]
        markers = [
            use
            for group in root.iter(f"{space}g")
            for use in group.iter(f"{space}use")
            if use.get("class") == colour
        ]
        assert len(markers) == len(series.values) == 4
        column = headings.index(heading)
        for marker, value, row in zip(markers, series.values, block.table.rows, strict=True):
            drawn = (lines[0] - float(marker.get("y") or "")) / height
            assert drawn == pytest.approx(value, abs=0.01 / height)
            assert (marker.get("x"), "middle", str(row[column])) in texts


def test_whole_answers_have_one_unit_on_all_of_a_page() -> None:
    page = render([make_result("ai1"), make_result("ai2", speed=0.001)])
    headings = {
        heading
        for table in read_tables(page)
        if table.title.startswith("Whole answers")
        for heading in table.headings
        if heading.startswith("answer ends")
    }
    assert headings == {"answer ends after s"}


@pytest.mark.parametrize("baseline", [None, 1.3])
def test_the_history_leaves_out_as_many_as_it_says(baseline: float | None) -> None:
    for past in (37, 38, 39, 60):
        result = make_result("ai1", past=past, baseline_speed=baseline)
        content = build_content([result])
        (block,) = (
            block for block in content.sections[0].blocks if block.table.title.startswith("History")
        )
        moments = {item.at for item in result.history} | {result.measurement.at}
        moments |= {result.baseline.at} if result.baseline else set()
        left = re.search(r"([0-9]+) earlier measurements are left out", block.note)
        rows = len(block.table.rows)
        assert rows <= 40
        assert rows + (int(left[1]) if left else 0) == len(moments)
        assert bool(left) is (len(moments) > 40)


def test_what_stands_out_has_a_sign_beside_its_colour(page: str) -> None:
    classes = [
        str(attributes.get("class")).split()
        for name, attributes in Page(page).tags
        if name in ("td", "th") and "warn" in str(attributes.get("class")).split()
    ]
    assert any("sign" in found for found in classes)
    assert 'td.sign::before{content:"! "}' in page


def test_others_may_read_a_page_where_the_user_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = pictures.write_page([make_result("ai1")], tmp_path / "page.html")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_page_says_what_its_results_are_of() -> None:
    """Three measurements of one server are no fleet."""
    names = {
        ("ai1", "ai2"): ("Benchmark of 2 hosts", "hosts", "host"),
        ("ai1", "ai1", "ai1"): (
            "Benchmark of ai1 · service ollama, 3 times",
            "measurements",
            "measurement",
        ),
    }
    for hosts, (title, several, one) in names.items():
        made = [make_result(host) for host in hosts]
        results = [
            result.model_copy(
                update={
                    "measurement": result.measurement.model_copy(update={"at": NOW + 60 * later})
                }
            )
            for later, result in enumerate(made)
        ]
        page = render(results)
        assert f"<h1><bdi>{title}</bdi></h1>" in page
        assert f"<h2>All {several}</h2>" in page
        fleet = [table for table in read_tables(page) if table.section == "fleet"]
        assert fleet[0].title == f"Throughput, all {several}"
        assert fleet[0].headings[0] == one
    two = [make_result("ai1", name=f"service {name}") for name in ("ollama", "llm")]
    assert "<h1><bdi>Benchmark of ai1 · 2 servers</bdi></h1>" in render(two)
