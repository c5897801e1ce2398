"""What is to be done about the way into a host. Pure."""

from collections.abc import Iterator, Sequence
from typing import Literal

from stackmend.access.admission import needs_password, obstacles
from stackmend.access.keys import PublicKey, held
from stackmend.access.spec import OperatorSpec
from stackmend.access.state import HostAccess
from stackmend.decision import Action as BaseAction
from stackmend.decision import Finding, Refusal
from stackmend.decision import Plan as BasePlan
from stackmend.paths import STATE_ROOT

Verb = Literal["install", "add", "trust", "permit", "drop", "set"]


class Action(BaseAction):
    """One step.

    :param verb: ``install`` sudo, ``add`` the user, ``trust`` keys, ``permit`` sudo, ``drop`` keys
        that are not wanted, ``set`` whether sshd takes passwords.
    :param keys: for ``trust`` and ``drop`` the lines of ``authorized_keys`` in question.
    """

    verb: Verb
    keys: tuple[str, ...] = ()


Plan = BasePlan[Action]

KEPT = f"the file before is kept in {STATE_ROOT}/access/kept"


def plan(
    spec: OperatorSpec, keys: Sequence[PublicKey], state: HostAccess, *, provable: bool
) -> Plan:
    """What is to be done so that a user comes in as wanted.

    :param spec: what is wanted.
    :param keys: the public keys that it names.
    :param state: what is there.
    :param provable: whether this controller has a private key that belongs to one of them, and so
        can try the login.
    """
    if not state.root:
        return Plan(refusals=(_not_root(),))
    actions = (*_account(spec, keys, state), *_keys_to_drop(spec, keys, state))
    setting = tuple(_sshd(spec, state))
    refusals = (*_shut_out(spec, state), *_not_installable(state, actions))
    if setting:
        refusals += tuple(_unsafe(state))
    if not provable and (setting or any(action.verb == "drop" for action in actions)):
        refusals += (_not_provable(spec),)
    findings = () if spec.password_login is not None else tuple(_broken(state))
    if refusals:
        return Plan(findings=findings, refusals=refusals)
    return Plan(findings=findings, actions=(*actions, *setting))


def _account(spec: OperatorSpec, keys: Sequence[PublicKey], state: HostAccess) -> Iterator[Action]:
    user = spec.user
    if spec.sudo and user != "root" and "sudo" not in state.tools:
        yield Action(verb="install", subject="sudo", cause=f"{user} needs it and it is not there")
    if state.account is None:
        yield Action(
            verb="add",
            subject=f"user {user}",
            cause="there is no such user",
            undo=f"userdel {user}",
        )
    if spec.sudo and user != "root" and not state.permitted:
        yield Action(
            verb="permit",
            subject=f"sudo to {user}",
            cause="it may not become root without a password",
            undo=f"rm /etc/sudoers.d/stackmend-{user}",
        )
    # Last: once a key lets the user in, the next run comes in as that user, and needs root.
    present = held(state.keys)
    missing = tuple(key.line for key in keys if (key.kind, key.blob) not in present)
    if missing:
        yield Action(
            verb="trust",
            subject=f"{_count(missing)} for {user}",
            cause=f"not in {state.keys_file.replace('%h', '~')}",
            undo=KEPT,
            keys=missing,
        )


def _keys_to_drop(
    spec: OperatorSpec, keys: Sequence[PublicKey], state: HostAccess
) -> Iterator[Action]:
    if not spec.exclusive_keys:
        return
    wanted = {(key.kind, key.blob) for key in keys}
    strange = tuple(line for key, line in held(state.keys).items() if key not in wanted)
    if strange:
        yield Action(
            verb="drop",
            subject=f"{_count(strange)} of {spec.user}",
            cause="not among public_keys, and exclusive_keys is set",
            destructive=True,
            undo=KEPT,
            keys=strange,
        )


def _sshd(spec: OperatorSpec, state: HostAccess) -> Iterator[Action]:
    if spec.password_login is None or state.sshd is None:
        return
    word = "on" if spec.password_login else "off"
    if state.armed:
        cause = "a change of it was not proven, and is about to be taken back"
    elif state.sshd.passwords is not spec.password_login:
        cause = f"sshd {'takes no' if spec.password_login else 'takes'} passwords"
    else:
        return
    yield Action(
        verb="set",
        subject=f"login by password: {word}",
        cause=cause,
        undo="rm /etc/ssh/sshd_config.d/00-stackmend.conf, and reload sshd",
    )


def _shut_out(spec: OperatorSpec, state: HostAccess) -> Iterator[Refusal]:
    if state.sshd is None or state.sshd.problem:
        return
    for reason in obstacles(spec.user, state.account, state.sshd, state.keys_file, state.address):
        yield Refusal(
            subject=f"user {spec.user}",
            reason=f"sshd would not let {spec.user} in: {reason}",
            remedy="change that in the host's sshd configuration, or name another user in "
            'stack["access"]["user"]',
        )


def _unsafe(state: HostAccess) -> Iterator[Refusal]:
    assert state.sshd is not None, "a setting is planned for one that is there"
    if state.sshd.problem:
        yield Refusal(
            subject="sshd",
            reason=f"its configuration is broken already, a reload would end it: "
            f"{state.sshd.problem}",
            remedy="mend it, until sshd -t says nothing",
        )
    elif methods := needs_password(state.sshd):
        yield Refusal(
            subject="sshd",
            reason=f"AuthenticationMethods {methods} asks for a password as well",
            remedy="let publickey alone be enough there, or leave password_login out",
        )


def _broken(state: HostAccess) -> Iterator[Finding]:
    if state.sshd is not None and state.sshd.problem:
        yield Finding(
            subject="sshd",
            kind="broken configuration",
            cause="it would not start again with what lies on the disk",
            evidence=(state.sshd.problem,),
            blocks=False,
        )


def _not_installable(state: HostAccess, actions: Sequence[Action]) -> Iterator[Refusal]:
    if any(action.verb == "install" for action in actions) and not state.installer:
        yield Refusal(
            subject="sudo",
            reason="it is not there, and no package manager that is known",
            remedy='install it by hand, or set stack["access"]["sudo"] = False',
        )


def _not_provable(spec: OperatorSpec) -> Refusal:
    return Refusal(
        subject=f"user {spec.user}",
        reason="this machine has no private key that belongs to public_keys, so the login cannot "
        "be tried, and what may lock everyone out is not done",
        remedy="run this where the key is, load it into an agent, or name it with ssh_key",
    )


def _not_root() -> Refusal:
    return Refusal(
        subject="host",
        reason="neither root nor allowed to become root",
        remedy="set _sudo = True in the host's data, or log in as root",
    )


def _count(lines: Sequence[str]) -> str:
    return "1 key" if len(lines) == 1 else f"{len(lines)} keys"
