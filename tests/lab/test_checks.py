"""The checks on a real host: every container runs, and what they tell each other is another matter.

The probe is driven as a host sees it: over ssh, as root, through sudo, and without any right.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stackmend.checks.facts import CheckResults, parse
from stackmend.checks.state import CheckResult
from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.marks import checked

COMPOSE = """
services:
  caller:
    image: lab/box:1
    networks: [inner]
  web:
    image: lab/box:1
    networks: [inner, outer]
    ports: ["127.0.0.1:8080:80"]
  redis:
    image: lab/redis:7
    networks: [inner]
networks:
  inner:
  outer:
"""
PROJECT = "checked"
FROM_HOST = {"kind": "http", "url": "http://127.0.0.1:8080/", "contains": "box 1"}
BETWEEN = {"kind": "http", "url": "http://web/", "inside": "caller", "contains": "box 1"}
TO_REDIS = {"kind": "tcp", "address": "redis:6379", "inside": "web"}
WITHIN = {
    "kind": "exec",
    "service": "redis",
    "command": ["redis-cli", "ping"],
    "contains": "PONG",
}
ALL = [FROM_HOST, BETWEEN, TO_REDIS, WITHIN]


def compose(host: LabHost, *args: str) -> None:
    host.docker("compose", "-f", "/opt/checked/compose.yaml", "-p", PROJECT, *args)


def start(host: LabHost) -> LabHost:
    host.put("/opt/checked/compose.yaml", COMPOSE)
    compose(host, "up", "-d")
    host.wait_for(f"docker exec {PROJECT}-redis-1 redis-cli ping")
    host.wait_for("curl -fs http://127.0.0.1:8080/")
    return host


@pytest.fixture
def stack(host: LabHost) -> LabHost:
    """A stack of one's own, to be broken."""
    return start(host)


_KEPT: list[tuple[LabHost, dict[str, tuple[str, str, int]]]] = []


@pytest.fixture
def well(lab: Lab) -> LabHost:
    """A stack that is well and is left so: started anew only when something touched it."""
    if _KEPT:
        host, identities = _KEPT[0]
        if host.identities() == identities:
            return host
        _KEPT.clear()
    host = start(lab.take(1)[0])
    _KEPT.append((host, host.identities()))
    return host


def look(
    host: LabHost,
    checks: Sequence[dict[str, Any]] = ALL,
    *,
    user: str = "root",
    sudo: bool | None = None,
    attempts: int = 1,
    before: str = "",
    project: str = PROJECT,
) -> tuple[CheckResult, ...]:
    """The results, as `user` of the host gets them."""
    command = CheckResults().command(project, list(checks), attempts).get_raw_value()
    words = ["sh", "-c", before + command]
    if user != "root" and sudo is not False:
        words = ["sudo", "-n", *words]
    done = subprocess.run(
        [*host.ssh_argv(user), shlex.join(words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == b"", done.stderr.decode(errors="replace")
    return parse(checked(command, done.stdout.decode(errors="replace")))


def one(host: LabHost, check: dict[str, Any], **options: Any) -> CheckResult:
    (result,) = look(host, [check], **options)
    return result


def text(result: CheckResult) -> str:
    return "\n".join((result.evidence, *result.details))


@pytest.mark.parametrize("user", ["root", "operator"])
def test_a_stack_that_is_well(well: LabHost, user: str) -> None:
    before = well.identities(), well.snapshot_files("/etc", "/opt", "/root")
    began = well.now()
    results = look(well, user=user)
    assert [result.outcome for result in results] == ["passed"] * 4, results
    assert [result.method for result in results] == [
        "curl",
        "nsenter+curl",
        "nsenter+bash",
        "docker exec",
    ]
    assert (well.identities(), well.snapshot_files("/etc", "/opt", "/root")) == (before)
    assert well.events_since(began) == []
    # Nothing stays mounted, and no file of ours stays.
    assert "stackmend-checks" not in well.sh("cat /proc/[0-9]*/mountinfo 2>/dev/null; :")
    assert well.sh("ls -d /dev/shm/stackmend* /run/stackmend* /tmp/stackmend* 2>/dev/null; :") == ""


def test_without_any_right_only_the_host_is_known(well: LabHost) -> None:
    outside, *inside = look(well, user="operator", sudo=False)
    assert outside.ok
    assert [result.outcome for result in inside] == ["unknown"] * 3
    assert "permission denied" in inside[0].evidence


def test_in_the_docker_group_it_asks_from_the_container(well: LabHost) -> None:
    well.sh("usermod -aG docker operator")
    results = look(well, user="operator", sudo=False)
    well.sh("gpasswd -d operator docker")
    assert [result.outcome for result in results] == ["passed"] * 4, results
    assert [result.method for result in results[1:]] == [
        "exec+busybox wget",
        "exec+nc",
        "docker exec",
    ]


def test_without_nsenter_it_asks_from_the_container(well: LabHost) -> None:
    path = "mkdir -p /run/few && for f in /usr/bin/*; do case ${f##*/} in nsenter|unshare) ;; "
    path += '*) ln -sf "$f" /run/few/ ;; esac; done; PATH=/run/few; '
    results = look(well, [BETWEEN, TO_REDIS], before=path)
    assert [result.method for result in results] == ["exec+busybox wget", "exec+nc"]
    assert all(result.ok for result in results)


def test_with_busybox_as_every_tool(well: LabHost) -> None:
    well.sh("docker cp checked-web-1:/bin/busybox /opt/busybox && mkdir -p /opt/bb")
    well.sh("/opt/busybox --install -s /opt/bb && ln -s /usr/bin/docker /opt/bb/docker")
    command = CheckResults().command(PROJECT, ALL, 1).get_raw_value()
    well.put("/run/probe", command)
    output = well.sh("env -i PATH=/opt/bb /opt/bb/ash /run/probe")
    results = parse(checked(command, output))
    assert [result.outcome for result in results] == ["passed"] * 4, results
    assert [result.method for result in results[:3]] == [
        "busybox wget",
        "nsenter+busybox wget",
        "nsenter+nc",
    ]


def test_a_label_is_no_other_container(well: LabHost) -> None:
    """Whoever makes an image writes its labels; a check asks the service's own container."""
    web = well.docker("inspect", "-f", "{{.Id}}", "checked-web-1")
    other = well.docker("run", "-d", "--name", "other", "lab/box:1")
    row = f"web 0 running {other} other"
    compose = "com.docker.compose"
    labels = {"project": PROJECT, "oneoff": "False", "service": f"x 1 running {other} y\n{row}"}
    words = [w for key, value in labels.items() for w in ("--label", f"{compose}.{key}={value}")]
    well.docker("run", "-d", "--name", "evil", *words, "lab/box:1")
    check = {"kind": "exec", "service": "web", "command": ["cat", "/etc/hostname"]}
    try:
        result = one(well, {**check, "contains": web[:12]})
    finally:
        well.docker("rm", "-f", "other", "evil")
    assert result.ok, result


def test_another_port_than_expected(well: LabHost) -> None:
    wrong = {"kind": "tcp", "address": "redis:6380", "inside": "web"}
    result = one(well, wrong)
    assert result.hints == ("nothing-listens",)
    assert "ports heard: 6379" in text(result)


def test_paused(well: LabHost) -> None:
    well.docker("pause", f"{PROJECT}-redis-1", f"{PROJECT}-web-1")
    try:
        results = look(
            well,
            [
                {**FROM_HOST, "timeout": 1},
                {**BETWEEN, "timeout": 1},
                {"kind": "tcp", "address": "redis:6379", "inside": "caller"},
                WITHIN,
            ],
        )
    finally:
        well.docker("unpause", f"{PROJECT}-redis-1", f"{PROJECT}-web-1")
    assert [result.outcome for result in results] == ["failed"] * 4
    assert "no answer within 1 s" in results[0].evidence
    assert f"{PROJECT}-web-1" in text(results[0])
    # The kernel still accepts for a frozen process.
    assert "accepted, but by the kernel only: redis is paused" in results[2].evidence
    assert f"{PROJECT}-redis-1 is paused" in results[3].evidence
    assert all("container-paused" in result.hints for result in results)


def test_published_with_nothing_behind(well: LabHost) -> None:
    well.docker(
        "run", "-d", "--name", "idle", "-p", "127.0.0.1:8081:80", "lab/box:1", "sleep", "600"
    )
    idle = {"kind": "tcp", "address": "127.0.0.1:8081"}
    result = one(well, idle)
    well.docker("rm", "-f", "idle")
    assert result.outcome == "failed", "Docker's proxy accepts for a container that does not listen"
    assert "closed at once" in result.evidence
    assert "idle publishes its port 80 as 8081" in text(result)
    assert "nothing-listens" in result.hints


def test_a_command_that_does_not_end_is_ended(well: LabHost) -> None:
    slow = {"kind": "exec", "service": "caller", "command": "sleep 321 & sleep 321", "timeout": 1}
    result = one(well, slow)
    assert result.outcome == "failed"
    assert "had not ended after 1 s" in result.evidence
    well.wait_for("! docker top checked-caller-1 | grep -q 'sleep 321'")


def test_a_command_gets_its_words_exactly(well: LabHost) -> None:
    odd = ["a b", "'", '"', "$(touch /tmp/ran)", "`touch /tmp/ran`", "\n", "-n", "*", "ü\u2028", ""]
    check = {
        "kind": "exec",
        "service": "redis",
        "command": ["printf", "[%s]", *odd],
        "contains": "".join(f"[{word}]" for word in odd),
    }
    assert one(well, check).ok
    assert not well.exists("/tmp/ran")
    assert well.docker("exec", f"{PROJECT}-redis-1", "ls", "/tmp/ran", check=False) == ""


def test_a_command_that_fails(well: LabHost) -> None:
    wrong, silent, missing, expected = look(
        well,
        [
            {"kind": "exec", "service": "redis", "command": "echo broken; exit 3", "name": "a"},
            {**WITHIN, "contains": "nothing of the kind", "name": "b"},
            {"kind": "exec", "service": "redis", "command": ["no-such-program"], "name": "c"},
            {
                "kind": "exec",
                "service": "redis",
                "command": "exit 124",
                "exit_code": 124,
                "name": "d",
            },
        ],
    )
    assert "ended with exit code 3 instead of 0; it said: broken" in wrong.evidence
    assert 'without "nothing of the kind"; it said: PONG' in silent.evidence
    assert "could not be started" in missing.evidence
    assert expected.ok


@pytest.mark.parametrize("user", ["root", "operator", "keeper"])
def test_as_a_fact_of_pyinfra(well: LabHost, tmp_path: Path, user: str) -> None:
    inventory = controller.write_inventory(tmp_path, [well], user=user)
    run = controller.run(
        inventory,
        "--json",
        "fact",
        "stackmend.checks.facts.CheckResults",
        f"project={PROJECT}",
        f"checks={json.dumps(ALL)}",
    )
    assert run.rc == 0, run.out
    assert run.out.count('"outcome": "passed"') == 4, run.out


def test_whatever_the_host_does_with_its_resolv_conf(stack: LabHost) -> None:
    stack.sh("umount /etc/resolv.conf 2>/dev/null; mkdir -p /run/elsewhere")
    stack.sh("echo nameserver 203.0.113.1 > /run/elsewhere/resolv.conf")
    # A link (systemd-resolved's way), a dangling one (its service is gone), and no file at all.
    for link in ("/run/elsewhere/resolv.conf", "/run/not-there/resolv.conf", ""):
        stack.sh("rm -f /etc/resolv.conf" + (f"; ln -s {link} /etc/resolv.conf" if link else ""))
        seen = stack.snapshot_files("/etc", "/run/elsewhere")
        results = look(stack, [BETWEEN, TO_REDIS])
        assert [result.outcome for result in results] == ["passed"] * 2, (link, results)
        assert [result.method for result in results] == ["nsenter+curl", "nsenter+bash"], link
        assert stack.snapshot_files("/etc", "/run/elsewhere") == seen


def test_detached_from_its_network(stack: LabHost) -> None:
    stack.docker("network", "disconnect", f"{PROJECT}_inner", f"{PROJECT}-web-1")
    between, to_redis = look(stack, [BETWEEN, TO_REDIS])
    assert between.outcome == to_redis.outcome == "failed"
    assert "does not resolve" in between.evidence
    assert {"name-not-resolved", "no-shared-network"} <= set(between.hints)
    assert f"caller-1 is on {PROJECT}_inner, {PROJECT}-web-1 on {PROJECT}_outer" in text(between)
    assert one(stack, FROM_HOST).ok, "from the host it is well: only the neighbours miss it"


def test_listening_on_loopback_only(stack: LabHost) -> None:
    override = COMPOSE.replace(
        "image: lab/redis:7", "image: lab/redis:7\n    command: [redis-server, --bind, 127.0.0.1]"
    )
    stack.put("/opt/checked/compose.yaml", override)
    compose(stack, "up", "-d")
    stack.wait_for(f"docker exec {PROJECT}-redis-1 redis-cli ping")
    to_redis, within = look(stack, [TO_REDIS, WITHIN])
    assert within.ok, "inside its own container it answers"
    assert to_redis.outcome == "failed"
    assert "refused" in to_redis.evidence
    assert f"{PROJECT}-redis-1 listens on 127.0.0.1:6379 only" in text(to_redis)
    assert to_redis.hints == ("loopback-only",)


def test_stopped_and_gone(stack: LabHost) -> None:
    stack.docker("stop", "-t", "1", f"{PROJECT}-web-1")
    stack.docker("rm", "-f", f"{PROJECT}-redis-1")
    outside, between, to_redis, within = look(stack)
    assert [r.outcome for r in (outside, between, to_redis, within)] == ["failed"] * 4
    assert "refused" in outside.evidence
    assert f"{PROJECT}-web-1 would publish 8080, but is exited" in text(outside)
    assert "container-not-running" in between.hints
    assert to_redis.evidence.endswith(f"web is not running: {PROJECT}-web-1 is exited")
    assert within.evidence.endswith("redis has no container")
    assert within.hints == ("container-missing",)


def test_the_way_out_without_masquerading(stack: LabHost) -> None:
    # The host that stands for the internet: reached from a container only through NAT.
    stack.sh(
        "ip link add far type veth peer name near; ip netns add far; ip link set far netns far"
    )
    stack.sh("ip addr add 198.51.100.1/24 dev near; ip link set near up")
    stack.sh("ip -n far addr add 198.51.100.2/24 dev far; ip -n far link set far up")
    stack.sh("mkdir -p /run/far && echo far away > /run/far/index.html")
    stack.sh("docker cp checked-web-1:/bin/busybox /opt/busybox")
    stack.sh("ip netns exec far /opt/busybox httpd -p 80 -h /run/far")
    out = {"kind": "http", "url": "http://198.51.100.2/", "inside": "caller", "timeout": 2}
    try:
        assert one(stack, out).ok
        stack.sh("iptables -t nat -F")
        result = one(stack, out)
        assert result.outcome == "failed"
        assert "no answer within 2 s" in result.evidence
        assert {"nat-missing", "masquerade-missing"} <= set(result.hints)
        assert f"nothing masquerades for the network {PROJECT}_inner" in text(result)
        stack.sh("systemctl restart docker")
        compose(stack, "up", "-d", "--wait")
        assert one(stack, {**out, "timeout": 10}, attempts=2).ok
        stack.sh("echo 0 > /proc/sys/net/ipv4/ip_forward")
        assert "forwarding-off" in one(stack, out).hints
    finally:
        stack.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; ip netns del far", check=False)


def test_the_filter_flushed(stack: LabHost) -> None:
    stack.sh("iptables -F FORWARD; iptables -P FORWARD DROP")
    result = one(
        stack, {"kind": "http", "url": "http://198.51.100.2/", "inside": "caller", "timeout": 1}
    )
    assert "forwarding-blocked" in result.hints


def test_the_first_of_several(stack: LabHost) -> None:
    compose(stack, "up", "-d", "--scale", "caller=2")
    result = one(stack, BETWEEN)
    assert result.ok
    assert f"({PROJECT}-caller-1, the first of 2 that run)" in result.evidence
    stack.docker("stop", "-t", "1", f"{PROJECT}-caller-1")
    assert one(stack, BETWEEN).ok, "another one that runs stands in"


def test_unhealthy_is_part_of_the_explanation(stack: LabHost) -> None:
    sick = COMPOSE.replace(
        "image: lab/redis:7",
        "image: lab/redis:7\n    healthcheck: {test: 'echo no memory left; exit 1', "
        "interval: 1s, retries: 1}",
    )
    stack.put("/opt/checked/compose.yaml", sick)
    compose(stack, "up", "-d")
    stack.wait_for(f"docker inspect {PROJECT}-redis-1 | grep -q unhealthy")
    result = one(stack, {**WITHIN, "exit_code": 1})
    assert f"the healthcheck of {PROJECT}-redis-1 says unhealthy: no memory left" in text(result)
    assert "unhealthy" in result.hints


def test_the_engine_is_stopped(stack: LabHost) -> None:
    stack.sh("systemctl stop docker.socket docker")
    try:
        outside, *inside = look(stack, [FROM_HOST, BETWEEN, WITHIN])
    finally:
        stack.sh("systemctl start docker.socket docker")
    assert [result.outcome for result in inside] == ["unknown", "unknown"]
    assert "Cannot connect to the Docker daemon" in inside[0].evidence
    assert outside.outcome in ("passed", "failed")
