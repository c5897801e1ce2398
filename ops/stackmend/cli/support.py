"""The support bundle: what helps to explain a run, as one archive without secrets."""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from stackmend.redaction import format_safe_line, redact
from stackmend.reporting import diagnoses

if TYPE_CHECKING:
    from stackmend.diagnosis import HostSupport
    from stackmend.reporting.state import RunRecord

#: Bytes of one file, and of all.
MOST_FILE = 4 * 1024**2
MOST = 32 * 1024**2

#: Packages whose versions tell how a run behaves.
PACKAGES = ("stackmend", "pyinfra", "paramiko", "docker", "pydantic", "gevent", "click")

#: What all of it lies in.
ROOT = "stackmend-support"

_README = """\
What `stackmend doctor --bundle` collected to explain a run, to be attached to an issue.

README.txt                 this
versions.json              of stackmend and what it rests on, on the controller
record.json                the record of the run: docs/reports.md says what it holds
hosts/HOST/diagnosis.txt   what the doctor says of the host
hosts/HOST/versions.json   of the system, the engine and Compose there
hosts/HOST/settings.json   what the inventory says of it; of env the names alone
hosts/HOST/tables.txt      its containers, memory and disks
hosts/HOST/journal.jsonl   the end of its journal of changes
hosts/HOST/logs/*.log      the end of the logs of the stack's containers

Left out, or replaced by *MASKED* or ***: each secret of the inventory in any encoding, the values
of env, and what only looks like a secret. What your own programs write into their logs is known to
you alone: read hosts/*/logs before you hand this on.
"""
_ANONYMOUS = """
Names of hosts and addresses are replaced: host-1, address-1 and so on, the same everywhere.
"""

_NOT_PATH = re.compile(r"[^A-Za-z0-9._-]+")
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{3,39})"
    r"(?![\w:]|\.\d)"
)


class Support:
    """What is collected of a run of the doctor for a bundle.

    :param path: where it is written.
    :param anonymous: whether names and addresses are replaced.
    :ivar written: whether it could be written.
    """

    def __init__(self, path: Path, *, anonymous: bool) -> None:
        self._path = path
        self._anonymous = anonymous
        self._hosts: dict[str, HostSupport] = {}
        self.written = False

    def add(self, host: str, support: HostSupport) -> None:
        """Add what was read of a host.

        :param host: its name.
        :param support: what was read.
        """
        self._hosts[host] = support

    def write(self, record: RunRecord) -> str:
        """Write the bundle, readable by its owner alone; what to say of that, in one line.

        :param record: the run, without secrets.
        """
        try:
            write(self._path, list_files(record, self._hosts, anonymous=self._anonymous), record)
        except OSError as error:
            return f"Error: cannot write {self._path}: {error.strerror or error}"
        self.written = True
        return f"wrote {self._path}: read it before you hand it on"


def list_files(
    record: RunRecord, hosts: dict[str, HostSupport], *, anonymous: bool = False
) -> list[tuple[str, str]]:
    """The files of a bundle, as names and texts, in the order in which they are written.

    :param record: the run, without secrets.
    :param hosts: what was read of each host, by its name.
    :param anonymous: whether names and addresses are replaced.
    """
    hide = _Hider(record, hosts).hide if anonymous else str
    files: list[tuple[str, str]] = [("versions.json", _dump(_find_versions()))]
    files.append(("record.json", record.model_dump_json(indent=1)))
    taken: set[str] = set()
    for name in sorted({*record.hosts, *hosts}):
        directory = f"hosts/{_make_name(hide(name), taken)}"
        diagnosis = record.hosts[name].diagnosis if name in record.hosts else None
        if diagnosis is not None:
            files.append((f"{directory}/diagnosis.txt", diagnoses.format_text(name, diagnosis)))
        if name in hosts:
            files += ((f"{directory}/{file}", text) for file, text in _list_host_files(hosts[name]))
    left: list[str] = []
    room = MOST
    chosen = []
    for file, text in files:
        text = redact(hide(text))
        if len(text.encode(errors="replace")) > min(room, MOST_FILE):
            left.append(f"{file}: too large\n")
            continue
        room -= len(text.encode(errors="replace"))
        chosen.append((file, text if text.endswith("\n") else f"{text}\n"))
    readme = _README + (_ANONYMOUS if anonymous else "")
    if left:
        readme += "\nNot in it:\n" + "".join(left)
    return [("README.txt", readme), *chosen]


def _list_host_files(support: HostSupport) -> Iterator[tuple[str, str]]:
    if support.settings:
        yield "settings.json", support.settings
    if support.problem:
        yield "problem.txt", support.problem
        return
    yield "versions.json", _dump(dict(support.versions))
    yield (
        "tables.txt",
        "\n\n".join("\n".join((f"== {each.name}", *each.lines)) for each in support.tables),
    )
    yield "journal.jsonl", "\n".join(support.journal)
    taken: set[str] = set()
    for log in support.logs:
        yield f"logs/{_make_name(log.name, taken)}.log", "\n".join(log.lines)


def write(path: Path, files: Iterable[tuple[str, str]], record: RunRecord) -> None:
    """Write files as a ``.tar.gz`` that is the same for the same files.

    :param path: the archive; overwritten where it is there.
    :param files: names below the archive's directory, and texts.
    :param record: the run, whose end is the time of all of them.
    :raises OSError: it cannot be written.
    """
    packed = io.BytesIO()
    when = int(record.ended.timestamp())
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=when) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, text in files:
            data = text.encode(errors="replace")
            member = tarfile.TarInfo(f"{ROOT}/{name}")
            member.size, member.mtime, member.mode = len(data), when, 0o600
            tar.addfile(member, io.BytesIO(data))
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        part.unlink()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(packed.getvalue())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _find_versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "system": platform.platform()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _dump(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True)


def _make_name(name: str, taken: set[str]) -> str:
    """A name that is one part of a path, whatever it comes from, and no other's."""
    plain = _NOT_PATH.sub("_", format_safe_line(name)).strip("._")[:80] or "unnamed"
    found, number = plain, 1
    while found.lower() in taken:
        number += 1
        found = f"{plain}-{number}"
    taken.add(found.lower())
    return found


class _Hider:
    """Replaces names of hosts and addresses, each by the same word everywhere."""

    def __init__(self, record: RunRecord, hosts: dict[str, HostSupport]) -> None:
        self._words: dict[str, str] = {}
        for number, name in enumerate(sorted({*record.hosts, *hosts}), 1):
            self._words[name.lower()] = f"host-{number}"
            for other in hosts[name].names if name in hosts else ():
                if not _is_address(other):
                    self._words.setdefault(other.lower(), f"host-{number}")
        self._words.setdefault(record.controller.lower(), "controller")
        words = sorted(filter(None, self._words), key=len, reverse=True)
        self._names = re.compile(
            rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, words))})(?![A-Za-z0-9])", re.I
        )
        self._addresses: dict[str, str] = {}

    def hide(self, text: str) -> str:
        """The text with each of them replaced."""
        text = self._names.sub(lambda match: self._words[match[0].lower()], text)
        return _ADDRESS.sub(self._hide_address, text)

    def _hide_address(self, match: re.Match[str]) -> str:
        text = match[0]
        if not _is_address(text) or _is_local(text):
            return text
        return self._addresses.setdefault(text.lower(), f"address-{len(self._addresses) + 1}")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_local(text: str) -> bool:
    """Whether an address means the same on each machine, and so says nothing of one."""
    address = ip_address(text)
    return address.is_loopback or address.is_unspecified
