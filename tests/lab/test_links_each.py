"""Seventeen stacks, each with one fault in an address, corrected by one deploy of a user's own.

They stand before, by hand. What a correction is worth is asked from the container, by its own tools
and its own environment. Both hosts have half of them: one run works on two stacks at a time.
"""

from __future__ import annotations

import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.test_links import OF_URL, PAGE, PING

BOX, REDIS = {"image": "lab/box:1"}, {"image": "lab/redis:7"}
GATEWAY = {"extra_hosts": ["host.docker.internal:host-gateway"]}
#: By its name the image says what it runs, and which of its ports speaks HTTP.
CLICKHOUSE = {
    "image": "clickhouse:lab",
    "command": [
        *("sh", "-c"),
        "trap 'exit 0' TERM; nc -ll -p 9000 -e cat & httpd -f -p 8123 -h /www & wait",
    ],
}
PING_URL, PAGE_URL = PING.format(OF_URL.format("URL")), PAGE.format(OF_URL.format("URL"))


class Fault(NamedTuple):
    """One stack: the service ``app`` has a wrong ``URL``.

    :param url: its address.
    :param services: those beside it.
    :param cause: what the report says of it.
    :param remedy: what mends it, where no other address does.
    :param right: what belongs there, where one does.
    :param call: what works in the container once it is mended.
    :param app: what the section of ``app`` holds besides.
    :param more: what the project holds besides.
    :param broken: whether a run fails as long as it is so.
    """

    url: str
    services: dict[str, Any]
    cause: str
    remedy: str = ""
    right: str = ""
    call: str = PING_URL
    app: dict[str, Any] = {}  # noqa: RUF012 (a tuple's, which nobody changes)
    more: dict[str, Any] = {}  # noqa: RUF012
    broken: bool = True


FAULTS: dict[str, Fault] = {
    "loopback": Fault(
        "redis://localhost:6379",
        {"redis": REDIS},
        "localhost:6379 is app itself; redis has port 6379",
        right="redis:6379",
    ),
    "published": Fault(
        "http://page:8080",
        {"page": {**BOX, "ports": ["127.0.0.1:8080:80"]}},
        "8080 is the port of page on the host; in its network it is 80",
        right="page:80",
        call=PAGE_URL,
    ),
    "unknown": Fault(
        "redis://rediss:6379",
        {"redis": REDIS},
        "no service, alias or container of the project is called rediss, and the name does not "
        "resolve in app",
        right="redis:6379",
    ),
    "apart": Fault(
        "redis://redis:6379",
        {"redis": {**REDIS, "networks": ["back"]}},
        "app and redis have no network in common: app is on front, redis is on back",
        "add one network to both app and redis",
        app={"networks": ["front"]},
        more={"networks": {"front": {}, "back": {}}},
    ),
    "gateway": Fault(
        "http://host.docker.internal:9100",
        {},
        "Docker on Linux does not know host.docker.internal without extra_hosts",
        right="host.docker.internal:9100",
        call=PAGE_URL,
    ),
    "local": Fault(
        "http://host.docker.internal:9300",
        {},
        "what listens on port 9300 of the host does so on its loopback alone",
        "have it listen on 0.0.0.0, or on the address of Docker's bridge",
        call=PAGE_URL,
        app=GATEWAY,
    ),
    "filtered": Fault(
        "http://host.docker.internal:9400",
        {},
        "the host's packet filter keeps containers from its port 9400",
        "let the bridge of app reach port 9400 of the host",
        call=PAGE_URL,
        app=GATEWAY,
    ),
    "edge": Fault(
        "http://edge:9200",
        {"edge": {**BOX, "network_mode": "host", "environment": {"PORT": "9200"}}},
        "edge is on the host's network, where no container finds it by name",
        right="host.docker.internal:9200",
        call=PAGE_URL,
    ),
    "port": Fault(
        "redis://redis:6380",
        {"redis": REDIS},
        "nothing in redis listens on port 6380",
        right="redis:6379",
    ),
    "lonely": Fault(
        "redis://redis:6379",
        {"redis": {**REDIS, "command": ["redis-server", "--bind", "127.0.0.1"]}},
        "redis listens on port 6379 of its own loopback alone",
        "have redis listen on 0.0.0.0",
    ),
    "off": Fault(
        "http://page:80",
        {"page": {**BOX, "scale": 0}},
        "page does not run",
        "start page; its log says why it ended",
        call=PAGE_URL,
    ),
    "kind": Fault(
        "http://clickhouse:9000",
        {"clickhouse": CLICKHOUSE},
        "port 9000 of clickhouse speaks clickhouse, and port 8123 http",
        right="clickhouse:8123",
        call=PAGE_URL,
    ),
    "alias": Fault(
        "http://cache:80",
        {
            "first": {**BOX, "networks": {"default": {"aliases": ["cache"]}}},
            "second": {"image": "other:lab", "networks": {"default": {"aliases": ["cache"]}}},
        },
        "first and second both answer to cache; which does is chance",
        "give the alias cache to one of them",
        # It has one address, of one of the two.
        call='[ "$(nslookup cache | grep -c "^Address: ")" = 1 ]',
        broken=False,
    ),
    "proxy": Fault(
        "http://page:80",
        {"page": BOX},
        "app sends what is for page to its proxy, which does not know the name",
        right="page:80",
        # Nothing in the image honours it: see `Stacks.make_call`.
        call="",
        app={"environment": {"HTTP_PROXY": "http://192.0.2.9:3128"}},
        broken=False,
    ),
    "bridge": Fault(
        "redis://redis:6379",
        {"redis": REDIS},
        "app is on Docker's default bridge, where names lead nowhere",
        "remove network_mode from app, or put both on a network of the project",
        app={"network_mode": "bridge"},
    ),
    "linked": Fault(
        "redis://redis:6379",
        {"redis": {**REDIS, "network_mode": "bridge"}},
        "app is on Docker's default bridge, where names lead nowhere; its links call redis store",
        right="store:6379",
        app={"network_mode": "bridge", "links": ["redis:store"]},
    ),
    "shadowed": Fault(
        "redis://redis:6379",
        {"redis": REDIS, "page": BOX},
        "nothing in page listens on port 6379 (it listens on: 80)",
        "correct the port, or have page listen on 6379",
        app={"links": ["page:redis"]},
    ),
}
#: Those whose address is right once the service has something besides.
NEEDING = ("gateway", "proxy")


@dataclass
class Stacks:
    """The stacks of all faults, half of them on each host, and what runs over them left."""

    hosts: list[LabHost]
    directory: Path
    findings: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    done: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    overrides: dict[str, dict[str, bytes]] = field(default_factory=dict)
    calls: dict[str, dict[str, bool]] = field(default_factory=dict)
    containers: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def find_host(self, name: str) -> LabHost:
        """Where a stack stands."""
        return self.hosts[[*FAULTS].index(name) % len(self.hosts)]

    def list_own(self, host: LabHost) -> list[str]:
        """The stacks of one host."""
        return [name for name in FAULTS if self.find_host(name) is host]

    def stand(self, host: LabHost) -> None:
        """Put a host's stacks there and start them, as a person would."""
        host.docker("tag", "lab/box:1", "clickhouse:lab")
        host.docker("tag", "lab/box:1", "other:lab")
        for name, port in (("open", "9100"), ("own", "127.0.0.1:9300"), ("barred", "9400")):
            host.docker(
                *("run", "-d", "--network", "host", "--name", name, "lab/box:1"),
                *("httpd", "-f", "-p", port, "-h", "/www"),
            )
        host.sh("iptables -I INPUT -p tcp --dport 9400 ! -i lo -j DROP")
        commands = []
        for name in self.list_own(host):
            fault = FAULTS[name]
            body: dict[str, Any] = {**BOX, **fault.app}
            body["environment"] = {"URL": fault.url, **body.get("environment", {})}
            project = {"services": {"app": body, **fault.services}, **fault.more}
            content = yaml.safe_dump(project, sort_keys=False)
            (self.directory / name).mkdir()
            (self.directory / name / "compose.yaml").write_text(content)
            host.put(f"/opt/{name}/compose.yaml", content)
            commands.append(f"(cd /opt/{name} && docker compose -p {name} up -d >/dev/null 2>&1) &")
        host.sh("\n".join(commands) + "\nwait", timeout=180)

    def run(self, key: str) -> None:
        """One deploy of a user's own over all of them, with what it finds of their links."""
        deploy = self.directory / "deploy.py"
        deploy.write_text(
            "from pyinfra import host\n"
            "from stackmend import links\n"
            "for number, name in enumerate(host.data.faults):\n"
            "    links.repaired(\n"
            f"        name=f'{{number}}', project=name, source=f'{self.directory}/{{name}}',\n"
            "        directory=f'/opt/{name}', on_conflict='override', stability=0.5,\n"
            "        minimum_free='50MiB', _ignore_errors=True,\n"
            "    )\n"
        )
        inventory = controller.write_inventory(
            self.directory,
            self.hosts,
            per_host={host.name: {"faults": self.list_own(host)} for host in self.hosts},
        )
        reports = self.directory / "reports"
        env = {"STACKMEND_REPORTS": str(reports)}
        done = controller.run(inventory, str(deploy), "-y", env=env, timeout=500)
        # What fails is ignored, so that the stacks behind it have their turn.
        assert done.rc == 0, done.out
        assert "Unexpected error in Python callback" not in done.out, done.out
        record = json.loads((reports / "latest.json").read_text())
        self.findings[key], self.done[key], self.overrides[key] = {}, {}, {}
        for host in self.hosts:
            # In the deploy's own order.
            operations = record["hosts"][host.name]["operations"]
            assert len(operations) == len(self.list_own(host)), done.out
            for name, operation in zip(self.list_own(host), operations, strict=True):
                self.findings[key][name] = operation["findings"]
                self.done[key][name] = operation["done"]
                path = f"/opt/{name}/compose.stackmend.yaml"
                self.overrides[key][name] = host.read(path) if host.exists(path) else b""
        self.keep(key)

    def keep(self, key: str) -> None:
        """Remember what runs, and which calls from the containers succeed."""
        self.containers[key], self.calls[key] = {}, {}
        for host in self.hosts:
            for entry in (entry for each in host.containers().values() for entry in each):
                labels = entry["Config"]["Labels"]
                if project := labels.get("com.docker.compose.project"):
                    of_project = self.containers[key].setdefault(project, {})
                    of_project[labels["com.docker.compose.service"]] = entry
            script = "".join(
                f"({self.make_call(self.containers[key][name], name)} >/dev/null 2>&1; "
                f"echo {name} $?) &\n"
                for name in self.list_own(host)
            )
            lines = host.sh(f"{script}wait", timeout=90).splitlines()
            self.calls[key] |= {name: code == "0" for name, code in map(str.split, lines)}

    @staticmethod
    def make_call(containers: dict[str, dict[str, Any]], name: str) -> str:
        """What calls from a stack's ``app``: its own tools, or the host's where it has none."""
        app = containers["app"]
        if call := FAULTS[name].call:
            return f"docker exec {app['Id']} timeout 5 sh -c {shlex.quote(call)}"
        networks = containers["page"]["NetworkSettings"]["Networks"]
        (address,) = (network["IPAddress"] for network in networks.values())
        own = [item for item in app["Config"]["Env"] if "_PROXY=" in item.upper()]
        # curl takes a proxy for HTTP from the name in small letters alone.
        own += [f"http_proxy={item.partition('=')[2]}" for item in own if item[:5] == "HTTP_"]
        return shlex.join(
            [
                *("nsenter", "-t", str(app["State"]["Pid"]), "-n", "env", *own),
                *("curl", "-sf", "-m", "3", "--resolve", f"page:80:{address}", "http://page/"),
            ]
        )

    def list_changed(self, name: str, before: str, after: str) -> set[str]:
        """The services of a stack whose containers are others, or started again, between two."""
        then, now = (
            {
                service: (entry["Id"], entry["State"]["StartedAt"])
                for service, entry in self.containers[key][name].items()
            }
            for key in (before, after)
        )
        return {service for service in {*then, *now} if then.get(service) != now.get(service)}

    def get_finding(self, key: str, name: str) -> dict[str, Any]:
        """The one finding of a stack's links."""
        (found,) = (f for f in self.findings[key][name] if f["kind"] == "link")
        assert found["subject"] == "app.URL"
        return found


@pytest.fixture(scope="module")
def stacks(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Stacks:
    """All of them: as they stood, once a run has gone over them, and after a second one."""
    made = Stacks(lab.take(2), tmp_path_factory.mktemp("each"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(made.stand, made.hosts))
    made.keep("before")
    made.run("first")
    made.run("second")
    return made


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_with_its_reason_and_what_mends_it(stacks: Stacks, name: str) -> None:
    fault, found = FAULTS[name], stacks.get_finding("first", name)
    assert stacks.calls["before"][name] is False
    assert bool(fault.right) != bool(fault.remedy)
    content = (stacks.directory / name / "compose.yaml").read_text()
    line = 1 + content[: content.index("URL: ")].count("\n")
    assert found["blocks"] == (fault.broken and not fault.right)
    if fault.remedy:
        assert (found["cause"], found["remedy"]) == (fault.cause, fault.remedy)
        expected = rf"compose\.yaml:{line}: URL is {re.escape(fault.url)}(, over network default)?"
        assert re.fullmatch(expected, found["evidence"][0]), found
        return
    assert found["evidence"] == [f"compose.yaml:{line}: {fault.cause}"]
    assert found["remedy"] == (
        f"correct it in compose.yaml:{line}: then compose.stackmend.yaml goes away"
    )
    written = "" if name in NEEDING else f": {split(fault.url)} → {fault.right}"
    assert found["cause"] == f"compose.stackmend.yaml corrects it{written}"


def split(url: str) -> str:
    """The host and the port of an address."""
    return url.partition("://")[2]


@pytest.mark.parametrize("name", FAULTS)
def test_what_an_address_mends_is_mended_and_nothing_else(stacks: Stacks, name: str) -> None:
    fault, host = FAULTS[name], stacks.find_host(name)
    mended = bool(fault.right)
    assert stacks.list_changed(name, "before", "first") == ({"app"} if mended else set())
    assert stacks.calls["first"][name] is mended
    assert host.exists(f"/opt/{name}/compose.stackmend.yaml") is mended
    # The user's own file is as it was.
    content = (stacks.directory / name / "compose.yaml").read_bytes()
    assert host.read(f"/opt/{name}/compose.yaml") == content
    before, after = (
        dict(item.split("=", 1) for item in stacks.containers[key][name]["app"]["Config"]["Env"])
        for key in ("before", "first")
    )
    scheme = fault.url.partition("://")[0]
    assert after["URL"] == (f"{scheme}://{fault.right}" if mended else fault.url)
    # Nothing but what is wrong is another one.
    allowed = {"URL"} | ({"NO_PROXY", "no_proxy"} if name == "proxy" else set())
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} <= allowed


@pytest.mark.parametrize("name", FAULTS)
def test_a_second_run_changes_nothing(stacks: Stacks, name: str) -> None:
    assert stacks.done["second"][name] == []
    assert not stacks.list_changed(name, "first", "second")
    override = stacks.overrides["second"][name]
    assert override == stacks.overrides["first"][name]
    assert bool(override) is bool(FAULTS[name].right)
    assert stacks.get_finding("second", name) == stacks.get_finding("first", name)
    assert stacks.calls["second"] == stacks.calls["first"]
