"""Wrong settings are told before any host is contacted: seen by a listener in the hosts' place."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Inventory, State
from pyinfra.context import ctx_state

from stackmend.connection import preflight
from tests.lab import controller

CONFIG = """
from pyinfra import config
from stackmend.connection import preflight

# The listener ends each connection, which is tried again for so long.
config.CONNECT_TIMEOUT = 1

def check(host, data):
    stack = data.get("fake", {})
    problems = [f"stack.{key}: no such key" for key in stack if key not in ("project", "port")]
    if stack.get("port", 1) > 65535:
        problems.append(f"stack.port: {stack['port']} is no port")
    if problems:
        raise ValueError("\\n".join(problems))

preflight.install(check)
"""


class Listener:
    """Takes the place of every host, and counts who comes."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._socket = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self._socket.getsockname()[1]
        self.came = 0
        threading.Thread(target=self._listen, daemon=True).start()
        stack.callback(self._socket.shutdown, socket.SHUT_RDWR)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._socket.accept()[0].close()
                self.came += 1


@pytest.fixture
def listener() -> Iterator[Listener]:
    with contextlib.ExitStack() as stack:
        yield Listener(stack)


def project(tmp_path: Path, listener: Listener, stacks: Mapping[str, Any]) -> controller.Run:
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "deploy_it.py").write_text(
        "from pyinfra.operations import server\nserver.shell('true')\n"
    )
    at = {"ssh_hostname": "127.0.0.1", "ssh_port": listener.port, "ssh_user": "nobody"}
    hosts = [(name, {**at, "fake": stack}) for name, stack in stacks.items()]
    (tmp_path / "fleet.py").write_text(f"hosts = {hosts!r}\n")
    return run(tmp_path)


def run(directory: Path, *args: str, program: Sequence[str] = ()) -> controller.Run:
    words = ("fleet.py", "deploy_it.py", "-y", *args)
    return controller.run(*words, cwd=directory, program=program, timeout=60)


def test_one_message_for_all_hosts(tmp_path: Path, listener: Listener) -> None:
    done = project(
        tmp_path,
        listener,
        {
            "a": {"project": "x"},
            "b": {"colour": "red", "port": 70000},
            "c": {"colour": "blue"},
            "d": {"port": 80000},
        },
    )
    assert done.rc == 1
    assert done.out.count("stack.colour: no such key (b, c)") == 1
    assert done.out.count("stack.port: 70000 is no port (b)") == 1
    assert done.out.count("stack.port: 80000 is no port (d)") == 1
    assert done.out.count("stack.colour") == 1
    assert "Traceback" not in done.out
    assert listener.came == 0


def test_group_data_and_hosts_out_of_the_limit_count(tmp_path: Path, listener: Listener) -> None:
    project(tmp_path, listener, {"a": {}, "b": {}})
    (tmp_path / "fleet.py").write_text(
        f"def at(): return {{'ssh_hostname': '127.0.0.1', 'ssh_port': {listener.port}}}\n"
        "web = (['a'], at())\nother = (['b'], at())\n"
    )
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "other.py").write_text("fake = {'colour': 'red'}\n")
    came = listener.came
    done = run(tmp_path, "--limit", "a")
    assert done.rc == 1
    assert "stack.colour: no such key (b)" in done.out
    assert listener.came == came


def test_json_output_stays_apart(tmp_path: Path, listener: Listener) -> None:
    project(tmp_path, listener, {"a": {"colour": "red"}})
    done = run(tmp_path, "--json")
    assert done.rc == 1
    assert done.stdout == ""
    assert "stack.colour: no such key" in done.out


def test_right_settings_let_the_run_go_on(tmp_path: Path, listener: Listener) -> None:
    done = project(tmp_path, listener, {"a": {"project": "x", "port": 80}, "b": {}})
    assert listener.came >= 2
    assert "wrong settings" not in done.out


def test_without_the_command_line() -> None:
    def validate(host: str, data: Mapping[str, Any]) -> None:
        raise ValueError("stack.port: missing")

    inventory = Inventory((["a", "b"], {}))
    with pytest.raises(preflight.SettingsError, match=r"stack.port: missing \(all hosts\)$"):
        preflight.check(inventory, validate)
    preflight.check(inventory, lambda host, data: None)


def test_a_mistake_in_the_validation_is_not_hidden() -> None:
    def validate(host: str, data: Mapping[str, Any]) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        preflight.check(Inventory((["a"], {})), validate)


def test_only_a_run_that_is_starting_can_be_stopped() -> None:
    for state in (None, State(Inventory((["a"], {})))):
        with ctx_state.use(state), pytest.raises(RuntimeError, match=r"config\.py"):
            preflight.install(lambda host, data: None)


def test_importing_the_connection_brings_nothing_heavy() -> None:
    code = (
        "import sys, stackmend.connection\n"
        "from stackmend.connection import Unknown\n"
        "assert not {'pyinfra', 'paramiko', 'docker', 'httpx'} & set(sys.modules)\n"
        "from stackmend.connection import run, fetch_facts, read, prefetch, count_channels\n"
        "print({'docker', 'httpx', 'httpcore', 'requests', 'pydantic'} & set(sys.modules))\n"
    )
    root = str(Path(__file__).parents[2] / "ops")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"


def test_where_no_config_of_ours_is_settings_are_looked_at_as_early(
    tmp_path: Path, listener: Listener
) -> None:
    """By the entry point, which pyinfra loads with the inventory."""
    at = {"ssh_hostname": "127.0.0.1", "ssh_port": listener.port}
    stacks = {"a": {"project": "x", "colour": "red"}, "b": {"project": 7}}
    hosts = [(name, {**at, "stack": stack}) for name, stack in stacks.items()]
    (tmp_path / "fleet.py").write_text(f"hosts = {hosts!r}\n")
    (tmp_path / "deploy_it.py").touch()
    done = run(tmp_path)
    assert done.rc == 1
    assert "wrong settings; no host was contacted:" in done.out
    assert "stack.colour: " in done.out
    assert "Traceback" not in done.out
    assert listener.came == 0


def test_hosts_without_a_stack_are_none_of_our_business(tmp_path: Path, listener: Listener) -> None:
    at = {"ssh_hostname": "127.0.0.1", "ssh_port": listener.port, "ssh_user": "nobody"}
    (tmp_path / "fleet.py").write_text(f"hosts = [('a', {at!r})]\n")
    (tmp_path / "deploy_it.py").write_text(
        "import sys\nassert 'stackmend.reporting' not in sys.modules\n"
    )
    # In a start of its own nothing is imported but what this run imports.
    done = run(tmp_path, program=controller.pyinfra_argv())
    assert listener.came
    assert "report" not in done.out
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("name", ["fleet.py", "group_data/all.py"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hosts = [\n", "line 1: '[' was never closed"),
        (b"# \xff\n", ""),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_an_inventory_that_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    (tmp_path / "config.py").write_text("from stackmend import startup\nstartup.install()\n")
    (tmp_path / "group_data").mkdir()
    (tmp_path / "fleet.py").write_text("hosts = ['@local']\n")
    (tmp_path / "deploy_it.py").touch()
    (tmp_path / name).unlink(missing_ok=True)
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    done = run(tmp_path)
    assert done.rc != 0
    assert name.rpartition("/")[2] in done.out or "of the inventory" in done.out
    assert said in done.out
    assert "Traceback" not in done.out
    assert "internal exception" not in done.out


def test_our_entry_point_is_no_way_to_a_host(tmp_path: Path) -> None:
    (tmp_path / "fleet.py").write_text("hosts = ['@stackmend/web']\n")
    (tmp_path / "deploy_it.py").touch()
    done = run(tmp_path)
    assert done.rc != 0
    assert "@stackmend reaches no host: name hosts as for pyinfra itself" in done.out


def test_the_projects_own_config_looks_first(tmp_path: Path, listener: Listener) -> None:
    root = Path(__file__).parents[2]
    at = {"ssh_hostname": "127.0.0.1", "ssh_port": listener.port}
    hosts = [("a", {**at, "stack": {"project": "x", "colour": "red"}}), ("b", {**at, "stack": 7})]
    (tmp_path / "fleet.py").write_text(f"hosts = {hosts!r}\n")
    done = controller.run(tmp_path / "fleet.py", "exec", "-y", "--", "true", cwd=root)
    assert done.rc == 1
    assert done.out.count("stack.colour") == 1
    assert "Traceback" not in done.out
    assert listener.came == 0


def test_operations_are_in_order_without_their_source_being_read(tmp_path: Path) -> None:
    (tmp_path / "fleet.py").write_text("hosts = ['@local']\n")
    (tmp_path / "beside.py").write_text(
        "from pyinfra.operations import server\n"
        "def two(name):\n"
        "    server.shell('true', name=name + ' a')\n"
        "    server.shell('true', name=name + ' b')\n"
    )
    (tmp_path / "deploy_it.py").write_text(
        "from pyinfra import logger\nfrom pyinfra.api import util\nfrom beside import two\n"
        "logger.info('source read: %s', util.stack()[0].code_context is not None)\n"
        "two('first')\nfor name in ('second', 'third'):\n    two(name)\n"
    )
    orders = []
    for config in ("", "from stackmend import startup\nstartup.install()\n"):
        (tmp_path / "config.py").write_text(config)
        done = run(tmp_path)
        assert done.rc == 0, done.out
        assert f"source read: {not config}" in done.out
        orders.append(re.findall(r"operation: (\w+ [ab])", done.out))
    assert (
        orders[0] == orders[1] == [f"{n} {x}" for n in ("first", "second", "third") for x in "ab"]
    )
