"""The keys that repositories are signed with: read, and compared before they are in place."""

import base64
import binascii
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from stackmend import connection, controller_files
from stackmend.controller_files import MAXIMUM_TEXT, Unreadable
from stackmend.engine import commands, openpgp
from stackmend.errors import StepError

if TYPE_CHECKING:
    from pyinfra.api.host import Host


def key(
    host: "Host", source: str, expected: Collection[str], setting: str = "key_fingerprint"
) -> bytes:
    """A key that is the one that is expected, armored.

    :param host: the host that an address is read on: it reaches the repository, this machine may
        not.
    :param source: an address, or a path on this machine.
    :param expected: the fingerprints that the keys in it may have.
    :param setting: what names them in a stack's section ``engine``.
    :raises StepError: it cannot be read, is no key, or is another one.
    """
    data = _on_host(host, source) if "://" in source else _here(source)
    try:
        found = openpgp.fingerprints(data)
    except ValueError as error:
        raise StepError(f"{source} is not a repository's key: {error}") from None
    strange = [one for one in found if one not in expected]
    if strange:
        raise StepError(
            f"{source} holds the key {', '.join(strange)}, not {', '.join(sorted(expected))}: it "
            "is not taken, and nothing was changed. If the repository is meant to be signed with "
            f'it, say so by its fingerprint ("{setting}" in the stack\'s "engine" section)'
        )
    return openpgp.armored(data)


def _on_host(host: "Host", source: str) -> bytes:
    result = connection.run(host, commands.fetch(source), readonly=True, timeout=180)
    if not result.ok:
        said = result.reason
        raise StepError(f"the key {source} cannot be read on the host: {said}")
    try:
        return base64.b64decode("".join(result.text.split()), validate=True)
    except binascii.Error as error:
        raise StepError(f"the key {source} came back broken: {error}") from None


def _here(source: str) -> bytes:
    try:
        return controller_files.read(controller_files.expand(Path(source)), MAXIMUM_TEXT)
    except Unreadable as error:
        raise StepError(f"on this machine the key {source} {error}") from None
