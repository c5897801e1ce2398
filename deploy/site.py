"""Everything a host should be, in order: ``pyinfra INVENTORY deploy/site.py``."""

from functools import partial

from pyinfra import host

from stackmend import (
    compose,
    connectivity,
    engine,
    models,
    ports,
    reporting,
    resolver,
    schedule,
    worker,
)
from stackmend.ports.spec import PortsPolicy
from stackmend.spec import Stack, parse_machine

desired = parse_machine(host.data.dict())  # type: ignore[no-untyped-call]
stack = desired if isinstance(desired, Stack) else None

# What all of them ask of the host is read at once, by the first.
if stack is not None and stack.models is not None:
    models.prefetch(stack.models, stack.project)
if stack is not None and stack.worker is not None:
    worker.prefetch(stack.worker, stack.project)
if desired is not None and desired.engine is not None:
    engine.prefetch(desired.engine)
if desired is not None and desired.resolver is not None:
    resolver.prefetch(desired.resolver)
if stack is not None and (stack.engine is not None or stack.resolver is not None):
    compose.prefetch(stack)

# Before anything is installed or pulled: both ask for names.
if desired is not None and desired.resolver is not None:
    resolver.apply_policy(desired.resolver)

if desired is not None and desired.engine is not None:
    engine.apply_policy(desired.engine)

if stack is not None and stack.connectivity is not None:
    images, remotes = compose.find_outside(stack)
    connectivity.checked(
        name=f"What {stack.project} needs from outside is looked at",
        project=stack.project,
        **connectivity.get_arguments(
            stack.connectivity,
            images=images,
            remotes=remotes,
            registries=models.find_registries(stack.models) if stack.models else (),
        ),
    )

if stack is not None and stack.ports is not None:
    ports.free(
        name=f"The ports that {stack.project} needs can be bound",
        ports=partial(compose.find_unpublished_ports, stack),
        project=stack.project,
        directory=stack.directory,
        **stack.ports.model_dump(),
    )

if stack is not None:
    compose.stack(
        name=f"Compose project {stack.project} is as declared and healthy",
        on_bind_error=ports.make_remedy(
            stack.ports or PortsPolicy(), stack.project, stack.directory
        ),
        **compose.get_arguments(stack),
    )

# Before the models: it may add the server that they are pulled to.
if stack is not None and stack.worker is not None and stack.worker.engine is not None:
    worker.engine(
        name=f"The worker of {stack.project} runs on the faster engine",
        **worker.get_move_arguments(stack.worker.engine),
        **compose.get_arguments(stack),
    )

if stack is not None and stack.models is not None:
    models.pulled(
        name=f"The models that {stack.project} needs are on its server",
        project=stack.project,
        directory=stack.directory,
        **models.get_arguments(stack.models),
    )

if stack is not None and stack.worker is not None and stack.worker.accelerated is not None:
    worker.accelerated(
        name=f"The model server of {stack.project} computes with what the host has",
        project=stack.project,
        **worker.get_acceleration_arguments(stack.worker.accelerated),
    )

# Last: a host that is to mend itself begins with what is proven.
if desired is not None and desired.schedule is not None:
    schedule.timer(
        name="stackmend runs by itself, as its schedule says",
        settings=desired,
        **schedule.get_arguments(desired.schedule),
    )

reporting.end_deploy(host)
