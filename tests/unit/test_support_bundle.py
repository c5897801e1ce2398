"""A support bundle: what it holds, in which order, how large it may be, and what is replaced."""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from stackmend import redaction
from stackmend.cli import support
from stackmend.cli.support import Support, list_files
from stackmend.diagnosis import Diagnosis, HostSupport, SupportFile
from stackmend.incidents.support import format_settings
from stackmend.reporting.state import HostRecord, RunRecord


def make_record(*hosts: str) -> RunRecord:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return RunRecord(
        started=now,
        ended=now,
        controller="laptop",
        mode="dry",
        complete=True,
        hosts={name: HostRecord(outcome="converged", diagnosis=Diagnosis()) for name in hosts},
    )


def make_support(**more: Any) -> HostSupport:
    fields: dict[str, Any] = {
        "versions": (("docker", "29.1"),),
        "settings": "{}",
        "journal": ('{"verb": "start"}',),
        "logs": (SupportFile(name="ai-web-1", lines=("asked 203.0.113.9", "from ai1.example")),),
        "names": ("ai1.example", "203.0.113.7"),
    }
    return HostSupport(**fields | more)


def test_it_is_the_same_for_the_same_run_and_for_its_owner_alone(tmp_path: Path) -> None:
    record = make_record("b", "a")
    first, second = tmp_path / "first.tar.gz", tmp_path / "second.tar.gz"
    for path in (first, second):
        bundle = Support(path, anonymous=False)
        bundle.add("b", make_support())
        bundle.add("a", make_support())
        assert bundle.write(record) == f"wrote {path}: read it before you hand it on"
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode & 0o777 == 0o600
    with tarfile.open(first) as tar:
        names = tar.getnames()
    files = ("diagnosis.txt", "settings.json", "versions.json", "tables.txt", "journal.jsonl")
    assert names == [
        *(f"stackmend-support/{name}" for name in ("README.txt", "versions.json", "record.json")),
        *(
            f"stackmend-support/hosts/{host}/{name}"
            for host in "ab"
            for name in (*files, "logs/ai-web-1.log")
        ),
    ]
    assert [*tmp_path.iterdir()] == [first, second] or len([*tmp_path.iterdir()]) == 2


def test_one_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    bundle = Support(tmp_path / "none/support.tar.gz", anonymous=False)
    assert "cannot write" in bundle.write(make_record("a"))
    assert not bundle.written


def test_names_of_hosts_and_containers_lead_nowhere_else() -> None:
    hostile = "../../etc/\x1b[31m<b>"
    logs = tuple(SupportFile(name=name, lines=()) for name in ("../x", "..", "A b", "a_b", "é"))
    files = list_files(make_record(hostile), {hostile: make_support(logs=logs)})
    for name, _ in files:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert name.isascii()
        assert name.isprintable()
    assert len({name.lower() for name, _ in files}) == len(files)


def test_what_is_too_large_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "MOST_FILE", 3000)
    logs = (SupportFile(name="loud", lines=("x" * 1000,) * 4),)
    files = dict(list_files(make_record("a"), {"a": make_support(logs=logs)}))
    assert "hosts/a/logs/loud.log" not in files
    assert "hosts/a/logs/loud.log: too large" in files["README.txt"]


def test_anonymous_replaces_names_and_addresses_everywhere_alike() -> None:
    support = make_support(tables=(SupportFile(name="t", lines=("203.0.113.9 127.0.0.1",)),))
    files = list_files(make_record("ai1", "ai10"), {"ai1": support}, anonymous=True)
    text = "\n".join(f"{name}\n{body}" for name, body in files)
    for word in ("ai1", "ai10", "example", "203.0.113", "laptop"):
        assert word not in text.replace("ai-web-1", ""), word
    found = dict(files)
    assert found["hosts/host-1/logs/ai-web-1.log"] == "asked address-1\nfrom host-1\n"
    assert "address-1 127.0.0.1" in found["hosts/host-1/tables.txt"]


def test_settings_have_no_secret_and_of_env_the_names_alone() -> None:
    redaction.register("hunter-22-plain")
    data = {
        "ssh_hostname": "ai1",
        "ssh_password": "one",
        "_sudo": True,
        "stack": {
            "project": "ai",
            "env": {"IMAGE": "redis:7", "KEY": SecretStr("two")},
            "report": {"ping": "https://hc.example/hunter-22-plain"},
            "source": "https://user:three@git.example/x",
            "worker": {"api_key": 12345, "url": SecretStr("four")},
        },
    }
    text = format_settings(data)
    for secret in ("one", "redis", "two", "hunter", "three", "12345", "four"):
        assert f'"{secret}' not in text
        assert f":{secret}" not in text
    for known in ('"ssh_hostname": "ai1"', '"IMAGE": "*MASKED*"', '"_sudo": true', '"ai"'):
        assert known in text


@pytest.mark.parametrize("place", ["report.ping", "report.notify", "schedule.ping"])
def test_an_address_that_is_secret_as_a_whole_is_in_no_settings(place: str) -> None:
    section, key = place.split(".")
    url = "https://hc.example/f00d-cafe"
    value: Any = [url] if key == "notify" else url
    data = {"stack": {section: {key: value}}}
    assert "f00d" not in format_settings(data)
    # All else that a run shows is searched for it.
    assert url in [secret for _, secret in redaction.find_secrets(data)]
