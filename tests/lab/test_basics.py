"""``access.basics`` on a bare host: its clock, its ports, its security updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.lab import controller
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import HostRun

RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"


def basics(directory: Path, host: LabHost, *words: str, **arguments: Any) -> HostRun:
    inventory = controller.write_inventory(directory, [host], data={"basics": arguments})
    environment = {"STACKMEND_REPORTS": str(directory / "reports")}
    done = controller.run(
        inventory, "tests/lab/give.py", *(words or ("-y",)), env=environment, timeout=600
    )
    assert "Traceback" not in done.out, done.out
    return HostRun(done, done.report["hosts"][host.name])


def test_ports_are_added_to_those_that_are_kept_and_given_back(
    bare_host: LabHost, tmp_path: Path
) -> None:
    host = bare_host
    host.sh(
        f"echo 33000-33002,50000 >{RESERVED}; sysctl -w net.ipv4.ip_local_port_range='32768 60999'"
    )
    host.put("/etc/sysctl.d/60-theirs.conf", "net.ipv4.ip_local_reserved_ports = 45000\n")
    wanted = ["127.0.0.1:40000-40001", 8000, "50000/udp"]
    told = basics(tmp_path, host, ports=wanted)
    assert told.run.rc == 0, told.run.out
    assert [row["subject"] for row in told.all("done")] == ["40000-40001"]
    assert host.sh(f"cat {RESERVED}") == "33000-33002,40000-40001,50000"
    (record,) = told.records
    inventory = controller.write_inventory(tmp_path, [host], data={"restore": [record]})
    back = controller.run(inventory, "tests/lab/free_ports.py", "-y")
    assert back.rc == 0, back.out
    assert host.sh(f"cat {RESERVED}") == "33000-33002,50000"

    told = basics(tmp_path, host, ports=wanted)
    assert told.run.rc == 0, told.run.out
    # After the next start of the host, with what somebody else's file keeps.
    host.sh(f"echo >{RESERVED}; sysctl -q --system", check=False)
    assert host.sh(f"cat {RESERVED}") == "33000-33002,40000-40001,45000,50000"
    mark = host.mark()
    again = basics(tmp_path, host, ports=wanted)
    assert again.run.rc == 0, again.run.out
    assert again.all("done") == []
    assert len(host.sessions_since(mark)) == 1


def test_a_host_that_is_a_container_has_no_clock_of_its_own(
    bare_host: LabHost, tmp_path: Path
) -> None:
    told = basics(tmp_path, bare_host)
    assert told.run.rc == 0, told.run.out
    assert told.all("done") == []
    assert not bare_host.exists("/usr/lib/systemd/systemd-timesyncd")


def as_a_machine(host: LabHost) -> None:
    """Have the host take itself for a machine of its own, with a clock that may be kept right."""
    host.put("/usr/local/bin/systemd-detect-virt", "#!/bin/sh\necho none\nexit 1\n", mode="0755")
    host.sh("rm -f /.dockerenv")
    # Asks nobody: no packet leaves the lab.
    host.put(
        "/etc/systemd/timesyncd.conf.d/lab.conf", "[Time]\nNTP=127.0.0.1\nFallbackNTP=127.0.0.1\n"
    )
    host.put(
        "/etc/systemd/system/systemd-timesyncd.service.d/lab.conf",
        "[Unit]\nConditionVirtualization=\nConditionCapability=\n",
    )


def test_a_service_that_keeps_the_clock_right_is_installed_and_started(
    bare_host: LabHost, tmp_path: Path
) -> None:
    host = bare_host
    as_a_machine(host)
    told = basics(tmp_path, host)
    assert told.run.rc == 0, told.run.out
    assert [(row["verb"], row["subject"]) for row in told.all("done")] == [
        ("install", "systemd-timesyncd")
    ]
    assert host.sh("systemctl is-active systemd-timesyncd") == "active"
    assert host.sh("systemctl is-enabled systemd-timesyncd") == "enabled"
    assert basics(tmp_path, host).all("done") == []
    # Stopped and taken out of the start: it is brought back, and nothing is installed.
    host.sh("systemctl disable --now systemd-timesyncd")
    told = basics(tmp_path, host)
    assert told.run.rc == 0, told.run.out
    assert [row["verb"] for row in told.all("done")] == ["start"]
    assert host.sh("systemctl is-active systemd-timesyncd") == "active"
    # Masked: somebody wants that.
    host.sh("systemctl mask --now systemd-timesyncd")
    told = basics(tmp_path, host)
    assert told.run.rc == 1, told.run.out
    assert "systemctl unmask systemd-timesyncd.service" in told.run.out
    assert '"clock": False' in told.run.out
    told = basics(tmp_path, host, clock=False)
    assert told.run.rc == 0, told.run.out


def test_a_clock_that_is_away_is_told_and_from_a_minute_on_is_a_failure(
    bare_host: LabHost, tmp_path: Path
) -> None:
    # The clock of the machine under the lab is not to be touched: the host's `date` is.
    program = (
        '#!/bin/sh\n[ "$*" = +%s ] || exec /bin/date "$@"\necho $(($(/bin/date +%s) + AWAY))\n'
    )
    for seconds, code in ((20, 0), (-600, 1)):
        away = program.replace("AWAY", str(seconds))
        bare_host.put("/usr/local/bin/date", away, mode="0755")
        told = basics(tmp_path, bare_host)
        assert told.run.rc == code, told.run.out
        (finding,) = told.all("findings")
        side = "ahead of" if seconds > 0 else "behind"
        assert f"s {side} this machine's" in finding["cause"]
        told_seconds = int(finding["cause"].split("at least ")[1].split()[0])
        assert abs(seconds) - 15 <= told_seconds <= abs(seconds)


def test_security_updates_are_installed_by_the_host_itself(
    bare_host: LabHost, tmp_path: Path
) -> None:
    host = bare_host
    told = basics(tmp_path, host, security_updates=True)
    # The lab's hosts have these masked.
    assert told.run.rc == 1, told.run.out
    assert "systemctl unmask apt-daily.timer apt-daily-upgrade.timer" in told.run.out
    host.sh("systemctl unmask apt-daily.timer apt-daily-upgrade.timer")
    told = basics(tmp_path, host, security_updates=True)
    assert told.run.rc == 0, told.run.out
    assert {row["verb"] for row in told.all("done")} >= {"install", "set", "start"}
    effective = host.sh("apt-config dump APT::Periodic")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in effective
    assert 'APT::Periodic::Update-Package-Lists "1";' in effective
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.sh(f"systemctl is-active {timer}; systemctl is-enabled {timer}") == (
            "active\nenabled"
        )
    host.sh("unattended-upgrade --dry-run", timeout=180)
    again = basics(tmp_path, host, security_updates=True)
    assert again.run.rc == 0, again.run.out
    assert again.all("done") == []
    # Not asked for any more: it is left as it is.
    assert basics(tmp_path, host).all("done") == []
    assert host.exists("/etc/apt/apt.conf.d/52stackmend-security-updates")
