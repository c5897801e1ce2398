"""The section ``worker`` of a stack, as far as it measures: right settings, and each wrong one."""

from pathlib import Path
from typing import Any

import pytest

from stackmend.spec import SpecError, check
from stackmend.worker.benchmark.spec import BenchmarkPolicy, BenchmarkSpec, Minimum, Profile


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  ollama: {image: ollama/ollama}\n  api: {image: api}\n  worker: {image: w}\n"
    )
    return tmp_path


def parse(root: Path, benchmark: Any) -> BenchmarkPolicy:
    stack = check(
        {
            "stack": {
                "project": "ai",
                "source": str(root),
                "directory": "/opt/ai",
                "worker": {"benchmark": benchmark},
            }
        }
    )
    assert stack is not None
    assert stack.worker is not None
    assert stack.worker.benchmark is not None
    return stack.worker.benchmark


def test_defaults(root: Path) -> None:
    policy = parse(root, {})
    assert (policy.service_name, policy.server_port, policy.base_path) == ("ollama", 11434, "")
    assert (policy.max_age, policy.threshold, policy.baseline) == (604800, 0.1, "best")
    assert policy.server == "service ollama"


@pytest.mark.parametrize(
    ("text", "port", "path", "server"),
    [
        ("http://10.0.0.5:8080/v1/", 8080, "/v1", "http://10.0.0.5:8080"),
        ("https://llm.lan", 443, "/v1", "https://llm.lan:443"),
        ("llm.lan", 8000, "/v1", "http://llm.lan:8000"),
        ("[::1]:9", 9, "/v1", "http://[::1]:9"),
        ("http://[::1]/api/v2", 80, "/api/v2", "http://[::1]:80"),
    ],
)
def test_endpoints(root: Path, text: str, port: int, path: str, server: str) -> None:
    policy = parse(root, {"target": "openai", "endpoint": text})
    assert (policy.server_port, policy.base_path, policy.server) == (port, path, server)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [("7d", 604800), ("90min", 5400), ("1.5h", 5400), ("30 s", 30), (60, 60), (0, 0)],
)
def test_ages(root: Path, raw: Any, seconds: float) -> None:
    assert parse(root, {"max_age": raw}).max_age == seconds


def test_a_number_alone_is_output_tokens_a_second(root: Path) -> None:
    assert parse(root, {"minimum": 20}).minimum == Minimum(output_tps=20)


def test_the_size_of_a_profile() -> None:
    assert Profile().samples == 5 * (8 + 8 + 16 + 32)
    assert Profile(rate=2).samples == 5 * 40
    assert Profile(concurrency=(4, 1, 4)).concurrency == (1, 4)


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        ({"max_age": "soon"}, "benchmark.max_age: must be seconds, or a time such as '500ms'"),
        ({"max_age": -1}, "benchmark.max_age: must be greater than or equal to 0"),
        ({"minimum": "fast"}, "benchmark.minimum: must be output tokens a second, or a mapping"),
        ({"minimum": True}, "benchmark.minimum: must be output tokens a second, or a mapping"),
        ({"minimum": {"goodput": 1}}, "minimum.goodput: add profile.limits"),
        ({"target": "queue", "minimum": 20}, "minimum.output_tps: a queue gives no tokens"),
        ({"minimum": {"tasks_pm": 1}}, "minimum.tasks_pm: only a queue has tasks"),
        ({"minimum": float("nan")}, "benchmark.minimum.output_tps: must be"),
        ({"target": "openai"}, "benchmark: name the server: add service, or endpoint as"),
        ({"target": "vllm"}, "benchmark.target: must be 'ollama', 'openai' or 'queue'"),
        ({"endpoint": "http://me:pw@h"}, "benchmark.endpoint: must be the address of a "),
        ({"endpoint": "ftp://h"}, "benchmark.endpoint: must be the address of a model server"),
        ({"endpoint": "http://h", "service": "ollama"}, "give service or endpoint, not both"),
        ({"endpoint": "http://h", "port": 80}, "give the port within endpoint"),
        ({"service": "olama"}, "worker.benchmark.service"),
        ({"target": "queue", "worker": "nobody"}, "worker.benchmark.worker"),
        ({"model": "a//b"}, "'a//b'"),
        ({"profile": {"repeats": 3}}, "profile.repeats: must be greater than or equal"),
        ({"profile": {"concurrency": []}}, "profile.concurrency: name at least one number"),
        ({"profile": {"rate": 1, "concurrency": 2}}, "profile: give rate or concurrency, not both"),
        ({"profile": {"requests": 9999}}, "199980 requests in all are more than the 20000"),
        (
            {"profile": {"requests": 15, "concurrency": [1, 8]}},
            "profile: 15 requests are no load of 8 at one time; take 16 requests at least",
        ),
        ({"threshold": 1.5}, "benchmark.threshold: must be less than 1"),
        ({"allow": "all"}, "benchmark.allow[0]: must be 'busy', 'model' or 'memory'"),
        ({"minimum": {}}, "benchmark.minimum: name at least one of output_tps, decode_tps"),
        (
            {"target": "queue", "profile": {"output_tokens": 64}},
            "profile.output_tokens: the worker decides",
        ),
        (
            {"target": "queue", "profile": {"limits": {"ttft": 1}}},
            "profile.limits.ttft: the answer of a task comes in one piece",
        ),
        ({"target": "queue", "profile": {"limits": {"tpot": 1}}}, "profile.limits.tpot: "),
        ({"worker": "worker"}, "worker: only a queue has one; ollama is asked itself"),
        ({"baselin": "best"}, "benchmark.baselin: unknown key"),
    ],
)
def test_a_wrong_setting_is_named(root: Path, benchmark: Any, expected: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(root, benchmark)
    assert expected in str(error.value)


def test_files_of_different_measurements_have_different_names() -> None:
    specs = [
        BenchmarkSpec(project="ai"),
        BenchmarkSpec(project="ai", model="a:1b"),
        BenchmarkSpec(project="ai", model="b:1b"),
        BenchmarkSpec(project="ai", target="queue"),
        BenchmarkSpec(project="ai", target="openai", endpoint="http://[::1]:8000"),
        BenchmarkSpec(project="ai", target="openai", endpoint="http://[::1]:8001"),
        BenchmarkSpec(project="ai", model="a/1b"),
    ]
    assert len({spec.slug for spec in specs}) == len(specs)
    assert all("/" not in spec.slug and len(spec.slug) <= 160 for spec in specs)
