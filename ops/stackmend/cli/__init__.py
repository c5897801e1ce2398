"""The ``stackmend`` command: this package's deploys, the doctor, a report again, an inventory.

Thin over pyinfra: ``pyinfra INVENTORY deploy/site.py`` does the same. Its exit codes are those of
:mod:`~stackmend.cli.exit_codes`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from stackmend.cli import exit_codes
from stackmend.cli.doctor import diagnose

if TYPE_CHECKING:
    from stackmend.pages import Fragment
    from stackmend.reporting.state import RunRecord

__all__ = ["main"]

#: What the deploys do, for the help of their commands.
DEPLOYS = {
    "site": """Bring every host to what its `stack` says.

    What is wrong is found, mended and proven mended; the next run changes nothing.""",
    "reconcile": """Keep every host as its `stack` says: what a schedule runs.

    Each host goes on by itself, within the limits that `reconcile` sets.""",
    "bootstrap": """Make new machines ready for a stack.

    A user, the clock, DNS and a container engine, as `access`, `resolver` and `engine` say.""",
    "benchmark": """Measure how fast the workers are.

    On each host whose `stack` has a `worker.benchmark`, unless its last result still holds.""",
}

#: What a run ends with, below the help of each command.
EXIT_CODES = """\b
Exit codes:
  0   every host is proven well, or paused (with --dry: was looked at)
  1   a host failed, or was refused something
  2   wrong usage or settings
  3   a host cannot be reached
  4   another run holds the lock of a host
  10  with --detailed-exitcode: well, and changed (with --dry: would be)
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM"""

PAUSE_EXIT_CODES = """\b
Exit codes:
  0   every host is as asked
  1   a host failed, or was refused it
  2   wrong usage or settings
  3   a host cannot be reached
  4   another run is changing the pauses of a host
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stackmend", message="%(prog)s %(version)s")
def cli() -> None:
    """Bring hosts to a working AI stack, and keep them there.

    INVENTORY is what pyinfra takes for one: a file such as fleet.py, or a directory that
    `stackmend init` has made.
    """


class _Wait(click.ParamType[float]):
    """Seconds, or a time such as 10min, as ``reconcile.wait`` has them."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds that a text means."""
        from pydantic import ValidationError

        from stackmend.fleet.spec import ReconcilePolicy
        from stackmend.problems import join_problems

        try:
            return ReconcilePolicy.model_validate({"wait": value}).wait
        except ValidationError as error:
            self.fail(join_problems(error).removeprefix("wait: "), param, ctx)


def _make_deploy_command(name: str, text: str) -> click.Command:
    @click.command(name, help=text, epilog=EXIT_CODES)
    @click.argument("inventory", type=click.Path())
    @click.option("--dry", is_flag=True, help="Look, and say what would be done; change nothing.")
    @click.option("--limit", multiple=True, metavar="HOST", help="Only this host or group.")
    @click.option("--json", "as_json", is_flag=True, help="Print the record of the run as JSON.")
    @click.option("--detailed-exitcode", is_flag=True, help="Exit with 10 for a change.")
    @click.option("--wait", type=_Wait(), help="How long to wait for another run on a host.")
    @click.option("-v", "verbosity", count=True, help="Show each step; -vv to -vvvv show more.")
    def run(
        inventory: str,
        dry: bool,
        limit: tuple[str, ...],
        as_json: bool,
        detailed_exitcode: bool,
        wait: float | None,
        verbosity: int,
    ) -> int:
        return _run(
            name,
            inventory,
            dry=dry,
            as_json=as_json,
            detailed=detailed_exitcode,
            limit=limit,
            verbosity=verbosity,
            wait=wait,
        )

    return run


def _run(
    name: str,
    inventory: str,
    *,
    dry: bool = False,
    as_json: bool,
    detailed: bool = False,
    limit: tuple[str, ...],
    verbosity: int,
    wait: float | None = None,
    record: str = "",
    data: Mapping[str, str] | None = None,
) -> int:
    # Not before: --help and completion answer at once.
    from stackmend.cli.output import JSONOutput, Output
    from stackmend.cli.runs import run_deploy

    output = (JSONOutput if as_json else Output)(verbose=verbosity > 0)
    status = run_deploy(
        name,
        inventory,
        output,
        dry=dry,
        detailed=detailed,
        limit=limit,
        verbosity=verbosity,
        wait=wait,
        record=record,
        data=data,
    )
    if name == "reconcile" and not dry:
        from stackmend.schedule import unchanged

        unchanged.keep(output.record if status == 0 else None)
    return status


for _name, _text in DEPLOYS.items():
    cli.add_command(_make_deploy_command(_name, _text))


_ONLY = click.option(
    "--only", metavar="WHAT", help="A room, such as models, or service:NAME, and nothing else."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the record of the run as JSON.")
_VERBOSE = click.option(
    "-v", "verbosity", count=True, help="Show each step; -vv to -vvvv show more."
)


@cli.command("pause", epilog=PAUSE_EXIT_CODES)
@click.argument("inventory", type=click.Path())
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option(
    "--until",
    default="",
    metavar="WHEN",
    help="When it ends: 2h, 08:00 or 2026-12-24T08:00.  [default: never]",
)
@click.option("--why", default="", metavar="TEXT", help="The reason, in a line.")
@_ONLY
@_JSON
@_VERBOSE
def pause_hosts(
    inventory: str,
    hosts: tuple[str, ...],
    until: str,
    why: str,
    only: str | None,
    as_json: bool,
    verbosity: int,
) -> int:
    """Leave hosts alone: what is found is reported, and nothing is mended until they are resumed.

    HOST is a host or a group; without any it is all of INVENTORY. The pause lies on the host, so
    that it holds for each controller and for the host's own schedule.
    """
    from datetime import UTC, datetime

    from pydantic import ValidationError

    from stackmend.problems import list_problems
    from stackmend.restraint.spec import PauseSpec
    from stackmend.restraint.times import parse_until

    raw = {"only": only or "", "why": why, "who": ""}
    try:
        parse_until(until, datetime.now(UTC).astimezone())
    except ValueError as error:
        raise click.UsageError(f"--until: {error}") from None
    try:
        PauseSpec.model_validate(raw)
    except ValidationError as error:
        first, *_ = list_problems(error, model=PauseSpec, raw=raw)
        raise click.UsageError(f"--{first}") from None
    data = {"pause_until": until, "pause_why": why, "pause_only": only or ""}
    return _run("pause", inventory, as_json=as_json, limit=hosts, verbosity=verbosity, data=data)


@cli.command("resume", epilog=PAUSE_EXIT_CODES)
@click.argument("inventory", type=click.Path())
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@_ONLY
@_JSON
@_VERBOSE
def resume_hosts(
    inventory: str, hosts: tuple[str, ...], only: str | None, as_json: bool, verbosity: int
) -> int:
    """Have hosts mended again that were paused; the next site or reconcile does so.

    HOST is a host or a group; without any it is all of INVENTORY.
    """
    from stackmend.restraint.spec import check_scope

    try:
        check_scope(only or "")
    except ValueError as error:
        raise click.UsageError(f"--only: {error}") from None
    data = {} if only is None else {"pause_only": only}
    return _run("resume", inventory, as_json=as_json, limit=hosts, verbosity=verbosity, data=data)


cli.add_command(diagnose)


@cli.command("undo", epilog=EXIT_CODES)
@click.argument("inventory", type=click.Path())
@click.argument("record")
@click.option("--dry", is_flag=True, help="Look, and say what would be done; change nothing.")
@click.option("--limit", multiple=True, metavar="HOST", help="Only this host or group.")
@click.option("--json", "as_json", is_flag=True, help="Print the record of this run as JSON.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 10 for a change.")
@click.option("--wait", type=_Wait(), help="How long to wait for another run on a host.")
@click.option("-v", "verbosity", count=True, help="Show each step; -vv to -vvvv show more.")
def take_back(
    inventory: str,
    record: str,
    dry: bool,
    limit: tuple[str, ...],
    as_json: bool,
    detailed_exitcode: bool,
    wait: float | None,
    verbosity: int,
) -> int:
    """Bring back what a run ended or changed, the last thing first.

    RECORD is the record of that run, or the run's id, which the record's name ends with. What
    somebody has changed since stays as it is, and what no command brings back is listed.
    """
    return _run(
        "undo",
        inventory,
        dry=dry,
        as_json=as_json,
        detailed=detailed_exitcode,
        limit=limit,
        verbosity=verbosity,
        wait=wait,
        record=record,
    )


@cli.command("report", epilog="Exit codes: as of the run; 2 where there is no report.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON, as of version 2.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Write a page instead: the fleet now, its history and benchmarks.",
)
@click.option("--open", "opens", is_flag=True, help="Open that page in a browser.")
def show_report(path: Path | None, as_json: bool, page: Path | None, opens: bool) -> int:
    """Show the record of a run again.

    PATH is a record, or a directory of records, of which the latest is shown. Without it, that is
    the directory that STACKMEND_REPORTS names, or var/reports.
    """
    if opens and page is None:
        raise click.UsageError("--open opens the page of --html; name one")
    from stackmend import reporting
    from stackmend.cli.output import print_json
    from stackmend.reporting import reader, summary
    from stackmend.text import make_lines_printable

    # A run that ends meanwhile leads the latest elsewhere.
    found = _resolve(reader.find_latest(path) if path is None or _is_directory(path) else path)
    try:
        record = reporting.read(found)
    except reader.ReportError as error:
        raise click.ClickException(f"no report: {make_lines_printable(str(error))}") from None
    if page is not None:
        _write_page(page, record, found, opens=opens)
    if as_json:
        print_json(record, sys.stdout)
    elif page is None:
        summary.show(record, found, sys.stdout, all_findings=True)
        sys.stdout.flush()
    return exit_codes.classify_record(record)


def _is_directory(path: Path) -> bool:
    from stackmend.controller_files import Unreadable, read_status

    try:
        return stat.S_ISDIR(read_status(path).st_mode)
    except Unreadable:
        return False


def _resolve(path: Path) -> Path:
    """Where a path leads; as it is where that cannot be known, as whoever reads it says."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _write_page(out: Path, record: RunRecord, path: Path, *, opens: bool) -> None:
    from stackmend.reporting import fleet, page, reader

    before = reader.list_before(path, fleet.MOST_RUNS)
    try:
        page.write(out, record, before, _draw_benchmarks(path.parent / "benchmarks"))
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from None
    click.echo(f"wrote {out}", err=True)
    if opens:
        import webbrowser

        if not webbrowser.open(out.resolve().as_uri()):
            click.echo(f"no browser opened {out}", err=True)


def _draw_benchmarks(directory: Path) -> list[Fragment]:
    """The pictures of the latest benchmark of each worker whose results lie in a directory."""
    # A name ends with its time; what stands before it is the host and what was measured there.
    latest = {path.stem.rpartition("-")[0]: path for path in sorted(directory.glob("*.json"))}
    if not (paths := [*latest.values()]):
        return []
    from stackmend.redaction import format_safe_line
    from stackmend.worker import pictures

    results, problems = pictures.read_readable(paths)
    for problem in problems:
        click.echo(f"not on the page: {format_safe_line(problem)}", err=True)
    return [pictures.render_fragment(results)] if results else []


@cli.command("init")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="[NAME=]ADDRESS[:PORT], or @local for this machine; once for each host.",
)
@click.option("--user", help="Who logs in: root, or a user who may use sudo.  [default: root]")
@click.option("--key", help="The private key file.  [default: ssh-agent and ~/.ssh]")
@click.option("--project", help="The name of the Compose project.  [default: ai]")
@click.option("--source", help="The directory with compose.yaml.  [default: stackmend's own stack]")
@click.option("--directory", "home", help="Its directory there.  [default: /opt/PROJECT]")
def create_inventory(
    directory: Path,
    hosts: tuple[str, ...],
    user: str | None,
    key: str | None,
    project: str | None,
    source: str | None,
    home: str | None,
) -> None:
    """Write an inventory of your own.

    DIRECTORY gets the hosts (fleet.py) and what they are to be (group_data/all.py). At a terminal
    it asks for what no option says. It overwrites nothing.
    """
    from stackmend.cli import questions

    for path in questions.create(directory, hosts, user, key, project, source, home):
        click.echo(f"wrote {path}")
    click.echo(f"next: {_name_command()} site {shlex.quote(str(directory))} --dry")


def _name_command() -> str:
    """This command as a shell finds it: by its path where that was needed."""
    called = sys.argv[0]
    needs_path = (
        "/" in called and Path(called).name == "stackmend" and not shutil.which("stackmend")
    )
    return shlex.quote(called) if needs_path else "stackmend"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit with its code.

    :param arguments: the command line without the program's name; by default the process's own.
    """
    _open_closed()
    code = exit_codes.ALL_WELL
    try:
        code = cli.main(
            arguments,
            prog_name="stackmend",
            standalone_mode=False,
            color=False if os.environ.get("NO_COLOR") else None,
        )
        sys.stdout.flush()
    except click.Abort:
        # Ctrl-C at a question, or before a run has begun: later a signal ends the process itself.
        click.echo("Aborted.", err=True)
        code = 128 + signal.SIGINT
    except click.ClickException as error:
        error.show()
        code = exit_codes.WRONG
    except OSError as error:
        _drop_output()
        # Who reads the output may have ended.
        if not isinstance(error, BrokenPipeError):
            click.echo(f"Error: {error.strerror or error}", err=True)
        code = code or exit_codes.WRONG
    sys.exit(code)


def _open_closed() -> None:
    """Have output go nowhere where it is closed: what is opened later must not get its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))


def _drop_output() -> None:
    """Have what could not be written not be written once more at the end of the process."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
