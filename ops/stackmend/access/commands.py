"""From an action to the command that does it: the only place where values are quoted."""

from pyinfra.api import StringCommand

from stackmend.access.plan import Action
from stackmend.access.spec import OperatorSpec
from stackmend.access.state import HostAccess
from stackmend.connection import script, text
from stackmend.paths import STATE_ROOT

#: The file whose lock says that somebody changes the way into a host.
LOCK = f"{STATE_ROOT}/access/lock"

#: Seconds after which a change of sshd's that nobody proved is taken back.
REVERT_AFTER = 120


def step(action: Action, spec: OperatorSpec, state: HostAccess, mark: str) -> StringCommand:
    """Carry out one action.

    :param action: the action.
    :param spec: what is wanted.
    :param state: the reading that it was planned from.
    :param mark: of the change of sshd's, where it is one.
    """
    match action.verb:
        case "install":
            return _script("sudo", state.installer)
        case "add":
            return _script("account", spec.user)
        case "trust" | "drop":
            return _script("keys", spec.user, state.keys_file, action.verb, *action.keys)
        case "permit":
            return _script("sudoers", spec.user)
        case "set":
            value = "yes" if spec.password_login else "no"
            # What the host runs by itself where nobody proves the change in time.
            parts = [text("stackmend.connection", name) for name in ("walk", "put")]
            revert = "".join(
                (*parts, text("stackmend.access", "common"), text("stackmend.access", "revert"))
            )
            return _script("sshd", value, state.spec, mark, str(REVERT_AFTER), revert)


def confirm(mark: str) -> StringCommand:
    """Let a change of sshd's stay, which was proven."""
    return _script("confirm", mark)


def revert(mark: str) -> StringCommand:
    """Take a change of sshd's back at once."""
    return _script("revert", mark)


def _script(name: str, *arguments: str) -> StringCommand:
    before = ["common", "as_user"] if name == "keys" else ["common"]
    return script("stackmend.access", name, *arguments, before=before, shared=["walk", "put"])
