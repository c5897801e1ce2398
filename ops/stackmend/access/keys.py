"""Public keys as the controller has them: read from texts and files, and compared.

Like the files of a Compose project they are read while the inventory loads, so that a wrong path
ends a run before any host is contacted.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from stackmend import controller_files
from stackmend.frozen import Frozen
from stackmend.problems import Problem, abbreviate, show
from stackmend.raw import check_plain

_KIND = re.compile(r"[A-Za-z0-9@._-]+")


class KeyProblem(Problem):
    """A public key cannot be read; the text begins with its place in the settings."""


class PublicKey(Frozen):
    """One public key.

    :param kind: its type, such as ``ssh-ed25519``.
    :param blob: the key itself, in base64.
    :param comment: what stands behind it.
    :param private: where its private half may lie on the controller; None where the key was given
        as text.
    """

    kind: str
    blob: str
    comment: str = ""
    private: Path | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it the same key, whatever its comment: its type and the key itself."""
        return self.kind, self.blob

    @property
    def line(self) -> str:
        """As ``authorized_keys`` has it."""
        return " ".join(filter(None, (self.kind, self.blob, self.comment)))


def read_public_keys(raw: Sequence[str], where: str = "public_keys") -> tuple[PublicKey, ...]:
    """Every key that texts and files name, once each, in order.

    :param raw: each a key as text, or the path of a ``*.pub`` file, which may hold several.
    :param where: the path of the list in the settings.
    :raises KeyProblem: naming the place in the list, and what is wrong.
    """
    found: dict[tuple[str, str], PublicKey] = {}
    for index, text in enumerate(raw):
        try:
            keys = [parse_key(text)] if _is_text(text) else _read_file(Path(text))
        except ValueError as error:
            raise KeyProblem(f"{where}[{index}]: {error}") from None
        for key in keys:
            found.setdefault(key.identity, key)
    return tuple(found.values())


def parse_key(text: str) -> PublicKey:
    """A key from one line of text.

    :raises ValueError: saying what is wrong with it.
    """
    kind, _, rest = text.strip().partition(" ")
    blob, _, comment = rest.strip().partition(" ")
    try:
        decoded = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    length = int.from_bytes(decoded[:4], "big")
    # The key names its own type once more; where the two differ it was pasted wrong.
    if not decoded or not _KIND.fullmatch(kind) or decoded[4 : 4 + length] != kind.encode():
        raise ValueError(
            "is not a public key: it must be a type, a key in base64 and a comment, without "
            f"options, as a *.pub file has it; got {abbreviate(text)}"
        )
    check_plain(comment)
    return PublicKey(kind=kind, blob=blob, comment=comment.strip())


def index_lines(lines: Iterable[str]) -> dict[tuple[str, str], str]:
    """(type, key) → line of every key in an ``authorized_keys`` file, whatever stands before it."""
    found: dict[tuple[str, str], str] = {}
    for line in lines:
        if line.lstrip().startswith("#"):
            continue
        words = line.split()
        for kind, blob in pairwise(words):
            try:
                key = parse_key(f"{kind} {blob}")
            except ValueError:
                continue
            found.setdefault(key.identity, line)
            break
    return found


def _is_text(text: str) -> bool:
    return text.startswith(("ssh-", "ecdsa-", "sk-")) and " " in text


def _read_file(path: Path) -> list[PublicKey]:
    if path.suffix != ".pub":
        raise ValueError(
            f"{abbreviate(str(path))} is neither a public key (ssh-ed25519 AAAA… comment) nor the "
            "path of a *.pub file"
        )
    name = show(str(path))
    try:
        path = controller_files.expand(path)
        lines = controller_files.read_text(path).splitlines()
    except controller_files.Unreadable as error:
        raise ValueError(f"{name} {error}") from None
    key_lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not key_lines:
        raise ValueError(f"{name} holds no key")
    private = path.with_suffix("")
    return [parse_key(line).model_copy(update={"private": private}) for line in key_lines]
