"""What is wrong with hosts, and why: ``pyinfra INVENTORY deploy/doctor.py -y``. Changes nothing."""

from pyinfra import host, local

from stackmend import incidents, reconcile
from stackmend.spec import Stack, parse_machine

reconcile.observe_only(host)
desired = parse_machine(host.data.dict())  # type: ignore[no-untyped-call]
project = desired.project if isinstance(desired, Stack) else ""

if desired is not None:
    incidents.prefetch(project)

# Who comes in, and the clock: only what a new machine begins with asks for them.
if desired is not None and desired.access is not None:
    local.include("./bootstrap.py")

local.include("./site.py")

if desired is not None:
    incidents.diagnosed(
        name="What is wrong, and why",
        project=project,
        own=desired.incidents if isinstance(desired, Stack) else (),
        only=host.data.get("doctor_only"),
    )
