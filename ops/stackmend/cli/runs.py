"""A deploy of stackmend's, run by pyinfra's own command line in this very process.

In this process and not in a child: whoever holds the locks of the hosts is then whoever hears a
signal and whoever is killed, a password is asked for at the terminal that the command has, and the
record is the one of this run, even where it could not be written.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from traceback import extract_tb, format_exception_only
from typing import TYPE_CHECKING, Any

import click

from stackmend import get_deploy_directory
from stackmend.cli import exit_codes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackmend.cli.output import Output

#: The inventory in a directory that ``stackmend init`` has made.
FLEET = "fleet.py"


def run_deploy(
    name: str,
    inventory: str,
    output: Output,
    *,
    dry: bool = False,
    detailed: bool = False,
    limit: Sequence[str] = (),
    verbosity: int = 0,
    wait: float | None = None,
    record: str = "",
    data: Mapping[str, str] | None = None,
) -> int:
    """Run a deploy on the hosts of an inventory, and say by an exit code how that ended.

    :param name: the deploy, such as ``site``.
    :param inventory: its file, a directory with a ``fleet.py``, or what else pyinfra takes for one.
    :param output: who shows the run.
    :param dry: whether the hosts are only looked at.
    :param detailed: whether changes have an exit code of their own.
    :param limit: names and groups of the hosts that it is run on; all without any.
    :param verbosity: 0 for what ``output`` shows alone, 1 for all that pyinfra prints, 2 and more
        for its ``-v``, ``-vv`` and ``-vvv``.
    :param wait: seconds to wait for another run on a host; by default as its settings say.
    :param record: what is brought back, for ``undo``.
    :param data: what each host's data has for this run alone.
    :raises click.ClickException: there is no such inventory.

    A signal ends the process by itself, with 128 and its number.
    """
    arguments = [
        find_inventory(inventory),
        str(get_deploy_directory() / f"{name}.py"),
        "--dry" if dry else "--yes",
        # Without it a dry run asks a person whether to go on without a host.
        "--json",
        *(f"--limit={pattern}" for pattern in limit),
        # As JSON: what it takes for a number or a truth is text here.
        *(f"--data={key}={json.dumps(value)}" for key, value in (data or {}).items()),
        *["-v"] * (verbosity - 1),
    ]
    error = _run_pyinfra(arguments, output, quiet=not verbosity, wait=wait, record=record)
    return _classify_end(error, output, detailed=detailed, verbose=verbosity > 0)


def find_inventory(inventory: str) -> str:
    """What pyinfra is given for an inventory.

    :param inventory: as :func:`run_deploy` takes it.
    :raises click.ClickException: there is no such inventory.
    """
    # A connector, such as @local.
    if inventory.startswith("@"):
        return inventory
    path = Path(inventory)
    try:
        if path.is_dir():
            path /= FLEET
        if path.exists():
            return str(path)
    except (OSError, ValueError):
        pass
    # What is no path may be names of hosts.
    if path.name != inventory or path.suffix == ".py":
        raise click.ClickException(f"no inventory: there is no {str(path)!r}")
    return inventory


def _run_pyinfra(
    arguments: Sequence[str], output: Output, *, quiet: bool, wait: float | None, record: str
) -> click.ClickException | None:
    """What pyinfra ended with, where it did not come to the end of the run."""
    # It has the standard library wait as gevent does, before anything else is imported.
    import_module("pyinfra_cli")
    import pyinfra
    from pyinfra.api.output import set_echo, set_formatter
    from pyinfra_cli import cli  # type: ignore[import-untyped]

    from stackmend import reporting
    from stackmend.fleet import hosts as fleet

    # What its own `main` does, but for its handler of SIGINT, which exits with 0.
    pyinfra.is_cli = True
    set_formatter(click.style)
    set_echo(click.echo)
    sys.path.append(".")
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(line_buffering=True)
    # The record is what is printed.
    cli.print_run_json = lambda state, dry: None
    _install_with_config(cli)
    _run_at_own_pace(cli)
    if sys.stdout.isatty():
        os.environ.setdefault("PYINFRA_PROGRESS", "on")
    if quiet:
        logging.getLogger("pyinfra").addFilter(_is_warning)
    reporting.listen(output)
    if wait is not None:
        fleet.set_wait(wait)
    if record:
        from stackmend import undo

        undo.choose(record)
    # A signal is heard from here on, and not only once the inventory is loaded.
    reporting.install()
    error = None
    try:
        cli.cli.main(
            list(arguments),
            prog_name="pyinfra",
            standalone_mode=False,
            color=click.get_current_context().color,
        )
    except click.ClickException as raised:
        error = raised
    except SystemExit as raised:
        # pyinfra's own, which says less than the record; any other is a signal's.
        if raised.code not in (0, 1):
            raise
    reporting.end_runs()
    return error


def _install_with_config(cli: Any) -> None:
    """Begin the run as a ``config.py`` of stackmend's would: before the inventory is loaded."""
    set_config = cli._set_config

    def set_and_install(*args: Any, **kwargs: Any) -> Any:
        from stackmend import startup

        config = set_config(*args, **kwargs)
        startup.install()
        return config

    cli._set_config = set_and_install


def _run_at_own_pace(cli: Any) -> None:
    """Have no host wait for the others between two operations."""
    from stackmend.fleet import pace

    cli.run_ops = pace.run_ops


def _is_warning(record: logging.LogRecord) -> bool:
    """Whether a line of pyinfra's log is in no record: errors are, and steps are not shown."""
    ignored = record.funcName == "log_error_or_warning"
    return record.levelno == logging.WARNING and not ignored


def _classify_end(
    error: click.ClickException | None, output: Output, *, detailed: bool, verbose: bool
) -> int:
    from pyinfra.api.exceptions import ArgumentTypeError, OperationError, PyinfraError
    from pyinfra_cli.exceptions import (  # type: ignore[import-untyped]
        UnexpectedInternalError,
        WrappedError,
    )

    record = output.record
    cause = error.exception if isinstance(error, WrappedError) else None
    # That no host is left is no more than the record says of each.
    if error is not None and (record is None or type(cause) is not PyinfraError):
        _show_error(error, verbose=verbose)
    if record is None and output.lost:
        click.echo("Error: there is no record of the run: how it ended is not known", err=True)
        return exit_codes.FAILED
    if record is None:
        if error is None:
            click.echo("Error: the inventory names no host, or --limit leaves none", err=True)
        internal = isinstance(error, UnexpectedInternalError)
        return exit_codes.FAILED if internal else exit_codes.WRONG
    if isinstance(cause, OperationError | ArgumentTypeError):
        return exit_codes.WRONG
    return exit_codes.classify_record(record, detailed=detailed)


def _show_error(error: click.ClickException, *, verbose: bool) -> None:
    from pyinfra_cli.exceptions import CliError, UnexpectedExternalError, WrappedError

    if isinstance(error, CliError | WrappedError):
        click.echo(f"Error: {error.message}", err=True)
    elif isinstance(error, UnexpectedExternalError) and not verbose:
        click.echo(f"Error: {_locate(error)}", err=True)
    else:
        # With the place in the file that it comes from.
        error.show()


def _locate(error: Any) -> str:
    """What went wrong in a file of the user's, and where, in one line."""
    from stackmend.redaction import format_safe_line

    lines = [
        frame.lineno
        for frame in extract_tb(error.exception._traceback)
        if Path(frame.filename).name == Path(error.filename).name
    ]
    where = f" line {lines[-1]}" if lines else ""
    cause = "".join(format_exception_only(error.exception)).strip()
    return format_safe_line(f"{error.filename}{where}: {cause}")
