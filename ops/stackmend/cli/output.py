"""What a command prints of a run: a line for each host, then what was wrong and what was done."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from typing_extensions import override

from stackmend.redaction import format_safe_line
from stackmend.reporting import summary
from stackmend.reporting.listener import Listener

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from stackmend.cli.support import Support
    from stackmend.diagnosis import HostSupport
    from stackmend.reporting.state import Outcome, RunRecord


class Output(Listener):
    """A line for each host on standard error as it ends; the summary on standard output.

    :param verbose: whether all that the run does is shown as well, findings among it.
    :param support: what collects a support bundle, where one is asked for.
    :ivar record: the run, once it has ended.
    :ivar lost: whether it has ended without a record.
    """

    record: RunRecord | None = None
    lost = False

    def __init__(self, *, verbose: bool, support: Support | None = None) -> None:
        self._verbose = verbose
        self._support = support
        self.wants_support = support is not None

    @override
    def on_support(self, host: str, support: HostSupport) -> None:
        if self._support is not None:
            self._support.add(host, support)

    @override
    def on_host(self, host: str, outcome: Outcome, seconds: float) -> None:
        click.echo(f"    {format_safe_line(host)}: {outcome} ({seconds:.1f} s)", err=True)

    @override
    def on_record(self, record: RunRecord, path: Path | None) -> None:
        self.record = record
        summary.show(record, path, sys.stdout, all_findings=not self._verbose)
        self._write_support(record)

    def _write_support(self, record: RunRecord) -> None:
        if self._support is not None:
            click.echo(self._support.write(record), err=True)

    @override
    def on_no_record(self) -> None:
        self.lost = True


class JSONOutput(Output):
    """The same lines, and the record as JSON on standard output, which nothing else comes to.

    What anything else writes there, be it a file of the inventory, goes to standard error.
    """

    def __init__(self, *, verbose: bool, support: Support | None = None) -> None:
        super().__init__(verbose=verbose, support=support)
        sys.stdout.flush()
        # Not inherited by what is started meanwhile.
        self._stdout: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    @override
    def on_record(self, record: RunRecord, path: Path | None) -> None:
        self.record = record
        # Who reads it may have ended; the exit code is right all the same.
        with suppress(BrokenPipeError), self._stdout:
            print_json(record, self._stdout)
        self._write_support(record)


def print_json(record: RunRecord, out: TextIO) -> None:
    """Print a record as the JSON that ``schema-2.json`` describes.

    :param record: the run.
    :param out: where to; a terminal gets ASCII alone, which steers none.
    """
    json.dump(record.model_dump(mode="json"), out, indent=1, ensure_ascii=out.isatty())
    out.write("\n")
    out.flush()
