"""What is decided about a host's engine: where it comes from, what it may replace, what is refused.

What is said here of Ubuntu, Fedora, RHEL's kin and Alpine is decided from hosts as they are
described, and has not been carried out on one.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from stackmend.decision import Refusal
from stackmend.engine.plan import (
    Plan,
    add_first_settings,
    find_source,
    plan_engine,
    plan_settings,
    select_packages,
)
from stackmend.engine.plan.source import Source
from stackmend.engine.spec import DOCKER_FINGERPRINTS, Installation, Settings
from stackmend.engine.state import Config, Daemon, HostEngine, Origin, Program, Release
from tests.unit import engine_world as world

KEY = "A" * 40
DOCKER_SOURCE = "/etc/apt/sources.list.d/stackmend-docker.sources"


def spec(**options: Any) -> Installation:
    return Installation.model_validate(options)


def verbs(result: Plan) -> list[str]:
    return [action.verb for action in result.actions]


def refused(result: Plan) -> str:
    assert not result.actions, "what is refused does nothing"
    assert result.refusals
    return " | ".join(f"{one.reason} -> {one.remedy}" for one in result.refusals)


def with_files(state: HostEngine, policy: Installation) -> HostEngine:
    """The host once what says where its packages come from is in place."""
    origin = find_source(policy, state)
    assert isinstance(origin, Source)
    files = tuple(Origin(path=one.path, text=one.text) for one in origin.files)
    return state.model_copy(update={"origins": files})


@pytest.mark.parametrize(
    ("release", "address", "suite"),
    [
        (world.BOOKWORM, "https://download.docker.com/linux/debian", "bookworm"),
        (world.TRIXIE, "https://download.docker.com/linux/debian", "trixie"),
        (world.NOBLE, "https://download.docker.com/linux/ubuntu", "noble"),
        (world.MINT, "https://download.docker.com/linux/ubuntu", "noble"),
    ],
)
def test_dockers_own_repository_by_apt(release: Release, address: str, suite: str) -> None:
    result = plan_engine(spec(), world.bare(release))
    assert verbs(result) == ["trust", "write source", "install"]
    trust, write, install = result.actions
    assert trust.key == f"{address}/gpg"
    assert trust.fingerprints == (DOCKER_FINGERPRINTS["apt"],)
    (file,) = write.files
    assert file.path == DOCKER_SOURCE
    assert file.text.splitlines()[1:] == [
        "Types: deb",
        f"URIs: {address}",
        f"Suites: {suite}",
        "Components: stable",
        "Signed-By: /etc/apt/keyrings/stackmend-docker.asc",
    ]
    assert install.packages == (
        "docker-ce",
        "docker-ce-cli",
        "containerd.io",
        "docker-buildx-plugin",
        "docker-compose-plugin",
    )
    assert not install.removing
    assert not install.destructive


@pytest.mark.parametrize(
    ("release", "address"),
    [
        (world.FEDORA, "https://download.docker.com/linux/fedora"),
        (world.ROCKY, "https://download.docker.com/linux/centos"),
    ],
)
def test_dockers_own_repository_by_dnf(release: Release, address: str) -> None:
    result = plan_engine(spec(), world.bare(release))
    trust, write, install = result.actions
    assert (trust.key, trust.fingerprints) == (f"{address}/gpg", (DOCKER_FINGERPRINTS["dnf"],))
    assert trust.keyring == "/etc/pki/rpm-gpg/stackmend-docker.asc"
    (file,) = write.files
    assert f"baseurl={address}/$releasever/$basearch/stable\n" in file.text
    assert f"gpgcheck=1\ngpgkey=file://{trust.keyring}\n" in file.text
    assert install.packages[0] == "docker-ce"


def test_the_distributions_own() -> None:
    for release, packages in (
        (world.TRIXIE, ("docker.io", "docker-compose")),
        (world.NOBLE, ("docker.io", "docker-compose-v2")),
        (world.ALPINE, ("docker", "docker-cli-compose")),
    ):
        result = plan_engine(spec(channel="distro"), world.bare(release))
        assert verbs(result) == ["install"]
        assert result.actions[0].packages == packages


@pytest.mark.parametrize(
    ("policy", "release", "said"),
    [
        ({}, world.KALI, '"repository": "https://download.docker.com/linux/debian SUITE stable"'),
        ({}, world.ALPINE, '"channel": "distro"'),
        ({"channel": "distro"}, world.FEDORA, '"channel": "docker"'),
        ({}, Release(id="amzn", like=("fedora",), name="Amazon Linux"), "none of apt-get"),
        (
            {"channel": "distro", "repository": "http://mirror.example.com/debian"},
            world.TRIXIE,
            "names no suite",
        ),
        (
            {"channel": "distro", "repository": "http://m.example.com/x sid main", "key": "x.asc"},
            world.TRIXIE,
            '"key_fingerprint"',
        ),
    ],
)
def test_what_has_no_source_says_what_would(
    policy: dict[str, Any], release: Release, said: str
) -> None:
    state = world.bare(release)
    if release.id == "amzn":
        state = state.model_copy(update={"manager": ""})
    assert said in refused(plan_engine(spec(**policy), state))


def test_a_mirror_with_its_own_key() -> None:
    policy = spec(
        repository="https://mirror.example.com/docker trixie stable",
        key="keys/mirror.asc",
        key_fingerprint=KEY.lower(),
    )
    trust, write, _ = plan_engine(policy, world.bare()).actions
    assert (trust.key, trust.fingerprints) == ("keys/mirror.asc", (KEY,))
    assert "URIs: https://mirror.example.com/docker\nSuites: trixie\n" in write.files[0].text


def test_another_suite_is_taken_for_the_engine_alone() -> None:
    policy = spec(channel="distro", repository="http://mirror.example.com/debian trixie main")
    result = plan_engine(policy, world.bare(world.BOOKWORM))
    write, _ = result.actions
    files = {one.path: one.text for one in write.files}
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in files[DOCKER_SOURCE]
    pins = files["/etc/apt/preferences.d/stackmend-suite"]
    assert "Package: *\nPin: release n=trixie\nPin-Priority: 100\n" in pins
    # On a host of that suite there is nothing to be added.
    assert verbs(plan_engine(policy, world.bare(world.TRIXIE))) == ["install"]


def test_https_needs_certificates_first() -> None:
    state = world.bare(packages={})
    assert plan_engine(spec(), state).actions[0].packages == ("ca-certificates",)
    plain = spec(repository="http://mirror.example.com/docker trixie stable")
    assert plan_engine(plain, state).actions[0].verb == "trust"


def test_a_repository_of_somebody_elses_is_used_as_it_is() -> None:
    theirs = Origin(
        path="/etc/apt/sources.list.d/docker.list",
        text="deb [signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian"
        " trixie stable\n",
    )
    result = plan_engine(spec(), world.bare(origins=(theirs,)))
    assert verbs(result) == ["install"]
    assert "docker.list names" in result.findings[0].cause
    assert not result.problems


@pytest.mark.parametrize("name", ["docker-ce", "docker.io"])
def test_an_engine_that_is_here_and_well_is_left_alone(name: str) -> None:
    listed = world.DOCKER_CE if name == "docker-ce" else world.DOCKER_IO
    policy = spec(channel="docker" if name == "docker-ce" else "distro")
    assert plan_engine(policy, with_files(world.engine(listed), policy)).empty


def test_an_engine_without_a_source_gets_none() -> None:
    assert plan_engine(spec(), world.engine(world.DOCKER_CE)).empty


def test_another_repository_comes_with_its_key() -> None:
    state = with_files(world.engine(world.DOCKER_CE), spec())
    other = spec(repository="https://mirror.example.com/docker trixie", key_fingerprint=KEY)
    trust, write = plan_engine(other, state).actions
    assert (trust.verb, trust.fingerprints) == ("trust", (KEY,))
    assert "URIs: https://mirror.example.com/docker\n" in write.files[0].text


def rivals() -> list[tuple[str, dict[str, Any], HostEngine, str]]:
    podman = world.packages({"podman-docker": "4.3.1+ds1-8"})
    snap = world.bare(world.NOBLE, snap=True)
    return [
        ("docker.io", {}, world.engine(world.DOCKER_IO), '"channel": "distro" to keep it'),
        (
            "docker-ce",
            {"channel": "distro"},
            world.engine(world.DOCKER_CE),
            '"channel": "docker" to keep it',
        ),
        ("podman-docker", {}, world.bare(packages=podman), "podman-docker 4.3.1"),
        ("snap", {}, snap, "/var/snap/docker"),
    ]


@pytest.mark.parametrize(("name", "policy", "state", "said"), rivals())
def test_what_would_fight_is_refused_and_replaced_where_that_is_said(
    name: str, policy: dict[str, Any], state: HostEngine, said: str
) -> None:
    told = refused(plan_engine(spec(**policy), state))
    assert said in told
    assert f'"replace": ["{name}"]' in told
    result = plan_engine(spec(**policy, replace=[name]), state)
    install = result.actions[-1]
    assert install.verb == "install"
    assert install.destructive
    assert install.undo
    if name == "snap":
        assert install.snap
        assert not install.removing
    else:
        assert name in install.removing
        assert not set(install.removing) & set(install.packages)


def test_the_containers_of_a_replaced_engine_are_asked_for() -> None:
    state = world.engine(world.DOCKER_IO, containers=world.runs("job", auto_remove=True))
    told = refused(plan_engine(spec(replace=["docker.io"]), state))
    assert '"replace": ["container:job"]' in told
    both = spec(replace=["docker.io", "container:job"])
    assert verbs(plan_engine(both, state))[-1] == "install"


def test_what_no_package_manager_knows_is_never_touched() -> None:
    program = Program(path="/usr/local/bin/dockerd", real="/usr/local/bin/dockerd")
    told = refused(plan_engine(spec(), world.bare(programs={"dockerd": program})))
    assert "/usr/local/bin/dockerd belongs to no package" in told
    second = Daemon(pid=7, unit="mine.service", argv=("dockerd", "--data-root", "/srv/x"))
    told = refused(plan_engine(spec(), world.engine(world.DOCKER_CE, daemons=(second,))))
    assert "process 7" in told
    assert "mine.service" in told


def test_an_engine_of_a_user_is_nobodys_business() -> None:
    state = with_files(world.engine(world.DOCKER_CE, daemons=(Daemon(pid=7, uid=1000),)), spec())
    result = plan_engine(spec(), state)
    assert result.empty
    assert result.findings[0].kind == "rootless"


def test_a_containerd_that_stands_alone_is_kept() -> None:
    listed = {"containerd": "1.7.24~ds1-6", "runc": "1.1.15"}
    told = refused(plan_engine(spec(), world.bare(packages=world.packages(listed))))
    assert "containerd and runc" in told
    assert '"channel": "distro"' in told
    assert verbs(
        plan_engine(spec(channel="distro"), world.bare(packages=world.packages(listed)))
    ) == ["install"]


OLD = {**world.DOCKER_IO, "docker.io": "20.10.24+dfsg1-1+deb12u1", "docker-compose": "1.29.2-3"}


def test_what_is_too_old_is_upgraded_with_consent() -> None:
    state = world.engine(OLD, world.BOOKWORM, compose="")
    policy: dict[str, Any] = {
        "channel": "distro",
        "repository": "http://mirror.example.com/debian trixie main",
    }
    told = refused(plan_engine(spec(**policy), state))
    assert "Engine 20.10.24 is older than 23" in told
    assert "Compose 1.29.2 is older than 2.20" in told
    assert '"upgrade": True' in told
    result = plan_engine(spec(**policy, upgrade=True), state)
    assert verbs(result) == ["write source", "install"]


def test_a_version_is_held() -> None:
    policy = spec(version="28.5")
    state = with_files(world.engine(world.DOCKER_CE), policy)
    assert plan_engine(policy, state).empty
    pin = next(one for one in state.origins if one.path.endswith("stackmend-engine"))
    assert "Package: docker-ce docker-ce-cli\n" in pin.text
    assert "Pin: version /^([0-9]+:)?28\\.5([.+~-]|$)/\n" in pin.text
    # Without it, the pin goes.
    (write,) = plan_engine(spec(), state).actions
    assert [(one.path, one.text) for one in write.files] == [(pin.path, "")]
    told = refused(plan_engine(spec(version="29"), with_files(state, spec(version="29"))))
    assert "Engine is 28.5.1, should be 29" in told
    told = refused(plan_engine(spec(version="27", upgrade=True), state))
    assert "28.5.1 is newer than 27" in told
    assert '"version": "28.5.1"' in told
    assert refused(plan_engine(spec(version="28.50"), state)), "28.5 is no 28.50"


def test_compose_alone_is_added() -> None:
    listed = {key: value for key, value in world.DOCKER_CE.items() if "compose" not in key}
    result = plan_engine(spec(), with_files(world.engine(listed, compose=""), spec()))
    assert "docker-compose-plugin is not installed" in result.actions[-1].cause


def test_what_was_broken_off_is_installed_again() -> None:
    state = world.engine(world.DOCKER_CE, packages=world.packages(world.DOCKER_CE, docker_ce=True))
    result = plan_engine(spec(), state)
    assert result.actions[-1].cause == "docker-ce is partially installed"


def test_a_new_engine_starts_with_its_settings() -> None:
    settings = {"mtu": 1400}

    def begun(state: HostEngine, **given: Any) -> Plan:
        return add_first_settings(plan_engine(spec(**given), state), settings, state)

    bare = world.bare(world.TRIXIE)
    result = begun(bare)
    assert verbs(result) == ["trust", "write source", "set", "install"]
    first, install = result.actions[-2:]
    assert (first.subject, json.loads(first.text)) == ("/etc/docker/daemon.json", settings)
    assert first.undo == "rm /etc/docker/daemon.json; systemctl restart docker"
    assert install.config == first.subject
    assert [one.subject for one in result.findings if one.kind == "setting"] == ["mtu"]
    assert add_first_settings(plan_engine(spec(), bare), {}, bare) == plan_engine(spec(), bare)
    # One that is there, or has a file, is set by engine.settings.
    there = Config(kind="file", text='{"mtu": 1300}')
    link = Config(real="/nowhere/daemon.json")
    directory = Config(kind="directory")
    for state in (
        world.engine(world.DOCKER_CE),
        *(bare.model_copy(update={"config": one}) for one in (there, link, directory)),
        bare.model_copy(update={"status": "stopped"}),
    ):
        assert begun(state) == plan_engine(spec(), state)
    # What a broken-off installation put there is not taken for somebody's.
    for status in ("absent", "stopped"):
        broken = bare.model_copy(update={"config": there, "pending": True, "status": status})
        again = begun(broken)
        assert "set" not in verbs(again)
        assert again.actions[-1].config == there.path


def test_an_engine_that_is_down_is_started() -> None:
    state = with_files(world.engine(world.DOCKER_CE), spec())
    down = state.model_copy(update={"status": "stopped", "reason": "cannot connect"})
    assert verbs(plan_engine(spec(), down)) == ["start"]
    late = state.model_copy(
        update={"service": state.service.model_copy(update={"enabled": "disabled"})}
    )
    assert verbs(plan_engine(spec(), late)) == ["enable"]
    assert verbs(plan_engine(spec(), state.model_copy(update={"left": ("a", "b")}))) == [
        "start again"
    ]
    masked = down.model_copy(
        update={"service": state.service.model_copy(update={"load": "masked"})}
    )
    assert "systemctl unmask" in refused(plan_engine(spec(), masked))


def test_a_host_that_cannot_be_changed() -> None:
    assert "_sudo = True" in refused(plan_engine(spec(), world.bare(root=False)))
    assert "Darwin" in refused(plan_engine(spec(), world.bare(system="Darwin")))


def test_what_is_to_be_had_is_judged_before_it_is_installed() -> None:
    policy = spec(channel="distro")
    state = world.bare(world.BOOKWORM)
    old = {"docker.io": "20.10.24+dfsg1-1+deb12u1+b6", "docker-compose": "1.29.2-3"}
    result = select_packages(policy, state, {name: [one] for name, one in old.items()}, old)
    assert isinstance(result, Refusal)
    assert "Debian 12 offers Engine 20.10.24 (docker.io), older than 23" in result.reason
    assert "Compose 1.29.2 (docker-compose), older than 2.20" in result.reason
    assert '"channel": "docker"' in result.remedy
    assert "trixie" in result.remedy


def test_the_newest_of_a_version_is_chosen() -> None:
    full = ["5:28.5.1-1~debian", "5:28.4.0-1~debian", "5:27.5.1-1~debian"]
    available = dict.fromkeys(("docker-ce", "docker-ce-cli"), full)
    candidates = {**dict.fromkeys(source_packages(), "1-1"), "docker-ce": full[0]}
    candidates |= {"docker-ce-cli": full[0], "docker-compose-plugin": "2.40.1-1"}
    result = select_packages(spec(version="28.4"), world.bare(), available, candidates)
    assert not isinstance(result, Refusal)
    assert result.names[:2] == (
        "docker-ce=5:28.4.0-1~debian",
        "docker-ce-cli=5:28.4.0-1~debian",
    )
    missing = select_packages(spec(version="26"), world.bare(), available, candidates)
    assert isinstance(missing, Refusal)
    assert "there is 28.5.1, 28.4.0, 27.5.1" in missing.reason
    none = select_packages(spec(), world.bare(), {}, {})
    assert isinstance(none, Refusal)
    assert "has no package docker-ce" in none.reason


def source_packages() -> tuple[str, ...]:
    origin = find_source(spec(), world.bare())
    assert isinstance(origin, Source)
    return origin.packages


def test_settings_of_a_host_that_has_them() -> None:
    state = world.engine(world.DOCKER_CE, config=Config(kind="file", text='{"mtu": 1400}'))
    assert plan_settings({"mtu": 1400}, (), state).empty
    assert plan_settings({}, (), state).empty
    pending = state.model_copy(update={"pending": True})
    assert verbs(plan_settings({"mtu": 1400}, (), pending)) == ["take up"]
    (action,) = plan_settings({"mtu": 1500}, (), state).actions
    assert action.restart
    (action,) = plan_settings({"registry-mirrors": ["http://a"]}, (), state).actions
    assert not action.restart, "an engine takes mirrors up as it runs"
    stopped = state.model_copy(update={"status": "stopped"})
    (action,) = plan_settings({"registry-mirrors": ["http://a"]}, (), stopped).actions
    assert action.restart


def test_settings_as_daemon_json_has_them() -> None:
    given = Settings.model_validate(
        {
            "dns": ["192.0.2.1"],
            "address_pools": [{"base": "10.200.0.0/16", "size": 24}],
            "log": {"max_size": "10M", "max_file": 3},
            "live_restore": False,
            "settings": {"icc": False},
        }
    )
    assert given.daemon_json == {
        "dns": ["192.0.2.1"],
        "default-address-pools": [{"base": "10.200.0.0/16", "size": 24}],
        "live-restore": False,
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "3"},
        "icc": False,
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dns": ["127.0.0.53"]}, "the container itself"),
        ({"dns": ["dns.example.com"]}, "does not appear to be"),
        ({"settings": {"dns": []}}, "has a setting of its own: dns"),
        ({"log": {"max_size": "10 MB"}}, "must be a size such as 10m"),
        ({"registry_mirrors": ["mirror.example.com"]}, "must be an address such as https://"),
        ({"registry_mirrors": ["https://user:word@mirror.example.com"]}, "must be an address"),
        ({"runtimes": {"runc": {"path": "/x"}}}, "cannot be the name of a runtime"),
        ({"runtimes": {"x": {}}}, "path or a runtimeType"),
        ({"settings": {"x": float("nan")}}, "JSON"),
        ({"address_pools": [{"base": "10.0.0.1/8", "size": 24}]}, "host bits"),
    ],
)
def test_settings_that_are_none(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"version": "latest"}, "must be a version"),
        ({"version": "28.5.1-1"}, "must be a version"),
        ({"repository": "mirror.example.com"}, "must be an address"),
        ({"repository": "http://x.example.com\nEnabled: yes"}, "must be an address"),
        ({"repository": "http://x.example.com main;rm"}, "must be an address"),
        ({"key": "gpg:x"}, "must be the address of a key"),
        ({"key_fingerprint": "8D81803C0EBFCD88"}, "40 hexadecimal"),
        ({"replace": ["podman"]}, "must be one of docker-ce"),
        ({"channel": "snap"}, "docker"),
    ],
)
def test_installations_that_are_none(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec(**given)
