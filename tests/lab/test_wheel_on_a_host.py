"""The wheel's own deploys, run from a directory that has an inventory and nothing else of ours."""

from __future__ import annotations

from pathlib import Path

from tests.lab import controller
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop
from tests.wheel import run


def test_the_wheel_brings_a_stack_up_and_mends_it(
    host: LabHost, home: Path, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, host)
    shop.write()
    (tmp_path / "elsewhere").mkdir()
    ask = "import stackmend; print(stackmend.get_deploy_directory() / 'site.py')"
    site = run(home / "bin/python", "-c", ask, cwd=tmp_path).strip()
    assert site.startswith(str(home))

    def deploy() -> controller.Run:
        pyinfra = [str(home / "bin/pyinfra")]
        at = tmp_path / "elsewhere"
        return controller.run(shop.inventory(), site, "-y", cwd=at, program=pyinfra)

    first = deploy()
    assert first.rc == 0, first.out
    names = host.docker("ps", "--format", "{{.Names}}").split()
    assert names
    host.docker("kill", names[0])
    healed = deploy()
    assert healed.rc == 0, healed.out
    assert sorted(host.docker("ps", "--format", "{{.Names}}").split()) == sorted(names)
    again = deploy()
    assert again.rc == 0, again.out
    assert "1 converged" in again.out
    command = controller.run(
        *("site", str(shop.inventory())),
        cwd=tmp_path / "elsewhere",
        program=[str(home / "bin/stackmend")],
    )
    assert command.rc == 0, command.out
    assert "1 converged" in command.out
