"""The judge of a host's key, on real keys and real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from paramiko import ECDSAKey, PKey, RSAKey

from stackmend.connection.first_contact.errors import HostKeyRefused
from stackmend.connection.first_contact.hostkey import KnownHosts, Unmatched

NAME = "[192.0.2.1]:2222"
FIRST, SECOND, OTHER_KIND = ECDSAKey.generate(), ECDSAKey.generate(), RSAKey.generate(2048)


def judge(
    file: Path, fingerprint: str = "", *, strict: bool = False, name: str = NAME
) -> tuple[KnownHosts, list[str]]:
    said: list[str] = []
    known = KnownHosts(file, name, fingerprint=fingerprint, strict=strict, warn=said.append)
    return known, said


def shown(known: KnownHosts, key: PKey) -> None:
    known.missing_host_key(None, NAME, key)


def test_the_first_key_is_trusted_once_and_no_other_after_it(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "known_hosts"
    known, said = judge(file)
    assert known.new
    shown(known, FIRST)
    assert len(said) == 1
    assert FIRST.fingerprint in said[0]
    again, said = judge(file)
    assert not again.new
    assert again.prefer == [FIRST.get_name()]
    shown(again, FIRST)
    assert said == []
    for key in (SECOND, OTHER_KIND):
        with pytest.raises(HostKeyRefused, match="changed host key"):
            shown(again, key)
    assert len(file.read_text().splitlines()) == 1


def test_a_fingerprint_decides_and_the_key_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    known, _ = judge(file, FIRST.fingerprint, strict=True)
    with pytest.raises(Unmatched):
        shown(known, SECOND)
    with pytest.raises(Unmatched):
        shown(known, OTHER_KIND)
    assert not file.exists()
    assert set(known.offered.values()) == {SECOND.fingerprint, OTHER_KIND.fingerprint}
    shown(known, FIRST)
    assert file.read_text().startswith(f"{NAME} {FIRST.get_name()} ")


def test_a_fingerprint_does_not_make_a_record_void(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    shown(judge(file)[0], FIRST)
    with pytest.raises(HostKeyRefused, match="changed host key"):
        shown(judge(file, SECOND.fingerprint)[0], SECOND)


def test_a_fingerprint_of_another_kind_than_the_record_adds_to_it(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    shown(judge(file)[0], FIRST)
    shown(judge(file, OTHER_KIND.fingerprint)[0], OTHER_KIND)
    assert len(file.read_text().splitlines()) == 2


def test_strict_trusts_nothing_that_is_not_recorded(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    with pytest.raises(HostKeyRefused, match="unknown host key"):
        shown(judge(file, strict=True)[0], FIRST)
    shown(judge(file)[0], FIRST)
    shown(judge(file, strict=True)[0], FIRST)


def test_other_hosts_and_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    shown(judge(file, name="elsewhere")[0], SECOND)
    file.write_text("# a comment\nnonsense\n" + file.read_text())
    known, _ = judge(file)
    assert known.new
    shown(known, FIRST)
    assert judge(file, name="elsewhere")[0].prefer == [SECOND.get_name()]


def test_a_file_that_is_no_text_is_an_error_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OSError, match="known_hosts cannot be read: not text in UTF-8"):
        judge(file)
    assert file.read_bytes() == b"\xff\xfe\x00"
