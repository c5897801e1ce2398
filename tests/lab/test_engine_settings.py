"""What is said of an engine's settings, on hosts whose daemon.json is somebody else's as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.engine_runs import DAEMON_JSON, Runs, changed, run_container
from tests.lab.hosts import LabHost

LOG = {"max_size": "10m", "max_file": 3}
#: What the lab needs, and what somebody else set: in this order, indented with tabs.
THEIRS = (
    '{\n\t"labels": ["rack=7"],\n\t"insecure-registries": ["registry:5000"],\n'
    '\t"log-driver": "json-file",\n\t"log-opts": {"tag": "{{.Name}}", "max-size": "1g"},\n'
    '\t"shutdown-timeout": 20\n}\n'
)


def engine_pid(host: LabHost) -> str:
    return host.sh("systemctl show -p MainPID --value docker.service")


def held(host: LabHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.read(DAEMON_JSON))
    return found


def set_by_hand(host: LabHost, text: str) -> None:
    host.put(DAEMON_JSON, text)
    host.sh("systemctl restart docker")


def test_settings_join_those_of_others(host: LabHost, tmp_path: Path) -> None:
    set_by_hand(host, THEIRS)
    plain, kept = run_container(host, "plain"), run_container(host, "kept", "--restart=always")
    run_container(host, "behind", "--network=container:plain", "-e", "PORT=81")
    host.docker("stop", "-t", "0", run_container(host, "ended"))
    runs = Runs(tmp_path, host)
    told = runs.settings(log=LOG, dns=["192.0.2.53"], mtu=1400)
    assert told.run.rc == 0, told.run.out
    assert list(held(host).items()) == [
        ("labels", ["rack=7"]),
        ("insecure-registries", ["registry:5000"]),
        ("log-driver", "json-file"),
        ("log-opts", {"tag": "{{.Name}}", "max-size": "10m", "max-file": "3"}),
        ("shutdown-timeout", 20),
        ("dns", ["192.0.2.53"]),
        ("mtu", 1400),
    ]
    assert b'\n\t"labels"' in host.read(DAEMON_JSON), "it is indented as it was"
    # What ran runs, the same containers; what was stopped stays so.
    running = host.docker("ps", "-q", "--no-trunc").split()
    assert len(running) == 3
    assert {plain, kept} <= set(running)
    # The engine has it: asked, not read.
    shown = host.docker("network", "inspect", "bridge", "-f", "{{json .Options}}")
    assert json.loads(shown)["com.docker.network.driver.mtu"] == "1400"
    assert host.docker("run", "--rm", "lab/box:1", "cat", "/etc/resolv.conf").count("192.0.2.53")
    copies = host.sh("cat /var/lib/stackmend/engine/kept/daemon.json.*Z") + "\n"
    assert copies == THEIRS
    pid = engine_pid(host)
    again = runs.settings(log=LOG, dns=["192.0.2.53"], mtu=1400)
    assert again.run.rc == 0, again.run.out
    assert not changed(again), again.run.out
    assert engine_pid(host) == pid
    assert host.sh("ls /var/lib/stackmend/engine").split() == ["kept", "working"]


def test_what_an_engine_can_take_up_restarts_nothing(host: LabHost, tmp_path: Path) -> None:
    one = run_container(host, "one")
    pid, began = engine_pid(host), host.inspect("one")["State"]["StartedAt"]
    told = Runs(tmp_path, host).settings(registry_mirrors=["http://registry:5000"])
    assert told.run.rc == 0, told.run.out
    assert engine_pid(host) == pid
    assert host.inspect(one)["State"]["StartedAt"] == began
    mirrors = json.loads(host.docker("info", "-f", "{{json .RegistryConfig.Mirrors}}"))
    assert mirrors == ["http://registry:5000/"]


def test_containers_live_on_with_live_restore(host: LabHost, tmp_path: Path) -> None:
    run_container(host, "one")
    runs = Runs(tmp_path, host)
    assert runs.settings(live_restore=True).run.rc == 0
    # One that would be gone for good, were it stopped.
    host.docker("run", "-d", "--rm", "--name", "passing", "lab/box:1")
    before = host.identities()
    told = runs.settings(live_restore=True, mtu=1400)
    assert told.run.rc == 0, told.run.out
    assert host.identities() == before


def test_comments_are_taken_out(host: LabHost, tmp_path: Path) -> None:
    theirs = (
        '{\n    // the lab\'s own\n    "insecure-registries": ["registry:5000"], /* two\n'
        '    lines */ "labels": ["note=// none"]\n}\n'
    )
    host.put(DAEMON_JSON, theirs)
    run_container(host, "one")
    told = Runs(tmp_path, host).settings(log=LOG)
    assert told.run.rc == 0, told.run.out
    assert held(host)["labels"] == ["note=// none"]
    assert "it holds comments, with which dockerd does not start" in told.run.out
    assert host.sh("cat /var/lib/stackmend/engine/kept/daemon.json.*Z") + "\n" == theirs
    host.sh("systemctl restart docker")
    assert host.docker("ps", "-a", "--format", "{{.Names}}") == "one"


def as_directory(host: LabHost) -> str:
    host.sh(f"rm {DAEMON_JSON} && mkdir {DAEMON_JSON}")
    return f"rmdir {DAEMON_JSON}"


def as_dangling_link(host: LabHost) -> str:
    host.sh(f"ln -sf /nowhere/daemon.json {DAEMON_JSON}")
    return "link to /nowhere/daemon.json"


def holding(text: str, said: str) -> Callable[[LabHost], str]:
    def put(host: LabHost) -> str:
        host.put(DAEMON_JSON, text)
        return said

    return put


def given_as_flag(host: LabHost) -> str:
    host.sh(
        "mkdir -p /etc/systemd/system/docker.service.d; systemctl cat docker.service"
        " | sed -n 's/^ExecStart=/&/p' | tail -n 1 > /tmp/start"
    )
    start = host.sh("cat /tmp/start")
    host.put(
        "/etc/systemd/system/docker.service.d/mtu.conf",
        f"[Service]\nExecStart=\n{start} --mtu=1280 --log-opt max-size=5m --log-opt max-file=2\n",
    )
    host.sh("systemctl daemon-reload && systemctl restart docker")
    return "/etc/systemd/system/docker.service.d/mtu.conf"


REFUSED: dict[str, Callable[[LabHost], str]] = {
    "a directory": as_directory,
    "a link to nowhere": as_dangling_link,
    "no JSON": holding('{\n  "labels": ["a"],\n  "mtu": 1400,\n}\n', "line 4"),
    "a list": holding("[]\n", "a list, not a mapping"),
    "a key twice": holding('{"mtu": 1400, "mtu": 1300}', 'duplicate key "mtu"'),
    "a key that is a flag": given_as_flag,
}


def test_what_cannot_be_merged_is_refused(host: LabHost, tmp_path: Path) -> None:
    run_container(host, "one")
    text = host.read(DAEMON_JSON)
    for how, arrange in REFUSED.items():
        said = arrange(host)
        before, pid = host.identities(), engine_pid(host)
        files = host.snapshot_files("/etc/docker", "/etc/systemd/system")
        told = Runs(tmp_path, host).settings(mtu=1400)
        assert told.run.rc != 0, how
        assert not told.all("done"), told.run.out
        assert said in told.run.out, how
        assert (host.identities(), engine_pid(host)) == (before, pid), how
        assert host.snapshot_files("/etc/docker", "/etc/systemd/system") == files, how
        host.sh(f"rm -rf {DAEMON_JSON}")
        host.put(DAEMON_JSON, text)


def test_a_flag_that_says_the_same_is_enough(host: LabHost, tmp_path: Path) -> None:
    given_as_flag(host)
    pid = engine_pid(host)
    told = Runs(tmp_path, host).settings(mtu=1280)
    assert told.run.rc == 0, told.run.out
    assert not changed(told), told.run.out
    assert engine_pid(host) == pid


def test_a_link_stays_one(host: LabHost, tmp_path: Path) -> None:
    before = held(host)
    host.sh(f"mkdir -p /srv/settings && mv {DAEMON_JSON} /srv/settings/engine.json")
    host.sh(
        f"ln -s /srv/settings/engine.json {DAEMON_JSON} && chmod 0640 /srv/settings/engine.json"
    )
    told = Runs(tmp_path, host).settings(mtu=1400)
    assert told.run.rc == 0, told.run.out
    assert host.sh(f"readlink {DAEMON_JSON}") == "/srv/settings/engine.json"
    assert held(host) == {**before, "mtu": 1400}
    assert host.sh("stat -c %a /srv/settings/engine.json") == "640"


def test_what_dockerd_refuses_is_not_put_in_place(host: LabHost, tmp_path: Path) -> None:
    run_container(host, "one")
    before, pid, text = host.identities(), engine_pid(host), host.read(DAEMON_JSON)
    told = Runs(tmp_path, host).settings(settings={"no-such-setting": True})
    assert told.run.rc != 0
    assert "dockerd refuses" in told.run.out
    assert "no-such-setting" in told.run.out
    assert (host.identities(), engine_pid(host)) == (before, pid)
    assert host.read(DAEMON_JSON) == text


@pytest.mark.parametrize("before", ["a file", "none"])
def test_an_engine_that_does_not_come_up_gets_its_file_back(
    host: LabHost, tmp_path: Path, before: str
) -> None:
    if before == "none":
        host.sh(f"rm {DAEMON_JSON} && systemctl restart docker")
    one = run_container(host, "one")
    run_container(host, "two", "--network=container:one", "-e", "PORT=81")
    text = host.sh(f"cat {DAEMON_JSON}", check=False)
    # dockerd finds nothing wrong with it until it starts.
    told = Runs(tmp_path, host).settings(settings={"storage-driver": "zfs"}, mtu=1400)
    assert told.run.rc != 0
    assert "as it was before, and the engine runs with that" in told.run.out, told.run.out
    assert "zfs" in told.run.out.split("runs with that", 1)[1], "and it is told why"
    assert host.sh(f"cat {DAEMON_JSON}", check=False) == text
    assert host.sh("systemctl is-active docker") == "active"
    assert one in host.docker("ps", "-q", "--no-trunc")
    assert host.sh("docker ps -q | wc -l") == "2"
    # It is not left half-way: what can be taken up is, at once.
    again = Runs(tmp_path, host).settings(mtu=1400)
    assert again.run.rc == 0, again.run.out
    assert held(host)["mtu"] == 1400


def test_a_container_that_would_be_gone_is_asked_for(host: LabHost, tmp_path: Path) -> None:
    host.docker("run", "-d", "--rm", "--name", "passing", "lab/box:1")
    runs, before = Runs(tmp_path, host), host.identities()
    told = runs.settings(mtu=1400)
    assert told.run.rc != 0
    assert host.identities() == before
    assert '"replace": ["container:passing"]' in told.run.out
    told = runs.settings(mtu=1400, replace=["container:passing"])
    assert told.run.rc == 0, told.run.out
    assert held(host)["mtu"] == 1400


def test_a_dry_run_tells_and_changes_nothing(host: LabHost, tmp_path: Path) -> None:
    run_container(host, "one")
    files, before = host.snapshot_files("/etc", "/var/lib/stackmend"), host.identities()
    told = Runs(tmp_path, host).settings("--dry", mtu=1400)
    assert told.run.rc == 0
    assert "set /etc/docker/daemon.json: mtu" in told.run.out
    assert host.snapshot_files("/etc", "/var/lib/stackmend") == files
    assert host.identities() == before


#: Moment of the run → what can be seen of it on the host.
MOMENTS = {
    "the list of what runs is there": "[ -s /var/lib/stackmend/engine/left ]",
    "the file is in place": f"grep -q {{mtu}} {DAEMON_JSON}",
    "the engine is down": "! systemctl is-active -q docker",
    "the engine and its containers are up": "[ ! -e /var/lib/stackmend/engine/pending ]"
    f" && grep -q {{mtu}} {DAEMON_JSON}",
}


def test_a_killed_controller_leaves_nothing_half_done(host: LabHost, tmp_path: Path) -> None:
    names = {"one", "two"}
    for name in sorted(names):
        run_container(host, name)
    runs = Runs(tmp_path, host)
    for mtu, (moment, seen) in enumerate(MOMENTS.items(), start=1400):
        with runs.start(("settings",), {"mtu": mtu}) as running:
            host.wait_for(seen.format(mtu=mtu), 30)
            running.kill()
        told = runs.settings(mtu=mtu)
        assert told.run.rc == 0, (moment, told.run.out)
        assert held(host)["mtu"] == mtu, moment
        assert set(host.docker("ps", "--format", "{{.Names}}").split()) == names, moment
        assert host.sh("ls /var/lib/stackmend/engine").split() == ["kept", "working"]


def test_whoever_comes_while_containers_are_brought_back_waits_for_them(
    host: LabHost, tmp_path: Path
) -> None:
    names = {"one", "two"}
    for name in sorted(names):
        run_container(host, name)
    slow = '#!/bin/sh\n[ "$1" != start ] || sleep 3\nexec /usr/bin/docker "$@"\n'
    host.put("/usr/local/bin/docker", slow, "0755")
    runs = Runs(tmp_path, host)
    with runs.start(("settings",), {"mtu": 1400}) as running:
        # The wrapper itself: the script that calls it has these words in its text.
        host.wait_for("pgrep -f '^/bin/sh /usr/local/bin/[d]ocker start'", 30)
        running.kill()
    told = runs.settings(mtu=1400)
    assert told.run.rc == 0, told.run.out
    assert set(host.docker("ps", "--format", "{{.Names}}").split()) == names


def test_a_host_that_lost_its_power_half_way(host: LabHost, tmp_path: Path) -> None:
    run_container(host, "one")
    runs = Runs(tmp_path, host)
    with runs.start(("settings",), {"mtu": 1400}) as running:
        host.wait_for(f"grep -q 1400 {DAEMON_JSON}", 30)
        host.power_cut()
        running.kill()
    told = runs.settings(mtu=1400)
    assert told.run.rc == 0, told.run.out
    assert held(host)["mtu"] == 1400
    assert host.docker("ps", "--format", "{{.Names}}") == "one"


def test_sudo_is_enough(host: LabHost, tmp_path: Path) -> None:
    told = Runs(tmp_path, host, user="keeper").settings(mtu=1400)
    assert told.run.rc == 0, told.run.out
    assert held(host)["mtu"] == 1400
