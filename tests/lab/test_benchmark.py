"""``deploy/benchmark.py``: measured once, and again for a reason alone."""

from __future__ import annotations

import json
import re
import statistics
import time

import jsonschema
import pytest

from stackmend.worker.benchmark import schema
from stackmend.worker.benchmark.contact import NOWHERE
from tests.calm import calmly
from tests.lab.benchmark_runs import PROFILE, RESULTS, PacedStack
from tests.lab.fixtures import Lab
from tests.lab.models_runs import Result
from tests.paced import read_truth
from tests.paced.measured import SPEED, TIMES


@pytest.fixture(scope="module")
def stack(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> PacedStack:
    """One server for all; each test leaves a result that holds."""
    return PacedStack.stand(lab.take(1)[0], tmp_path_factory.mktemp("paced"))


def measured(result: Result) -> list[str]:
    """The causes for which it was measured."""
    return [row["cause"] for row in result.all("done") if row["verb"] == "measure"]


def test_it_is_measured_once_and_the_result_is_read_by_others(stack: PacedStack) -> None:
    stack.clear_log()
    first = stack.run()
    assert first.run.rc == 0, first.run.out
    assert measured(first) == ["it was never measured"]
    assert stack.count_inference() > 20
    # Two answers at one time, each 0.05 s and 11 times 0.02 s long.
    output = first.host["operations"][0]["measured"]["output, concurrency 2"]
    assert 0 < output["value"] < 90
    assert "model paced:1b" in first.run.out
    assert re.search(r"^ +2 +\d+\.\d ", first.run.out, re.M), "the run ends with a table"
    assert (stack.reports / "benchmarks" / "benchmark.html").exists()
    (result,) = stack.collected()
    jsonschema.Draft202012Validator(schema.generate()).validate(result)
    assert result["measurement"]["fingerprint"]["threads"] == 4
    assert result["measurement"]["fingerprint"]["model"] == "a" * 64
    assert len(result["measurement"]["levels"][0]["repeats"]) == 5
    assert result["summaries"][0]["output_tps"]["median"] == output["value"]
    text = json.dumps(result) + json.dumps(first.run.report) + first.run.out
    assert "sk-never-shown" not in text
    kept = json.loads(stack.host.sh(f"cat {RESULTS}/*.latest.json"))
    assert kept["at"] == result["measurement"]["at"]
    assert "sk-never-shown" not in stack.host.sh(f"cat {RESULTS}/*.json")


@pytest.mark.parametrize(("user", "words"), [("root", "-y"), ("keeper", "-y"), ("root", "--dry")])
def test_a_second_run_asks_for_no_token(stack: PacedStack, user: str, words: str) -> None:
    stack.clear_log()
    again = stack.run(words, user=user)
    assert again.run.rc == 0, again.run.out
    assert again.outcomes == {"converged"}
    assert stack.read_log() == ["GET /api/version", "GET /api/tags", "GET /api/ps"]
    # One for the host's own reading, one for all that the server is asked.
    assert again.host["operations"][0]["measured"]["channels"]["value"] == 2
    assert len(stack.collected()) == 1


@calmly
def test_what_a_run_reports_is_what_the_server_did(stack: PacedStack) -> None:
    """Held against the server's own record, each repeat by itself."""
    stack.set_pace(ttft=0.2)
    result = stack.run(max_age=0, baseline="none")
    assert result.run.rc == 0, result.run.out
    requests = PROFILE["requests"]
    # Before them the server is found out about, and warmed up.
    asked = stack.read_records()[-5 * requests :]
    truths = [read_truth(asked[at : at + requests]) for at in range(0, len(asked), requests)]
    figures = result.host["operations"][0]["measured"]
    for name, of, leeway in (
        ("output", "output_tps", SPEED),
        ("ttft", "ttft", TIMES),
        ("tpot", "tpot", TIMES),
    ):
        reported = figures[f"{name}, concurrency 2"]["value"]
        truth = statistics.median(getattr(row, of) for row in truths)
        assert reported == pytest.approx(truth, rel=leeway), (name, truths)
    stack.set_pace()


def test_each_change_is_measured_and_named(stack: PacedStack) -> None:
    stack.version, stack.digest, stack.threads = "0.34.0", "b" * 64, 8
    assert_measured_for(
        stack,
        "the server's version changed: 0.33.0 → 0.34.0",
        f"the model's digest changed: {'a' * 12} → {'b' * 12}",
        "the server's settings changed: LLAMA_ARG_THREADS=4 → LLAMA_ARG_THREADS=8",
        "the number of threads changed: 4 → 8",
    )
    stack.replicas = 2
    assert_measured_for(stack, "the number of replicas changed: 1 → 2")


def assert_measured_for(stack: PacedStack, *causes: str) -> None:
    """It is measured for these causes and no other, and then no more."""
    stack.up()
    before = len(stack.collected())
    result = stack.run()
    assert result.run.rc == 0, result.run.out
    assert measured(result) == ["; ".join(causes)]
    assert len(stack.collected()) == before + 1
    stack.clear_log()
    assert stack.run().outcomes == {"converged"}
    assert stack.count_inference() == 0


def test_a_run_that_is_killed_leaves_the_result_of_before(stack: PacedStack) -> None:
    stack.replicas = 1
    stack.up()
    files = stack.host.snapshot_files(RESULTS)
    stack.set_pace(ttft=0.3)
    with stack.start(max_age=0) as running:
        deadline = time.monotonic() + 60
        while stack.count_inference() < 12:
            assert time.monotonic() < deadline, running.output()
            time.sleep(0.05)
        # As the moves of workers do: nobody else measures on that host meanwhile.
        stack.host.sh("! flock -n /var/lib/stackmend/run.lock true")
        # A path that no server has is asked for as well: that needs no model.
        assert f"GET {NOWHERE}" in stack.read_log()
        running.kill()
    assert stack.host.snapshot_files(RESULTS).keys() == files.keys()
    assert all(
        content == files[name]
        for name, content in stack.host.snapshot_files(RESULTS).items()
        # That there is room for a result was tried in the directory.
        if name != RESULTS
    )
    stack.set_pace()
    stack.host.wait_for("flock -n /var/lib/stackmend/run.lock true", 30)
    result = stack.run(max_age=0)
    assert result.run.rc == 0, result.run.out
    assert len(measured(result)) == 1


def test_another_model_in_memory_is_left_alone(stack: PacedStack) -> None:
    stack.set_pace(beside="another:1b")
    refused = stack.run(model="paced:1b", max_age=0)
    assert refused.run.rc != 0
    assert "another model is loaded: another:1b; the server may unload it" in str(refused.reasons)
    assert stack.count_inference() == 0
    stack.set_pace(beside="")


def test_a_model_that_is_not_there_is_a_refusal(stack: PacedStack) -> None:
    stack.clear_log()
    refused = stack.run(model="another:1b")
    assert refused.run.rc != 0
    assert "it has no model another:1b; it has paced:1b" in refused.reasons[0][1]
    assert stack.count_inference() == 0


def test_a_minimum_that_is_not_reached_fails_without_a_request(stack: PacedStack) -> None:
    stack.clear_log()
    result = stack.run(minimum=5000)
    assert result.run.rc != 0
    blocking = [row for row in result.all("findings") if row["blocks"]]
    assert len(blocking) == 1, blocking
    finding = blocking[0]
    assert finding["kind"] == "below minimum"
    assert "less than 5,000" in finding["cause"]
    assert stack.count_inference() == 0


def test_another_gpu_is_measured_and_named(stack: PacedStack) -> None:
    """A card is put in, and then exchanged for another."""
    card, driver = "NVIDIA L4 22.5 GiB", "550.54.15"
    put_gpu(stack, f"NVIDIA L4, 23034, 22500, {driver}")
    assert_measured_for(
        stack,
        f"the GPUs changed: none → {card}",
        f"the GPUs' driver changed: none → {driver}",
    )
    put_gpu(stack, f"NVIDIA H200, 143771, 143000, {driver}")
    assert_measured_for(stack, f"the GPUs changed: {card} → none, none → NVIDIA H200 140.4 GiB")
    stack.host.sh("rm /usr/local/bin/nvidia-smi")


def put_gpu(stack: PacedStack, row: str) -> None:
    """Have the host's ``nvidia-smi`` list a GPU: name, memory and what is free of it, driver."""
    listing = f"case $* in *--query-gpu=name,*) echo '{row}' ;; *) echo '0x0, 40' ;; esac"
    stack.host.put("/usr/local/bin/nvidia-smi", f"#!/bin/sh\n{listing}\n", mode="0755")
