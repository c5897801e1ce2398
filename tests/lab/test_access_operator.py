"""access.operator on bare hosts, judged by OpenSSH's own client and by the host's own sshd."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.controller import PROJECT, Run, run, start
from tests.lab.hosts import LabHost
from tests.lab.newcomer import USER, Newcomer, hand_over
from tests.lab.untouched import untouched

PART = "/etc/ssh/sshd_config.d/00-stackmend.conf"
ROOM = "/var/lib/stackmend/access"


@pytest.fixture
def me(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


@pytest.fixture
def machine(bare_host: LabHost, me: Newcomer) -> LabHost:
    """A machine that takes root's key, and passwords of whoever has one."""
    hand_over(bare_host, "root key", me.public("root"))
    return bare_host


def admit(me: Newcomer, machine: LabHost, **access: Any) -> Run:
    me.expects([machine], {"access": me.access(clock=False, **access)}, ssh_key=str(me.key("root")))
    return me.run("deploy/bootstrap.py", timeout=180)


def passwords(machine: LabHost) -> str:
    """What the sshd that runs (and not its files) offers to a stranger, once it is settled."""
    # A reload is done when systemctl says so, and the new listener is there a moment later.
    machine.wait_for("systemctl show -p ActiveState --value ssh | grep -qx active")
    time.sleep(1)
    return _offered(machine)


def _offered(machine: LabHost) -> str:
    asked = subprocess.run(
        [
            *("ssh", "-F", "none", "-p", str(machine.port), "-o", "PreferredAuthentications=none"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "LogLevel=ERROR", "nobody@127.0.0.1"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    return "on" if "password" in asked.stderr else "off" if "publickey" in asked.stderr else ""


# What it makes.


def test_a_user_comes_in_and_becomes_root_and_passwords_are_off(
    me: Newcomer, machine: LabHost
) -> None:
    assert passwords(machine) == "on"
    done = admit(me, machine, password_login=False)
    assert done.rc == 0, done.out
    assert "uid=0(root)" in me.logs_in(machine, command="sudo -n id")
    assert passwords(machine) == "off"
    assert "uid=0(root)" in me.logs_in(machine, "root", "root"), "root's own key still opens"
    assert machine.sh("passwd -S ops").split()[1] in ("L", "NP"), "no password was given"
    assert machine.sh("stat -c '%U %a' /home/ops/.ssh /home/ops/.ssh/authorized_keys") == (
        "ops 700\nops 600"
    )
    assert machine.sh("visudo -c >/dev/null && stat -c %a /etc/sudoers.d/stackmend-ops") == "440"
    assert not machine.exists(f"{ROOM}/armed")
    assert "stackmend-access" not in machine.sh("systemctl list-units --all --no-legend")
    before = machine.snapshot_files("/etc", "/home", "/var/lib/stackmend")
    again = admit(me, machine, password_login=False)
    assert again.rc == 0, again.out
    assert " converged" in again.out
    assert machine.snapshot_files("/etc", "/home", "/var/lib/stackmend") == before


def test_keys_are_added_and_taken_away_only_when_told(me: Newcomer, machine: LabHost) -> None:
    machine.sh(f"useradd -m {USER} && install -d -m 0700 -o {USER} /home/{USER}/.ssh")
    theirs = f'from="127.0.0.1,*" {me.public("theirs")}'
    machine.put(f"/home/{USER}/.ssh/authorized_keys", f"# mine\n{theirs}", "0600")
    machine.sh(f"chown {USER} /home/{USER}/.ssh/authorized_keys")
    assert admit(me, machine).rc == 0
    lines = machine.sh(f"cat /home/{USER}/.ssh/authorized_keys").splitlines()
    assert lines == ["# mine", theirs, me.public()]
    done = admit(me, machine, exclusive_keys=True)
    assert done.rc == 0, done.out
    lines = machine.sh(f"cat /home/{USER}/.ssh/authorized_keys").splitlines()
    assert lines == ["# mine", me.public()]
    assert theirs in machine.sh(f"cat {ROOM}/kept/authorized_keys.{USER}.*")
    assert "converged" in admit(me, machine, exclusive_keys=True).out


def test_passwords_can_be_had_back(me: Newcomer, machine: LabHost) -> None:
    assert admit(me, machine, password_login=False).rc == 0
    assert admit(me, machine, password_login=True).rc == 0
    assert passwords(machine) == "on"
    assert admit(me, machine).rc == 0
    assert passwords(machine) == "on", "without the setting it stays as it is"


def test_sudo_is_installed_where_it_is_missing(me: Newcomer, machine: LabHost) -> None:
    machine.sh("SUDO_FORCE_REMOVE=yes apt-get purge -y -q sudo", timeout=120)
    assert not machine.exists("/usr/bin/sudo")
    done = admit(me, machine)
    assert done.rc == 0, done.out
    assert "uid=0(root)" in me.logs_in(machine, command="sudo -n id")


def test_an_include_is_added_where_the_configuration_has_none(
    me: Newcomer, machine: LabHost
) -> None:
    machine.sh("sed -i '/^Include/d' /etc/ssh/sshd_config && systemctl restart ssh")
    before = machine.read("/etc/ssh/sshd_config")
    done = admit(me, machine, password_login=False)
    assert done.rc == 0, done.out
    assert passwords(machine) == "off"
    after = machine.read("/etc/ssh/sshd_config")
    assert after == b"Include /etc/ssh/sshd_config.d/*.conf\n" + before
    assert before in machine.read(f"{ROOM}/kept/{machine.sh(f'ls {ROOM}/kept | grep sshd_config')}")


def test_a_dry_run_tells_and_touches_nothing(me: Newcomer, machine: LabHost) -> None:
    me.expects([machine], {"access": me.access(password_login=False)}, ssh_key=str(me.key("root")))
    with untouched(machine):
        done = run(me.inventory, "deploy/bootstrap.py", "--dry", timeout=120)
    assert done.rc == 0, done.out
    for told in ("add user ops", "permit sudo to ops", "trust 1 key", "set login by password: off"):
        assert f"→ {told}" in done.out
    assert not machine.exists("/var/lib/stackmend")


def test_the_operation_stands_alone(me: Newcomer, machine: LabHost) -> None:
    """In a deploy of one's own, on pyinfra's own connection."""
    deploy = me.directory / "admit.py"
    deploy.write_text(
        "from stackmend import access\n"
        f"access.operator(user='ops', public_keys=[{me.public()!r}], password_login=False)\n"
    )
    me.expects(
        [machine],
        {"access": me.access()},
        ssh_user="root",
        ssh_key=str(me.key("root")),
        ssh_known_hosts_file=str(me.known_hosts),
    )
    text = me.inventory.read_text()
    me.inventory.write_text(text + "hosts = [(n, {**d, 'stack': None}) for n, d in hosts]\n")
    done = me.run(str(deploy), env={"PYTHONPATH": str(PROJECT / "ops")}, timeout=120)
    assert done.rc == 1
    assert "this machine has no private key that belongs to public_keys" in done.out
    deploy.write_text(
        deploy.read_text().replace(repr(me.public()), repr(str(me.key().with_suffix(".pub"))))
    )
    done = me.run(str(deploy), env={"PYTHONPATH": str(PROJECT / "ops")}, timeout=120)
    assert done.rc == 0, done.out
    assert "uid=0(root)" in me.logs_in(machine, command="sudo -n id")
    assert passwords(machine) == "off"


# What would lock out.


def test_without_the_private_key_nothing_is_hardened(me: Newcomer, machine: LabHost) -> None:
    stranger = me.public("elsewhere")
    me.key("elsewhere").unlink()
    with untouched(machine):
        done = admit(me, machine, public_keys=[stranger], password_login=False)
    assert done.rc == 1
    assert "this machine has no private key that belongs to public_keys" in done.out
    assert passwords(machine) == "on"
    assert "uid=0(root)" in me.logs_in(machine, "root", "root")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("AllowUsers root", "AllowUsers root does not name it"),
        ("AllowUsers root ops@192.0.2.*", "AllowUsers root ops@192.0.2.* does not name it"),
        ("DenyUsers o*", "DenyUsers o* names it"),
        ("AllowGroups root wheel", "AllowGroups root wheel names none of its groups"),
        ("Match User ops\n  PubkeyAuthentication no", "PubkeyAuthentication is no"),
        ("Match User ops\n  AuthorizedKeysFile /etc/keys/%u", "AuthorizedKeysFile is /etc/keys/op"),
    ],
)
def test_a_configuration_that_shuts_the_user_out_is_refused(
    me: Newcomer, machine: LabHost, line: str, said: str
) -> None:
    machine.put("/etc/ssh/sshd_config.d/zz-site.conf", f"{line}\n")
    machine.sh("systemctl restart ssh")
    with untouched(machine):
        done = admit(me, machine, password_login=False)
    assert done.rc == 1
    assert f"sshd would not let ops in: {said}" in done.out
    assert passwords(machine) == "on"
    assert "uid=0(root)" in me.logs_in(machine, "root", "root")


def test_a_broken_include_is_refused(me: Newcomer, machine: LabHost) -> None:
    machine.put("/etc/ssh/sshd_config.d/zz-site.conf", "PermitRotLogin no\n")
    with untouched(machine):
        done = admit(me, machine, password_login=False)
    assert done.rc == 1
    assert "its configuration is broken already" in done.out
    assert "PermitRotLogin" in done.out
    assert "uid=0(root)" in me.logs_in(machine, "root", "root")


def test_methods_that_ask_for_a_password_too_are_refused(me: Newcomer, machine: LabHost) -> None:
    machine.put(
        "/etc/ssh/sshd_config.d/zz-site.conf",
        "Match User someone,ops\n  AuthenticationMethods publickey,password\n",
    )
    machine.sh("systemctl restart ssh")
    with untouched(machine):
        done = admit(me, machine, password_login=False)
    assert done.rc == 1
    assert "AuthenticationMethods publickey,password asks for a password as well" in done.out
    assert passwords(machine) == "on"


def test_a_line_that_wins_over_ours_is_named_and_all_is_taken_back(
    me: Newcomer, machine: LabHost
) -> None:
    machine.sh(
        "sed -i '/^Include/d' /etc/ssh/sshd_config; "
        "sed -i '1i Match User ops\\n PasswordAuthentication yes\\nMatch all' /etc/ssh/sshd_config;"
        "systemctl restart ssh"
    )
    before = machine.read("/etc/ssh/sshd_config")
    done = admit(me, machine, password_login=False)
    assert done.rc == 1
    assert "another line of sshd's configuration says otherwise" in done.out
    assert "PasswordAuthentication yes" in done.out
    assert machine.read("/etc/ssh/sshd_config") == before
    assert not machine.exists(PART)
    assert not machine.exists(f"{ROOM}/armed")
    assert passwords(machine) == "on"
    assert "uid=0(root)" in me.logs_in(machine, "root", "root")


def test_an_sshd_that_lets_nobody_in_after_the_reload_gets_its_old_settings(
    me: Newcomer, machine: LabHost
) -> None:
    # A reload that ends the listener: no test of the configuration can see it coming.
    machine.put(
        "/etc/systemd/system/ssh.service.d/worse.conf",
        "[Service]\nRestart=no\nKillMode=process\nExecReload=\nExecReload=/bin/sh -c "
        "'grep -q no /etc/ssh/sshd_config.d/00-stackmend.conf && kill -TERM $MAINPID || true'\n",
    )
    machine.sh("systemctl daemon-reload")
    done = admit(me, machine, password_login=False)
    assert done.rc == 1, done.out
    assert "a new login as ops fails" in done.out
    assert "The change of sshd was reverted" in done.out
    assert not machine.exists(PART)
    assert "uid=0(root)" in me.logs_in(machine, "root", "root")
    assert passwords(machine) == "on"


def test_a_change_that_nobody_proves_is_taken_back_by_itself(
    me: Newcomer, machine: LabHost
) -> None:
    me.expects(
        [machine],
        {"access": me.access(clock=False, password_login=False)},
        ssh_key=str(me.key("root")),
    )
    with start(me.inventory, "deploy/bootstrap.py", "-y") as under_way:
        until = time.monotonic() + 90
        while not machine.exists(f"{ROOM}/armed") and time.monotonic() < until:
            assert under_way.process.poll() is None, under_way.output()
        under_way.kill()
    assert machine.exists(f"{ROOM}/armed"), "killed too late to show anything"
    machine.wait_for(f"[ -e {PART} ]")
    # What was begun comes to its end there: sshd is reloaded with it.
    while passwords(machine) != "off":
        assert time.monotonic() < until, "the change was never taken up"
    timer = machine.sh("systemctl list-units --plain --no-legend 'stackmend-access-*.timer'")
    name = timer.split()[0].removesuffix(".timer")
    # Two minutes of waiting, made short.
    # systemd calls it started when its process is there: it is done when it has ended.
    machine.sh(f"systemctl start {name}.service")
    machine.wait_for(f"! systemctl -q is-active {name}.service")
    assert not machine.exists(PART)
    assert passwords(machine) == "on"
    assert "uid=0(root)" in me.logs_in(machine, command="sudo -n id")
    done = admit(me, machine, password_login=False)
    assert done.rc == 0, done.out
    assert passwords(machine) == "off"
