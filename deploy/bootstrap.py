"""A new machine, from nothing but sshd to what site.py runs on.

pyinfra INVENTORY deploy/bootstrap.py
"""

from pyinfra import host

from stackmend import access, compose, engine, reporting, resolver
from stackmend.spec import Stack, parse_machine

desired = parse_machine(host.data.dict())  # type: ignore[no-untyped-call]
ports = compose.find_published_ports(desired) if isinstance(desired, Stack) else ()
if desired is not None and desired.access is not None and desired.access.ports is not None:
    ports = tuple(map(str, desired.access.ports))

# What all of them ask of the host is read at once, by the first.
if desired is not None and desired.engine is not None:
    engine.prefetch(desired.engine)
if desired is not None and desired.resolver is not None:
    resolver.prefetch(desired.resolver)

if desired is not None and desired.access is not None:
    access.prefetch(desired.access, ports)
    access.operator(
        name=f"{desired.access.user} comes in by key, and may do what is needed",
        **access.get_arguments(desired.access),
    )

# Before anything is installed: that asks for names.
if desired is not None and desired.resolver is not None:
    resolver.apply_policy(desired.resolver)

if desired is not None and desired.access is not None:
    access.basics(
        name="The clock is right, and the ports of the stack are kept for it",
        ports=ports,
        clock=desired.access.clock,
        security_updates=desired.access.security_updates,
    )

if desired is not None and desired.engine is not None:
    engine.apply_policy(desired.engine)

reporting.end_deploy(host)
