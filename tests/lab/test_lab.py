"""The lab itself: hosts are real, are put back as they were, and tell what happened to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import controller
from tests.lab.hosts import LabHost
from tests.lab.observed import KEEPER_PASSWORD
from tests.lab.registry import Registry


def test_host_is_a_machine_with_an_engine_of_its_own(host: LabHost) -> None:
    assert host.sh("cat /proc/1/comm") == "systemd"
    assert host.sh("systemctl is-system-running", check=False) in ("running", "degraded")
    assert host.sh("systemctl is-active ssh cron docker").split() == ["active"] * 3
    assert host.docker("version", "--format", "{{.Server.Version}}").startswith("26.1.5")
    assert host.docker("compose", "version", "--short").startswith("2.26")
    assert host.docker("ps", "-aq") == ""
    assert host.docker("run", "--rm", "lab/box:1", "cat", "/www/index.html") == "box 1"


def test_bare_host_has_no_docker(bare_host: LabHost) -> None:
    assert bare_host.sh("cat /proc/1/comm") == "systemd"
    assert bare_host.sh("command -v docker || echo none") == "none"


def test_logins(host: LabHost, tmp_path: Path) -> None:
    for user, sudo in (("root", "true"), ("operator", "sudo -n true")):
        inventory = controller.write_inventory(tmp_path, [host], user=user)
        done = controller.run(inventory, "exec", "--", "id -un")
        assert done.rc == 0, done.out
        assert host.sh(f"su {user} -c '{sudo}' && echo may") == "may"
        assert "docker" not in host.sh(f"id -nG {user}").split()
    assert host.sh("su keeper -c 'sudo -n true' || echo asks", check=False) == "asks"
    granted = host.sh(f"echo {KEEPER_PASSWORD} | su keeper -c 'sudo -S -p \"\" id -un'")
    assert granted == "root"


def contents(host: LabHost) -> dict[str, list[str]]:
    """Files without their times, and without what is a host's own even when it is made anew."""
    files = host.snapshot_files("/etc", "/root", "/home", "/opt", "/srv", "/usr/local")
    own = ("/etc/machine-id", "/etc/hosts")
    found = {path: entry.split(" ") for path, entry in files.items() if path not in own}
    return {path: entry[:3] + entry[4:] for path, entry in found.items()}


def test_reset_puts_everything_back(host: LabHost) -> None:
    files = contents(host)
    shown = ("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    images = sorted(host.docker(*shown).splitlines())
    rules = host.sh("iptables -S; iptables -t nat -S DOCKER")
    host.sh(
        """
        for name in one two six; do docker run -d --restart always --name $name lab/box:1; done
        docker pause two; docker network create strange; docker volume create strange
        docker image rm -f lab/redis:7; docker tag lab/box:2 lab/box:1; docker tag lab/box:2 own:1
        echo '{}' > /etc/docker/daemon.json; echo x >> /etc/passwd; echo x > /opt/strange
        mkdir -p /var/lib/stackmend/x; fallocate -l 64M /var/lib/docker/fill
        iptables -P FORWARD ACCEPT; iptables -F; iptables -t nat -F
        tc qdisc add dev eth0 root netem delay 20ms
        systemctl stop cron; systemd-run -q --unit=strange sleep 1000
        mkdir /mnt/strange; mount -t tmpfs none /mnt/strange
        setsid sleep 1000 < /dev/null > /dev/null 2>&1 &
        """
    )
    host.reset()
    assert host.docker("ps", "-aq") == ""
    assert host.docker("network", "ls", "-q", "--filter", "type=custom") == ""
    assert host.docker("volume", "ls", "-q") == ""
    assert sorted(host.docker(*shown).splitlines()) == images
    assert contents(host) == files
    assert host.sh("iptables -S; iptables -t nat -S DOCKER") == rules
    assert host.sh("tc qdisc show dev eth0 | grep netem", check=False) == ""
    assert host.sh("systemctl is-active cron") == "active"
    assert host.sh("pgrep -x sleep", check=False) == ""
    assert host.sh("grep -c /mnt/strange /proc/mounts", check=False) == "0"
    assert not host.exists("/var/lib/stackmend")
    assert not host.exists("/var/lib/docker/fill")


def test_reset_mends_an_engine_that_is_down(host: LabHost) -> None:
    host.sh("docker run -d --restart always --name one lab/box:1; docker pause one")
    host.sh("echo 'no json' > /etc/docker/daemon.json; kill -9 $(pidof dockerd)")
    host.sh("systemctl stop docker.socket docker; systemctl mask docker", check=False)
    host.reset()
    assert host.docker("ps", "-aq") == ""
    assert host.docker("run", "--rm", "lab/box:2", "cat", "/www/index.html") == "box 2"


def test_reset_of_an_unused_host_is_quick(host: LabHost) -> None:
    def once() -> float:
        began = time.monotonic()
        host.reset()
        return time.monotonic() - began

    # The best of a few: other workers use the same two cores.
    assert min(once() for _ in range(5)) < 3


def test_sessions_are_counted_from_outside(host: LabHost, tmp_path: Path) -> None:
    inventory = controller.write_inventory(tmp_path, [host])
    mark = host.mark()
    assert host.sessions_since(mark) == []
    done = controller.run(inventory, "exec", "--", "true")
    assert done.rc == 0, done.out
    assert len(host.sessions_since(mark)) >= 1
    assert host.logins_since(mark) == 1


def test_hosts_reach_each_other_by_name(hosts: Callable[[int], list[LabHost]]) -> None:
    one, two = hosts(2)
    assert one.sh(f"getent hosts {two.name} | awk '{{ print $1 }}'") == two.address
    assert one.docker("info", "-f", "{{.ID}}") != two.docker("info", "-f", "{{.ID}}")


def test_power_cut_and_reset_after_it(host: LabHost) -> None:
    host.sh("docker run -d --restart always --name keeps lab/box:1; docker volume create data")
    host.power_cut()
    host.wait_for("docker ps -q --filter name=keeps | grep -q .")
    host.reset()
    assert host.docker("ps", "-aq") == ""
    assert host.docker("volume", "ls", "-q") == ""
    host.sh("docker run -d --name again -p 127.0.0.1:8080:80 lab/box:1")
    host.wait_for("curl -fs 127.0.0.1:8080 | grep -q 'box 1'")
    host.sh("iptables -t nat -F; iptables -F")
    host.reset()
    host.sh("docker run -d --name again -p 127.0.0.1:8080:80 lab/box:1")
    host.wait_for("curl -fs 127.0.0.1:8080 | grep -q 'box 1'")


def test_what_a_reset_cannot_mend_is_made_anew(host: LabHost, tmp_path: Path) -> None:
    host.sh("rm /usr/bin/docker; echo x > /usr/lib/strange")
    host.reset()
    assert host.docker("ps", "-aq") == ""
    assert not host.exists("/usr/lib/strange")
    inventory = controller.write_inventory(tmp_path, [host])
    done = controller.run(inventory, "exec", "--", "true")
    assert done.rc == 0, done.out


def test_registry_serves_hosts_and_moves_tags(host: LabHost, registry: Registry) -> None:
    name = registry.push("lab/box:1", "shop/api:1")
    host.docker("pull", "-q", name)
    first = host.docker("image", "inspect", "-f", "{{.Id}}", name)
    assert registry.push("lab/box:2", "shop/api:1") == name
    host.docker("pull", "-q", name)
    assert host.docker("image", "inspect", "-f", "{{.Id}}", name) != first
    registry.stop()
    assert "no such host" in host.sh(f"docker pull {name} 2>&1", check=False)
    registry.start()
    host.docker("pull", "-q", name)


def test_a_host_that_is_made_anew_has_nothing_of_the_one_before(host: LabHost) -> None:
    """The engine's data are kept for their images; containers would start before all else."""
    host.docker("run", "-d", "--restart=always", "-v", "/opt/gone/file:/x", "lab/box:1")
    host.recreate()
    assert host.docker("ps", "-aq") == ""
    assert host.sh("find /opt /lab/pristine/opt -mindepth 1") == ""
