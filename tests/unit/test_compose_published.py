"""Which ports of the host a project's files publish, without an engine to ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stackmend.compose import find_published_ports
from stackmend.compose.spec import ComposeSpec
from stackmend.ports.spec import parse_ports


def project(path: Path, *ports: Any, env: dict[str, Any] | None = None, **files: str) -> Any:
    services = {"web": {"image": "x", "ports": list(ports)}, "db": {"image": "y"}}
    (path / "compose.yaml").write_text(yaml.safe_dump({"services": services}))
    for name, content in files.items():
        (path / name.replace("_", ".")).write_text(content)
    given = {"project": "p", "source": path, "directory": "/opt/p", "env": env or {}}
    return find_published_ports(ComposeSpec.model_validate(given))


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("8080:80", "8080/tcp"),
        ("127.0.0.1:8080:80/udp", "127.0.0.1:8080/udp"),
        ("[::1]:8080:80", "[::1]:8080/tcp"),
        ("8000-8010:80-90", "8000-8010/tcp"),
        ({"target": 80, "published": "8080", "host_ip": "::1"}, "[::1]:8080/tcp"),
        ({"target": 80, "published": 8080, "protocol": "udp"}, "8080/udp"),
        ("127.0.0.1:${PORT:-8000}:80", "127.0.0.1:8000/tcp"),
        ("${GIVEN}:80", "9000/tcp"),
        ("$GIVEN:80", "9000/tcp"),
        ("${GIVEN:-1}:80", "9000/tcp"),
    ],
)
def test_ports_that_the_files_tell(tmp_path: Path, port: Any, expected: str) -> None:
    found = project(tmp_path, port, env={"GIVEN": 9000})
    assert found == (expected,)
    assert parse_ports(found)


@pytest.mark.parametrize(
    "port",
    [80, "80", "0:80", "${UNKNOWN}:80", {"target": 80}, {"target": 80, "published": "${X}"}],
)
def test_ports_that_they_do_not_tell(tmp_path: Path, port: Any) -> None:
    assert project(tmp_path, port) == ()


def test_a_file_of_variables_and_an_override_count(tmp_path: Path) -> None:
    override = "services: {db: {image: y, ports: ['5432:5432']}}\n"
    (tmp_path / "compose.override.yaml").write_text(override)
    assert project(tmp_path, "${PORT}:80", _env="# x\nPORT='8081'\n") == ("8081/tcp", "5432/tcp")


def test_a_project_that_cannot_be_read_publishes_nothing(tmp_path: Path) -> None:
    given = {"project": "p", "source": tmp_path, "directory": "/opt/p"}
    assert find_published_ports(ComposeSpec.model_validate(given)) == ()
