"""Access: who logs in to a host and how, and the basics a host needs before a stack."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend import basics as host_basics
from stackmend import connection
from stackmend.access.keys import read_public_keys
from stackmend.access.spec import AccessPolicy, OperatorSpec
from stackmend.basics import BasicsSpec
from stackmend.raw import validate
from stackmend.reconcile import operate

if TYPE_CHECKING:
    from stackmend.access.reconciler import OperatorReconciler
    from stackmend.reporting import Collector

__all__ = ["basics", "get_arguments", "operator", "prefetch"]

# Every run imports this; what observes and acts is loaded where it is used.


@operation()
def operator(
    user: str,
    public_keys: Sequence[str] | str,
    exclusive_keys: bool = False,
    sudo: bool = True,
    password_login: bool | None = None,
) -> Generator[FunctionCommand, None, None]:
    """
    Let a user log in to the host by its keys, with sudo, and prove it by a new login.

    + user: its name; stackmend makes it, with a home and no password, where it does not exist
    + public_keys: keys as text, or paths of ``*.pub`` files on this machine; added to those that
      the user has
    + exclusive_keys: drop every other key of the user's, once a login by one of these works
    + sudo: let the user become root without a password, by a rule that ``visudo`` checks first;
      installs sudo where it is missing
    + password_login: ``False`` has sshd accept no passwords, ``True`` has it accept them, ``None``
      leaves it as it is

    A change of sshd goes to ``/etc/ssh/sshd_config.d/00-stackmend.conf``, after a login as the user
    works. A revert within two minutes is armed first; ``sshd -t`` accepts the change before sshd is
    reloaded; only a new login as the user disarms the revert. The version before of each changed
    file stays in ``/var/lib/stackmend/access/kept``.

    Refused, which fails the operation on this host alone and changes nothing: a user whom sshd's
    settings (AllowUsers, DenyUsers, their groups, Match, AuthorizedKeysFile) would shut out; and,
    where the change takes passwords or keys away, an sshd whose configuration is broken, and a
    login that stackmend cannot try because this machine has none of the private keys.

    **Example:**

    .. code:: python

        from stackmend import access

        access.operator(
            name="ops logs in by key, and nobody by password",
            user="ops",
            public_keys=["~/.ssh/id_ed25519.pub"],
            password_login=False,
        )
    """
    from stackmend.access.reconciler import OperatorReconciler

    options = {
        "user": user,
        "public_keys": public_keys,
        "exclusive_keys": exclusive_keys,
        "sudo": sudo,
        "password_login": password_login,
    }

    def build(report: Collector) -> OperatorReconciler:
        spec = validate(OperatorSpec, options)
        return OperatorReconciler(host, spec, read_public_keys(spec.public_keys), report)

    yield from operate(
        host, "access.operator", build, converged="the user already logs in as the spec says"
    )


@operation()
def basics(
    ports: Iterable[Any] | str | int = (),
    clock: bool = True,
    security_updates: bool = False,
) -> Generator[FunctionCommand, None, None]:
    """
    Have what a stack needs of its host: a right clock, reserved ports, security updates.

    + ports: the ports that services of the host are to be bound to, as ``ports.free`` takes them:
      those among them that the kernel may give to outgoing connections are kept from it, for good
    + clock: whether the clock is to be kept right
    + security_updates: whether the host is to install the distribution's security updates by itself

    stackmend measures the clock against this machine's: 2 seconds or more are a finding; from a
    minute on the operation fails on this host alone. Where nothing keeps the clock right, it starts
    an installed service, or else installs systemd-timesyncd (apt) or chrony (dnf, apk); it never
    sets the clock itself. A host that is a container has the clock of the machine it is on:
    stackmend only measures it.

    It adds ports to those that the kernel reserves already, and stops nothing that holds one
    (``ports.free`` does that). Security updates come by unattended-upgrades (apt) or dnf-automatic
    (dnf) with what the distribution sets, once a day. A unit that somebody masked is a refusal.

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
        converged="the clock, the ports and the updates are already as the spec says",
    )


def prefetch(policy: AccessPolicy, ports: Iterable[Any] = ()) -> None:
    """Let the next reading of any fact of the host bring what the operations here need.

    :param policy: the section of the stack.
    :param ports: those of :func:`basics`.
    """
    from stackmend.access.facts import Operator

    connection.prefetch(host, Operator, user=policy.user)
    spec = validate(
        BasicsSpec,
        {"ports": ports, "clock": policy.clock, "security_updates": policy.security_updates},
    )
    host_basics.prefetch(host, spec)


def get_arguments(policy: AccessPolicy) -> dict[str, Any]:
    """The arguments of :func:`operator` for a section of the stack."""
    return policy.model_dump(include=set(OperatorSpec.model_fields))
