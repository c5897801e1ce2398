"""The room of ``docs/adding-a-room.md``, as a reader writes it down."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

from tests.lab import controller
from tests.lab.hosts import LabHost
from tests.lab.paths import PROJECT

#: The most lines that the room may have, empty ones not counted.
LIMIT = 150

VALUE = "/proc/sys/net/ipv4/tcp_keepalive_time"


def files() -> dict[str, str]:
    """The files of the page, each named by the line before it."""
    tokens = MarkdownIt().parse((PROJECT / "docs" / "adding-a-room.md").read_text())
    found = {}
    name = ""
    for token in tokens:
        if token.type == "inline" and (named := re.fullmatch(r"`([\w/.]+)`:", token.content)):
            name = named[1]
        elif token.type == "fence" and name:
            found[name] = token.content
    return found


def test_the_room_of_the_documentation_changes_once(bare_host: LabHost, tmp_path: Path) -> None:
    room = files()
    lines = [line for text in room.values() for line in text.splitlines() if line.strip()]
    print(f"{len(room)} files, {len(lines)} lines")
    assert len(lines) <= LIMIT
    for name, text in room.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
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
    for name, text in files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("seconds=120", "seconds=5"))
    before = bare_host.sh(f"cat {VALUE}")
    inventory = controller.write_inventory(tmp_path, [bare_host])
    done = controller.run(
        inventory, str(tmp_path / "deploy.py"), "-y", env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.rc != 0
    assert "seconds" in done.out
    assert "Traceback" not in done.out
    assert bare_host.sh(f"cat {VALUE}") == before
