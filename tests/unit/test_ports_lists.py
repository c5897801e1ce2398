"""What lists of sockets, the kernel and control groups print, as what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.ports import listing, processes, sockets
from stackmend.ports.state import Process

ID = "0123456789abcdef" * 4
ROW = "tcp   LISTEN 0      128          0.0.0.0:80        0.0.0.0:*    "


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ('users:(("nginx",pid=5,fd=3),("nginx",pid=6,fd=3))', (5, 6)),
        ('users:(("tmux: server",pid=5,fd=3))', (5,)),
        # A process may call itself what it likes, in fifteen bytes.
        ('users:(("a",pid=9,fd=1)",pid=55,fd=3))', (55,)),
        ('users:((")",pid=9,fd=1",pid=55,fd=3))', (55,)),
        ('users:(("users:((",pid=55,fd=3))', (55,)),
        ("", ()),
        # Broken in two by a name with a newline in it.
        ('users:(("a', ()),
    ],
)
def test_owners_that_ss_names(users: str, expected: tuple[int, ...]) -> None:
    (found,) = sockets.parse_ss([f"{ROW}{users} ino:77 sk:1 cgroup:/x <->"])
    assert (found.address, found.port, found.pids) == ("0.0.0.0", 80, expected)


@pytest.mark.parametrize(
    ("local", "rest", "address", "dual"),
    [
        ("*:80", "ino:1 sk:1 v6only:0 <->", "::", True),
        ("*:80", "", "::", True),
        ("[::]:80", "ino:1 sk:1 v6only:1 <->", "::", False),
        (":::80", "", "::", None),
        ("[::1]:80", "v6only:0", "::1", None),
        ("[::ffff:127.0.0.1]:80", "v6only:0", "127.0.0.1", None),
        ("127.0.0.53%lo:80", "", "127.0.0.53", None),
        ("[fe80::1]%eth0:80", "", "fe80::1", None),
        ("[fe80::1%eth0]:80", "", "fe80::1", None),
    ],
)
def test_addresses_that_ss_prints(local: str, rest: str, address: str, dual: bool | None) -> None:
    (found,) = sockets.parse_ss([f"tcp LISTEN 0 128 {local} *:* {rest}"])
    assert (found.address, found.port, found.dual) == (address, 80, dual)


def test_a_newer_ss_lists_what_is_bound_and_does_not_listen() -> None:
    (found,) = sockets.parse_ss(['tcp UNCONN 0 0 0.0.0.0:80 0.0.0.0:* users:(("x",pid=5,fd=3))'])
    assert (found.state, found.pids) == ("BOUND", (5,))
    (other,) = sockets.parse_ss(["udp UNCONN 0 0 0.0.0.0:80 0.0.0.0:*"])
    assert other.state == "UNCONN"


def test_rows_of_the_kernel() -> None:
    rows = [
        "tcp 0A 0100007F:0050 00000000:0000 0 11",
        "tcp6 0A 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0 12",
        "tcp6 0A 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0 13",
        "tcp6 01 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:9C40 0 14",
        "udp 07 00000000:0035 00000000:0000 0 15",
        "tcp 06 0100007F:0050 0100007F:9C41 0 0",
        "tcp 0A nonsense",
    ]
    found = sockets.parse_proc(rows, ["11 5", "11 6", "nonsense"])
    assert [(one.address, one.port, one.state, one.peer, one.pids) for one in found] == [
        ("127.0.0.1", 80, "LISTEN", "", (5, 6)),
        ("::", 80, "LISTEN", "", ()),
        ("::1", 80, "LISTEN", "", ()),
        ("127.0.0.1", 80, "ESTAB", "127.0.0.1:40000", ()),
        ("0.0.0.0", 53, "UNCONN", "", ()),
        ("127.0.0.1", 80, "TIME-WAIT", "127.0.0.1:40001", ()),
    ]


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.text(max_size=60), max_size=4))
def test_rubbish_is_no_row(lines: list[str]) -> None:
    text = [line.replace("\n", " ") for line in lines]
    sockets.parse_ss([f"tcp LISTEN {line}" for line in text])
    sockets.parse_proc([f"tcp 0A {line}" for line in text], text)
    sockets.parse_bound(text)
    sockets.parse_rules(text)
    sockets.parse_addresses(text)
    assert processes.parse_processes({"processes": (0, text), "links": (0, text)}, 1.0) == {}


def reported(*rows: tuple[int, bytes, bytes, bytes], links: str = "") -> dict[int, Process]:
    """Processes as the probe writes them."""
    mark = "0b5a-mark"
    raw = b"".join(f"{mark}\n".encode() + part for row in rows for part in row[1:])
    found = {
        "processes": (0, [" ".join(str(row[0]) for row in rows), raw.hex()]),
        "links": (0, links.splitlines()),
        "users": (0, ["0 root", "1000 ann"]),
    }
    return processes.parse_processes(found, up=100.0)


def stat(pid: int, name: str, parent: int = 1, started: int = 5000) -> bytes:
    return f"{pid} ({name}) S {parent} {'0 ' * 17}{started} 0 0\n".encode()


def test_a_process_is_read_whatever_it_calls_itself() -> None:
    name = ") S 1 (\nx"
    found = reported((7, stat(7, name), b"0::/system.slice/a.service\n", b"a\0b c\n\0\0"))
    one = found[7]
    assert (one.name, one.parent, one.started, one.seconds) == (name, 1, 5000, 50.0)
    assert one.argv == ("a", "b c\n", "")
    assert (one.unit, one.manager) == ("a.service", "system")


def test_who_writes_the_mark_makes_nobody_readable() -> None:
    assert reported((7, stat(7, "x"), b"", b"0b5a-mark\nfake")) == {}


def test_a_link_that_is_told_twice_is_not_believed() -> None:
    line = "lrwxrwxrwx 1 0 0 0 Jan  1 00:00 /proc/{}/exe -> {}"
    forged = "\n".join(
        [
            "dr-xr-xr-x 9 1000 1000 0 Jan  1 00:00 /proc/7",
            line.format(7, "/usr/bin/good"),
            line.format(8, "/tmp/x"),
            line.format(7, "/usr/bin/postgres"),
        ]
    )
    found = reported((7, stat(7, "x"), b"", b""), (8, stat(8, "y"), b"", b""), links=forged)
    assert (found[7].exe, found[7].user, found[8].exe) == ("", "ann", "/tmp/x")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/system.slice/redis.service", ("", "system", "redis.service")),
        ("/system.slice/foo.service/worker", ("", "system", "foo.service")),
        (
            "/system.slice/system-pg.slice/pg@15-main.service",
            ("", "system", "pg@15-main.service"),
        ),
        ("/user.slice/user-1000.slice/session-3.scope", ("", "system", "session-3.scope")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
            ("", "ann", "x.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            ("", "system", "user@1000.service"),
        ),
        ("/init.scope", ("", "", "")),
        ("/", ("", "", "")),
        (f"/system.slice/docker-{ID}.scope", (ID, "", "")),
        (f"/docker/{ID}", (ID, "", "")),
        (f"/docker/{ID}/system.slice/nginx.service", (ID, "", "")),
        (f"/machine.slice/libpod-{ID}.scope/container", (ID, "", "")),
        (f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", (ID, "", "")),
        ("/lxc.payload.web/system.slice/nginx.service", ("web", "", "")),
        (
            "/system.slice/snap.nextcloud.apache.service",
            ("", "system", "snap.nextcloud.apache.service"),
        ),
    ],
)
def test_what_a_control_group_names(path: str, expected: tuple[str, str, str]) -> None:
    one = reported((7, stat(7, "x"), f"0::{path}\n".encode(), b""))[7]
    assert (one.container, one.manager, one.unit) == expected


def test_a_host_may_itself_be_a_container() -> None:
    found = reported(
        (1, stat(1, "systemd", 0), f"0::/docker/{ID}/init.scope\n".encode(), b""),
        (7, stat(7, "x"), f"0::/docker/{ID}/system.slice/a.service\n".encode(), b""),
        (8, stat(8, "y"), f"0::/docker/{ID}\n".encode(), b""),
        (9, stat(9, "z"), f"0::/docker/{ID[::-1]}\n".encode(), b""),
    )
    assert [(one.container, one.unit) for one in found.values()] == [
        ("", ""),
        ("", "a.service"),
        ("", ""),
        (ID[::-1], ""),
    ]


def test_what_is_sent_to_kubernetes() -> None:
    lines = [
        "-A KUBE-NODEPORTS -p tcp -m comment --comment x -m tcp --dport 30080 -j KUBE-EXT-X",
        "-A CNI-HOSTPORT-DNAT -p udp -m multiport --dports 53,8000:8002 -j CNI-DN-x",
        "tcp . 30081 : goto external-ABC,",
        "-A INPUT --dport 22",
    ]
    ports = {("udp", port) for port in (53, 8000, 8001, 8002)}
    assert sockets.parse_rules(lines) == ports | {("tcp", 30080), ("tcp", 30081)}


IMAGE, SNAPSHOT, HASH = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "c" * 64


def listed(
    image: str, labels: list[Any], of_image: list[Any] | None, engine: str = "docker"
) -> Any:
    """A container as it is listed, from its labels and its image's project and hash."""
    printed = [image, ID, "/web", "running", 7, "no", "bridge", {}, *labels]
    images = [] if of_image is None else [json.dumps([image, *of_image])]
    (found,) = listing.parse_containers(
        {
            f"containers {engine}": (0, [json.dumps(printed)]),
            f"images {engine}": (0, images),
        }
    )
    return found


OWN = ["shop", "web", "/opt/shop", "False", "/opt/shop/compose.yaml", "1", HASH, IMAGE]


@pytest.mark.parametrize(
    ("image", "labels", "of_image", "project", "ours"),
    [
        # What Compose made, also from an image that was committed from such a one, or that is gone.
        (IMAGE, OWN, [None, None], "shop", True),
        (IMAGE, OWN, ["shop", HASH], "shop", True),
        (IMAGE, OWN, None, "shop", True),
        (SNAPSHOT, OWN, ["shop", "d" * 64], "shop", True),
        # docker commit, docker run.
        (SNAPSHOT, OWN, ["shop", HASH], "", False),
        (SNAPSHOT, OWN, None, "", False),
        # An image that Compose built: it names a project, and no container of it.
        (SNAPSHOT, ["shop", "web", *[None] * 6], ["shop", None], "", False),
        # Somebody says so by hand, or another tool: it may be named by that, and is not ours.
        (SNAPSHOT, ["shop", "web", *[None] * 6], [None, None], "shop", False),
        (SNAPSHOT, ["shop", "web", *[None] * 6], ["other", HASH], "shop", False),
        (IMAGE, [None] * 8, [None, None], "", False),
    ],
)
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_whose_a_container_is(
    image: str, labels: list[Any], of_image: list[Any] | None, project: str, ours: bool, engine: str
) -> None:
    if engine == "podman":
        # It writes ids without their algorithm, and Compose writes what it is told.
        image = image.removeprefix("sha256:")
        labels = [label.removeprefix("sha256:") if label else label for label in labels]
    found = listed(image, labels, of_image, engine)
    assert found.project == project
    assert (found.project == "shop" and not found.foreign) is ours
    assert bool(found.service) is bool(project)
