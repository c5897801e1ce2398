"""``schedule.timer`` on real hosts: one that mends itself, a controller's, cron's, and the end."""

from __future__ import annotations

import json
import pprint
import random
import shlex

from collections.abc import Callable
import pytest

from tests.lab import soak
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

HOME = "/var/lib/stackmend/schedule/stackmend-host"
UNIT = "stackmend-host"


#: `docker compose up` as it is, but slow.
SLOW_DOCKER = """#!/bin/sh
case " $* " in
*' compose '*' up '*)
  touch /tmp/begun
  sleep 8
  /usr/bin/docker "$@"
  status=$?
  touch /tmp/ended
  exit $status
  ;;
esac
exec /usr/bin/docker "$@"
"""


def start(host: LabHost, unit: str = UNIT) -> None:
    """One run of the service, as its timer begins it."""
    done = host.run(f"systemctl start {unit}.service", timeout=120)
    said = host.sh(f"journalctl -q --no-pager -o cat -t {unit} -n 40", check=False)
    assert done.returncode == 0, said


#: Nothing leaves the host, and nothing enters it, but what goes between it and its containers.
CUT_OFF = """
for iptables in iptables ip6tables; do
  $iptables -N cut-off
  for own in lo docker0 br-+; do $iptables -A cut-off -o $own -j RETURN; done
  $iptables -A cut-off -j REJECT
  for chain in OUTPUT FORWARD; do $iptables -I $chain -j cut-off; done
  $iptables -I INPUT -i eth0 -j DROP
done"""
JOIN_AGAIN = """
for iptables in iptables ip6tables; do
  for chain in OUTPUT FORWARD; do $iptables -D $chain -j cut-off; done
  $iptables -D INPUT -i eth0 -j DROP; $iptables -F cut-off; $iptables -X cut-off
done"""


def can_send(host: LabHost, address: str) -> bool:
    """Whether the host may send a packet to an address."""
    return host.run(f"echo >/dev/udp/{address}/9").returncode == 0


@pytest.fixture(scope="module")
def keeping(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop on a host that mends itself; its timer is far away."""
    host = lab.take(1)[0]
    mend = {"attempts": 100, "backoff": [0]}
    shop = Shop(tmp_path_factory.mktemp("keeping"), host, mend=mend)
    shop.settings["reconcile"] = soak.LIMITS
    shop.settings["schedule"] = {"mode": "host", "every": "24h", "random_delay": 0}
    # It means the same under the unit as by hand, or each run of the timer remakes this one.
    shop.services["side"]["environment"] = {"HOME_OF_ROOT": "${HOME}"}
    shop.secret_env["LICENCE_KEY"] = "s3cret-of-the-shop"
    done = shop.run("-y", timeout=400)
    assert done.rc == 0, done.out
    again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    return shop


def test_the_host_heals_itself_without_internet_and_controller(keeping: Shop) -> None:
    host = keeping.host
    assert host.sh(f"systemctl is-enabled {UNIT}.timer; systemctl is-active {UNIT}.timer") == (
        "enabled\nactive"
    )
    assert host.sh(f"systemd-analyze verify {UNIT}.service {UNIT}.timer 2>&1") == ""
    # Nobody but root reads what was brought, and no argument has a secret.
    assert host.sh(f"stat -c %a {HOME} {HOME}/current/settings.json") == "700\n600"
    assert "s3cret" not in host.sh(f"systemctl cat {UNIT}.service {UNIT}.timer")
    gone = keeping.source.rename(keeping.directory / "gone")
    names = host.read("/etc/resolv.conf").decode()
    host.sh("echo nameserver 192.0.2.1 >/etc/resolv.conf")
    gateway = host.sh("ip route show default").split()[2]
    assert can_send(host, gateway)
    try:
        host.docker("rm", "-f", keeping.container("web")["Name"][1:])
        host.docker("stop", "-t", "0", keeping.container("side")["Name"][1:])
        host.sh(f"echo changed >{keeping.home}/conf/web.conf")
        # Nobody begins a run but the timer: the one under way may have missed a fault.
        soak.wait_for_runs(host, float(host.now()), 1)
        keeping.assert_well()
        assert "changed" not in host.sh(f"cat {keeping.home}/conf/web.conf")
        with keeping.watching() as seen:
        host.sh(CUT_OFF)
        assert not can_send(host, gateway)
        soak.set_timer(host, 4)
            soak.wait_for_runs(host, float(host.now()), 1)
        assert seen.quiet, seen.events
        record = json.loads(host.read(f"{HOME}/reports/latest.json"))
        assert [each["outcome"] for each in record["hosts"].values()] == ["converged"]
        assert "s3cret" not in json.dumps(record)
    finally:
        gone.rename(keeping.source)
        host.sh(f"{JOIN_AGAIN}; printf %s {shlex.quote(names)} >/etc/resolv.conf")
        soak.unset_timer(host)


def test_a_run_that_was_missed_is_made_up_for(keeping: Shop) -> None:
    host = keeping.host
    # The host was off when the timer would have begun one.
    host.sh(f"systemctl stop {UNIT}.timer")
    soak.wait_for_end(host)
    host.docker("rm", "-f", keeping.container("web")["Name"][1:])
    host.sh(f"touch -d '-2 days' /var/lib/systemd/timers/stamp-{UNIT}.timer")
    since = float(host.now())
    host.sh(f"systemctl start {UNIT}.timer")
    soak.wait_for_runs(host, since, 1)
    keeping.assert_well()
    # One that was not missed is not made up for.
    soak.wait_for_end(host)
    host.sh(f"systemctl stop {UNIT}.timer; systemctl start {UNIT}.timer")
    assert host.sh(f"systemctl is-active {UNIT}.service", check=False) == "inactive"


def test_settings_changed_on_the_controller_reach_the_host(keeping: Shop) -> None:
    host = keeping.host
    before = host.sh(f"readlink {HOME}/current")
    program = host.sh(f"readlink -f {HOME}/current/venv")
    keeping.services["side"]["environment"] = {"NEWS": "yes", "HOME_OF_ROOT": "${HOME}"}
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    assert host.sh(f"readlink {HOME}/current") != before
    assert host.sh(f"readlink -f {HOME}/current/venv") == program
    assert host.sh(f"ls {HOME}/programs | wc -l; ls {HOME}/generations | wc -l") == "1\n2"
    with keeping.watching() as seen:
        start(host)
    assert seen.quiet, seen.events
    # Somebody edits the host's copy.
    before = host.read(f"{HOME}/current/settings.json")
    host.sh(f"sed -i 's/NEWS/OLDS/' {HOME}/current/inventory.py {HOME}/current/settings.json")
    host.sh(f"echo '#' >>{HOME}/current/inventory.py")
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    assert host.read(f"{HOME}/current/settings.json") == before


def test_settings_that_the_host_cannot_run_by_itself_are_not_switched_to(keeping: Shop) -> None:
    host = keeping.host
    before = host.sh(f"readlink {HOME}/current")
    # The trial is run as the timer runs it.
    host.put("/usr/local/bin/systemd-run", "#!/bin/sh\nexit 70\n", "0755")
    keeping.services["side"]["environment"] = {"NEWS": "no", "HOME_OF_ROOT": "${HOME}"}
    done = keeping.run("-y")
    host.sh("rm /usr/local/bin/systemd-run")
    assert done.rc == 1, done.out
    assert "the host cannot mend itself yet" in done.out
    # The copy before has older settings, which nothing may put back.
    assert "stopped stackmend-host" in done.out
    state = host.sh(
        f"systemctl is-active {UNIT}.timer; systemctl is-enabled {UNIT}.timer", check=False
    )
    assert state == "inactive\ndisabled"
    assert host.sh(f"readlink {HOME}/current") == before
    assert not host.exists(f"{HOME}/generations/.partial")
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    assert host.sh(f"systemctl is-active {UNIT}.timer") == "active"


def test_a_program_whose_python_is_gone_is_brought_anew(keeping: Shop) -> None:
    host = keeping.host
    program = host.sh(f"readlink -f {HOME}/current/venv")
    host.sh(f"rm {program}/bin/python*")
    done = keeping.run("-y", timeout=300)
    assert done.rc == 0, done.out
    assert "its program does not start any more" in done.out
    assert host.sh(f"readlink -f {HOME}/current/venv") != program
    start(host)


def break_settings_of_the_engine(shop: Shop) -> None:
    shop.host.sh("echo '{}' >/etc/docker/daemon.json")


def stop_the_engine(shop: Shop) -> None:
    shop.host.sh("systemctl stop docker.socket docker.service")


def take_the_port(shop: Shop) -> None:
    shop.host.docker("rm", "-f", shop.id("web"))
    serve = "systemd-run -q --unit=taker python3 -m http.server 8080 --bind 127.0.0.1"
    shop.host.sh(f"{serve}; SECONDS=0; until curl -s 127.0.0.1:8080; do [ $SECONDS -lt 20 ]; done")


def leave_nothing_of_the_project(shop: Shop) -> None:
    shop.by_hand("down")
    shop.host.sh(f"rm -rf {shop.home}/conf")


def freeze_a_service(shop: Shop) -> None:
    shop.host.docker("pause", shop.id("redis"))


REMEDIES = (
    break_settings_of_the_engine,
    stop_the_engine,
    take_the_port,
    leave_nothing_of_the_project,
    freeze_a_service,
)


@pytest.mark.slow
def test_remedies_of_each_kind_come_about_under_the_unit(keeping: Shop) -> None:
    host = keeping.host
    keeping.settings["engine"] = {"channel": "distro", "log": {"max_size": "9m"}}
    allow = ["exe:/usr/bin/python3*"]
    keeping.settings["ports"] = {"on_conflict": "stop", "allow": allow, "grace": 2, "settle": 1}
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    for make in REMEDIES:
        make(keeping)
        start(host)
        keeping.assert_well()
    assert '"9m"' in host.read("/etc/docker/daemon.json").decode()
    with keeping.watching() as seen:
        start(host)
    assert seen.quiet, seen.events
    del keeping.settings["engine"], keeping.settings["ports"]
    done = keeping.run("-y")
    assert done.rc == 0, done.out


@pytest.fixture(scope="module")
def fleet(keeping: Shop) -> str:
    """A user's inventory on the host, which is then the controller of itself; and its files."""
    host = keeping.host
    # What the host runs by itself serves here as a user's own installation.
    host.sh(
        f"chmod a+x /var/lib/stackmend /var/lib/stackmend/schedule {HOME} {HOME}/programs; "
        f"chmod -R a+rX {HOME}/programs; ln -sfn $(readlink -f {HOME}/current/venv) /opt/venv"
    )
    home = "/home/operator/fleet"
    for path in sorted(keeping.source.rglob("*")):
        if path.is_file():
            host.put(f"{home}/src/{path.relative_to(keeping.source)}", path.read_bytes())
    settings = {**keeping.settings, "source": f"{home}/src"}
    settings["env"] = {"LICENCE_KEY": "s3cret-of-the-shop"}
    del settings["schedule"], settings["report"]
    reach = {
        "ssh_hostname": "127.0.0.1",
        "ssh_user": "root",
        "ssh_key": "/home/operator/.ssh/id_ed25519",
        "ssh_known_hosts_file": "/home/operator/.ssh/known_hosts",
    }
    schedule = {"every": "24h"}
    local = {"_sudo": True, "stack": {"schedule": schedule}}
    hosts = [("@local", local), ("shop", {**reach, "stack": settings})]
    host.put(f"{home}/fleet.py", f"hosts = {pprint.pformat(hosts)}\n", "0600")
    host.sh(
        "mkdir -p ~operator/.ssh && chmod 700 ~operator/.ssh && cd ~operator/.ssh && "
        "rm -f id_ed25519 && ssh-keygen -q -t ed25519 -N '' -f id_ed25519 && "
        "cat id_ed25519.pub >>/root/.ssh/authorized_keys && "
        "ssh-keyscan -t ed25519 127.0.0.1 >known_hosts 2>/dev/null; chown -R operator ~operator"
    )
    return home


def as_operator(host: LabHost, home: str, *words: str) -> str:
    """``stackmend WORDS...`` as a user of the host runs it."""
    command = f"cd {home} && /opt/venv/bin/stackmend {' '.join(words)} 2>&1"
    done = host.run(
        f"runuser -u operator -- env HOME=/home/operator sh -c {command!r}", timeout=180
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


def edit_schedule(host: LabHost, home: str, before: str, after: str) -> None:
    """Change the schedule in the user's inventory."""
    host.sh(f'sed -i "s/{before}/{after}/" {home}/fleet.py')


def test_a_timer_of_the_controller_keeps_the_fleet(keeping: Shop, fleet: str) -> None:
    host = keeping.host
    unit = "stackmend-controller"
    as_operator(host, fleet, "site", "fleet.py")
    assert host.sh(f"systemctl is-enabled {unit}.timer; systemctl is-active {unit}.timer") == (
        "enabled\nactive"
    )
    assert host.sh(f"systemd-analyze verify {unit}.service {unit}.timer 2>&1") == ""
    text = host.sh(f"systemctl cat {unit}.service")
    assert "User=operator" in text
    assert "ProtectSystem=strict" in text
    exposed = host.sh(
        f"systemd-analyze security --no-pager {unit}.service | tail -n 1", check=False
    )
    assert "OK" in exposed or "MEDIUM" in exposed, exposed
    host.docker("rm", "-f", keeping.container("web")["Name"][1:])
    host.sh(f"echo changed >{keeping.home}/conf/web.conf")
    start(host, unit)
    keeping.assert_well()
    record = json.loads(host.read(f"{fleet}/var/reports/latest.json"))
    assert record["hosts"]["shop"]["outcome"] == "changed"
    with keeping.watching() as seen:
        start(host, unit)
    assert seen.quiet, seen.events
    assert "converged" in as_operator(host, fleet, "site", "fleet.py")
    edit_schedule(host, fleet, "'every': '24h'", "'present': False")
    as_operator(host, fleet, "site", "fleet.py")
    edit_schedule(host, fleet, "'present': False", "'every': '24h'")
    assert host.sh(f"find /etc /var/lib/systemd /var/lib/stackmend -name '*{unit}*'") == ""


def test_mode_controller_is_refused_on_another_machine(keeping: Shop) -> None:
    before = keeping.settings["schedule"]
    keeping.settings["schedule"] = {"every": "5min"}
    done = keeping.run("-y")
    keeping.settings["schedule"] = before
    assert done.rc == 1, done.out
    assert "mode controller runs the whole fleet from this machine" in done.out
    assert '"mode": "host"' in done.out


def test_cron_does_it_where_there_is_no_systemd(keeping: Shop, fleet: str) -> None:
    host = keeping.host
    table = "/etc/cron.d/stackmend-controller"
    host.sh("systemctl start cron; mount -t tmpfs tmpfs /run/systemd")
    try:
        as_operator(host, fleet, "site", "fleet.py")
        assert "2 converged" in as_operator(host, fleet, "site", "fleet.py")
        assert not host.exists("/etc/systemd/system/stackmend-controller.timer")
        assert host.sh(f"stat -c '%a %U' {table}") == "644 root"
        # cron itself begins it, within a minute.
        edit_schedule(host, fleet, "'every': '24h'", "'every': '1min'")
        as_operator(host, fleet, "site", "fleet.py")
        since = float(host.now())
        host.docker("rm", "-f", keeping.container("web")["Name"][1:])
        soak.wait_for_runs(host, since, 1, reports=f"{fleet}/var/reports")
        keeping.assert_well()
        edit_schedule(host, fleet, "'every': '1min'", "'present': False")
        as_operator(host, fleet, "site", "fleet.py")
    finally:
        host.sh("umount /run/systemd; systemctl stop cron")
    assert not host.exists(table)
    assert host.exists(HOME)


@pytest.mark.slow
def test_faults_at_random_are_healed_by_the_next_run_but_one(
    keeping: Shop, record_property: Callable[[str, object], None]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    record_property("seed", seed)
    soak.set_timer(keeping.host, 4)
    # The first run of a timer settles what its files are.
    soak.wait_for_runs(keeping.host, float(keeping.host.now()), 1)
    seen = soak.soak(keeping, 1, random.Random(seed), least=3)
    soak.unset_timer(keeping.host)
    print(f"before: {seen.before}\nafter: {seen.after}")
    assert not seen.wrong, (seed, seen)
    assert len({name for name, _ in seen.faults}) == 3


def test_a_timer_as_it_was_set_begins_runs_by_itself(keeping: Shop) -> None:
    host = keeping.host
    host.sh(f"rm -rf /etc/systemd/system/{UNIT}.timer.d; systemctl daemon-reload")
    before = keeping.settings["schedule"]
    keeping.settings["schedule"] = {**before, "every": "1min"}
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    since = float(host.now())
    host.docker("rm", "-f", keeping.container("web")["Name"][1:])
    soak.wait_for_runs(host, since, 1)
    keeping.assert_well()
    keeping.settings["schedule"] = before
    host.sh(f"systemctl stop {UNIT}.timer")


def test_a_run_that_is_stopped_cuts_no_step_off(keeping: Shop) -> None:
    host = keeping.host
    host.sh(f"systemctl stop {UNIT}.timer; systemctl reset-failed {UNIT}.service", check=False)
    # What docker begins for a step outlives the run that began it.
    host.put("/usr/local/bin/docker", SLOW_DOCKER, "0755")
    host.docker("rm", "-f", keeping.container("web")["Name"][1:])
    try:
        host.sh(f"rm -f /tmp/begun /tmp/ended; systemctl start --no-block {UNIT}.service")
        host.sh("SECONDS=0; until [ -e /tmp/begun ] || [ $SECONDS -gt 90 ]; do sleep 0.2; done")
        host.sh(f"systemctl stop {UNIT}.service", timeout=60)
        host.sh("SECONDS=0; until [ -e /tmp/ended ] || [ $SECONDS -gt 30 ]; do sleep 0.2; done")
        assert host.exists("/tmp/begun")
        assert host.exists("/tmp/ended")
        record = json.loads(host.read(f"{HOME}/reports/latest.json"))
        assert record["interrupted"] == "SIGTERM"
    finally:
        host.sh("rm -f /usr/local/bin/docker /tmp/begun /tmp/ended")
    start(host)
    keeping.assert_well()


def test_a_timer_that_is_not_to_be_leaves_nothing(keeping: Shop) -> None:
    host = keeping.host
    host.sh(f"rm -rf /etc/systemd/system/{UNIT}.timer.d; systemctl daemon-reload")
    keeping.settings["schedule"] = {"mode": "host", "present": False}
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    left = "find / -xdev -name '*stackmend-host*' -not -path '/proc/*' -not -path '/var/log/*'"
    assert host.sh(left) == ""
    assert not host.exists("/var/lib/stackmend/schedule")
    assert (
        host.sh(f"systemctl show -p LoadState --value {UNIT}.timer {UNIT}.service")
        == "not-found\n\nnot-found"
    )
    again = keeping.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out
