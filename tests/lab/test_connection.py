"""The connection room on real hosts: as root, with sudo, with sudo and a password, and broken."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyinfra.api.host import Host
from pyinfra.facts import files, server

from stackmend.connection import (
    CommandTimeout,
    ConnectionLost,
    LeaseHeld,
    PrivilegeError,
    RemoteError,
    Unknown,
    count_channels,
    docker,
    fetch_facts,
    hold_lock,
    http,
    invalidate,
    prefetch,
    read,
    run,
    spawn,
)
from tests import connected
from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.observed import KEEPER_PASSWORD, USERS
from tests.lab.paths import PROJECT

LOCK = "/run/stackmend-test/it's a.lock"


# An HTTP server that sends back what it is sent; perl is what every kind of host has.
ECHO = r"""
use IO::Socket::INET;
$SIG{CHLD} = "IGNORE";
my $server = IO::Socket::INET->new(
    LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 9, ReuseAddr => 1) or die $!;
while (my $peer = $server->accept) {
    next if fork;
    binmode $peer;
    while (defined(my $line = <$peer>)) {
        my $length = 0;
        while ($line !~ /^\r?$/) {
            $length = $1 if $line =~ /^content-length: (\d+)/i;
            $line = <$peer>;
        }
        read $peer, my $data, $length;
        print $peer "HTTP/1.1 200 OK\r\nContent-Length: $length\r\n\r\n$data";
        $peer->flush;
    }
    exit;
}
"""


@pytest.fixture(scope="module")
def leased(lab: Lab) -> LabHost:
    """A managed host, reset once: most of these tests leave nothing behind."""
    return lab.take(1)[0]


@pytest.fixture
def host(leased: LabHost) -> LabHost:
    """The host as the last test left it."""
    return leased


@pytest.fixture
def breakable(leased: LabHost) -> Iterator[LabHost]:
    """The host, for a test that leaves it changed."""
    yield leased
    leased.reset()


@pytest.fixture(params=USERS)
def linked(request: pytest.FixtureRequest, host: LabHost) -> Iterator[Host]:
    """The lab host over ssh, once for each kind of login."""
    with connected.lab(host, request.param) as connection:
        yield connection


@pytest.fixture
def box(host: LabHost) -> str:
    """A container that answers over HTTP on a port it does not publish; its address."""
    host.docker("rm", "-f", "box", "made", check=False)
    host.docker("run", "-d", "--name", "box", "-e", "PORT=8080", "lab/box:1")
    address = host.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "box")
    host.wait_for(f"exec 3<>/dev/tcp/{address}/8080")
    return address


def said_by_box(client: httpx.Client) -> str:
    answer = client.get("/")
    assert answer.status_code == 200
    return answer.text.strip()


def test_every_command_is_one_channel_of_one_login(host: LabHost, linked: Host) -> None:
    run(linked, "true")
    mark, before = host.mark(), count_channels(linked)
    assert run(linked, "id -un").text == "root\n"
    assert run(linked, "cat", stdin=b"\0data\n" * 50_000).stdout == b"\0data\n" * 50_000
    assert run(linked, "x=" + "y" * 200_000 + "\necho ${#x}").text == "200000\n"
    assert count_channels(linked) - before == 3
    assert len(host.sessions_since(mark)) == 3
    assert host.logins_since(mark) == 0


def test_channels_of_pyinfra_itself_are_counted(host: LabHost, linked: Host) -> None:
    mark, before = host.mark(), count_channels(linked)
    linked.get_fact(server.Hostname)
    run(linked, "true")
    assert count_channels(linked) - before == len(host.sessions_since(mark)) >= 2


def test_many_facts_are_one_channel(host: LabHost, linked: Host) -> None:
    prefetch(linked, server.Kernel)
    prefetch(linked, files.File, path="/etc/shadow")
    prefetch(linked, server.Users)
    run(linked, "true")
    mark = host.mark()
    for _ in range(3):
        assert read(linked, server.Hostname) == host.name
        assert read(linked, server.Kernel) == "Linux"
        assert read(linked, files.File, path="/etc/shadow")["user"] == "root"
        assert "keeper" in read(linked, server.Users)
    assert len(host.sessions_since(mark)) == 1
    invalidate(linked)
    read(linked, server.Users)
    assert len(host.sessions_since(mark)) == 2


def test_a_run_with_nothing_to_do_is_one_channel(host: LabHost, tmp_path: Path) -> None:
    deploy = tmp_path / "look.py"
    deploy.write_text(
        "from pyinfra import host\n"
        "from pyinfra.api import operation\n"
        "from pyinfra.facts import files, server\n"
        "from stackmend.connection import prefetch, read\n"
        "prefetch(host, server.Kernel)\n"
        "prefetch(host, files.File, path='/etc/passwd')\n"
        "@operation()\n"
        "def look(fact, **kwargs):\n"
        "    assert read(host, fact, **kwargs)\n"
        "    host.noop('as it should be')\n"
        "    yield from ()\n"
        "look(server.Kernel)\n"
        "look(files.File, path='/etc/passwd')\n"
        "look(server.Kernel)\n"
    )
    for user in USERS:
        inventory = controller.write_inventory(tmp_path, [host], user=user)
        for mode in ([], ["-y"], ["--dry"]):
            mark = host.mark()
            done = controller.run(inventory, str(deploy), *mode, stdin=b"\n")
            assert done.rc == 0, done.out
            assert done.out.count("No changes") == (0 if "--dry" in mode else 3)
            assert len(host.sessions_since(mark)) == 1, (mode, done.out)
            assert host.logins_since(mark) == 1


def test_the_password_is_nowhere_on_the_host(host: LabHost) -> None:
    look = (
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
        " | grep -c 'lab[-]keeper'"
    )
    with connected.lab(host, "keeper") as connection:
        assert run(connection, look, stdin=b"x").text == "0\n"
        assert run(connection, look + "\n" + "#" * 5000).text == "0\n"
    assert KEEPER_PASSWORD not in host.journal("-S -1min").replace("lab[-]keeper", "")


def test_a_cached_credential_changes_nothing(host: LabHost) -> None:
    with connected.lab(host, "keeper") as connection:
        for _ in range(3):
            run(connection, "sudo -v")
            assert run(connection, "cat", stdin=b"only this").stdout == b"only this"


def test_a_wrong_password_counts_as_one_attempt(host: LabHost) -> None:
    started = host.now()
    with (
        connected.lab(host, "keeper", _sudo_password="wrong") as connection,
        pytest.raises(PrivilegeError, match="refused the password of keeper"),
    ):
        run(connection, "touch /run/ran", stdin=b"a\nb\n")
    assert not host.exists("/run/ran")
    said = host.journal(f"-t sudo -S @{started.partition('.')[0]}")
    assert said.count("authentication failure") == 1


def test_without_a_password_the_way_out_is_named(host: LabHost) -> None:
    with connected.lab(host, "keeper", _sudo_password=None) as connection:
        with pytest.raises(PrivilegeError, match="_sudo_password"):
            run(connection, "true")
        assert fetch_facts(connection, [(server.Hostname, {})]) == [
            Unknown(
                "sudo wants the password of keeper: set _sudo_password in the host's data, "
                "or run with --same-sudo-password"
            )
        ]
        assert run(connection, "id -un", _sudo=False).text == "keeper\n"


def test_as_another_user(breakable: LabHost, linked: Host) -> None:
    breakable.sh("useradd -m other")
    assert run(linked, "id -un; echo ~", _sudo=True, _sudo_user="other").text == (
        "other\n/home/other\n"
    )
    with pytest.raises(PrivilegeError, match="unknown user"):
        run(linked, "true", _sudo=True, _sudo_user="nobody-at-all")


def test_a_login_shell_that_talks_is_not_heard(breakable: LabHost) -> None:
    breakable.sh(
        "echo 'echo welcome; echo warning >&2' | tee -a /home/operator/.bashrc /root/.profile"
    )
    breakable.sh("sed -i '1i echo welcome' /home/operator/.bashrc")
    with connected.lab(breakable, "operator", _use_sudo_login=True) as connection:
        assert fetch_facts(connection, [(server.Hostname, {})]) == [breakable.name]


def test_a_time_limit_ends_what_runs_as_root(host: LabHost, linked: Host) -> None:
    started = time.monotonic()
    with pytest.raises(CommandTimeout) as caught:
        run(linked, "echo partial; sleep 4711 & sleep 4711", timeout=3)
    assert time.monotonic() - started < 30
    assert caught.value.stdout == b"partial\n"
    assert host.sh("pgrep -f '[s]leep 4711'", check=False) == ""


def test_a_connection_that_is_cut_is_told(host: LabHost, linked: Host) -> None:
    def cut() -> None:
        host.wait_for("pgrep -f '[s]leep 4712'")
        # The sessions' processes, not the listener's.
        host.sh("pkill -f '^sshd: .*@notty|^sshd: .*\\[priv\\]|^sshd: root'")

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(ConnectionLost) as caught:
        run(linked, "sleep 4712")
    cutter.join()
    assert host.name in str(caught.value)
    assert "sleep 4712" in str(caught.value)
    assert isinstance(caught.value, OSError)
    with pytest.raises(ConnectionLost):
        run(linked, "true")
    assert isinstance(fetch_facts(linked, [(server.Hostname, {})])[0], Unknown)


def test_a_host_that_falls_silent_is_told(
    breakable: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackmend.connection.link.DEAD_AFTER", 4)
    with connected.lab(breakable) as connection:
        assert run(connection, "true").ok
        # What comes back is dropped, as by a machine that lost its power.
        drop = "iptables -I OUTPUT -p tcp --sport 22 -j DROP && iptables -I INPUT -p tcp --dport 22"
        breakable.sh(f"{drop} -j DROP")
        started = time.monotonic()
        with pytest.raises(ConnectionLost):
            run(connection, "true")
        assert time.monotonic() - started < 30


def test_after_a_new_connection_all_goes_on(host: LabHost) -> None:
    with connected.lab(host) as connection:
        assert read(connection, server.Hostname) == host.name
        before = count_channels(connection)
        connection.connector.client.close()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionLost):
            run(connection, "true")
        connection.disconnect()
        connection.connect(raise_exceptions=True)
        assert run(connection, "echo again").text == "again\n"
        assert count_channels(connection) == before + 1


def test_more_channels_than_the_host_grants(host: LabHost) -> None:
    with connected.lab(host) as connection:
        granted = int(host.sh("sshd -T | sed -n 's/^maxsessions //p'"))
        with contextlib.ExitStack() as stack:
            for _ in range(granted):
                stack.enter_context(spawn(connection, "cat"))
            with pytest.raises(RemoteError, match="no channel"):
                run(connection, "true")
        assert run(connection, "echo on").text == "on\n"


def test_a_lock_belongs_to_one(host: LabHost, linked: Host) -> None:
    with hold_lock(linked, LOCK) as lease:
        holder = host.read(LOCK).decode().strip()
        assert f"pid {os.getpid()} since " in holder
        with pytest.raises(LeaseHeld) as caught, hold_lock(linked, LOCK):
            raise AssertionError("two hold it")
        assert caught.value.holder == holder
        with (
            connected.lab(host, "root") as other,
            pytest.raises(LeaseHeld),
            hold_lock(other, LOCK),
        ):
            raise AssertionError("two hold it")
        assert host.run(f"flock -n {shlex.quote(LOCK)} true").returncode == 1
        lease.check()
    host.wait_for(f"flock -n {shlex.quote(LOCK)} true", 30)
    assert host.read(LOCK) == b""
    with hold_lock(linked, LOCK, holder="a\nsecond 'time'"):
        assert host.read(LOCK) == b"a second 'time'\n"


def test_under_a_lock_nothing_read_before_is_believed(breakable: LabHost) -> None:
    with connected.lab(breakable) as connection:
        assert read(connection, files.File, path="/run/there") is None
        breakable.put("/run/there", b"")
        assert read(connection, files.File, path="/run/there") is None
        with hold_lock(connection, LOCK):
            assert read(connection, files.File, path="/run/there") is not None


def test_a_lock_that_slips_away_is_noticed(host: LabHost) -> None:
    with connected.lab(host) as connection, hold_lock(connection, LOCK) as lease:
        assert not lease.lost
        host.sh("pkill -KILL -f '[f]lock -n 9'")
        deadline = time.monotonic() + 30
        while not lease.lost and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(ConnectionLost, match="lock was lost"):
            lease.check()


def test_a_lock_ends_with_a_killed_controller(host: LabHost, tmp_path: Path) -> None:
    deploy = tmp_path / "hold.py"
    deploy.write_text(
        "import time\n"
        "from pyinfra import host\n"
        "from stackmend.connection import hold_lock\n"
        f"with hold_lock(host, {LOCK!r}):\n"
        "    print('holding', flush=True)\n"
        "    time.sleep(60)\n"
    )
    for user in USERS:
        inventory = controller.write_inventory(tmp_path, [host], user=user)
        with controller.start(inventory, str(deploy), "-y") as running:
            assert running.wait_for_output("holding"), running.output()
            assert host.run(f"flock -n {shlex.quote(LOCK)} true").returncode == 1
            running.kill()
        host.wait_for(f"flock -n {shlex.quote(LOCK)} true", 30)


def test_a_lock_ends_when_nothing_is_heard_any_more(
    host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackmend.connection.lease.SILENCE", 2)
    with connected.lab(host) as connection, hold_lock(connection, LOCK):
        host.wait_for(f"flock -n {shlex.quote(LOCK)} true", 30)


def test_signs_of_life_keep_a_lock(host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackmend.connection.lease.SILENCE", 5)
    monkeypatch.setattr("stackmend.connection.lease.BEAT", 0.5)
    with connected.lab(host) as connection, hold_lock(connection, LOCK) as lease:
        time.sleep(8)
        lease.check()
        assert host.run(f"flock -n {shlex.quote(LOCK)} true").returncode == 1


def test_a_lock_that_cannot_be_had_says_why(host: LabHost) -> None:
    with connected.lab(host, "operator", _sudo=False) as connection:
        with pytest.raises(RemoteError, match="Permission denied"), hold_lock(connection, LOCK):
            pass
        with pytest.raises(ValueError, match="absolute"), hold_lock(connection, "a.lock"):
            pass


def test_docker_speaks_over_the_login_there_is(host: LabHost, linked: Host, box: str) -> None:
    before, mark = count_channels(linked), host.mark()
    with docker(linked) as client:
        expected = host.docker("version", "-f", "{{.Server.APIVersion}}")
        assert client.api.api_version == expected
        for _ in range(10):
            assert [each.name for each in client.containers.list()] == ["box"]
        assert count_channels(linked) - before == 1
        container = client.containers.get("box")
        answer = container.exec_run(["sh", "-c", "printf out; printf err >&2; exit 7"], demux=True)
        assert answer == (7, (b"out", b"err"))
        many = container.exec_run(["sh", "-c", "seq 200000"])
        assert many.output == "".join(f"{n}\n" for n in range(1, 200_001)).encode()
        stream = container.exec_run(["sh", "-c", "echo a; sleep 0.3; echo b"], stream=True)
        assert list(stream.output) == [b"a\n", b"b\n"]
        client.containers.create("lab/box:1", name="made", labels={"with": "a label"})
    assert host.inspect("made")["Config"]["Labels"]["with"] == "a label"
    assert host.logins_since(mark) == 0
    host.wait_for("! pgrep -f '[d]ial-stdio'", 30)


def test_what_docker_changes_makes_facts_invalid(host: LabHost, box: str) -> None:
    with connected.lab(host) as connection:
        read(connection, server.Hostname)
        before = count_channels(connection)
        with docker(connection, readonly=True) as client:
            client.ping()
        read(connection, server.Hostname)
        assert count_channels(connection) - before == 1
        with docker(connection) as client:
            client.ping()
        read(connection, server.Hostname)
        assert count_channels(connection) - before == 3


@pytest.mark.parametrize(
    ("prepare", "user", "reason"),
    [
        ("systemctl stop docker.socket docker", "root", "connection refused|No such file"),
        ("true", "operator-without-sudo", "permission denied"),
        ("mv /usr/bin/docker /root/", "root", "not found"),
    ],
    ids=["stopped", "not permitted", "no client"],
)
def test_why_docker_cannot_be_spoken_to(
    breakable: LabHost, prepare: str, user: str, reason: str
) -> None:
    breakable.sh(prepare)
    name, _, plain = user.partition("-")
    data: dict[str, Any] = {"_sudo": False} if plain else {}
    try:
        with (
            connected.lab(breakable, name, **data) as connection,
            pytest.raises(RemoteError, match=reason),
            docker(connection),
        ):
            pass
    finally:
        breakable.sh("[ ! -e /root/docker ] || mv /root/docker /usr/bin/")


def test_an_engine_that_hangs_is_a_timeout(host: LabHost) -> None:
    host.sh("pkill -STOP -x dockerd")
    try:
        started = time.monotonic()
        with (
            connected.lab(host, "operator") as connection,
            pytest.raises(RemoteError, match="timed out"),
            docker(connection, timeout=2),
        ):
            pass
        assert time.monotonic() - started < 30
    finally:
        host.sh("pkill -CONT -x dockerd")


@pytest.mark.parametrize("via", ["auto", "forward", "bridge"])
def test_http_to_a_container_that_publishes_nothing(linked: Host, box: str, via: Any) -> None:
    with http(linked, box, 8080, via=via) as client:
        assert said_by_box(client) == "box 1"
        assert client.get("/nowhere").status_code == 404
    with http(linked, box, 8081, via=via) as client, pytest.raises(httpx.ConnectError) as caught:
        client.get("/")
    assert f"{box} port 8081" in str(caught.value)
    assert "refused" in str(caught.value) or "Connect failed" in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["AllowTcpForwarding no", "PermitOpen none", "DisableForwarding yes"]
)
def test_http_where_forwarding_is_forbidden(breakable: LabHost, box: str, setting: str) -> None:
    breakable.put("/etc/ssh/sshd_config.d/00-test.conf", f"{setting}\n")
    # systemd would refuse to start it a sixth time within ten seconds.
    breakable.sh("systemctl reset-failed ssh; systemctl restart ssh")
    with connected.lab(breakable, "operator") as connection:
        with http(connection, box, 8080) as client:
            assert said_by_box(client) == "box 1"
            before = count_channels(connection)
            assert said_by_box(client) == "box 1"
            # It is not asked again for what it has forbidden.
            assert count_channels(connection) - before <= 1
        with (
            http(connection, box, 8080, via="forward") as client,
            pytest.raises(httpx.ConnectError, match="forbids forwarding"),
        ):
            client.get("/")
    breakable.wait_for("! pgrep -f '[d]ev/tcp'", 30)


def test_a_bridge_carries_any_bytes_both_ways(host: LabHost) -> None:
    host.put("/root/echo.pl", ECHO)
    host.sh("systemd-run --unit=echo-test perl /root/echo.pl 8099")
    host.wait_for("exec 3<>/dev/tcp/127.0.0.1/8099")
    data = os.urandom(3_000_000)
    with connected.lab(host, "operator") as connection:
        for via in ("forward", "bridge"):
            before = count_channels(connection)
            with http(connection, "127.0.0.1", 8099, via=via) as client:  # type: ignore[arg-type]
                for _ in range(3):
                    assert client.post("/", content=data).content == data
            assert count_channels(connection) - before == 1, via
    host.sh("systemctl stop echo-test")
    host.wait_for("! pgrep -f '[d]ev/tcp'", 30)


def test_a_slow_answer_is_a_timeout(host: LabHost, box: str) -> None:
    host.docker("pause", "box")
    with connected.lab(host) as connection:
        for via in ("forward", "bridge"):
            with (
                http(connection, box, 8080, via=via, timeout=1) as client,  # type: ignore[arg-type]
                pytest.raises(httpx.ReadTimeout),
            ):
                client.get("/")


def test_one_client_speaks_to_one_place(host: LabHost, box: str) -> None:
    with connected.lab(host) as connection, http(connection, box, 8080) as client:
        with pytest.raises(httpx.ConnectError, match="only"):
            client.get("http://192.0.2.1:8080/")
        with pytest.raises(httpx.ConnectError, match="TLS"):
            client.get(f"https://{box}:8080/")  # what answers there speaks none
        assert said_by_box(client) == "box 1"


def test_on_this_machine_docker_answers_on_its_socket(host: LabHost) -> None:
    with connected.local() as here, docker(here, readonly=True) as client:
        # Of all that run here one is this test's own: those of others come and go.
        assert client.containers.get(host.container).status == "running"
        shown = subprocess.run(
            ["docker", "info", "--format", "{{.ID}}"], capture_output=True, text=True, check=True
        )
        assert client.info()["ID"] == shown.stdout.strip()


def test_on_this_machine_http_is_a_socket() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        connection.close()

    threading.Thread(target=answer, daemon=True).start()
    port = server.getsockname()[1]
    with server, connected.local() as here, http(here, "127.0.0.1", port, via="bridge") as client:
        assert client.get("/").text == "hi"
    with (
        connected.local() as here,
        http(here, "127.0.0.1", 1) as client,
        pytest.raises(httpx.ConnectError, match=r"@local: .*refused.*127\.0\.0\.1 port 1"),
    ):
        client.get("/")


def test_under_pyinfras_own_command_line_hosts_do_not_wait_for_each_other(
    hosts: Any, tmp_path: Path
) -> None:
    deploy = tmp_path / "everything.py"
    deploy.write_text(
        "import time\n"
        "from pyinfra import host\n"
        "from pyinfra.facts.server import Hostname\n"
        "from pyinfra.operations import python\n"
        "from stackmend.connection import docker, fetch_facts, hold_lock, http, run\n"
        "def work(state, host):\n"
        "    with hold_lock(host, '/run/stackmend-test.lock'), docker(host) as client:\n"
        "        began = time.monotonic()\n"
        "        for _ in range(4):\n"
        "            run(host, 'sleep 1')\n"
        "        box = client.containers.get('box')\n"
        "        assert box.exec_run('echo x').output == b'x\\n'\n"
        "        box.reload()\n"
        "        address = box.attrs['NetworkSettings']['IPAddress']\n"
        "        for via in ('forward', 'bridge'):\n"
        "            with http(host, address, 8080, via=via) as web:\n"
        "                assert web.get('/').text.strip() == 'box 1'\n"
        "        assert fetch_facts(host, [(Hostname, {})]) == [host.name]\n"
        "        assert run(host, 'cat', stdin=b'x' * 3_000_000).stdout == b'x' * 3_000_000\n"
        "        print('SPAN', began, time.monotonic(), flush=True)\n"
        "python.call(function=work)\n"
    )
    both = hosts(2)
    for each in both:
        each.docker("run", "-d", "--name", "box", "-e", "PORT=8080", "lab/box:1")
    inventory = controller.write_inventory(
        tmp_path, both, user="operator", per_host={both[1].name: both[1].ssh_data("keeper")}
    )
    done = controller.run(inventory, str(deploy), "-y")
    assert done.rc == 0, done.out
    spans = [line.split()[1:] for line in done.out.splitlines() if line.startswith("SPAN")]
    (a, b), (c, d) = [[float(moment) for moment in span] for span in spans]
    assert min(b, d) - max(a, c) > 3, "they ran one after the other"


def test_without_gevent_it_works_as_well(host: LabHost, tmp_path: Path) -> None:
    # The tests above run so; with every blocking call patched, in a process of its own.
    code = (
        "import sys; from gevent import monkey; monkey.patch_all()\n"
        "import pickle\n"
        "from tests import connected\n"
        "from tests.lab.hosts import LabHost\n"
        "from stackmend.connection import run, spawn\n"
        f"with connected.lab(LabHost({host.name!r}), 'keeper') as host:\n"
        "    assert run(host, 'cat', stdin=b'x' * 3_000_000).stdout == b'x' * 3_000_000\n"
        "with connected.local() as here, spawn(here, 'cat') as stream:\n"
        "    stream.write(b'y')\n"
        "    assert stream.read() == b'y'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, timeout=60)


def test_no_packet_waits_for_an_acknowledgement(host: LabHost, tmp_path: Path) -> None:
    deploy = tmp_path / "look.py"
    deploy.write_text(
        "import socket\n"
        "from pyinfra import host\n"
        "transport = host.connector.client.get_transport()\n"
        "option = transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)\n"
        "print('NODELAY', option)\n"
    )
    inventory = controller.write_inventory(tmp_path, [host])
    assert "NODELAY 1" in controller.run(inventory, str(deploy), "-y").out
    with connected.lab(host) as connection:
        run(connection, "true")
        sock = connection.connector.client.get_transport().sock  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
