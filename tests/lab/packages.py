"""Signed repositories of packages, which every host of the lab reaches as ``http://packages:8080``.

>>> repository = packages.publish("tools", "stable", [Deb("tool", "1.0", {"/usr/bin/tool": "…"})])
>>> repository.address, repository.key, repository.fingerprint
('http://packages:8080/tools', 'http://packages:8080/tools/gpg', '…')
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.lab import images
from tests.lab.engine import LabUnavailable, OuterCommandError, docker, outer
from tests.lab.inside import inside
from tests.lab.paths import HOME_LABEL, LABEL, LEASES, LOCKS, PREFIX, PROJECT, locked

ADDRESS = "http://packages:8080"
KEY = "stackmend lab <lab@example.com>"
_CONTAINER = f"{PREFIX}-packages"


@dataclass(frozen=True, eq=False)
class Deb:
    """A package that is to be made.

    + files: path on the host → content; executable below a directory ``bin`` or ``sbin``
    + fields: further fields of its control file, such as ``Depends``
    + scripts: maintainer scripts by name, such as ``postinst``
    + engine: packages of the distribution's engine whose files it has, such as ``docker.io``
    """

    name: str
    version: str
    files: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    engine: Sequence[str] = ()


@dataclass(frozen=True)
class Repository:
    """A repository that hosts can reach.

    + address: what a source line names
    + suite: what it names behind that, with the component ``main``; the same packages are there
      without a suite (``/``) as well
    + fingerprint: of the key that it is signed with
    """

    address: str
    suite: str
    fingerprint: str

    @property
    def line(self) -> str:
        """Address, suite and component, as a stack's ``repository`` takes them."""
        return f"{self.address} {self.suite} main"

    @property
    def key(self) -> str:
        """Where its key can be fetched."""
        return f"{self.address}/gpg"


class Packages:
    """The lab's server of packages."""

    def publish(self, name: str, suite: str, debs: Sequence[Deb], *, key: str = KEY) -> Repository:
        """Make a repository, or make it anew with these packages alone.

        + key: the uid of the key that signs it, made where there is none
        """
        _exec("rm", "-rf", f"/srv/tree/{name}")
        trees = {deb: f"{name}/{deb.name}_{deb.version.replace(':', '.')}" for deb in debs}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for deb in debs:
                for path, content, mode in _content(deb):
                    info = tarfile.TarInfo(
                        f"{name}/{deb.name}_{deb.version.replace(':', '.')}{path}"
                    )
                    info.size, info.mode = len(content), mode
                    tar.addfile(info, io.BytesIO(content))
        _exec("mkdir", "-p", "/srv/tree")
        inside(_CONTAINER, "tar", "-C", "/srv/tree", "-x", stdin=buffer.getvalue())
        for deb in debs:
            for one in deb.engine:
                _exec("cp", "-a", f"/engine/{one}/.", f"/srv/tree/{trees[deb]}")
        fingerprint = _exec("publish", name, suite, key, timeout=180).splitlines()[-1]
        return Repository(f"{ADDRESS}/{name}", suite, fingerprint)

    def docker(self, *versions: str, suite: str = "trixie", key: str = KEY) -> Repository:
        """A repository with stand-ins for Docker's own packages, in these versions.

        They hold Debian 13's engine under Docker's names: good for what is done with a repository,
        and for nothing that is said of Docker's own packages. Hosts have to be of Debian 13.
        """
        debs = []
        for version in versions:
            full = f"5:{version}-1~debian.13~trixie"
            debs += [
                Deb(
                    "docker-ce",
                    full,
                    fields={
                        "Depends": f"containerd.io, docker-ce-cli, {_depends('docker.io')}",
                        "Conflicts": "docker.io",
                        "Replaces": "docker.io",
                    },
                    scripts={"postinst": _POSTINST},
                    engine=["docker.io"],
                ),
                Deb("docker-ce-cli", full, fields=_instead("docker-cli"), engine=["docker-cli"]),
            ]
        debs += [
            Deb(
                "containerd.io",
                "2.1.0-1",
                fields={**_instead("containerd, runc"), "Depends": _depends("containerd")},
                engine=["containerd", "runc"],
            ),
            Deb(
                "docker-compose-plugin",
                "2.39.1-1~debian.13~trixie",
                fields=_instead("docker-compose"),
                engine=["docker-compose"],
            ),
            Deb(
                "docker-buildx-plugin",
                "0.26.1-1~debian.13~trixie",
                fields=_instead("docker-buildx"),
                engine=["docker-buildx"],
            ),
        ]
        return self.publish("docker", suite, debs, key=key)

    def reset(self) -> None:
        """Make it run, answer, and hold nothing of any test's."""
        _serve()
        mine = ["!", "-path", "/srv/packages/debian*"]
        _exec("find", "/srv/packages", "-mindepth", "1", *mine, "-delete")


def debian() -> Repository:
    """Debian 13's own engine, for hosts of Debian 13: the same packages, quicker to unpack.

    Any number of tests may use it at once.
    """
    _serve()
    fingerprint = _exec("tail", "-n", "1", "/srv/debian.fingerprint").strip()
    return Repository(f"{ADDRESS}/debian", "lab", fingerprint)


def _serve() -> None:
    """Make the server run and answer."""
    ref = images.build(["packages"])["packages"]
    with locked(LOCKS / "packages"):
        shown = outer(
            *("docker", "inspect", "-f", "{{.Config.Image}} {{.State.Running}}", _CONTAINER),
            check=False,
        )
        image, _, running = shown.stdout.decode().strip().partition(" ")
        if image == ref and running == "true":
            return
        if image == ref:
            docker("start", _CONTAINER)
        else:
            outer("docker", "rm", "-f", "-v", _CONTAINER, check=False)
            docker(
                *("run", "-d", "--name", _CONTAINER, "--network", PREFIX),
                *("--network-alias", "packages"),
                *("--label", LABEL, "--label", f"{HOME_LABEL}={PROJECT}", ref),
            )
        deadline = time.monotonic() + 20
        probe = "exec 3<>/dev/tcp/127.0.0.1/8080"
        while inside(_CONTAINER, "bash", "-c", probe, check=False).returncode:
            if time.monotonic() > deadline:
                raise LabUnavailable("the server of packages does not answer")
            time.sleep(0.1)


_POSTINST = """#!/bin/sh
set -e
getent group docker > /dev/null || groupadd --system docker
systemctl daemon-reload
systemctl enable docker.service docker.socket
systemctl restart docker.service
"""


def _instead(names: str) -> dict[str, str]:
    return {"Conflicts": names, "Replaces": names}


def _depends(name: str) -> str:
    return _exec("cat", f"/engine/{name}.depends")


def _content(deb: Deb) -> Iterator[tuple[str, bytes, int]]:
    fields = {
        "Package": deb.name,
        "Version": deb.version,
        "Architecture": "amd64",
        "Maintainer": KEY,
        "Description": "made by the lab",
        **deb.fields,
    }
    control = "".join(f"{name}: {value}\n" for name, value in fields.items())
    yield "/DEBIAN/control", control.encode(), 0o644
    for name, script in deb.scripts.items():
        yield f"/DEBIAN/{name}", script.encode(), 0o755
    for path, content in deb.files.items():
        runs = {"bin", "sbin"} & set(path.split("/"))
        yield path, content.encode(), 0o755 if runs else 0o644


def _exec(*argv: str, timeout: float = 60) -> str:
    return inside(_CONTAINER, *argv, timeout=timeout).stdout.decode().strip()


@contextlib.contextmanager
def lease() -> Iterator[Packages]:
    """Hold the server, empty and answering; waits while another test has it."""
    LEASES.mkdir(parents=True, exist_ok=True)
    with (LEASES / "packages").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        server = Packages()
        server.reset()
        try:
            yield server
        finally:
            with contextlib.suppress(OuterCommandError):
                server.reset()
