"""Whatever hangs on a host, a run ends within its declared limits, with the reason."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import controller
from tests.lab.controller import Run
from tests.lab.engine_runs import Runs
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

MINUTE = 60
#: Machines that carry several hosts start what runs more slowly.
SLOWNESS = 30


class Pair:
    """A host that something hangs on, with the shop, and one that is well, with a shop as well."""

    def __init__(self, directory: Path, hosts: list[LabHost]) -> None:
        self.shop = Shop(directory, hosts[0], health_timeout=20)
        self.host, self.other = hosts
        self.directory = directory

    def run(self, *args: str, timeout: float = 300) -> Run:
        """Both hosts in one run."""
        self.shop.write()
        inventory = controller.write_inventory(
            self.directory, [self.host, self.other], stack=self.shop.settings
        )
        return controller.run(inventory, "deploy/site.py", *(args or ("-y",)), timeout=timeout)


@pytest.fixture(scope="module")
def pair(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pair = Pair(tmp_path_factory.mktemp("bounded"), lab.take(2))
    done = pair.run()
    assert done.rc == 0, done.out
    return pair


@contextlib.contextmanager
def hung_engine(host: LabHost) -> Iterator[None]:
    """An engine whose process takes questions and answers none."""
    host.sh("kill -STOP $(pgrep -x dockerd)")
    try:
        yield
    finally:
        host.sh("kill -CONT $(pgrep -x dockerd)")


@contextlib.contextmanager
def program(host: LabHost, name: str, text: str) -> Iterator[None]:
    """A program in the place of the host's own."""
    path = f"/usr/local/bin/{name}"
    host.put(path, f"#!/bin/sh\n{text}\n")
    host.sh(f"chmod +x {path}")
    try:
        yield
    finally:
        host.sh(f"rm {path}")


def test_a_hung_engine_costs_a_minute_and_no_other_host_more(pair: Pair) -> None:
    pair.shop.services["web"]["environment"]["GREETING"] = "while it hangs"
    before = pair.host.sh("systemctl show docker -p MainPID")
    with hung_engine(pair.host):
        for mode in ("-y", "--dry"):
            started = time.monotonic()
            done = pair.run(mode)
            seconds = time.monotonic() - started
            assert seconds < MINUTE, (seconds, done.out)
            assert "the Docker daemon hangs: it does not answer within 10 s" in done.out
            assert "systemctl restart docker" in done.out
            assert done.rc == (1 if mode == "-y" else 0)
    assert pair.host.sh("systemctl show docker -p MainPID") == before
    # The other host has what was to be done.
    (web,) = pair.other.docker("ps", "-q", "--filter", "name=web").splitlines()
    assert "GREETING=while it hangs" in pair.other.inspect(web)["Config"]["Env"]
    done = pair.run()
    assert done.rc == 0, done.out


def test_an_engine_that_hangs_is_not_started_again(pair: Pair) -> None:
    pair.host.sh("systemctl is-active docker")
    with hung_engine(pair.host):
        started = time.monotonic()
        told = Runs(pair.directory, pair.host).installed(channel="distro")
        assert time.monotonic() - started < MINUTE
    assert "the engine hangs" in told.run.out
    assert not told.all("done")


@pytest.mark.parametrize("name", ["dockerd", "containerd"])
def test_an_engine_that_hangs_is_restarted_with_consent(pair: Pair, name: str) -> None:
    """Itself, or what it works upon; what ran before runs again."""
    host = pair.host
    running = set(host.docker("ps", "--format", "{{.Names}}").split())
    assert running
    pid = host.sh(f"pgrep -x {name}")
    host.sh(f"kill -STOP {pid}")
    try:
        started = time.monotonic()
        told = Runs(pair.directory, host).installed(channel="distro")
        assert time.monotonic() - started < MINUTE
        (refusal,) = told.all("refusals")
        assert ("containerd hangs" in refusal["reason"]) == (name == "containerd")
        assert '"allow": ["restart"]' in refusal["remedy"]
        told = Runs(pair.directory, host).installed(channel="distro", allow=["restart"])
        assert told.run.rc == 0, told.run.out
        assert [row["verb"] for row in told.all("done")] == ["restart"]
    finally:
        host.sh(f"kill -CONT {pid}", check=False)
    assert host.sh(f"pgrep -x {name}") != pid
    assert set(host.docker("ps", "--format", "{{.Names}}").split()) == running


def test_an_sshd_that_accepts_and_says_nothing(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        silent = {**pair.host.ssh_data(), "ssh_port": server.getsockname()[1]}
        inventory = controller.write_inventory(
            pair.directory,
            [pair.host, pair.other],
            stack=pair.shop.settings,
            per_host={pair.host.name: silent},
        )
        started = time.monotonic()
        done = controller.run(inventory, "deploy/site.py", "-y", timeout=300)
        seconds = time.monotonic() - started
        for accepted in kept:
            accepted.close()
    assert done.rc == 1
    assert seconds < MINUTE + SLOWNESS, (seconds, done.out)
    assert "sshd accepts connections and does not answer within 10 s" in done.out
    assert "Traceback" not in done.out


@pytest.mark.parametrize("full", ["/var/lib/stackmend", "/tmp", "/dev/shm"])
def test_a_full_disk(pair: Pair, full: str) -> None:
    host = pair.host
    pair.shop.services["web"]["environment"]["GREETING"] = f"{full} is full"
    host.sh(
        f"mkdir -p /var/tmp/saved; cp -a {full}/. /var/tmp/saved/; "
        f"mount -t tmpfs -o size=2m tmpfs {full}; cp -a /var/tmp/saved/. {full}/; "
        f"head -c 4m /dev/zero >{full}/filler; true"
    )
    try:
        started = time.monotonic()
        done = pair.run()
        seconds = time.monotonic() - started
        assert seconds < 3 * MINUTE, (seconds, done.out)
        # Another directory does for what is temporary.
        assert done.rc == (0 if full == "/dev/shm" else 1), done.out
        if done.rc:
            assert "no space left on device" in done.out.lower() or "MiB are free" in done.out
    finally:
        host.sh(f"umount -l {full}; rm -rf /var/tmp/saved")
    # Docker runs a healthcheck again in its own time: until then its last result stands.
    host.wait_for('[ -z "$(docker ps -q -f health=unhealthy -f health=starting)" ]', 120)
    done = pair.run()
    assert done.rc == 0, done.out


NEVER = "exec sleep 4713"


@pytest.mark.parametrize(
    ("name", "reason", "limit"),
    [
        # What a probe runs, what holds the lock, and what Compose is asked with.
        ("sha256sum", "did not end within 30 s", 30),
        ("flock", "flock does not end (hold /var/lib/stackmend/shop/lock)", 20),
        ("tar", "did not end within 120 s", 120),
    ],
)
def test_a_command_that_never_ends(pair: Pair, name: str, reason: str, limit: float) -> None:
    pair.shop.services["web"]["environment"]["GREETING"] = f"never {name}"
    with program(pair.host, name, NEVER):
        started = time.monotonic()
        done = pair.run()
        seconds = time.monotonic() - started
    assert done.rc == 1, done.out
    assert reason in done.out, done.out
    assert seconds < 60 + 2 * limit + SLOWNESS, (seconds, done.out)
    # What a reading had begun has a limit of its own, and nothing is left for good.
    pair.host.wait_for("! pgrep -f 'sleep 471[3]'", 90)


def test_a_check_that_never_answers(pair: Pair) -> None:
    pair.shop.settings["checks"] = [
        {"kind": "exec", "name": "never", "service": "web", "command": ["sleep", "4714"]},
    ]
    try:
        started = time.monotonic()
        done = pair.run()
        seconds = time.monotonic() - started
    finally:
        pair.shop.settings.pop("checks")
    assert done.rc == 1
    assert "had not ended" in done.out, done.out
    assert seconds < 3 * MINUTE, (seconds, done.out)


def test_dead_dns(pair: Pair) -> None:
    """On the host, for an image that is to be pulled by a name that nobody resolves."""
    host = pair.host
    was = host.sh("cat /etc/resolv.conf")
    image = pair.shop.services["side"]["image"]
    pair.shop.services["side"]["image"] = "registry.invalid.example/nothing:1"
    host.sh("iptables -I OUTPUT -d 192.0.2.53 -j DROP")
    host.sh("printf 'nameserver 192.0.2.53\\noptions timeout:5\\n' >/etc/resolv.conf")
    try:
        started = time.monotonic()
        done = pair.run()
        seconds = time.monotonic() - started
    finally:
        host.sh("iptables -D OUTPUT -d 192.0.2.53 -j DROP")
        host.sh(f"printf '%s\\n' {shlex.quote(was)} >/etc/resolv.conf")
        pair.shop.services["side"]["image"] = image
    assert done.rc == 1
    assert "side: cannot pull its image" in done.out
    assert seconds < 4 * MINUTE, (seconds, done.out)


def test_a_dry_run_tells_the_sum_of_its_limits(pair: Pair) -> None:
    pair.shop.services["web"]["environment"]["GREETING"] = "dry"
    done = pair.run("--dry")
    assert done.rc == 0
    assert len(re.findall(r"ends within \d+ h \d+ min, whatever hangs", done.out)) == 2, done.out
