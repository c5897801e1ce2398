"""The programs of this machine that tests drive, and the shells that a host's ``sh`` may be."""

from __future__ import annotations

import os
import shutil

import pytest


def find(tool: str) -> str:
    """The path of a tool of this machine; a version manager's shim needs more than its file."""
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"):
        if (found := shutil.which(tool, path=place)) is not None:
            return found
    lacking = f"this machine lacks {tool}, which this test drives"
    if os.environ.get("CI") == "true":
        pytest.fail(lacking, pytrace=False)
    pytest.skip(lacking)


#: Where ``sh`` is bash it is ``bash --posix``. `make check` tries the first alone.
SHELLS = (
    "dash",
    pytest.param("busybox sh", marks=pytest.mark.slow),
    pytest.param("bash", marks=pytest.mark.slow),
    pytest.param("bash --posix", marks=pytest.mark.slow),
)

#: The same by their names, where a host is laid out for each.
NAMES = (
    "dash",
    pytest.param("bash", marks=pytest.mark.slow),
    pytest.param("busybox", marks=pytest.mark.slow),
)


@pytest.fixture(params=SHELLS)
def each_shell(request: pytest.FixtureRequest) -> list[str]:
    """The start of a command line of each shell that is the ``sh`` of some host."""
    program, *options = request.param.split()
    return [find(program), *options]
