"""A host of the lab, looked at from outside: as root through its container, never through ssh."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any, Literal, cast
from urllib.parse import urlencode

from tests.lab import addresses
from tests.lab.engine import docker
from tests.lab.inside import inside
from tests.lab.paths import KEY, KNOWN_HOSTS, PREFIX

Kind = Literal["bare", "managed", "names", "trixie"]

KEEPER_PASSWORD = "lab-keeper"
USERS = ("root", "operator", "keeper")

# What sshd is called in the journal: newer ones do their work in programs of other names.
_SSHD = "-t sshd -t sshd-session -t sshd-auth"
# By what name the lab itself writes into the journal.
_FENCE = "lab-fence"
# Engines end an answer with a line break, or do not.
_ASK = "curl -gfsS -w '\\n' --unix-socket /run/docker.sock"


class HostCommandError(Exception):
    """A command inside a host failed. The message holds the command, its status and its output."""


class ObservedHost:
    """One host of the lab: commands and files in it, its engine, its journal.

    + name: its short name, which is its hostname and its name on the lab's network (``managed-1``)
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = cast(Kind, name.rpartition("-")[0])
        self.container = f"{PREFIX}-{name}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 that leads to the host's sshd."""
        # Whatever starts a host writes it there; the client takes a hundred times as long to ask.
        if (known := addresses.port(self.name)) is not None:
            return known
        published = docker("port", self.container, "22/tcp")
        return int(published.splitlines()[0].rpartition(":")[2])

    @property
    def address(self) -> str:
        """The host's address on the lab's network."""
        return docker(
            "inspect",
            "-f",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            self.container,
        )

    def ssh_data(self, user: str = "root") -> dict[str, Any]:
        """What a pyinfra inventory needs to log in as `user` (root, operator or keeper)."""
        data: dict[str, Any] = {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": self.port,
            "ssh_user": user,
            "ssh_key": str(KEY),
            "ssh_known_hosts_file": str(KNOWN_HOSTS),
            "ssh_strict_host_key_checking": "yes",
        }
        if user != "root":
            data["_sudo"] = True
        if user == "keeper":
            data["_sudo_password"] = KEEPER_PASSWORD
        return data

    def ssh_argv(self, user: str = "root") -> list[str]:
        """The start of an ``ssh`` command line to this host; append the remote command."""
        return [
            "ssh",
            "-i",
            str(KEY),
            "-p",
            str(self.port),
            "-o",
            f"UserKnownHostsFile={KNOWN_HOSTS}",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
            f"{user}@127.0.0.1",
        ]

    def run(
        self, command: str, *, stdin: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a bash command as root inside the host; never raises for its exit status."""
        words = ("bash", "-c", command)
        return inside(self.container, *words, stdin=stdin, check=False, timeout=timeout)

    def sh(self, command: str, check: bool = True, *, timeout: float = 60) -> str:
        """Run a bash command as root inside the host and return its stdout, stripped.

        Raises `HostCommandError` when it exits non-zero, unless `check` is False.

        >>> host.sh("systemctl is-active docker")
        'active'
        """
        done = self.run(command, timeout=timeout)
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
            raise HostCommandError(f"{self.name}: {command}: exit {done.returncode}\n{said}")
        return done.stdout.decode(errors="replace").strip()

    def docker(self, *args: str, check: bool = True, timeout: float = 60) -> str:
        """Run the host's own docker client and return its stdout, stripped.

        >>> host.docker("ps", "-q")
        ''
        """
        return self.sh(shlex.join(["docker", *args]), check, timeout=timeout)

    def api(self, *paths: str) -> list[Any]:
        """What the host's engine answers to a GET of each path, from JSON.

        The same as docker's client shows, at a fifth of its price: tests look often.

        >>> host.api("/containers/json?all=1")
        [[]]
        """
        urls = " ".join(shlex.quote(f"http://docker{path}") for path in paths)
        said = self.sh(f"{_ASK} --fail-early {urls}")
        return [json.loads(line) for line in said.splitlines() if line]

    def inspect(self, container: str) -> dict[str, Any]:
        """``docker container inspect`` of one container."""
        found: dict[str, Any] = self.api(f"/containers/{container}/json")[0]
        return found

    def containers(self, project: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """Every container of a compose project (or of all), inspected, by service.

        A container without compose labels is listed under its own name. Ordered by its number.
        """
        label = {"label": [f"com.docker.compose.project={project}"]} if project else {}
        query = urlencode({"all": 1, "filters": json.dumps(label)})
        (listed,) = self.api(f"/containers/json?{query}")
        found: dict[str, list[dict[str, Any]]] = {}
        number = "com.docker.compose.container-number"
        inspected = self.api(*(f"/containers/{one['Id']}/json" for one in listed)) if listed else []
        for entry in sorted(inspected, key=lambda e: int(e["Config"]["Labels"].get(number, "0"))):
            service = entry["Config"]["Labels"].get("com.docker.compose.service", entry["Name"][1:])
            found.setdefault(service, []).append(entry)
        return found

    def identities(self, project: str | None = None) -> dict[str, tuple[str, str, int]]:
        """Container name → (id, start time, restart count): equal before and after = untouched."""
        return {
            entry["Name"][1:]: (entry["Id"], entry["State"]["StartedAt"], entry["RestartCount"])
            for entries in self.containers(project).values()
            for entry in entries
        }

    def now(self) -> str:
        """The host's clock, to the nanosecond, as `events_since` takes it."""
        return self.sh("date +%s.%N")

    def events_since(self, moment: str) -> list[dict[str, Any]]:
        """The engine's events from `moment` (see `now`) until now, without exec and health probes.

        Healthchecks run all the time and say nothing about who acted.
        """
        events = self.api(f"/events?since={moment}&until={self.now()}")
        noise = ("exec_", "health_status")
        return [event for event in events if not str(event["Action"]).startswith(noise)]

    def journal(self, options: str = "") -> str:
        """What journalctl shows, as bare messages, once the journal holds all said until now.

        + options: for journalctl, as a shell takes them: ``-t sudo -n 20``

        journald takes in what it is told one after the other, so a word said now comes last; its
        own ``--sync`` writes only what it has taken in by then.
        """
        quiet = "journalctl -q --no-pager -o cat"
        return self.sh(
            f'word="{_FENCE} $(cat /proc/sys/kernel/random/uuid)"; '
            f'logger -t {_FENCE} "$word"; SECONDS=0; '
            f'until {quiet} -t {_FENCE} -n 5 | grep -q "$word"; do '
            "[ $SECONDS -lt 20 ] || { echo the journal takes nothing in >&2; exit 1; }; done; "
            f"{quiet} {options}"
        )

    def mark(self) -> str:
        """A point in the host's journal, for `sessions_since`."""
        return self.journal(f"-t {_FENCE} -n 1 --show-cursor").rpartition("cursor: ")[2]

    def sessions_since(self, mark: str) -> list[str]:
        """What sshd began since `mark`: one line per channel, such as ``command for root``.

        A login without a channel is no session; a forwarded connection is no session either.
        """
        begun = [line for line in self.sshd_since(mark) if line.startswith("Starting session: ")]
        return [line.removeprefix("Starting session: ").partition(" from ")[0] for line in begun]

    def logins_since(self, mark: str) -> int:
        """How many logins sshd accepted since `mark`."""
        return sum(line.startswith("Accepted publickey for ") for line in self.sshd_since(mark))

    def sshd_since(self, mark: str) -> list[str]:
        """What sshd wrote since `mark`, line by line."""
        # journalctl leaves out the first entry after a cursor that is none of those asked for.
        asked = f"-t {_FENCE} {_SSHD} --after-cursor={shlex.quote(mark)}"
        return [line for line in self.journal(asked).splitlines() if not line.startswith(_FENCE)]

    def put(self, path: str, content: bytes | str, mode: str = "0644") -> None:
        """Write a file inside the host, creating its directory. `content` is written as it is."""
        data = content.encode() if isinstance(content, str) else content
        quoted = shlex.quote(path)
        done = self.run(
            f'mkdir -p -- "$(dirname -- {quoted})" && cat > {quoted} && chmod {mode} {quoted}',
            stdin=data,
        )
        if done.returncode != 0:
            raise HostCommandError(f"{self.name}: {path}: {done.stderr.decode(errors='replace')}")

    def read(self, path: str) -> bytes:
        """The content of a file inside the host."""
        done = self.run(f"cat -- {shlex.quote(path)}")
        if done.returncode != 0:
            raise HostCommandError(f"{self.name}: {path}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def exists(self, path: str) -> bool:
        """Whether a path exists inside the host (a dangling link does)."""
        quoted = shlex.quote(path)
        return self.run(f"[ -e {quoted} ] || [ -L {quoted} ]").returncode == 0

    def snapshot_files(self, *paths: str) -> dict[str, str]:
        """Every file below `paths` → mode, owner, times and content hash: equal = not written to.

        + paths: directories or files; one that is missing adds nothing
        """
        wanted = shlex.join(paths)
        listed = self.sh(
            f"find {wanted} -xdev \\( -type f -o -type l -o -type d \\) "
            "-printf '%p\\t%y %m %u:%g %T@ %l\\n' 2>/dev/null; "
            f"find {wanted} -xdev -type f -exec sha256sum {{}} + 2>/dev/null "
            "| sed 's/^\\([0-9a-f]*\\)  \\(.*\\)$/\\2\\t\\1/'",
            check=False,
        )
        found: dict[str, str] = {}
        for line in listed.splitlines():
            path, _, rest = line.partition("\t")
            found[path] = f"{found.get(path, '')} {rest}".strip()
        return found

    def wait_for(self, condition: str, seconds: float = 60) -> None:
        """Wait inside the host until a bash condition holds; raises `HostCommandError` if not.

        >>> host.wait_for("docker ps -q | grep -q .")
        """
        step = (
            f"SECONDS=0; until {condition}; do [ $SECONDS -lt {int(seconds)} ] || exit 1; "
            "sleep 0.1; done"
        )
        if self.run(step, timeout=seconds + 30).returncode != 0:
            raise HostCommandError(f"{self.name}: not within {seconds} s: {condition}")

    def wait_for_container(self, identity: str, pattern: str, seconds: float = 60) -> None:
        """Wait until what the engine shows of a container, as JSON without spaces, matches.

        + pattern: as ``grep -E`` takes it

        >>> host.wait_for_container("shop-web-1", '"Status":"healthy"')
        """
        shown = f"{_ASK} http://docker/containers/{identity}/json"
        self.wait_for(f"{shown} | grep -qE {shlex.quote(pattern)}", seconds)
