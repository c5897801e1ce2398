"""A signal ends a run within five seconds, wherever it meets it, and the next run converges."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import controller
from tests.lab.controller import Controller, Run
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.registry import Registry
from tests.lab.stacks import Shop
from tests.lab.standing import Standing

MEMORY = "/var/lib/stackmend/shop"
WITHIN = 5.0
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

#: What a run has at work on a host, apart from the daemons of its sshd and engine. In brackets, so
#: that the command that looks for it does not find itself.
AT_WORK = "pgrep -af 'docker[ ]compose|docker-compos[e]|flock [-]w|while timeou[t]'"


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    return Standing(Shop(tmp_path_factory.mktemp("signals"), lab.take(1)[0], health_timeout=20))


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


@dataclass(frozen=True)
class Moment:
    """A moment of a run, and the signal that meets it.

    + number: the signal
    + when: a condition that holds on the host then; empty where ``output`` says it
    + output: what has been printed then
    + at: what the record says of where the host was
    + change: what the run has to do
    + goes_on: whether a command of the run goes on on the host
    + words: the command line
    """

    number: signal.Signals
    when: str = ""
    output: str = ""
    at: str = ""
    change: Callable[[Shop], Any] = lambda shop: None
    goes_on: bool = False
    words: tuple[str, ...] = ("-y",)


def stays_long(shop: Shop) -> None:
    shop.services["side"]["image"] = "lab/box:2"
    shop.settings["stability"] = 60


def is_never_healthy(shop: Shop) -> None:
    shop.services["web"]["healthcheck"]["test"] = ["CMD-SHELL", "sleep 60"]
    shop.settings["health_timeout"] = 90


def builds_long(shop: Shop) -> None:
    del shop.services["side"]["image"]
    shop.services["side"]["build"] = "./image"
    shop.put("image/Dockerfile", "FROM lab/box:1\nRUN sleep 77\n")


def ends_slowly(shop: Shop) -> None:
    """The container that is replaced takes its time to end: the replacement waits for it."""
    shop.services["side"]["command"] = ["sh", "-c", "trap 'sleep 7; exit' TERM; sleep 1000 & wait"]
    shop.deploy()
    shop.services["side"]["environment"] = {"NEW": "yes"}


MOMENTS = {
    "stable-so-far": Moment(
        signal.SIGTERM,
        "docker ps --filter ancestor=lab/box:2 -q | grep -q . && sleep 2",
        at="compose.stack",
        change=stays_long,
    ),
    "waiting-for-health": Moment(
        signal.SIGINT,
        "docker ps --filter health=starting -q | grep -q .",
        at="compose.stack",
        change=is_never_healthy,
    ),
    "building": Moment(
        signal.SIGHUP,
        "pgrep -f 'slee[p] 77'",
        at="compose.stack: build side",
        change=builds_long,
    ),
    "recreating": Moment(
        signal.SIGTERM,
        "docker ps -a --format '{{.Names}}' | grep -q '_shop-side-1$'",
        at="compose.stack: recreate side",
        change=ends_slowly,
        goes_on=True,
    ),
    "connected": Moment(signal.SIGINT, output="Connected"),
    "preparing": Moment(signal.SIGTERM, output="Connected", at="preparing", words=()),
}


@contextlib.contextmanager
def slowed(host: LabHost, tool: str) -> Iterator[None]:
    """A tool of the host takes some seconds longer within the block."""
    real = host.sh(f"PATH=/usr/bin:/bin command -v {tool}")
    host.put(f"/usr/local/bin/{tool}", f'#!/bin/sh\nsleep 3\nexec {real} "$@"\n', "0755")
    try:
        yield
    finally:
        host.sh(f"rm -f /usr/local/bin/{tool}")


def ended(run: Controller, number: signal.Signals) -> Run:
    """The run after the signal: ended in time, with the status that says so, and a record."""
    assert run.process.poll() is None, f"it ended before its moment:\n{run.output()}"
    run.interrupt(number)
    began = time.monotonic()
    done = run.wait(60)
    seconds = time.monotonic() - began
    print(f"{number.name}: {seconds:.2f} s")
    assert seconds <= WITHIN, done.out
    assert done.rc == STATUS[number], done.out
    assert "Traceback" not in done.out, done.out
    return done


def record(directory: Path, number: signal.Signals) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "latest.json").read_text())
    assert found["interrupted"] == number.name
    assert found["complete"] is False
    return found


def assert_free(host: LabHost) -> None:
    """The lock of the project can be had at once."""
    held = "[ ! -e /var/lib/stackmend/run.lock ] || flock -n /var/lib/stackmend/run.lock true"
    assert host.sh(f"({held}) && echo free") == "free"


def assert_nothing_at_work(host: LabHost, seconds: float = 10) -> None:
    """Nothing of the run is left on the host."""
    host.wait_for(f"! {AT_WORK}", seconds)


@pytest.mark.rotating(3)
@pytest.mark.parametrize("name", MOMENTS)
def test_a_signal_while(shop: Shop, name: str) -> None:
    moment = MOMENTS[name]
    moment.change(shop)
    looks = contextlib.nullcontext() if moment.when else slowed(shop.host, "docker")
    with looks, shop.start(*moment.words) as run:
        if moment.output:
            assert run.wait_for_output(moment.output), run.output()
        else:
            shop.host.wait_for(moment.when, 60)
        ended(run, moment.number)
        assert_free(shop.host)
        if moment.goes_on:
            assert shop.host.sh(AT_WORK), "what was begun was cut off"
        assert_nothing_at_work(shop.host, 30)
    host = record(shop.reports, moment.number)["hosts"][shop.host.name]
    assert host["outcome"] == "unknown"
    assert host["interrupted_at"] == moment.at if moment.at else True
    if moment.goes_on:
        # What was begun came to its end although nobody waited for it.
        assert shop.container("side")["Config"]["Env"][0] == "NEW=yes"
    shop.services["web"]["healthcheck"]["test"] = ["CMD", "true"]
    shop.services["side"].pop("build", None)
    shop.services["side"].setdefault("image", "lab/box:1")
    shop.settings["stability"] = 1
    done = shop.run("-y")
    assert done.rc == 0, done.out
    shop.assert_well()


def test_a_signal_during_a_pull_ends_it_on_the_host(shop: Shop, registry: Registry) -> None:
    shop.services["side"]["image"] = registry.push("lab/box:2", "shop/side:7")
    registry.pause()
    try:
        with shop.start("-y") as run:
            shop.host.wait_for("pgrep -f 'compos[e].* pull '", 60)
            ended(run, signal.SIGINT)
            assert_free(shop.host)
            assert_nothing_at_work(shop.host)
    finally:
        registry.unpause()
    host = record(shop.reports, signal.SIGINT)["hosts"][shop.host.name]
    assert host["interrupted_at"] == "compose.stack: pull side"
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.container("side")["Config"]["Image"] == "registry:5000/shop/side:7"


def test_a_signal_while_waiting_for_an_earlier_command(shop: Shop) -> None:
    stays_long(shop)
    holder = f"exec 8>>{MEMORY}/busy; flock 8; sleep 61"
    shop.host.sh(f"setsid sh -c '{holder}' >/dev/null 2>&1 </dev/null &")
    with shop.start("-y") as run:
        shop.host.wait_for("pgrep -f 'flock [-]w'", 60)
        ended(run, signal.SIGTERM)
        assert_free(shop.host)
        assert_nothing_at_work(shop.host)
    record(shop.reports, signal.SIGTERM)
    shop.host.sh("pkill -f 'slee[p] 61'")
    shop.settings["stability"] = 1
    done = shop.run("-y")
    assert done.rc == 0, done.out


def test_a_second_signal_ends_it_at_once(shop: Shop) -> None:
    ends_slowly(shop)
    with shop.start("-y") as run:
        shop.host.wait_for(MOMENTS["recreating"].when, 60)
        run.interrupt(signal.SIGTERM)
        assert run.wait_for_output("no new step begins")
        began = time.monotonic()
        run.interrupt(signal.SIGINT)
        done = run.wait(60)
    assert time.monotonic() - began < 0.5
    assert done.rc == STATUS[signal.SIGINT], done.out


def test_a_signal_ends_several_hosts_at_once(lab: Lab, tmp_path: Path) -> None:
    """Each is at its own place, has its own lock, and is in the record."""
    hosts = lab.take(2)
    shop = Shop(tmp_path, hosts[0], stability=60)
    shop.compose = {"services": {"side": {"image": "lab/box:1"}}}
    # Both begin at once.
    shop.settings["reconcile"] = {"canary": len(hosts)}
    shop.write()
    inventory = controller.write_inventory(tmp_path, hosts, stack=shop.settings)
    environment = {"STACKMEND_REPORTS": str(shop.reports)}
    with controller.start(inventory, "deploy/site.py", "-y", env=environment) as run:
        for host in hosts:
            host.wait_for("docker ps --format '{{.Names}}' | grep -q '^shop-side-1$'", 60)
        time.sleep(2)
        ended(run, signal.SIGTERM)
        for host in hosts:
            assert_free(host)
            assert_nothing_at_work(host)
    found = record(shop.reports, signal.SIGTERM)["hosts"]
    assert {name: host["interrupted_at"] for name, host in found.items()} == {
        host.name: "compose.stack" for host in hosts
    }
