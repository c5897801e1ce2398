"""What is wrong with hosts, and why: ``pyinfra INVENTORY deploy/doctor.py -y``. Changes nothing."""

from pyinfra import host, local

from stackmend import incidents, models, reconcile
from stackmend.models.spec import ModelsPolicy
from stackmend.spec import Stack, parse_machine

reconcile.observe_only(host)
desired = parse_machine(host.data.dict())  # type: ignore[no-untyped-call]
stack = desired if isinstance(desired, Stack) else None
project = stack.project if stack is not None else ""

if desired is not None:
    incidents.prefetch(project)

# Without a section `models` none is pulled; one that the stack itself names is looked for anyway.
server = models.find_server(stack) if stack is not None and stack.models is None else None
if server is not None:
    models.prefetch(ModelsPolicy(service=server.service), project)

# Who comes in, and the clock: only what a new machine begins with asks for them.
if desired is not None and desired.access is not None:
    local.include("./bootstrap.py")

local.include("./site.py")

if stack is not None and server is not None:
    models.pulled(
        name=f"The models that {project} names are on its server",
        models=(),
        service=server.service,
        project=project,
        directory=stack.directory,
    )

if desired is not None:
    incidents.diagnosed(
        name="What is wrong, and why",
        project=project,
        own=stack.incidents if stack is not None else (),
        only=host.data.get("doctor_only"),
    )
