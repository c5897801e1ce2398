"""The gate of ``deploy/benchmark.py``: a slowdown fails with both numbers; noise fails nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.calm import SKIPPED
from tests.lab.benchmark_runs import PROFILE, PacedStack
from tests.lab.fixtures import Lab
from tests.lab.models_runs import Result

# Beside others every result is noisy.
pytestmark = pytest.mark.timed


@pytest.fixture(scope="module")
def stack(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> PacedStack:
    """One server for all; each test leaves a result that holds."""
    return PacedStack.stand(lab.take(1)[0], tmp_path_factory.mktemp("paced"))


def measure_steadily(stack: PacedStack) -> Result:
    """Measure until the result is steady, whatever else this machine does meanwhile."""
    for _ in range(8):
        before = len(stack.collected())
        result = stack.run(max_age=0, profile=GATED)
        found = stack.collected()
        if len(found) > before and not found[-1]["summaries"][0]["noisy"]:
            return result
    # Counted with what else was skipped so: a run in which that is all says it.
    pytest.skip(SKIPPED)


#: Asked so by the tests of the gate alone: what others measured is no baseline of theirs.
GATED = {**PROFILE, "output_tokens": 13}


@pytest.fixture(scope="module")
def slowed(stack: PacedStack) -> PacedStack:
    """The server, slower by 30 % than when it was measured."""
    stack.replicas = 1
    stack.up()
    stack.set_pace(tpot=0.03, ttft=0.02)
    assert measure_steadily(stack).run.rc == 0
    stack.set_pace(tpot=0.03 / 0.7, ttft=0.02)
    return stack


def test_what_other_programs_take_is_noise_and_fails_nothing(slowed: PacedStack) -> None:
    """The host says that something else takes half of its CPU."""
    slowed.host.sh(
        "setsid sh -c 'n=0; while :; do n=$((n + 50)); "
        'echo "cpu $n 0 0 $n 0 0 0 0 0 0" >/run/stat; sleep 0.1; done\' '
        ">/dev/null 2>&1 </dev/null & echo $! >/run/ticking"
    )
    try:
        noisy = slowed.run(max_age=0, profile=GATED)
    finally:
        slowed.host.sh("kill $(cat /run/ticking)")
    assert noisy.run.rc == 0, noisy.run.out
    found = [row["cause"] for row in noisy.all("findings") if row["kind"] == "noisy"]
    assert any("other programs used" in cause or "vary by" in cause for cause in found), found
    assert not noisy.about("findings", "slower")


def test_a_slowdown_of_thirty_percent_fails_with_both_numbers(slowed: PacedStack) -> None:
    """As long as it lasts, and no longer."""
    result = measure_steadily(slowed)
    assert result.run.rc != 0, result.run.out
    found = [row["cause"] for row in result.all("findings") if row["kind"] == "slower"]
    assert any("output" in cause and "in the baseline" in cause for cause in found), found
    assert "measured once more" in result.run.out
    (latest,) = slowed.collected()[-1:]
    assert len(latest["measurement"]["levels"][0]["repeats"]) == 10
    worse = [row for row in latest["comparisons"] if row["outcome"] == "worse"]
    assert {"output_tps", "tpot"} <= {row["figure"] for row in worse}
    # The stored result says so still, without a request.
    slowed.clear_log()
    assert slowed.run(profile=GATED).run.rc != 0
    assert slowed.count_inference() == 0
    slowed.set_pace(tpot=0.03, ttft=0.02)
    assert measure_steadily(slowed).run.rc == 0


def test_a_result_comes_to_a_controller_that_has_none(stack: PacedStack, tmp_path: Path) -> None:
    other = PacedStack(stack.host, tmp_path)
    (other.source / "compose.yaml").write_text((stack.source / "compose.yaml").read_text())
    stack.clear_log()
    result = other.run(profile=GATED, baseline="none")
    assert result.run.rc == 0, result.run.out
    assert [row["verb"] for row in result.all("done")] == ["collect"]
    assert other.collected()[0]["measurement"] == stack.collected()[-1]["measurement"]
    assert other.run(profile=GATED, baseline="none").outcomes == {"converged"}
    assert stack.count_inference() == 0
