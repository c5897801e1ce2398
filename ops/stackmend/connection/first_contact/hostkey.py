"""A host's key: pinned, known, trusted the first time, or refused."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from paramiko import HostKeys, MissingHostKeyPolicy, PKey, SSHClient, SSHException
from paramiko.hostkeys import HostKeyEntry

from stackmend.controller_files import Unreadable, is_there, read_text

from .errors import HostKeyRefused

if TYPE_CHECKING:
    from .target import Target

#: The kinds of key that a host may have, in the order in which they are asked for.
KINDS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)


class Unmatched(HostKeyRefused):
    """The key shown has not the fingerprint given; another of the host's keys may have it."""

    def __init__(self, name: str, fingerprint: str) -> None:
        super().__init__(name)
        self._name = name
        self._fingerprint = fingerprint

    def format_message(self, offered: dict[str, str]) -> str:
        """The whole message.

        :param offered: kind → fingerprint of every key that the host has shown.
        """
        listed = ", ".join(f"{mark} ({kind})" for kind, mark in offered.items())
        return (
            f"wrong host key: {self._name} shows {listed}, and not the fingerprint given, "
            f"{self._fingerprint}; nothing was sent to it; remedy: read the fingerprint on the "
            "machine's own console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and correct "
            'stack["access"]["fingerprint"], or find out who answers at this address'
        )


class KnownHosts(MissingHostKeyPolicy):
    """What is recorded of one host's keys, and the check of the key that it shows.

    :param file: the file with the records; made where the first key is trusted.
    :param name: the host's name in it.
    :param fingerprint: of one of the host's keys, or empty.
    :param strict: whether a key is refused that is neither recorded nor has the fingerprint.
    :param warn: shows a line to the user.
    :param prefer: the kinds of key to ask for first.
    :param offered: kind → fingerprint of every key shown.
    """

    def __init__(
        self, file: Path, name: str, *, fingerprint: str, strict: bool, warn: Callable[[str], None]
    ) -> None:
        self._file = file
        self._name = name
        self._fingerprint = fingerprint
        self._strict = strict
        self._warn = warn
        self._recorded = _read_recorded(file, name)
        self.prefer: list[str] = list(self._recorded)
        self.offered: dict[str, str] = {}

    @property
    def new(self) -> bool:
        """Whether nothing is recorded of the host."""
        return not self._recorded

    def missing_host_key(self, client: SSHClient | None, hostname: str, key: PKey) -> None:
        """Checks the key; called by paramiko after the key exchange, before authentication.

        :raises HostKeyRefused: the key is not to be trusted.
        """
        kind, mark = key.get_name(), key.fingerprint
        self.offered[kind] = mark
        recorded = self._recorded.get(kind)
        if recorded is not None and recorded != key:
            raise HostKeyRefused(
                self._describe_change(f"{recorded.fingerprint} ({kind})", kind, mark)
            )
        if self._fingerprint:
            if mark != self._fingerprint:
                raise Unmatched(self._name, self._fingerprint)
        elif recorded is None and self._recorded:
            known = ", ".join(f"{key.fingerprint} ({kind})" for kind, key in self._recorded.items())
            raise HostKeyRefused(self._describe_change(known, kind, mark))
        elif recorded is None and self._strict:
            raise HostKeyRefused(
                f"unknown host key: {self._name} shows {mark} ({kind}), of which {self._file} "
                "holds nothing, and ssh_strict_host_key_checking is yes; remedy: compare it with "
                'the machine\'s own console and give it as stack["access"]["fingerprint"]'
            )
        if recorded is None:
            self._record(key)

    def _record(self, key: PKey) -> None:
        how = "as given" if self._fingerprint else "trusted as the first one shown"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        line = HostKeyEntry([self._name], key).to_line() or ""
        # One write of one line: other hosts of the run record theirs at the same time.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        with contextlib.closing(os.fdopen(descriptor, "wb", buffering=0)) as file:
            file.write(line.encode())
        self._recorded[key.get_name()] = key
        self.prefer.insert(0, key.get_name())
        self._warn(
            f"host key {key.fingerprint} ({key.get_name()}) of {self._name}: {how}, recorded in "
            f"{self._file}"
        )

    def _describe_change(self, recorded: str, kind: str, mark: str) -> str:
        remove = f"ssh-keygen -f {self._file} -R '{self._name}'"
        return (
            f"changed host key: {self._name} shows {mark} ({kind}), {self._file} holds {recorded}; "
            "someone else may be answering, and nothing was sent; remedy, if the machine was "
            f"reinstalled: compare the fingerprint on its own console, then {remove}"
        )


def find_offered_key(target: Target, known: KnownHosts) -> PKey | None:
    """Asks a host for each kind of key until one has the fingerprint; authenticates nothing.

    :param target: where the host is.
    :param known: checks the key; from then on it prefers the kind that was found.
    """
    from ..link import make_transport

    for kind in KINDS:
        if kind in known.offered:
            continue
        transport = make_transport(target.dial())
        try:
            security = transport.get_security_options()
            security.key_types = [
                algorithm
                for algorithm in security.key_types
                if algorithm == kind or (_is_rsa(algorithm) and _is_rsa(kind))
            ]
            transport.start_client(timeout=target.timeout)
            key = transport.get_remote_server_key()
            known.missing_host_key(None, target.key_name, key)
        except Unmatched:
            continue
        except HostKeyRefused:
            raise
        except (SSHException, EOFError, OSError):
            continue  # The host has no key of this kind.
        else:
            return key
        finally:
            transport.close()
    return None


def _is_rsa(kind: str) -> bool:
    return kind == "ssh-rsa" or kind.startswith("rsa-sha2-")


def _read_recorded(file: Path, name: str) -> dict[str, PKey]:
    keys = HostKeys()
    try:
        lines = read_text(file).splitlines() if is_there(file) else []
    except Unreadable as error:
        raise OSError(f"{file} {error}") from None
    for number, line in enumerate(map(str.strip, lines), start=1):
        # paramiko knows no authorities, and takes their lines for broken ones.
        if not line or line.startswith(("#", "@cert-authority")):
            continue
        try:
            entry = HostKeyEntry.from_line(line, number)
        except Exception:
            # Passed over, it would make a host unknown whose key was recorded, and trust any.
            raise OSError(
                f"{file} line {number} is not a host's key; correct or remove it"
            ) from None
        if entry is None or entry.key is None:
            continue
        kind = entry.key.get_name()
        for hostname in entry.hostnames or ():
            if kind not in (keys.lookup(hostname) or {}):
                keys.add(hostname, kind, entry.key)
    found = keys.lookup(name)
    return {kind: found[kind] for kind in found} if found else {}
