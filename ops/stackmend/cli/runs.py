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
    :param data: what each host's data has for this run alone.
    :raises click.ClickException: there is no such inventory.

    A signal ends the process by itself, with 128 and its number.
    """
    arguments = [
        _find_inventory(inventory),
        str(get_deploy_directory() / f"{name}.py"),
        "--dry" if dry else "--yes",
        # Without it a dry run asks a person whether to go on without a host.
        "--json",
        *(f"--limit={pattern}" for pattern in limit),
        # As JSON: what it takes for a number or a truth is text here.
        *(f"--data={key}={json.dumps(value)}" for key, value in (data or {}).items()),
        *["-v"] * (verbosity - 1),
    ]
    error = _run_pyinfra(arguments, output, quiet=not verbosity)
    return _classify_end(error, output, detailed=detailed)


def _find_inventory(inventory: str) -> str:
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
    arguments: Sequence[str], output: Output, *, quiet: bool
) -> click.ClickException | None:
    """What pyinfra ended with, where it did not come to the end of the run."""
    # It has the standard library wait as gevent does, before anything else is imported.
    import_module("pyinfra_cli")
    import pyinfra
    from pyinfra.api.output import set_echo, set_formatter
    from pyinfra_cli import cli  # type: ignore[import-untyped]

    from stackmend import reporting

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
    if sys.stdout.isatty():
        os.environ.setdefault("PYINFRA_PROGRESS", "on")
    if quiet:
        logging.getLogger("pyinfra").addFilter(_is_warning)
    reporting.listen(output)
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


def _is_warning(record: logging.LogRecord) -> bool:
    """Whether a line of pyinfra's log is in no record: errors are, and steps are not shown."""
    return record.levelno == logging.WARNING


def _classify_end(error: click.ClickException | None, output: Output, *, detailed: bool) -> int:
    from pyinfra.api.exceptions import ArgumentTypeError, OperationError, PyinfraError
    from pyinfra_cli.exceptions import (  # type: ignore[import-untyped]
        UnexpectedInternalError,
        WrappedError,
    )

    record = output.record
    cause = error.exception if isinstance(error, WrappedError) else None
    # That no host is left is no more than the record says of each.
    if error is not None and (record is None or type(cause) is not PyinfraError):
        _show_error(error)
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


def _show_error(error: click.ClickException) -> None:
    from pyinfra_cli.exceptions import CliError, WrappedError

    if isinstance(error, CliError | WrappedError):
        click.echo(f"Error: {error.message}", err=True)
    else:
        # With the place in the file that it comes from.
        error.show()
