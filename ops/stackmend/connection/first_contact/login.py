"""Whom to log in as, and with what: the logins that a controller has."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramiko import Agent, PKey, SSHException
from paramiko.auth_strategy import AuthSource
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.ssh_util import (
    _patch_paramiko_sk_key_support,
    get_private_key,
    load_key_with_certificate,
)
from typing_extensions import override

from stackmend.redaction import register

from .. import signals

if TYPE_CHECKING:
    from paramiko import Transport
    from pyinfra.api.host import Host
    from pyinfra.connectors.ssh import SSHConnector

    from .contact import Contact
    from .target import Target

#: Private keys that OpenSSH takes without being told.
DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")

_asking = threading.Lock()
_agent_socket = threading.Lock()
_root_passwords: dict[str, str] = {}


@dataclass(frozen=True)
class Identity:
    """A private key in hand.

    :param label: where it is from, for messages.
    :param key: the key.
    """

    label: str
    key: PKey

    @property
    def public(self) -> bytes:
        """Its public half, as the protocol carries it; that of a certified key is the key's own."""
        return self.key.asbytes()


@dataclass(frozen=True)
class Login:
    """One user, with the methods to log in as that user.

    :param user: its name.
    :param sources: the methods, in the order to try.
    """

    user: str
    sources: list[AuthSource]


class ByKey(AuthSource):
    """A login by a key."""

    def __init__(self, user: str, identity: Identity) -> None:
        super().__init__(user)
        self._identity = identity

    @override
    def __repr__(self) -> str:
        return f"{self.username} with {self._identity.label}"

    @override
    def authenticate(self, transport: Transport) -> list[str]:
        return transport.auth_publickey(self.username, self._identity.key)


class ByPassword(AuthSource):
    """A login by a password, in password or keyboard-interactive manner."""

    def __init__(self, user: str, password: str, label: str) -> None:
        super().__init__(user)
        self._password = password
        self._label = label

    @override
    def __repr__(self) -> str:
        return f"{self.username} with the password {self._label}"

    @override
    def authenticate(self, transport: Transport) -> list[str]:
        return transport.auth_password(self.username, self._password)


def list_logins(
    host: Host, connector: SSHConnector, contact: Contact, target: Target, notes: list[str]
) -> Iterator[Login]:
    """Every login that is known for a host, the user who looks after it first, root last.

    A password is only asked for when this is asked for the last one.

    :param host: the host.
    :param connector: pyinfra's connector of it.
    :param contact: what is known of it.
    :param target: where it is, and what the SSH configuration says of it.
    :param notes: gets a line for each way that cannot be tried.
    """
    found = list(list_identities(connector, target, contact.keys, notes))
    configured_user = connector.data["ssh_user"] or target.config.get("user") or ""
    configured_password = connector.data["ssh_password"]
    users = dict.fromkeys(filter(None, (contact.user, configured_user, "root")))
    for user in users:
        sources: list[AuthSource] = [ByKey(user, identity) for identity in found]
        if configured_password and user == (configured_user or "root"):
            sources.append(ByPassword(user, configured_password, "of ssh_password"))
        if sources:
            yield Login(user, sources)
    password, label = _find_root_password(host, contact.password_from)
    if password:
        yield Login("root", [ByPassword("root", password, label)])
    else:
        notes.append(f"root with a password: none is given in {contact.password_from}")


def list_identities(
    connector: SSHConnector, target: Target, keys: Iterable[Path], notes: list[str]
) -> Iterator[Identity]:
    """Every private key that may open a host, once each: files named for it, the agent's, others.

    :param connector: pyinfra's connector of the host.
    :param target: where it is, and what the SSH configuration says of it.
    :param keys: files to take first; those that are not there are passed over.
    :param notes: gets a line for each key that cannot be used.
    """
    # paramiko trips over keys of security tokens in an agent; pyinfra mends that where it connects.
    _patch_paramiko_sk_key_support()
    listed: set[bytes] = set()
    for identity in _list_all(connector, target, keys, notes):
        if identity.public not in listed:
            listed.add(identity.public)
            yield identity


def select_matching_identities(
    identities: Iterable[Identity], public: Collection[bytes]
) -> list[Identity]:
    """Those whose public half is among some keys.

    :param identities: private keys.
    :param public: public keys, as the protocol carries them.
    """
    return [identity for identity in identities if identity.public in public]


def _list_all(
    connector: SSHConnector, target: Target, keys: Iterable[Path], notes: list[str]
) -> Iterator[Identity]:
    data = connector.data
    for path in keys:
        if path.is_file():
            yield from _load(path, notes)
    if data["ssh_key"]:
        key = get_private_key(connector.state, data["ssh_key"], data["ssh_key_password"])
        yield Identity(str(data["ssh_key"]), key)
    if target.config.get("pkey") is not None:
        yield Identity("the key of the SSH configuration", target.config["pkey"])
    if data["ssh_allow_agent"]:
        yield from _list_agent(target.agent)
    if data["ssh_look_for_keys"] and not data["ssh_key"]:
        for name in DEFAULT_KEYS:
            if (path := Path(name).expanduser()).is_file():
                yield from _load(path, notes)


def _load(path: Path, notes: list[str]) -> Iterator[Identity]:
    try:
        yield Identity(str(path), load_key_with_certificate(str(path), allow_prompt=False))
    except (PyinfraError, SSHException, OSError, ValueError) as error:
        notes.append(f"{path}: {' '.join(str(error).split())}")


def _list_agent(named: str | None) -> Iterator[Identity]:
    with _agent_socket:
        before = os.environ.get("SSH_AUTH_SOCK")
        if named:
            os.environ["SSH_AUTH_SOCK"] = named
        try:
            with contextlib.suppress(SSHException, OSError):
                for key in Agent().get_keys():
                    yield Identity(f"the agent's key {key.comment or key.get_name()}", key)
        finally:
            if named and before is None:
                del os.environ["SSH_AUTH_SOCK"]
            elif named and before is not None:
                os.environ["SSH_AUTH_SOCK"] = before


def _find_root_password(host: Host, variable: str) -> tuple[str, str]:
    """Root's password and where it is from; empty where nobody gives one."""
    if variable in os.environ:
        # Taken out: what this process starts (a proxy command, say) has no business with it.
        _root_passwords[variable] = os.environ.pop(variable)
    password, label = _root_passwords.get(variable, ""), f"of {variable}"
    if not password and sys.stdin.isatty():
        with _asking, signals.hold_terminal():
            password, label = getpass(f"Password of root@{host.name} (none: Enter): "), "typed in"
    register(password)
    return password, label


def decode_public_keys(blobs: Iterable[Any]) -> frozenset[bytes]:
    """Public keys in base64, as the protocol carries them."""
    import base64

    return frozenset(base64.b64decode(blob) for blob in blobs)
