"""Hosts, keys and specs for the tests of access, without a host."""

from __future__ import annotations

import base64
import struct
from typing import Any

from stackmend.access.keys import PublicKey, parse_key
from stackmend.access.plan import Plan, plan
from stackmend.access.spec import OperatorSpec
from stackmend.access.state import Account, HostAccess, Sshd


def public(name: str = "mine") -> str:
    """A line that is a public key in all but its numbers, another one for each name."""
    kind = b"ssh-ed25519"
    body = name.encode().ljust(32, b".")[:32]
    raw = struct.pack(">I", len(kind)) + kind + struct.pack(">I", len(body)) + body
    return f"ssh-ed25519 {base64.b64encode(raw).decode()} {name}"


KEYS: tuple[PublicKey, ...] = (parse_key(public()),)
OPEN: dict[str, tuple[str, ...]] = {
    "pubkeyauthentication": ("yes",),
    "passwordauthentication": ("yes",),
    "kbdinteractiveauthentication": ("no",),
    "permitrootlogin": ("without-password",),
    "authorizedkeysfile": (".ssh/authorized_keys",),
    "authenticationmethods": ("any",),
}
CLOSED = {**OPEN, "passwordauthentication": ("no",)}


def sshd(problem: str = "", closed: bool = False, **settings: str) -> Sshd:
    known = CLOSED if closed else OPEN
    return Sshd(problem=problem, settings={**known, **{name: (v,) for name, v in settings.items()}})


def account(**changes: Any) -> Account:
    fields = {"name": "ops", "uid": 1000, "home": "/home/ops", "shell": "/bin/bash"}
    return Account.model_validate({**fields, "groups": ("ops",), **changes})


def new(**changes: Any) -> HostAccess:
    """A host that was never touched."""
    fields: dict[str, Any] = {
        "address": "192.0.2.7",
        "spec": "user=ops,host=192.0.2.7,addr=192.0.2.7,laddr=192.0.2.1,lport=22",
        "tools": ("sudo", "visudo", "sshd", "useradd", "systemd-run"),
        "installer": "apt-get",
        "sshd": sshd(),
        "keys_file": "%h/.ssh/authorized_keys",
    }
    return HostAccess(**{**fields, **changes})


def finished(**changes: Any) -> HostAccess:
    """A host on which everything is as wanted."""
    fields: dict[str, Any] = {
        "account": account(),
        "rules": ("(ALL : ALL) NOPASSWD: ALL",),
        "keys_file": "/home/ops/.ssh/authorized_keys",
        "keys": (public(),),
        "sshd": sshd(closed=True),
    }
    return new(**{**fields, **changes})


def desired(**changes: Any) -> OperatorSpec:
    fields = {"user": "ops", "public_keys": (public(),), "password_login": False}
    return OperatorSpec.model_validate({**fields, **changes})


def make_plan(
    state: HostAccess, spec: OperatorSpec | None = None, *, provable: bool = True
) -> Plan:
    return plan(spec or desired(), KEYS, state, provable=provable)
