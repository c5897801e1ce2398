"""A new machine, from nothing but sshd to what site.py runs on.

pyinfra INVENTORY deploy/bootstrap.py
"""

from pyinfra import host

from stackmend import access, compose, engine
from stackmend.spec import Stack, machine

wanted = machine(host.data.dict())  # type: ignore[no-untyped-call]
published = compose.find_published_ports(wanted) if isinstance(wanted, Stack) else ()

# What all of them ask of the host is read at once, by the first.
if wanted is not None and wanted.engine is not None:
    engine.prefetch(wanted.engine)

if wanted is not None and wanted.access is not None:
    ports = published if wanted.access.ports is None else tuple(map(str, wanted.access.ports))
    access.prefetch(wanted.access, ports)
    access.operator(
        name=f"{wanted.access.user} comes in by key, and may do what is needed",
        **access.arguments(wanted.access),
    )
    access.basics(
        name="The clock is right, and the ports of the stack are kept for it",
        ports=ports,
        clock=wanted.access.clock,
        security_updates=wanted.access.security_updates,
    )

if wanted is not None and wanted.engine is not None:
    engine.apply_policy(wanted.engine)
