"""What is in the wheel, and what it does where nothing else of ours is."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.wheel import ROOT, run

pytestmark = pytest.mark.slow


def test_the_wheel_holds_what_is_not_python_too(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", "ops", "deploy", cwd=ROOT).splitlines()
    wanted = {name.removeprefix("ops/") for name in tracked if name.startswith("ops/")}
    wanted |= {f"stackmend/{name}" for name in tracked if name.startswith("deploy/")}
    assert wanted <= held
    assert "stackmend/py.typed" in wanted
    assert {name.partition("/")[0] for name in held if ".dist-info/" not in name} == {"stackmend"}


def test_a_checkout_has_its_deploys_at_its_root(tmp_path: Path) -> None:
    # The environment of these tests has stackmend as an editable install.
    where = run(
        sys.executable,
        *("-c", "import stackmend; print(stackmend.__file__, stackmend.get_deploy_directory())"),
        cwd=tmp_path,
    ).split()
    assert [Path(path).resolve() for path in where] == [
        ROOT / "ops/stackmend/__init__.py",
        ROOT / "deploy",
    ]
    assert (ROOT / "deploy/site.py").is_file()


def test_the_wheel_works_beside_another_package_called_ops(home: Path, tmp_path: Path) -> None:
    where = run(
        home / "bin/python",
        "-c",
        "import importlib.util, ops, stackmend\n"
        "from stackmend import access, compose, engine, models, ports, reporting\n"
        "assert importlib.util.find_spec('deploy') is None\n"
        "print(ops.__file__, stackmend.__file__, stackmend.get_deploy_directory(), sep='\\n')",
        cwd=tmp_path,
    ).splitlines()
    assert all(line.startswith(str(home)) for line in where)
    assert (Path(where[0]).parent / "charm.py").is_file(), "this is Canonical's"
    assert {path.name for path in Path(where[2]).iterdir()} >= {"site.py", "bootstrap.py", "stacks"}
    assert "pyinfra: v3.10" in run(home / "bin/pyinfra", "--version", cwd=tmp_path)


def test_the_wheel_has_the_command_with_all_that_it_needs(home: Path, tmp_path: Path) -> None:
    command = home / "bin/stackmend"
    assert run(command, "--version", cwd=tmp_path).startswith("stackmend ")
    # Its templates, and the reference stack.
    run(command, "init", "my", "--host", "192.0.2.1", cwd=tmp_path)
    hosts = run(home / "bin/pyinfra", "my/fleet.py", "--json", "debug-inventory", cwd=tmp_path)
    (host,) = json.loads(hosts)
    assert host["data"]["stack"]["source"].startswith(str(home))
    # Its deploys: the run comes as far as its host.
    (tmp_path / "away.py").write_text(
        "hosts = [('a', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1})]\n"
    )
    done = subprocess.run(
        [command, "site", "away.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3, done.stderr


def test_wrong_settings_end_a_run_of_the_wheel_before_contact(home: Path, tmp_path: Path) -> None:
    (tmp_path / "fleet.py").write_text(
        "hosts = [('a', {'ssh_hostname': '192.0.2.1', 'stack': {'project': 'x', 'sorce': '.'}})]\n"
    )
    done = subprocess.run(
        [home / "bin/pyinfra", "fleet.py", "exec", "--", "true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "wrong settings; no host was contacted:" in done.stderr
    assert "stack.sorce" in done.stderr
    assert "Traceback" not in done.stderr
