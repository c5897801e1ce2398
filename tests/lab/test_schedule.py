"""``schedule.timer`` on real hosts: one that mends itself, a controller's, cron's, and the end."""

from __future__ import annotations

import io
import json
import pprint
import random
import shlex
import tarfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest

from tests.lab import locks, soak
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.model_registry import ModelRegistry, Pushed
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import push
from tests.lab.names import DATA, FIRST, SECOND, serve, stop_serving
from tests.lab.stacks import HEALTH, Shop

HOME = "/var/lib/stackmend/schedule/stackmend-host"
UNIT = "stackmend-host"
#: Who is notified: what listens on the host itself, where something does.
TARGET = "json://127.0.0.1:8097/secret-topic"

#: What listens there, and keeps the title of each message.
LISTENER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/run/heard", "a") as out:
            out.write(json.loads(body)["title"] + chr(10))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", 8097), Handler).serve_forever()
"""

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


#: What names the main process alone to `systemctl kill`, which is called otherwise before 252.
KILL_MAIN = (
    "systemctl --help | grep -q -e --kill-whom && echo --kill-whom=main || echo --kill-who=main"
)

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


def start(host: LabHost, unit: str = UNIT) -> None:
    """One run of the service, as its timer begins it."""
    done = host.run(f"systemctl start {unit}.service", timeout=120)
    said = host.sh(f"journalctl -q --no-pager -o cat -t {unit} -n 40", check=False)
    assert done.returncode == 0, said


@pytest.fixture(scope="module")
def keeping(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop on a host that mends itself; its timer is far away."""
    host = lab.take(1)[0]
    mend = {"attempts": 100, "backoff": [0]}
    shop = Shop(tmp_path_factory.mktemp("keeping"), host, mend=mend)
    shop.settings["reconcile"] = soak.LIMITS
    shop.settings["report"] = {"notify": [TARGET]}
    shop.settings["schedule"] = {
        "mode": "host",
        "every": "24h",
        "random_delay": 0,
        "notify": True,
    }
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
        host.sh(CUT_OFF)
        assert not can_send(host, gateway)
        soak.set_timer(host, 4)
        host.docker("rm", "-f", keeping.container("web")["Name"][1:])
        host.docker("stop", "-t", "0", keeping.container("side")["Name"][1:])
        host.sh(f"echo changed >{keeping.home}/conf/web.conf")
        # Nobody begins a run but the timer: the one under way may have missed a fault.
        soak.wait_for_runs(host, float(host.now()), 1)
        keeping.assert_well()
        assert "changed" not in host.sh(f"cat {keeping.home}/conf/web.conf")
        with keeping.watching() as seen:
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


def test_those_of_the_report_hear_of_a_host_that_mends_itself_once(keeping: Shop) -> None:
    host = keeping.host
    assert host.sh(f"stat -c %a {HOME}/current/settings.json") == "600"
    host.put("/opt/listener.py", LISTENER)
    host.sh("rm -f /run/heard; systemd-run -q --collect --unit=heard python3 /opt/listener.py")
    host.wait_for("ss -ltn | grep -q 127.0.0.1:8097")
    title = f"stackmend: {host.sh('hostname')} (@local): "
    try:
        # A target that was dead hears of what still holds, and of nothing that is over.
        start(host)
        assert not host.exists("/run/heard"), host.read("/run/heard")
        host.docker("stop", "-t", "1", keeping.container("side")["Name"][1:])
        start(host)
        assert host.read("/run/heard").decode().splitlines() == [f"{title}mended"]
        # Nothing changes, and each run is a process of its own: what was sent is on the disk.
        start(host)
        start(host)
        assert host.read("/run/heard").decode().splitlines() == [f"{title}mended"]
        known = host.read(f"{HOME}/reports/notified.json").decode()
        assert "secret-topic" not in known
        record = host.read(f"{HOME}/reports/latest.json").decode()
        assert "secret-topic" not in record
    finally:
        host.sh("systemctl stop heard.service; rm -f /run/heard /opt/listener.py")


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


#: What the host and its containers resolve, and a server that does not answer.
NAME, ADDRESS = "queue.lab.test", "192.0.2.10"

GIT = "/srv/git"
OVERRIDE = f"{Shop.home}/compose.stackmend.yaml"

#: A port of the host's that outgoing connections would be given, too.
PORT = 45678


class Wide:
    """The shop with the sections whose remedies a service and its files do not need.

    + shop: the shop, whose settings and services get them
    + model: the model that it wants
    """

    #: The sections that a host without systemd has not.
    SECTIONS = ("engine", "ports", "resolver", "links", "models", "allow")

    def __init__(self, shop: Shop, model: Pushed) -> None:
        self.shop, self.model = shop, model
        self.server = ModelServer(shop.host, project=shop.project)
        shop.services["redis"]["ports"] = [f"127.0.0.1:{PORT}:6379"]
        shop.services["side"]["environment"]["REDIS_URL"] = "redis://localhost:6379/0"
        shop.services["ollama"] = {
            "image": "lab/model:1",
            "restart": "unless-stopped",
            "volumes": ["models:/root/.ollama"],
            "healthcheck": {"test": ["CMD", "ollama", "list"], **HEALTH, "interval": "30s"},
        }
        shop.compose["volumes"]["models"] = {}
        allow = ["exe:/usr/bin/python3*"]
        shop.settings |= {
            "source": {
                "git": "git://127.0.0.1/app.git",
                "ref": "main",
                "path": "deploy",
                "insecure": True,
            },
            "engine": {"channel": "distro", "log": {"max_size": "9m"}, "allow": ["restart"]},
            "ports": {"on_conflict": "stop", "allow": allow, "grace": 2, "settle": 1},
            "resolver": {"servers": [FIRST], "check_names": [NAME]},
            "links": {"on_conflict": "override"},
            "models": {"wanted": [model.name], "insecure": True, "minimum_free": 0},
            "allow": ["restart:resolver"],
        }

    def serve(self) -> None:
        """Serve names and the repository on the host."""
        host = self.shop.host
        registry = self.model.name.partition(":")[0]
        known = {NAME: ADDRESS}
        for name in (registry, registry.replace("registry", "storage", 1)):
            known[name] = host.sh(f"getent ahostsv4 {name}").split()[0]
        serve(host, FIRST, SECOND, name=NAME, address=ADDRESS)
        host.put(f"{DATA}/{FIRST}", "".join(f"{name} {to}\n" for name, to in known.items()))
        host.put(f"{DATA}/{SECOND}", "dead\n")
        host.sh(
            f"mkdir -p {GIT} && cd {GIT} && git init -q --bare -b main app.git && "
            f"git init -q -b main tree && systemd-run -q --unit lab-git "
            f"git daemon --export-all --listen=127.0.0.1 --base-path={GIT}"
        )
        self.shop.put_files(f"{GIT}/tree/deploy")
        self.commit()

    def commit(self) -> None:
        """Push what the project's working tree on the host holds."""
        author = "-c user.name=lab -c user.email=lab@example.com"
        self.shop.host.sh(
            f"cd {GIT}/tree && git add -A && git {author} commit -q -m change && "
            f"git push -q {GIT}/app.git HEAD:refs/heads/main"
        )

    def damage(self, text: str) -> None:
        """All of it at once, and a commit that others have made: another text in a file."""
        host = self.shop.host
        # Those rules alone that Docker on this host has made, and no other's.
        host.sh(
            "iptables -F; iptables -t nat -F DOCKER; iptables -t nat -S POSTROUTING | "
            "sed -n '/MASQUERADE/s/^-A/iptables -t nat -D/p' | sh"
        )
        # A port is kept for who is to have it and has it not.
        host.sh("sysctl -q -w net.ipv4.ip_local_reserved_ports=")
        host.docker("rm", "-f", self.shop.id("redis"))
        self.shop.put("conf/motd", text)
        host.put(f"{GIT}/tree/deploy/conf/motd", text)
        self.commit()
        host.docker("exec", self.server.container, "ollama", "rm", self.model.name)
        host.sh(f"rm {OVERRIDE}")
        self.shop.by_hand("up", "-d", "--no-deps", "side")
        host.sh(f"echo 'nameserver {SECOND}' >/etc/resolv.conf")
        assert not self.list_well(text)

    def list_well(self, text: str) -> list[str]:
        """What of it is well, as the host and its containers themselves have it."""
        shop, host = self.shop, self.shop.host
        rules = host.sh("iptables-save -t nat")
        reserved = host.sh("cat /proc/sys/net/ipv4/ip_local_reserved_ports")
        address = host.sh(f"timeout 15 getent ahostsv4 {NAME}", check=False)
        motd = host.docker("exec", shop.id("web"), "cat", "/etc/motd", check=False)
        redis_url = "REDIS_URL=redis://redis:6379/0"
        return [
            what
            for what, is_so in {
                "rules": "MASQUERADE" in rules and "--dport 8080 -j DNAT" in rules,
                "port": str(PORT) in reserved.split(","),
                "commit": motd == text.strip(),
                "model": self.model.name in self.server.tags(),
                "link": redis_url in shop.container("side")["Config"]["Env"],
                "servers": address.startswith(ADDRESS),
            }.items()
            if is_so
        ]

    def assert_well(self, text: str) -> None:
        """All of it, and the shop."""
        self.shop.assert_well()
        found = self.list_well(text)
        assert found == ["rules", "port", "commit", "model", "link", "servers"]
        assert self.server.is_complete(self.model.name)
        assert self.shop.answers_inside("side", "redis", 6379)

    def narrow(self) -> None:
        """Take the sections away again; the files are from git for ever."""
        for section in self.SECTIONS:
            self.shop.settings.pop(section, None)


@pytest.fixture(scope="module")
def wide(keeping: Shop, model_registry: ModelRegistry) -> Iterator[Wide]:
    """The shop with all of these sections, as one run has applied them."""
    wide = Wide(keeping, push(model_registry, "team/first:1b", 1_500_000, seed=1))
    keeping.write()
    wide.serve()
    done = keeping.run("-y", timeout=300)
    assert done.rc == 0, done.out
    yield wide
    stop_serving(keeping.host)


@pytest.mark.slow
def test_remedies_of_each_kind_come_about_under_the_unit(keeping: Shop, wide: Wide) -> None:
    host = keeping.host
    wide.assert_well("welcome\n")
    for make in REMEDIES:
        make(keeping)
        start(host)
        keeping.assert_well()
    assert '"9m"' in host.read("/etc/docker/daemon.json").decode()
    wide.damage("come in\n")
    start(host)
    wide.assert_well("come in\n")
    with keeping.watching() as seen:
        start(host)
    assert seen.quiet, seen.events


#: Keeps what it is sent.
LISTEN = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with open("/srv/heard", "a") as file:
            file.write(f"{self.path} {body.decode()}\\n")
        self.send_response(200)
        self.end_headers()

http.server.ThreadingHTTPServer(("127.0.0.1", 9321), Handler).serve_forever()
"""

#: What `stackmend[notify]` has that mode `host` does not bring.
NOTIFIES = ("apprise", "markdown", "oauthlib", "requests_oauthlib")

METRICS = "/home/operator/metrics/fleet.prom"


def install_notifier(host: LabHost) -> None:
    """Give the user's installation what sends messages, and the host what hears them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in NOTIFIES:
            found = find_spec(name)
            assert found is not None
            for place in found.submodule_search_locations or ():
                archive.add(place, name)
    done = host.run("tar -xf - -C /opt/venv/lib/python3*/site-packages", stdin=buffer.getvalue())
    assert done.returncode == 0, done.stderr
    host.put("/srv/listen.py", LISTEN)
    host.sh("systemd-run -q --unit listen python3 /srv/listen.py; touch /srv/heard")


def write_fleet(keeping: Shop, home: str) -> None:
    """Write the user's inventory as the shop's settings are now, and its files."""
    host = keeping.host
    keeping.put_files(f"{home}/src")
    settings = {**keeping.settings, "source": f"{home}/src"}
    settings["env"] = {"LICENCE_KEY": "s3cret-of-the-shop"}
    del settings["schedule"]
    settings["report"] = {
        "metrics": METRICS,
        "notify": ["json://127.0.0.1:9321/heard"],
        "ping": "http://127.0.0.1:9321/ping",
    }
    reach = {
        "ssh_hostname": "127.0.0.1",
        "ssh_user": "root",
        "ssh_key": "/home/operator/.ssh/id_ed25519",
        "ssh_known_hosts_file": "/home/operator/.ssh/known_hosts",
    }
    # Its place within the delay leaves cron's own run of the host the time to end.
    schedule = {"every": "24h", "random_delay": 18}
    local = {"_sudo": True, "stack": {"schedule": schedule}}
    hosts = [("@local", local), ("shop", {**reach, "stack": settings})]
    host.put(f"{home}/fleet.py", f"hosts = {pprint.pformat(hosts)}\n", "0600")
    host.sh("mkdir -p ~operator/metrics; chown -R operator ~operator")


@pytest.fixture(scope="module")
def fleet(keeping: Shop, wide: Wide) -> str:
    """A user's inventory on the host, which is then the controller of itself; and its files."""
    host = keeping.host
    # What the host runs by itself serves here as a user's own installation.
    host.sh(
        f"chmod a+x /var/lib/stackmend /var/lib/stackmend/schedule {HOME} {HOME}/programs; "
        f"chmod -R a+rX {HOME}/programs; ln -sfn $(readlink -f {HOME}/current/venv) /opt/venv"
    )
    home = "/home/operator/fleet"
    install_notifier(host)
    write_fleet(keeping, home)
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


def list_heard(host: LabHost) -> list[str]:
    """What was sent to the host's own target: the paths, and what each message is about."""
    heard = []
    for line in host.read("/srv/heard").decode().splitlines():
        if line.startswith("/"):
            path, _, body = line.partition(" ")
            path = path.partition("?")[0]
            title = json.loads(body)["title"] if path == "/heard" else ""
            heard.append(f"{path} {title.partition(': ')[2]}".strip())
    return sorted(heard)


def edit_schedule(host: LabHost, home: str, before: str, after: str) -> None:
    """Change the schedule in the user's inventory."""
    host.sh(f'sed -i "s/{before}/{after}/" {home}/fleet.py')


def test_a_timer_of_the_controller_keeps_the_fleet(keeping: Shop, wide: Wide, fleet: str) -> None:
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
    # By a user's hand and by a unit that may write to no more, it does the same.
    wide.damage("at your service\n")
    host.sh(f"echo changed >{keeping.home}/conf/web.conf")
    host.put(f"{fleet}/src/conf/motd", "at your service\n")
    host.sh(f": >/srv/heard; rm {METRICS}")
    start(host, unit)
    wide.assert_well("at your service\n")
    record = json.loads(host.read(f"{fleet}/var/reports/latest.json"))
    assert record["hosts"]["shop"]["outcome"] == "changed"
    assert list_heard(host) == ["/heard shop: mended", "/ping/0"]
    metrics = host.read(METRICS).decode()
    assert 'host="shop"' in metrics, metrics
    assert host.sh(f"stat -c '%U %a' {METRICS}") == "operator 644"
    host.sh(": >/srv/heard")
    with keeping.watching() as seen:
        start(host, unit)
    assert seen.quiet, seen.events
    assert list_heard(host) == ["/ping/0"]
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


def test_cron_does_it_where_there_is_no_systemd(keeping: Shop, wide: Wide, fleet: str) -> None:
    host = keeping.host
    table, own = "/etc/cron.d/stackmend-controller", f"/etc/cron.d/{UNIT}"
    wide.narrow()
    write_fleet(keeping, fleet)
    before = keeping.settings["schedule"]
    host.sh(f"systemctl stop {UNIT}.timer; systemctl start cron; mount -t tmpfs tmpfs /run/systemd")
    try:
        # The host itself, each minute.
        keeping.settings["schedule"] = {**before, "every": "1min"}
        done = keeping.run("-y")
        assert done.rc == 0, done.out
        assert host.sh(f"stat -c '%a %U' {own}") == "644 root"
        as_operator(host, fleet, "site", "fleet.py")
        assert "2 converged" in as_operator(host, fleet, "site", "fleet.py")
        assert not host.exists("/etc/systemd/system/stackmend-controller.timer")
        assert host.sh(f"stat -c '%a %U' {table}") == "644 root"
        # cron itself begins both within a minute, the controller's some seconds later.
        edit_schedule(host, fleet, "'every': '24h'", "'every': '1min'")
        as_operator(host, fleet, "site", "fleet.py")
        since = float(host.now())
        host.docker("rm", "-f", keeping.container("web")["Name"][1:])
        soak.wait_for_runs(host, since, 1)
        keeping.assert_well()
        host.sh(f"rm {own}")
        since = float(host.now())
        host.docker("rm", "-f", keeping.container("web")["Name"][1:])
        soak.wait_for_runs(host, since, 1, reports=f"{fleet}/var/reports")
        keeping.assert_well()
        edit_schedule(host, fleet, "'every': '1min'", "'present': False")
        as_operator(host, fleet, "site", "fleet.py")
    finally:
        keeping.settings["schedule"] = before
        host.sh(f"umount /run/systemd; systemctl stop cron; rm -f {own}")
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


def kill_a_container(shop: Shop) -> None:
    shop.host.docker("kill", shop.id("side"))


def change_a_file(shop: Shop) -> None:
    shop.host.sh(f"echo changed >{shop.home}/conf/web.conf")


def restart_the_engine(shop: Shop) -> None:
    shop.host.sh("systemctl reset-failed docker.service docker.socket; systemctl restart docker")


#: Each with what the run says that comes about for it.
NOTICED = {
    # What the engine has of this second comes with the next.
    kill_a_container: ("something happened on the engine", "a container, a network or a volume"),
    change_a_file: ("a file that a run reads has changed",),
    restart_the_engine: ("a file that a run reads has changed",),
}


def start_and_count(host: LabHost) -> tuple[int, str]:
    """One start of the service: how many runs came about, and what the journal has of it."""
    # Before its first run a host has no records.
    count = f"ls {HOME}/reports 2>/dev/null | grep -c '^2' || true"
    before = int(host.sh(count))
    read = f"journalctl -q --no-pager -o cat -t {UNIT} --cursor-file=/tmp/cursor"
    host.sh(f"{read} >/dev/null")
    start(host)
    return int(host.sh(count)) - before, host.sh(read, check=False)


def start_until_skipped(host: LabHost) -> None:
    """A run that changes something is followed by one that finds nothing to do, and remembers."""
    for _ in range(4):
        runs, said = start_and_count(host)
        if not runs:
            return
    raise AssertionError(said)


@pytest.mark.slow
def test_runs_for_which_nothing_has_happened_are_skipped(keeping: Shop) -> None:
    host = keeping.host
    before = keeping.settings["schedule"]
    far = {"at": "*-01-01 00:00", "full_every": "30min"}
    keeping.settings["schedule"] = {"mode": "host", **far}
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    assert host.sh(f"systemd-analyze verify {UNIT}.service {UNIT}.timer 2>&1") == ""
    for make, reasons in NOTICED.items():
        start_until_skipped(host)
        with keeping.watching() as seen:
            runs, said = start_and_count(host)
        assert (runs, said) == (0, ""), said
        assert seen.quiet, seen.events
        assert host.sh(f"systemctl show -p Result --value {UNIT}.service") == "exec-condition"
        make(keeping)
        runs, said = start_and_count(host)
        assert runs == 1, said
        assert any(f"a full run: {reason}" in said for reason in reasons), said
        keeping.assert_well()
    again = keeping.run("-y")
    assert "No changes" in again.out, again.out
    assert "last run failed" not in again.out
    keeping.settings["schedule"] = before
    done = keeping.run("-y")
    assert done.rc == 0, done.out
    assert "ExecCondition" not in host.sh(f"systemctl cat {UNIT}.service")
    assert start_and_count(host)[0] == 1
    host.sh("rm -f /tmp/cursor")


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


def test_a_run_that_is_killed_in_a_step_frees_its_lock_at_once(
    keeping: Shop, record_property: Callable[[str, object], None]
) -> None:
    """What holds the lock is a process that systemd spares, and so is the command of the step."""
    host = keeping.host
    host.put("/usr/local/bin/docker", SLOW_DOCKER, "0755")
    host.docker("rm", "-f", keeping.container("web")["Name"][1:])
    killed = f"systemctl kill -s KILL $({KILL_MAIN}) {UNIT}.service"
    try:
        host.sh(f"rm -f /tmp/begun /tmp/ended; systemctl start --no-block {UNIT}.service")
        host.wait_for("[ -e /tmp/begun ]", 90)
        record_property("seconds", locks.assert_free_at_once(host, lambda: host.sh(killed)))
        assert not host.exists("/tmp/ended"), "the lock was free before the step was over"
        # The next run waits for the step, which comes to its end.
        host.sh(f"rm /usr/local/bin/docker; systemctl reset-failed {UNIT}.service", check=False)
        start(host)
        assert host.exists("/tmp/ended")
    finally:
        host.sh("rm -f /usr/local/bin/docker /tmp/begun /tmp/ended")
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
