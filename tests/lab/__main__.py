"""``python -m tests.lab``: start, look at, and remove the lab by hand."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence

from tests.lab import engine, hosts
from tests.lab.engine import LabUnavailable, OuterCommandError
from tests.lab.paths import PROJECT, VAR


def main(argv: Sequence[str]) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start hosts, or find them started")
    up.add_argument("--hosts", type=int, default=1, help="managed hosts (Docker, Compose)")
    up.add_argument("--bare", type=int, default=0, help="hosts without Docker")
    commands.add_parser("status", help="which hosts run, and how to log in")
    reset = commands.add_parser("reset", help="put hosts back as they were when new")
    reset.add_argument("host", nargs="+")
    shell = commands.add_parser("shell", help="a root shell in a host")
    shell.add_argument("host")
    commands.add_parser("down", help="remove hosts; keep images")
    commands.add_parser("clean", help="remove all that the lab made, var/lab included")
    chosen = parser.parse_args(argv)
    try:
        return _COMMANDS[chosen.command](chosen)
    except (LabUnavailable, OuterCommandError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _up(chosen: argparse.Namespace) -> int:
    began = time.monotonic()
    for host in hosts.up(chosen.hosts, chosen.bare):
        print(f"{host.name} answers on 127.0.0.1:{host.port}")
    print(f"ready after {time.monotonic() - began:.1f} s")
    return 0


def _status(_: argparse.Namespace) -> int:
    if not engine.answers():
        print("no engine answers: the lab is down")
        return 0
    for host in hosts.running():
        held = " (held by a run)" if hosts.leased([host.name]) else ""
        print(f"{host.name}{held}: {' '.join(host.ssh_argv())}")
    return 0


def _reset(chosen: argparse.Namespace) -> int:
    for name in chosen.host:
        hosts.LabHost(name).reset()
    return 0


def _shell(chosen: argparse.Namespace) -> int:
    container = hosts.LabHost(chosen.host).container
    os.execvp("docker", ["docker", "exec", "-it", container, "bash", "-l"])


def _down(_: argparse.Namespace) -> int:
    for name in hosts.down():
        print(f"removed {name}")
    return 0


def _clean(_: argparse.Namespace) -> int:
    for line in hosts.clean():
        print(line)
    shutil.rmtree(VAR, ignore_errors=True)
    if (PROJECT / "var").is_dir() and not any((PROJECT / "var").iterdir()):
        (PROJECT / "var").rmdir()
    return 0


_COMMANDS = {
    "up": _up,
    "status": _status,
    "reset": _reset,
    "shell": _shell,
    "down": _down,
    "clean": _clean,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
