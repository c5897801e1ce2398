"""An engine on machines that have none, or another one, judged from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lab import machines
from tests.lab.engine_runs import BOTH, DAEMON_JSON, Runs, changed, run_container
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.observed import Kind
from tests.lab.packages import Packages

KEYRING = "/etc/apt/keyrings/stackmend-docker.asc"
SOURCE = "/etc/apt/sources.list.d/stackmend-docker.sources"


#: What stays of an installation in the directory where things are remembered.
REMEMBERED = ["kept", "packages.log", "working"]


def remembered(host: LabHost) -> list[str]:
    return host.sh("ls /var/lib/stackmend/engine").split()


def version(host: LabHost) -> str:
    return host.docker("version", "-f", "{{.Server.Version}}")


def contents(host: LabHost, *paths: str) -> dict[str, str]:
    """Every file below paths, without directories: those show that something came and went."""
    found = host.snapshot_files(*paths)
    return {path: told for path, told in found.items() if not told.startswith("d ")}


def works(host: LabHost) -> None:
    """The engine runs containers, and Compose answers."""
    host.load_images("lab/box:1")
    assert host.docker("run", "--rm", "lab/box:1", "echo", "here") == "here"
    compose = host.docker("compose", "version", "--short").removeprefix("v")
    assert tuple(map(int, compose.partition("-")[0].split(".")[:2])) >= (2, 20)
    assert host.sh("systemctl is-enabled docker.service") == "enabled"


@pytest.mark.parametrize(("kind", "suite"), [("bare", "trixie"), ("trixie", "sid")])
def test_a_machine_gets_the_engine_of_a_newer_suite(
    lab: Lab, tmp_path: Path, kind: Kind, suite: str
) -> None:
    (host,) = lab.take(1, kind)
    runs = Runs(tmp_path, host)
    policy = {"channel": "distro", "repository": f"{machines.mirror()} {suite} main"}
    if suite == "sid":
        # A mirror may be a picture of a day that is long past, and this suite alone tells.
        host.put("/etc/apt/apt.conf.d/98frozen", 'Acquire::Check-Valid-Until "false";\n')
    told = runs.installed(**policy)
    assert told.run.rc == 0, told.run.out
    works(host)
    again = runs.installed(**policy)
    assert again.run.rc == 0, again.run.out
    assert not changed(again), again.run.out
    # Nothing but the engine comes from there.
    shown = "apt-cache policy cron rsync | awk '/Installed:|Candidate:/ { print $2 }'"
    cron, newest_cron, rsync, newest_rsync = host.sh(shown).split()
    assert (cron, rsync) == (newest_cron, newest_rsync)
    pinned = host.sh(f"apt-cache policy | grep -B1 n={suite}")
    assert "100 " in pinned
    assert "500 " not in pinned


def test_an_old_distributions_own_is_refused_before_anything_is_done(
    bare_host: LabHost, tmp_path: Path
) -> None:
    files = contents(bare_host, "/etc", "/usr/bin")
    told = Runs(tmp_path, bare_host).installed(channel="distro")
    assert told.run.rc != 0
    said = json.dumps(told.all("refusals"))
    assert "offers Engine 20.10" in said
    assert "Compose 1.29" in said
    assert '\\"channel\\": \\"docker\\"' in said
    assert "trixie main" in said
    assert contents(bare_host, "/etc", "/usr/bin") == files


def test_a_repository_that_is_not_there_leaves_no_trace(bare_host: LabHost, tmp_path: Path) -> None:
    files = contents(bare_host, "/etc")
    told = Runs(tmp_path, bare_host).installed(
        channel="distro", repository="http://127.0.0.1:9/debian trixie main"
    )
    assert told.run.rc != 0
    assert "cannot read the package lists" in told.run.out
    assert contents(bare_host, "/etc") == files
    bare_host.sh("apt-get update -q", timeout=120)


class TestDockersRepository:
    """The flow of Docker's own repository, with stand-ins that hold Debian's engine."""

    def test_key_repository_version_and_upgrade(
        self, closed_host: LabHost, packages: Packages, tmp_path: Path
    ) -> None:
        host, runs = closed_host, Runs(tmp_path, closed_host)
        there = packages.docker("28.4.0", "28.5.1", "29.0.0")
        policy: dict[str, Any] = {
            "repository": there.line,
            "key_fingerprint": there.fingerprint,
            "version": "28.4",
        }
        told = runs.installed(**policy)
        assert told.run.rc == 0, told.run.out
        works(host)
        shown = "dpkg-query -W -f '${Version}\n' docker-ce docker-ce-cli"
        assert host.sh(shown).split() == ["5:28.4.0-1~debian.13~trixie"] * 2
        assert f"Signed-By: {KEYRING}" in host.sh(f"cat {SOURCE}")
        # Nothing else trusts it.
        assert (
            host.sh("ls /etc/apt/trusted.gpg.d /etc/apt/trusted.gpg 2> /dev/null", False).count(
                "docker"
            )
            == 0
        )
        # The host's own upgrades keep to it.
        host.sh("apt-get update -q && apt-get -y -q upgrade", timeout=300)
        assert host.sh(shown).split()[0].startswith("5:28.4.0-")
        again = runs.installed(**policy)
        assert again.run.rc == 0, again.run.out
        assert not changed(again), again.run.out

        one = run_container(host, "one")
        run_container(host, "two", "--network=container:one", "-e", "PORT=81")
        newer = {**policy, "version": "28.5"}
        told = runs.installed(**newer)
        assert told.run.rc != 0
        assert '"upgrade": True' in told.run.out
        assert host.sh(shown).split()[0].startswith("5:28.4.0-")
        told = runs.installed(**newer, upgrade=True)
        assert told.run.rc == 0, told.run.out
        assert host.sh(shown).split()[0].startswith("5:28.5.1-")
        assert one in host.docker("ps", "-q", "--no-trunc")
        assert sorted(host.docker("ps", "--format", "{{.Names}}").split()) == ["one", "two"]

    def test_another_key_is_never_in_place(
        self, closed_host: LabHost, packages: Packages, tmp_path: Path
    ) -> None:
        host = closed_host
        there = packages.docker("28.5.1")
        other = packages.publish("other", "stable", [], key="somebody else <x@example.com>")
        files = contents(host, "/etc/apt", "/usr/bin")
        told = Runs(tmp_path, host).installed(
            repository=there.line, key=other.key, key_fingerprint=there.fingerprint
        )
        assert told.run.rc != 0
        assert other.fingerprint in told.run.out
        assert there.fingerprint in told.run.out
        assert contents(host, "/etc/apt", "/usr/bin") == files
        # Docker's own fingerprint is what counts where none is given.
        told = Runs(tmp_path, host).installed(repository=there.line)
        assert told.run.rc != 0
        assert "9DC858229FC7DD38854AE2D88D81803C0EBFCD88" in told.run.out
        assert contents(host, "/etc/apt", "/usr/bin") == files

    def test_a_key_of_this_machine_on_a_host_that_can_fetch_nothing(
        self, closed_host: LabHost, packages: Packages, tmp_path: Path
    ) -> None:
        there = packages.docker("28.5.1")
        key = tmp_path / "mirror.asc"
        key.write_text(closed_host.sh(f"curl -fsS {there.key}"))
        closed_host.sh("rm /usr/bin/curl")
        told = Runs(tmp_path, closed_host, user="operator").installed(
            repository=there.line, key=str(key), key_fingerprint=there.fingerprint
        )
        assert told.run.rc == 0, told.run.out
        assert closed_host.sh("systemctl is-active docker") == "active"

    def test_the_distributions_engine_makes_room_and_its_containers_stay(
        self, closed_host: LabHost, packages: Packages, tmp_path: Path
    ) -> None:
        host, runs = closed_host, Runs(tmp_path, closed_host)
        assert runs.installed(channel="distro").run.rc == 0
        host.load_images("lab/box:1")
        one = run_container(host, "one", "-v", "data:/data")
        host.docker("exec", "one", "sh", "-c", "echo kept > /data/file")
        there = packages.docker("28.5.1")
        policy = {"repository": there.line, "key_fingerprint": there.fingerprint}
        before = contents(host, "/etc/apt", "/usr/bin/docker")
        told = runs.installed(**policy)
        assert told.run.rc != 0
        assert '"replace": ["docker.io"]' in told.run.out
        assert contents(host, "/etc/apt", "/usr/bin/docker") == before
        told = runs.installed(**policy, replace=["docker.io"])
        assert told.run.rc == 0, told.run.out
        assert one in host.docker("ps", "-q", "--no-trunc")
        assert host.docker("exec", "one", "cat", "/data/file") == "kept"
        gone = host.sh("dpkg-query -W -f '${Package} ${db:Status-Status}\n' docker.io", False)
        assert "installed" not in gone.split()[1:]
        again = runs.installed(**policy)
        assert again.run.rc == 0, again.run.out
        assert not changed(again), again.run.out


class TestSettingsOfANewEngine:
    """What daemon.json is to hold is there when the package starts the engine."""

    def test_it_is_started_once(self, closed_host: LabHost, tmp_path: Path) -> None:
        host, runs = closed_host, Runs(tmp_path, closed_host)
        policy: dict[str, Any] = {"channel": "distro", "mtu": 1400, "log": {"max_size": "10m"}}
        told = runs.execute(BOTH, policy)
        assert told.run.rc == 0, told.run.out
        # Two steps, each with its way back, though one command does both.
        done = {one["verb"]: one for one in told.all("done")}
        assert set(done) == {"set", "install"}, told.run.out
        assert done["set"]["undo"] == f"rm {DAEMON_JSON}; systemctl restart docker"
        assert '"set"' in host.sh("cat /var/lib/stackmend/journal*")
        found = {one["subject"]: one["cause"] for one in told.all("findings")}
        assert "is not set, should be 1400" in found["mtu"]
        starts = host.sh("journalctl -u docker.service -o cat | grep -c '^Starting docker.service'")
        assert starts == "1"
        works(host)
        shown = host.docker("network", "inspect", "bridge", "-f", "{{json .Options}}")
        assert json.loads(shown)["com.docker.network.driver.mtu"] == "1400"
        assert host.sh(f"stat -c %a {DAEMON_JSON}") == "644"
        assert remembered(host) == REMEMBERED
        again = runs.execute(BOTH, policy)
        assert again.run.rc == 0, again.run.out
        assert not changed(again), again.run.out

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"no-such-setting": True}, "dockerd refuses these settings"),
            ({"storage-driver": "zfs"}, "the engine does not come up with these settings"),
        ],
    )
    def test_one_that_does_not_start_with_them_starts_without(
        self, closed_host: LabHost, tmp_path: Path, settings: dict[str, Any], said: str
    ) -> None:
        host, runs = closed_host, Runs(tmp_path, closed_host)
        policy = machines.engine(host)
        told = runs.execute(BOTH, {**policy, "settings": settings})
        assert told.run.rc != 0
        assert "does not come up with its settings yet" in told.run.out, told.run.out
        assert said in told.run.out, told.run.out
        assert host.sh(f"[ ! -e {DAEMON_JSON} ] && echo none") == "none"
        assert version(host)
        assert remembered(host) == REMEMBERED
        told = runs.execute(BOTH, {**policy, "mtu": 1400})
        assert told.run.rc == 0, told.run.out

    def test_a_file_that_is_there_is_left_to_engine_settings(
        self, closed_host: LabHost, tmp_path: Path
    ) -> None:
        host, runs = closed_host, Runs(tmp_path, closed_host)
        policy = machines.engine(host)
        theirs = '{\n\t"labels": ["rack=7"]\n}\n'
        host.sh("mkdir -p /etc/docker")
        host.put(DAEMON_JSON, theirs)
        told = runs.installed(**policy, mtu=1400)
        assert told.run.rc == 0, told.run.out
        assert host.read(DAEMON_JSON).decode() == theirs
        told = runs.execute(BOTH, {**policy, "mtu": 1400})
        assert told.run.rc == 0, told.run.out
        assert json.loads(host.read(DAEMON_JSON)) == {"labels": ["rack=7"], "mtu": 1400}

    @pytest.mark.parametrize(
        ("first", "second"),
        [({"mtu": 1400}, {"mtu": 1400}), ({"settings": {"storage-driver": "zfs"}}, {"mtu": 1400})],
    )
    def test_a_host_that_lost_its_power_once_they_were_in_place(
        self, closed_host: LabHost, tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
    ) -> None:
        host, runs = closed_host, Runs(tmp_path, closed_host)
        policy = machines.engine(host)
        with runs.start(BOTH, {**policy, **first}) as running:
            host.wait_for(f"[ -e {DAEMON_JSON} ]", 240)
            host.power_cut()
            running.kill()
        told = runs.execute(BOTH, {**policy, **second})
        assert told.run.rc == 0, told.run.out
        assert version(host)
        assert json.loads(host.read(DAEMON_JSON)) == {"mtu": 1400}
        shown = host.docker("network", "inspect", "bridge", "-f", "{{json .Options}}")
        assert json.loads(shown)["com.docker.network.driver.mtu"] == "1400"
        assert not set(remembered(host)) - set(REMEMBERED)


def test_what_else_would_be_in_the_way(trixie_host: LabHost, tmp_path: Path) -> None:
    host, runs = trixie_host, Runs(tmp_path, trixie_host)
    policy = machines.engine(host)
    host.put("/usr/local/bin/dockerd", "#!/bin/sh\n", mode="0755")
    told = runs.installed(**policy)
    assert told.run.rc != 0
    assert "/usr/local/bin/dockerd belongs to no package" in told.run.out
    host.sh("rm /usr/local/bin/dockerd")
    install = "apt-get install -y -q --no-install-recommends podman-docker"
    host.sh(f"apt-get update -q && {install}", timeout=300)
    told = runs.installed(**policy)
    assert told.run.rc != 0
    assert '"replace": ["podman-docker"]' in told.run.out
    told = runs.installed(**policy, replace=["podman-docker"])
    assert told.run.rc == 0, told.run.out
    works(host)
    assert host.sh("podman --version"), "podman itself stays"
