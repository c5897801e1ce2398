"""Whatever hangs on a host, a run ends within its declared limits, with the reason."""

from __future__ import annotations

import contextlib
import copy
import re
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.lab.bounded import MINUTE, Shops, find_limits, list_reasons
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost


@pytest.fixture(scope="module")
def shops(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shops:
    shops = Shops(tmp_path_factory.mktemp("bounded"), lab.take(3))
    done = shops.run()
    assert done.rc == 0, done.out
    shops.slowness = max(shops.slowness, done.seconds)
    return shops


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


def test_a_dry_run_tells_the_sum_of_its_limits(shops: Shops) -> None:
    """The same that the run has which it foresees."""
    shops.greet("dry")
    dry = shops.run("--dry")
    assert dry.rc == 0
    assert len(re.findall(r"ends within \d+ h \d+ min, whatever hangs", dry.out)) == 3, dry.out
    done = shops.run()
    assert done.rc == 0, done.out
    for host in shops.hosts:
        assert find_limits(done, host) == find_limits(dry, host) != []


# An sshd that does not get on


def say_nothing(peer: socket.socket) -> None:
    """Takes a connection, and that is all."""


def begin(peer: socket.socket) -> None:
    """Says who it is, and never agrees on keys."""
    peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")


def chat(peer: socket.socket) -> None:
    """Says something all the time, and never who it is."""
    while True:
        peer.sendall(b"please wait\r\n")
        time.sleep(1)


@contextlib.contextmanager
def serving(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    kept: list[socket.socket] = []

    def talk(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            behave(peer)

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                kept.append(server.accept()[0])
                threading.Thread(target=talk, args=(kept[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        for peer in kept:
            peer.close()


def test_an_sshd_that_accepts_and_does_not_get_on(shops: Shops) -> None:
    kinds = (say_nothing, begin, chat)
    shops.greet("beside a silent sshd")
    with contextlib.ExitStack() as stack:
        rows = [
            (kind.__name__, {**shops.hosts[0].ssh_data(), "ssh_port": port})
            for kind in kinds
            for port in [stack.enter_context(serving(kind))]
        ]
        done = shops.run(more=f"hosts += {rows!r}\n")
    assert done.rc == 1
    assert done.seconds < MINUTE + shops.slowness, (done.seconds, done.out)
    reason = "sshd accepts connections and does not answer within 10 s"
    assert done.out.count(reason) >= len(kinds), done.out
    # Those that answer have what was to be done.
    assert all(map(shops.greets, shops.hosts))


# A full disk

FULL = ("/var/lib/stackmend", "/tmp", "/dev/shm")


@contextlib.contextmanager
def full(host: LabHost, path: str, *, files: bool = False) -> Iterator[None]:
    """A file system at a path that takes no byte more, and no file more where it is /tmp.

    + files: that it takes no file more, and bytes
    """
    size = "200m" if files else "2m"
    saved = f"/var/tmp/saved{path}"
    inodes = "nr_inodes=300" if files or path == "/tmp" else "nr_inodes=0"
    # What a healthcheck under way is about to remove would make room again.
    host.sh(
        f"mkdir -p {saved}; cp -a {path}/. {saved}/; rm -f {saved}/runc-process*; "
        f"mount -t tmpfs -o size={size},{inodes} tmpfs {path}; cp -a {saved}/. {path}/"
    )
    if inodes != "nr_inodes=0":
        host.sh(f"n=0; while : >{path}/more.$n; do n=$((n + 1)); done 2>/dev/null; true")
    if not files:
        # Once more with small ones: a large write may leave a page.
        target = f"{path}/more.0"
        host.sh(f"head -c 4m /dev/zero >{target}; while echo x >>{target}; do :; done; true")
    try:
        yield
    finally:
        host.sh(f"umount -l {path}; rm -rf {saved}")


def test_a_full_disk(shops: Shops) -> None:
    shops.greet("on a full disk")
    with contextlib.ExitStack() as stack:
        for host, path in zip(shops.hosts, FULL, strict=True):
            stack.enter_context(full(host, path))
        done = shops.run()
        assert done.seconds < 3 * MINUTE, (done.seconds, done.out)
        assert done.rc == 1, done.out
        for host in shops.hosts[:2]:
            reasons = [reason.lower() for reason in list_reasons(done, host)]
            assert any(
                "no space left on device" in reason or "mib are free" in reason
                for reason in reasons
            ), reasons
        # Another directory does for what is temporary.
        assert done.report["hosts"][shops.hosts[2].name]["outcome"] == "changed", done.out
        assert shops.greets(shops.hosts[2])
    shops.assert_well()


def test_an_attempt_that_cannot_be_counted_is_not_made(shops: Shops) -> None:
    """It would be made again by each run."""
    full_up, roomy, _ = shops.hosts
    # A restart mends it.
    lost = {"kind": "exec", "service": "side", "command": ["test", "!", "-e", "/dev/shm/lost"]}
    for host in (full_up, roomy):
        host.docker("exec", "shop-side-1", "touch", "/dev/shm/lost")
        host.sh("rm -f /var/lib/stackmend/shop/mends")
    before = {host: host.containers("shop")["side"][0]["State"] for host in (full_up, roomy)}
    with full(full_up, "/var/lib/stackmend", files=True):
        done = shops.run(stacks={host: {"checks": [lost]} for host in before})
        reasons = list_reasons(done, full_up)
        assert any("cannot count the attempt to mend side" in reason for reason in reasons), reasons
        assert any("No space left on device" in reason for reason in reasons), reasons
        assert full_up.containers("shop")["side"][0]["State"] == before[full_up]
    # Where it can be, it is.
    assert roomy.containers("shop")["side"][0]["State"] != before[roomy]
    assert "restart side" in roomy.sh("cat /var/lib/stackmend/shop/mends")
    assert done.report["hosts"][roomy.name]["outcome"] == "changed", done.out
    shops.assert_well()


# A command that never ends

NEVER = "exec sleep 4713"
#: Host by host: what a probe runs, what Compose is asked with, and what holds the lock; the limit
#: that the host's data give its commands, and what the run says.
ENDLESS = (
    ("sha256sum", 8, "did not end within 8 s"),
    ("tar", 8, "did not end within 8 s"),
    ("flock", None, "flock does not end"),
)


def test_a_command_that_never_ends(shops: Shops) -> None:
    """The limits by default are those of tests/unit/test_limits.py."""
    shops.greet("never")
    pairs = list(zip(shops.hosts, ENDLESS, strict=True))
    with contextlib.ExitStack() as stack:
        for host, (name, _, _) in pairs:
            stack.enter_context(program(host, name, NEVER))
        done = shops.run(data={host: {"_timeout": limit} for host, (_, limit, _) in pairs if limit})
    for host in shops.hosts:
        # What a reading had begun has a limit of its own, and nothing is left for good.
        host.wait_for("! pgrep -f 'sleep 471[3]'", 90)
    assert done.rc == 1, done.out
    assert done.seconds < MINUTE + shops.slowness, (done.seconds, done.out)
    for host, (name, _, expected) in pairs:
        reasons = list_reasons(done, host)
        assert any(expected in reason for reason in reasons), (name, reasons)
    shops.assert_well()


# A check that never answers

#: Takes connections at one port and says nothing, and at the next one a byte of a header a second.
MUTE = """
import socket, threading, time
def drip(server):
    while True:
        threading.Thread(target=talk, args=server.accept()).start()
def talk(peer, address):
    peer.sendall(b"HTTP/1.1 200 OK\\r\\nX: ")
    while True:
        peer.sendall(b"x")
        time.sleep(1)
silent = socket.create_server(("127.0.0.1", 4715))
drip(socket.create_server(("127.0.0.1", 4716)))
"""


def test_a_check_that_never_answers(shops: Shops) -> None:
    host = shops.hosts[0]
    shops.greet("checked")
    host.put("/opt/mute.py", MUTE)
    host.sh("systemd-run -q --unit=mute /usr/bin/python3 /opt/mute.py")
    host.wait_for("ss -Hltn | grep -q ':4716 '")
    checks: list[dict[str, Any]] = [
        {"kind": "exec", "name": "sleeps", "service": "web", "command": ["sleep", "4714"]},
        {"kind": "http", "name": "silent", "url": "http://127.0.0.1:4715/"},
        {"kind": "http", "name": "drips", "url": "http://127.0.0.1:4716/"},
    ]
    checks = [{**check, "timeout": 2, "deadline": 5} for check in checks]
    try:
        done = shops.run(stacks={host: {"checks": checks}})
    finally:
        host.sh("systemctl stop mute; rm /opt/mute.py")
    assert done.report["hosts"][host.name]["outcome"] == "failed", done.out
    assert done.seconds < 2 * MINUTE, (done.seconds, done.out)
    reasons = "\n".join(list_reasons(done, host))
    for check in checks:
        assert check["name"] in reasons, reasons
    assert "had not ended" in reasons, reasons
    assert all(map(shops.greets, shops.hosts[1:]))
    shops.assert_well()


# Names that no server answers for


def test_dead_dns(shops: Shops) -> None:
    """For an image that is to be pulled, for a check, and for what is looked at before anything."""
    name = "registry.invalid.example"
    pulling, checking, well = shops.hosts
    was = {host: host.sh("cat /etc/resolv.conf") for host in (pulling, checking)}
    shops.greet("dead DNS")
    for host in was:
        host.sh("iptables -I OUTPUT -d 192.0.2.53 -j DROP")
        host.sh("printf 'nameserver 192.0.2.53\\noptions timeout:5\\n' >/etc/resolv.conf")
    check = {"kind": "http", "name": "named", "url": f"http://{name}/", "timeout": 3, "deadline": 5}
    shops.shop.write()
    unnamed = shutil.copytree(shops.shop.source, shops.directory / "unnamed")
    compose = copy.deepcopy(shops.shop.compose)
    compose["services"]["side"]["image"] = f"{name}/nothing:1"
    (unnamed / "compose.yaml").write_text(yaml.safe_dump(compose))
    try:
        done = shops.run(
            stacks={
                pulling: {"source": str(unnamed)},
                checking: {
                    "checks": [check],
                    "connectivity": {
                        "endpoints": [f"https://{name}"],
                        "derived": False,
                        "status_pages": [],
                        "timeout": 2,
                    },
                },
            }
        )
    finally:
        for host, text in was.items():
            host.sh("iptables -D OUTPUT -d 192.0.2.53 -j DROP")
            host.sh(f"printf '%s\\n' {shlex.quote(text)} >/etc/resolv.conf")
    assert done.rc == 1
    assert done.seconds < 3 * MINUTE, (done.seconds, done.out)
    assert any("cannot pull its image" in reason for reason in list_reasons(done, pulling)), (
        done.out
    )
    told = "\n".join(list_reasons(done, checking))
    assert "named" in told, told
    assert name in told, told
    assert shops.greets(well)
    shops.assert_well()
