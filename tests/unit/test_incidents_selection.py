"""Single incidents and rooms asked for alone; what an incident itself is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stackmend.cli import cli
from stackmend.cli.explained import format_explanation
from stackmend.diagnosis import CheckOutcome, DiagnosedFinding, Diagnosis, Evidence
from stackmend.incidents import list_incidents, selection
from stackmend.incidents.explaining import explain
from stackmend.problems import Problem
from stackmend.spec import SpecError, check_settings
from tests.example_incident import EXAMPLE

KNOWN = list_incidents()


def find(incident: str, **more: object) -> DiagnosedFinding:
    fields = {"incident": incident, "title": incident, "severity": "error"}
    return DiagnosedFinding.model_validate({**fields, **more})


FOUND = Diagnosis(
    findings=(
        find(
            "port-taken",
            explains=("service-down",),
            evidence=(Evidence(line="held", source="ports.free"),),
        ),
        find(
            "service-down",
            explained_by="port-taken",
            evidence=(Evidence(line="stopped", source="compose.stack"),),
        ),
        find("", evidence=(Evidence(line="x", source="models.pulled"),)),
    ),
    checks=(
        CheckOutcome(name="port-taken", status="finding"),
        CheckOutcome(name="service-down", status="finding"),
        *(
            CheckOutcome(name=name, status="ok")
            for name in ("model-missing", "mtu", "ports.free", "models.pulled")
        ),
    ),
    notes=("a note",),
)


@pytest.mark.parametrize(
    ("names", "findings", "checks"),
    [
        (["port-taken"], ["port-taken"], ["port-taken"]),
        (["service-down"], ["service-down"], ["service-down"]),
        (["ports"], ["port-taken"], ["port-taken", "ports.free"]),
        (["models", "mtu"], [""], ["model-missing", "mtu", "models.pulled"]),
        (["compose"], ["service-down"], ["service-down"]),
    ],
)
def test_what_is_chosen_is_left(names: list[str], findings: list[str], checks: list[str]) -> None:
    chosen = selection.select(FOUND, names, KNOWN)
    assert [each.incident for each in chosen.findings] == findings
    assert [each.name for each in chosen.checks] == checks
    assert chosen.only == tuple(names)
    assert all(each.explains == () for each in chosen.findings if names == ["port-taken"])


def test_without_a_choice_all_is_left() -> None:
    assert selection.select(FOUND, selection.parse(None, KNOWN), KNOWN) is FOUND


def test_a_wrong_name_is_one_error_with_what_is_meant(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {image: a}}\n")
    stack = {"project": "ai", "source": str(tmp_path), "directory": "/opt/ai"}
    with pytest.raises(SpecError, match=r"^--only: .*port-takn \(did you mean port-taken\?\)"):
        check_settings("a", {"stack": stack, "doctor_only": "port-takn"})
    check_settings("a", {"stack": stack, "doctor_only": "port-taken, ports"})
    (tmp_path / "own.py").write_text(EXAMPLE)
    stack["incidents"] = [str(tmp_path / "own.py")]  # type: ignore[assignment]
    check_settings("a", {"stack": stack, "doctor_only": "upstream-slow"})
    with pytest.raises(Problem, match="name an incident or a room"):
        selection.parse(" , ", KNOWN)


@pytest.mark.parametrize("incident", KNOWN, ids=lambda incident: incident.id)
def test_each_incident_can_be_explained(incident) -> None:  # type: ignore[no-untyped-def]
    explanation = explain(incident, KNOWN)
    assert explanation.recognised
    assert explanation.does
    shown = format_explanation(explanation)
    assert max(map(len, shown.splitlines())) <= 80
    for text in (incident.id, "remedy", "proof", "recognised"):
        assert text in shown


def run(*words: str) -> tuple[int, str]:
    # In a process of its own: pyinfra changes how the standard library waits.
    done = subprocess.run(
        [str(Path(sys.executable).with_name("stackmend")), "doctor", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_all_are_listed_as_text_and_as_json() -> None:
    code, text = run("--list")
    assert code == 0
    assert all(incident.id in text for incident in KNOWN)
    rows = json.loads(run("--list", "--json")[1])
    assert [row["id"] for row in rows] == [incident.id for incident in KNOWN]
    explained = json.loads(run("--explain", "port-taken", "--json")[1])
    assert explained["explains"] == ["service-down", "service-unreachable", "restart-loop"]


def test_a_wrong_id_is_one_error() -> None:
    code, text = run("--explain", "port-takn")
    assert code == 2
    assert "no incident is called port-takn (did you mean port-taken?)" in text


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """An inventory whose stack names an incident of its own."""
    (tmp_path / "compose.yaml").write_text("services: {a: {image: a}}\n")
    (tmp_path / "own.py").write_text(EXAMPLE)
    stack = {"project": "ai", "source": str(tmp_path), "directory": "/opt/ai"}
    stack["incidents"] = [str(tmp_path / "own.py")]  # type: ignore[assignment]
    path = tmp_path / "fleet.py"
    path.write_text(f"hosts = [('nowhere.invalid', {{'stack': {stack!r}}})]\n")
    return path


def test_an_inventory_adds_its_own(inventory: Path, tmp_path: Path) -> None:
    code, text = run(str(inventory), "--explain", "no-memory-limit")
    assert code == 0
    assert "derived from what operations read: Services that may take all" in text
    assert str(tmp_path / "own.py") in text.replace("\n", "").replace(" ", "")
    log = tmp_path / "error.log"
    log.write_text("gateway: upstream timed out (110: Connection timed out)\n")
    code, text = run(str(inventory), "--text", str(log))
    assert code == 1
    assert "upstream-slow" in text


@pytest.mark.parametrize(
    "words",
    [
        ["--text", "-", "--list"],
        ["--list", "--only", "mtu"],
        ["--explain", "mtu", "--bundle", "x"],
        ["x", "--anonymous"],
        [],
    ],
)
def test_wrong_usage_is_said(words: list[str]) -> None:
    done = CliRunner().invoke(cli, ["doctor", *words], standalone_mode=False)
    assert isinstance(done.exception, click.UsageError)
