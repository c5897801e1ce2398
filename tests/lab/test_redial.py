"""An sshd that lets few log in at once: the others come again, and no host is lost by it."""

from __future__ import annotations

from pathlib import Path

from tests.lab import controller
from tests.lab.fixtures import Lab

# The last one counts.
PART = "/etc/ssh/sshd_config.d/zz-few.conf"
NAMES = 12


def test_more_names_than_logins_under_way(lab: Lab, tmp_path: Path) -> None:
    (host,) = lab.take(1)
    host.put(PART, b"MaxStartups 2:100:2\n")
    host.sh("systemctl reload ssh")
    inventory = tmp_path / "names.py"
    inventory.write_text(f"names = {[(f'n{n}', host.ssh_data()) for n in range(NAMES)]!r}\n")
    try:
        done = controller.run(inventory, "exec", "-y", "--", "true", timeout=90)
        log = host.sh("journalctl -u ssh -o cat --since -5min")
    finally:
        host.sh(f"rm {PART} && systemctl reload ssh")
    assert done.rc == 0, done.out
    assert done.out.count(" Connected\n") == NAMES, done.out
    # It did end connections.
    assert "MaxStartups" in log, log
