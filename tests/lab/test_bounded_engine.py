"""An engine that hangs: told within a minute, other hosts done, and restarted with consent."""

from __future__ import annotations

import pytest

from tests.lab.bounded import MINUTE, Shops, list_reasons
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost

#: Host by host: what hangs, itself or what it works upon.
HANGING = ("dockerd", "containerd")


@pytest.fixture(scope="module")
def shops(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shops:
    shops = Shops(tmp_path_factory.mktemp("bounded_engine"), lab.take(3))
    done = shops.run()
    assert done.rc == 0, done.out
    return shops


def list_running(host: LabHost) -> set[str]:
    return set(host.docker("ps", "--format", "{{.Names}}").split())


def test_a_hung_engine_is_told_and_with_consent_restarted(shops: Shops) -> None:
    hung = dict(zip(shops.hosts, HANGING, strict=False))
    well = shops.hosts[-1]
    running = {host: list_running(host) for host in hung}
    assert all(len(names) == 3 for names in running.values()), running
    pids = {host: host.sh(f"pgrep -x {name}") for host, name in hung.items()}
    shops.greet("while it hangs")
    for host, pid in pids.items():
        host.sh(f"kill -STOP {pid}")
    try:
        # The stack alone first: what runs is known without containerd, what would run is not.
        done = shops.run()
        assert done.rc == 1, done.out
        for host in hung:
            reasons = list_reasons(done, host)
            assert "the Docker daemon hangs: it does not answer within 10 s" in reasons, reasons
            assert any("systemctl restart docker" in reason for reason in reasons), reasons
            (stack,) = done.report["hosts"][host.name]["operations"]
            assert not stack["done"]
            assert stack["seconds"] < MINUTE / 2, (stack["seconds"], done.out)
        # The other host has what was to be done, and none of it waited for these.
        assert shops.greets(well)

        done = shops.run(stacks={host: {"engine": {"channel": "distro"}} for host in hung})
        assert done.rc == 1, done.out
        assert done.seconds < MINUTE, (done.seconds, done.out)
        for host, name in hung.items():
            (engine, *_) = done.report["hosts"][host.name]["operations"]
            (refusal,) = engine["refusals"]
            assert refusal["reason"].startswith(f"{name.replace('dockerd', 'the engine')} hangs")
            assert '"allow": ["restart"]' in refusal["remedy"]
            assert not engine["done"]
            assert host.sh(f"pgrep -x {name}") == pids[host], "nothing was started or ended"

        consent = {"engine": {"channel": "distro", "allow": ["restart"]}}
        done = shops.run(stacks=dict.fromkeys(hung, consent))
        assert done.rc == 0, done.out
        for host in hung:
            (engine, *_) = done.report["hosts"][host.name]["operations"]
            assert [row["verb"] for row in engine["done"]] == ["restart"]
    finally:
        for host, pid in pids.items():
            host.sh(f"kill -CONT {pid}", check=False)
    for host, name in hung.items():
        assert host.sh(f"pgrep -x {name}") != pids[host]
        # What ran before runs again, as it was declared meanwhile.
        assert list_running(host) == running[host]
        assert shops.greets(host)
