"""A new machine, from nothing but sshd to what site.py runs on.

pyinfra INVENTORY deploy/bootstrap.py
"""

from pyinfra import host

from stackmend import access, compose, engine
from stackmend.spec import Stack, parse_machine

desired = parse_machine(host.data.dict())  # type: ignore[no-untyped-call]
published = compose.find_published_ports(desired) if isinstance(desired, Stack) else ()

# What all of them ask of the host is read at once, by the first.
if desired is not None and desired.engine is not None:
    engine.prefetch(desired.engine)

if desired is not None and desired.access is not None:
    ports = published if desired.access.ports is None else tuple(map(str, desired.access.ports))
    access.prefetch(desired.access, ports)
    access.operator(
        name=f"{desired.access.user} comes in by key, and may do what is needed",
        **access.get_arguments(desired.access),
    )
    access.basics(
        name="The clock is right, and the ports of the stack are kept for it",
        ports=ports,
        clock=desired.access.clock,
        security_updates=desired.access.security_updates,
    )

if desired is not None and desired.engine is not None:
    engine.apply_policy(desired.engine)
