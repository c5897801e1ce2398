"""A connection that breaks off while it is made is made again, a few times, before a host fails.

An sshd with as many logins under way as it allows (``MaxStartups``) takes a connection and ends it
before the two sides agree on keys. Nobody has logged in by then, so that trying again costs no
attempt at a login. Whatever else fails is not repeated for this reason: a login, a host's key, a
refused connection, a host without a route or a name, an sshd that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import tenacity
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector

from .link import BANNER_UNREAD, BrokenOff

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Attempts at one connection, the first one among them.
ATTEMPTS = 6

#: Seconds: the first pause, the longest, and what is added to each by chance, since all the hosts
#: behind one sshd would come back together.
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 0.25, 4.0, 1.0

#: Seconds after which no further attempt begins, where pyinfra's configuration sets no limit.
LIMIT = 10.0

REMEDY = (
    "see on the host what ends connections (journalctl -u ssh; MaxStartups, PerSourcePenalties, "
    "fail2ban), or connect to fewer hosts at once (--parallel)"
)


def add_attempts(hosts: Iterable[Host]) -> None:
    """Makes connections to hosts that break off while they are made be tried again.

    No further attempt begins once pyinfra's ``CONNECT_TIMEOUT`` is over, counted from the first.

    :param hosts: the hosts; those not reached by ``@ssh`` are left alone.

    Example:
        >>> add_attempts(state.inventory)
        >>> connect_all(state)
    """
    for host in hosts:
        connector = host.connector
        if isinstance(connector, SSHConnector):
            limit = connector.state.config.CONNECT_TIMEOUT or LIMIT
            vars(connector)["connect"] = partial(connect, connector.connect, limit)


def connect(attempt: Callable[[], None], limit: float) -> None:
    """Attempts a connection until it is made, fails for another reason, or the limit is reached.

    :param attempt: connects as pyinfra does.
    :param limit: seconds after which no further attempt begins.
    :raises ConnectError: of the last attempt; says how often a connection was tried that broke off.
    """
    tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_broken_off),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(ATTEMPTS), tenacity.stop_before_delay(limit)
        ),
        wait=tenacity.wait_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)
        + tenacity.wait_random(0, JITTER),
        retry_error_callback=_fail,
    )(attempt)


def is_broken_off(error: BaseException) -> bool:
    """Whether a connection ended before the two sides agreed on keys.

    :param error: what pyinfra's connector raises; it holds what paramiko raised.
    """
    cause = error.__context__
    # A jump host's connection is pyinfra's own, and has no transport of ours.
    return isinstance(error, ConnectError) and (
        isinstance(cause, BrokenOff) or str(cause).startswith(BANNER_UNREAD)
    )


def _fail(call: tenacity.RetryCallState) -> None:
    assert call.outcome is not None, "an attempt was made"
    error = call.outcome.exception()
    times = "once" if call.attempt_number == 1 else f"{call.attempt_number} times"
    seconds = call.seconds_since_start or 0.0
    raise ConnectError(
        f"{error}; tried {times} within {seconds:.0f} s; remedy: {REMEDY}"
    ) from error
