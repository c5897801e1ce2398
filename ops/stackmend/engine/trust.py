"""The keys that repositories are signed with: read, and compared before they are in place."""

import base64
import binascii
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from stackmend import connection, controller_files, retries
from stackmend.controller_files import MAXIMUM_TEXT, Unreadable
from stackmend.engine import commands, openpgp
from stackmend.errors import StepError

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for reading a key from an address once.
FETCH_LIMIT = 180.0


def read_key(
    host: "Host", address: str, fingerprints: Collection[str], setting: str = "key_fingerprint"
) -> bytes:
    """The key at an address, armored, once its fingerprint is one of those that it may have.

    :param host: the host that reads an address: it reaches the repository, this machine may not.
    :param address: an address, or a path on this machine.
    :param fingerprints: those that the keys in it may have.
    :param setting: what names them in a stack's section ``engine``.
    :raises StepError: it cannot be read, is no key, or is another one.
    """
    data = _fetch(host, address) if "://" in address else _read(address)
    try:
        found = openpgp.find_fingerprints(data)
    except ValueError as error:
        raise StepError(f"{address} is not a repository's key: {error}") from None
    foreign = [fingerprint for fingerprint in found if fingerprint not in fingerprints]
    if foreign:
        raise StepError(
            f"{address} holds the key {', '.join(foreign)}, not {', '.join(sorted(fingerprints))}: "
            "stackmend does not trust it, and changed nothing. If that key is to sign the "
            f'repository, set "{setting}" in the stack\'s "engine" section to its fingerprint'
        )
    return openpgp.armor(data)


def _fetch(host: "Host", address: str) -> bytes:
    result = retries.retry(
        lambda left: connection.run(
            host, commands.fetch(address), readonly=True, timeout=min(left, FETCH_LIMIT)
        ),
        limit=commands.LIMIT / 2,
    )
    if not result.ok:
        raise StepError(f"the host cannot read the key {address}: {retries.explain(result)}")
    try:
        return base64.b64decode("".join(result.text.split()), validate=True)
    except binascii.Error as error:
        raise StepError(f"the key {address} came back broken: {error}") from None


def _read(path: str) -> bytes:
    try:
        return controller_files.read(controller_files.expand(Path(path)), MAXIMUM_TEXT)
    except Unreadable as error:
        raise StepError(f"on this machine the key {path} {error}") from None
