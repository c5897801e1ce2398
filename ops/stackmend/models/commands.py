"""From an action to the command that does it: the only place where values are quoted."""

from pyinfra.api import QuoteString, StringCommand

from stackmend.connection import script, text
from stackmend.models.spec import ROOT, Name
from stackmend.models.state import Place

#: The file whose lock says that somebody sees to the models of this host.
LOCK = f"{ROOT}/lock"

#: What accepting a blob exits with where its content is another one.
ANOTHER = 65


def delete_blob(place: Place, digest: str) -> StringCommand:
    """Remove one blob, and nothing else.

    :param place: where the models lie.
    :param digest: ``sha256:`` and 64 hexadecimal digits.
    """
    return _inside(place, "delete", f"blobs/{_file(digest)}")


def delete_partials(place: Place, digest: str) -> StringCommand:
    """Remove a download that the server has begun.

    :param place: where the models lie.
    :param digest: the blob that it would have become.
    """
    return _inside(place, "partials", _file(digest))


def delete_relayed(place: Place, digest: str) -> StringCommand:
    """Remove what a relay has begun to bring.

    :param place: where the models lie.
    :param digest: the blob that it would have become.
    """
    return _inside(place, "unrelay", _file(digest))


def remember(path: str) -> StringCommand:
    """Write what comes on standard input to the record, whole or not at all.

    :param path: the record.
    """
    return script("stackmend.models", "remember", path, shared=["walk"])


def begun(place: Place, digest: str) -> StringCommand:
    """How many bytes of a blob an earlier relay has left; prints a number, or ``whole``.

    :param place: where the models lie.
    :param digest: the blob.
    """
    return _inside(place, "begun", _file(digest))


def take(place: Place, digest: str, offset: int) -> StringCommand:
    """Write what comes on standard input behind the first bytes of a blob that is relayed.

    :param place: where the models lie.
    :param digest: the blob.
    :param offset: how many bytes of it stay; what is behind them is cut off.
    """
    return _inside(place, "take", _file(digest), str(offset))


def accept(place: Place, digest: str) -> StringCommand:
    """Put a relayed blob into its place if its content is what its digest says; else remove it.

    :param place: where the models lie.
    :param digest: the blob.
    """
    return _inside(place, "accept", _file(digest), place.owner)


def give(place: Place, digest: str, offset: int) -> StringCommand:
    """Write a blob to standard output.

    :param place: where the models lie.
    :param digest: the blob.
    :param offset: how many bytes are left out at its beginning.
    """
    return _inside(place, "give", f"blobs/{_file(digest)}", str(offset))


def show_manifest(place: Place, name: Name) -> StringCommand:
    """Write a model's manifest to standard output.

    :param place: where the models lie.
    :param name: the model.
    """
    return _inside(place, "give", f"manifests/{name.path}", "0")


def put_manifest(place: Place, name: Name) -> StringCommand:
    """Write what comes on standard input to a model's manifest, whole or not at all.

    :param place: where the models lie.
    :param name: the model.
    """
    return _inside(place, "manifest", name.path, place.owner)


def blob(place: Place, digest: str) -> str:
    """Where a blob lies."""
    return f"{place.path}/blobs/{_file(digest)}"


def manifest(place: Place, name: Name) -> str:
    """Where a model's manifest lies."""
    return f"{place.path}/manifests/{name.path}"


def _file(digest: str) -> str:
    return digest.replace(":", "-")


def _inside(place: Place, name: str, *arguments: str) -> StringCommand:
    """A script run where the models can be reached, with the store as its first argument.

    What is relayed lies in ``.stackmend`` there: on the disk of the blobs, so that a whole one is
    in its place at once; not among them, where the server removes what it does not know when it
    starts.
    """
    if not place.container:
        return script("stackmend.models", name, place.path, *arguments, shared=["walk"])
    return StringCommand(
        "docker",
        "exec",
        "-i",
        QuoteString(place.container),
        "sh",
        "-c",
        QuoteString(text("stackmend.connection", "walk") + text("stackmend.models", name)),
        name,
        QuoteString(place.path),
        *map(QuoteString, arguments),
    )
