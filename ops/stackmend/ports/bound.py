"""Find TCP sockets that are bound and do not listen: the kernel before 6.8 lists them nowhere.

Sockets that are in no list are inspected through copies of their descriptors.
"""
# pathlib takes longer to load than this takes to run.
# ruff: noqa: PTH115, PTH123, PTH208

import ctypes
import os
import socket
import sys

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
#: The column of a socket's inode in a table of /proc/net; of any other table it is the tenth.
_COLUMNS = {"unix": 6, "packet": -1, "netlink": -1}
_TABLES = "tcp tcp6 udp udp6 udplite udplite6 raw raw6 icmp icmp6 unix packet netlink".split()

_libc = ctypes.CDLL(None, use_errno=True)


def _list_inodes() -> "set[str]":
    inodes = set()
    for name in _TABLES:
        try:
            with open("/proc/net/" + name) as table:
                table.readline()
                for line in table:
                    inodes.add(line.split()[_COLUMNS.get(name, 9)])
        except (OSError, IndexError):
            pass
    return inodes


def _parse_ports(ranges: str) -> "set[int]":
    ports: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last) + 1))
    return ports


def _print_socket(descriptor: int, inode: str, pid: str, ports: "set[int]") -> None:
    with socket.socket(fileno=descriptor) as copy:
        six = copy.family == socket.AF_INET6
        if (six or copy.family == socket.AF_INET) and copy.type == socket.SOCK_STREAM:
            address, port = copy.getsockname()[:2]
            if port in ports:
                only = six and copy.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                print(inode, pid, address, port, int(only))


def _search(pid: str, listed: "set[str]", ports: "set[int]") -> None:
    handle = -1
    try:
        folder = "/proc/" + pid + "/fd/"
        for number in os.listdir(folder):
            link = os.readlink(folder + number)
            inode = link[8:-1]
            if not link.startswith("socket:[") or inode in listed:
                continue
            if handle < 0:
                handle = _libc.syscall(_PIDFD_OPEN, int(pid), 0)
            copy = _libc.syscall(_PIDFD_GETFD, handle, int(number), 0)
            if copy >= 0:
                _print_socket(copy, inode, pid, ports)
    finally:
        if handle >= 0:
            os.close(handle)


listed, ports = _list_inodes(), _parse_ports(sys.argv[1])
here = os.readlink("/proc/self/ns/net")
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if int(pid) != os.getpid() and os.readlink("/proc/" + pid + "/ns/net") == here:
            _search(pid, listed, ports)
    except (OSError, ValueError):
        continue
