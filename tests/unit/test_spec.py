"""``host.data.stack``: one message for each problem, and no secret in any."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from stackmend.compose import get_arguments
from stackmend.compose.spec import ComposeSpec
from stackmend.spec import Report, SpecError, Stack, check, check_settings


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    (root / "compose.yaml").write_text("services: {web: {image: 'lab/box:1'}}\n")
    return root


def given_stack(source: Path, **more: Any) -> dict[str, Any]:
    return {"project": "shop", "source": str(source), "directory": "/opt/shop", **more}


def problems(stack: Any) -> list[str]:
    with pytest.raises(SpecError) as raised:
        check({"stack": stack})
    return str(raised.value).split("\n")


def test_a_host_without_a_stack_is_not_managed() -> None:
    assert check({}) is None
    assert check({"stack": None, "other": 1}) is None


def test_a_mapping_and_an_object_are_the_same(source: Path) -> None:
    more: dict[str, Any] = {
        "env": {"A": 1, "PIN": SecretStr("tr0ub4dor")},
        "checks": [{"kind": "tcp", "address": "web:80", "inside": "web"}],
        "mend": {"attempts": 1},
        "minimum_free": "1GiB",
        "report": {"directory": "/tmp/reports"},
    }
    stack = given_stack(source, **more)
    mapping, made = check({"stack": stack}), check({"stack": Stack.model_validate(stack)})
    assert mapping == made
    assert mapping is not None
    assert mapping.report == Report(directory=Path("/tmp/reports"))
    assert mapping.minimum_free == 1024**3
    assert mapping.variables == {"A": "1", "PIN": "tr0ub4dor"}
    assert mapping.secrets == {"tr0ub4dor"}


def test_a_smallest_stack_is_complete(source: Path) -> None:
    stack = check({"stack": given_stack(source)})
    assert stack is not None
    assert (stack.env, stack.checks, stack.profiles, stack.allow) == ({}, (), (), ())
    assert (stack.on_failure, stack.mend.attempts, stack.minimum_free) == ("rollback", 3, 2 << 30)
    assert stack.report.directory is None


def test_the_arguments_of_the_operation_are_all_and_only_its_own(source: Path) -> None:
    stack = check({"stack": given_stack(source, env={"PIN": SecretStr("tr0ub4dor")})})
    assert stack is not None
    passed = get_arguments(stack)
    assert set(passed) == set(ComposeSpec.model_fields)
    assert "tr0ub4dor" not in str(passed)
    again = ComposeSpec.model_validate(passed)
    assert again.variables == stack.variables


def test_a_stack_cannot_be_changed_after_it_was_checked(source: Path) -> None:
    stack = check({"stack": given_stack(source)})
    assert stack is not None
    with pytest.raises(ValidationError):
        stack.project = "other"


def test_each_problem_has_its_line_with_its_path(source: Path) -> None:
    stack = given_stack(
        source,
        project="Shop",
        stability=-1,
        mend={"attempts": -1, "backof": []},
        allow=["container:ok", "all"],
        checks=[{"kind": "tcp", "address": "web"}, {"kind": "http", "url": "x"}],
        report={"dir": "x"},
        healt_timeout=5,
    )
    del stack["directory"]
    said = problems(stack)
    assert [line.split(": ")[0] for line in said] == [
        "stack.project",
        "stack.directory",
        "stack.checks[0].address",
        "stack.checks[1].url",
        "stack.stability",
        "stack.mend.attempts",
        "stack.mend.backof",
        "stack.allow[1]",
        "stack.report.dir",
        "stack.healt_timeout",
    ]
    assert said[1] == "stack.directory: missing"
    meant = "unknown key (did you mean backoff?); known are attempts, backoff, window"
    assert said[6] == f"stack.mend.backof: {meant}"
    known = ", ".join(sorted(Stack.model_fields))
    meant = f"unknown key (did you mean health_timeout?); known are {known}"
    assert said[9] == f"stack.healt_timeout: {meant}"


def test_what_may_be_done_about_held_ports_is_looked_at(source: Path) -> None:
    stack = check({"stack": given_stack(source)})
    assert stack is not None
    assert stack.ports is None, "without the section ports are not managed"
    stack = check({"stack": given_stack(source, ports={})})
    assert stack is not None
    assert stack.ports is not None
    assert (stack.ports.on_conflict, stack.ports.allow) == ("report", ())
    wrong = {"on_conflict": "kill", "allow": ["user:a", "redis"], "grace": 0, "port": 80}
    said = problems(given_stack(source, ports=wrong))
    assert [line.split(": ")[0] for line in said] == [
        "stack.ports.on_conflict",
        "stack.ports.allow[1]",
        "stack.ports.grace",
        "stack.ports.port",
    ]
    assert "must be one of 'exe:…', 'unit:…'" in said[1]
    assert problems(given_stack(source, ports=["80"])) == ["stack.ports: must be a mapping"]


@pytest.mark.parametrize("stack", ["shop", 5, ["shop"], True])
def test_what_is_no_mapping(stack: Any) -> None:
    assert problems(stack) == ["stack: must be a mapping or a Stack"]


@pytest.mark.parametrize(
    ("body", "other"),
    [
        ("{image: 'ghcr.io/abetlen/llama-cpp-python:v0.3'}", "llama-cpp-python"),
        ("{image: 'vllm/vllm-openai:v0.11@sha256:0'}", "vllm-openai"),
        ("{image: 'localhost:5000/redis'}", "redis"),
        ("{build: ., command: llama-server -m /m.gguf}", "llama.cpp"),
        ("{build: ., command: [python3, -m, llama_cpp.server]}", "llama-cpp-python"),
    ],
)
def test_a_worker_is_moved_to_no_other_server(tmp_path: Path, body: str, other: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM lab/box:1\n")
    (tmp_path / "compose.yaml").write_text(f"services: {{web: {body}}}\n")
    assert problems(given_stack(tmp_path, worker={"engine": {"target": "web"}})) == [
        f"stack.worker.engine.target: the service web is {other}, and no Ollama; name an Ollama of "
        "the project, or a service that it does not have, which is added"
    ]
    # Another file may say something else of it.
    (tmp_path / "compose.override.yaml").write_text("services: {web: {image: 'ollama/ollama'}}\n")
    check({"stack": given_stack(tmp_path, worker={"engine": {"target": "web"}})})


@pytest.mark.parametrize(
    "body",
    [
        "{image: 'ollama/ollama:0.24.0'}",
        "{image: 'registry.example.com/redis/models:1'}",
        "{image: '${IMAGE}/redis'}",
        "{image: 'ghcr.io/llama-cpp-team/models:1'}",
        "{image: 'lab/llama.cpp:1', command: ollama serve}",
        "{image: 'lab/box:1', command: ['$SERVER', '-m', '$MODEL']}",
    ],
)
def test_a_worker_is_moved_to_what_may_be_an_ollama(tmp_path: Path, body: str) -> None:
    (tmp_path / "compose.yaml").write_text(f"services: {{web: {body}}}\n")
    check({"stack": given_stack(tmp_path, worker={"engine": {"target": "web"}})})


@pytest.mark.parametrize("body", ["~", "[]", "ollama"])
def test_a_worker_is_moved_to_no_service_without_a_body(tmp_path: Path, body: str) -> None:
    text = f"services: {{web: {body}, side: {{image: 'lab/box:1'}}}}\n"
    (tmp_path / "compose.yaml").write_text(text)
    assert problems(given_stack(tmp_path, worker={"engine": {"target": "web"}})) == [
        "stack.source: compose.yaml: services.web: must be a mapping"
    ]


def test_an_ollama_is_no_legacy_worker(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: 'ollama/ollama:0.24.0'}}\n")
    moved = {"engine": {"service": "web", "target": "new"}}
    assert problems(given_stack(tmp_path, worker=moved)) == [
        "stack.worker.engine.service: the service web is an Ollama; name another one, or none"
    ]


def test_the_files_are_looked_at_too(source: Path, tmp_path: Path) -> None:
    assert problems(given_stack(tmp_path)) == [
        f"stack.source: {tmp_path} holds none of compose.yaml, compose.yml, docker-compose.yml, "
        "docker-compose.yaml"
    ]
    # Made by hand, an object was never held against its files.
    made = Stack.model_validate(given_stack(tmp_path))
    assert problems(made)[0].startswith("stack.source: ")
    wrong = [{"kind": "tcp", "address": "db:1", "inside": "db"}]
    assert problems(given_stack(source, checks=wrong)) == [
        "stack.checks[0].inside: there is no service 'db'; there are web"
    ]
    models = {"wanted": ["llama3.2:1b"]}
    assert problems(given_stack(source, models=models)) == [
        "stack.models.service: there is no service 'ollama'; there are web"
    ]
    check({"stack": given_stack(source, models={**models, "service": "web"})})
    # A legacy worker is moved to it: the move adds it.
    moved = {"engine": {}, "accelerated": {}, "benchmark": {"service": "ollama"}}
    check({"stack": given_stack(source, models=models, worker=moved)})
    assert problems(given_stack(source, models=models, worker={"engine": {"target": "llm"}})) == [
        "stack.models.service: there is no service 'ollama'; there are web"
    ]
    asked = [{"kind": "http", "url": "http://x/", "inside": "ollama"}]
    assert problems(given_stack(source, checks=asked, worker={"engine": {}})) == [
        "stack.checks[0].inside: there is no service 'ollama'; there are web"
    ]
    elsewhere = {**models, "endpoint": "http://127.0.0.1:11434"}
    check({"stack": given_stack(source, models=elsewhere)})


def test_a_key_that_is_not_there_is_told_before_contact(source: Path, tmp_path: Path) -> None:
    data = {"stack": given_stack(source), "ssh_key": str(tmp_path / "nope")}
    with pytest.raises(SpecError, match=r"^ssh_key: .*nope is no file of this machine$"):
        check_settings("a-host", data)
    with pytest.raises(SpecError, match=r"^ssh_key: ~nobody-of-that-name/key begins with the home"):
        check_settings("a-host", {**data, "ssh_key": "~nobody-of-that-name/key"})
    (tmp_path / "nope").write_text("a key")
    check_settings("a-host", data)
    check_settings("a-host", {"ssh_key": "nobody's business"})


def test_preflight_says_the_same(source: Path) -> None:
    check_settings("a-host", {"stack": given_stack(source)})
    with pytest.raises(SpecError, match=r"^stack\.project: "):
        check_settings("a-host", {"stack": given_stack(source, project="")})


SECRET = "correct-horse-battery"
WRONG_WITH_A_SECRET: list[dict[str, Any]] = [
    {"project": "Shop"},
    {"env": {"PIN": SecretStr(f"{SECRET}\0")}},
    {"env": {"PIN": f"{SECRET}\0"}},
    {"env": {"PIN": [SECRET]}},
    {"env": {"PIN": SecretStr(SECRET), "1": SECRET}},
    {"env": SECRET},
    {"env": [SECRET]},
    {"report": SECRET},
    {"mend": {"attempts": SECRET}},
    {"health_timeout": SECRET},
    {"checks": SECRET},
    {"checks": [{"kind": "http", "url": f"http://me:{SECRET}@web/"}]},
    {"checks": [{"kind": "http", "url": "http://web/", "headers": {"Authorization": SECRET}}]},
    {"checks": [{"kind": "http", "url": "http://web/", "headers": {"X-Api-Key": SECRET}}]},
]


@pytest.mark.parametrize("wrong", WRONG_WITH_A_SECRET, ids=str)
def test_no_message_holds_a_secret(source: Path, wrong: dict[str, Any]) -> None:
    stack = given_stack(source, **{"env": {"PIN": SecretStr(SECRET)}, **wrong})
    assert SECRET not in "\n".join(problems(stack))


def test_a_secret_is_not_shown_by_its_stack(source: Path) -> None:
    stack = Stack.model_validate(given_stack(source, env={"PIN": SecretStr(SECRET)}))
    assert SECRET not in f"{stack!r}{stack}{stack.model_dump()}{stack.model_dump_json()}"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted({*Stack.model_fields} - {"source"})), ANYTHING)
def test_whatever_is_given_it_is_right_or_one_field_is_named(
    source: Path, field: str, value: Any
) -> None:
    stack = {**given_stack(source), field: value}
    try:
        check({"stack": stack})
    except SpecError as error:
        for line in str(error).split("\n"):
            assert line.startswith(f"stack.{field}")


def test_a_key_with_a_line_break_is_one_problem(source: Path) -> None:
    stack = given_stack(source, mend={"\n": None})
    (line,) = problems(stack)
    assert line == "stack.mend.'\\n': unknown key; known are attempts, backoff, window"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"worker": {"accelerated": {"cpu_models": "tiny"}}},
            "accelerated.cpu_models: must be a list",
        ),
        ({"worker": {"engine": {"models": ["a"]}}}, "engine.models: must be a mapping"),
        ({"profiles": [5]}, "stack.profiles[0]: must be text"),
        (
            {"worker": {"benchmark": {"threshold": "90%"}}},
            "benchmark.threshold: must be a number: write 0.9 for 90 %",
        ),
        ({"worker": {"benchmark": {"threshold": "much"}}}, "benchmark.threshold: must be a number"),
        ({"models": {"wanted": [], "parallel": 1.5}}, "models.parallel: must be a whole number"),
        (
            {"worker": {"benchmark": {"profile": {"concurrency": ["x"]}}}},
            "profile.concurrency[0]: must be a whole number",
        ),
        (
            {"worker": {"benchmark": {"minimum": {"ttft": 1}}}},
            "minimum.ttft: unknown key; known are decode_tps, goodput, output_tps, requests_ps, "
            "tasks_pm",
        ),
        (
            {"worker": {"benchmarks": {}}},
            "worker.benchmarks: unknown key (did you mean benchmark?); known are accelerated, "
            "benchmark, engine",
        ),
        (
            {"checks": [{"kind": "tcp", "adress": "web:80", "address": "web:80"}]},
            "checks[0].adress: unknown key (did you mean address?); known are address, deadline, "
            "inside, kind, name, timeout",
        ),
        (
            {"source": {"git": "https://h.example/x", "reff": "main"}},
            "source.reff: unknown key (did you mean ref?); known are ",
        ),
        ({"health_timeout": "5 minutes"}, "health_timeout: must be seconds, or a time such as"),
        ({"links": {"on_conflict": "x"}}, "links.on_conflict: must be 'report'"),
    ],
)
def test_messages_have_the_words_of_those_who_write_settings(
    source: Path, more: dict[str, Any], expected: str
) -> None:
    (line,) = problems({**given_stack(source), **more})
    assert expected in line
    assert not re.search(r"Input|tuple|dict|\bvalid (string|integer|number)\b", line)


@pytest.mark.parametrize("section", ["access", "engine", "models", "ports", "report", "worker"])
def test_an_unknown_key_is_held_against_those_of_its_section(source: Path, section: str) -> None:
    # On its own a section is of a host without a project.
    for stack in ({section: {"zz": 1}}, given_stack(source, **{section: {"zz": 1}})):
        lines = problems(stack)
        assert any(
            line.startswith(f"stack.{section}.zz: unknown key; known are ") for line in lines
        )


def test_times_are_seconds_or_text_with_a_unit(source: Path) -> None:
    stack = check(
        {
            "stack": given_stack(
                source, health_timeout="5min", stability="1500ms", mend={"backoff": ["30s", 60]}
            )
        }
    )
    assert stack is not None
    assert (stack.health_timeout, stack.stability, stack.mend.backoff) == (300, 1.5, (30, 60))


@pytest.mark.parametrize(
    ("given_size", "size"),
    [(5, 5), ("5", 5), ("5MB", 5_000_000), ("5 MiB", 5 << 20), ("1GiB", 1 << 30)],
)
def test_sizes(source: Path, given_size: Any, size: int) -> None:
    stack = check({"stack": given_stack(source, minimum_free=given_size)})
    assert stack is not None
    assert stack.minimum_free == size


@pytest.mark.parametrize("size", ["much", -1, "-5GB", "5 apples", None])
def test_what_is_no_size(source: Path, size: Any) -> None:
    (said,) = problems(given_stack(source, minimum_free=size))
    assert said.startswith("stack.minimum_free: ")
