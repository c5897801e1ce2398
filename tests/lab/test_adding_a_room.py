"""The room of ``docs/adding-a-room.md``, as a reader writes it down."""

from __future__ import annotations

from pathlib import Path

from tests.example_room import write_room
from tests.lab import controller
from tests.lab.hosts import LabHost

VALUE = "/proc/sys/net/ipv4/tcp_keepalive_time"


def test_the_room_of_the_documentation_changes_once(bare_host: LabHost, tmp_path: Path) -> None:
    write_room(tmp_path)
    before = bare_host.sh(f"cat {VALUE}")
    assert before != "120"
    inventory = controller.write_inventory(tmp_path, [bare_host])
    environment = {"PYTHONPATH": str(tmp_path)}

    first = controller.run(inventory, str(tmp_path / "deploy.py"), "-y", env=environment)
    assert first.rc == 0, first.out
    assert bare_host.sh(f"cat {VALUE} /etc/sysctl.d/60-keepalive.conf") == (
        "120\nnet.ipv4.tcp_keepalive_time = 120"
    )
    (operation,) = first.report["hosts"][bare_host.name]["operations"]
    assert [row["subject"] for row in operation["done"]] == ["idle connections"]
    assert f"the first probe comes after {before} s, not 120 s" in first.out

    mark = bare_host.mark()
    again = controller.run(inventory, str(tmp_path / "deploy.py"), "-y", env=environment)
    assert again.rc == 0, again.out
    (operation,) = again.report["hosts"][bare_host.name]["operations"]
    assert (operation["done"], operation["changed"]) == ([], False)
    assert len(bare_host.sessions_since(mark)) == 1


def test_a_wrong_argument_ends_the_run_before_the_host_is_changed(
    bare_host: LabHost, tmp_path: Path
) -> None:
    write_room(tmp_path)
    deploy = tmp_path / "deploy.py"
    deploy.write_text(deploy.read_text().replace("seconds=120", "seconds=5"))
    before = bare_host.sh(f"cat {VALUE}")
    inventory = controller.write_inventory(tmp_path, [bare_host])
    done = controller.run(
        inventory, str(tmp_path / "deploy.py"), "-y", env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.rc != 0
    assert "seconds" in done.out
    assert "Traceback" not in done.out
    assert bare_host.sh(f"cat {VALUE}") == before
