"""``engine.accelerated`` on real hosts: a bus with stand-ins, a real engine, real containers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import controller, gpus, machines
from tests.lab.gpus import Bus
from tests.lab.hosts import LabHost
from tests.lab.observed import HostCommandError
from tests.lab.packages import Deb, Packages, Repository
from tests.lab.ports_runs import HostRun

DAEMON_JSON = "/etc/docker/daemon.json"
PROOF = "/var/lib/stackmend/engine/accelerated"


@pytest.fixture
def machine(host: LabHost) -> Iterator[Bus]:
    machines.closed(host)
    with gpus.bus(host) as found:
        yield found


@pytest.fixture
def toolkit(packages: Packages) -> dict[str, str]:
    """The arguments that name the lab's repository of the toolkit."""
    return policy(gpus.publish(packages))


def policy(repository: Repository) -> dict[str, str]:
    return {
        "repository": repository.address.removesuffix("/amd64"),
        "key": repository.key,
        "key_fingerprint": repository.fingerprint,
    }


def accelerated(
    directory: Path, bus: Bus, *words: str, user: str = "root", **arguments: Any
) -> HostRun:
    inventory = controller.write_inventory(
        directory, [bus.host], user=user, data={"accelerated": arguments}
    )
    environment = {"STACKMEND_REPORTS": str(directory / "reports")}
    done = controller.run(
        inventory, "tests/lab/give.py", *(words or ("-y",)), env=environment, timeout=600
    )
    assert "Traceback" not in done.out, done.out
    return HostRun(done, done.report["hosts"][bus.host.name])


def daemon(host: LabHost) -> dict[str, Any]:
    return dict(json.loads(host.read(DAEMON_JSON)))


def test_a_host_without_an_accelerator_has_nothing_to_do_and_is_told(
    machine: Bus, tmp_path: Path
) -> None:
    # A bridge of NVIDIA's and a network card are on the bus: neither computes.
    machine.put("0000:00:01.0", "0x10de", "0x060400")
    machine.put("0000:00:02.0", "0x8086", "0x020000", "igc")
    before = machine.host.snapshot_files("/etc", "/usr/bin")
    told = accelerated(tmp_path, machine)
    assert told.run.rc == 0, told.run.out
    assert "no device of NVIDIA's or AMD's is on the PCI bus: nothing to do" in told.run.out
    assert told.all("done") == []
    assert machine.host.snapshot_files("/etc", "/usr/bin") == before
    # Who insists is told that there is none.
    told = accelerated(tmp_path, machine, vendor="nvidia")
    assert told.run.rc == 1, told.run.out
    assert "no device of NVIDIA's is on the PCI bus" in told.run.out


def test_a_device_without_its_driver_is_found_and_nothing_is_installed(
    machine: Bus, tmp_path: Path
) -> None:
    machine.put(gpus.ADDRESS, "0x10de", "0x030000", "nouveau")
    told = accelerated(tmp_path, machine)
    assert told.run.rc == 0, told.run.out
    assert f"NVIDIA at {gpus.ADDRESS}: its driver is nouveau, not nvidia" in told.run.out
    assert told.all("done") == []
    machine.put(gpus.ADDRESS, "0x10de", "0x030000")
    told = accelerated(tmp_path, machine, vendor="nvidia")
    assert told.run.rc == 1, told.run.out
    assert "its driver is none, not nvidia" in told.run.out
    assert not machine.host.exists("/usr/bin/nvidia-ctk")


def test_the_toolkit_comes_is_registered_beside_others_and_is_proven(
    machine: Bus, toolkit: dict[str, str], tmp_path: Path
) -> None:
    host = machine.host
    machine.nvidia()
    others = {
        **daemon(host),
        "runtimes": {"kata": {"path": "/opt/kata/bin/kata-runtime"}},
        "log-opts": {"max-size": "5m"},
        "log-driver": "json-file",
    }
    host.put(DAEMON_JSON, json.dumps(others, indent=4))
    host.sh("systemctl restart docker")
    running = host.docker("run", "-d", "--restart", "always", "lab/box:1")

    told = accelerated(tmp_path, machine, **toolkit)
    assert told.run.rc == 0, told.run.out
    assert host.sh("dpkg-query -W -f '${Version}' nvidia-container-toolkit") == "1.17.8-1"
    held = daemon(host)
    assert held["runtimes"].pop("nvidia") == {"path": "nvidia-container-runtime", "args": []}
    assert held.pop("features") == {"cdi": True}
    assert held == others
    # Seen from outside: a container that asks for it in either way has the device.
    assert "nvidia" in host.docker("info", "--format", "{{json .Runtimes}}")
    for words in (
        ["--device", "nvidia.com/gpu=all"],
        ["--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=all"],
    ):
        listed = host.docker("run", "--rm", *words, "lab/box:1", "ls", "/dev/nvidia0")
        assert listed == "/dev/nvidia0"
    assert "seen from inside a container: GPU 0: NVIDIA of the lab" in told.run.out
    assert "and again after systemctl daemon-reload" in told.run.out
    # Nothing of the proof is left, and what ran runs.
    assert host.docker("ps", "-a", "-q", "--no-trunc") == running
    assert host.inspect(running)["State"]["Running"]
    assert "stackmend/proof" not in host.docker("image", "ls")
    assert oct(int(host.sh("stat -c %a /etc/cdi/nvidia.yaml"), 8)) == oct(0o644)

    files = host.snapshot_files("/etc", "/var/lib/stackmend/engine")
    mark = host.mark()
    again = accelerated(tmp_path, machine, **toolkit)
    assert again.run.rc == 0, again.run.out
    assert again.all("done") == []
    assert len(host.sessions_since(mark)) == 1
    assert host.snapshot_files("/etc", "/var/lib/stackmend/engine") == files

    # A new driver: what CDI was told is of old, and so is the proof.
    machine.driver("570.86.10")
    told = accelerated(tmp_path, machine, **toolkit)
    assert told.run.rc == 0, told.run.out
    assert [row["verb"] for row in told.all("done")] == ["describe", "prove"]
    assert "libcuda.so.570.86.10" in host.sh("cat /etc/cdi/nvidia.yaml")
    assert accelerated(tmp_path, machine, **toolkit).all("done") == []


def test_another_key_than_the_one_that_is_meant_is_not_taken(
    machine: Bus, toolkit: dict[str, str], tmp_path: Path
) -> None:
    machine.nvidia()
    before = machine.host.snapshot_files("/etc/apt", DAEMON_JSON)
    wrong = {**toolkit, "key_fingerprint": "C95B321B61E88C1809C4F759DDCAE044F796ECB0"}
    told = accelerated(tmp_path, machine, **wrong)
    assert told.run.rc == 1, told.run.out
    assert f"holds the key {toolkit['key_fingerprint']}, not C95B321B61E88C18" in told.run.out
    assert machine.host.snapshot_files("/etc/apt", DAEMON_JSON) == before
    assert not machine.host.exists("/usr/bin/nvidia-ctk")


def test_a_repository_that_is_not_signed_with_its_key_is_taken_back(
    machine: Bus, packages: Packages, tmp_path: Path
) -> None:
    machine.nvidia()
    signed = gpus.publish(packages)
    other = packages.publish(
        "other", "stable", [Deb("other", "1")], key="somebody else <else@example.com>"
    )
    told = accelerated(
        tmp_path,
        machine,
        repository=policy(signed)["repository"],
        key=other.key,
        key_fingerprint=other.fingerprint,
    )
    assert told.run.rc == 1, told.run.out
    assert f"no repository of the host has {gpus.PACKAGE}: " in told.run.out
    assert "http://packages:8080/amd64" in told.run.out
    assert '"accelerator": "none"' in told.run.out
    assert not machine.host.exists("/etc/apt/sources.list.d/stackmend-nvidia.sources")
    machine.host.sh("apt-get update -q -o APT::Update::Error-Mode=any", timeout=120)


def test_what_is_lost_at_a_daemon_reload_is_not_called_proven(
    machine: Bus, toolkit: dict[str, str], tmp_path: Path
) -> None:
    machine.nvidia()
    # Like the old way to give a GPU, it goes when systemd reads its units anew.
    machine.host.put(
        "/etc/systemd/system-generators/lose", f"#!/bin/sh\n: >{gpus.LOST}\n", mode="0755"
    )
    told = accelerated(tmp_path, machine, **toolkit)
    assert told.run.rc == 1, told.run.out
    assert "loses the accelerators once systemd has read its units anew" in told.run.out
    assert "Unknown Error" in told.run.out
    assert not machine.host.exists(PROOF)
    assert machine.host.docker("ps", "-a", "-q") == ""
    machine.host.sh(f"rm /etc/systemd/system-generators/lose {gpus.LOST}")
    told = accelerated(tmp_path, machine, **toolkit)
    assert told.run.rc == 0, told.run.out
    assert [row["verb"] for row in told.all("done")] == ["prove"]


def test_where_cdi_was_turned_off_the_runtime_is_proven_and_gpus_of_others_are_spared(
    machine: Bus, toolkit: dict[str, str], tmp_path: Path
) -> None:
    host = machine.host
    machine.nvidia()
    host.put(DAEMON_JSON, json.dumps({**daemon(host), "features": {"cdi": False}}))
    told = accelerated(tmp_path, machine, **toolkit)
    assert told.run.rc == 0, told.run.out
    assert daemon(host)["features"] == {"cdi": False}
    assert not host.exists("/etc/cdi/nvidia.yaml")
    assert "by runtime" in host.sh(f"cat {PROOF}")
    # Somebody's container was given the GPU by the runtime: it would lose it.
    words = ["--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=all", "--name", "trains"]
    host.docker("run", "-d", *words, "lab/box:1")
    host.sh(f"rm {PROOF}")
    told = accelerated(tmp_path, machine, **toolkit)
    assert told.run.rc == 0, told.run.out
    assert "would take their accelerators from trains" in told.run.out
    assert "and again after" not in told.run.out
    assert host.inspect("trains")["State"]["Running"]


def test_amds_devices_are_given_by_the_numbers_of_their_groups(
    machine: Bus, tmp_path: Path
) -> None:
    host = machine.host
    machine.amd(groups=(44, 4711))
    told = accelerated(tmp_path, machine, user="keeper")
    assert told.run.rc == 0, told.run.out
    assert 'devices: ["/dev/kfd", "/dev/dri"] and group_add: ["4711"]' in told.run.out
    assert "seen from inside a container: /dev/kfd" in told.run.out
    assert "seen from inside a container: /dev/dri/renderD128" in told.run.out
    assert "and again after systemctl daemon-reload" in told.run.out
    again = accelerated(tmp_path, machine)
    assert again.run.rc == 0, again.run.out
    assert again.all("done") == []
    # What was said is true of any container, and false without the group.
    words = ["--user", "65534", "--device", "/dev/kfd", "lab/box:1", "sh", "-c", ": <>/dev/kfd"]
    host.docker("run", "--rm", "--group-add", "4711", *words)
    with pytest.raises(HostCommandError, match="Permission denied"):
        host.docker("run", "--rm", *words)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    machine: Bus, toolkit: dict[str, str], tmp_path: Path
) -> None:
    machine.nvidia()
    before = machine.host.snapshot_files("/etc", "/usr/bin", "/var/lib/stackmend")
    told = accelerated(tmp_path, machine, "--dry", **toolkit)
    assert told.run.rc == 0, told.run.out
    assert "install nvidia-container-toolkit" in told.run.out
    assert machine.host.snapshot_files("/etc", "/usr/bin", "/var/lib/stackmend") == before


def test_one_run_takes_a_new_machine_to_containers_that_reach_its_gpu(
    closed_host: LabHost, packages: Packages, tmp_path: Path
) -> None:
    """The engine comes in the same run: what is decided before it is there has to hold after."""
    found = policy(gpus.publish(packages))
    section = {
        **machines.engine(closed_host),
        "log": {"max_size": "10m", "max_file": 3},
        "toolkit_repository": found["repository"],
        "toolkit_key": found["key"],
        "toolkit_key_fingerprint": found["key_fingerprint"],
    }
    inventory = controller.write_inventory(tmp_path, [closed_host], stack={"engine": section})
    with gpus.bus(closed_host) as machine:
        machine.nvidia()
        done = controller.run(inventory, "deploy/bootstrap.py", "-y", timeout=900)
        assert done.rc == 0, done.out
        assert "seen from inside a container: GPU 0: NVIDIA of the lab" in done.out
        held = daemon(closed_host)
        assert held["log-opts"] == {"max-size": "10m", "max-file": "3"}
        assert set(held["runtimes"]) == {"nvidia"}
        mark = closed_host.mark()
        again = controller.run(inventory, "deploy/bootstrap.py", "-y")
        assert again.rc == 0, again.out
        operations = again.report["hosts"][closed_host.name]["operations"]
        assert [row for operation in operations for row in operation["done"]] == []
        assert len(closed_host.sessions_since(mark)) <= 2


def test_a_run_that_is_killed_is_taken_up_by_the_next(
    machine: Bus, toolkit: dict[str, str], tmp_path: Path
) -> None:
    machine.nvidia()
    running = machine.host.docker("run", "-d", "--restart", "always", "lab/box:1")
    inventory = controller.write_inventory(tmp_path, [machine.host], data={"accelerated": toolkit})
    for said, seconds in (("→ install", 1), ("→ install", 6), ("→ set", 1.5), ("→ prove", 0.5)):
        with controller.start(inventory, "tests/lab/give.py", "-y") as killed:
            if killed.wait_for_output(said, 30):
                time.sleep(seconds)
            killed.kill()
    told = accelerated(tmp_path, machine, **toolkit)
    assert told.run.rc == 0, told.run.out
    assert "nvidia" in daemon(machine.host)["runtimes"]
    assert machine.host.sh("dpkg --audit") == ""
    assert machine.host.docker("ps", "-a", "-q", "--no-trunc") == running
    assert accelerated(tmp_path, machine, **toolkit).all("done") == []
