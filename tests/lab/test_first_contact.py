"""First contact, judged from the host: what its sshd logged, and who came in."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import controller
from tests.lab.controller import PROJECT, Run, pyinfra_argv
from tests.lab.hosts import LabHost
from tests.lab.newcomer import ROOT_PASSWORD, USER, Newcomer, hand_over
from tests.lab.paths import KEY, KNOWN_HOSTS

LOOK = "from pyinfra.operations import server\nserver.shell(commands=['id -un'])\n"
PASSWORD = {"STACKMEND_ROOT_PASSWORD": ROOT_PASSWORD}


@pytest.fixture
def me(tmp_path: Path) -> Newcomer:
    (tmp_path / "look.py").write_text(LOOK)
    return Newcomer(tmp_path)


@pytest.fixture
def machine(bare_host: LabHost) -> LabHost:
    """A machine that has root's password and nothing else."""
    hand_over(bare_host, "root password")
    return bare_host


def look(me: Newcomer, env: dict[str, str] | None = None, *more: str) -> Run:
    return me.run(str(me.directory / "look.py"), *more, env=env, timeout=120)


def logged(host: LabHost, mark: str) -> str:
    """What sshd wrote since a mark."""
    lines = host.sshd_since(mark)
    return "\n".join(line for line in lines if not line.startswith("Server listening"))


def fingerprint(host: LabHost, kind: str = "ed25519") -> str:
    return host.sh(f"ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub").split()[1]


# The host's key.


def test_the_first_key_is_trusted_shown_and_recorded(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access()})
    first = look(me, PASSWORD)
    assert first.rc == 0, first.out
    line = next(line for line in first.out.splitlines() if "host key" in line)
    assert fingerprint(machine) in line
    assert "trusted as the first one shown" in line
    assert str(me.known_hosts) in line
    recorded = me.known_hosts.read_text().split()
    assert recorded[:1] == [f"[127.0.0.1]:{machine.port}"]
    assert recorded[1:3] == machine.read("/etc/ssh/ssh_host_ed25519_key.pub").decode().split()[:2]
    assert look(me, PASSWORD).out.count("host key") == 0


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_the_fingerprint_of_any_key_of_the_host_will_do(
    me: Newcomer, machine: LabHost, kind: str
) -> None:
    me.expects([machine], {"access": me.access(fingerprint=fingerprint(machine, kind))})
    for _ in range(2):
        done = look(me, PASSWORD)
        assert done.rc == 0, done.out
    assert len(me.known_hosts.read_text().splitlines()) == 1
    assert f"ssh-{kind} " in me.known_hosts.read_text()


def test_a_wrong_fingerprint_ends_it_before_anything_is_authenticated(
    me: Newcomer, machine: LabHost
) -> None:
    wrong = "SHA256:" + "A" * 43
    me.expects([machine], {"access": me.access(fingerprint=wrong)})
    mark = machine.mark()
    done = look(me, PASSWORD)
    assert done.rc == 1
    assert "wrong host key" in done.out
    assert wrong in done.out
    assert fingerprint(machine) in done.out
    seen = logged(machine, mark)
    assert "Connection from" in seen, "sshd logs nothing: the test would prove nothing"
    for word in ("user", "publickey", "password", "Accepted", "Failed", "Invalid"):
        assert word not in seen
    assert not me.known_hosts.exists()


def test_an_attempt_is_seen_in_the_log(me: Newcomer, machine: LabHost) -> None:
    """What the test above looks for does appear where something is authenticated."""
    me.expects([machine], {"access": me.access()})
    mark = machine.mark()
    assert look(me, PASSWORD).rc == 0
    seen = logged(machine, mark)
    assert f"Invalid user {USER}" in seen
    assert "Accepted password for root" in seen


def test_a_key_that_changed_later_is_refused(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access()})
    assert look(me, PASSWORD).rc == 0
    before = fingerprint(machine)
    machine.sh(
        "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; "
        "systemctl restart ssh"
    )
    known = me.known_hosts.read_text()
    mark = machine.mark()
    done = look(me, PASSWORD)
    assert done.rc == 1
    assert "changed host key" in done.out
    assert before in done.out
    assert fingerprint(machine) in done.out
    assert "ssh-keygen -f" in done.out
    assert "password" not in logged(machine, mark)
    assert me.known_hosts.read_text() == known
    # Neither does the fingerprint of the new key make the recorded one void.
    me.expects([machine], {"access": me.access(fingerprint=fingerprint(machine))})
    assert "changed host key" in look(me, PASSWORD).out


def test_a_strict_inventory_trusts_no_unknown_key(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access()}, ssh_strict_host_key_checking="yes")
    done = look(me, PASSWORD)
    assert done.rc == 1
    assert "unknown host key" in done.out
    assert fingerprint(machine) in done.out


# Who is let in.


def test_roots_password_is_asked_for_on_a_terminal(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access()})
    assert "wrong password" not in typed(me, ROOT_PASSWORD, until="Success")


def test_roots_password_is_shown_nowhere(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access()})
    done = controller.run(
        me.inventory, "deploy/bootstrap.py", "-y", "-vvv", "--debug", env=PASSWORD, timeout=120
    )
    assert done.rc == 0, done.out
    assert ROOT_PASSWORD not in done.out
    assert ROOT_PASSWORD not in str(done.report)
    assert ROOT_PASSWORD not in machine.sh("journalctl --no-pager; cat /var/lib/stackmend/*.jsonl")


def test_root_comes_in_without_sudo_and_another_user_with_it(
    me: Newcomer, bare_host: LabHost
) -> None:
    hand_over(bare_host, "root key", me.public("root"))
    bare_host.sh("mv /usr/bin/sudo /usr/bin/sudo.gone")
    try:
        me.expects([bare_host], {"access": me.access()}, ssh_key=str(me.key("root")), _sudo=True)
        assert look(me).rc == 0
    finally:
        bare_host.sh("mv /usr/bin/sudo.gone /usr/bin/sudo")
    hand_over(bare_host, "sudo user", me.public("root"))
    me.expects([bare_host], {"access": me.access()}, ssh_key=str(me.key("root")))
    done = look(me)
    assert done.rc == 1, "root takes no key any more, and the provider's user was not named"
    me.expects(
        [bare_host], {"access": me.access()}, ssh_key=str(me.key("root")), ssh_user="provider"
    )
    done = look(me, None, "-vvv")
    assert done.rc == 0, done.out
    assert "sudo" in done.out


def test_a_user_who_may_not_become_root_is_passed_over(me: Newcomer, machine: LabHost) -> None:
    machine.sh(f"useradd -m {USER} && install -d -m 0700 -o {USER} /home/{USER}/.ssh")
    machine.put(f"/home/{USER}/.ssh/authorized_keys", me.public(), "0644")
    assert f"({USER})" in me.logs_in(machine)
    me.expects([machine], {"access": me.access()})
    mark = machine.mark()
    done = look(me, PASSWORD)
    assert done.rc == 0, done.out
    assert "Accepted password for root" in logged(machine, mark)
    done = look(me)
    assert done.rc == 1
    assert f"{USER}: logs in, but may not become root" in done.out


def test_a_key_in_the_agent_opens_though_it_is_the_ninth(me: Newcomer, bare_host: LabHost) -> None:
    hand_over(bare_host, "root key", me.public("right"))
    names = [*(f"other{number}" for number in range(8)), "right"]
    keys = [str(me.key(name)) for name in names]
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True)
    env = dict(re.findall(r"(SSH_\w+)=([^;]+);", started.stdout))
    try:
        subprocess.run(["ssh-add", "-q", *keys], env={**os.environ, **env}, check=True)
        me.key("right").unlink()
        me.expects([bare_host], {"access": me.access()}, ssh_allow_agent=True)
        # sshd ends a connection after six keys that it does not take.
        done = look(me, env)
        assert done.rc == 0, done.out
        me.expects([bare_host], {"access": me.access()})
        assert "not accepted" in failure(me, env), "without the agent there is no way in"
    finally:
        os.kill(int(env["SSH_AGENT_PID"]), signal.SIGTERM)


def test_a_host_behind_another_one(me: Newcomer, machine: LabHost, host: LabHost) -> None:
    (me.directory / "ssh_config").write_text(
        f"Host behind\n  HostName {machine.address}\n  ProxyJump jump\n"
        f"Host jump 127.0.0.1\n  HostName 127.0.0.1\n  Port {host.port}\n  User root\n"
        f"  IdentityFile {KEY}\n  UserKnownHostsFile {KNOWN_HOSTS}\n"
        "  StrictHostKeyChecking yes\n"
    )
    me.inventory.write_text(
        "hosts = [('behind', {'ssh_allow_agent': False, 'ssh_look_for_keys': False, "
        f"'ssh_config_file': {str(me.directory / 'ssh_config')!r}, "
        f"'stack': {{'access': {me.access(password_login=False)!r}}}}})]\n"
    )
    done = me.run("deploy/bootstrap.py", env=PASSWORD, timeout=120)
    assert done.rc == 0, done.out
    assert me.known_hosts.read_text().startswith(f"{machine.address} ")
    assert f"Accepted publickey for {USER} from {host.address}" in machine.sh(
        "journalctl --no-pager -o cat -u ssh"
    )
    assert "1 host: 1 converged" in me.run("deploy/bootstrap.py", timeout=120).out


# What cannot be done is told apart.


def failure(me: Newcomer, env: dict[str, str] | None = None) -> str:
    """The one line that says why; pyinfra prints it in red."""
    done = look(me, env)
    assert done.rc == 1, done.out
    assert "Traceback" not in done.out
    return done.out


def at(me: Newcomer, name: str, address: str, port: int, **access: object) -> None:
    me.inventory.write_text(
        f"hosts = [({name!r}, {{'ssh_hostname': {address!r}, 'ssh_port': {port}, "
        f"'ssh_allow_agent': False, 'ssh_look_for_keys': False, "
        f"'stack': {{'access': {me.access(**access)!r}}}}})]\n"
    )


def test_refused(me: Newcomer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    at(me, "closed", "127.0.0.1", port, wait=1)
    assert f"refused: nothing listens at 127.0.0.1 port {port}" in failure(me)


def test_unresolvable(me: Newcomer) -> None:
    at(me, "nowhere", "nowhere.invalid", 22, wait=1)
    assert "unresolvable" in failure(me)


def test_no_ssh(me: Newcomer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        os.set_blocking(web.fileno(), False)
        at(me, "web", "127.0.0.1", web.getsockname()[1], wait=1)
        with controller.start(me.inventory, str(me.directory / "look.py"), "-y") as run:
            until = time.monotonic() + 60
            while run.process.poll() is None and time.monotonic() < until:
                with contextlib.suppress(BlockingIOError):
                    taken, _ = web.accept()
                    taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    taken.close()
                time.sleep(0.05)
            assert "takes the connection and speaks no SSH" in run.wait(60).out


def test_timed_out(me: Newcomer, machine: LabHost) -> None:
    machine.sh("iptables -I INPUT -p tcp --dport 22 -j DROP")
    try:
        at(me, "silent", machine.address, 22, wait=1)
        assert f"timed out: no answer from {machine.address} port 22" in failure(me)
    finally:
        machine.sh("iptables -F INPUT")


def test_wrong_key_and_no_password(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access()})
    said = failure(me)
    assert f"{USER} with {me.directory / 'id'}: not accepted" in said
    assert f"root with {me.directory / 'id'}: not accepted" in said
    assert "root with a password: none is given in STACKMEND_ROOT_PASSWORD" in said


def test_wrong_password(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access()})
    said = failure(me, {"STACKMEND_ROOT_PASSWORD": "wrong horse"})
    assert "root with the password of STACKMEND_ROOT_PASSWORD: not accepted" in said
    assert "wrong horse" not in said


# A machine that is still booting.


def test_sshd_that_comes_up_later_is_waited_for(me: Newcomer, machine: LabHost) -> None:
    machine.sh("systemctl stop ssh")
    at(me, "booting", machine.address, 22, wait=90)
    with controller.start(me.inventory, str(me.directory / "look.py"), "-y", env=PASSWORD) as run:
        assert run.wait_for_output("waiting for sshd, for")
        assert f"refused: nothing listens at {machine.address} port 22" in run.output()
        machine.sh("systemctl start ssh")
        done = run.wait(90)
    assert done.rc == 0, done.out


@contextlib.contextmanager
def terminal(argv: list[str], env: dict[str, str]) -> Iterator[int]:
    """A program with a terminal of its own; yields the terminal's other end."""
    pid, end = pty.fork()
    if pid == 0:
        os.chdir(PROJECT)
        os.execve(argv[0], argv, {**os.environ, **env})
    try:
        yield end
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(end)


def typed(me: Newcomer, password: str, until: str) -> str:
    """Run, type a password where it is asked for, and return what the terminal showed."""
    argv = [*pyinfra_argv(), str(me.inventory), str(me.directory / "look.py"), "-y"]
    shown = ""
    with terminal(argv, {"PYINFRA_PROGRESS": "off"}) as end:
        deadline = time.monotonic() + 90
        answered = False
        while until not in shown and time.monotonic() < deadline:
            try:
                shown += os.read(end, 4096).decode(errors="replace")
            except OSError:
                break
            if not answered and "Password of root@" in shown:
                os.write(end, f"{password}\n".encode())
                answered = True
    assert "Password of root@" in shown, shown
    assert until in shown, shown
    assert password not in shown
    return shown
