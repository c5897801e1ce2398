"""A page of pictures in a real browser, on a phone and on a desktop, light and dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stackmend.worker.benchmark.state import Conditions, Load, Result
from stackmend.worker.pictures import write_page
from stackmend.worker.pictures.arrange import MOST_OPEN
from tests import browser
from tests.unit.benchmark_results import LOADS, make_queue_result, make_result
from tests.unit.pictures_pages import check_figures, load_tables

pytestmark = pytest.mark.slow

SCRIPT = "<script>document.title='owned'</script>"
IMAGE = '"><img src=x onerror="document.title=\'owned\'">'


def make_results() -> list[Result]:
    troubled = Conditions(throttled=2.1, throttled_periods=21, steal=0.034, swapped=120, busy=0.97)
    return [
        make_result(
            "ai1",
            past=9,
            baseline_speed=1.3,
            conditions=troubled,
            invalid=("short", "cached"),
            noisy="spread of 14 %",
            reason=f"the server said {SCRIPT}",
        ),
        make_result("ai2", baseline_speed=0.3, baseline_engine="llama-cpp-python", past=3),
        make_result("ai3.rack-17.example.com", speed=0.01, loads=(Load(rate=0.5), Load(rate=2.0))),
        make_result(f"ai4 {SCRIPT} \u202egnp", model=IMAGE, past=60, loads=LOADS[:1]),
        make_result("ai5", invalid=("error",) * 8),
        make_queue_result("ai6 " + "x" * 10_000),
    ]


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return make_results()


@pytest.fixture(scope="module")
def seen(results: list[Result], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    page = write_page(results, tmp_path_factory.mktemp("page") / "benchmark.html")
    return browser.observe(page)


def test_it_is_seen_at_each_width_in_each_scheme(seen: list[dict[str, Any]]) -> None:
    assert [(view["at"], view["scheme"], view["width"]) for view in seen] == [
        (360, "light", 360),
        (360, "dark", 360),
        (1280, "light", 1280),
        (1280, "dark", 1280),
    ]


def test_the_browser_complains_of_nothing_and_fetches_nothing(seen: list[dict[str, Any]]) -> None:
    for view in seen:
        assert view["messages"] == []
        assert [url.rpartition("/")[2] for url in view["requests"]] == ["benchmark.html"]
        assert view["title"] == "Benchmark of 6 hosts"
        assert len(view["ids"]) == len({*view["ids"]})


def test_nothing_is_wider_than_the_screen(seen: list[dict[str, Any]]) -> None:
    assert [view["scrolled"] - view["width"] for view in seen] == [0, 0, 0, 0]


def test_its_figures_are_those_of_the_json(
    seen: list[dict[str, Any]], results: list[Result]
) -> None:
    stored = [json.loads(result.model_dump_json()) for result in results]
    for view in seen:
        assert check_figures(load_tables(view["tables"]), stored) > 200


def test_every_picture_is_readable(seen: list[dict[str, Any]]) -> None:
    for view in seen:
        assert len(view["pictures"]) > 15
        for picture in view["pictures"]:
            left, top, right, bottom = picture["box"]
            assert left >= 0
            assert right <= view["width"]
            assert right - left >= 300
            assert bottom - top >= 60
            assert (picture["role"], picture["labelled"]) == ("img", True)
            assert picture["name"]
            assert picture["outside"] == []
            assert picture["overlapping"] == []


def test_a_link_of_the_fleet_opens_the_host_that_it_leads_to(tmp_path: Path) -> None:
    many = [make_result(f"ai{number}", loads=LOADS[:1]) for number in range(MOST_OPEN + 1)]
    page = write_page(many, tmp_path / "benchmark.html")
    assert [view["followed"] for view in browser.observe(page)] == [[[f"#m{MOST_OPEN}", True]]] * 4


def test_colours_follow_what_the_reader_prefers(seen: list[dict[str, Any]]) -> None:
    by_scheme = {view["scheme"]: view for view in seen}
    assert by_scheme["light"]["background"] == "rgb(255, 255, 255)"
    assert by_scheme["dark"]["background"] == "rgb(20, 24, 29)"
    for light, dark in zip(
        by_scheme["light"]["pictures"], by_scheme["dark"]["pictures"], strict=True
    ):
        common = {*light["colours"]} & {*dark["colours"]}
        assert common <= {"none none"}


def test_without_a_browser_ci_fails_and_others_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACKMEND_TEST_BROWSER", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser: install one of chromium"):
        browser.find()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no browser: install one of chromium"):
        browser.find()
