"""What is read from a probe's text, and what scripts are given: every value arrives as it is."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pyinfra.api import FactProcessError

from stackmend.connection import parse_probe
from stackmend.engine import commands, facts, openpgp
from stackmend.engine.facts import HostEngines
from stackmend.engine.state import HostEngine
from tests.marks import MARK, asked, framed
from tests.unit.test_engine_openpgp import FINGERPRINT, KEY

HOST = ["system Linux", "root 0", "manager apt", "architecture amd64"]
NASTY = ("it's", "$(touch pwned)", "two\nlines", "-rf", " a  b ", "\\n", "*", "ä")


def output(sections: Mapping[str, Sequence[str] | tuple[int, Sequence[str]]]) -> list[str]:
    """Lines as the probe writes them."""
    return framed(
        {
            name: said if isinstance(said, tuple) else (0, said)
            for name, said in {"host": HOST, **sections, "done": []}.items()
        }
    )


def parse(lines: Sequence[str]) -> HostEngine:
    return facts.parse(lines, MARK)


def test_packages_as_dpkg_lists_them() -> None:
    state = parse(
        output(
            {
                "packages": [
                    "docker.io 26.1.5+dfsg1-9+b9 installed",
                    "containerd 1.7.24~ds1-6 half-configured",
                    "runc 1.1 config-files",
                    "docker-compose  not-installed",
                ]
            }
        )
    )
    assert {name: (one.version, one.complete) for name, one in state.packages.items()} == {
        "docker.io": ("26.1.5+dfsg1-9+b9", True),
        "containerd": ("1.7.24~ds1-6", False),
    }


def test_a_release_names_the_suite_that_it_is_made_from() -> None:
    rows = [
        'NAME="Linux Mint"',
        "ID=linuxmint",
        'ID_LIKE="ubuntu debian"',
        "VERSION_CODENAME=xia",
        "UBUNTU_CODENAME=noble",
        'PRETTY_NAME="Linux Mint 22.1"',
        "# a comment",
        "",
    ]
    release = parse(output({"release": rows})).release
    assert (release.id, release.codename, release.like) == (
        "linuxmint",
        "noble",
        ("ubuntu", "debian"),
    )


def test_flags_with_what_their_unit_puts_in() -> None:
    service = parse(
        output(
            {
                "systemd": [
                    "LoadState=loaded",
                    "ActiveState=active",
                    "UnitFileState=enabled",
                    "FragmentPath=/usr/lib/systemd/system/docker.service",
                    "DropInPaths=/etc/systemd/system/docker.service.d/a.conf",
                    "Environment=MTU=1280",
                    "ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// "
                    "$DOCKER_OPTS --mtu=${MTU} ; ignore_errors=no ; start_time=[n/a] ; pid=0 }",
                ],
                "environment": [
                    "=/etc/default/docker #DOCKER_OPTS=--no",
                    '=/etc/default/docker DOCKER_OPTS="--dns 192.0.2.1 --live-restore"',
                ],
            }
        )
    ).service
    assert service.flags == (
        *("-H", "fd://", "--dns", "192.0.2.1", "--live-restore"),
        "--mtu=1280",
    )
    assert service.sources == (
        "/usr/lib/systemd/system/docker.service",
        "/etc/systemd/system/docker.service.d/a.conf",
        "/etc/default/docker",
    )


@pytest.mark.parametrize(
    ("versions", "status"),
    [
        ((0, ["28.5.1|28.5.1"]), "up"),
        (
            (
                1,
                [
                    "26.1.5|",
                    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the "
                    "docker daemon running?",
                ],
            ),
            "stopped",
        ),
        ((1, ["28.5.1|", "permission denied while trying to connect"]), "forbidden"),
        ((124, ["28.5.1|"]), "hung"),
        ((2, ["something else"]), "unknown"),
    ],
)
def test_what_an_engine_answers(versions: tuple[int, list[str]], status: str) -> None:
    state = parse(output({"versions": versions}))
    assert state.status == status
    assert bool(state.reason) is (status != "up")


def test_an_old_compose_is_none() -> None:
    said = (125, ["docker: 'compose' is not a docker command."])
    assert parse(output({"compose": said})).compose == ""
    assert parse(output({"compose": ["v2.26.1-4"]})).compose == "2.26.1-4"


def test_daemon_json_comes_as_it_is() -> None:
    text = ['{\t"a": "b"', "", '  , "c": 1}\r', ""]
    config = parse(output({"config": ["path /etc/docker/daemon.json", "file"], "text": text}))
    assert config.config.text == "\n".join(text)
    assert parse(output({})).config.kind == "missing"
    linked = parse(output({"config": ["path /a", "real /srv/a b.json", "file"]})).config
    assert (linked.path, linked.real) == ("/a", "/srv/a b.json")
    broken = parse(output({"config": ["file"], "text": ["\ufffd"]})).config
    assert broken.problem
    assert not broken.text


def test_keyrings_are_known_by_their_fingerprints() -> None:
    shown = base64.encodebytes(openpgp.dearmor(KEY)).decode().splitlines()
    assert parse(output({"key /k.asc": shown})).keys == {"/k.asc": (FINGERPRINT,)}
    assert parse(output({"key /k.asc": ["bm8ga2V5"]})).keys == {"/k.asc": ()}


@pytest.mark.usefixtures("foreseen")
def test_what_was_cut_off_is_not_understood() -> None:
    with pytest.raises(FactProcessError, match="did not run to its end"):
        asked(HostEngines).process(output({"packages": []})[:-4])


def test_daemons_and_containers_have_what_names_and_arguments_they_like() -> None:
    argv = ["dockerd", "-H", "unix:///a\tb\n.0", "", "\ufffd"]
    given = b"dockerd\0-H\0unix:///a\tb\n.0\0\0\xff\0"
    state = parse(
        output(
            {
                "daemons": ["7 0", "docker.service", "", "12 1000", "a\tb.service", given.hex()],
                "containers": [
                    '["c1","/web|x",false]',
                    "WARNING: of the client",
                    '["c2","/a",true]',
                ],
            }
        )
    )
    assert [(one.pid, one.uid, one.unit, list(one.argv)) for one in state.daemons] == [
        (7, 0, "docker.service", []),
        (12, 1000, "a\tb.service", [word for word in argv if word]),
    ]
    assert [(one.id, one.name, one.auto_remove) for one in state.containers] == [
        ("c1", "web|x", False),
        ("c2", "a", True),
    ]


def test_the_probe_runs_in_a_plain_shell_and_tells_of_this_machine() -> None:
    fact = HostEngines()
    done = subprocess.run(
        ["sh", "-c", fact.command().get_raw_value()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    state = fact.process(done.stdout.split("\n"))
    assert state.system in ("Linux", "Darwin")
    assert state.release.id or state.system == "Darwin"


def test_a_change_that_begins_while_the_probe_reads_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, root, tools = tmp_path / "daemon.json", tmp_path / "root", tmp_path / "tools"
    config.write_text("{}")
    root.mkdir()
    tools.mkdir()
    for name, body in (
        ("systemctl", f'echo "path=dockerd --config-file={config} ; x"'),
        # Just before the file is read, a script announces what it does and does it.
        (
            "cat",
            f'[ "$1" != {config} ] || {{ : >{root}/pending; echo 1 >{config}; }}; tail -c +1 "$@"',
        ),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setattr(facts, "ROOT", str(root))
    fact = HostEngines()
    done = subprocess.run(
        ["sh", "-c", fact.command().get_raw_value()],
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    state = fact.process(done.stdout.split("\n"))
    assert (state.config.path, state.config.text.strip()) == (str(config), "1")
    assert state.pending


@pytest.mark.parametrize(
    ("active", "status"),
    [("active", "hung"), ("failed", "stopped"), ("activating", "stopped"), ("inactive", "stopped")],
)
def test_an_engine_that_is_not_there_does_not_hang(active: str, status: str) -> None:
    """systemd listens for it, and nobody answers."""
    rows = ["LoadState=loaded", f"ActiveState={active}"]
    state = parse(output({"systemd": rows, "versions": (124, ["28.5.1|"])}))
    assert state.status == status
    assert state.reason


@pytest.mark.parametrize("nasty", NASTY)
def test_every_value_arrives_as_it_is(nasty: str) -> None:
    for command, given in (
        (commands.fetch(nasty), [nasty]),
        (commands.place(nasty, nasty), [commands.ROOT, nasty, nasty]),
        (commands.refresh("apt", nasty, [nasty]), [commands.ROOT, "apt", nasty, nasty]),
        (
            commands.install("apt", nasty, [nasty], [nasty], snap=True, config=nasty),
            [commands.ROOT, "apt", nasty, "snap", "engine", nasty, nasty, "--", nasty],
        ),
        (
            commands.switch(
                nasty, [nasty, "--config-file", "x", "--config-file=x"], "s", "restart"
            ),
            [commands.ROOT, nasty, "restart", "s", nasty],
        ),
        (commands.build_rerun(nasty), [commands.ROOT, nasty]),
        (commands.start(nasty), [commands.ROOT, nasty]),
        (commands.restart([nasty, nasty]), [commands.ROOT, nasty, nasty]),
        (commands.remove_pid_file(nasty, 7), [commands.ROOT, nasty, "7"]),
    ):
        words = shlex.split(command.get_raw_value())
        assert words[:2] == ["sh", "-c"]
        assert words[4:] == given


@pytest.mark.parametrize("nasty", NASTY)
def test_every_value_of_a_short_command_arrives_as_it_is(nasty: str) -> None:
    rule = f"-A DOCKER-USER -m comment --comment {shlex.quote(nasty)} -j DROP"
    ip = ["ip", "link", "set", "dev", nasty]
    for command, words in (
        (commands.move_aside(nasty, "s"), ["mv", "-n", "--", nasty, f"{nasty}.s"]),
        (
            commands.restore_address(nasty, nasty),
            ["ip", "address", "replace", nasty, "broadcast", "+", "dev", nasty],
        ),
        (commands.raise_bridge(nasty), [*ip, "up"]),
        (commands.put_on_bridge(nasty, nasty), [*ip, "master", nasty, "up"]),
        (
            commands.remove_rule(rule),
            ["iptables", "-w", "10", "-D", *shlex.split(rule)[1:]],
        ),
    ):
        assert shlex.split(command.get_raw_value()) == words


BENEATH = {
    "containers": ['["' + "a" * 64 + '","/one",false]'],
    "networks": [
        '["shop","' + "0123456789ab" * 5 + '",false,null,[{"Subnet":"172.18.0.0/16","Gateway":'
        '"172.18.0.1"},{"Subnet":"fd00::/64","Gateway":"fd00::1"}],{"x":{"Name":"one",'
        '"IPv4Address":"172.18.0.2/16"}}]',
        '["far","ff",true,{"com.docker.network.bridge.name":"br-far"},null,{}]',
        "WARNING: something else",
    ],
    "endpoints": [
        '["/one",4711,{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::",'
        '"HostPort":"8080"}],"53/udp":null},{"shop":{"Gateway":"172.18.0.1"},"far":{"Gateway":""}}]'
    ],
    "addresses": ["3: br-0123456789ab    inet 172.18.0.1/16 brd 172.18.255.255 scope global x"],
    "links": [
        "3: br-0123456789ab: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP",
        "5: veth1@if4: <BROADCAST,UP> mtu 1500 qdisc noqueue state UP link-netnsid 0",
        "7: veth2@if6: <BROADCAST,UP> mtu 1500 master br-0123456789ab state UP link-netnsid 1",
        "9: eth0: <BROADCAST> mtu 1500",
    ],
    "ends": [
        "4711 link 1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536",
        "4711 link 4: eth0@if5: <BROADCAST,UP> mtu 1500",
        "4711 address 4: eth0    inet 172.18.0.2/16 brd 172.18.255.255 scope global eth0",
    ],
    "rules": [
        "*filter",
        "[1:60] -A FORWARD -j DOCKER-USER",
        "[5:300] -A DOCKER-USER -d 172.18.0.2/32 -j DROP",
        '[0:0] -A DOCKER-USER -m comment --comment "a \\"b" -j RETURN',
        '[0:0] -A DOCKER-USER -m comment --comment "not closed',
        "*nat",
        "[0:0] -A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:80",
    ],
    "others": ["*filter", "-A FORWARD -j DOCKER-USER"],
    "forwarding": ["1"],
}


def test_what_the_engine_made_in_the_kernel() -> None:
    state = parse(output(BENEATH))
    shop, far = state.networks
    assert (shop.bridge, far.bridge) == ("br-0123456789ab", "br-far")
    assert (shop.subnets, shop.gateways) == (("172.18.0.0/16",), ("172.18.0.1/16",))
    assert shop.containers == {"one": "172.18.0.2"}
    assert far.internal
    (port,) = state.published
    assert (port.container, port.port, port.protocol) == ("one", 80, "tcp")
    assert port.host_port == 8080
    assert state.devices["br-0123456789ab"].addresses == ("172.18.0.1/16",)
    assert not state.devices["eth0"].up
    (loose,) = state.loose
    assert (loose.container, loose.device, loose.bridge) == ("one", "veth1", "br-0123456789ab")
    assert state.rules is not None
    assert [(rule.table, rule.position, rule.packets) for rule in state.rules] == [
        ("filter", 1, 1),
        ("filter", 1, 5),
        ("filter", 2, 0),
        ("nat", 1, 0),
        ("other filter", 1, 0),
    ]
    assert state.rules[1].text == "-A DOCKER-USER -d 172.18.0.2/32 -j DROP"


@pytest.mark.parametrize("gateway", ["", ',"Gateway":"172.18.0.1"'])
@pytest.mark.parametrize("pool", ['{"Subnet":"172.18.0.0/16"%s}', '{"Subnet":"10.9.0.0/24"%s}'])
def test_a_gateway_that_only_containers_tell(gateway: str, pool: str) -> None:
    row = f'["shop","a",false,{{}},[{pool % gateway}],{{}}]'
    (network,) = parse(output({**BENEATH, "networks": [row]})).networks
    inside = "172.18" in pool
    assert network.gateways == (("172.18.0.1/16",) if inside else ())


def test_a_packet_filter_that_is_too_large_is_not_read() -> None:
    rules = ["*filter", *["-A FORWARD -j DOCKER"] * facts.MOST_RULES]
    assert parse(output({**BENEATH, "rules": rules})).rules is None
    without = {name: lines for name, lines in BENEATH.items() if name != "rules"}
    assert parse(output(without)).rules is None


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("networks", ['["shop","a",false,null,[{"Subnet":"nowhere"}],{}]']),
        ("networks", ['["shop","a",false,[1],[],{}]']),
        ("endpoints", ['["/one",1,{"80/tcp":[{"HostIp":"","HostPort":"many"}]},{}]']),
        ("endpoints", ['["/one",1,[7],{}]']),
        ("endpoints", ['["/one",1,{},[7]]']),
        ("pidfile", ["many words"]),
    ],
)
def test_what_makes_no_sense_is_no_state(name: str, lines: list[str]) -> None:
    with pytest.raises(FactProcessError, match="cannot be read"):
        parse_probe(parse, output({**BENEATH, name: lines}), "the engine")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", ""),
        (
            "failed to start daemon: Error initializing network controller: error obtaining "
            "controller instance: invalid database",
            "invalid database",
        ),
        (
            "github.com/docker/docker/libnetwork/datastore.(*cache).kmap(0xc000bf03a0)",
            "dockerd crashes as it reads it",
        ),
    ],
)
def test_why_an_engine_does_not_start_with_its_database(line: str, reason: str) -> None:
    assert parse(output({"database": [line]})).database == reason


def test_a_file_that_dockerd_does_not_read_and_the_one_to_put_back() -> None:
    kept = "/var/lib/stackmend/engine/kept/proven.json"
    said = [
        'time="2026-01-01" level=warning msg="x"',
        "unable to configure the Docker daemon with file /srv/d.json: no such key",
    ]
    sections: dict[str, Sequence[str] | tuple[int, Sequence[str]]] = {
        "config": ["path /srv/d.json", "file"],
        "text": ["{"],
        "refused": (1, said),
        f"copy {kept}": ["{", "}"],
    }
    config = parse(output(sections)).config
    assert config.refused == "no such key"
    assert config.copied is not None
    assert (config.copied.path, config.copied.text) == (kept, "{\n}\n")
    # A time-out says nothing of the file.
    assert not parse(output({**sections, "refused": (124, [])})).config.refused


def test_a_docker_that_nobody_may_execute() -> None:
    state = parse(output({"unexecutable": ["/usr/bin/docker"]}))
    assert state.status == "unexecutable"
    assert state.reason == "/usr/bin/docker is there, and nobody may execute it"
