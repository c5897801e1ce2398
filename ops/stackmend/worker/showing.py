"""What the benchmarks of a run came to, shown once it has ended."""

from __future__ import annotations

import sys
from pathlib import Path

from typing_extensions import override

from stackmend.redaction import format_safe_line
from stackmend.reporting import Ending

#: Characters of a line that says why a result is not shown.
LONGEST = 600


class Benchmarks(Ending):
    """The results of all hosts: a table on the terminal, and a page beside the results."""

    def __init__(self) -> None:
        self._paths: dict[Path, None] = {}

    def add(self, path: Path) -> None:
        """Have a result shown.

        :param path: where it lies on this machine.
        """
        self._paths[path] = None

    @override
    def show(self, directory: Path) -> None:
        if not self._paths:
            return
        # What draws takes long to import, and most runs show nothing.
        from stackmend.worker import pictures

        results, problems = pictures.read_readable(sorted(self._paths))
        for problem in problems:
            print(
                f"--> stackmend: not shown: {format_safe_line(problem, LONGEST)}", file=sys.stderr
            )
        if not results:
            return
        pictures.show(results, sys.stderr)
        try:
            page = pictures.write_page(results, directory / "benchmarks" / "benchmark.html")
        except pictures.ExtraMissingError as error:
            print(f"--> stackmend: no page of the benchmarks: {error}", file=sys.stderr)
        else:
            print(f"--> stackmend: the benchmarks as a page: {page}", file=sys.stderr)
