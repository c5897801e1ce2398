"""Whether sshd would let a user in by a key, as its settings say. Pure."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from stackmend.access.state import Account, Sshd

#: Login shells that end a session at once.
NO_SHELLS = ("/nologin", "/false", "/true")

#: Ways of authentication that hardening takes away.
PASSWORD_WAYS = ("password", "keyboard-interactive")


def obstacles(
    user: str, account: Account | None, sshd: Sshd, keys_file: str, address: str
) -> Iterator[str]:
    """Why sshd would not let a user in, each reason in words; nothing where it would.

    :param user: its name.
    :param account: the user as it is; None for one that is yet to be made.
    :param sshd: what its settings are for that user.
    :param keys_file: the file that it reads the user's keys from.
    :param address: where the user comes from.
    """
    groups = account.groups if account else (user,)
    values = sshd.settings
    if account is not None and account.shell.endswith(NO_SHELLS):
        yield f"its login shell is {account.shell}"
    if sshd.value("pubkeyauthentication") == "no":
        yield "PubkeyAuthentication is no: sshd takes no keys"
    if user == "root" and sshd.value("permitrootlogin") == "no":
        yield "PermitRootLogin is no"
    if _named(values.get("denyusers", ()), user, address):
        yield f"DenyUsers {' '.join(values['denyusers'])} names it"
    if values.get("allowusers") and not _named(values["allowusers"], user, address):
        yield f"AllowUsers {' '.join(values['allowusers'])} does not name it"
    if any(_matches(values.get("denygroups", ()), group) for group in groups):
        yield f"DenyGroups {' '.join(values['denygroups'])} names a group of its"
    if values.get("allowgroups") and not any(
        _matches(values["allowgroups"], group) for group in groups
    ):
        yield f"AllowGroups {' '.join(values['allowgroups'])} names no group of its"
    home = account.home if account else "%h"
    if keys_file == "none":
        yield "AuthorizedKeysFile is none: sshd reads no keys of users"
    elif not keys_file.startswith(f"{home}/"):
        yield f"AuthorizedKeysFile is {keys_file}, outside of its home"


def needs_password(sshd: Sshd) -> str:
    """The AuthenticationMethods that cannot be met without a password; empty where they can."""
    lists = sshd.settings.get("authenticationmethods", ())
    if not lists or "any" in lists:
        return ""
    # One of the lists is enough to get in.
    able = [one for one in lists if not any(way in one for way in PASSWORD_WAYS)]
    return "" if able else " ".join(lists)


def _named(patterns: tuple[str, ...], user: str, address: str) -> bool:
    """Whether a list of ``USER`` and ``USER@HOST`` patterns names a user; ``!`` takes back."""
    hit = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        name, at, host = pattern.lstrip("!").rpartition("@")
        if not at:
            name, host = pattern.lstrip("!"), "*"
        if fnmatchcase(user, name) and _from(host, address):
            if negated:
                return False
            hit = True
    return hit


def _matches(patterns: tuple[str, ...], group: str) -> bool:
    hits = [pattern for pattern in patterns if fnmatchcase(group, pattern.lstrip("!"))]
    return bool(hits) and not any(pattern.startswith("!") for pattern in hits)


def _from(host: str, address: str) -> bool:
    if "/" not in host:
        return fnmatchcase(address, host)
    try:
        return ip_address(address) in ip_network(host, strict=False)
    except ValueError:
        return False
