"""What is desired of the logins of a host: validated before any host is contacted."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from stackmend.ports.spec import Ports
from stackmend.problems import abbreviate
from stackmend.raw import LocalPath, Seconds, check_plain

USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def _check_user(value: str) -> str:
    if not USER_NAME.fullmatch(value):
        raise ValueError(
            "must be a user's name: lowercase letters, digits, '_' and '-', 32 at most, not first "
            f"a digit or '-'; got {abbreviate(value)}"
        )
    return value


def _check_fingerprint(value: str) -> str:
    plain = value.rstrip("=")
    if value and not FINGERPRINT.fullmatch(plain):
        raise ValueError(
            "must be a host key's fingerprint as `ssh-keygen -lf` prints it, SHA256: and 43 "
            f"characters; got {abbreviate(value)}"
        )
    return plain


def _wrap_single(value: Any) -> Any:
    # One key is a text, several are a list.
    return (str(value),) if isinstance(value, str | Path) else value


def _check_key(value: Any) -> Any:
    text = str(value).strip() if isinstance(value, str | Path) else ""
    if not text:
        raise ValueError("must be a public key, or the path of its file on this machine")
    if "PRIVATE KEY" in text:
        raise ValueError("this is a private key; give the public one, from the *.pub file")
    if "\n" in text:
        raise ValueError("must be one key on one line; give several as a list")
    check_plain(text)
    return text


class OperatorSpec(BaseModel):
    """The user who looks after a host, and how that user comes in.

    :param user: its name; made where there is none. ``root`` is taken as it is.
    :param public_keys: each a key as text, or the path of its ``*.pub`` file on the controller.
    :param exclusive_keys: whether the user is to have no other keys.
    :param sudo: whether the user may become root without a password.
    :param password_login: whether sshd lets anyone in by a password; None leaves it as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: Annotated[str, AfterValidator(_check_user)]
    public_keys: Annotated[
        tuple[Annotated[str, BeforeValidator(_check_key)], ...],
        BeforeValidator(_wrap_single),
        Field(min_length=1),
    ]
    exclusive_keys: bool = False
    sudo: bool = True
    password_login: bool | None = None


class AccessPolicy(OperatorSpec):
    """The section ``access`` of a stack: the first contact, the user, and the host's basics.

    A host that has this section is reached by first contact: its sshd is waited for, its key is
    checked before anything is authenticated, and the first login that works is used: the user with
    its key, root with the same key, root with the password from the environment variable
    ``STACKMEND_ROOT_PASSWORD`` or from the terminal.

    :param fingerprint: of one of the host's keys, ``SHA256:…``. Without it the key that the host
        shows first is trusted, and recorded.
    :param known_hosts: the file on the controller in which hosts' keys are recorded; by default
        ``ssh_known_hosts_file`` of the host's data, else ``known_hosts`` beside the inventory.
    :param wait: seconds that the sshd of a host never reached before has to come up.
    :param clock: whether the clock is to be kept in sync.
    :param ports: those that are to be kept from outgoing connections, as ``ports.free`` takes
        them; None is those that the stack's compose file publishes.
    :param security_updates: whether security updates are to install themselves.

    Example, in ``group_data/all.py``::

        stack = {"access": {"user": "ops", "public_keys": ["~/.ssh/id_ed25519.pub"]}}
    """

    fingerprint: Annotated[str, AfterValidator(_check_fingerprint)] = ""
    known_hosts: LocalPath | None = None
    wait: Seconds = Field(default=300, ge=0, le=3600, allow_inf_nan=False)
    clock: bool = True
    ports: Ports | None = None
    security_updates: bool = False
