"""The controller dies while ports are freed: the next run comes to the end, and all comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.fixtures import Lab
from tests.lab.holders import Shelf
from tests.lab.ports_runs import EVERYTHING, RECORDS, Runs

#: In the order of the ladder: a container, a unit, programs, the last of which takes its time.
NAMES = ("restarting", "unit", "python", "stubborn")
POLICY = {"on_conflict": "stop", "allow": EVERYTHING, "grace": 4, "settle": 1}

#: Moment of the run → what can be seen of it on the host.
MOMENTS: dict[str, Callable[[Shelf], str]] = {
    "the first record is there": lambda shelf: f"ls {RECORDS} | grep -q '^[0-9]'",
    "the container goes": lambda shelf: (
        "docker inspect -f '{{.State.Status}}' restarting | grep -q exited"
    ),
    "the last one has been asked": lambda shelf: (
        f"! ss -Hltn 'sport = :{shelf['python'].port}' | grep -q ."
    ),
}


@pytest.fixture(scope="module")
def shelf(lab: Lab) -> Iterator[Shelf]:
    shelf = Shelf(lab.take(1)[0])
    shelf.put(*NAMES)
    yield shelf
    shelf.clear()


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_run_comes_to_the_end(shelf: Shelf, tmp_path: Path, moment: str) -> None:
    host, runs = shelf.host, Runs(tmp_path, shelf.host)
    before = set(host.sh(f"ls {RECORDS} 2> /dev/null", check=False).split())
    assert shelf.taken() == set(NAMES)
    with runs.start(free={"ports": shelf.desired(), **POLICY}) as running:
        host.wait_for(f"[ -d {RECORDS} ] && {MOMENTS[moment](shelf)}", 30)
        running.kill()
    result = runs.free(shelf.desired(), **POLICY)
    assert result.run.rc == 0, result.run.out
    assert shelf.taken_within(2) == set()
    # What either run ended comes back, in whatever order.
    records = sorted(set(host.sh(f"ls {RECORDS}").split()) - before - {"lock"})
    back = runs.restored(*records)
    assert back.run.rc == 0, back.run.out
    assert shelf.taken() == set(NAMES)
    restart = host.inspect("restarting")["HostConfig"]["RestartPolicy"]["Name"]
    assert restart == "always"
    assert "UnitFileState=enabled" in shelf.picture("unit")["unit"]
