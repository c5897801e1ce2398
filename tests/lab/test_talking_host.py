"""Hosts whose shells talk first, and whose environment means another engine and other files."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterator

import pytest
from pyinfra.facts import server

from stackmend.connection import (
    RemoteError,
    docker,
    fetch_facts,
    find_holder,
    hold_lock,
    http,
    run,
    spawn,
)
from stackmend.connection.first_contact.target import run_once
from tests import connected
from tests.lab.engine_runs import Runs
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.observed import USERS
from tests.lab.stacks import Shop
from tests.lab.standing import Standing

#: More than a pipe's buffer holds is read on, and a line that is left open ends nothing.
NOISE = (
    "echo welcome; seq 20000; echo 'yours'; echo 'HTTP/1.1 200 OK'; printf open\n"
    "echo warning >&2; seq 2000 >&2; printf open >&2\n"
)
FORCED = "/usr/local/bin/forced"
SSHD = "/etc/ssh/sshd_config.d/forced.conf"
HOMES = ("/root", "/home/operator", "/home/keeper")

TALK = {
    "the login shell's file": f"for home in {' '.join(HOMES)}; do "
    f"printf %s {shlex.quote(NOISE)} >$home/.bashrc; done",
    "a shell that shows what it runs": f"for home in {' '.join(HOMES)}; do "
    "echo 'set -v -x' >$home/.bashrc; done",
    "profiles, also those of sudo": f"printf %s {shlex.quote(NOISE)} "
    "| tee /root/.profile >/etc/profile.d/talk.sh; "
    f"printf '#!/bin/sh\\nexec bash -lc \"$SSH_ORIGINAL_COMMAND\"\\n' >{FORCED}",
    "a forced command that echoes": "printf '%s\\n' '#!/bin/sh' "
    '\'echo "running $SSH_ORIGINAL_COMMAND"; echo "running $SSH_ORIGINAL_COMMAND" >&2\' '
    f"'exec sh -c \"$SSH_ORIGINAL_COMMAND\"' >{FORCED}",
    "the environment's own file": f"printf %s {shlex.quote(NOISE)} >/etc/talk; "
    "echo BASH_ENV=/etc/talk >>/etc/environment",
}


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(tmp_path_factory.mktemp("talking"), lab.take(1)[0], user="operator")
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Iterator[Shop]:
    shop = standing.renew()
    shop.user = "operator"
    with put_back(shop.host):
        yield shop


@contextlib.contextmanager
def put_back(host: LabHost) -> Iterator[None]:
    """Put back what says how the host's shells begin."""
    saved = "/var/tmp/talk.tar"
    kept = "etc/environment etc/sudoers root home/operator home/keeper"
    host.sh(f"tar -C / -cpf {saved} {kept}")
    try:
        yield
    finally:
        host.sh(
            f"rm -rf /etc/profile.d/talk.sh /etc/talk {FORCED} {SSHD} /root/.docker "
            f"/home/operator/.docker; tar -C / -xpf {saved}; rm {saved}; systemctl reload ssh"
        )


def force(host: LabHost, program: str = "") -> None:
    """Have sshd run a program in the place of each command."""
    if program:
        host.put(FORCED, f"#!/bin/sh\n{program}\n")
    host.sh(
        f"[ ! -e {FORCED} ] || {{ chmod +x {FORCED}; echo 'ForceCommand {FORCED}' >{SSHD}; }}; "
        "systemctl reload ssh"
    )
    # It makes itself anew, and lets nobody in meanwhile.
    time.sleep(1)
    host.wait_for("exec 3<>/dev/tcp/127.0.0.1/22 && read -t 5 -r greeting <&3")


@pytest.mark.parametrize("talk", TALK)
def test_what_a_shell_says_first_is_nobodys(shop: Shop, talk: str) -> None:
    host = shop.host
    address = json.loads(host.docker("inspect", shop.id("web")))[0]["NetworkSettings"]["Networks"]
    (network,) = address.values()
    host.sh(TALK[talk])
    force(host)
    lock = "/run/stackmend-test/a.lock"
    for user in USERS:
        login = user != "root" and "profiles" in talk
        with connected.lab(host, user, _use_sudo_login=login) as connection:
            assert run(connection, "id -un; echo e >&2") == (0, b"root\n", b"e\n"), user
            assert run(connection, "cat", stdin=b"\0data\n" * 50_000).stdout == b"\0data\n" * 50_000
            assert run(connection, "echo a\nexit 7") == (7, b"a\n", b"")
            assert run(connection, "x=" + "y" * 200_000 + "\necho ${#x}").text == "200000\n"
            assert run(connection, "echo t", tethered=True) == (0, b"t\n", b"")
            assert run(connection, "bash -c 'echo b'", _shell_executable="bash").text == "b\n"
            assert fetch_facts(connection, [(server.Hostname, {}), (server.Kernel, {})]) == [
                host.name,
                "Linux",
            ]
            with hold_lock(connection, lock, holder="me") as lease:
                lease.check()
            assert find_holder(connection, [lock]) == ""
            with spawn(connection, "head -c 6 >&2; printf '\\0bytes'; cat") as stream:
                stream.write(b"to err")
                assert stream.read(6) == b"\0bytes"
                stream.write(b"there")
                assert stream.read(5) == b"there"
                # It comes by a way of its own, in its own time.
                until = time.monotonic() + 10
                while stream.error_text != "to err" and time.monotonic() < until:
                    time.sleep(0.05)
                assert stream.error_text == "to err"
            with docker(connection, readonly=True) as client:
                web = client.containers.get(shop.id("web"))
                assert web.exec_run("echo x").output == b"x\n"
            for via in ("forward", "bridge"):
                with http(connection, network["IPAddress"], 80, via=via) as web:
                    assert web.get("/").status_code == 200
            transport = connection.connector.client.get_transport()
            assert run_once(transport, "echo new; echo e >&2") == (0, b"new\n", b"e\n")
    shop.services["web"]["environment"]["GREETING"] = talk
    done = shop.run("-y")
    assert done.rc == 0, done.out
    shop.assert_well()
    assert f"GREETING={talk}" in host.inspect(shop.id("web"))["Config"]["Env"]
    assert "warning" not in done.out


def test_a_command_that_another_takes_the_place_of_has_not_run(shop: Shop) -> None:
    """Its exit status says that all went well."""
    host = shop.host
    force(host, "echo 'this key is for backups only'; exit 0")
    for user in ("root", "operator"):
        with connected.lab(host, user) as connection:
            with pytest.raises(RemoteError, match="this key is for backups only"):
                run(connection, "true")
            with pytest.raises(RemoteError, match="backups only"), hold_lock(connection, "/run/a"):
                pass
            with pytest.raises(RemoteError, match="backups only"), docker(connection):
                pass
            transport = connection.connector.client.get_transport()
            assert not run_once(transport, "sudo -n true").ok
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1
    assert "this key is for backups only" in done.out
    assert seen.quiet


# The environment means another engine, and other files

NAMES = {
    "DOCKER_HOST": "tcp://192.0.2.1:2375",
    "DOCKER_TLS_VERIFY": "1",
    "COMPOSE_PROJECT_NAME": "other",
    "COMPOSE_FILE": "/nowhere/compose.yaml",
    "COMPOSE_PROFILES": "all",
    "COMPOSE_ENV_FILES": "/nowhere/.env",
}
EXPORTS = "".join(f"export {name}={value}\n" for name, value in NAMES.items())
STEER = {
    "the environment of the host": "printf '%s\\n' "
    + " ".join(f"{name}={value}" for name, value in NAMES.items())
    + " >>/etc/environment",
    "the login's shell, kept by sudo": f"printf %s {shlex.quote(EXPORTS)} "
    "| tee /root/.bashrc >/home/operator/.bashrc; "
    "echo 'Defaults env_keep += \"DOCKER_* COMPOSE_*\"' >>/etc/sudoers",
    "the user's own context": "mkdir -p /root/.docker /home/operator/.docker; "
    'echo \'{"currentContext": "elsewhere", "auths": {}}\' '
    "| tee /root/.docker/config.json >/home/operator/.docker/config.json",
}


@pytest.mark.parametrize("steer", STEER)
def test_the_engine_on_the_hosts_socket_is_meant(shop: Shop, steer: str) -> None:
    host = shop.host
    host.sh(STEER[steer])
    named = ["context elsewhere"] if "context" in steer else [*NAMES]
    for user in ("operator", "root"):
        shop.user = user
        shop.services["web"]["environment"]["GREETING"] = f"{steer} {user}"
        done = shop.run("-y")
        assert done.rc == 0, done.out
        # The lab's own client has that context, too.
        if "context" not in steer:
            shop.assert_well()
        assert f"GREETING={steer} {user}" in host.inspect(shop.id("web"))["Config"]["Env"]
        with shop.watching() as seen:
            done = shop.run("-y")
        assert done.rc == 0, done.out
        assert seen.quiet
        for name in named:
            assert name in done.out
        assert "the engine on the host's own socket" in done.out
        (found,) = [
            finding
            for operation in shop.report()["operations"]
            for finding in operation["findings"]
            if finding["kind"] == "ignored"
        ]
        assert not found["blocks"]
        assert '"_env": {"DOCKER_HOST"' in found["remedy"]
        # What the settings say is meant.
        with connected.lab(host, user, _env={"DOCKER_HOST": "tcp://127.0.0.1:1"}) as connection:
            said = run(connection, "docker ps 2>&1").text
            assert "127.0.0.1:1" in said
            with pytest.raises(RemoteError), docker(connection, readonly=True):
                pass
    shop.user = "operator"


def test_an_engine_that_runs_is_not_started(shop: Shop) -> None:
    shop.host.sh(STEER["the environment of the host"])
    started = shop.host.sh("systemctl show docker -p ActiveEnterTimestampMonotonic")
    done = Runs(shop.directory, shop.host).installed(channel="distro", upgrade=False)
    assert "start engine" not in done.run.out
    assert "DOCKER_HOST" in done.run.out
    assert shop.host.sh("systemctl show docker -p ActiveEnterTimestampMonotonic") == started


def test_files_that_are_not_the_sources_are_told_and_kept(shop: Shop) -> None:
    host = shop.host
    evil = "services: {web: {environment: {EVIL: '1'}}}\n"
    for name in ("compose.override.yaml", "docker-compose.yml"):
        host.put(f"/opt/shop/{name}", evil)
    host.put("/opt/shop/.env", "COMPOSE_PROJECT_NAME=other\nCOMPOSE_FILE=nowhere.yaml\n")
    shop.services["web"]["environment"]["GREETING"] = "told"
    for _ in range(2):
        done = shop.run("-y")
        assert done.rc == 0, done.out
        for name in (".env", "compose.override.yaml", "docker-compose.yml"):
            assert f"/opt/shop/{name}" in done.out
        assert "add it to the source" in done.out
    assert host.read("/opt/shop/compose.override.yaml").decode() == evil
    environment = host.inspect(shop.id("web"))["Config"]["Env"]
    assert "GREETING=told" in environment
    assert "EVIL=1" not in environment
    host.sh("cd /opt/shop && rm .env compose.override.yaml docker-compose.yml")
