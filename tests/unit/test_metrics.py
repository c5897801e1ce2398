"""The metrics of runs, read by Prometheus' own client library and by the format's description."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from stackmend import spec
from stackmend.decision import Finding
from stackmend.diagnosis import Diagnosis
from stackmend.reporting import textfile
from stackmend.reporting.metrics import History, update
from stackmend.reporting.state import (
    Done,
    HostRecord,
    OperationRecord,
    Outcome,
    RunRecord,
)
from tests import exposition
from tests.lab import controller

ROOT = Path(__file__).parents[2]

#: In the order in which samples are named here.
LABELS = ("host", "operation", "kind", "verb", "state", "outcome", "version")
LABELS += ("incident", "severity")

#: Seconds since 1970 of the first run here.
FIRST = 1_700_000_000


def make_host(
    outcome: Outcome = "converged", *, kinds: Iterable[str] = (), **more: Any
) -> HostRecord:
    findings = tuple(Finding(subject="ai/redis", kind=kind, cause="it is") for kind in kinds)
    operation = OperationRecord(name="compose.stack (ai)", findings=findings, seconds=2.5, **more)
    return HostRecord(outcome=outcome, operations=(operation,))


def make_action(result: str = "done") -> Done:
    started = datetime.fromtimestamp(FIRST, UTC)
    return Done.model_validate(
        {
            "verb": "start",
            "subject": "ai/redis",
            "cause": "stopped",
            "started": started,
            "seconds": 1,
            "result": result,
        }
    )


def make_run(at: float = FIRST, mode: str = "apply", **hosts: HostRecord) -> RunRecord:
    ended = datetime.fromtimestamp(at, UTC)
    return RunRecord.model_validate(
        {
            "started": ended,
            "ended": ended,
            "controller": "desk",
            "mode": mode,
            "complete": True,
            "hosts": hosts,
        }
    )


def read(path: Path) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, checked as promtool checks a file."""
    text = path.read_text()
    assert text.endswith("\n")
    families: list[Metric] = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "one HELP and TYPE for a name"
    for family in families:
        assert re.fullmatch(r"stackmend_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            assert sample.timestamp is None
            assert math.isfinite(sample.value)
            assert sample.name.endswith("_total") is (family.type == "counter")
    samples = [
        ((sample.name, *(sample.labels[x] for x in LABELS if sample.labels.get(x))), sample.value)
        for family in families
        for sample in family.samples
    ]
    assert len(samples) == len(dict(samples)), "a series stands there once"
    assert exposition.parse(text) == {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    return dict(samples)


RIGHT = '# HELP a_total It is.\n# TYPE a_total counter\na_total{host="x"} 2\n'


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("} 2\n", "} 2", "does not end"),
        ("} 2", "} 2 1700000000", "no finite number alone"),
        ("} 2", "} NaN", "no finite number alone"),
        ("} 2", "} 1e999", "no finite number"),
        ("} 2", "}2", "no value"),
        ('"x"}', '"x\\t"}', "wrong labels"),
        ('"x"}', '"x",host="y"}', "a label twice"),
        ("host", "__host", "a reserved label"),
        ("host", "hostName", "camelCase"),
        ("host", "ho-st", "wrong labels"),
        ("# TYPE a_total counter\n", "", "no HELP and TYPE before it"),
        ("# HELP a_total It is.\n", "", "no HELP and TYPE before it"),
        ("# HELP a_total It is.\n", "# HELP a_total It is.\n" * 2, "HELP twice"),
        ("It is.", "", "no help"),
        ("counter", "Counter", "no type of ours"),
        ("# HELP", "#HELP", "neither HELP nor TYPE"),
        ("a_total{", "a-total{", "no HELP and TYPE before it"),
        ("a_total{", "{", "no name"),
        ("} 2\n", '} 2\na_total{host="x"} 2\n', "a series twice"),
        ("} 2\n", "} 2\n# TYPE a_total counter\n", "after samples"),
        ("a_total", "a", "ends with _total"),
        ("counter", "gauge", "ends with _total"),
        ("a_total", "a_ms_total", "ms is abbreviated"),
        ("a_total", "a_minutes_total", "no base unit"),
        ("a_total", "a_counter_total", "is its type"),
    ],
)
def test_a_text_that_prometheus_would_not_take_is_found(old: str, new: str, words: str) -> None:
    assert exposition.parse(RIGHT) == {("a_total", (("host", "x"),)): 2}
    assert old in RIGHT
    with pytest.raises(AssertionError, match=re.escape(words)):
        exposition.parse(RIGHT.replace(old, new))


def test_names_that_stand_apart_are_found() -> None:
    other = RIGHT.replace("a_total", "b_total")
    with pytest.raises(AssertionError, match="are apart"):
        exposition.parse(RIGHT + other + 'a_total{host="y"} 2\n')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stackmend.prom"


def test_what_a_host_is_and_what_was_found_and_done(file: Path) -> None:
    broken = make_host(
        "failed", kinds=["stopped", "stopped", "link"], done=(make_action("failed"),)
    )
    textfile.write(file, make_run(one=make_host()), {"one", "two"})
    textfile.write(file, make_run(FIRST + 60, one=broken), {"one", "two"})
    found = read(file)
    assert found["stackmend_host_state", "one", "failed"] == 1
    assert found["stackmend_host_state", "one", "converged"] == 0
    assert found["stackmend_last_run_timestamp_seconds", "one"] == FIRST + 60
    assert found["stackmend_last_success_timestamp_seconds", "one"] == FIRST
    assert found["stackmend_run_duration_seconds", "one"] == 2.5
    assert found["stackmend_findings", "one", "compose.stack (ai)", "stopped"] == 2
    assert found["stackmend_findings", "one", "compose.stack (ai)", "link"] == 1
    assert found["stackmend_runs_total", "one", "failed"] == 1
    assert ("stackmend_actions_total", "one", "compose.stack (ai)", "start") not in found
    mended = make_host("changed", done=(make_action(), make_action()))
    textfile.write(file, make_run(FIRST + 120, one=mended), {"one", "two"})
    textfile.write(file, make_run(FIRST + 180, one=make_host()), {"one", "two"})
    found = read(file)
    assert found["stackmend_last_success_timestamp_seconds", "one"] == FIRST + 180
    assert not [name for name in found if name[0] == "stackmend_findings"]
    assert found["stackmend_actions_total", "one", "compose.stack (ai)", "start"] == 2
    assert found["stackmend_runs_total", "one", "converged"] == 2
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_the_doctor_found_stands_in_place_of_what_the_run_before_it_did(file: Path) -> None:
    textfile.write(file, make_run(one=make_host("failed", kinds=["link"])), {"one", "two"})
    held = {"incident": "port-taken", "title": "held", "severity": "error"}
    down = {"incident": "service-down", "title": "down", "severity": "error"}
    diagnosis = Diagnosis.model_validate(
        {"findings": [held, {**down, "explained_by": "port-taken"}, {**held, "incident": ""}]}
    )
    ill = HostRecord(outcome="drifted", diagnosis=diagnosis)
    textfile.write(file, make_run(FIRST + 60, mode="dry", one=ill, two=ill), {"one", "two"})
    found = read(file)
    assert {name[1:]: value for name, value in found.items() if name[0].endswith("findings")} == {
        ("one", "port-taken", "error"): 1,
        ("one", "error"): 1,
    }
    assert found["stackmend_host_state", "one", "failed"] == 1
    some = HostRecord(outcome="converged", diagnosis=Diagnosis(only=("mtu",)))
    textfile.write(file, make_run(FIRST + 90, mode="dry", one=some), {"one", "two"})
    assert read(file) == found
    well = HostRecord(outcome="converged", diagnosis=Diagnosis())
    textfile.write(file, make_run(FIRST + 120, mode="dry", one=well), {"one", "two"})
    assert not [name for name in read(file) if name[0].endswith("findings")]


def test_each_state_is_one_of_all(file: Path) -> None:
    hosts = {outcome: make_host(outcome) for outcome in get_args(Outcome)}
    textfile.write(file, make_run(**hosts), hosts)
    found = read(file)
    # No run has said anything of the others: an alert would fire for them for ever.
    left_out = {"unmanaged", "locked"}
    assert {name for _, name, *_ in found if name in hosts} == {*hosts} - left_out
    for name in {*hosts} - left_out:
        states = {state: found["stackmend_host_state", name, state] for state in hosts}
        assert states == {**dict.fromkeys(hosts, 0), name: 1}
    success = "stackmend_last_success_timestamp_seconds"
    well = {name for name in {*hosts} - left_out if found[success, name]}
    assert well == {"converged", "changed"}


def test_a_host_that_left_the_inventory_leaves_the_file(file: Path) -> None:
    textfile.write(file, make_run(one=make_host(), two=make_host()), {"one", "two"})
    assert ("stackmend_last_run_timestamp_seconds", "two") in read(file)
    # Of those that a run leaves out, the last state stays; of those that are gone, nothing.
    textfile.write(file, make_run(FIRST + 60, three=make_host()), {"one", "three"})
    found = read(file)
    assert found["stackmend_last_run_timestamp_seconds", "one"] == FIRST
    assert not [labels for labels in found if "two" in labels]


def test_what_says_nothing_of_a_host_changes_nothing(file: Path) -> None:
    textfile.write(file, make_run(one=make_host("failed")), {"one"})
    before = read(file)
    textfile.write(file, make_run(FIRST + 60, "dry", one=make_host("converged")), {"one"})
    textfile.write(file, make_run(FIRST + 60, one=HostRecord(outcome="unmanaged")), {"one"})
    textfile.write(file, make_run(FIRST + 60, one=HostRecord(outcome="locked")), {"one"})
    assert read(file) == before


def test_a_name_of_any_form_is_one_label(file: Path) -> None:
    names = ['a"} 1\nstackmend_x 2', "b\\", "ü\u202e", "\ud800", "{}", "\x1b[31m"]
    textfile.write(file, make_run(**{name: make_host() for name in names}), names)
    found = read(file)
    assert len([name for name in found if name[0].endswith("last_run_timestamp_seconds")]) == 6
    assert "\x1b" not in file.read_text()


def test_what_is_kept_and_is_none_of_ours_is_begun_again(file: Path) -> None:
    kept = file.with_name(".stackmend.prom.json")
    for text in ("", "{", "[]", '{"version": 2}', '{"hosts": {"one": {"outcome": "fine"}}}'):
        kept.write_text(text)
        textfile.write(file, make_run(one=make_host()), {"one"})
        assert read(file)["stackmend_runs_total", "one", "converged"] == 1


def test_runs_at_one_time_all_count(file: Path, tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    record.write_text(make_run(one=make_host()).model_dump_json())
    program = (
        "import sys, pathlib; from stackmend import reporting; "
        "from stackmend.reporting import textfile; "
        "[textfile.write(pathlib.Path(sys.argv[1]), "
        "reporting.read(pathlib.Path(sys.argv[2])), {'one'}) for _ in range(20)]"
    )
    command = [sys.executable, "-c", program, str(file), str(record)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert read(file)["stackmend_runs_total", "one", "converged"] == 60


def test_another_user_may_read_it_as_soon_as_it_is_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = {}
    rename = Path.rename

    def note(self: Path, target: Path) -> Path:
        modes[target] = self.stat().st_mode & 0o777
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", note)
    textfile.write(file, make_run(one=make_host()), {"one"})
    assert modes[file] == 0o644
    assert sorted(path.name for path in file.parent.iterdir()) == [
        ".stackmend.prom.json",
        ".stackmend.prom.lock",
        "stackmend.prom",
    ]


def test_a_directory_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="there is no directory"):
        textfile.write(tmp_path / "no" / "x.prom", make_run(one=make_host()), {"one"})
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x.txt", "stack.report.metrics: must end with .prom"),
        ("no/such/x.prom", "stack.report.metrics: there is no directory"),
    ],
)
def test_a_wrong_setting_is_one_error(value: str, words: str) -> None:
    with pytest.raises(spec.SpecError, match=re.escape(words)) as error:
        spec.parse_machine({"stack": {"engine": {}, "report": {"metrics": value}}})
    assert len(str(error.value).splitlines()) == 1


outcomes = st.sampled_from(get_args(Outcome))
names = st.sampled_from(("one", "two", "three"))
runs = st.builds(
    lambda hosts, mode: make_run(mode=mode, **{n: make_host(o) for n, o in hosts.items()}),
    st.dictionaries(names, outcomes),
    st.sampled_from(("apply", "dry")),
)


@given(st.lists(runs, max_size=6), st.sets(names))
def test_counts_never_fall_while_a_host_stays(
    records: list[RunRecord], inventory: set[str]
) -> None:
    history = History()
    for record in records:
        after = update(history, record, inventory)
        assert set(after.hosts) <= inventory
        for name, state in history.hosts.items():
            assert all(after.hosts[name].runs.get(k, 0) >= n for k, n in state.runs.items())
        assert update(after, make_run(mode="dry"), inventory) == after
        history = after


def test_the_dashboard_asks_for_what_there_is(file: Path) -> None:
    textfile.write(
        file, make_run(one=make_host("failed", kinds=["link"], done=(make_action(),))), {"one"}
    )
    there = {name for name, *_ in read(file)}
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_bytes())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    asked = set(re.findall(r"stackmend_\w+", " ".join([*queries, json.dumps(dashboard)])))
    assert len(queries) >= 6
    assert asked == there
    documented = (ROOT / "docs" / "metrics.md").read_text()
    assert there <= set(re.findall(r"stackmend_\w+", documented))
    assert set(re.findall(r"stackmend_\w+_(?:total|seconds)", documented)) <= there


def test_runs_write_them_and_one_that_cannot_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("from stackmend import reporting\nreporting.install()\n")
    (tmp_path / "deploy.py").write_text(
        "from pyinfra import host\nfrom pyinfra.operations import server\n"
        "server.shell(name='try', commands=[host.data.command])\n"
    )
    all_hosts = (
        "stack = {'engine': {}, 'report': {'metrics': 'out.prom'}}\n"
        "hosts = [('@local', {'command': 'true', 'stack': stack}),\n"
        " ('gone', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1, 'command': 'true'})]\n"
    )
    (tmp_path / "hosts.py").write_text(all_hosts)
    run = controller.run("hosts.py", "deploy.py", "-y", cwd=tmp_path, timeout=180)
    assert (tmp_path / "out.prom").exists(), run.out
    found = read(tmp_path / "out.prom")
    assert found["stackmend_host_state", "@local", "changed"] == 1, run.out
    assert found["stackmend_host_state", "gone", "unreachable"] == 1
    # A run that is not of it keeps what is known; one whose inventory has it no more drops it.
    run = controller.run(
        "hosts.py", "deploy.py", "-y", "--limit", "@local", cwd=tmp_path, timeout=180
    )
    found = read(tmp_path / "out.prom")
    assert found["stackmend_host_state", "gone", "unreachable"] == 1, run.out
    (tmp_path / "hosts.py").write_text(all_hosts.partition(",\n ('gone'")[0] + "]\n")
    run = controller.run("hosts.py", "deploy.py", "-y", cwd=tmp_path, timeout=180)
    assert "gone" not in (tmp_path / "out.prom").read_text(), run.out
    assert read(tmp_path / "out.prom")["stackmend_runs_total", "@local", "changed"] == 3
    (tmp_path / "out.prom").unlink()
    (tmp_path / "out.prom").mkdir()
    run = controller.run(
        "hosts.py", "deploy.py", "-y", "--limit", "@local", cwd=tmp_path, timeout=180
    )
    assert "the metrics could not be written" in run.out
    assert run.rc == 0
