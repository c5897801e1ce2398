"""What ``stackmend init`` asks: an option's value, a person's answer, or what is right for most."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from stackmend.cli import new_inventory
from stackmend.cli.new_inventory import (
    DEFAULT_PROJECT,
    DEFAULT_USER,
    Answers,
    WrongAnswer,
    check_home,
    check_key,
    check_project,
    check_source,
    check_user,
    parse_hosts,
)

T = TypeVar("T")


def create(
    directory: Path,
    hosts: Sequence[str],
    user: str | None,
    key: str | None,
    project: str | None,
    source: str | None,
    home: str | None,
) -> tuple[Path, ...]:
    """Write an inventory; what is ``None`` or empty is asked for at a terminal.

    :param directory: where.
    :param hosts: as of :func:`~stackmend.cli.new_inventory.parse_hosts`.
    :param user: who logs in.
    :param key: the private key.
    :param project: the name of the Compose project.
    :param source: the directory with compose.yaml.
    :param home: the project's directory on the hosts.
    :returns: the files.
    :raises click.ClickException: an option is wrong, or one is missing and nobody can be asked.
    """
    try:
        new_inventory.check_absent(directory)
        # All that is wrong about the options is said before the first question.
        named = parse_hosts(hosts) if hosts else None
        login = None if user is None else check_user(user)
        identity = None if key is None else check_key(key)
        name = None if project is None else check_project(project)
        files = None if source is None else check_source(source)
        place = None if home is None else check_home(home)
        if named is None:
            named = _ask("Hosts (ai1.example.com, NAME=ADDRESS:PORT, @local)", _parse_entry)
        remote = any(not host.local for host in named)
        if login is None:
            login = _ask("User who logs in", check_user, DEFAULT_USER) if remote else DEFAULT_USER
        if identity is None:
            identity = _ask_for_key() if remote else ""
        if name is None:
            name = _ask("Name of the Compose project", check_project, DEFAULT_PROJECT)
        if source is None:
            files = _ask(
                "Directory with compose.yaml (empty: the stack that comes with stackmend)",
                lambda text: check_source(text) if text else None,
                "",
            )
        if place is None:
            place = _ask("Directory on the hosts", check_home, f"/opt/{name}")
        answers = Answers(named, login, identity, name, files, place)
        return new_inventory.write(directory, answers)
    except WrongAnswer as error:
        raise click.ClickException(f"{error.field}: {error}") from None


def _ask_for_key() -> str:
    return _ask(
        "Private key file (empty: what ssh-agent and ~/.ssh have)",
        lambda text: check_key(text) if text else "",
        "",
    )


def _parse_entry(text: str) -> tuple[new_inventory.NewHost, ...]:
    return parse_hosts([text])


def _ask(question: str, check: Callable[[str], T], default: str | None = None) -> T:
    """The checked answer of a person; the default where there is nobody to ask."""
    if not is_interactive():
        if default is None:
            raise WrongAnswer("--host", "name a host, such as ai1.example.com, or @local")
        return check(default)

    def convert(text: str) -> T:
        try:
            return check(text)
        except WrongAnswer as error:
            # click shows it, and asks again.
            raise click.UsageError(str(error)) from None

    answer: T = click.prompt(
        question, default=default, show_default=bool(default), value_proc=convert
    )
    return answer


def is_interactive() -> bool:
    """Whether a person can be asked."""
    # Where it is closed there is none.
    return sys.stdin is not None and sys.stdin.isatty()
