"""``stackmend doctor``: hosts, a pasted error, or an incident itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stackmend.cli import exit_codes

if TYPE_CHECKING:
    from stackmend.incidents import Incident

EXIT_CODES = """\b
Exit codes:
  0   healthy: nothing was found
  1   something was found, or a host could not be read
  2   wrong usage or settings
  3   a host cannot be reached
  4   another run at work kept a host from being read
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM"""

#: What :option:`--explain` is without an id.
_ALL = ""


@click.command("doctor", epilog=EXIT_CODES)
@click.argument("inventory", required=False, type=click.Path())
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Name the incident that an error or a log is about; - reads standard input.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Ask for this incident alone, or for what this room tells of; again for more.",
)
@click.option(
    "--explain",
    is_flag=False,
    flag_value=_ALL,
    metavar="[ID]",
    help="Say what an incident is, how it is recognised and what mends it.",
)
@click.option("--list", "lists", is_flag=True, help="List the incidents.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what helps to explain it, without secrets, to a .tar.gz that you can hand on.",
)
@click.option("--anonymous", is_flag=True, help="Replace names and addresses in the bundle.")
@click.option("--limit", multiple=True, metavar="HOST", help="Only this host or group.")
@click.option("--json", "as_json", is_flag=True, help="Print the record, or what else, as JSON.")
@click.option("-v", "verbosity", count=True, help="Show each step; -vv to -vvvv show more.")
def diagnose(
    inventory: str | None,
    text: Path | None,
    only: tuple[str, ...],
    explain: str | None,
    lists: bool,
    bundle: Path | None,
    anonymous: bool,
    limit: tuple[str, ...],
    as_json: bool,
    verbosity: int,
) -> int:
    """Say what is wrong, by name, and why.

    Observes every host of INVENTORY and changes nothing: root causes first, each with its evidence,
    what stackmend would do, and the line of inventory that would allow it.

    With --text, --explain or --list it reaches no host; an INVENTORY then adds your own incidents.
    """
    chosen = [
        name
        for name, value in (("--text", text), ("--explain", explain), ("--list", lists or None))
        if value is not None
    ]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} exclude each other")
    if chosen:
        if limit or verbosity or only or bundle or anonymous:
            raise click.UsageError(
                "--limit, --only, --bundle, --anonymous and -v are for an INVENTORY whose hosts "
                f"are observed, and not for {chosen[0]}"
            )
        if text is not None:
            return _diagnose_text(text, inventory, as_json=as_json)
        return _explain(explain or _ALL, inventory, as_json=as_json)
    if inventory is None:
        raise click.UsageError(
            "name an INVENTORY, a text with --text, or an incident with --explain"
        )
    if anonymous and bundle is None:
        raise click.UsageError("--anonymous is for the --bundle; name one")
    return _observe(
        inventory,
        only=only,
        bundle=bundle,
        anonymous=anonymous,
        limit=limit,
        as_json=as_json,
        verbosity=verbosity,
    )


def _observe(
    inventory: str,
    *,
    only: Sequence[str],
    bundle: Path | None,
    anonymous: bool,
    limit: Sequence[str],
    as_json: bool,
    verbosity: int,
) -> int:
    # Not before: --help and completion answer at once.
    from stackmend.cli.output import JSONOutput, Output
    from stackmend.cli.runs import run_deploy

    support = None
    if bundle is not None:
        from stackmend.cli.support import Support

        support = Support(bundle, anonymous=anonymous)
    kind = JSONOutput if as_json else Output
    code = run_deploy(
        "doctor",
        inventory,
        kind(verbose=verbosity > 0, support=support),
        limit=limit,
        verbosity=verbosity,
        data={"doctor_only": ",".join(only)} if only else {},
    )
    if support is not None and not support.written:
        return code or exit_codes.WRONG
    return code


def _diagnose_text(path: Path, inventory: str | None, *, as_json: bool) -> int:
    # It brings pyinfra along, which has to be the first to be imported.
    import_module("pyinfra_cli")
    from stackmend.cli import pasted
    from stackmend.controller_files import Unreadable

    known = [incident for incident, _ in _list_known(inventory)]
    try:
        found = pasted.diagnose(path, known)
    except Unreadable as error:
        raise click.ClickException(f"--text: {path} {error}") from None
    if as_json:
        click.echo(json.dumps([match.model_dump() for match in found], indent=1))
    else:
        click.echo(pasted.format_matches(found))
    return exit_codes.FAILED if found else exit_codes.ALL_WELL


def _explain(name: str, inventory: str | None, *, as_json: bool) -> int:
    import_module("pyinfra_cli")
    from stackmend.cli import explained
    from stackmend.incidents import explaining, selection

    known = _list_known(inventory)
    incidents = [incident for incident, _ in known]
    explanations = {
        incident.id: explaining.explain(incident, incidents, source) for incident, source in known
    }
    if name == _ALL:
        every = list(explanations.values())
        text = explained.format_list(every)
        data = [
            each.model_dump(mode="json", include={"id", "title", "severity", "source"})
            for each in every
        ]
        click.echo(json.dumps(data, indent=1) if as_json else text)
        return exit_codes.ALL_WELL
    if name not in explanations:
        names = selection.suggest(name, list(explanations))
        raise click.ClickException(f"--explain: no incident is called {names}")
    found = explanations[name]
    click.echo(
        json.dumps(found.model_dump(mode="json"), indent=1)
        if as_json
        else explained.format_explanation(found)
    )
    return exit_codes.ALL_WELL


def _list_known(inventory: str | None) -> list[tuple[Incident, str]]:
    """Each incident, and where it is defined: also those that an inventory's stacks name."""
    from stackmend.incidents import custom, list_incidents

    own: dict[str, tuple[Incident, str]] = {}
    for file in _list_files(inventory) if inventory is not None else ():
        own |= {incident.id: (incident, str(file)) for incident in custom.load([file])}
    return [
        own.get(incident.id, (incident, "stackmend"))
        for incident in list_incidents(incident for incident, _ in own.values())
    ]


def _list_files(inventory: str) -> list[Path]:
    """The files of incidents that an inventory's stacks name, each once; no host is reached."""
    from pyinfra.api import State
    from pyinfra.context import ctx_state
    from pyinfra_cli.exceptions import CliError, WrappedError  # type: ignore[import-untyped]
    from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]

    from stackmend.cli.runs import find_inventory
    from stackmend.spec import SpecError, Stack, parse_machine

    sys.path.append(".")
    # What a file of the inventory is read by.
    ctx_state.set(State())  # type: ignore[no-untyped-call]
    try:
        hosts = make_inventory(find_inventory(inventory), cwd=str(Path.cwd()))
        stacks = [parse_machine(host.data.dict()) for host in hosts]
    except SpecError as error:
        raise click.ClickException(f"wrong settings: {error}") from None
    except (CliError, WrappedError) as error:
        raise click.ClickException(error.message) from None
    except SyntaxError as error:
        raise click.ClickException(f"{error.filename} line {error.lineno}: {error.msg}") from None
    named = [path for each in stacks if isinstance(each, Stack) for path in each.incidents]
    return list(dict.fromkeys(named))
