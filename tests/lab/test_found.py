"""Incidents beyond the runbook, on a real host: each made by hand, and named by the doctor.

A stack is deployed while all is well and then broken, or runs as its files have it; two readings
name all of it, as a person would meet a host with more than one trouble.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.ai import COMMAND
from tests.lab.controller import Controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

#: Each check at once, and none twice: the engine's own state is what is read.
QUICK = {"interval": "1s", "retries": 1, "start_period": "0s", "timeout": "5s"}
BOX: Mapping[str, Any] = {"image": "lab/box:1", "init": True}

#: Services, each with one trouble of its own.
TROUBLED: Mapping[str, Mapping[str, Any]] = {
    "curls": {**BOX, "healthcheck": {"test": ["CMD", "curl-of-none", "http://x"], **QUICK}},
    "sick": {**BOX, "healthcheck": {"test": ["CMD", "false"], **QUICK}},
    "hungry": {
        "image": "lab/box:1",
        "mem_limit": "16m",
        "memswap_limit": "16m",
        "command": ["sh", "-c", "sleep 1; exec tail /dev/zero"],
    },
    "full": {
        **BOX,
        "tmpfs": ["/small:size=1m"],
        "healthcheck": {
            "test": ["CMD-SHELL", "dd if=/dev/zero of=/small/x bs=1M count=3 2>&1"],
            **QUICK,
        },
    },
    "ollama": {
        "image": "lab/model:1",
        "environment": {"OLLAMA_HOST": "0.0.0.0:11434"},
        "ports": ["11434:11434"],
    },
    # It calls itself where another one is meant, and ends for it.
    "queue": {
        "image": "lab/redis:7",
        "command": ["redis-server", "--port", "6390", "--save", ""],
    },
    "lost": {
        "image": "lab/box:1",
        "restart": "always",
        "depends_on": ["queue"],
        "environment": {"REDIS_URL": "redis://localhost:6390"},
        "command": [
            "sh",
            "-c",
            "sleep 1; u=$${REDIS_URL#*//}; nc -w 2 $${u%:*} $${u#*:} </dev/null",
        ],
    },
    # Published nowhere: what it listens on is all that says so.
    "cache": {
        "image": "lab/redis:7",
        "network_mode": "host",
        "command": ["redis-server", "--protected-mode", "no", "--save", ""],
    },
}

#: What has a large page, and answers every other request so.
LIMITED = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = b"x" * 100000 if self.path == "/large" else b""
        self.send_response(200 if page else 429)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
    do_HEAD = do_GET
http.server.ThreadingHTTPServer(("0.0.0.0", 9999), Handler).serve_forever()
"""

#: As where a path carries less than the network card, and says so to nobody.
NARROW = "INPUT -p tcp --sport 9999 -m length --length 900:65535 -j DROP"

#: The clock under the lab is not to be touched: what the host's probes read is. It is an hour late.
LATE = """#!/bin/sh
[ "$*" = +%s ] || exec /bin/date "$@"
echo $(($(/bin/date +%s) - 3600))
"""

#: Somebody has the model leave after each answer.
ASK = {
    "model": "tiny",
    "prompt": "hello",
    "stream": False,
    "keep_alive": 0,
    "options": {"num_predict": 1},
}


@dataclass
class Found:
    """What the doctor found, by incident, with the subjects; and all that it showed.

    + causes: by incident and subject, the incident that explains it; empty for a root cause
    """

    subjects: Mapping[str, tuple[str, ...]]
    causes: Mapping[tuple[str, str], str]
    out: str


def diagnose(shop: Shop) -> Found:
    shop.write()
    env = {"STACKMEND_REPORTS": str(shop.reports), "NO_COLOR": "1"}
    with Controller("doctor", str(shop.inventory()), env=env, program=[COMMAND]) as running:
        done = running.wait(120)
    assert done.rc == 1, done.out
    assert "Traceback" not in done.out, done.out
    findings = shop.report()["diagnosis"]["findings"]
    causes = {
        (each["incident"], subject): each["explained_by"]
        for each in findings
        for subject in each["subjects"]
    }
    subjects: dict[str, tuple[str, ...]] = {}
    for incident, subject in causes:
        subjects[incident] = (*subjects.get(incident, ()), subject)
    return Found(subjects, causes, done.out)


@pytest.fixture(scope="module")
def shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A stack that is well, on a host that all of it is done to."""
    shop = Shop(tmp_path_factory.mktemp("found"), lab.take(1)[0])
    shop.compose = {"services": {"web": dict(BOX)}}
    shop.settings |= {
        "engine": {"channel": "distro"},
        "connectivity": {"endpoints": ["http://172.17.0.1:9999/"], "derived": False},
    }
    shop.host.put("/opt/limited.py", LIMITED)
    return shop


@contextlib.contextmanager
def running(shop: Shop, services: Mapping[str, Any]) -> Iterator[None]:
    """A project that runs as its files have it, without a run of stackmend's."""
    shop.compose = {"services": {name: dict(body) for name, body in services.items()}}
    shop.write()
    for path in sorted(path for path in shop.source.rglob("*") if path.is_file()):
        at = f"{shop.home}/{path.relative_to(shop.source)}"
        shop.host.sh(f"mkdir -p {Path(at).parent}")
        shop.host.put(at, path.read_bytes())
    compose = f"cd {shop.home} && docker compose -p {shop.project}"
    shop.host.sh(f"{compose} up -d --no-build 2>&1", timeout=120)
    try:
        yield
    finally:
        shop.host.sh(f"{compose} down -t 0 2>&1", timeout=120)


def wait_for(host: LabHost, container: str, template: str, expected: str) -> None:
    shown = f"docker inspect -f '{{{{{template}}}}}' shop-{container}-1"
    host.wait_for(f"{shown} | grep -qx {expected}", 60)


@pytest.mark.slow
def test_services_with_a_trouble_each(shop: Shop) -> None:
    host = shop.host
    host.sh("systemd-run -q --collect --unit=limited python3 /opt/limited.py")
    try:
        with running(shop, TROUBLED):
            for name in ("curls", "sick", "full"):
                wait_for(host, name, ".State.Health.Status", "unhealthy")
            wait_for(host, "hungry", ".State.OOMKilled", "true")
            host.wait_for("[ $(docker inspect -f '{{.RestartCount}}' shop-lost-1) -ge 4 ]", 60)
            host.wait_for("ss -ltn | grep -q :6379 && ss -ltn | grep -q :9999", 30)
            generate = "curl -sS -f -m 20 -o /dev/null http://127.0.0.1:11434/api/generate"
            host.wait_for(f"{generate} -d {shlex.quote(json.dumps(ASK))}", 30)
            for _ in range(4):
                host.sh(f"{generate} -d {shlex.quote(json.dumps(ASK))}")
            shop.settings["worker"] = {"accelerated": {"samples": 1}}
            found = diagnose(shop)
    finally:
        shop.settings.pop("worker", None)
        host.sh("systemctl stop limited.service")
    expected = {
        "probe-cannot-run": "curls",
        "unhealthy": "sick",
        "oom-killed": "hungry",
        "disk-full": "full",
        "ollama-exposed": "ollama",
        "redis-exposed": "cache",
        "service-unreachable": "lost.REDIS_URL",
        "restart-loop": "lost",
        "model-reloading": "ollama",
    }
    missed = {
        incident: subject
        for incident, subject in expected.items()
        if subject not in found.subjects.get(incident, ())
    }
    assert not missed, (found.subjects, found.out)
    assert "rate-limited" in found.subjects, found.out
    # What is one service's trouble is not another's.
    assert "sick" not in found.subjects["probe-cannot-run"], found.out
    assert found.causes["service-unreachable", "lost.REDIS_URL"] == "", found.out
    assert found.causes["restart-loop", "lost"] == "service-unreachable", found.out
    assert found.causes["unhealthy", "sick"] == "", found.out


@pytest.mark.slow
def test_troubles_of_the_engine_and_its_network(shop: Shop) -> None:
    """Rules that somebody flushed, servers that moved under a container, and no subnet left.

    And, in a reading of its own, a path that carries no large packets, and a clock that is wrong.
    """
    host = shop.host
    connectivity = dict(shop.settings["connectivity"])
    pools = ("172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8")
    servers = host.sh("cat /etc/resolv.conf")
    with running(shop, {"web": BOX}):
        host.sh("iptables -F; iptables -t nat -F")
        host.sh("printf 'nameserver 192.0.2.7\\n' >/etc/resolv.conf")
        try:
            flushed = diagnose(shop)
            for pool in pools:
                host.sh(f"ip route add {pool} dev docker0 metric 4000")
            shop.compose["networks"] = {"more": {}}
            shop.services["web"] |= {"networks": ["default", "more"]}
            host.sh("systemd-run -q --collect --unit=limited python3 /opt/limited.py")
            host.wait_for("ss -ltn | grep -q :9999", 30)
            host.sh(f"iptables -I {NARROW}")
            host.put("/usr/local/bin/date", LATE, mode="0755")
            shop.settings["connectivity"] |= {
                "endpoints": ["http://172.17.0.1:9999/large"],
                "timeout": 3,
            }
            used = diagnose(shop)
        finally:
            shop.settings["connectivity"] = connectivity
            host.sh("rm -f /usr/local/bin/date; systemctl stop limited.service", check=False)
            host.sh(f"iptables -D {NARROW}", check=False)
            host.sh("; ".join(f"ip route del {pool} dev docker0 metric 4000" for pool in pools))
            host.put("/etc/resolv.conf", servers + "\n")
            host.sh("systemctl restart docker.service")
    assert "packet-filter-lost" in flushed.subjects, flushed.out
    assert "web" in flushed.subjects.get("stale-resolver", ()), flushed.out
    for incident in ("address-pools-used-up", "mtu", "clock-skew"):
        assert incident in used.subjects, used.out
    # None is there but for what was done.
    assert not {"mtu", "clock-skew"} & {*flushed.subjects}, flushed.out
