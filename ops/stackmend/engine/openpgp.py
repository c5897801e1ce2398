"""The fingerprints of the keys in a file, as OpenPGP defines them. Pure.

Only what it takes to say which keys a file would make trusted: it splits the packets (RFC 4880,
section 4.2), and hashes each primary key of version 4 (section 12.2). It ignores signatures: the
programs that verify with the keys check those.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator

#: The tag of a primary public key, and those of what must never be in a file of public keys.
_PUBLIC, _SECRET = 6, (5, 7)

_BEGIN, _END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"


def find_fingerprints(data: bytes) -> tuple[str, ...]:
    """The fingerprint of every primary key, 40 hexadecimal digits each, in the file's order.

    :param data: keys as a file has them, armored or not.
    :raises ValueError: it holds none, or something that is no public key.
    """
    found = []
    for tag, body in _split_packets(dearmor(data)):
        if tag in _SECRET:
            raise ValueError("it holds a secret key")
        if tag == _PUBLIC:
            if body[:1] != b"\x04":
                raise ValueError(f"it holds a key of version {body[0] if body else '?'}, not of 4")
            hashed = b"\x99" + len(body).to_bytes(2, "big") + body
            # The standard names SHA-1; a fingerprint that somebody else's key shares is as hard to
            # make as ever.
            found.append(hashlib.sha1(hashed, usedforsecurity=False).hexdigest().upper())
    if not found:
        raise ValueError("it holds no public key")
    return tuple(found)


def dearmor(data: bytes) -> bytes:
    """The same without armor: what apt and rpm take for a keyring.

    :raises ValueError: the armor is broken, or there is neither armor nor a key.
    """
    if data[:1] and data[0] & 0x80:
        return data
    lines = [line.strip() for line in data.decode("ascii", errors="replace").splitlines()]
    if _BEGIN not in lines:
        raise ValueError("it is not an OpenPGP key")
    plain = b""
    while _BEGIN in lines:
        lines = lines[lines.index(_BEGIN) + 1 :]
        if _END not in lines:
            raise ValueError("its armor has no end")
        block, lines = lines[: lines.index(_END)], lines[lines.index(_END) + 1 :]
        # Headers end with an empty line; the last line of a block may be a checksum.
        body = block[block.index("") + 1 :] if "" in block else block
        text = "".join(line for line in body if line and not line.startswith("="))
        try:
            plain += base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"its armor is broken: {error}") from None
    return plain


def armor(data: bytes) -> bytes:
    """Keys as text, the way that a file of a repository's key usually is."""
    text = base64.b64encode(dearmor(data)).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([_BEGIN, "", *lines, _END, ""]).encode()


def _split_packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError("it is not an OpenPGP key")
        at += 1
        new = bool(head & 0x40)
        tag = head & 0x3F if new else head >> 2 & 0x0F
        length, at = _parse_length(data, at) if new else _parse_old_length(data, at, head & 0x03)
        if at + length > len(data):
            raise ValueError("it is cut off")
        yield tag, data[at : at + length]
        at += length


def _parse_length(data: bytes, at: int) -> tuple[int, int]:
    first = _parse_number(data, at, 1)
    if first < 192:
        return first, at + 1
    if first < 224:
        return ((first - 192) << 8) + _parse_number(data, at + 1, 1) + 192, at + 2
    if first == 255:
        return _parse_number(data, at + 1, 4), at + 5
    raise ValueError("it holds a packet in parts, which no key is")


def _parse_old_length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind == 3:
        raise ValueError("it holds a packet without a length, which no key is")
    width = 1 << kind
    return _parse_number(data, at, width), at + width


def _parse_number(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise ValueError("it is cut off")
    return int.from_bytes(data[at : at + width], "big")
