"""An engine that somebody broke: mended where the settings say so, judged from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lab.engine_runs import DAEMON_JSON, Runs, changed, run_container
from tests.lab.hosts import LabHost

KEPT = "/var/lib/stackmend/engine/kept"
CHANNEL = {"channel": "distro"}

#: What somebody wrote → what dockerd says of it.
BROKEN = {
    '{"dns": [': "line 1, column 10",
    '{"dns": 5}': "cannot unmarshal number",
    '{"insecure-registries": ["registry:5000"], "no-such-key": 1}': "no-such-key",
    '{"hosts": ["unix:///var/run/docker.sock"]}': "hosts as a flag",
}


def held(host: LabHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.read(DAEMON_JSON))
    return found


def kept_broken(host: LabHost) -> str:
    """The content of the broken files that were kept, the last one first."""
    return host.sh(f"cat $(ls -r {KEPT}/*.broken)")


def is_up(host: LabHost) -> bool:
    return host.sh("timeout 20 docker ps >/dev/null 2>&1 && echo up", check=False) == "up"


def test_a_broken_file_is_put_back(host: LabHost, tmp_path: Path) -> None:
    runs = Runs(tmp_path, host)
    assert runs.settings(mtu=1400).run.rc == 0
    one = run_container(host, "one", "--restart=always")
    good = host.read(DAEMON_JSON)
    for text, reason in BROKEN.items():
        host.put(DAEMON_JSON, text)
        host.sh("systemctl restart docker", check=False)
        assert not is_up(host), "dockerd does not start with it"
        told = runs.installed(**CHANNEL)
        assert told.run.rc != 0, told.run.out
        (refusal,) = told.all("refusals")
        assert reason in refusal["reason"]
        assert f"{KEPT}/proven.json" in refusal["reason"]
        assert '"allow": ["config"]' in refusal["remedy"]
        assert not changed(told)
        assert host.read(DAEMON_JSON).decode() == text
        told = runs.installed(allow=["config"], **CHANNEL)
        assert told.run.rc == 0, told.run.out
        assert host.read(DAEMON_JSON) == good
        assert kept_broken(host).startswith(text)
        assert is_up(host)
        host.wait_for(f"docker ps -q --no-trunc | grep -q {one}", 30)
    again = runs.installed(allow=["config"], **CHANNEL)
    assert again.run.rc == 0, again.run.out
    assert not changed(again), again.run.out


def test_an_engine_that_runs_goes_on(host: LabHost, tmp_path: Path) -> None:
    """Broken under an engine that runs: it would not start again, and need not stop for it."""
    runs = Runs(tmp_path, host)
    assert runs.settings(mtu=1400).run.rc == 0
    run_container(host, "one")
    before, pid = host.identities(), host.sh("pidof dockerd")
    host.put(DAEMON_JSON, '{"dns": [')
    # What is set in the same run joins what is put back.
    told = runs.told(("installed", "settings"), {**CHANNEL, "allow": ["config"], "mtu": 1400})
    assert told.run.rc == 0, told.run.out
    assert held(host)["mtu"] == 1400
    assert (host.identities(), host.sh("pidof dockerd")) == (before, pid)
    host.put(DAEMON_JSON, '{"mtu": "much"}')
    told = runs.settings(allow=["config"], mtu=1380)
    assert told.run.rc == 0, told.run.out
    assert held(host)["mtu"] == 1380
    assert "insecure-registries" in held(host), "what others had set comes back with it"
    assert '"mtu": "much"' in kept_broken(host)
    assert is_up(host)


def test_without_a_proven_file_the_one_before_or_none(host: LabHost, tmp_path: Path) -> None:
    runs = Runs(tmp_path, host)
    host.put(DAEMON_JSON, '{"dns": [')
    told = runs.installed(allow=["config"], **CHANNEL)
    assert told.run.rc != 0
    (refusal,) = told.all("refusals")
    assert "stackmend knows no earlier one" in refusal["reason"]
    assert host.read(DAEMON_JSON) == b'{"dns": ['
    # The newest is broken itself.
    host.sh(f"mkdir -p -m 0700 {KEPT}")
    host.put(f"{KEPT}/daemon.json.20260101T000000.000000Z", '{"mtu": 1300}')
    host.put(f"{KEPT}/daemon.json.20260102T000000.000000Z", '{"mtu": []}')
    host.put(f"{KEPT}/daemon.json.20260103T000000.000000Z.broken", "{}")
    told = runs.installed(allow=["config"], **CHANNEL)
    assert told.run.rc == 0, told.run.out
    assert held(host) == {"mtu": 1300}
    assert is_up(host)
