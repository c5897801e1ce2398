"""Public keys as people give them, and the section ``access`` of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stackmend.access.contact import find_contact
from stackmend.access.keys import KeyProblem, index_lines, parse_key, read_public_keys
from stackmend.access.spec import AccessPolicy
from stackmend.spec import Machine, SpecError, Stack, check, parse_machine
from tests.unit.access_world import public


def test_a_file_and_a_text_are_the_same_key(tmp_path: Path) -> None:
    file = tmp_path / "id.pub"
    file.write_text(f"# mine\n{public()}\n\n{public('second')}\n")
    keys = read_public_keys([public(), str(file)])
    assert [key.line for key in keys] == [public(), public("second")]
    assert [key.private for key in keys] == [None, tmp_path / "id"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ssh-ed25519 AAAA me", "public_keys[0]: is not a public key"),
        ("ssh-rsa " + public().split()[1], "public_keys[0]: is not a public key"),
        ("/nowhere/id.pub", "public_keys[0]: /nowhere/id.pub cannot be read: No such file"),
        ("/etc/hostname", "public_keys[0]: '/etc/hostname' is neither a public key"),
        (f'from="10.0.0.1" {public()}', "is neither a public key"),
    ],
)
def test_what_is_no_key(given: str, said: str) -> None:
    with pytest.raises(KeyProblem) as raised:
        read_public_keys([given])
    assert said in str(raised.value)


def test_what_a_file_of_keys_holds() -> None:
    lines = ["", "# " + public(), f'command="echo ssh-rsa x" {public("a")}', public("b"), "junk"]
    assert list(index_lines(lines).values()) == lines[2:4]
    assert parse_key(public("a")).comment == "a"


POLICY: dict[str, Any] = {"user": "ops", "public_keys": [public()]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user": "Ops"}, "stack.access.user: must be a user's name"),
        ({"user": "-ops"}, "stack.access.user: "),
        ({"user": "ops; reboot"}, "stack.access.user: "),
        ({"public_keys": []}, "stack.access.public_keys: "),
        ({"public_keys": ["x\ny"]}, "stack.access.public_keys[0]: must be one key on one line"),
        ({"public_keys": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "this is a private key"),
        ({"public_keys": ["~/none.pub"]}, "stack.access.public_keys[0]: "),
        ({"fingerprint": "MD5:aa:bb"}, "stack.access.fingerprint: must be a host key's"),
        ({"fingerprint": "SHA256:short"}, "stack.access.fingerprint: "),
        ({"wait": -1}, "stack.access.wait: "),
        ({"ports": ["70000"]}, "stack.access.ports[0]: '70000'"),
        ({"root_password": "x"}, "stack.access.root_password: unknown key"),
    ],
)
def test_a_wrong_setting_is_told_with_its_path(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_machine({"stack": {"access": {**POLICY, **changes}}})
    assert said in str(raised.value)


def test_a_private_key_is_not_shown() -> None:
    with pytest.raises(SpecError) as raised:
        parse_machine({"stack": {"access": {**POLICY, "public_keys": "PRIVATE KEY b3BlbnNzaC1r"}}})
    assert "b3BlbnNzaC1r" not in str(raised.value)


def test_a_host_may_have_access_and_engine_and_no_project_yet() -> None:
    data = {"stack": {"access": POLICY, "engine": {}}}
    found = parse_machine(data)
    assert isinstance(found, Machine)
    assert not isinstance(found, Stack)
    assert check(data) is None
    with pytest.raises(SpecError, match="source: missing"):
        parse_machine({"stack": {"access": POLICY, "project": "ai"}})
    with pytest.raises(SpecError, match="project: missing"):
        parse_machine({"stack": {}})


def test_how_a_host_is_reached_is_told_for_those_with_the_section_alone(tmp_path: Path) -> None:
    file = tmp_path / "id.pub"
    file.write_text(public())
    assert find_contact({}) is None
    assert find_contact({"stack": {"project": "ai"}}) is None
    given = {"access": {"user": "ops", "public_keys": str(file), "wait": 7}}
    for stack in (given, Machine.model_validate(given)):
        found = find_contact({"stack": stack})
        assert found is not None
        assert (found.user, found.keys, found.wait) == ("ops", (tmp_path / "id",), 7)


def test_a_fingerprint_may_be_padded() -> None:
    mark = "SHA256:" + "A" * 43
    assert AccessPolicy.model_validate({**POLICY, "fingerprint": f"{mark}="}).fingerprint == mark
    with pytest.raises(ValidationError):
        AccessPolicy.model_validate({**POLICY, "fingerprint": mark.lower()})
