"""A registry for images, which every host of the lab reaches as ``registry:5000``.

>>> registry.push("lab/box:1", "shop/api:1")
'registry:5000/shop/api:1'
>>> registry.push("lab/box:2", "shop/api:1")    # the tag moves to another image
'registry:5000/shop/api:1'
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator

from tests.lab import images
from tests.lab.engine import LabUnavailable, OuterCommandError, docker, outer
from tests.lab.inside import inside
from tests.lab.paths import HOME_LABEL, LABEL, LEASES, PREFIX, PROJECT

ADDRESS = "registry:5000"
_CONTAINER = f"{PREFIX}-registry"
_STORAGE = "/var/lib/docker-registry"


class Registry:
    """The lab's registry. Plain HTTP; hosts have it among their insecure registries."""

    address = ADDRESS

    def push(self, source: str, name: str) -> str:
        """Push an image under a name, moving the tag if it is there; return what hosts pull.

        + source: an image of the catalogue (``lab/box:1``), or a reference of the outer engine
        + name: repository and tag within the registry, such as ``shop/api:1``
        """
        ref = images.build([source])[source] if source in images.CATALOGUE else source
        pushed = f"127.0.0.1:{self._port()}/{name}"
        docker("tag", ref, pushed)
        try:
            docker("push", "-q", pushed, timeout=300)
        finally:
            outer("docker", "image", "rm", pushed, check=False)
        return f"{ADDRESS}/{name}"

    def stop(self) -> None:
        """Be gone: its name resolves no more."""
        docker("stop", "-t", "1", _CONTAINER)

    def start(self) -> None:
        """Answer again, with what was pushed before."""
        docker("start", _CONTAINER)
        self._wait()

    def pause(self) -> None:
        """Accept connections and never answer them."""
        docker("pause", _CONTAINER)

    def unpause(self) -> None:
        """End `pause`."""
        docker("unpause", _CONTAINER)

    def reset(self) -> None:
        """Make it run, answer, and hold nothing."""
        ref = images.build(["registry"])["registry"]
        shown = (
            outer(
                "docker",
                "inspect",
                "-f",
                "{{.Config.Image}} {{.State.Paused}}",
                _CONTAINER,
                check=False,
            )
            .stdout.decode()
            .split()
        )
        if shown[1:] == ["true"]:
            docker("unpause", _CONTAINER)
        if shown[:1] == [ref]:
            docker("start", _CONTAINER)
            inside(_CONTAINER, "find", _STORAGE, "-mindepth", "1", "-delete")
            # It keeps in memory which layers it has seen.
            docker("restart", "-t", "0", _CONTAINER)
        else:
            outer("docker", "rm", "-f", "-v", _CONTAINER, check=False)
            docker(
                "run",
                "-d",
                "--name",
                _CONTAINER,
                "--network",
                PREFIX,
                "--network-alias",
                "registry",
                "-p",
                "127.0.0.1::5000",
                "--label",
                LABEL,
                "--label",
                f"{HOME_LABEL}={PROJECT}",
                ref,
            )
        self._wait()

    def _port(self) -> int:
        return int(docker("port", _CONTAINER, "5000/tcp").splitlines()[0].rpartition(":")[2])

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        probe = "exec 3<>/dev/tcp/127.0.0.1/5000"
        while inside(_CONTAINER, "bash", "-c", probe, check=False).returncode:
            if time.monotonic() > deadline:
                raise LabUnavailable("the registry does not answer")
            time.sleep(0.1)


@contextlib.contextmanager
def lease() -> Iterator[Registry]:
    """Hold the registry, empty and answering; waits while another test has it."""
    LEASES.mkdir(parents=True, exist_ok=True)
    with (LEASES / "registry").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        registry = Registry()
        registry.reset()
        try:
            yield registry
        finally:
            with contextlib.suppress(OuterCommandError):
                registry.reset()
