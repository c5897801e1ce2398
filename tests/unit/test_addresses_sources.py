"""Where values come from: only files that Compose reads, in the order in which they count."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import yaml

from stackmend.addresses import Sources, classify, locate, make_override, make_patch, read
from stackmend.addresses.files import flatten
from stackmend.addresses.state import Place
from stackmend.compose.closure import list_laid_over, read_sources
from stackmend.compose.source import File, Source
from tests.unit.addresses_world import project

#: What a machine under load needs for what is to take a moment.
SECONDS = 5
API = "services:\n  api:\n    environment:\n      URL: redis://localhost:6379\n"
OTHER = API.replace("api:\n", "api:\n    image: other\n")


def own(**files: str) -> Source:
    return Source({path: File(0o644, text.encode()) for path, text in files.items()})


def find(sources: Sources, key: str = "URL", service: str = "api") -> str:
    raw = sources.find(Place(service=service, kind="environment", key=key, start=0, end=0))
    return f"{raw.file}: {raw.text}" if raw else ""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"compose.yaml": API, "docker-compose.yml": OTHER}, ["compose.yaml"]),
        ({"compose.yml": API, "docker-compose.prod.yml": OTHER}, ["compose.yml"]),
        (
            {"compose.yaml": API, "compose.override.yml": OTHER, "zz.yaml": OTHER},
            ["compose.yaml", "compose.override.yml"],
        ),
        (
            {"compose.yaml": f"include: [sub/one.yaml]\n{API}", "sub/one.yaml": OTHER},
            ["sub/one.yaml", "compose.yaml"],
        ),
        (
            {".env": "COMPOSE_FILE=b.yaml:a.yaml\n", "compose.yaml": OTHER, "a.yaml": API,
             "b.yaml": OTHER},
            ["b.yaml", "a.yaml"],
        ),
        ({".env": "COMPOSE_PROJECT_NAME=x\n", "compose.yaml": API, "a.yaml": OTHER},
         ["compose.yaml"]),
        ({"compose.yaml": f"include: ['${{X}}.yaml', compose.yaml]\n{API}", "x.yaml": OTHER},
         ["compose.yaml"]),
    ],
)  # fmt: skip
def test_only_what_compose_reads_counts(files: dict[str, str], expected: list[str]) -> None:
    source = own(**files)
    assert list(list_laid_over(source)) == expected
    sources = read_sources(source)
    assert find(sources) == f"{expected[-1]}: redis://localhost:6379"
    assert read_sources(source).names == expected


def test_a_file_that_compose_does_not_read_is_not_patched(tmp_path: Path) -> None:
    config = project(
        {"redis": {"image": "redis:7"}, "api": {"environment": {"URL": "redis://localhost:6379"}}}
    )
    texts = {"compose.yaml": API, "docker-compose.yml": OTHER}
    sources = read_sources(own(**texts))
    judgements = classify(locate(read(config), sources), config)
    assert [one.address.place.source for one in judgements] == ["compose.yaml:4"]
    for path, text in texts.items():
        (tmp_path / path).write_text(text)
    patch = make_patch(judgements, sources).text
    subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=tmp_path, check=True)
    assert (tmp_path / "docker-compose.yml").read_text() == OTHER
    assert "redis://redis:6379" in (tmp_path / "compose.yaml").read_text()


def test_extends_takes_the_service_of_the_file_that_it_names() -> None:
    source = own(
        **{
            "compose.yaml": "services:\n  api: {extends: {file: sub/base.yaml, service: app}}\n"
            "  app: {image: x}\n",
            "sub/base.yaml": "services:\n  app: {extends: low, environment: {A: a}}\n"
            "  low: {environment: {URL: base}}\n",
        }
    )
    sources = read_sources(source)
    assert find(sources) == "sub/base.yaml: base"
    # Another of the same name in the project is not that one.
    assert find(sources, service="app") == ""


def test_what_env_files_leave_open_is_not_what_a_lesser_one_says() -> None:
    text = "services:\n  api:\n    env_file: [a.env, b.env]\n"
    files = {"compose.yaml": text, "a.env": "URL=x\n", "b.env": 'URL="a$b"\n'}
    assert find(read_sources(own(**files))) == ""
    assert find(read_sources(own(**{**files, "b.env": "URL=1\nURL=y\n"}))) == "b.env: y"


MERGED = "x0: &e0 {A: a}\n" + "".join(
    f"x{n}: &e{n} {{<<: [*e{n - 1}, *e{n - 1}, *e{n - 1}, *e{n - 1}]}}\n" for n in range(1, 13)
)


@pytest.mark.parametrize(
    "files",
    [
        {"compose.yaml": MERGED + "services: {api: {environment: *e12}}\n"},
        {"compose.yaml": MERGED + "services: {api: *e12}\n"},
        {"compose.yaml": "x: &e\n  <<: [*e, *e, *e, *e]\nservices: {api: {environment: *e}}\n"},
        {"compose.yaml": "services: &e\n  <<: [*e, *e, *e, *e]\n  api: {environment: {<<: *e}}\n"},
        {
            f"{name}.yaml": "services:\n  api:\n    <<: {}\n    extends: b\n"
            + "".join(
                f"  {letter}: {{extends: {{file: {other}.yaml, service: {letter}}}}}\n"
                for letter, other in zip("bcdefghi", "cdefghib", strict=True)
            )
            for name in "bcdefghi"
        },
        {"compose.yaml": "services: " + "[" * 5000},
        {"compose.yaml": "services: {api: " + "{a: " * 5000},
        {"compose.yaml": "services:\n  api: {}\nx: [" + "1, " * 200_000 + "]\n"},
        {"compose.yaml": API, ".env": "URL=" + " " * 200_000 + "x\n" + " " * 200_000},
    ],
    ids=range(9),
)
def test_no_file_takes_long(files: dict[str, str]) -> None:
    began = time.process_time()
    for _ in range(20):
        sources = Sources({path: text.encode() for path, text in files.items()})
        for key in ("URL", "A", "B"):
            find(sources, key)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "x: [" + "1, " * 200_000 + "]"])
def test_no_mounted_file_takes_long(text: str) -> None:
    began = time.process_time()
    for _ in range(20):
        assert flatten("app.yaml", text.encode()) == {}
    assert time.process_time() - began < SECONDS


def test_a_long_env_file_is_read_once() -> None:
    names = [f"SERVICE_{number}_URL" for number in range(40)]
    lines = [f"FILLER_{number}=value" for number in range(1960)]
    lines += [f"{name}=http://localhost:{6000 + n}/" for n, name in enumerate(names)]
    environment = dict(line.split("=", 1) for line in lines if line.startswith("SERVICE"))
    services = {f"app-{n}": {"environment": environment} for n in range(50)}
    config = project(services)
    bodies = {name: {"env_file": "all.env"} for name in services}
    files = {
        "compose.yaml": yaml.safe_dump({"services": bodies}).encode(),
        "all.env": "\n".join(lines).encode(),
    }
    addresses = read(config)
    assert len(addresses) == 2000
    began = time.process_time()
    found = locate(addresses, files)
    assert time.process_time() - began < SECONDS
    assert {one.place.line for one in found} == set(range(1961, 2001))


def test_many_wrong_literals_are_patched_in_a_moment(tmp_path: Path) -> None:
    services = {
        f"app-{number}": {"environment": {f"URL_{n}": "redis://localhost:6379" for n in range(10)}}
        for number in range(50)
    }
    config = project({"redis": {"image": "redis:7"}, **services})
    text = yaml.safe_dump({"services": {"redis": {"image": "redis:7"}, **services}})
    sources = Sources({"compose.yaml": text.encode()})
    judgements = classify(locate(read(config), sources), config)
    began = time.process_time()
    patch = make_patch(judgements, sources)
    make_override(judgements, config, sources)
    assert time.process_time() - began < SECONDS
    (tmp_path / "compose.yaml").write_text(text)
    subprocess.run(["git", "apply", "-"], input=patch.text.encode(), cwd=tmp_path, check=True)
    after = (tmp_path / "compose.yaml").read_text()
    assert after == text.replace("localhost", "redis")
    assert not patch.left
