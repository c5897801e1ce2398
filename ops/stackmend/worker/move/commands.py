"""From an action to its command: the only place where values are quoted."""

from collections.abc import Iterable

from pyinfra.api import StringCommand

from stackmend.connection import script, write_own
from stackmend.paths import STATE_ROOT

_ROOM = "stackmend.worker.move"


def write_record(project: str) -> StringCommand:
    """Make what is on standard input the record of a move."""
    return write_own(f"{STATE_ROOT}/{project}/move.json")


def copy_model(source: str, path: str, target: str) -> StringCommand:
    """Copy a model's file into the store of Ollama on the host itself, and print its digest.

    :param source: the container that the file is in.
    :param path: where it is there.
    :param target: the container of Ollama.
    """
    return script(_ROOM, "copy", source, path, target)


def list_absent(container: str, paths: Iterable[str]) -> StringCommand:
    """Print which of some files a container has not.

    :param paths: where they would be there.
    """
    return script(_ROOM, "absent", container, *paths)


def retire(project: str, service: str, *, remove: bool) -> StringCommand:
    """Stop a service's containers so that nothing starts them again.

    :param remove: whether they are removed; their volumes are kept.
    """
    arguments = (project, service, "yes" if remove else "no")
    return script(_ROOM, "retire", *arguments, shared=["own"])


def start(project: str, service: str) -> StringCommand:
    """Start a service's containers, where they are stopped."""
    return script(_ROOM, "start", project, service, shared=["own"])


def read_callers(project: str, service: str, port: int) -> StringCommand:
    """Print who is connected to a port of a service's containers, as the kernel has it."""
    return script(_ROOM, "callers", project, service, str(port), shared=["own"])


def count_missing(project: str, target: str, clients: Iterable[str]) -> StringCommand:
    """Print how many requests for a model that it has not Ollama had since its clients started.

    :param target: the container of Ollama.
    """
    return script(_ROOM, "missing", project, target, *clients, shared=["own"])


def remove_volume(project: str, key: str) -> StringCommand:
    """Remove the volume that a move made."""
    return script(_ROOM, "unvolume", project, key)
