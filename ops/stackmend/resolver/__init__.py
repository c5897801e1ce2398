"""The resolver of a host: which DNS servers it asks, and what its caches hold."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend import connection
from stackmend.raw import validate
from stackmend.reconcile import operate
from stackmend.resolver.spec import CHECK_NAMES, CachesSpec, ResolverPolicy, ServersSpec

if TYPE_CHECKING:
    from stackmend.reconcile import Reconciler
    from stackmend.reporting import Collector

__all__ = ["apply_policy", "cache_flushed", "prefetch", "servers"]

# Every run imports this; what observes and acts is loaded where it is used.


@operation()
def servers(
    servers: Sequence[str] | str,
    search: Sequence[str] | str = (),
    check_names: Sequence[str] | str = CHECK_NAMES,
    on_conflict: Literal["refuse", "force"] = "refuse",
    revert_after: int = 120,
) -> Generator[FunctionCommand, None, None]:
    """
    Have the host ask these DNS servers, for good, through whatever owns its resolver.

    + servers: their addresses, 3 at most, in the order in which they are asked
    + search: domains behind which short names are looked up; empty leaves them as they are
    + check_names: names that each server has to answer before anything changes, and that the host
      has to resolve afterwards; name an internal one as well, where there is one
    + on_conflict: ``force`` changes an immutable or append-only file (and makes it so again), and
      changes servers where a VPN or a routing domain has its own
    + revert_after: seconds after which the host reverts a change that no run has confirmed

    The owner is found, and takes the servers in its own way: systemd-resolved (a drop-in),
    systemd-networkd and netplan (a drop-in of the link's ``.network``), NetworkManager (the
    settings of its connections), openresolv and resolvconf, dhclient (a hook) and dhcpcd, WSL2, a
    file that is mounted, or a plain one. Links of a VPN, and links with routing domains, keep
    their servers. What the owner says already is no change; that the host resolves every check
    name is looked at in any case, and where it does not, the operation fails and says by which
    server.

    Each server is asked by the host itself before anything changes. The revert is armed before
    the first write, and disarmed from a new connection once the servers answer and the host
    resolves every check name. What was there before, links and modes too, stays in
    ``/var/lib/stackmend/resolver/kept``.

    systemd-resolved, where it owns the resolver, is enabled: it starts with the host from then on.

    Refused, which fails the operation on this host alone and changes nothing: a server that is
    silent, that does not resolve a check name, or that invents answers; and, unless forced, an
    immutable file, the routing domain ``~.`` of another link's servers (also where the servers are
    set already), and a VPN whose server stands in the one list that all names share. Forced or not:
    a link whose servers something sets at run time; and a file that cannot be written as it is: a
    directory, a FIFO, a link astray, more than 64 KiB, bytes that are no UTF-8, a read-only mount.

    **Example:**

    .. code:: python

        from stackmend import resolver

        resolver.servers(
            name="Names come from our own servers",
            servers=["192.0.2.53", "192.0.2.54"],
            check_names=["registry-1.docker.io", "git.example.com"],
        )
    """
    raw = {
        "servers": servers,
        "search": search,
        "check_names": check_names,
        "on_conflict": on_conflict,
        "revert_after": revert_after,
    }

    def build(report: Collector) -> Reconciler[Any, Any]:
        from stackmend.resolver.reconciler import ServersReconciler

        return ServersReconciler(host, validate(ServersSpec, raw), report)

    yield from operate(
        host, "resolver.servers", build, converged="the host already asks these DNS servers"
    )


@operation()
def cache_flushed(
    when: Literal["symptom", "always"] = "symptom",
    check_names: Sequence[str] | str = CHECK_NAMES,
) -> Generator[FunctionCommand, None, None]:
    """
    Flush the DNS caches of the host that hold what is true no more.

    + when: ``symptom`` flushes a cache whose answer for a check name differs from that of the
      servers behind it; ``always`` flushes each that holds something, or does not say whether
    + check_names: the names to compare

    Knows systemd-resolved, dnsmasq, unbound and nscd; from within WSL2 that of Windows, and that of
    macOS, which are flushed with ``always`` alone, since they cannot be compared. An answer is
    stale where it has none of the addresses that the servers give. A name in the hosts file, or
    below a domain that is routed to a link, is not compared. A change only where something was
    flushed. Where the servers behind a cache are silent or fail for every name, nothing can be told
    of it, and the operation fails unless the cache itself answers every name, as over TLS; a cache
    whose settings name no servers is only told.

    **Example:**

    .. code:: python

        from stackmend import resolver

        resolver.cache_flushed(name="No cache holds what is true no more")
    """
    raw = {"when": when, "check_names": check_names}

    def build(report: Collector) -> Reconciler[Any, Any]:
        from stackmend.resolver.reconciler import CachesReconciler

        return CachesReconciler(host, validate(CachesSpec, raw), report)

    yield from operate(
        host, "resolver.cache_flushed", build, converged="no cache holds what is true no more"
    )


def prefetch(policy: ResolverPolicy) -> None:
    """Let the next reading of any fact of the host bring what the operations here need.

    :param policy: the section of the stack.
    """
    from stackmend.resolver.facts import Caches, Resolver

    if policy.servers is not None:
        connection.prefetch(host, Resolver, names=policy.check_names)
    if policy.flush != "never":
        connection.prefetch(host, Caches, names=policy.check_names)


def apply_policy(policy: ResolverPolicy) -> None:
    """Call the operations that a section of the stack asks for, in their order.

    :param policy: the section.
    """
    if policy.servers is not None:
        servers(
            name="The host asks the DNS servers of the spec",
            **policy.model_dump(exclude={"flush"}),
        )
    if policy.flush != "never":
        cache_flushed(
            name="No DNS cache holds what is true no more",
            when=policy.flush,
            check_names=policy.check_names,
        )
