"""compose.yaml of the reference stack as it is with nothing set: what the lab does not start."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.lab.images import STACK

TEXT = (STACK / "compose.yaml").read_text()
DEFAULTS = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", TEXT))


def with_defaults(text: str) -> str:
    return re.sub(r"\$\{([A-Z_]+):-([^}]*)\}", lambda found: found[2], text)


SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(with_defaults(TEXT))["services"]
every_service = pytest.mark.parametrize("service", SERVICES)


def test_services() -> None:
    assert sorted(SERVICES) == ["api", "ollama", "redis", "worker"]
    assert "$" not in with_defaults(TEXT)


@every_service
def test_images_are_pinned_and_can_be_overridden(service: str) -> None:
    name, colon, tag = SERVICES[service]["image"].rpartition(":")
    assert name
    assert colon
    assert re.match(r"\d+\.\d+\.\d+", tag)
    assert f"image: ${{{service.upper()}_IMAGE:-" in TEXT


@every_service
def test_what_every_service_has(service: str) -> None:
    found = SERVICES[service]
    assert found["restart"] == "unless-stopped"
    assert found["logging"]["driver"] == "json-file"
    assert set(found["logging"]["options"]) == {"max-size", "max-file"}
    assert found["mem_limit"]
    assert found["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    # Older engines do not know it, and Compose refuses it on them.
    assert "start_interval" not in found["healthcheck"]


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    ports = {service: found.get("ports", []) for service, found in SERVICES.items()}
    assert ports == {"redis": [], "ollama": [], "api": ["127.0.0.1:8000:8000"], "worker": []}


@pytest.mark.parametrize("service", ["api", "worker"])
def test_own_programs_may_do_little(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    dockerfile = (STACK / service / "Dockerfile").read_text()
    assert re.search(r"^USER \d+:\d+$", dockerfile, re.MULTILINE)
    assert f"ARG PYTHON_IMAGE={DEFAULTS['PYTHON_IMAGE']}\n" in dockerfile


@pytest.mark.parametrize("service", ["api", "worker"])
def test_requirements_are_pinned_by_hash(service: str) -> None:
    pinned = (STACK / service / "requirements.txt").read_text().replace("\\\n", "")
    lines = [line for line in pinned.splitlines() if not line.lstrip().startswith("#")]
    assert lines
    assert all(re.match(r"\S+==\S+ .*--hash=sha256:", line) for line in lines)
    wanted = (STACK / service / "requirements.in").read_text().split()
    assert set(wanted) <= {line.partition("==")[0] for line in lines}


def test_the_readme_names_every_variable_and_its_default() -> None:
    rows = [
        (re.findall(r"`([^`]*)`", names), re.findall(r"`([^`]*)`", defaults))
        for names, defaults in re.findall(
            r"^\| (`[A-Z]+_.*?) \| (.*?) \|", (STACK / "README.md").read_text(), re.MULTILINE
        )
    ]
    said = {
        name: default
        for names, defaults in rows
        for name, default in zip(names, defaults, strict=True)
    }
    assert said == DEFAULTS
