"""An inventory of one's own: answers, each checked before the next, and the files made of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stackmend import get_deploy_directory
from stackmend.compose.spec import ComposeSpec
from stackmend.controller_files import Unreadable, is_there
from stackmend.models import DeclaredServer, find_server
from stackmend.problems import abbreviate
from stackmend.spec import SpecError, check_settings

#: The files of an inventory, and what each is made from.
FILES = {"fleet.py": "fleet.py.jinja", "group_data/all.py": "all.py.jinja"}

DEFAULT_USER = "root"
DEFAULT_PROJECT = "ai"

#: A name as DNS, ``~/.ssh/config`` and /etc/hosts have them, and what a person calls a host.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_PORTS = range(1, 65536)


class WrongAnswer(ValueError):
    """An answer cannot be used; the text is one line that says why, and what could be.

    :param field: the question, as its option is called: ``--host``.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


@dataclass(frozen=True)
class NewHost:
    """A host of the inventory.

    :param name: what it is called.
    :param data: what stands beside its name.
    """

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.name == "@local"


@dataclass(frozen=True)
class Within:
    """A directory beside the inventory, so that both can be moved together.

    :param parents: how far above ``group_data/all.py`` what both lie in is.
    :param path: the directory below that.
    """

    parents: int
    path: str


@dataclass(frozen=True)
class Answers:
    """All that an inventory is made of. Everything in it has been checked, but not together.

    :param hosts: the hosts.
    :param user: who logs in.
    :param key: the private key; empty for pyinfra's own choice.
    :param project: the name of the Compose project.
    :param source: the directory with compose.yaml; ``None`` for the reference stack.
    :param home: the project's directory on the hosts.
    """

    hosts: tuple[NewHost, ...]
    user: str
    key: str
    project: str
    source: Path | None
    home: str

    @cached_property
    def remote(self) -> bool:
        """Whether a host is reached by SSH."""
        return not all(host.local for host in self.hosts)


def parse_hosts(texts: Sequence[str]) -> tuple[NewHost, ...]:
    """The hosts that were entered, each as ``[NAME=]ADDRESS[:PORT]`` or ``@local``.

    :param texts: what was entered; commas part hosts, too.
    :raises WrongAnswer: naming the first that is none, or that is there twice.

    Example:
        >>> parse_hosts(["ai1.example.com,gpu=192.0.2.7:2222"])
    """
    hosts: dict[str, NewHost] = {}
    for entry in (entry.strip() for text in texts for entry in text.split(",")):
        if not entry:
            raise WrongAnswer("--host", "name a host, such as ai1.example.com, or @local")
        host = _parse_host(entry)
        if host.name in hosts:
            raise WrongAnswer("--host", f"{host.name} is there twice; call one NAME=ADDRESS")
        hosts[host.name] = host
    return tuple(hosts.values())


def _parse_host(entry: str) -> NewHost:
    if entry == "@local":
        return NewHost(entry)
    name, named, address = entry.rpartition("=")
    address, port = _split_port(entry, address)
    name = name if named else address
    if not _NAME.fullmatch(name):
        # An IPv6 address is no name of a host that pyinfra takes apart rightly everywhere.
        example = "NAME=[ADDRESS]" if ":" in name else "ai1.example.com"
        raise WrongAnswer("--host", f"{abbreviate(name)} is no name of a host, such as {example}")
    if not _is_address(address):
        raise WrongAnswer("--host", f"{abbreviate(address)} is no name or address of a host")
    data: dict[str, Any] = {"ssh_hostname": address} if name != address else {}
    return NewHost(name, data | ({"ssh_port": port} if port else {}))


def _split_port(entry: str, address: str) -> tuple[str, int]:
    """An address and its port; 0 where none stands there."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", address)
    if bracketed:
        address, port = bracketed[1], bracketed[2]
    elif address.count(":") == 1:
        address, _, port = address.partition(":")
    else:
        return address, 0
    if port is None:
        return address, 0
    if not (port.isascii() and port.isdigit() and int(port[:6]) in _PORTS):
        raise WrongAnswer(
            "--host", f"{abbreviate(entry)}: {abbreviate(port)} is no port; one is 1 to 65535"
        )
    return address, int(port)


def _is_address(address: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(address))
    return bool(_NAME.fullmatch(address))


def check_user(user: str) -> str:
    """The name of a user, as it was entered.

    :raises WrongAnswer: it is none.
    """
    if not _USER.fullmatch(user):
        raise WrongAnswer("--user", f"{abbreviate(user)} is no name of a user, such as root or ops")
    return user


def check_key(key: str) -> str:
    """The path of a private key: absolute, or below a home directory as it was entered.

    :raises WrongAnswer: there is no such file.
    """
    _check("--key", "ssh_key", {"ssh_key": key, "stack": _make_stack()})
    return key if key.startswith("~") else str(Path(key).resolve())


def check_project(project: str) -> str:
    """The name of a Compose project, as it was entered.

    :raises WrongAnswer: it is none.
    """
    _check("--project", "stack.project", {"stack": _make_stack(project=project)})
    return project


def check_source(source: str) -> Path:
    """The directory with compose.yaml, absolute.

    :raises WrongAnswer: it is none, or what it holds cannot be used.
    """
    try:
        path = Path(source).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise WrongAnswer("--source", f"{abbreviate(source)}: {error}") from None
    _check("--source", "stack.source", {"stack": _make_stack(source=str(path))})
    return path


def check_home(directory: str) -> str:
    """The project's directory on the hosts, as it was entered.

    :raises WrongAnswer: it is no place for one.
    """
    _check("--directory", "stack.directory", {"stack": _make_stack(directory=directory)})
    return directory


def _make_stack(**changes: str) -> dict[str, str]:
    """Right settings but for what is to be checked."""
    reference = str(get_deploy_directory() / "stacks" / "ai")
    return {"project": "ai", "source": reference, "directory": "/opt/ai", **changes}


def _check(option: str, path: str, data: Mapping[str, Any]) -> None:
    """Have an answer checked as a run would.

    :raises WrongAnswer: with the first problem.
    """
    try:
        check_settings("", data)
    except SpecError as error:
        first = str(error).splitlines()[0]
        raise WrongAnswer(option, first.removeprefix(f"{path}: ")) from None


def check_absent(directory: Path) -> None:
    """Make sure that no file of an inventory is in a directory yet.

    :raises WrongAnswer: naming the first that is.
    """
    for path in (directory / name for name in FILES):
        try:
            found = is_there(path)
        except Unreadable as error:
            raise WrongAnswer("DIRECTORY", f"{path} {error}") from None
        if found:
            raise WrongAnswer("DIRECTORY", f"{path} is there already, and is never overwritten")


def write(directory: Path, answers: Answers) -> tuple[Path, ...]:
    """Write the files of an inventory; either all of them or none.

    :param directory: where; made if it is missing.
    :param answers: what they are made of.
    :returns: their paths.
    :raises WrongAnswer: the answers do not go together, one of the files is there already, or one
        cannot be written.
    """
    check_absent(directory)
    stack = _make_stack(project=answers.project, directory=answers.home)
    if answers.source is not None:
        stack["source"] = str(answers.source)
    _check("--source", "stack", {"stack": stack})
    contents = dict(render(directory, answers))
    written: list[Path] = []
    try:
        for name, content in contents.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Never over what is there, a dangling link included.
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(content)
    except OSError as error:
        for path in written:
            path.unlink()
        reason = f"cannot write {error.filename}: {error.strerror}"
        raise WrongAnswer("DIRECTORY", reason) from None
    return tuple(written)


def render(directory: Path, answers: Answers) -> Iterator[tuple[str, str]]:
    """The files of an inventory: the path of each below its directory, and what it holds.

    :param directory: where they will lie.
    :param answers: what they are made of.
    """
    environment = Environment(
        # Python, and no HTML: each value is written as Python's own repr.
        autoescape=False,  # noqa: S701
        loader=PackageLoader("stackmend.cli"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["python"] = _format_python
    server = _find_server(answers)
    values = {
        "server": server.service if server else "",
        "models": list(server.models) if server else [],
        "hosts": answers.hosts,
        "local": any(host.local for host in answers.hosts),
        "remote": answers.remote,
        "user": answers.user,
        "sudo": answers.user != DEFAULT_USER,
        "key": answers.key,
        "project": answers.project,
        "source": answers.source and str(answers.source),
        "within": _find_within(directory, answers.source),
        "home": answers.home,
    }
    for name, template in FILES.items():
        yield name, environment.get_template(template).render(values)


def _find_server(answers: Answers) -> DeclaredServer | None:
    """The model server of the project, and the models that its services name."""
    stack = _make_stack(project=answers.project, directory=answers.home)
    if answers.source is not None:
        stack["source"] = str(answers.source)
    return find_server(ComposeSpec.model_validate(stack))


def _find_within(directory: Path, source: Path | None) -> Within | None:
    """How a source is found from the inventory, where it lies in its directory or beside it."""
    if source is None:
        return None
    here = directory.resolve()
    for parents, above in enumerate((here, here.parent), start=1):
        if source != above and source.is_relative_to(above) and above.parent != above:
            return Within(parents, source.relative_to(above).as_posix())
    return None


def _format_python(value: Any) -> str:
    """A value as Python, with double quotes wherever that is the same."""
    if isinstance(value, Mapping):
        items = (f"{_format_python(key)}: {_format_python(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_format_python, value))}]"
    text = repr(value)
    plain = isinstance(value, str) and not {'"', "'", "\\"} & {*text[1:-1]}
    return f'"{text[1:-1]}"' if plain else text
