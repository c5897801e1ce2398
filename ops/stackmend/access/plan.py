"""What is to be done about the logins of a host. Pure."""

from collections.abc import Iterator, Sequence
from typing import Literal

from stackmend import decision
from stackmend.access.admission import find_obstacles, find_password_methods
from stackmend.access.keys import PublicKey, index_lines
from stackmend.access.spec import OperatorSpec
from stackmend.access.state import HostAccess
from stackmend.decision import Finding, Refusal
from stackmend.paths import STATE_ROOT

_UNDO_KEYS = f"the file before is kept in {STATE_ROOT}/access/kept"


class InstallSudo(decision.Action):
    """Install sudo."""

    verb: Literal["install"] = "install"


class AddUser(decision.Action):
    """Add the user, without a password."""

    verb: Literal["add"] = "add"


class PermitSudo(decision.Action):
    """Let the user become root without a password."""

    verb: Literal["permit"] = "permit"


class TrustKeys(decision.Action):
    """Add lines to the user's ``authorized_keys``."""

    verb: Literal["trust"] = "trust"
    keys: tuple[str, ...]


class DropKeys(decision.Action):
    """Take lines out of the user's ``authorized_keys``."""

    verb: Literal["drop"] = "drop"
    keys: tuple[str, ...]


class SetPasswordLogin(decision.Action):
    """Set whether sshd accepts passwords.

    :param enabled: whether it does.
    """

    verb: Literal["set"] = "set"
    enabled: bool


Action = InstallSudo | AddUser | PermitSudo | TrustKeys | DropKeys | SetPasswordLogin


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""


def plan(
    spec: OperatorSpec, keys: Sequence[PublicKey], state: HostAccess, *, provable: bool
) -> Plan:
    """What is to be done so that a user logs in as the spec says.

    What could lock out comes last.

    :param spec: what is desired.
    :param keys: the public keys that it names.
    :param state: what the host has.
    :param provable: whether this controller has a private key that belongs to one of them, and so
        can try the login.
    """
    if not state.root:
        refusal = Refusal(
            subject="host",
            reason="neither root nor allowed to become root",
            remedy="set _sudo = True in the host's data, or log in as root",
        )
        return Plan(refusals=(refusal,))
    account = tuple(_plan_account(spec, keys, state))
    risky = (*_plan_foreign_keys(spec, keys, state), *_plan_sshd(spec, state))
    refusals = (
        *_check_obstacles(spec, state),
        *_check_installer(account, state),
        *_check_sshd(risky, state),
    )
    if risky and not provable:
        refusals += (_refuse_unprovable(spec),)
    findings = () if spec.password_login is not None else tuple(_find_broken_sshd(state))
    if refusals:
        return Plan(findings=findings, refusals=refusals)
    return Plan(findings=findings, actions=(*account, *risky))


def _plan_account(
    spec: OperatorSpec, keys: Sequence[PublicKey], state: HostAccess
) -> Iterator[Action]:
    user = spec.user
    if spec.sudo and user != "root" and "sudo" not in state.tools:
        yield InstallSudo(subject="sudo", cause=f"{user} needs it and it is not there")
    if state.account is None:
        yield AddUser(subject=f"user {user}", cause="there is no such user", undo=f"userdel {user}")
    if spec.sudo and user != "root" and not state.permitted:
        yield PermitSudo(
            subject=f"sudo to {user}",
            cause="it may not become root without a password",
            undo=f"rm /etc/sudoers.d/stackmend-{user}",
        )
    # Last: once a key lets the user in, the next run logs in as that user, and needs root.
    present = index_lines(state.keys)
    missing = tuple(key.line for key in keys if key.identity not in present)
    if missing:
        yield TrustKeys(
            subject=f"{_count(missing)} for {user}",
            cause=f"not in {state.keys_file.replace('%h', '~')}",
            undo=_UNDO_KEYS,
            keys=missing,
        )


def _plan_foreign_keys(
    spec: OperatorSpec, keys: Sequence[PublicKey], state: HostAccess
) -> Iterator[Action]:
    if not spec.exclusive_keys:
        return
    own = {key.identity for key in keys}
    foreign = tuple(line for key, line in index_lines(state.keys).items() if key not in own)
    if foreign:
        yield DropKeys(
            subject=f"{_count(foreign)} of {spec.user}",
            cause="not among public_keys, and exclusive_keys is set",
            destructive=True,
            undo=_UNDO_KEYS,
            keys=foreign,
        )


def _plan_sshd(spec: OperatorSpec, state: HostAccess) -> Iterator[Action]:
    enabled = spec.password_login
    if enabled is None or state.sshd is None:
        return
    if state.armed:
        cause = "an unverified change of it is about to be reverted"
    elif state.sshd.passwords is not enabled:
        cause = f"sshd accepts {'no ' if enabled else ''}passwords"
    else:
        return
    yield SetPasswordLogin(
        subject=f"login by password: {'on' if enabled else 'off'}",
        cause=cause,
        undo="rm /etc/ssh/sshd_config.d/00-stackmend.conf, and reload sshd",
        enabled=enabled,
    )


def _check_obstacles(spec: OperatorSpec, state: HostAccess) -> Iterator[Refusal]:
    if state.sshd is None or state.sshd.problem:
        return
    for obstacle in find_obstacles(
        spec.user, state.account, state.sshd, state.keys_file, state.address
    ):
        yield Refusal(
            subject=f"user {spec.user}",
            reason=f"sshd would not let {spec.user} in: {obstacle}",
            remedy="change that in the host's sshd configuration, or name another user in "
            'stack["access"]["user"]',
        )


def _check_installer(actions: Sequence[Action], state: HostAccess) -> Iterator[Refusal]:
    if not state.installer and any(isinstance(action, InstallSudo) for action in actions):
        yield Refusal(
            subject="sudo",
            reason="it is not there, and stackmend knows none of the host's package managers",
            remedy='install it by hand, or set stack["access"]["sudo"] = False',
        )


def _check_sshd(actions: Sequence[Action], state: HostAccess) -> Iterator[Refusal]:
    if state.sshd is None or not any(isinstance(action, SetPasswordLogin) for action in actions):
        return
    if state.sshd.problem:
        yield Refusal(
            subject="sshd",
            reason=f"its configuration is broken already, a reload would stop it: "
            f"{state.sshd.problem}",
            remedy="fix it, until sshd -t prints nothing",
        )
    elif methods := find_password_methods(state.sshd):
        yield Refusal(
            subject="sshd",
            reason=f"AuthenticationMethods {methods} asks for a password as well",
            remedy="let publickey alone be enough there, or leave password_login out",
        )


def _find_broken_sshd(state: HostAccess) -> Iterator[Finding]:
    if state.sshd is not None and state.sshd.problem:
        yield Finding(
            subject="sshd",
            kind="broken configuration",
            cause="it would not start again with the configuration on the disk",
            evidence=(state.sshd.problem,),
            blocks=False,
        )


def _refuse_unprovable(spec: OperatorSpec) -> Refusal:
    return Refusal(
        subject=f"user {spec.user}",
        reason="this machine has no private key that belongs to public_keys, so stackmend cannot "
        "try the login, and does nothing that may lock everyone out",
        remedy="run this where the key is, load it into an agent, or name it with ssh_key",
    )


def _count(lines: Sequence[str]) -> str:
    return "1 key" if len(lines) == 1 else f"{len(lines)} keys"
