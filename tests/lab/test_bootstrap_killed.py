"""The controller is killed at ten moments: one can always come in, and the next run converges."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.lab import controller, machines
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.newcomer import ROOT_PASSWORD, USER, Newcomer, hand_over

ENV = {"STACKMEND_ROOT_PASSWORD": ROOT_PASSWORD}

#: Moments of access.operator, as parts of the time that it takes from the first connection on.
PARTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)

#: Moments of the engine's installation, as what can be seen of each on the host.
MOMENTS = {
    "reading lists": "[ -e /var/lib/stackmend/engine/packages.log ]",
    "unpacking": "[ -e /usr/sbin/dockerd ] || [ -e /usr/sbin/dockerd.dpkg-new ]",
    "starting": "systemctl is-active docker | grep -x -e activating -e active",
}

#: Seconds for which nobody may come in: sshd replaces its listener where it is reloaded.
BLINK = 2.0


@pytest.fixture
def me(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


class Watch:
    """Comes in again and again, by the user's key or else by root's password."""

    def __init__(self, me: Newcomer, host: LabHost) -> None:
        self._key = paramiko.Ed25519Key.from_private_key_file(str(me.key()))
        self._port = host.port
        self._over = threading.Event()
        self.shut: list[str] = []
        self.came = {USER: 0, "root": 0}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.is_set():
            try:
                self.came[self._come_in()] += 1
                last = time.monotonic()
            except (paramiko.SSHException, OSError, EOFError) as error:
                if time.monotonic() - last > BLINK:
                    self.shut.append(f"{type(error).__name__}: {error}")
            time.sleep(0.15)

    def _come_in(self) -> str:
        try:
            self._log_in(USER, pkey=self._key)
        except paramiko.AuthenticationException:
            self._log_in("root", password=ROOT_PASSWORD)
            return "root"
        return USER

    def _log_in(self, user: str, **given: Any) -> None:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        with contextlib.closing(client):
            client.connect(
                "127.0.0.1",
                port=self._port,
                username=user,
                allow_agent=False,
                look_for_keys=False,
                timeout=5,
                **given,
            )

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def quiet() -> Iterator[None]:
    """paramiko's own words about listeners that are gone for a moment are not ours to show."""
    logger = paramiko.util.logging.getLogger("paramiko")
    before = logger.disabled
    logger.disabled = True
    paramiko.util.logging.getLogger("paramiko.transport").disabled = True
    yield
    logger.disabled = before


def proven(me: Newcomer, host: LabHost) -> None:
    """After the kill: the next run converges, and the one behind it changes nothing."""
    done = me.run("deploy/bootstrap.py", env=ENV, timeout=600)
    assert done.rc == 0, done.out
    assert "uid=0(root)" in me.logs_in(host, command="sudo -n id")
    assert "passwordauthentication no" in host.sh("sshd -T")
    assert not host.exists("/var/lib/stackmend/access/armed")
    assert not host.sh("systemctl list-units --all --plain --no-legend 'stackmend-access-*'")
    again = me.run("deploy/bootstrap.py", timeout=300)
    assert "1 host: 1 converged" in again.out, again.out


@pytest.fixture(scope="module")
def takes(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that access.operator takes on a bare host, from the connection on."""
    (host,) = lab.take(1, "bare")
    me = Newcomer(tmp_path_factory.mktemp("undisturbed"))
    hand_over(host, "root password")
    me.expects([host], {"access": me.access(password_login=False)})
    with controller.start(me.inventory, "deploy/bootstrap.py", "-y", env=ENV) as run:
        assert run.wait_for_output("Connected")
        began = time.monotonic()
        assert run.wait().rc == 0
    return time.monotonic() - began


@pytest.mark.usefixtures("quiet")
@pytest.mark.rotating(3)
@pytest.mark.parametrize("part", PARTS)
def test_killed_while_the_user_is_let_in(
    bare_host: LabHost, me: Newcomer, takes: float, part: float
) -> None:
    hand_over(bare_host, "root password")
    me.expects([bare_host], {"access": me.access(password_login=False)})
    with Watch(me, bare_host) as watch:
        with controller.start(me.inventory, "deploy/bootstrap.py", "-y", env=ENV) as run:
            assert run.wait_for_output("Connected")
            time.sleep(takes * part)
            run.kill()
        print(run.process.returncode, part * takes, "s")
        proven(me, bare_host)
    assert watch.shut == []
    assert watch.came[USER] > 0


@pytest.mark.usefixtures("quiet")
@pytest.mark.rotating(2)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_the_engine_is_installed(
    closed_host: LabHost, me: Newcomer, moment: str
) -> None:
    hand_over(closed_host, "root password")
    me.expects(
        [closed_host],
        {"access": me.access(password_login=False), "engine": machines.engine(closed_host)},
    )
    with Watch(me, closed_host) as watch:
        with controller.start(me.inventory, "deploy/bootstrap.py", "-y", env=ENV) as run:
            assert run.wait_for_output("Starting operation: Docker Engine", 120)
            closed_host.wait_for(f"{{ {MOMENTS[moment]}; }} > /dev/null 2>&1", 120)
            assert run.process.poll() is None, "killed too late to show anything"
            run.kill()
        proven(me, closed_host)
    assert watch.shut == []
    assert closed_host.docker("version", "--format", "{{.Server.Version}}")
    assert closed_host.sh("dpkg --audit") == ""
