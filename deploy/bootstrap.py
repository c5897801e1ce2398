"""A new machine, from nothing but sshd to what site.py can run on.

pyinfra INVENTORY deploy/bootstrap.py
"""

from pyinfra import host

from ops import access, compose, engine
from ops.spec import Stack, machine

wanted = machine(host.data.dict())  # type: ignore[no-untyped-call]
published = compose.published(wanted) if isinstance(wanted, Stack) else ()

# What all of them ask of the host is read at once, by the first.
if wanted is not None and wanted.access is not None:
    ports = published if wanted.access.ports is None else tuple(map(str, wanted.access.ports))
    access.expect(wanted.access, ports)

if wanted is not None and wanted.engine is not None:
    engine.expect(wanted.engine)

if wanted is not None and wanted.access is not None:
    access.operator(
        name=f"{wanted.access.user} comes in by key, with what it needs",
        **access.arguments(wanted.access),
    )
    access.basics(
        name="The clock is right, and the ports of the stack are kept for it",
        ports=ports,
        clock=wanted.access.clock,
        security_updates=wanted.access.security_updates,
    )

if wanted is not None and wanted.engine is not None:
    engine.installed(
        name="Docker Engine and Compose are there, and answer",
        **engine.installation(wanted.engine),
    )
    engine.settings(
        name="The engine has the settings that are wanted",
        **engine.daemon(wanted.engine),
    )
    engine.accelerated(
        name="Containers reach the accelerators of the host",
        **engine.acceleration(wanted.engine),
    )
