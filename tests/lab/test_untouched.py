"""The test's own eye: what it must see of a host's files, and what it must not mind."""

from __future__ import annotations

import pytest

from tests.lab.hosts import LabHost
from tests.lab.untouched import untouched


def test_each_way_to_change_a_file_is_seen_and_nothing_else(host: LabHost) -> None:
    host.sh("mkdir -p /opt/shop /srv/other; echo a >/srv/other/a; echo b >/srv/other/b")
    host.sh("ln -s a /srv/other/link; echo x >'/srv/other/two\nlines'")
    host.sh("echo x >/usr/local/tool; touch -r /usr/bin/env /usr/local/tool")
    with untouched(host, "/opt/shop"):
        host.sh("echo x >/opt/shop/new; docker ps; cat /srv/other/a; touch /var/lib/systemd/x")
        host.sh("echo x >/tmp/runc-process123")
    for change, path in {
        "echo c >/srv/other/a": "/srv/other/a",
        "chmod 600 /srv/other/b": "/srv/other/b",
        "chown 12 /srv/other/b": "/srv/other/b",
        "ln -sfn b /srv/other/link": "/srv/other/link",
        "rm '/srv/other/two\nlines'": "/srv/other/two",
        "echo n >/root/new": "/root/new",
        "echo n >/tmp/runc": "/tmp/runc",
        "chmod 700 /opt": "/opt",
        "echo y >/usr/local/tool; touch -r /usr/bin/env /usr/local/tool": "/usr/local/tool",
    }.items():
        with pytest.raises(AssertionError, match=path), untouched(host, "/opt/shop"):
            host.sh(change)
