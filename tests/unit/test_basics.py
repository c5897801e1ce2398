"""What is decided about a host's basics, and what its scripts make of a file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.basics.plan import Plan, plan
from stackmend.basics.spec import BasicsSpec
from stackmend.basics.state import Clock, HostBasics, Unit, Updates
from stackmend.connection import read_script
from stackmend.ports.spec import compress_ports, list_unreserved, parse_ports, parse_ranges

TIMESYNCD = Unit(name="systemd-timesyncd.service", active=True, enabled=True)


def state(*services: Unit, away: int = 0, **changes: Any) -> HostBasics:
    clock = {"asked": 1000.0, "answered": 1001.5, "now": 1001 + away, "services": services}
    clock |= {name: changes.pop(name) for name in ("outside", "synchronized") if name in changes}
    return HostBasics(
        **{"manager": "apt", "init": "systemd", **changes}, clock=Clock.model_validate(clock)
    )


def decided(host: HostBasics, **spec: Any) -> Plan:
    return plan(BasicsSpec.model_validate(spec), host)


def test_what_is_well_is_left() -> None:
    assert decided(state(TIMESYNCD)) == Plan()
    assert decided(state(outside="docker")) == Plan()
    assert decided(state(), clock=False) == Plan()


def test_a_clock_that_nothing_keeps_right() -> None:
    (install,) = decided(state()).actions
    assert (install.verb, install.packages) == ("install", ("systemd-timesyncd",))
    idle = Unit(name="chrony.service")
    failed = Unit(name="ntpsec.service", enabled=True)
    (start,) = decided(state(idle, failed)).actions
    assert (start.verb, start.units) == ("start", ("ntpsec.service",))
    # It runs, and will not after the next start.
    (start,) = decided(state(TIMESYNCD.model_copy(update={"enabled": False}))).actions
    assert start.units == ("systemd-timesyncd.service",)
    (refusal,) = decided(state(Unit(name="chrony.service", load="masked"))).refusals
    assert "systemctl unmask chrony.service" in refusal.remedy
    (refusal,) = decided(state(manager="")).refusals
    assert '"clock": False' in refusal.remedy
    (refusal,) = decided(state(root=False)).refusals
    assert "only root can do this: install systemd-timesyncd" in refusal.reason


@pytest.mark.parametrize(
    ("away", "told", "blocks"),
    [
        (0, "", False),
        (2, "", False),
        (-3, "", False),
        (5, "at least 4 s ahead of", False),
        (-30, "at least 28 s behind", False),
        (300, "at least 300 s ahead of", True),
        (-3600, "at least 3598 s behind", True),
    ],
)
def test_a_clock_that_is_away(away: int, told: str, blocks: bool) -> None:
    found = decided(state(TIMESYNCD, away=away)).findings
    assert [one.blocks for one in found] == ([blocks] if told else [])
    assert told in "".join(one.cause for one in found)


def test_what_can_be_done_about_a_clock_depends_on_whose_it_is() -> None:
    for more, said in (
        ({"outside": "docker"}, "set the clock of the machine it is on"),
        ({"synchronized": True}, "check this machine's clock"),
        ({"synchronized": False}, "UDP port 123"),
    ):
        (finding,) = decided(state(TIMESYNCD, away=100, **more)).findings
        assert said in finding.cause


@given(st.floats(0, 1e9), st.floats(0, 100), st.floats(0, 1), st.floats(-1e6, 1e6, allow_nan=False))
def test_a_skew_is_never_more_than_there_is(
    asked: float, took: float, when: float, away: float
) -> None:
    read = asked + took * when + away
    clock = Clock(asked=asked, answered=asked + took, now=int(read // 1))
    assert abs(clock.skew) <= abs(away) + 1e-3
    assert clock.skew == 0 or (clock.skew > 0) == (away > 0)
    assert abs(clock.skew) >= abs(away) - took - 1 - 1e-3


def test_ports_that_are_kept_already_are_not_asked_for_again() -> None:
    (action,) = decided(state(TIMESYNCD, reserved="40000-40001"), ports="8000,40000-40003").actions
    assert (action.verb, action.subject) == ("reserve", "40002-40003")
    assert decided(state(TIMESYNCD, reserved="40000-40003"), ports="8000,40000-40003") == Plan()
    assert decided(state(TIMESYNCD, ephemeral=(50000, 60000)), ports="40000") == Plan()


@given(st.sets(st.integers(1, 65535)), st.sets(st.integers(1, 65535)))
def test_what_is_reserved_is_exactly_what_is_missing(wanted: set[int], kept: set[int]) -> None:
    missing = list_unreserved(parse_ports(sorted(wanted)), (32768, 60999), compress_ports(kept))
    assert missing == {port for port in wanted if 32768 <= port <= 60999} - kept
    assert parse_ranges(compress_ports(missing)) == missing


WELL = Updates(
    packages=("unattended-upgrades",),
    settings={
        "APT::Periodic::Update-Package-Lists": "1",
        "APT::Periodic::Unattended-Upgrade": "7",
    },
    timers=(
        Unit(name="apt-daily.timer", active=True, enabled=True),
        Unit(name="apt-daily-upgrade.timer", active=True, enabled=True),
    ),
)


def test_security_updates() -> None:
    assert decided(state(TIMESYNCD, updates=WELL), security_updates=True) == Plan()
    # Not asked for: nothing is said about them.
    assert decided(state(TIMESYNCD, updates=Updates())) == Plan()
    off = {**WELL.settings, "APT::Periodic::Unattended-Upgrade": "0"}
    found = decided(
        state(TIMESYNCD, updates=WELL.model_copy(update={"settings": off})), security_updates=True
    )
    assert [one.verb for one in found.actions] == ["set"]
    masked = WELL.model_copy(
        update={"timers": (Unit(name="apt-daily.timer", load="masked"), *WELL.timers[1:])}
    )
    found = decided(state(TIMESYNCD, updates=masked), security_updates=True)
    assert not found.actions
    assert "systemctl unmask apt-daily.timer" in found.refusals[0].remedy


AUTOMATIC = """[commands]
#  What kind of upgrade to perform:
# default                            = all available upgrades
# security                           = only the security upgrades
upgrade_type = default
random_sleep = 0

# Maximum time in seconds to wait until the system is on-line and able to
network_online_timeout = 60
download_updates = yes
apply_updates = no

[emitters]
emit_via = stdio
"""


@pytest.mark.skipif(shutil.which("awk") is None, reason="no awk")
@pytest.mark.parametrize(
    ("before", "changed"),
    [
        (AUTOMATIC, {"apply_updates = no": "apply_updates = yes"}),
        (
            AUTOMATIC.replace("upgrade_type = default", "upgrade_type=newest"),
            {
                "upgrade_type=newest": "upgrade_type = security",
                "apply_updates = no": "apply_updates = yes",
            },
        ),
    ],
)
def test_dnfs_file_keeps_all_its_other_lines(
    tmp_path: Path, before: str, changed: dict[str, str]
) -> None:
    after = automatic(tmp_path, before)
    expected = before
    for old, new in changed.items():
        expected = expected.replace(old, new)
    assert after == expected
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.read_text() == before
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_dnfs_file_gets_what_it_lacks(tmp_path: Path) -> None:
    wanted = ["upgrade_type = security", "apply_updates = yes"]
    assert automatic(tmp_path, None).splitlines() == ["[commands]", *wanted]
    lines = automatic(tmp_path, "[commands]\nrandom_sleep = 0\n[base]\ndebuglevel = 1\n")
    assert lines.splitlines() == [
        "[commands]",
        "random_sleep = 0",
        *wanted,
        "[base]",
        "debuglevel = 1",
    ]


def automatic(directory: Path, before: str | None) -> str:
    """What the script makes of dnf's file, which lies elsewhere here."""
    file = directory / "automatic.conf"
    file.unlink(missing_ok=True)
    if before is not None:
        file.write_text(before)
    script = "".join(read_script("stackmend.connection", name) for name in ("walk", "put"))
    script += read_script("stackmend.basics", "updates").replace("/etc/dnf", str(directory))
    subprocess.run(["sh", "-c", script, "updates", "dnf", str(directory / "kept")], check=True)
    return file.read_text()


@pytest.mark.parametrize(
    ("said", "tries", "code"), [("Could not get lock", 3, 0), ("no such", 1, 1)]
)
def test_a_lock_of_apts_is_waited_for_and_nothing_else(
    tmp_path: Path, said: str, tries: int, code: int
) -> None:
    asked = tmp_path / "asked"
    for name, script in (
        ("dpkg", "exit 0"),
        (
            "apt-get",
            f"echo x >>{asked}; [ $(wc -l <{asked}) -gt {2} ] || {{ echo E: {said}; exit 100; }}",
        ),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    script = read_script("stackmend.basics", "install").replace("sleep 5", "sleep 0")
    done = subprocess.run(
        ["sh", "-c", script, "install", "apt", "", "chrony", ""],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert (said in done.stderr.decode()) is (code != 0)
    # Where it came to that, what was asked for first is followed by the installation.
    assert len(asked.read_text().splitlines()) == (tries if code else tries + 1)
