"""What failed in a run of tests, once more with nothing beside it: ``python -m tests.alone``.

Limits of stackmend's own run out where four tests and their hosts share two cores that others use
as well, and times come out wrong; such a failure says nothing about stackmend. One that comes again
alone does. Each is named with what became of it, so that none that failed once is hidden; where
more than `MOST` failed, none is tried again, for then it is not chance.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

#: How many failures may be chance.
MOST = 10

#: Where pytest keeps which tests failed in its last run.
FAILED = Path(".pytest_cache/v/cache/lastfailed")


class Outcomes:
    """What became of each test, as a plugin of pytest."""

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.ran: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when == "call" and report.passed:
            self.ran.add(report.nodeid)


def main() -> int:
    """Run again what failed; 0 where each of them passes, 1 otherwise."""
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} failed: up to {MOST} are tried once more, alone")
        return 1
    outcomes = Outcomes()
    status = pytest.main(["-p", "no:cacheprovider", *failed], plugins=[outcomes])
    print("failed, then once more alone:")
    for name in failed:
        passed = name in outcomes.ran - outcomes.failed
        print(f"  {'passed' if passed else 'FAILED'}  {name}")
    return int(status != pytest.ExitCode.OK or not outcomes.ran.issuperset(failed))


if __name__ == "__main__":
    sys.exit(main())
