"""What a container writes steers nobody's terminal, and gives no secret away in any notation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.hostile_text import NOTATIONS, SEQUENCES, assert_clean, on_a_terminal, strings
from tests.lab.controller import pyinfra_argv
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.paths import PROJECT
from tests.lab.stacks import HEALTH, Shop
from tests.lab.untouched import untouched

SECRET = 'p@ss/w\\ord "$1" it\'s'
#: What the engine keeps of a healthcheck's output.
KEPT = 4096


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    return lab.take(1)[0]


@pytest.fixture
def shop(host: LabHost, tmp_path: Path) -> Shop:
    """A stack whose web says hostile things in its log and in its healthcheck, and is unhealthy."""
    shop = Shop(tmp_path, host, health_timeout=8, on_failure="keep")
    # Compose would take the dollars of its files for variables of its own.
    shop.secret_env = {"TOKEN": SECRET}
    lines = [f"{SEQUENCES} {form(SECRET).strip()}" for form in NOTATIONS.values()]
    checked = [form(SECRET).strip() for form in NOTATIONS.values()]
    checked = [line for line in [SEQUENCES, "50%\r100%", *checked] if line]
    shop.put("conf/log", "\n".join(lines[-15:]) + "\n50%\r100%\n")
    shop.put("conf/check", "\n".join(checked).encode()[:KEPT])
    shop.services["web"].update(
        volumes=["./conf:/hostile:ro"],
        environment={"TOKEN": "${TOKEN}"},
        command=[
            "sh",
            "-c",
            "cat /hostile/log; head -c 10000000 /dev/zero | tr '\\0' y; echo; exec serve",
        ],
        healthcheck={
            **HEALTH,
            "test": ["CMD-SHELL", "cat /hostile/check; exit 1"],
            "start_period": "0s",
        },
    )
    for name in ("redis", "side"):
        del shop.services[name]
    del shop.services["web"]["depends_on"]
    return shop


def assert_said(text: str) -> None:
    assert "\\x1b]0;owned\\x07\\x1b[2J" in text
    assert "more characters)" in text
    assert "(redacted)" in text
    assert_clean(text, SECRET)


def test_a_container_reaches_no_terminal_no_report_and_no_journal(
    shop: Shop, host: LabHost
) -> None:
    host.reset()
    shop.write()
    arguments = [*pyinfra_argv(), str(shop.inventory()), "deploy/site.py", "-y"]
    with untouched(host, shop.home):
        status, shown = on_a_terminal(arguments, PROJECT, {**os.environ, "TERM": "xterm"})
    assert status == 1, shown[-4000:]
    assert "\x1b[31m" in shown  # it is styled, by pyinfra alone
    assert_said(shown)

    with untouched(host):
        done = shop.run("-y", "-vvv", "--debug")
    assert done.rc == 1
    assert_said(done.out)

    records = sorted(shop.reports.glob("2*.json"))
    assert len(records) == 2
    for record in records:
        told = "\n".join(strings(json.loads(record.read_text())))
        assert "(redacted)" in told
        assert_clean(told, SECRET)
    journal = host.read("/var/lib/stackmend/journal.jsonl").decode()
    assert_clean("\n".join(strings([json.loads(line) for line in journal.splitlines()])), SECRET)
