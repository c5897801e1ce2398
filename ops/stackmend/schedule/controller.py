"""This machine's side of a timer: what is run, by whom, and how a host is known for this one."""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel
from pyinfra.connectors.local import LocalConnector

from stackmend import invocation, reporting
from stackmend.problems import show
from stackmend.schedule import wheels
from stackmend.schedule.facts import HOME
from stackmend.schedule.spec import TimerSpec
from stackmend.schedule.units import Job

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Where others than the user may put files, and what a confined run sees none of.
_SHARED = ("/tmp", "/var/tmp")  # noqa: S108 - named, and not written to

#: Sections that change nothing of the machine that they are about.
_HARMLESS = frozenset({"schedule", "reconcile", "report"})


class Token(NamedTuple):
    """A file of this machine, and what it holds: a host that can read it is this machine."""

    path: str
    secret: str


_tokens: list[Token] = []


def get_token() -> Token:
    """The token of this process, made when it is first asked for and removed at its end."""
    if not _tokens:
        secret = secrets.token_hex(24)
        handle, path = tempfile.mkstemp(prefix="stackmend-")
        with os.fdopen(handle, "w") as file:
            file.write(secret)
        atexit.register(Path(path).unlink, missing_ok=True)
        _tokens.append(Token(path, secret))
    return _tokens[0]


def make_host_job(spec: TimerSpec) -> Job:
    """What a host runs that mends itself.

    :param spec: when it is run.
    """
    current = f"{HOME}/{spec.unit}/current"
    return Job(
        command=(f"{current}/venv/bin/stackmend", "reconcile", f"{current}/inventory.py"),
        directory="/",
        lock=f"{HOME}/{spec.unit}/lock",
        unchanged=f"{current}/unchanged.sh" if spec.full_every else "",
    )


def make_fleet_job(host: Host, spec: TimerSpec) -> tuple[Job, tuple[str, str] | None]:
    """What this machine runs for its fleet, and why it cannot be run, with what would allow it.

    :param host: the host that stands for this machine.
    :param spec: when it is run.
    """
    inventory = spec.inventory or invocation.find_inventory(host.state)
    directory = Path(host.state.cwd or ".").absolute()
    program = Path(sys.executable).parent / "stackmend"
    user = spec.user or pwd.getpwuid(os.geteuid()).pw_name
    path = directory / Path(str(inventory)).expanduser() if inventory else None
    reports = reporting.find_report_directory(host.state).absolute()
    writable = (
        str(reports),
        *((str(wheels.find_cache(user)),) if _has_copies(host) else ()),
        *_list_metrics(host, directory),
    )
    job = Job(
        command=(str(program), "reconcile", str(path or "")),
        directory=str(directory),
        lock=str(reports / f".{spec.unit}.lock"),
        user=user,
        writable=tuple(dict.fromkeys(writable)),
        environment={"STACKMEND_REPORTS": str(reports)},
        confined=not any(map(_is_mended_here, host.state.inventory)),
        private_tmp=not any(
            Path(each).resolve().is_relative_to(shared)
            for each in (program, path or "/", directory, sys.prefix, *writable)
            for shared in _SHARED
        ),
        purpose=f"stackmend keeps the hosts of {path} as their settings say",
    )
    problem = None
    if path is None:
        problem = (
            "the inventory of this run is no file of this machine",
            'add "inventory": "/path/to/fleet.py" to the stack\'s "schedule" section',
        )
    elif not path.is_file():
        problem = (
            f"there is no inventory {show(str(path))}",
            'correct "inventory" in the stack\'s "schedule" section',
        )
    elif not program.is_file():
        problem = (
            f"there is no program {program}",
            "install stackmend into the environment that this run uses",
        )
    elif not _is_user(user):
        problem = (
            f"this machine has no user {user}",
            'correct "user" in the stack\'s "schedule" section',
        )
    elif any(
        not text.isprintable() for text in (str(path), str(directory), *job.command, *writable)
    ):
        problem = ("a path of it holds a control character", "move it elsewhere")
    return job, problem


def make_directories(job: Job) -> None:
    """Make the directories of the records and of the wheels: a confined run may make none.

    :param job: what this machine runs.
    """
    for path in job.writable[:2]:
        with suppress(OSError):
            _make_directory(Path(path), pwd.getpwnam(job.user))


def _make_directory(path: Path, owner: pwd.struct_passwd) -> None:
    """Make a directory, and what it lies in; what is made is the owner's."""
    if path.is_dir():
        return
    _make_directory(path.parent, owner)
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _is_mended_here(host: Host) -> bool:
    """Whether runs change this machine by the settings of a host."""
    if not issubclass(host.connector_cls, LocalConnector):
        return False
    raw = host.data.dict().get("stack")  # type: ignore[no-untyped-call]
    if isinstance(raw, BaseModel):
        return bool(raw.model_fields_set - _HARMLESS)
    return isinstance(raw, Mapping) and bool({*map(str, raw)} - _HARMLESS)


def _has_copies(host: Host) -> bool:
    """Whether this run renews what hosts mend themselves with."""
    for each in host.state.inventory:
        raw: Any = each.data.dict().get("stack")  # type: ignore[no-untyped-call]
        section = _get(raw, "schedule")
        if _get(section, "mode") == "host" and _get(section, "present") is not False:
            return True
    return False


def _get(value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(field)
    return getattr(value, field, None)


def _list_metrics(host: Host, directory: Path) -> Iterator[str]:
    for each in host.state.inventory:
        raw: Any = each.data.dict().get("stack")  # type: ignore[no-untyped-call]
        chosen = _get(_get(raw, "report"), "metrics")
        if isinstance(chosen, str | Path):
            yield str((directory / Path(chosen).expanduser()).parent)
