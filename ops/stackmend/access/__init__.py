"""Access: who comes into a host, how, and what a host needs before it carries anything."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend import basics as host_basics
from stackmend import connection, reporting
from stackmend.access.keys import public_keys as read_keys
from stackmend.access.spec import AccessPolicy, OperatorSpec
from stackmend.basics import BasicsSpec
from stackmend.problems import in_one_line
from stackmend.raw import validate
from stackmend.reconcile import invalid, operate

__all__ = ["arguments", "basics", "operator", "prefetch"]

# Every run reads what a stack may want; what looks and acts is loaded where it is used.


@operation()
def operator(
    user: str,
    public_keys: Sequence[str] | str,
    exclusive_keys: bool = False,
    sudo: bool = True,
    password_login: bool | None = None,
) -> Generator[FunctionCommand, None, None]:
    """
    Let a user into the host by its keys, with sudo, and prove it by a fresh login.

    + user: its name; made with a home and no password where there is none of that name
    + public_keys: keys as text, or paths of ``*.pub`` files on this machine; added to those that
      the user has
    + exclusive_keys: take every other key of the user's away, once a login by one of these is
      proven
    + sudo: let the user become root without a password, by a rule that ``visudo`` has checked
      before it is in place; installs sudo where it is missing
    + password_login: ``False`` has sshd take no password from anyone, ``True`` has it take them,
      ``None`` leaves it as it is

    A change of sshd's is made in ``/etc/ssh/sshd_config.d/00-stackmend.conf``, after a login as the
    user was proven. What takes it back by itself within two minutes is armed first; ``sshd -t`` has
    to say yes before sshd is reloaded; only a fresh login as the user disarms it. Every file that
    is changed is kept in ``/var/lib/stackmend/access/kept``.

    Refused, which fails the operation on this host alone and changes nothing: a user whom sshd's
    settings (AllowUsers, DenyUsers, their groups, Match, AuthorizedKeysFile) would shut out; and,
    where passwords or keys are to be taken away, an sshd whose configuration is broken, and a
    login that cannot be tried because this machine has none of the private keys.

    **Example:**

    .. code:: python

        from stackmend import access

        access.operator(
            name="ops comes in by key, and nobody by password",
            user="ops",
            public_keys=["~/.ssh/id_ed25519.pub"],
            password_login=False,
        )
    """
    from stackmend.access.apply import Admitting

    report = reporting.record(host, "access.operator")
    try:
        spec = validate(
            OperatorSpec,
            {
                "user": user,
                "public_keys": public_keys,
                "exclusive_keys": exclusive_keys,
                "sudo": sudo,
                "password_login": password_login,
            },
        )
        work = Admitting(host, spec, read_keys(spec.public_keys), report)
    except ValueError as error:
        yield from invalid(host, "access.operator", in_one_line(error))
        return
    try:
        if work.is_well():
            host.noop(f"{spec.user} already comes in as wanted")
            return
        yield FunctionCommand(work.converge, (), {})
    finally:
        report.measured("channels", connection.channels(host), "channels")


@operation()
def basics(
    ports: Iterable[Any] | str | int = (),
    clock: bool = True,
    security_updates: bool = False,
) -> Generator[FunctionCommand, None, None]:
    """
    Have what a stack needs of its host: a right clock, its ports kept, security updates.

    + ports: the ports that services of the host are to be bound to, as ``ports.free`` takes them:
      those among them that the kernel may give to outgoing connections are kept from it, for good
    + clock: whether the clock is to be kept right
    + security_updates: whether the host is to install the distribution's security updates by itself

    The clock is measured against this machine's, and told where it is 2 seconds or more away; from
    a minute on the operation fails on this host alone. Where nothing keeps the clock right, a
    service that is installed is started, or else systemd-timesyncd (apt) or chrony (dnf, apk) is
    installed; the clock itself is never set from here. A host that is a container has the clock of
    the machine it is on, and is only measured.

    Ports are added to those that the kernel keeps already; nothing that holds one is ended
    (``ports.free`` does that). Security updates come by unattended-upgrades (apt) or dnf-automatic
    (dnf) with what the distribution sets, once a day. A unit that somebody masked is refused, and
    nothing is done about it.

    **Example:**

    .. code:: python

        from stackmend import access

        access.basics(
            name="The clock is right, and the stack's port is kept",
            ports=["127.0.0.1:40000"],
            security_updates=True,
        )
    """
    raw = {"ports": ports, "clock": clock, "security_updates": security_updates}
    yield from operate(
        host,
        "access.basics",
        lambda report: host_basics.make_reconciler(host, validate(BasicsSpec, raw), report),
        converged="the clock, the ports and the updates are already as wanted",
    )


def prefetch(policy: AccessPolicy, ports: Iterable[Any] = ()) -> None:
    """Say what will be asked of the host that pyinfra is at, so that one reading answers all.

    :param policy: the section of the stack.
    :param ports: what :func:`basics` will be given.
    """
    from stackmend.access.facts import Operator

    connection.prefetch(host, Operator, user=policy.user)
    wanted = validate(
        BasicsSpec,
        {"ports": ports, "clock": policy.clock, "security_updates": policy.security_updates},
    )
    host_basics.prefetch(host, wanted)


def arguments(policy: AccessPolicy) -> dict[str, Any]:
    """The arguments of :func:`operator` for a section of the stack."""
    return policy.model_dump(include=set(OperatorSpec.model_fields))
