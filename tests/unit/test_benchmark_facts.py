"""What a host and a server say, as state: recorded, odd, and hostile."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactValueError

from stackmend.connection import read_frame, read_script
from stackmend.errors import StepError
from stackmend.text import make_printable
from stackmend.worker import pictures
from stackmend.worker.benchmark import (
    baseline,
    conditions,
    facts,
    guards,
    identity,
    plan,
    reader,
    reconciler,
    schema,
    sending,
    spec,
    statistics,
    store,
)
from stackmend.worker.benchmark.conditions import Counters
from stackmend.worker.benchmark.facts import BenchmarkHost, Query
from stackmend.worker.benchmark.identity import Reply
from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import (
    BenchmarkState,
    Conditions,
    Level,
    Load,
    Machine,
    Measurement,
    Record,
    Repeat,
    Result,
    Sample,
    Server,
    Shortfall,
    Usage,
)
from tests import connected
from tests.calm import calmly
from tests.unit.benchmark_results import make_result
from tests.unit.benchmark_world import FINGERPRINT, Noise, measure, summarize

MARK = "==test"

ID = "ab" * 32

#: A host of a run, as far as files of results ask.
HOST: Any = SimpleNamespace(name="ai1", state=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=40),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "models data name id digest size size_vram context_length owned_by meta version "
                "build_info default_generation_settings n_ctx max_model_len".split()
            )
            | st.text(max_size=5),
            children,
            max_size=6,
        )
    ),
    max_leaves=20,
)


def frame(**sections: str | tuple[int, str]) -> list[str]:
    """Sections as frame.sh writes them; ``__`` in a name is a blank."""
    lines = []
    for name, content in sections.items():
        status, text = content if isinstance(content, tuple) else (0, content)
        lines += [f"{MARK} begin {name.replace('__', ' ')}"]
        lines += [f"|{line}" for line in text.split("\n")] if text else []
        lines += ["", f".{status}", f"{MARK} end"]
    return lines


def read(query: Query | None = None, **sections: Any) -> Machine:
    known = {"clock": "1700000000", "complete": ""}
    return facts.parse(frame(**known | sections), query or Query(MARK, "ollama", "", "ollama", 80))


CONTAINER = """\
name "/ai-ollama-1"
process 4711
image "sha256:%s"
network "ai_default"
address "172.18.0.2"
address ""
published "80/tcp" "0.0.0.0" "8080"
published "80/tcp" "::" "8080"
published "9/tcp" "0.0.0.0" "9999"
setting "OLLAMA_NUM_PARALLEL=4"
setting "LLAMA_ARG_THREADS=6"
argument "serve"
argument "--flash\\u001b[2J"\
""" % ("1" * 64)

LIMITS = """\
cpu 250000 100000
cpu max 100000
cpu 400000 100000
memory max
memory 8589934592
memory 9223372036854771712
allowed 0-3,6\
"""


def test_a_container_with_its_limits() -> None:
    found = read(
        **{f"server__{ID}": CONTAINER, "limits__4711": LIMITS},
        cores="8",
        memory="MemTotal: 67108864 kB\nMemAvailable: 1024 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB",
        cpu="AMD EPYC 7003 8-Core",
    )
    assert found.servers == (
        Server(
            container=ID,
            name="ai-ollama-1",
            process=4711,
            image="sha256:" + "1" * 64,
            addresses=(("172.18.0.2", 80), ("127.0.0.1", 8080), ("::1", 8080)),
            quota=2.5,
            memory_limit=8 << 30,
            settings=(
                "LLAMA_ARG_THREADS=6",
                "OLLAMA_NUM_PARALLEL=4",
                "arguments: serve --flash\\x1b[2J",
            ),
            threads=6,
        ),
    )
    assert (found.cpu, found.cores, found.memory) == ("AMD EPYC 7003 8-Core", 8, 64 << 30)
    assert (found.available, found.swap) == (1 << 20, 6144)
    assert found.reason == ""


def test_threads_that_a_process_says_win_over_the_environment() -> None:
    found = read(
        **{f"server__{ID}": CONTAINER, "limits__4711": "threads 4\nthreads 12\nthreads many"}
    )
    assert found.servers[0].threads == 12


def test_allowed_cpus_are_a_quota_where_they_are_fewer() -> None:
    sections = {f"server__{ID}": CONTAINER, "limits__4711": "allowed 0-1"}
    assert read(**sections, cores="8").servers[0].quota == 2
    assert read(**sections, cores="2").servers[0].quota == 0


def test_a_limit_above_the_host_s_memory_is_none() -> None:
    sections = {f"server__{ID}": CONTAINER, "limits__4711": "memory 9000000000"}
    assert read(**sections, memory="MemTotal: 1000 kB").servers[0].memory_limit == 0
    assert read(**sections, memory="MemTotal: 67108864 kB").servers[0].memory_limit == 9 * 10**9


def test_a_process_of_the_host() -> None:
    found = read(
        Query(MARK, "", "", "127.0.0.1:80", 80),
        process__77="setting OLLAMA_NUM_PARALLEL=2\nargument /usr/bin/ollama\nargument serve",
        limits__77="cpu max 100000",
    )
    (server,) = found.servers
    assert (server.process, server.container, server.quota) == (77, "", 0)
    assert server.settings == ("OLLAMA_NUM_PARALLEL=2", "arguments: /usr/bin/ollama serve")


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("setting LLAMA_ARG_MODEL_URL=https://u:pw@h/m.gguf", "LLAMA_ARG_MODEL_URL=…"),
        ("setting OLLAMA_AUTH=hunter2", "OLLAMA_AUTH=…"),
        ("setting OLLAMA_KV_CACHE_TYPE=q8_0", "OLLAMA_KV_CACHE_TYPE=q8_0"),
        ("setting OLLAMA_FLASH_ATTENTION=1", "OLLAMA_FLASH_ATTENTION=1"),
        ("setting CUDA_VISIBLE_DEVICES=0,1", "CUDA_VISIBLE_DEVICES=0,1"),
        ("argument -hft\nargument hf_abc123", "arguments: -hft …"),
        ("argument --hf-repo-token=hf_abc123", "arguments: --hf-repo-token=…"),
        (
            "argument serve\nargument --model\nargument https://u:pw@h/m",
            "arguments: serve --model …",
        ),
        ("argument -m\nargument /models/a.gguf", "arguments: -m /models/a.gguf"),
        ("argument -ngl\nargument 99\nargument --no-mmap", "arguments: -ngl 99 --no-mmap"),
        # What Docker ends a list with is no argument.
        ('argument "serve"\nargument ', "arguments: serve"),
        ("argument --cache-type-k=q8_0", "arguments: --cache-type-k=q8_0"),
        ("argument --passphrase\nargument hunter2", "arguments: --passphrase …"),
        ("argument --api-key\nargument 12345", "arguments: --api-key …"),
        ("argument --apikey=12345", "arguments: --apikey=…"),
        ("argument --tokenfile\nargument 12345", "arguments: --tokenfile …"),
        (
            "argument --max-num-batched-tokens\nargument 2048",
            "arguments: --max-num-batched-tokens 2048",
        ),
        (
            "argument --model\nargument /models/Monkey-7B.gguf",
            "arguments: --model /models/Monkey-7B.gguf",
        ),
        ("argument -hf\nargument o/Monkey-7B:Q4", "arguments: -hf o/Monkey-7B:Q4"),
        ("setting VLLM_MAX_TOKENS=2048", "VLLM_MAX_TOKENS=2048"),
        ("setting OLLAMA_API_KEY=12345", "OLLAMA_API_KEY=…"),
    ],
)
def test_only_values_that_change_a_speed_are_kept(raw: str, kept: str) -> None:
    (server,) = read(Query(MARK), process__77=raw).servers
    assert server.settings == (kept,)


def test_gpus() -> None:
    found = read(
        gpus="NVIDIA H200, 143771, 143000, 550.54.15\nNVIDIA, A100, 1, [N/A], 550.54.15\nno GPU",
        amd="17163091968 1024 0x744c\nx y z",
    )
    assert [(gpu.name, gpu.memory, gpu.free) for gpu in found.gpus] == [
        ("NVIDIA H200", 143771 << 20, 143000 << 20),
        ("NVIDIA, A100", 1 << 20, None),
        ("AMD 0x744c", 17163091968, 17163090944),
    ]
    assert found.driver == "550.54.15"


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"engine": (127, "")}, "docker is not installed on this host"),
        ({"engine": (1, "permission denied")}, "cannot ask Docker: permission denied"),
        ({}, "no container of the service ollama runs"),
    ],
)
def test_why_there_is_no_server(sections: dict[str, Any], reason: str) -> None:
    assert read(**sections).reason == reason


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (
            (1, "Permission denied"),
            "cannot read the record of what was measured (/r/x.json): Permission denied",
        ),
        ("{", "the record of what was measured (/r/x.json) is not one of stackmend"),
        ('{"schema_version": 1, "latest": 5}', "is not one of stackmend: latest: "),
        (
            '{"schema_version": 1, "history": [{"at": 5, "output_tps": [["", 1e13]]}]}',
            "history[0].output_tps[0][1]: must be from 0 to 1e+12; got 10000000000000.0",
        ),
        (
            '{"schema_version": 1, "history": [{"at": 1e300, "output_tps": []}]}',
            "is not one of stackmend",
        ),
        ('{"schema_version": 99}', "is of another version of stackmend"),
        ("[" * 10000, "is not one of stackmend"),
    ],
)
def test_a_record_that_cannot_be_read(record: Any, problem: str) -> None:
    found = read(Query(MARK, record="/r/x.json"), record=record)
    assert problem in found.record_problem
    assert found.record == Record()


@pytest.mark.parametrize("at", [1e300, -1.0, 253_402_300_800.0])
def test_a_moment_beyond_every_calendar_is_no_record(at: float) -> None:
    entry = {"at": at, "cause": "", "fingerprint": {"parameters": "", "engine": ""}}
    text = json.dumps({"schema_version": 1, "latest": {**entry, "summaries": []}})
    found = read(record=text)
    assert found.record == Record()
    assert "is not one of stackmend" in found.record_problem


@pytest.mark.parametrize("clock", ["1e300", "inf", "nan", "-5", "99999999999999999999"])
def test_a_clock_beyond_every_calendar_is_an_unreadable_host(clock: str) -> None:
    with pytest.raises(ValueError, match="now"):
        read(clock=clock)


@pytest.mark.parametrize("field", ["latest", "previous", "steady", "best", "held", "history"])
def test_a_record_whose_figures_nothing_can_show_is_none(field: str) -> None:
    """What were collected of it would be no result, however often."""
    entry = store.make_entry(MEASUREMENT, SUMMARIES)
    record = Record(
        latest=entry,
        previous=entry,
        steady=(entry,),
        best=baseline.make_references(entry),
        held=baseline.make_references(entry),
        history=(baseline.make_past(entry),),
    )
    kept = json.loads(store._dump(record))
    assert read(record=json.dumps(kept)).record == record

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: 1e300 if key in ("median", "spread") and isinstance(item, float) else item
                for key, item in zip(value, map(spoil, value.values()), strict=True)
            }
        return [spoil(item) for item in value] if isinstance(value, list) else value

    kept[field] = spoil(kept[field])
    if field == "history":
        kept[field][0]["output_tps"][0][1] = 1e300
    found = read(record=json.dumps(kept))
    assert found.record == Record()
    assert f"is not one of stackmend: {field}" in found.record_problem


def test_a_record_is_read_as_it_was_written() -> None:
    record = baseline.update(Record(), store.make_entry(MEASUREMENT, SUMMARIES), (), 0.1)
    found = read(record=store._dump(record).decode())
    assert (found.record, found.record_problem) == (record, "")


def test_output_that_was_cut_off_is_none() -> None:
    with pytest.raises(ValueError, match="did not run to its end"):
        facts.parse(frame(clock="1"), Query(MARK))


def test_a_port_that_is_no_number_is_named() -> None:
    with pytest.raises(FactValueError, match="port"):
        BenchmarkHost().command(port="a; rm -rf /")  # type: ignore[arg-type]


@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"server {ID}",
                "limits 4711",
                "gpus",
                "amd",
                "memory",
                "cores",
                "cpu",
                "process 5",
                "engine",
                "record",
            ]
        ),
        st.text(max_size=80),
    )
)
def test_whatever_a_host_says_is_parsed(sections: dict[str, str]) -> None:
    lines = frame(clock="1", complete="")
    for name, text in sections.items():
        lines += frame(**{name: text})
    found = facts.parse(lines, Query(MARK, "ollama", "", "ollama", 80))
    for server in found.servers:
        assert all(make_printable(setting, 2000) == setting for setting in server.settings)
    assert make_printable(found.cpu) == found.cpu


# The probes themselves, on this machine


def run_script(name: str, *arguments: str) -> list[str]:
    body = f"mark={MARK}\n{read_frame()}"
    body += read_script("stackmend.connection", "own")
    body += read_script("stackmend.worker.benchmark", "group")
    body += read_script("stackmend.worker.benchmark", name)
    done = subprocess.run(
        ["sh", "-c", body, name, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split("\n")


def test_a_record_that_is_no_file_is_named_at_once(tmp_path: Path) -> None:
    """Whoever reads a FIFO waits for its writer."""
    record = tmp_path / "record.json"
    os.mkfifo(record)
    lines = run_script("probe", "", "", "", "127.0.0.1", "1", str(record))
    found = facts.parse(lines, Query(MARK, record=str(record)))
    assert f"({record}): it is no file; move it elsewhere" in found.record_problem


def test_the_probe_of_this_machine(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text('{"schema_version": 1}')
    lines = run_script("probe", "", "", "", "127.0.0.1", "1", str(record))
    found = facts.parse(lines, Query(MARK, "", "", "127.0.0.1:1", 1))
    assert found.cores == os.cpu_count() or found.cores >= 1
    assert found.cpu
    assert found.memory > found.available > 0
    assert (found.record_problem, found.reason, found.servers) == ("", "", ())


SERVING = """\
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    time.sleep(3600) if sys.argv[1] == "waits" else None
"""


@pytest.mark.parametrize("kind", ["waits", "computes"])
@calmly
def test_a_server_that_computes_is_recognised(kind: str) -> None:
    command = [sys.executable, "-c", SERVING, kind]
    # What it starts computes for it.
    below = ["sh", "-c", '"$@"; :', "sh", *command]
    with subprocess.Popen(below, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        try:
            assert run.stdout is not None
            port = run.stdout.readline().strip()
            lines = run_script("probe", "", "", "", "127.0.0.1", port, "/nonexistent", "")
        finally:
            os.killpg(run.pid, signal.SIGKILL)
    (server,) = facts.parse(lines, Query(MARK, "", "", f"127.0.0.1:{port}", int(port))).servers
    assert server.usage is not None
    assert 0.5 <= server.usage.during < 5
    assert guards.is_computing(server.usage) is (kind == "computes")


#: Answers as Docker does where one container publishes a port at an address.
PUBLISHING = """\
#!/bin/sh
case $* in
ps*publish=*) echo %s ;;
*HostIP*HostPort*inner*) printf '"%%s" %%s 80/tcp\\n' %s ;;
*"json .Name"*) echo 'name "/other-1"' ;;
esac
"""


def serve_at(address: str, port: int) -> subprocess.Popen[bytes]:
    """A process that listens there."""
    server = socket.create_server((address, port))
    try:
        command = [sys.executable, "-c", "import time; time.sleep(3600)"]
        return subprocess.Popen(command, pass_fds=[server.fileno()])
    finally:
        server.close()


@pytest.mark.parametrize(
    ("published", "asked", "answers"),
    [
        ("127.0.0.9 {port}", "127.0.0.1", "first"),
        ("127.0.0.9 {port}", "localhost", "first"),
        ("127.0.0.9 {port}", "127.0.0.9", "container"),
        ("'' {port}", "127.0.0.9", "container"),
        ("0.0.0.0 {port}", "127.0.0.9", "container"),
        (":: {port}", "127.0.0.9", ""),
        # A process at the very address answers before whoever has all of them.
        ("0.0.0.0 {port}", "127.0.0.1", "first"),
        ("127.0.0.1 9", "127.0.0.1", "first"),
        ("127.0.0.9 {port}", "127.0.0.8", "second"),
        ("127.0.0.9 {port}", "::1", ""),
    ],
)
def test_an_endpoint_is_who_listens_at_its_address(
    published: str, asked: str, answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several programs may listen on one port, each at an address of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    docker = tmp_path / "docker"
    docker.write_text(PUBLISHING % (ID, published.format(port=port)))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    processes = [serve_at(address, port) for address in ("127.0.0.1", "127.0.0.8")]
    try:
        lines = run_script("probe", "", "", "", asked, str(port), "/nonexistent", "", *WORDS)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    servers = facts.parse(lines, Query(MARK, "", "", f"{asked}:{port}", port)).servers
    names = {ID: "container", str(processes[0].pid): "first", str(processes[1].pid): "second"}
    assert [names[server.container or str(server.process)] for server in servers] == (
        [answers] if answers else []
    )
    if answers == "container":
        assert servers[0].name == "other-1"


SECRET = "Hunter2x"


def test_no_secret_leaves_the_host() -> None:
    """What the parser would leave out is not sent; what it keeps arrives as before."""
    options = ["waits", "--threads", "6", "--model", "/models/a.gguf", "--cache-type-k=q8_0"]
    options += ["--max-num-batched-tokens", "2048", "--model", "/models/Monkey-7B.gguf"]
    options += ["-hf", "o/monkey:q4", "--flash-attn", "0", "--api-key", "271828", "-v\n271828"]
    options += ["--passphrase", SECRET, f"--note={SECRET}", "-t", SECRET, f"https://u:{SECRET}@h/m"]
    options += [f"-{SECRET} {SECRET}", SECRET.lower(), "serve"]
    variables = {
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_NOTE": f"a\nOLLAMA_NOTE={SECRET}",
        "OLLAMA_API_KEY": "271828",
        "VLLM_MAX_TOKENS": "2048",
        "LLAMA_ARG_MODEL_URL": f"https://u:{SECRET}@h/m.gguf",
        "CUDA_VISIBLE_DEVICES": "0,1",
    }
    command = [sys.executable, "-c", SERVING, *options]
    environment = {"PATH": os.environ["PATH"], **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        try:
            assert run.stdout is not None
            port = run.stdout.readline().strip()
            asked = ("", "", "", "127.0.0.1", port, "/nonexistent", "", *WORDS)
            lines = run_script("probe", *asked)
        finally:
            run.kill()
    assert SECRET not in "\n".join(lines)
    assert "271828" not in "\n".join(lines)
    (server,) = facts.parse(lines, Query(MARK, "", "", f"127.0.0.1:{port}", int(port))).servers
    *kept, arguments = server.settings
    assert kept == [
        "CUDA_VISIBLE_DEVICES=0,1",
        "LLAMA_ARG_MODEL_URL=…",
        "OLLAMA_KV_CACHE_TYPE=q8_0",
        "OLLAMA_NOTE=…",
        "OLLAMA_NUM_PARALLEL=4",
        "VLLM_MAX_TOKENS=2048",
    ]
    assert server.threads == 6
    assert arguments.endswith(
        "--threads 6 --model /models/a.gguf --cache-type-k=q8_0 --max-num-batched-tokens 2048 "
        "--model /models/Monkey-7B.gguf -hf o/monkey:q4 --flash-attn 0 --api-key … … "
        "--passphrase … --note=… -t … … … … serve"
    )


#: What the fact hands to the probe: words of options whose values may leave the host, and those of
#: which none does.
WORDS = [" ".join(sorted(words)) for words in (facts._SPEEDS, facts._NEVER)]

NAMES = ["--threads", "-ngl", "--model", "-hft", "--api-key", "--cache-type-k", "--note", "-m"]
NAMES += ["--apikey", "--max-num-tokens", "--tokenizer", "--monkey", "--passwd-file"]
VALUES = [
    "7",
    "monkey:7b",
    "Monkey-7B.gguf",
    "",
    "-1",
    "0.75",
    "1234567890",
    "True",
    "q8_0",
    "/a/b.gguf",
    "a b",
    "x:y",
    "token:x",
]
VALUES += [
    "serve",
    "ü",
    "a\\b",
    '"',
    "-",
    "--",
    "1.1234567",
    ".5",
    "5.",
    "x" * 201,
    "/" + "x" * 121,
]


@pytest.mark.parametrize("awk", ["", 'awk() { busybox awk "$@"; }\n'], ids=["own", "busybox"])
@given(
    st.lists(
        st.sampled_from(NAMES + VALUES)
        | st.builds("{}={}".format, st.sampled_from(NAMES), st.sampled_from(VALUES)),
        max_size=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_the_host_keeps_no_more_than_the_parser_would(awk: str, arguments: list[str]) -> None:
    texts = [json.dumps(text) for text in arguments]
    sent = filter_texts(awk, texts)
    raw = [f"argument {text}" for text in texts]
    found, expected = (list_arguments(lines) for lines in (sent, raw))
    pairs = list(zip(found, expected, strict=True))
    assert all(own == other or own.endswith("…") for own, other in pairs)
    # It is stricter with what is no name of an option, and with pairs that may name a secret.
    if not any(text.rstrip("-") == "" or "token:" in text for text in arguments):
        assert found == expected
    # Nothing is left for the parser to leave out.
    assert found == [line.removeprefix("argument ") for line in sent]


def filter_texts(awk: str, texts: list[str]) -> list[str]:
    """What the probe makes of arguments, which are strings of JSON."""
    body = read_script("stackmend.worker.benchmark", "probe")
    start = body.index("keep() {")
    function = body[start : body.index("\n}\n", start) + 3]
    script = f"known=$1 never=$2\n{awk}{function}keep argument json"
    done = subprocess.run(
        ["sh", "-c", script, "keep", *WORDS],
        input="".join(f"{text}\n" for text in texts),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def list_arguments(lines: list[str]) -> list[str]:
    parsed = (line.removeprefix("argument ") for line in lines)
    return list(
        facts._list_arguments(
            [facts._parse_json(text) if text[:1] == '"' else text for text in parsed]
        )
    )


def test_who_is_connected_to_a_server_is_counted() -> None:
    """While it is watched; what was there for a moment only, such as a healthcheck, is not."""
    command = [sys.executable, "-c", SERVING, "waits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            port = int(run.stdout.readline())
            with socket.create_connection(("127.0.0.1", port)):
                lines = run_script("probe", "", "", "", "127.0.0.1", str(port), "/nonexistent", "")
            after = run_script("probe", "", "", "", "127.0.0.1", str(port), "/nonexistent", "")
        finally:
            run.kill()
    query = Query(MARK, "", "", f"127.0.0.1:{port}", port)
    (busy,), (idle,) = (facts.parse(each, query).servers for each in (lines, after))
    assert (busy.connections, idle.connections) == (1, 0)


DOCKER = """\
#!/bin/sh
case $* in
*publish=18080*) echo {id} ;;
*'.HostPort $inner'*) printf '"" 18081 9/tcp\\n"" 18080 %s/tcp\\n' {port} ;;
*'{{{{.State.Pid}}}}'*) echo {pid} ;;
*'println "name"'*) printf 'process %s\\n' {pid} ;;
esac
"""


def test_a_published_port_is_another_one_within_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own network knows connections by the port that the server listens on there."""
    command = [sys.executable, "-c", SERVING, "waits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            port = int(run.stdout.readline())
            docker = tmp_path / "docker"
            docker.write_text(DOCKER.format(id=ID, port=port, pid=run.pid))
            docker.chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            with socket.create_connection(("127.0.0.1", port)):
                lines = run_script("probe", "", "", "", "127.0.0.1", "18080", "/nonexistent", "")
        finally:
            run.kill()
    (server,) = facts.parse(lines, Query(MARK, "", "", "127.0.0.1:18080", 18080)).servers
    assert (server.container, server.connections) == (ID, 1)


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ("4711 -", 0),
        ("4711 -\n4711 0100007F:1F40 0100007F:9C41\n4712 0100007F:1F40 0100007F:9C42", 1),
        ("4711 0100007F:1F40 0100007F:9C41", None),
        ("4712 -", None),
        ("\n4711\n-\nx", None),
    ],
)
def test_connections_that_lasted(lines: str, count: int | None) -> None:
    (server,) = read(**{f"server__{ID}": CONTAINER, "connections": lines}).servers
    assert server.connections == count


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        (
            "4711 10.00 3.10 1.5\n4711 10.52 3.62 1.75",
            Usage(used=0.52, waited=0.25, during=0.52),
        ),
        (
            "4711 10.00 3.10 1.5\n4711 10.52 3.62 1.0",
            Usage(used=0.52, waited=0.0, during=0.52),
        ),
        ("4711 10.00 3.10 0\n4712 10.52 3.62 0", None),
        ("4711 10.00 3.10 0", None),
        ("4711 10.00 3.10 0\n4711 10.00 3.62 0", None),
        ("4711 10.00 3.10 0\n4711 10.50 3.00 0", None),
        ("4711 10.00 -3 0\n4711 10.50 1e9 0", None),
        ("\n4711\n4711 10.00 3.10 4 1\nx", None),
    ],
)
def test_what_a_server_used_between_two_readings(usage: str, used: Usage | None) -> None:
    (server,) = read(**{f"server__{ID}": CONTAINER, "usage": usage}).servers
    assert server.usage == used


def test_the_queue_before_a_server_answers_at_its_own_port() -> None:
    found = read(**{f"queue__{ID}": 'address "172.18.0.9"'})
    assert [queue.addresses for queue in found.queues] == [(("172.18.0.9", 8000),)]
    assert found.servers == ()


def test_the_conditions_of_this_machine() -> None:
    before = conditions.parse(run_script("conditions", str(os.getpid())), MARK)
    # Some work of this process's own group, and so of no other program.
    sum(range(3_000_000))
    after = conditions.parse(run_script("conditions", str(os.getpid())), MARK)
    found = conditions.compute_conditions(before, after)
    assert found.busy is not None
    assert 0 < found.busy <= 1
    assert found.load_average is not None
    assert found.oom_kills is not None
    assert found.swapped is not None
    assert found.available is not None
    assert 0 < found.available < 1
    assert before.throttled.keys() == after.throttled.keys()
    assert before.throttled
    assert before.used is not None
    assert after.used is not None
    assert after.used > before.used


# Conditions


def test_conditions_are_differences() -> None:
    before = Counters(
        ticks=(1000, 500, 10),
        swapped=5,
        oom_kills=1,
        thermal=3,
        throttled={"1.0": (10, 1.0), "1.1": (2, 0.5)},
        used=10.0,
    )
    after = Counters(
        ticks=(1400, 600, 50),
        swapped=25,
        oom_kills=1,
        thermal=4,
        load_average=2.5,
        throttled={"1.0": (30, 2.0), "1.1": (3, 3.5), "2.0": (9, 9)},
        used=11.3,
        gpu_throttle=("power cap",),
        gpu_temperature=70,
    )
    found = conditions.compute_conditions(before, after)
    # Of 400 ticks 100 were idle and 40 stolen; 130 of the 260 others were the server's.
    assert found.others is not None
    assert found.model_copy(update={"others": round(found.others, 6)}) == Conditions(
        throttled=3.0,
        throttled_periods=20,
        steal=0.1,
        busy=0.65,
        others=0.325,
        swapped=20,
        oom_kills=0,
        load_average=2.5,
        thermal=1,
        gpu_throttle=("power cap",),
        gpu_temperature=70,
    )


def test_counters_that_went_back_say_nothing() -> None:
    before = Counters(ticks=(1000, 500, 10), swapped=5, used=9, throttled={"a": (5, 5.0)})
    after = Counters(ticks=(10, 5, 1), swapped=1, used=1, throttled={"a": (1, 1.0)})
    assert conditions.compute_conditions(before, after) == Conditions()
    assert conditions.compute_conditions(Counters(), after) == Conditions()


@pytest.mark.parametrize(
    ("text", "reasons", "temperature"),
    [
        ("0x0000000000000001, 31", (), 31.0),
        (
            "0x0000000000000004, 66\n0x0000000000000060, 91",
            ("power cap", "software, for its temperature", "hardware, for its temperature"),
            91.0,
        ),
        ("[N/A], [N/A]", (), None),
        ("", (), None),
    ],
)
def test_what_holds_a_gpu_back(
    text: str, reasons: tuple[str, ...], temperature: float | None
) -> None:
    found = conditions.parse(frame(gpus=text, complete=""), MARK)
    assert (found.gpu_throttle, found.gpu_temperature) == (reasons, temperature)


@given(
    st.dictionaries(
        st.sampled_from(["stat", "memory", "load", "thermal", "groups", "gpus"]),
        st.text(max_size=60),
    )
)
def test_whatever_a_host_counts_is_parsed(sections: dict[str, str]) -> None:
    lines = frame(complete="")
    for name, text in sections.items():
        lines += frame(**{name: text})
    found = conditions.parse(lines, MARK)
    conditions.compute_conditions(found, found)


# What a server says of itself


def test_ollama() -> None:
    found = identity.parse_ollama(
        {"version": "0.33.0"},
        {"models": [{"name": "a:1b", "digest": "d" * 64, "size": 7}, {"name": "\x1b[2J"}, 5]},
        {"models": [{"name": "a:1b", "size": 10, "size_vram": 4, "context_length": 4096}]},
    )
    assert (found.engine, found.version) == ("ollama", "0.33.0")
    assert [(m.name, m.digest, m.size) for m in found.models] == [("a:1b", "d" * 64, 7)]
    assert found.loaded is not None
    assert [(m.size, m.vram, m.context) for m in found.loaded] == [(10, 4, 4096)]
    assert identity.parse_ollama({}, {"models": None}, {}).loaded is None
    assert identity.parse_ollama({}, {}, {"models": None}).loaded == ()


@pytest.mark.parametrize(
    ("owner", "props", "version", "expected"),
    [
        (
            "llamacpp",
            Reply(200, {"build_info": "b6000", "default_generation_settings": {"n_ctx": 2048}}),
            Reply(404),
            ("llama.cpp", "b6000", 2048),
        ),
        ("vllm", Reply(404), Reply(200, {"version": "0.11.0"}), ("vllm", "0.11.0", 8192)),
        ("me", Reply(404), Reply(404), ("llama-cpp-python", "", 0)),
        ("somebody", Reply(), Reply(), ("openai", "", 0)),
    ],
)
def test_servers_of_openai_s_api(
    owner: str, props: Reply, version: Reply, expected: tuple[str, str, int]
) -> None:
    row = {"id": "m", "owned_by": owner, "max_model_len": 8192, "meta": {"size": 5}}
    found = identity.parse_openai(Reply(200, {"data": [row]}), props, version)
    assert (found.engine, found.version, found.context) == expected
    assert [(model.name, model.size) for model in found.models] == [("m", 5)]


@given(JSON, JSON, JSON)
def test_whatever_a_server_says_is_parsed(one: Any, two: Any, three: Any) -> None:
    for found in (
        identity.parse_ollama(one, two, three),
        identity.parse_openai(Reply(200, one), Reply(200, two), Reply(200, three)),
    ):
        assert all(model.name.isprintable() for model in found.models)
        assert found.version.isprintable()


# What is collected

LEVELS = measure(Noise(seed=1), loads=[1, 2], conditions=Conditions(busy=0.5))

SUMMARIES = summarize(LEVELS, 0.001)

MEASUREMENT = Measurement(
    target="ollama",
    name="service ollama",
    host="ai1",
    at=1_700_000_000,
    cause="it was never measured",
    fingerprint=FINGERPRINT,
    levels=LEVELS,
)


def test_the_schema_is_current() -> None:
    """``python -m stackmend.worker.benchmark.schema > …/benchmark/schema-1.json``."""
    assert json.loads(schema.PATH.read_text(encoding="utf-8")) == schema.generate()
    # pydantic's own words for a bound, which no validator knows.
    assert not re.search(r'"(gt|ge|lt|le)":', schema.PATH.read_text(encoding="utf-8"))


def test_a_result_is_as_its_schema_says() -> None:
    result = Result(
        measurement=MEASUREMENT,
        summaries=SUMMARIES,
        baseline=MEASUREMENT,
        baseline_summaries=SUMMARIES,
        comparisons=statistics.compare(SUMMARIES, SUMMARIES, 0.1),
        history=(baseline.make_past(store.make_entry(MEASUREMENT, SUMMARIES)),),
    )
    data = result.model_dump(mode="json")
    validator = jsonschema.Draft202012Validator(schema.generate())
    validator.validate(data)
    assert Result.model_validate(data) == result
    del data["measurement"]["levels"][0]["repeats"][0]["samples"][0]["ttft"]
    assert not validator.is_valid(data)


@pytest.mark.parametrize(("minimum", "outdated"), [(5000.0, False), (4000.0, True), (None, True)])
def test_a_collected_result_knows_its_minimum(
    minimum: float | None, outdated: bool, tmp_path: Path
) -> None:
    def list_rows(value: float | None) -> tuple[Shortfall, ...]:
        return (Shortfall(figure="output_tps", minimum=value, value=10),) if value else ()

    result = Result(measurement=MEASUREMENT, summaries=SUMMARIES, shortfalls=list_rows(5000.0))
    path = tmp_path / "result.json"
    path.write_text(result.model_dump_json())
    assert reader.is_outdated(path, list_rows(minimum)) is outdated


def list_own_words(value: Any) -> set[str]:
    """All words that a schema allows alone, somewhere in it."""
    if isinstance(value, list):
        return set().union(*map(list_own_words, value))
    if not isinstance(value, dict):
        return set()
    words = {*value.get("enum", ()), *([value["const"]] if "const" in value else ())}
    return words.union(*map(list_own_words, value.values()))


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the results of this run are collected."""
    monkeypatch.setattr(store.reporting, "find_run", lambda _: object())
    monkeypatch.setattr(store.write, "find_directory", lambda _: tmp_path)
    return tmp_path


@pytest.mark.usefixtures("reports")
def test_a_password_that_is_a_word_of_ours_unmakes_no_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = make_result(past=2, baseline_speed=1.2, invalid=("short", "error"))
    words = {*list_own_words(Result.model_json_schema()), "output_tps", "concurrency", "1"}
    assert {"ollama", "worse", "noisy", "short", "implausible"} <= words
    secrets = {*words, "concurrency 1", "hunter22"}
    monkeypatch.setattr(store, "get_secrets", lambda: secrets)
    measurement = result.measurement.model_copy(update={"cause": "with hunter22"})
    changed = result.model_copy(update={"measurement": measurement})
    path = store.collect(HOST, "x", changed)
    assert path is not None
    found = pictures.read(path)
    assert "hunter22" not in path.read_text()
    assert found.comparisons == result.comparisons
    assert [[row.invalid for row in each.repeats] for each in found.summaries] == [
        [row.invalid for row in each.repeats] for each in result.summaries
    ]
    assert found.history == result.history
    assert found.measurement.target == "ollama"
    assert found.measurement.fingerprint.engine == "ollama"


def collect_from_host(monkeypatch: pytest.MonkeyPatch, kept: bytes) -> tuple[list[Path], list[str]]:
    """Collect the result of a record while the host has these samples; what is shown, and said."""
    paths: list[Path] = []
    lines: list[str] = []
    monkeypatch.setattr(reconciler.announce, "show_line", lambda _, line: lines.append(line))
    answer = SimpleNamespace(ok=True, stdout=kept)
    monkeypatch.setattr(store.connection, "run", lambda *_, **__: answer)
    spec = BenchmarkSpec(project="ai")
    room = reconciler.BenchmarkReconciler(
        host=HOST, spec=spec, report=cast("Any", None), on_result=paths.append
    )
    record = baseline.update(Record(), store.make_entry(MEASUREMENT, SUMMARIES), (), 0.1)
    room._collect(BenchmarkState(machine=Machine(now=0, record=record)))
    return paths, lines


@pytest.mark.usefixtures("reports")
def test_samples_of_another_result_keep_none_from_being_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a run leaves them that was killed between its two writes."""
    newer = store._dump(MEASUREMENT.model_copy(update={"at": MEASUREMENT.at + 1}))
    (path,), lines = collect_from_host(monkeypatch, newer)
    found = pictures.read(path)
    assert found.summaries == SUMMARIES
    assert (found.measurement.at, found.measurement.levels) == (MEASUREMENT.at, ())
    assert found.measurement.fingerprint == MEASUREMENT.fingerprint
    assert "collected without them" in lines[0]
    pictures.show([found], io.StringIO())


@pytest.mark.usefixtures("reports")
def test_a_result_has_the_name_of_the_host_that_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a cloned machine name its original."""
    cloned = store._dump(MEASUREMENT.model_copy(update={"host": "other-host"}))
    (path,), _ = collect_from_host(monkeypatch, cloned)
    found = pictures.read(path)
    assert found.measurement.host == "ai1"
    assert found.measurement.levels == MEASUREMENT.levels
    assert "other-host" not in path.read_text()


def test_what_the_host_keeps_is_read_as_it_was() -> None:
    kept = json.loads(store._dump(MEASUREMENT))
    assert Measurement.model_validate(kept) == MEASUREMENT
    assert kept["schema_version"] == 1


def test_servers_of_one_host_have_files_of_their_own_on_the_controller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two that were measured in the same second."""
    monkeypatch.setattr(store.reporting, "find_run", lambda _: object())
    monkeypatch.setattr(store.write, "find_directory", lambda _: tmp_path)
    host: Any = SimpleNamespace(name="ai/1", state=None)
    slugs = [BenchmarkSpec(project="ai", model=name).slug for name in ("a", "b")]
    paths = {store.find_path(host, slug, 1_700_000_000.0) for slug in slugs}
    assert len(paths) == 2
    assert all(path is not None and path.name.startswith("ai_1.") for path in paths)


@pytest.mark.usefixtures("reports")
def test_hosts_have_files_of_their_own_on_the_controller() -> None:
    """Also where a file's name cannot tell them apart, or a disk knows no case."""
    names = ["服务器一", "服务器二", "ai 1", "ai:1", "ai_1", "AI 1", "a" * 100, "a" * 101, "..."]
    hosts: list[Any] = [SimpleNamespace(name=name, state=None) for name in names]
    paths = [store.find_path(host, "ollama", 1_700_000_000.0) for host in hosts]
    assert len({str(path).lower() for path in paths}) == len(names)


def test_a_record_is_as_long_as_the_probe_reads() -> None:
    """The oldest of it goes first, and never what the latest is held against."""
    result = make_result(past=1)
    entry = store.make_entry(result.measurement, result.summaries)
    references = baseline.make_references(entry)
    past = baseline.make_past(entry)
    record = Record(
        latest=entry,
        previous=entry,
        steady=(entry,) * 5,
        best=references,
        held=references,
        history=tuple(past.model_copy(update={"at": past.at + n}) for n in range(50)),
    )
    assert store.fit(record) is record
    longest = len(store._dump(record)) * 2 // 3
    kept = store.fit(record, longest)
    assert len(store._dump(kept)) <= longest
    assert read(record=store._dump(kept).decode()).record == kept
    assert (kept.latest, kept.held, kept.best) == (entry, references, references)
    assert kept.history == record.history[50 - len(kept.history) :]
    least = store.fit(record, 1)
    assert least == Record(latest=entry)


def test_the_samples_of_every_profile_can_be_kept_and_shown(tmp_path: Path) -> None:
    """Each request asked again as often as one may be, and all of them measured once more."""
    second = 1234.567890123456
    sample = Sample(
        **dict.fromkeys(("sent", "ttft", "ttft_output", "last", "end"), second),
        **dict.fromkeys(("load", "prefill", "decode", "total"), second),
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "output_tokens"), 100_000),
        first_tokens=10_000,
        chunks=10_000,
    )
    most = spec.MOST_SAMPLES * 2 * (1 + sending.RETRIES)
    result = make_result(repeats=1, loads=[Load(concurrency=1)])
    sizes = []
    for count in (0, 1000):
        repeat = Repeat(wall=1.0, samples=(sample,) * count)
        levels = (Level(load=Load(concurrency=1), repeats=(repeat,)),)
        measurement = result.measurement.model_copy(update={"levels": levels})
        path = tmp_path / f"{count}.json"
        written = result.model_copy(update={"measurement": measurement})
        store.files.write_json(path, written.model_dump(mode="json"))
        sizes.append((len(store._dump(measurement)), path.stat().st_size))
    (kept, shown) = ((after - before) / 1000 for before, after in zip(*sizes, strict=True))
    assert kept * most < store.LONGEST
    assert shown * most < reader.MAXIMUM
    assert kept < store.SAMPLE


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (
            "cp: error copying './x' to './.x.stackmend.1': No space left on device",
            "cannot write /d/x.json: No space left on device; free 3 MiB there, then run again",
        ),
        (
            "mktemp: failed to create file: Read-only file system; /d cannot be made",
            "cannot write /d/x.json: Read-only file system; mount it writable, then run again",
        ),
        (
            "/d/x.json is no file: move it elsewhere",
            "cannot write /d/x.json: /d/x.json is no file: move it elsewhere, then run again",
        ),
        (
            "Permission denied",
            "cannot write /d/x.json: Permission denied; make it writable, then run again",
        ),
    ],
)
def test_what_cannot_be_written_says_what_to_do(reason: str, message: str) -> None:
    assert store.explain_failure("/d/x.json", reason, (2 << 20) + 1) == message


def reserve(directory: Path, room: int, options: str) -> subprocess.CompletedProcess[str]:
    """See whether a directory on a disk of its own, mounted so, has this much room."""
    body = read_script("stackmend.connection", "walk")
    body += read_script("stackmend.worker.benchmark", "reserve")
    files = [str(directory / name) for name in ("x.json", "x.latest.json")]
    script = 'mount -t tmpfs -o "$1" none "$2" && sh -c "$3" reserve "$4" "$5" "$6"'
    script += '; status=$?; ls -A "$2"; exit $status'
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "x", options, directory, body, str(room), *files],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("room", "options", "reason"),
    [
        (100_000, "size=1m,mode=755", ""),
        (2_000_000, "size=1m,mode=755", "No space left on device"),
        (100_000, "ro,mode=755", "Read-only file system"),
        (100_000, "size=1m,mode=777", "others than root may write to"),
    ],
)
def test_room_for_a_result_is_known_before_it_is_measured(
    room: int, options: str, reason: str, tmp_path: Path
) -> None:
    done = reserve(tmp_path, room, options)
    assert (done.returncode == 0) is (not reason), done.stderr
    assert reason in done.stderr
    assert done.stdout == ""


def test_a_file_in_the_way_is_known_before_it_is_measured(tmp_path: Path) -> None:
    (tmp_path / "x.latest.json").mkdir()
    files = store.Files(
        *(str(tmp_path / f"x.{name}") for name in ("json", "latest.json", "asking"))
    )
    with connected.local() as host, pytest.raises(StepError) as error:
        store.reserve(host, files, BenchmarkSpec(project="ai"))
    assert "x.latest.json is no file: move it elsewhere, then run again" in str(error.value)
    (tmp_path / "x.latest.json").rmdir()
    with connected.local() as host:
        store.reserve(host, files, BenchmarkSpec(project="ai"))
    assert list(tmp_path.iterdir()) == []


def measure_of(monkeypatch: pytest.MonkeyPatch, **replaced: Any) -> list[Path]:
    """Measure a server that is none, with parts of the measurement replaced; what is shown."""
    shown: list[Path] = []
    asked = BenchmarkSpec(project="ai")
    room = reconciler.BenchmarkReconciler(
        host=HOST, spec=asked, report=cast("Any", None), on_result=shown.append
    )
    room._has_turn = True
    ready = SimpleNamespace(rtt=0.0, load=None, verified=True)

    def ask(*_: object) -> tuple[Level, ...]:
        shown.append(Path("asked"))
        return MEASUREMENT.levels

    monkeypatch.setattr(room, "_ask", ask)
    for name, answer in (("_prepare", ready), ("_complete", FINGERPRINT), ("_make_reader", None)):
        monkeypatch.setattr(room, name, lambda *_, answer=answer: answer)
    for module, name in ((reconciler.turns, "take_turn"), (reconciler.progress, "display")):
        monkeypatch.setattr(module, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(reconciler.announce, "show_line", lambda *_: None)
    monkeypatch.setattr(reconciler.connection, "invalidate", lambda _: None)
    monkeypatch.setattr(store, "reserve", lambda *_: None)
    for name, replacement in replaced.items():
        monkeypatch.setattr(store, name, replacement)
    action = plan.Measure(subject="x", cause="y", model="m", fingerprint=FINGERPRINT)
    lease = cast("Any", SimpleNamespace(check=lambda: None))
    with pytest.raises(StepError, match="no disk"):
        room._measure(action, BenchmarkState(machine=Machine(now=5.0)), lease)
    return shown


@pytest.mark.usefixtures("reports")
def test_a_result_that_its_host_cannot_keep_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StepError("no disk")

    asked, path = measure_of(monkeypatch, write_result=refuse)
    assert asked == Path("asked")
    assert pictures.read(path).measurement.levels == MEASUREMENT.levels


def test_nothing_is_measured_that_no_host_can_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StepError("no disk")

    assert measure_of(monkeypatch, reserve=refuse) == []


@pytest.mark.parametrize(
    ("status", "content", "headers", "refusal"),
    [
        (
            301,
            b"",
            {"location": "http://ai/\x1b[2J"},
            (
                "refused",
                "it redirects to http://ai/\\x1b[2J: name that address as endpoint (HTTP 301)",
            ),
        ),
        (
            307,
            b"<html>",
            {},
            ("refused", "it redirects elsewhere: name that address as endpoint (HTTP 307)"),
        ),
        (500, b"{}", {}, ("error", "no reason given (HTTP 500)")),
        (404, b'{"error": null}', {}, ("refused", "no reason given (HTTP 404)")),
    ],
)
def test_a_refusal_without_a_reason_says_so(
    status: int, content: bytes, headers: dict[str, str], refusal: tuple[str, str]
) -> None:
    answer: Any = SimpleNamespace(status_code=status, read=lambda: content, headers=headers)
    assert sending._read_refusal(answer) == refusal


def test_servers_have_files_of_their_own() -> None:
    files = [store.get_files(BenchmarkSpec(project="ai", model=name)) for name in ("a", "b")]
    assert len({path for each in files for path in vars(each).values()}) == 6
