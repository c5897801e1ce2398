"""Hosts as a provider hands them over, and the controller that comes to them for the first time."""

from __future__ import annotations

import pprint
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.lab import controller
from tests.lab.engine import outer
from tests.lab.hosts import LabHost

#: How one comes into a host at first: root by password, root by key, a user with sudo by key.
Login = Literal["root password", "root key", "sudo user"]

ROOT_PASSWORD = "correct horse"
USER = "ops"


def hand_over(host: LabHost, login: Login, public: str = "") -> None:
    """Leave exactly one way into a host.

    + way: the one that is left
    + public: the public key that it takes, for the two ways that take one
    """
    home = "/root/.ssh" if login == "root key" else "/home/provider/.ssh"
    steps = [
        "pkill -KILL -u operator,keeper || true",
        "userdel -rf operator 2>/dev/null; userdel -rf keeper 2>/dev/null",
        "rm -rf /root/.ssh /etc/sudoers.d/lab",
        "sed -i /PermitRootLogin/d /etc/ssh/sshd_config.d/lab.conf",
    ]
    if login == "root password":
        steps += [
            f"echo {shlex.quote(f'root:{ROOT_PASSWORD}')} | chpasswd",
            "echo 'PermitRootLogin yes' >> /etc/ssh/sshd_config.d/lab.conf",
        ]
    else:
        owner = "root" if login == "root key" else "provider"
        if owner == "provider":
            steps += [
                "useradd --create-home --shell /bin/bash provider",
                "echo 'provider ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/90-provider",
                "chmod 0440 /etc/sudoers.d/90-provider",
                "echo 'PermitRootLogin no' >> /etc/ssh/sshd_config.d/lab.conf",
            ]
        steps += [
            f"install -d -m 0700 -o {owner} {home}",
            f"echo {shlex.quote(public)} > {home}/authorized_keys",
            f"chown {owner} {home}/authorized_keys",
        ]
    # A reload is over before sshd has read its files again: what a test breaks next would be read.
    host.sh("\n".join([*steps, "systemctl restart ssh && systemctl reset-failed ssh"]))


@dataclass(frozen=True)
class Newcomer:
    """A controller that was never at its hosts: its own keys, its own file of known hosts.

    + directory: where its files are
    """

    directory: Path

    @property
    def inventory(self) -> Path:
        return self.directory / "new.py"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def key(self, name: str = "id") -> Path:
        """A private key, made at the first use."""
        path = self.directory / name
        if not path.exists():
            outer("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        return path

    def public(self, name: str = "id") -> str:
        return self.key(name).with_name(f"{name}.pub").read_text().strip()

    def access(self, **more: Any) -> dict[str, Any]:
        """A section ``access`` for the user of these tests."""
        self.key()
        return {"user": USER, "public_keys": [str(self.directory / "id.pub")], "wait": 5, **more}

    def expects(
        self,
        hosts: Sequence[LabHost],
        stack: Mapping[str, Any],
        per_host: Mapping[str, Mapping[str, Any]] | None = None,
        **data: Any,
    ) -> Path:
        """Write the inventory: the hosts' addresses, and nothing else of how they are reached."""
        rows = [
            (
                host.name,
                {
                    "ssh_hostname": "127.0.0.1",
                    "ssh_port": host.port,
                    "ssh_look_for_keys": False,
                    "ssh_allow_agent": False,
                    "stack": dict(stack),
                    **data,
                    **(per_host or {}).get(host.name, {}),
                },
            )
            for host in hosts
        ]
        self.inventory.write_text(f"hosts = {pprint.pformat(rows, sort_dicts=False)}\n")
        return self.inventory

    def run(self, deploy: str, *args: str, **options: Any) -> controller.Run:
        """Run a deploy on the hosts of the inventory."""
        return controller.run(self.inventory, deploy, "-y", *args, **options)

    def logs_in(self, host: LabHost, user: str = USER, key: str = "id", command: str = "id") -> str:
        """Log in by OpenSSH's own client; what the command says, or what ssh complains of."""
        done = subprocess.run(
            [
                "ssh",
                *("-i", str(self.key(key)), "-p", str(host.port), "-F", "none"),
                *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
                *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
                *("-o", "ConnectTimeout=10"),
                f"{user}@127.0.0.1",
                command,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return (done.stdout + done.stderr).strip()
