"""From an action to the command that does it: the only place where values are quoted."""

from collections.abc import Sequence

from pyinfra.api import QuoteString, StringCommand

from stackmend.connection import read_script
from stackmend.engine.facts import ROOT

#: Exit statuses of a proof: no container can be started with the devices; it does not reach them;
#: it does not any more once systemd has read its units anew.
NOT_STARTED, NOT_REACHED, LOST = 70, 72, 76


def build_description(path: str, stamp: str) -> StringCommand:
    """Write what CDI knows of NVIDIA's devices.

    :param stamp: the ending of the copy of what was there.
    """
    return _build_script("describe", path, stamp)


def build_proof(evidence: str, groups: Sequence[int], modes: Sequence[str]) -> StringCommand:
    """Reach the devices from inside a container, and remember that it did.

    :param evidence: what the host remembers.
    :param groups: the groups that AMD's device files need, by number.
    :param modes: how containers are given the devices: ``cdi``, ``runtime``, ``rocm``.
    """
    return _build_script("verify", evidence, " ".join(map(str, groups)), *modes)


def _build_script(name: str, *arguments: str) -> StringCommand:
    shared = read_script("stackmend.connection", "walk") + read_script(
        "stackmend.connection", "put"
    )
    body = (
        shared
        + read_script("stackmend.engine", "common")
        + read_script("stackmend.engine.accelerators", name)
    )
    return StringCommand("sh", "-c", QuoteString(body), name, ROOT, *map(QuoteString, arguments))
