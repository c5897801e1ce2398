"""From an action to the command that does it: the only place where values are quoted."""

from pyinfra.api import StringCommand

from stackmend.access.plan import (
    Action,
    AddUser,
    DropKeys,
    InstallSudo,
    PermitSudo,
    SetPasswordLogin,
    TrustKeys,
)
from stackmend.access.state import HostAccess
from stackmend.connection import read_script, script

#: Seconds after which the host reverts a change of sshd that no run has confirmed.
REVERT_AFTER = 120


def command(action: Action, user: str, state: HostAccess, mark: str) -> StringCommand:
    """What executes an action.

    :param action: the action.
    :param user: the user it is about.
    :param state: what the host has.
    :param mark: of the change of sshd, where it is one.
    """
    match action:
        case InstallSudo():
            return _build_script("sudo", state.installer)
        case AddUser():
            return _build_script("account", user)
        case PermitSudo():
            return _build_script("sudoers", user)
        case TrustKeys() | DropKeys():
            return _build_script("keys", user, state.keys_file, action.verb, *action.keys)
        case SetPasswordLogin():
            value = "yes" if action.enabled else "no"
            # What the host runs by itself where no run confirms the change in time.
            parts = [read_script("stackmend.connection", name) for name in ("walk", "put")]
            revert = "".join(
                (
                    *parts,
                    read_script("stackmend.access", "common"),
                    read_script("stackmend.access", "revert"),
                )
            )
            return _build_script("sshd", value, state.spec, mark, str(REVERT_AFTER), revert)


def confirm(mark: str) -> StringCommand:
    """Let a change of sshd stay, which was proven."""
    return _build_script("confirm", mark)


def revert(mark: str) -> StringCommand:
    """Revert a change of sshd at once."""
    return _build_script("revert", mark)


def _build_script(name: str, *arguments: str) -> StringCommand:
    before = ["common", "as_user"] if name == "keys" else ["common"]
    return script("stackmend.access", name, *arguments, before=before, shared=["walk", "put"])
