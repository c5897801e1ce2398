"""From an action to the command that does it: the only place where values are quoted.

Everywhere ``place`` is the directory of the models, and ``digest`` a blob: ``sha256:`` and 64
hexadecimal digits.
"""

from pyinfra.api import QuoteString, StringCommand

from stackmend.connection import read_script, script, write_own
from stackmend.models.spec import Name
from stackmend.models.state import Place

#: What :func:`measure_relayed` prints where a blob is in its place.
COMPLETE = "complete"

#: The exit status of accepting a blob whose content does not match its digest.
MISMATCH = 65


def delete_blob(place: Place, digest: str) -> StringCommand:
    """Remove one blob, and nothing else."""
    return _build_in_store(place, "delete", f"blobs/{_make_file_name(digest)}")


def delete_partials(place: Place, digest: str) -> StringCommand:
    """Remove a partial download of the server."""
    return _build_in_store(place, "partials", _make_file_name(digest))


def delete_relayed(place: Place, digest: str) -> StringCommand:
    """Remove a partial relay."""
    return _build_in_store(place, "unrelay", _make_file_name(digest))


def write_record(path: str) -> StringCommand:
    """Replace the record by standard input, in one step.

    :param path: the record.
    """
    return write_own(path)


def measure_relayed(place: Place, digest: str) -> StringCommand:
    """Print how many bytes of a blob an earlier relay has left, or :data:`COMPLETE`."""
    return _build_in_store(place, "relayed", _make_file_name(digest))


def take(place: Place, digest: str, offset: int) -> StringCommand:
    """Write standard input behind the first bytes of a blob that is relayed.

    :param offset: how many bytes of it stay; the others are cut off.
    """
    return _build_in_store(place, "take", _make_file_name(digest), str(offset))


def accept(place: Place, digest: str) -> StringCommand:
    """Put a relayed blob into its place if its content matches its digest; else remove it."""
    return _build_in_store(place, "accept", _make_file_name(digest), place.owner)


def give(place: Place, digest: str, offset: int) -> StringCommand:
    """Write a blob to standard output.

    :param offset: how many bytes are left out at its beginning.
    """
    return _build_in_store(place, "give", f"blobs/{_make_file_name(digest)}", str(offset))


def show_manifest(place: Place, name: Name) -> StringCommand:
    """Write a model's manifest to standard output."""
    return _build_in_store(place, "give", f"manifests/{name.path}", "0")


def put_manifest(place: Place, name: Name) -> StringCommand:
    """Replace a model's manifest by standard input, in one step."""
    return _build_in_store(place, "manifest", name.path, place.owner)


def _make_file_name(digest: str) -> str:
    return digest.replace(":", "-")


def _build_in_store(place: Place, name: str, *arguments: str) -> StringCommand:
    """A script run where the models can be reached, with the store as its first argument.

    Relayed blobs lie in ``.stackmend`` there: on the disk of the blobs, so that a complete one is
    moved in one step; not among them, because the server removes what it does not know there when
    it starts.
    """
    within: tuple[str | QuoteString, ...]
    if place.container:
        within = ("docker", "exec", "-i", QuoteString(place.container))
    elif place.process:
        within = ("nsenter", "--target", str(place.process), "--mount")
    else:
        return script("stackmend.models", name, place.path, *arguments, shared=["walk"])
    return StringCommand(
        *within,
        "sh",
        "-c",
        QuoteString(
            read_script("stackmend.connection", "walk") + read_script("stackmend.models", name)
        ),
        name,
        QuoteString(place.path),
        *map(QuoteString, arguments),
    )
