"""What is known of a host before first contact."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Contact:
    """What is known of a host before it was ever reached.

    Attributes:
        user: the user who looks after the host; tried first.
        keys: private keys that belong to that user, tried before any others.
        fingerprint: of one of the host's keys, ``SHA256:…``; empty trusts the first one shown.
        known_hosts: the file in which the keys of hosts are recorded; without it
            ``ssh_known_hosts_file`` of the host's data, else ``known_hosts`` beside the inventory.
        wait: seconds that sshd of a host never reached before has to come up.
        password_from: the environment variable that holds root's password; without it the
            terminal is asked.
    """

    user: str
    keys: tuple[Path, ...] = ()
    fingerprint: str = ""
    known_hosts: Path | None = None
    wait: float = 300
    password_from: str = field(default="STACKMEND_ROOT_PASSWORD")
