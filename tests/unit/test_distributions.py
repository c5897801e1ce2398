"""What is result, and what would be run, on distributions that no test runs on."""

from __future__ import annotations

import pytest

from stackmend.basics import commands as basics_commands
from stackmend.basics.plan import plan as plan_basics
from stackmend.basics.spec import BasicsSpec
from stackmend.decision import Refusal
from stackmend.engine import commands
from stackmend.engine.accelerators.plan import plan as plan_accelerators
from stackmend.engine.accelerators.spec import NVIDIA_FINGERPRINT, NVIDIA_KEY, Acceleration
from stackmend.engine.accelerators.state import Accelerators, Device
from stackmend.engine.plan import Plan, Trust, WriteSource, plan_engine, select_packages
from stackmend.engine.spec import DOCKER_FINGERPRINTS, Installation
from tests.unit import distributions

DOCKER = "https://download.docker.com/linux"
GPU = Accelerators(
    devices=(
        Device(
            address="0000:01:00.0",
            vendor="nvidia",
            model="0x2330",
            kind="0x030200",
            driver="nvidia",
        ),
    ),
    driver="570.86.10",
)


def spec(**options: object) -> Installation:
    return Installation.model_validate(options)


def refused(result: Plan) -> str:
    assert not result.actions
    return " | ".join(f"{one.reason} -> {one.remedy}" for one in result.refusals)


def test_every_file_is_read_as_what_it_describes() -> None:
    found = {name: distributions.engine(name).release for name in distributions.NAMES}
    assert {name: (one.id, one.version, one.codename) for name, one in found.items()} == {
        "alpine-3.22": ("alpine", "3.22.1", ""),
        "fedora-42": ("fedora", "42", ""),
        "linuxmint-22.2": ("linuxmint", "22.2", "noble"),
        "rhel-9.4": ("rhel", "9.4", ""),
        "rocky-9.6": ("rocky", "9.6", ""),
        "ubuntu-24.04": ("ubuntu", "24.04", "noble"),
    }
    assert found["rocky-9.6"].like == ("rhel", "centos", "fedora")
    assert found["rhel-9.4"].name == "Red Hat Enterprise Linux 9.4 (Plow)"


@pytest.mark.parametrize(
    ("name", "key", "kind", "line"),
    [
        ("ubuntu-24.04", f"{DOCKER}/ubuntu/gpg", "apt", f"URIs: {DOCKER}/ubuntu\nSuites: noble\n"),
        ("linuxmint-22.2", f"{DOCKER}/ubuntu/gpg", "apt", "Suites: noble\nComponents: stable\n"),
        (
            "fedora-42",
            f"{DOCKER}/fedora/gpg",
            "dnf",
            f"baseurl={DOCKER}/fedora/$releasever/$basearch/stable\n",
        ),
        ("rhel-9.4", f"{DOCKER}/rhel/gpg", "dnf", f"baseurl={DOCKER}/rhel/$releasever/"),
        ("rocky-9.6", f"{DOCKER}/centos/gpg", "dnf", f"baseurl={DOCKER}/centos/$releasever/"),
    ],
)
def test_dockers_own_repository(name: str, key: str, kind: str, line: str) -> None:
    result = plan_engine(spec(channel="docker"), distributions.engine(name))
    trust, write, install = result.actions
    assert (trust.key, trust.fingerprints) == (key, (DOCKER_FINGERPRINTS[kind],))
    (file,) = write.files
    assert line in file.text
    assert trust.keyring in file.text
    assert install.packages == (
        "docker-ce",
        "docker-ce-cli",
        "containerd.io",
        "docker-buildx-plugin",
        "docker-compose-plugin",
    )
    assert not any(action.destructive for action in result.actions)


def test_the_exact_versions_are_named_as_each_package_manager_takes_them() -> None:
    for name, having, engine, compose in (
        (
            "ubuntu-24.04",
            "docker-ce",
            "docker-ce=5:28.5.2-1~ubuntu.24.04~noble",
            "docker-compose-plugin=5.0.2-1~ubuntu.24.04~noble",
        ),
        (
            "rocky-9.6",
            "docker-ce",
            "docker-ce-3:24.0.5-1.el9",
            "docker-compose-plugin-0:2.20.2-1.el9",
        ),
    ):
        told = distributions.described(name)
        listed = dict(line.split() for line in told["engines"][having]["packages"])
        state = distributions.engine(name)
        found = select_packages(
            spec(), state, {one: [version] for one, version in listed.items()}, listed
        )
        assert not isinstance(found, Refusal)
        assert {engine, compose} <= set(found.names)
        command = commands.install(state.manager, "", found.names).get_raw_value()
        assert f" install /var/lib/stackmend/engine {told['manager']} '' '' engine " in command
        assert engine in command


def test_the_distributions_own_engine() -> None:
    ubuntu = plan_engine(spec(channel="distro"), distributions.engine("ubuntu-24.04")).actions[-1]
    assert ubuntu.packages == ("docker.io", "docker-compose-v2")
    alpine = plan_engine(spec(channel="distro"), distributions.engine("alpine-3.22")).actions[-1]
    assert alpine.packages == ("docker", "docker-cli-compose")
    for name in ("fedora-42", "rhel-9.4", "rocky-9.6"):
        told = refused(plan_engine(spec(channel="distro"), distributions.engine(name)))
        assert '"channel": "docker"' in told
    told = refused(plan_engine(spec(channel="docker"), distributions.engine("alpine-3.22")))
    assert "Docker has no repository for Alpine Linux v3.22" in told
    assert '"channel": "distro"' in told


def test_what_is_there_and_good_is_left_and_what_would_fight_is_refused() -> None:
    assert plan_engine(
        spec(channel="distro"), distributions.engine("ubuntu-24.04", "docker.io")
    ).empty
    told = refused(plan_engine(spec(), distributions.engine("ubuntu-24.04", "docker.io")))
    assert "docker.io 26.1.3 is installed, and would conflict with docker-ce" in told
    assert '"replace": ["docker.io"]' in told
    told = refused(plan_engine(spec(), distributions.engine("fedora-42", "moby-engine")))
    assert "moby-engine 29.4.2 is installed" in told
    assert '"replace": ["moby-engine"]' in told
    result = plan_engine(
        spec(replace=("moby-engine",)), distributions.engine("fedora-42", "moby-engine")
    )
    install = result.actions[-1]
    assert install.destructive
    assert "moby-engine" in install.removing
    assert "dnf install moby-engine" in install.undo


def test_what_is_too_old_is_upgraded_only_with_consent() -> None:
    old = distributions.engine("rocky-9.6", "old")
    told = refused(plan_engine(spec(), old))
    assert "Engine 20.10.21 is older than 23; Compose 2.12.2 is older than 2.20" in told
    assert '"upgrade": True' in told
    assert plan_engine(spec(upgrade=True), old).actions[-1].verb == "install"
    assert "install" not in [
        action.verb
        for action in plan_engine(spec(), distributions.engine("rocky-9.6", "docker-ce")).actions
    ]


@pytest.mark.parametrize(
    ("name", "path", "line"),
    [
        (
            "ubuntu-24.04",
            "/etc/apt/sources.list.d/stackmend-nvidia.sources",
            "URIs: https://nvidia.github.io/libnvidia-container/stable/deb/amd64\nSuites: /\n",
        ),
        (
            "rocky-9.6",
            "/etc/yum.repos.d/stackmend-nvidia.repo",
            "baseurl=https://nvidia.github.io/libnvidia-container/stable/rpm/$basearch\n",
        ),
        ("fedora-42", "/etc/yum.repos.d/stackmend-nvidia.repo", "gpgcheck=0\nrepo_gpgcheck=1\n"),
    ],
)
def test_nvidias_toolkit(name: str, path: str, line: str) -> None:
    having = "moby-engine" if name == "fedora-42" else "docker-ce"
    state = distributions.engine(name, having)
    result = plan_accelerators(Acceleration(), state, GPU)
    trust, write, install, set_, *_ = result.actions
    assert isinstance(trust, Trust)
    assert isinstance(write, WriteSource)
    assert (trust.key, trust.fingerprints) == (NVIDIA_KEY, (NVIDIA_FINGERPRINT,))
    assert write.files[0].path == path
    assert line in write.files[0].text
    assert install.subject == "nvidia-container-toolkit"
    assert set_.subject == "/etc/docker/daemon.json"


def test_nvidia_has_nothing_for_alpine() -> None:
    state = distributions.engine("alpine-3.22")
    (refusal,) = plan_accelerators(Acceleration(), state, GPU).refusals
    assert "NVIDIA has no packages of it for Alpine Linux v3.22" in refusal.reason
    assert '"accelerator": "none"' in refusal.remedy


@pytest.mark.parametrize(
    ("name", "package", "unit"),
    [
        ("ubuntu-24.04", "systemd-timesyncd", "systemd-timesyncd.service"),
        ("fedora-42", "chrony", "chronyd.service"),
        ("rocky-9.6", "chrony", "chronyd.service"),
        ("alpine-3.22", "chrony", "chronyd"),
    ],
)
def test_what_keeps_the_clock_right(name: str, package: str, unit: str) -> None:
    state = distributions.basics(name)
    (action,) = plan_basics(BasicsSpec(), state).actions
    assert (action.packages, action.units) == ((package,), (unit,))
    told = distributions.described(name)
    command = basics_commands.command(action, state).get_raw_value()
    assert command.endswith(f" install {told['manager']} {told['init']} {package} {unit}")


def test_security_updates_come_by_what_each_distribution_has() -> None:
    spec = BasicsSpec(clock=False, security_updates=True)
    fedora = distributions.basics("fedora-42", packages=[], settings=["dnf 5"], timers=[])
    verbs = [(one.verb, one.subject) for one in plan_basics(spec, fedora).actions]
    assert verbs == [
        ("install", "dnf5-plugin-automatic"),
        ("set", "security updates"),
        ("start", "dnf5-automatic.timer"),
    ]
    timer = ["Id=dnf-automatic.timer", "LoadState=loaded", "ActiveState=active"]
    rocky = distributions.basics(
        "rocky-9.6",
        packages=["dnf-automatic"],
        settings=["upgrade_type default", "apply_updates no"],
        timers=[*timer, "UnitFileState=enabled", ""],
    )
    (action,) = plan_basics(spec, rocky).actions
    assert (action.verb, action.cause) == ("set", "not set: apply_updates yes")
    (refusal,) = plan_basics(spec, distributions.basics("alpine-3.22")).refusals
    assert "Alpine Linux v3.22 has nothing that installs them by itself" in refusal.reason
    assert '"security_updates": False' in refusal.remedy
