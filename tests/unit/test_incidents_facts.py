"""What a host's logs say of late: which lines count, and how old they are."""

from __future__ import annotations

import json

import pytest
from pyinfra.api import FactProcessError
from pyinfra.api.exceptions import FactValueError

from stackmend import redaction
from stackmend.diagnosis import Diagnosis
from stackmend.incidents import Observations, Symptoms, diagnose, diagnose_text
from stackmend.incidents.facts import RecentSymptoms
from stackmend.reporting.diagnoses import format_text

ID = "a" * 64
NOW = 1_780_000_000  # 2026-05-28T20:26:40Z


def frame(mark: str, name: str, *lines: str, status: int = 0) -> list[str]:
    return [
        "",
        f"{mark} begin {name}",
        *(f"|{line}" for line in lines),
        "",
        f".{status}",
        f"{mark} end",
    ]


def read(*sections: tuple[str, tuple[str, ...], int]) -> Symptoms:
    fact = RecentSymptoms()
    fact.command()
    output = frame(fact._mark, "clock", str(NOW))
    for name, lines, status in sections:
        output += frame(fact._mark, name, *lines, status=status)
    return fact.process(output)


def row(*, running: bool = True, service: str | None = "web") -> str:
    return json.dumps([ID, "/ai-web-1", service, running, "2026-05-28T20:26:00.123456789Z"])


LOG = (
    "2026-05-28T20:25:00.5Z port is already allocated",
    "2026-05-28T20:26:30.000000001Z connect ECONNREFUSED 127.0.0.1:6379",
    "without a time",
    "2026-99-99T99:99:99Z at no time",
)


def test_of_a_container_that_runs_what_it_wrote_before_its_start_is_of_the_past() -> None:
    (log,) = read(("containers", (row(),), 0), (f"log {ID}", LOG, 0)).logs
    assert (log.source, log.kind, log.subject) == ("log of ai-web-1", "container", "web")
    assert [(line.text, line.age) for line in log.lines] == [
        ("connect ECONNREFUSED 127.0.0.1:6379", 10.0),
        ("without a time", None),
        ("at no time", None),
    ]


def test_of_one_that_does_not_run_all_counts() -> None:
    (log,) = read(
        ("containers", (row(running=False, service=None),), 0), (f"log {ID}", LOG, 0)
    ).logs
    assert log.subject == "ai-web-1"
    assert [line.age for line in log.lines] == [99.5, 10.0, None, None]


def test_journals_and_events_have_their_ages() -> None:
    found = read(
        ("events", (f"{NOW - 5} oom ai-web-1",), 0),
        ("unit docker.service", (f"{NOW + 9}.25 ai1 dockerd[1]: hello", ""), 0),
        ("unit kernel", (), 0),
    )
    assert [(log.source, log.kind) for log in found.logs] == [
        ("events of the engine", "engine"),
        ("journal of docker.service", "unit"),
    ]
    # The clock may have been set back meanwhile.
    assert [log.lines[0].age for log in found.logs] == [5.0, 0.0]


def test_an_engine_that_does_not_answer_is_a_problem_and_not_silence() -> None:
    found = read(("containers", ("Cannot connect to the Docker daemon",), 1))
    assert found.problems == (("the engine", "Cannot connect to the Docker daemon"),)


def test_what_is_no_answer_is_refused() -> None:
    fact = RecentSymptoms()
    fact.command()
    with pytest.raises(FactProcessError, match="the host's logs"):
        fact.process(["nonsense"])


@pytest.mark.parametrize("arguments", [{"project": "a; b"}, {"minutes": 0}, {"minutes": 9999}])
def test_arguments_that_are_none_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(FactValueError):
        RecentSymptoms().command(**arguments)  # type: ignore[arg-type]


def test_no_secret_gets_out_of_a_log_or_of_a_pasted_error() -> None:
    redaction.register("s3cr3t-of-the-doctor")
    line = "Error 111 connecting to redis:6379. s3cr3t-of-the-doctor Connection refused."
    (log,) = read(
        ("containers", (row(),), 0), (f"log {ID}", (f"2026-05-28T20:26:30Z {line}",), 0)
    ).logs
    diagnosis = diagnose(Observations(symptoms=Symptoms(logs=(log,))))
    assert isinstance(diagnosis, Diagnosis)
    assert diagnosis.findings
    outputs = [diagnosis.model_dump_json(), format_text("host1", diagnosis)]
    outputs += [match.model_dump_json() for match in diagnose_text(line)]
    for output in outputs:
        assert "s3cr3t" not in output


def test_what_looks_like_a_secret_stands_in_no_line() -> None:
    line = "redis://:hunter2secret@redis:6379/0 password=hunter2"
    found = read(
        ("containers", (row(),), 0),
        (f"log {ID}", (f"2026-05-28T20:26:30Z {line}",), 0),
        ("unit docker.service", (f"{NOW - 5} {line}",), 0),
    )
    assert len(found.logs) == 2
    assert "hunter2" not in found.model_dump_json()


def test_what_listens_is_read_with_its_program() -> None:
    lines = (
        'LISTEN 0      4096         *:11434            *:*    users:(("ollama",pid=71,fd=3))',
        "LISTEN 0      4096   127.0.0.53%lo:53    0.0.0.0:* ",
        "LISTEN 0      511          [::]:6379         [::]:*",
        "ESTAB  0      0      10.0.0.1:22       10.0.0.2:4000",
        "nonsense",
    )
    found = read(("listening", lines, 0)).listeners
    assert found is not None
    assert [(each.address, each.port, each.program) for each in found] == [
        ("*", 11434, "ollama"),
        ("127.0.0.53", 53, ""),
        ("::", 6379, ""),
    ]
    assert read().listeners is None
