"""A small real stack to break: its files on the controller, and how a user would run it.

>>> shop = Shop(tmp_path, host)
>>> shop.deploy()
>>> shop.services["web"]["environment"]["GREETING"] = "hello"
>>> with shop.watching() as seen:
...     done = shop.run("-y")
>>> assert done.rc == 0, done.out
>>> assert seen.touched == {"web"}

What it tells of the host comes from raw ``docker`` there, never through the code under test.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.lab import controller
from tests.lab.controller import Controller, Run
from tests.lab.hosts import LabHost
from tests.lab.observed import HostCommandError

#: Quick to come up, and gentle with a machine that carries several hosts: each look at a healthy
#: container costs it a tenth of a second.
HEALTH: Mapping[str, Any] = {
    "interval": "6s",
    "timeout": "10s",
    "retries": 1,
    "start_period": "20s",
    "start_interval": "500ms",
}
#: Where a run may leave something on a host: everything but the engine's data and passing state.
EVERYWHERE = (
    "/etc",
    "/home",
    "/opt",
    "/root",
    "/srv",
    "/tmp",
    "/var/tmp",
    "/var/lib/stackmend",
    "/dev/shm",
    "/usr/local",
)


def compose() -> dict[str, Any]:
    """Three services: redis, a web that needs it, and side, which stands alone."""
    return {
        "services": {
            "redis": {
                "image": "lab/redis:7",
                "restart": "unless-stopped",
                "volumes": ["data:/data"],
                "labels": {"team": "stock"},
                "healthcheck": {"test": ["CMD", "redis-cli", "ping"], **HEALTH},
            },
            "web": {
                "image": "lab/box:1",
                "restart": "unless-stopped",
                "environment": {"GREETING": "good morning", "REDIS_URL": "redis://redis:6379"},
                "env_file": ["web.env"],
                "ports": ["127.0.0.1:8080:80"],
                "volumes": ["./conf/web.conf:/etc/web.conf:ro"],
                "configs": [{"source": "motd", "target": "/etc/motd"}],
                "secrets": ["licence"],
                "depends_on": {"redis": {"condition": "service_healthy"}},
                "healthcheck": {
                    "test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"],
                    **HEALTH,
                },
            },
            "side": {"image": "lab/box:1", "restart": "unless-stopped"},
        },
        "volumes": {"data": {}},
        "configs": {"motd": {"file": "./conf/motd"}},
        "secrets": {"licence": {"file": "./licence.txt"}},
    }


#: Host → the shop that was last proven well there, and how the host looked then.
_converged: dict[str, tuple[object, str]] = {}


def standing(directory: Path, host: LabHost, **settings: Any) -> Shop:
    """The shop, deployed and well: the one that the last test left settled, or a new one.

    + directory: where its files are written, usually ``tmp_path``
    + host: a lab host, not reset
    + settings: as `Shop` takes them

    Deploying takes ten times as long as mending; what is kept is compared to the last detail.
    """
    shop = Shop(directory, host, **{"mend": {"attempts": 100, "backoff": [0]}, **settings})
    shop.write()
    converged = _converged.pop(host.name, None)
    if converged is None or converged != (shop.desired(), _picture(host)):
        host.reset()
        shop.deploy()
        shop.assert_well()
    return shop


class Shop:
    """A Compose project on the controller, its settings, and the host it is for.

    + directory: where its files are written, usually ``tmp_path``
    + host: the lab host
    + user: login on it: root, operator or keeper
    + settings: settings of the stack beside (or instead of) the quick ones of these tests

    ``compose`` is the compose file as plain data; change it and run.
    """

    project = "shop"
    home = "/opt/shop"

    def __init__(self, directory: Path, host: LabHost, user: str = "root", **settings: Any) -> None:
        self.directory, self.host, self.user = directory, host, user
        self.source = directory / self.project
        self.reports = directory / "reports"
        self.compose = compose()
        self.settings: dict[str, Any] = {
            "project": self.project,
            "source": str(self.source),
            "directory": self.home,
            "stability": 1,
            "health_timeout": 30,
            "minimum_free": "100MiB",
            "mend": {"backoff": [0]},
            "report": {"directory": str(self.reports)},
            **settings,
        }
        #: Variables that the inventory gives as ``pydantic.SecretStr``.
        self.secret_env: dict[str, str] = {}
        self.put("web.env", "COLOUR=blue\n")
        self.put("conf/web.conf", "answer = 42\n")
        self.put("conf/motd", "welcome\n")
        self.put("licence.txt", "first-licence\n")

    # Its files

    @property
    def services(self) -> dict[str, Any]:
        """The services of the compose file, to be changed."""
        services: dict[str, Any] = self.compose["services"]
        return services

    def put(self, path: str, content: str | bytes) -> None:
        """Write one of the project's files on the controller."""
        target = self.source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def write(self) -> None:
        """Write compose.yaml as ``compose`` says now."""
        self.put("compose.yaml", yaml.safe_dump(self.compose, sort_keys=False))

    def desired(self) -> object:
        """All that this asks of the host, to compare: its files and variables."""
        files = {
            path.relative_to(self.source).as_posix(): path.read_bytes()
            for path in self.source.rglob("*")
            if path.is_file()
        }
        return files, self.settings.get("env"), dict(self.secret_env), self.user

    def inventory(self) -> Path:
        """Write the inventory as the settings say now, and return its path."""
        path = controller.write_inventory(
            self.directory, [self.host], stack=copy.deepcopy(self.settings), user=self.user
        )
        if self.secret_env:
            with path.open("a") as file:
                file.write("from pydantic import SecretStr\n")
                for name, value in self.secret_env.items():
                    file.write(
                        f'hosts[0][1]["stack"].setdefault("env", {{}})[{name!r}] = '
                        f"SecretStr({value!r})\n"
                    )
        return path

    # Running it

    def run(self, *args: str, timeout: float = 180, cold: bool = False) -> Run:
        """``pyinfra INVENTORY deploy/site.py ARGS...`` with the files as they are now.

        + cold: in a process that imports everything itself, as a user's does
        """
        self.write()
        done = controller.run(
            self.inventory(),
            "deploy/site.py",
            *args,
            timeout=timeout,
            env=self._environment(),
            program=controller.pyinfra_argv() if cold else (),
        )
        # A failure that was expected has the same exit status.
        assert "Unexpected error in Python callback" not in done.out, done.out
        return done

    def start(self, *args: str) -> Controller:
        """The same, under way: to be waited for or killed."""
        self.write()
        return controller.start(self.inventory(), "deploy/site.py", *args, env=self._environment())

    def _environment(self) -> dict[str, str]:
        return {"STACKMEND_REPORTS": str(self.reports)}

    def deploy(self) -> Run:
        """Run it for certain: the host carries the stack after this."""
        done = self.run("-y")
        assert done.rc == 0, done.out
        return done

    def by_hand(self, *words: str) -> str:
        """``docker compose WORDS...`` on the host, in the project's directory there."""
        command = shlex.join(["docker", "compose", "-p", self.project, *words])
        return self.host.sh(f"cd {shlex.quote(self.home)} && {command} 2>&1", timeout=120)

    def put_files(self, directory: str = "") -> None:
        """Put the files on the host as a person would, without running anything."""
        self.write()
        for path in sorted(self.source.rglob("*")):
            if path.is_file():
                relative = path.relative_to(self.source).as_posix()
                self.host.put(f"{directory or self.home}/{relative}", path.read_bytes())

    def assert_converged(self) -> None:
        """Run it once more: nothing is wrong, nothing changes, and the engine sees nothing.

        What stands after this is what `standing` hands to the next test.
        """
        with self.watching() as seen:
            again = self.run("-y")
        assert again.rc == 0, again.out
        assert "No changes" in again.out, again.out
        assert seen.quiet, seen.events
        self.assert_well()
        _converged[self.host.name] = (self.desired(), _picture(self.host))

    def clear(self, *containers: str, files: str = "") -> None:
        """Take containers and files off the host that the test put there; all else converged."""
        if containers:
            self.host.docker("rm", "-f", *containers)
        if files:
            self.host.sh(f"rm -r {shlex.quote(files)}")
        self.assert_converged()

    # Looking at the host, from outside

    def container(self, service: str, number: int = 1) -> dict[str, Any]:
        """One container of a service, as the engine shows it."""
        return self.host.containers(self.project)[service][number - 1]

    def id(self, service: str, number: int = 1) -> str:
        """Its id."""
        identity: str = self.container(service, number)["Id"]
        return identity

    def health(self) -> dict[str, str]:
        """Service → the state of its containers, in one word: healthy, running, exited, …"""
        said = {}
        for service, entries in self.host.containers(self.project).items():
            words = {
                entry["State"].get("Health", {}).get("Status", "none").replace("none", "")
                if entry["State"]["Status"] == "running"
                else entry["State"]["Status"]
                for entry in entries
            }
            said[service] = "+".join(sorted(word or "running" for word in words))
        return said

    def assert_well(self) -> None:
        """Every declared service runs, is healthy, and the network and its names work."""
        desired = {
            name: "healthy" if "healthcheck" in body else "running"
            for name, body in self.services.items()
        }
        assert self.health() == desired
        if {"web", "redis"} <= set(self.services):
            assert self.answers_inside("web", "redis", 6379)

    def answers_inside(self, service: str, address: str, port: int) -> bool:
        """Whether a TCP connection from a service's container to an address succeeds."""
        done = self.host.run(
            f"docker exec {self.id(service)} nc -w 3 {address} {port} </dev/null", timeout=20
        )
        return done.returncode == 0

    def page(self, path: str = "/", port: int = 8080) -> str:
        """What the host gets from the published port."""
        return self.host.sh(f"curl -sS -m 5 http://127.0.0.1:{port}{path}")

    def wait_state(self, service: str, state: str, seconds: float = 40) -> None:
        """Wait until a container is healthy, unhealthy, exited, restarting, …"""
        self.host.wait_for_container(self.id(service), f'"Status":"{state}"', seconds)

    def journal(self) -> list[dict[str, Any]]:
        """What the host's journal of changes holds."""
        path = "/var/lib/stackmend/journal.jsonl"
        if not self.host.exists(path):
            return []
        return [json.loads(line) for line in self.host.read(path).decode().splitlines()]

    def report(self) -> dict[str, Any]:
        """The record of the last run, of this host."""
        record = json.loads((self.reports / "latest.json").read_text())
        host: dict[str, Any] = record["hosts"][self.host.name]
        return host

    @contextlib.contextmanager
    def watching(self) -> Iterator[EngineChanges]:
        """Watch what happens on the engine within the block; read the result after it."""
        before = _containers(self.host)
        moment = self.host.now()
        seen = EngineChanges(self.project)
        yield seen
        seen.events = self.host.events_since(moment)
        seen.before, seen.after = before, _containers(self.host)


@dataclass
class EngineChanges:
    """What the engine shows to have happened, by its events and by its containers."""

    project: str
    events: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    after: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def quiet(self) -> bool:
        """Nothing happened at all."""
        return not self.events and self.before == self.after

    @property
    def touched(self) -> set[str]:
        """The services that anything at all happened to (a container's name where it has none)."""
        changed = {
            entry["service"]
            for identity in {*self.before, *self.after}
            if (was := self.before.get(identity)) != (now := self.after.get(identity))
            and (entry := now or was) is not None
        }
        return changed | {self._service(event) for event in self._on_containers()}

    @property
    def recreated(self) -> set[str]:
        """The services that have other containers than before."""
        then, now = self._ids(self.before), self._ids(self.after)
        return {service for service in {*then, *now} if then.get(service) != now.get(service)}

    def actions(self, service: str) -> list[str]:
        """What was done to the containers of a service, in order, as the engine calls it."""
        return [
            str(event["Action"])
            for event in self._on_containers()
            if self._service(event) == service
        ]

    def kinds(self) -> set[str]:
        """What sort of things had events: container, network, volume, image, …"""
        return {str(event["Type"]) for event in self.events}

    def _on_containers(self) -> list[dict[str, Any]]:
        return [
            event
            for event in self.events
            if event["Type"] == "container"
            or (event["Type"] == "network" and "container" in event["Actor"]["Attributes"])
        ]

    def _service(self, event: Mapping[str, Any]) -> str:
        attributes = event["Actor"]["Attributes"]
        if service := attributes.get("com.docker.compose.service"):
            return str(service)
        identity = attributes.get("container") or event["Actor"]["ID"]
        entry = self.after.get(identity) or self.before.get(identity)
        if entry:
            return str(entry["service"])
        # It came and went in between: its own events still name its service.
        for other in self.events:
            if other["Actor"]["ID"] == identity and other is not event:
                return self._service(other)
        return str(attributes.get("name", identity))

    @staticmethod
    def _ids(containers: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for identity, entry in containers.items():
            found.setdefault(entry["service"], set()).add(identity)
        return found


def _containers(host: LabHost) -> dict[str, dict[str, Any]]:
    """Container id → what must be equal where nothing touched it."""
    return {
        entry["Id"]: {
            "service": service,
            "name": entry["Name"],
            "started": entry["State"]["StartedAt"],
            "restarts": entry["RestartCount"],
            "status": entry["State"]["Status"],
            "host": entry["HostConfig"],
            "networks": {
                name: (endpoint["EndpointID"], sorted(endpoint["Aliases"] or ()))
                for name, endpoint in entry["NetworkSettings"]["Networks"].items()
            },
        }
        for service, entries in host.containers().items()
        for entry in entries
    }


def _picture(host: LabHost) -> str:
    """All of a host that a test of the shop may leave different, as text to compare."""
    engine: dict[str, object] = {}
    # Somebody else's test may have left the engine down.
    with contextlib.suppress(HostCommandError):
        listed, volumes, images = host.api("/networks", "/volumes", "/images/json")
        networks = host.api(*(f"/networks/{one['Id']}" for one in listed))
        engine = {
            "containers": _containers(host),
            "networks": sorted((one["Id"], one["Name"], one["Containers"]) for one in networks),
            "volumes": sorted(one["Name"] for one in volumes["Volumes"] or ()),
            "images": sorted((one["Id"], one["RepoTags"]) for one in images),
        }
    files = host.sh(
        "find /opt /root /etc /usr/local -type f -newer /lab/baseline/done ! -path '*/mtab' "
        "-exec sha256sum {} + | sort; "
        "sha256sum /var/lib/stackmend/shop/applied.json; ss -Hltn | awk '{ print $4 }'",
        check=False,
    )
    return f"{json.dumps(engine, sort_keys=True)}\n{files}"
