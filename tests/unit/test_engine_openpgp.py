"""Fingerprints as gpg prints them, of keys as gpg writes them."""

from __future__ import annotations

import pytest

from stackmend.engine import openpgp

#: Written by gpg 2.2, with the fingerprint that it prints.
KEY = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawZQ8BYJKwYBBAHaRw8BAQdABohgbqifAYGIMknbnvC3i0wAlqJL9EeCWFqh
CxDk1OC0FW9uZSA8b25lQGV4YW1wbGUuY29tPoiQBBMWCAA4FiEEPwv8CFTtEGwK
Sr3MQuNLOsRV0osFAmsGUPACGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ
QuNLOsRV0os70wD9HilSlRrvDNko4bg23C+mgcvoX/R1RFiyz3wxNxyWPLAA/Rn7
EDhOIPe/dTCUeTsHrUl9WGepn9Yvfh9QYRFSPb4F
=USTy
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINT = "3F0BFC0854ED106C0A4ABDCC42E34B3AC455D28B"


def test_a_key_as_gpg_tells_it() -> None:
    assert openpgp.find_fingerprints(KEY) == (FINGERPRINT,)
    assert openpgp.find_fingerprints(openpgp.dearmor(KEY)) == (FINGERPRINT,)


def test_headers_and_other_ends_of_lines_change_nothing() -> None:
    told = KEY.replace(b"\n\n", b"\nVersion: GnuPG v2\nComment: x\n\n", 1).replace(b"\n", b"\r\n")
    assert openpgp.find_fingerprints(b"\r\n" + told) == (FINGERPRINT,)


def test_every_key_of_a_file_is_told() -> None:
    # A second one, hidden behind the first: all would be trusted.
    other = bytearray(openpgp.dearmor(KEY))
    other[8] ^= 1
    for both in (openpgp.dearmor(KEY) + bytes(other), KEY + openpgp.armor(bytes(other))):
        found = openpgp.find_fingerprints(both)
        assert found[0] == FINGERPRINT
        assert len(set(found)) == 2


def test_armor_and_back() -> None:
    assert openpgp.dearmor(openpgp.armor(KEY)) == openpgp.dearmor(KEY)
    assert openpgp.find_fingerprints(openpgp.armor(KEY)) == (FINGERPRINT,)


def test_lengths_of_old_and_of_new_packets() -> None:
    body = openpgp.dearmor(KEY)[2:53]
    old = [bytes([0x98 + kind]) + (51).to_bytes(1 << kind, "big") for kind in (0, 1, 2)]
    new = [b"\xc6" + bytes([51]), b"\xc6\xff" + (51).to_bytes(4, "big")]
    for head in (*old, *new):
        assert openpgp.find_fingerprints(head + body) == (FINGERPRINT,)
    long = b"\x04" + bytes(299)
    assert len(openpgp.find_fingerprints(b"\xc6" + bytes([192, 300 - 192]) + long)) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not an OpenPGP key"),
        (b"<html>not found</html>", "not an OpenPGP key"),
        (KEY[:300], "no end"),
        (KEY.replace(b"mDME", b"m*ME"), "armor is broken"),
        (openpgp.dearmor(KEY)[:40], "cut off"),
        (openpgp.dearmor(KEY)[53:], "no public key"),
        (b"\x94\x01\x04", "a secret key"),
        (b"\x98\x01\x03", "version 3"),
        (b"\x98\x00", "version ?"),
        (b"\x9b\x04", "without a length"),
        (b"\xc6\xe0\x04", "in parts"),
        (b"\x98", "cut off"),
        (openpgp.dearmor(KEY) + b"\x01", "not an OpenPGP key"),
    ],
)
def test_what_is_no_key(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        openpgp.find_fingerprints(data)
