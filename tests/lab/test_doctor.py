"""``deploy/doctor.py`` on a real host: the incidents of the runbook by name, nothing changed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.example_incident import EXAMPLE
from tests.lab import controller, gpus
from tests.lab.controller import Run
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.model_registry import ModelRegistry, Pushed
from tests.lab.models_runs import push
from tests.lab.newcomer import Newcomer, hand_over
from tests.lab.stacks import HEALTH, Shop
from tests.lab.untouched import untouched

#: A server outside of the stack that answers, on an address that containers reach as well.
PAGE = "python3 -m http.server --bind 0.0.0.0 9999 --directory /srv"
MUTE = (
    "import socket; server = socket.create_server((str(), 9999))\n"
    "while True: server.accept()[0].close()"
)


@pytest.fixture(scope="module")
def model(model_registry: ModelRegistry) -> Pushed:
    """The model that the stack is to have."""
    return push(model_registry, "team/first:1b", 1_500_000, seed=1)


@pytest.fixture(scope="module")
def shop(lab: Lab, model: Pushed, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A stack with every section that tells of an incident, deployed and well."""
    host = lab.take(1)[0]
    shop = Shop(tmp_path_factory.mktemp("doctor"), host)
    shop.compose = {
        "services": {
            "redis": {
                "image": "lab/redis:7",
                "restart": "unless-stopped",
                "healthcheck": {"test": ["CMD", "redis-cli", "ping"], **HEALTH},
            },
            "web": {
                "image": "lab/box:1",
                "restart": "unless-stopped",
                "environment": {"REDIS_URL": "redis://redis:6379"},
                "ports": ["127.0.0.1:8080:80"],
            },
            "ollama": {
                "image": "lab/model:1",
                "restart": "unless-stopped",
                "volumes": ["models:/root/.ollama"],
                "healthcheck": {"test": ["CMD", "ollama", "list"], **HEALTH},
            },
        },
        "volumes": {"models": {}},
    }
    shop.settings |= {
        "ports": {},
        "models": {"wanted": [model.name], "insecure": True, "minimum_free": 0},
        "connectivity": {"endpoints": ["http://172.17.0.1:9999/"], "derived": False},
        "worker": {"accelerated": {"samples": 1}},
        "checks": [
            {"kind": "redis", "service": "redis", "address": "redis:6379", "inside": "web"},
        ],
    }
    serve(shop, PAGE)
    shop.deploy()
    return shop


def serve(shop: Shop, command: str) -> None:
    """Have something listen on port 9999 of the host."""
    shop.host.sh("systemctl stop outside.service 2>/dev/null || true")
    shop.host.sh(f"systemd-run -q --collect --unit=outside {command}")
    shop.host.wait_for("ss -ltn | grep -q :9999")


def doctor(shop: Shop, *args: str) -> Run:
    return controller.run(
        shop.inventory(),
        "deploy/doctor.py",
        *(args or ("-y",)),
        env={"STACKMEND_REPORTS": str(shop.reports)},
    )


def diagnose(shop: Shop) -> tuple[dict[str, Any], Run]:
    """What the doctor records of the host, and its run, which must not have failed."""
    run = doctor(shop)
    assert run.rc == 0, run.out
    found: dict[str, Any] = shop.report()["diagnosis"]
    return found, run


def cut_out(shop: Shop, run: Run) -> list[str]:
    """What the doctor shows of the host."""
    lines = run.out.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"{shop.host.name}: "))
    end = next(at for at, line in enumerate(lines) if line.startswith("--> stackmend: "))
    return lines[start:end]


def list_roots(diagnosis: Mapping[str, Any]) -> list[str]:
    return [each["incident"] for each in diagnosis["findings"] if not each["explained_by"]]


def list_found(diagnosis: Mapping[str, Any]) -> list[str]:
    return [each["incident"] for each in diagnosis["findings"]]


# The five, each with what brings the host back.


@contextlib.contextmanager
def unaccelerated(shop: Shop) -> Iterator[None]:
    with gpus.bus(shop.host) as bus:
        bus.nvidia()
        yield


@contextlib.contextmanager
def disconnected(shop: Shop) -> Iterator[None]:
    shop.host.docker("network", "disconnect", "shop_default", "shop-web-1")
    yield
    shop.host.docker("network", "connect", "--alias", "web", "shop_default", "shop-web-1")


@contextlib.contextmanager
def port_taken(shop: Shop) -> Iterator[None]:
    shop.host.docker("stop", "-t", "1", "shop-web-1")
    shop.host.sh("systemd-run -q --collect --unit=squatter python3 -m http.server 8080")
    shop.host.wait_for("ss -ltn | grep -q :8080")
    try:
        yield
    finally:
        shop.host.sh("systemctl stop squatter.service")
        shop.host.docker("start", "shop-web-1")


@contextlib.contextmanager
def model_missing(shop: Shop) -> Iterator[None]:
    (name,) = shop.settings["models"]["wanted"]
    ollama = ("exec", "shop-ollama-1", "ollama")
    shop.host.docker(*ollama, "cp", name, "kept")
    shop.host.docker(*ollama, "rm", name)
    yield
    shop.host.docker(*ollama, "cp", "kept", name)
    shop.host.docker(*ollama, "rm", "kept")


@contextlib.contextmanager
def cut_off(shop: Shop) -> Iterator[None]:
    serve(shop, f"python3 -c '{MUTE}'")
    yield
    serve(shop, PAGE)


Injection = Callable[[Shop], AbstractContextManager[None]]

RUNBOOK: dict[str, Injection] = {
    "worker-unaccelerated": unaccelerated,
    "service-unreachable": disconnected,
    "port-taken": port_taken,
    "model-missing": model_missing,
    "network-outside": cut_off,
}


def test_a_healthy_host_has_no_finding_and_is_not_touched(shop: Shop) -> None:
    host = shop.host
    before, moment = host.identities(), host.now()
    files = host.snapshot_files("/etc", "/var/lib/stackmend", shop.home)
    journal = shop.journal()
    with untouched(host):
        for _ in range(3):
            diagnosis, run = diagnose(shop)
            assert diagnosis["findings"] == [], run.out
            assert {check["status"] for check in diagnosis["checks"]} == {"ok"}, run.out
            assert f"{host.name}: healthy" in run.out
            assert shop.report()["outcome"] == "converged"
        dry = doctor(shop, "--dry")
    assert dry.rc == 0, dry.out
    assert f"{host.name}: healthy" in dry.out
    assert host.snapshot_files("/etc", "/var/lib/stackmend", shop.home) == files
    assert host.identities() == before
    assert host.events_since(moment) == []
    assert shop.journal() == journal


@pytest.mark.parametrize("incident", RUNBOOK)
def test_each_incident_of_the_runbook_is_found_by_name(shop: Shop, incident: str) -> None:
    with RUNBOOK[incident](shop):
        before = shop.host.identities()
        diagnosis, run = diagnose(shop)
        assert shop.host.identities() == before
    assert list_roots(diagnosis)[:1] == [incident], run.out
    found = diagnosis["findings"][0]
    assert found["evidence"], run.out
    assert found["remedy"], run.out
    lines = cut_out(shop, run)
    assert any(incident in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert not any("\x1b" in line for line in lines)


def test_a_wrong_address_that_only_the_host_has_is_named_with_what_is_right(shop: Shop) -> None:
    """Somebody edited the files there and had Compose take them; the project's own are right."""
    host, file = shop.host, f"{shop.home}/compose.yaml"
    before = host.read(file)
    up = f"cd {shop.home} && docker compose -p {shop.project} up -d --no-build 2>&1"
    host.sh(f"sed -i 's,redis://redis,redis://localhost,' {file} && {up}", timeout=120)
    containers = host.identities()
    try:
        diagnosis, run = diagnose(shop)
        assert host.identities() == containers
    finally:
        host.put(file, before)
        mended = shop.run("-y")
    (found,) = (each for each in diagnosis["findings"] if each["incident"])
    assert (found["incident"], found["explained_by"]) == ("service-unreachable", ""), run.out
    assert found["subjects"] == ["web.REDIS_URL"], run.out
    lines = [each["line"] for each in found["evidence"]]
    assert lines[0] == (
        "web.REDIS_URL: address: localhost:6379 is web itself; redis has port 6379"
    ), lines
    running = "running container shop-web-1: REDIS_URL is redis://localhost:6379; right: redis:6379"
    assert running in lines, lines
    assert any("redis at localhost:6379 from inside web: connection refused" in x for x in lines)
    assert found["remedy"].startswith("run `stackmend site`: it recreates web from compose.yaml:")
    assert any("recreate" in step and "web" in step for step in found["steps"]), run.out
    # What the remedy says is what a run does.
    assert mended.rc == 0, mended.out
    assert "REDIS_URL=redis://redis:6379" in shop.container("web")["Config"]["Env"]
    diagnosis, run = diagnose(shop)
    assert diagnosis["findings"] == [], run.out


def test_what_alone_is_asked_for_is_all_that_counts(shop: Shop) -> None:
    with port_taken(shop):
        for names, outcome, found in (
            ("port-taken,mtu", "drifted", ["port-taken"]),
            ("models", "converged", []),
        ):
            run = doctor(shop, "-y", "--data", f"doctor_only={names}")
            assert run.rc == 0, run.out
            diagnosis = shop.report()["diagnosis"]
            assert list_found(diagnosis) == found, run.out
            assert diagnosis["only"] == names.split(",")
            assert shop.report()["outcome"] == outcome, run.out


def test_all_at_once_are_all_found_root_causes_first(shop: Shop) -> None:
    with contextlib.ExitStack() as stack:
        for inject in RUNBOOK.values():
            if inject is not disconnected:
                stack.enter_context(inject(shop))
        stack.enter_context(redis_stopped(shop))
        diagnosis, run = diagnose(shop)
    assert {*RUNBOOK} <= {*list_found(diagnosis)}, run.out
    explained = [bool(each["explained_by"]) for each in diagnosis["findings"] if each["incident"]]
    assert not explained[0], run.out
    for each in diagnosis["findings"]:
        if each["explained_by"]:
            names = list_found(diagnosis)
            assert names.index(each["explained_by"]) < names.index(each["incident"]), run.out


@contextlib.contextmanager
def redis_stopped(shop: Shop) -> Iterator[None]:
    shop.host.docker("stop", "-t", "1", "shop-redis-1")
    yield
    shop.host.docker("start", "shop-redis-1")


RAISING = """
from stackmend.incidents import Incident


class Raising(Incident):
    def find(self, observations):
        raise RuntimeError("out of order")


class Endless(Incident):
    def find(self, observations):
        while True:
            pass


INCIDENTS = [
    kind(id=kind.__name__.lower(), title="Ours", severity="warning", remedy="mend it", proof="none")
    for kind in (Raising, Endless)
]
"""


def test_an_incident_of_ones_own_is_found_and_one_that_raises_or_never_ends_hides_no_other(
    shop: Shop, tmp_path: Path
) -> None:
    files = {"raising.py": RAISING, "own.py": EXAMPLE}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    shop.settings["incidents"] = [str(tmp_path / name) for name in files]
    shop.host.sh("docker exec shop-web-1 sh -c 'echo gateway: upstream timed out >/proc/1/fd/1'")
    try:
        diagnosis, run = diagnose(shop)
    finally:
        del shop.settings["incidents"]
    assert list_found(diagnosis) == ["no-memory-limit", "upstream-slow"], run.out
    unlimited, slow = diagnosis["findings"]
    assert sorted(unlimited["subjects"]) == ["ollama", "redis", "web"]
    (evidence,) = slow["evidence"]
    assert evidence["source"] == "log of shop-web-1"
    assert evidence["line"] == "gateway: upstream timed out"
    checks = {check["name"]: check for check in diagnosis["checks"]}
    assert checks["raising"]["status"] == "unknown"
    assert "out of order" in checks["raising"]["reason"]
    assert checks["endless"]["status"] == "unknown"
    assert "did not end within 5 s" in checks["endless"]["reason"]
    assert checks["port-taken"]["status"] == "ok"
    assert json.loads((shop.reports / "latest.json").read_text())["mode"] == "dry"


def test_without_an_engine_the_engine_is_the_root_and_what_rests_on_it_is_skipped(
    shop: Shop,
) -> None:
    # Nothing after this needs it: the module ends here.
    shop.host.sh("systemctl stop docker.socket docker.service")
    diagnosis, run = diagnose(shop)
    assert list_roots(diagnosis)[0] == "engine-down", run.out
    checks = {check["name"]: check for check in diagnosis["checks"]}
    # The model server's own room still says that its server does not run.
    causes = {each["incident"]: each["explained_by"] for each in diagnosis["findings"]}
    causes |= {name: each["reason"] for name, each in checks.items() if each["status"] == "skipped"}
    for name in ("service-down", "service-unreachable", "unhealthy", "restart-loop"):
        assert causes[name] == "engine-down", run.out
    assert "ok" not in {checks[name]["status"] for name in causes.keys() & checks.keys()}
    assert shop.report()["outcome"] != "converged"
    assert shop.host.run("systemctl is-active docker.service").returncode != 0


def test_a_new_machine_is_observed_and_nobody_is_admitted(
    bare_host: LabHost, tmp_path: Path
) -> None:
    me = Newcomer(tmp_path)
    hand_over(bare_host, "root key", me.public("root"))
    me.expects([bare_host], {"access": me.access()}, ssh_key=str(me.key("root")))
    before = bare_host.snapshot_files("/etc", "/home", "/root", "/var/lib")
    run = me.run("deploy/doctor.py")
    assert run.rc == 0, run.out
    diagnosis = run.report["hosts"][bare_host.name]["diagnosis"]
    steps = [step for each in diagnosis["findings"] for step in each["steps"]]
    assert any(me.access()["user"] in step for step in steps), run.out
    names = {check["name"]: check["status"] for check in diagnosis["checks"]}
    assert {"access.operator", "access.basics", "clock-skew"} <= names.keys()
    assert names["clock-skew"] == "ok"
    assert bare_host.snapshot_files("/etc", "/home", "/root", "/var/lib") == before
