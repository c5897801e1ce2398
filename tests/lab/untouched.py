"""Files of a host that a run has no business with: equal before and after it, or named."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.observed import ObservedHost

# What the system and its engine write at will, and what stackmend remembers; as find matches paths.
_LIVE = (
    "/dev",
    "/lab",
    "/proc",
    "/run",
    "/sys",
    # The engine's own, while it starts a program in a container.
    "/tmp/runc-process*",
    # Of a service that is started when somebody asks for it.
    "/tmp/systemd-private-*",
    "/var/tmp/systemd-private-*",
    "/var/cache",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/private",
    "/var/lib/stackmend",
    "/var/lib/sudo",
    "/var/lib/systemd",
    "/var/log",
    "/var/spool",
)
# Where files are many and large, the time of the last change of an inode says more than a hash.
_LARGE = ("/usr", "/var/lib/apt", "/var/lib/dpkg")


@contextmanager
def untouched(host: ObservedHost, *except_below: str) -> Iterator[None]:
    """Fail where a file of the host is another one after the block, outside of what is named.

    + host: the host
    + except_below: directories or files that the block may change: a project's directory; as
      ``find -path`` matches them

    Compared are type, owner, mode, link target and content of every file, directory and link; time
    and inode where files are large. Left out is what the system itself writes at will.

    >>> with untouched(host, "/opt/shop"):
    ...     site(host)
    """
    before = _files(host, except_below)
    yield
    after = _files(host, except_below)
    differ = [
        f"{path}: {before.get(path, 'was not there')} → {after.get(path, 'is gone')}"
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ]
    assert not differ, f"files of {host.name} changed:\n" + "\n".join(differ[:20])


def _files(host: ObservedHost, except_below: tuple[str, ...]) -> dict[str, str]:
    """Path → all that is compared of it, over every file of the host."""
    left_out = " -o ".join(f"-path {shlex.quote(path)}" for path in (*_LIVE, *except_below))
    large = " -o ".join(f"-path {shlex.quote(path + '/*')}" for path in _LARGE)
    listed = host.run(
        f"find / -xdev \\( {left_out} \\) -prune -o \\( {large} \\) "
        "-printf '%p\\0%y %m %U:%G %l %s %i %C@\\0' -o -printf '%p\\0%y %m %U:%G %l\\0'; "
        "printf '\\0\\0'; "
        f"find / -xdev \\( {left_out} -o {' -o '.join(f'-path {path}' for path in _LARGE)} \\) "
        "-prune -o -type f -print0 | xargs -0 -r sha256sum -z --",
        timeout=120,
    )
    assert listed.returncode == 0, listed.stderr.decode(errors="replace")
    rows, _, sums = listed.stdout.partition(b"\0\0\0")
    words = [word.decode(errors="surrogateescape") for word in rows.rstrip(b"\0").split(b"\0")]
    found = dict(zip(words[::2], words[1::2], strict=True))
    for line in sums.decode(errors="surrogateescape").split("\0"):
        digest, _, path = line.partition("  ")
        if path:
            found[path] = f"{found.get(path, 'came meanwhile')} {digest}"
    return found
