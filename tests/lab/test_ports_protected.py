"""What is never ended, with the broadest consent there is: looked at from outside.

One host carries every protected holder; its engine keeps containers alive without it
(``live-restore``), has no proxies (``userland-proxy``) and listens on TCP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.lab.fixtures import Lab
from tests.lab.holders import Shelf, pids
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import HostRun, Runs
from tests.lab.untouched import untouched

DAEMON = {
    "insecure-registries": ["registry:5000"],
    "live-restore": True,
    "userland-proxy": False,
}
#: The engine's own TCP socket, a proxy whose container is gone, a container of this engine.
ENGINE, PROXY, CONTAINER = 2375, 21040, 21041

#: Program → the way to find what must still be the same process afterwards.
PROTECTED = {
    "init": "echo 1",
    "sshd": "systemctl show -p MainPID --value ssh",
    "dockerd": "systemctl show -p MainPID --value docker",
    "containerd": "systemctl show -p MainPID --value containerd",
    "docker-proxy": "pgrep -x docker-proxy",
    "resolved": "systemctl show -p MainPID --value systemd-resolved",
}


@dataclass
class Ward:
    """The host, the ports of what is protected, and who must survive."""

    host: LabHost
    shelf: Shelf
    runs: Runs
    ports: dict[str, str] = field(default_factory=dict)

    def living(self) -> dict[str, str]:
        """Program → its pid and start time, and the sockets of the whole host."""
        steps = [
            f"echo {name} $(for p in $({find}); do echo $p; sed 's/.*) //' /proc/$p/stat "
            "| cut -d ' ' -f 20; done)"
            for name, find in PROTECTED.items()
        ]
        listed = self.host.sh("; ".join(steps)).splitlines()
        rows = dict(line.partition(" ")[::2] for line in listed)
        sockets = self.host.sh("ss -Hltun | awk '{ print $1, $5 }' | sort")
        return {**rows, "sockets": sockets}


@pytest.fixture(scope="module")
def ward(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    host = lab.take(1)[0]
    host.put("/etc/docker/daemon.json", json.dumps(DAEMON))
    host.put(
        "/etc/systemd/system/docker.service.d/tcp.conf",
        "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://127.0.0.1:"
        f"{ENGINE} --containerd=/run/containerd/containerd.sock\n",
    )
    host.sh("systemctl daemon-reload; systemctl restart docker; systemctl start systemd-resolved")
    # A proxy writes its success to descriptor 3.
    host.sh(
        f"systemd-run -q --collect --unit=leaked sh -c 'exec docker-proxy -proto tcp "
        f"-host-ip 0.0.0.0 -host-port {PROXY} -container-ip 172.17.0.99 -container-port 80 "
        "3> /dev/null'"
    )
    shelf = Shelf(host)
    shelf.put("python")
    host.docker("run", "-d", "--name", "plain", "-p", f"{CONTAINER}:80", "lab/box:1")
    host.wait_for(f"ss -Hltn 'sport = :{PROXY}' | grep -q . && ss -Hlun | grep -q 127.0.0.53")
    listening = host.sh("ss -Hltnp").splitlines()
    containerd = next(row for row in listening if '"containerd"' in row).split()[3]
    # The outer engine's name server listens here, and is no process of this host.
    hidden = next(row for row in listening if "127.0.0.11:" in row).split()[3]
    ward = Ward(host, shelf, Runs(tmp_path_factory.mktemp("protected"), host))
    ward.ports = {
        "sshd": "22",
        "dockerd": str(ENGINE),
        "containerd": containerd,
        "docker-proxy": str(PROXY),
        "resolved": "53/udp",
        "resolved tcp": "53",
        "unknown owner": hidden,
    }
    yield ward
    shelf.clear()


@pytest.fixture(scope="module")
def refused(ward: Ward) -> tuple[HostRun, dict[str, str], dict[str, str]]:
    """The run with consent to everything, and who lived before and after it."""
    before = ward.living()
    # What it may end and nobody forbids is kept from outgoing connections: that was planned.
    with untouched(ward.host, "/etc/sysctl.d/zz-stackmend-reserved-ports.conf"):
        result = ward.runs.stop(list(ward.ports.values()))
    return result, before, ward.living()


def number(port: str) -> int:
    return int(port.partition("/")[0].rpartition(":")[2])


def test_nothing_protected_was_touched(
    refused: tuple[HostRun, dict[str, str], dict[str, str]],
) -> None:
    result, before, after = refused
    assert all(before[name] for name in PROTECTED), before
    assert after == before
    assert result.run.rc == 1, result.run.out
    assert result.host["outcome"] == "refused"
    # To keep a port from outgoing connections ends nothing.
    assert {row["verb"] for what in ("planned", "done") for row in result.all(what)} <= {"reserve"}


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("sshd", "sshd"),
        ("dockerd", "dockerd"),
        ("containerd", "containerd"),
        ("docker-proxy", "docker-proxy"),
        ("resolved", "DNSStubListener=no"),
        ("resolved tcp", "/run/systemd/resolve/resolv.conf"),
        ("unknown owner", "cannot be seen"),
    ],
)
def test_the_refusal_says_who_and_what_to_do_instead(
    ward: Ward, refused: tuple[HostRun, dict[str, str], dict[str, str]], name: str, output: str
) -> None:
    result = refused[0]
    refusals = result.about("refusals", number(ward.ports[name]))
    assert refusals, result.run.out
    assert output in str(refusals)
    assert all(row["remedy"] for row in refusals)
    assert result.rules(number(ward.ports[name])) == []


def test_the_session_of_the_run_itself_is_no_holder_to_end(ward: Ward) -> None:
    """Our own login's process has port 22 as well, and so has every other one."""
    with ward.runs.host_session() as alive:
        result = ward.runs.stop(["22"])
        assert alive()
    assert result.host["outcome"] == "refused"


def test_one_protected_holder_keeps_its_neighbours_from_being_ended(ward: Ward) -> None:
    """What would not be enough is not begun."""
    before = ward.shelf.picture("python")
    result = ward.runs.stop([*ward.shelf.desired(["python"]), "22"])
    assert result.host["outcome"] == "refused"
    assert ward.shelf.picture("python") == before


def test_what_the_user_protects_is_never_ended(ward: Ward) -> None:
    before = ward.shelf.picture("python")
    result = ward.runs.stop(ward.shelf.desired(["python"]), protect=["exe:*/python3*"])
    assert result.run.rc == 1, result.run.out
    assert result.host["outcome"] == "refused"
    assert "protect" in str(result.all("refusals"))
    assert ward.shelf.picture("python") == before


# The engine without proxies has the sockets itself


def test_the_engine_that_holds_a_port_itself_stays_and_its_container_goes(ward: Ward) -> None:
    host = ward.host
    assert "dockerd" in host.sh(f"ss -Hltnp 'sport = :{CONTAINER}'")
    before, identity = ward.living(), host.inspect("plain")["Id"]
    found = ward.runs.fact(str(CONTAINER))["ports"][f"{CONTAINER}/tcp"]
    (holder,) = found["holders"]
    assert (holder["kind"], holder["container"]["id"]) == ("container", identity)
    result = ward.runs.stop([CONTAINER])
    assert result.run.rc == 0, result.run.out
    assert ward.living()["dockerd"] == before["dockerd"]
    assert host.inspect("plain")["State"]["Status"] == "exited"
    host.docker("start", "plain")


# The engine is down, and its containers are not


def test_while_the_engine_is_down_nothing_is_freed(ward: Ward) -> None:
    host, shelf = ward.host, ward.shelf
    pid = host.inspect("plain")["State"]["Pid"]
    host.sh("systemctl stop docker.socket docker.service")
    try:
        assert host.sh(f"ss -Hltn 'sport = :{CONTAINER}'") == ""
        assert host.run(f"kill -0 {pid}").returncode == 0
        before, held = ward.living(), shelf.picture("python")
        # Nothing listens on the first, which its container still has; the second is anybody's.
        result = ward.runs.stop([CONTAINER, *shelf.desired(["python"])])
        alone = ward.runs.stop([CONTAINER])
        assert ward.living() == before
        assert shelf.picture("python") == held
        assert host.run(f"kill -0 {pid}").returncode == 0
    finally:
        host.sh("systemctl start docker")
    assert host.inspect("plain")["State"]["Pid"] == pid
    for refused in (result, alone):
        assert refused.run.rc == 1, refused.run.out
        assert refused.host["outcome"] == "refused"
        assert "daemon does not run" in str(refused.all("refusals"))
        assert (refused.all("planned"), refused.all("done")) == ([], [])


# The number of a process comes back before the act

#: Waits until the container is told to end; by then the run has read who holds what. It ends the
#: process that is next, and gives its number to another one: what the kernel does to who waits.
SWAP = r"""
read -r _ < <(docker events --filter event=kill --filter container=slow --format x)
kill -9 "$1"
while kill -0 "$1" 2> /dev/null; do sleep 0.01; done
for try in $(seq 500); do
    echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid
    setsid sleep 1000 < /dev/null > /dev/null 2>&1 &
    [ $! != "$1" ] || { echo "$1" > /run/swapped; exit; }
    kill -9 $!
done
"""


def test_a_number_that_came_back_is_not_ended(ward: Ward) -> None:
    host, shelf = ward.host, ward.shelf
    (pid,) = pids(host, shelf["python"].port)
    slow = "trap 'sleep 3; exit 0' TERM; httpd -f -p 80 -h /www & wait"
    host.docker("run", "-d", "--name", "slow", "-p", "21042:80", "lab/box:1", "sh", "-c", slow)
    host.put("/run/swap.sh", SWAP)
    host.sh(f"systemd-run -q --collect --unit=swap -p KillMode=none bash /run/swap.sh {pid}")
    result = ward.runs.stop([21042, *shelf.desired(["python"])])
    assert host.read("/run/swapped").decode().strip() == str(pid), result.run.out
    ended = [row["verb"] for row in result.all("done")]
    assert ended[0] == "stop container", ended
    assert host.sh(f"cat /proc/{pid}/comm") == "sleep"
    host.sh(f"kill -9 {pid}; docker rm -f slow")
    # Free for whatever reason, or not done: never a signal to who has the number now.
    assert (result.run.rc == 0) is (result.host["outcome"] == "changed"), result.run.out
