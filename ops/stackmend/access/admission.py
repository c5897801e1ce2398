"""Whether sshd would let a user in by a key, as its settings say. Pure."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from stackmend.access.state import Account, Sshd

#: Login shells that end a session at once.
NO_SHELLS = ("/nologin", "/false", "/true")

#: Methods of authentication that hardening takes away.
PASSWORD_METHODS = ("password", "keyboard-interactive")


def find_obstacles(
    user: str, account: Account | None, sshd: Sshd, keys_file: str, address: str
) -> Iterator[str]:
    """Why sshd would not let a user in, one reason each; nothing where it would.

    :param user: its name.
    :param account: the user as it is; None for one that does not exist yet.
    :param sshd: what its settings are for that user.
    :param keys_file: the file that it reads the user's keys from.
    :param address: where the user comes from.
    """
    groups = account.groups if account else (user,)
    values = sshd.settings
    if account is not None and account.shell.endswith(NO_SHELLS):
        yield f"its login shell is {account.shell}"
    if sshd.get_value("pubkeyauthentication") == "no":
        yield "PubkeyAuthentication is no: sshd accepts no keys"
    if user == "root" and sshd.get_value("permitrootlogin") == "no":
        yield "PermitRootLogin is no"
    if _has_user(values.get("denyusers", ()), user, address):
        yield f"DenyUsers {' '.join(values['denyusers'])} names it"
    if values.get("allowusers") and not _has_user(values["allowusers"], user, address):
        yield f"AllowUsers {' '.join(values['allowusers'])} does not name it"
    if any(_has_group(values.get("denygroups", ()), group) for group in groups):
        yield f"DenyGroups {' '.join(values['denygroups'])} names one of its groups"
    if values.get("allowgroups") and not any(
        _has_group(values["allowgroups"], group) for group in groups
    ):
        yield f"AllowGroups {' '.join(values['allowgroups'])} names none of its groups"
    home = account.home if account else "%h"
    if keys_file == "none":
        yield "AuthorizedKeysFile is none: sshd reads no keys of users"
    elif not keys_file.startswith(f"{home}/"):
        yield f"AuthorizedKeysFile is {keys_file}, outside its home"


def find_password_methods(sshd: Sshd) -> str:
    """The AuthenticationMethods that cannot be met without a password; empty where they can."""
    lists = sshd.settings.get("authenticationmethods", ())
    if not lists or "any" in lists:
        return ""
    # One of the lists is enough to get in.
    if any(all(method not in methods for method in PASSWORD_METHODS) for methods in lists):
        return ""
    return " ".join(lists)


def _has_user(patterns: tuple[str, ...], user: str, address: str) -> bool:
    """Whether a list of ``USER`` and ``USER@HOST`` patterns names a user; ``!`` takes back."""
    matched = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        name, at, host = pattern.lstrip("!").rpartition("@")
        if not at:
            name, host = pattern.lstrip("!"), "*"
        if fnmatchcase(user, name) and _is_from(host, address):
            if negated:
                return False
            matched = True
    return matched


def _has_group(patterns: tuple[str, ...], group: str) -> bool:
    matching = [pattern for pattern in patterns if fnmatchcase(group, pattern.lstrip("!"))]
    return bool(matching) and not any(pattern.startswith("!") for pattern in matching)


def _is_from(host: str, address: str) -> bool:
    if "/" not in host:
        return fnmatchcase(address, host)
    try:
        return ip_address(address) in ip_network(host, strict=False)
    except ValueError:
        return False
