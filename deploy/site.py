"""Everything a host should be, in order: ``pyinfra INVENTORY deploy/site.py``."""

from functools import partial

from pyinfra import host

from ops import compose, models, ports
from ops.ports.spec import PortsPolicy
from ops.spec import check

stack = check(host.data.dict())  # type: ignore[no-untyped-call]

if stack is not None and stack.models is not None:
    models.expect(stack.models, stack.project)

if stack is not None and stack.ports is not None:
    ports.free(
        name=f"The ports that {stack.project} needs can be bound",
        ports=partial(compose.unpublished, stack),
        project=stack.project,
        directory=stack.directory,
        **stack.ports.model_dump(),
    )

if stack is not None:
    compose.stack(
        name=f"Compose project {stack.project} is as declared, and well",
        on_bind_error=ports.remedy(stack.ports or PortsPolicy(), stack.project, stack.directory),
        **compose.arguments(stack),
    )

if stack is not None and stack.models is not None:
    models.pulled(
        name=f"The models that {stack.project} needs are on its server",
        project=stack.project,
        directory=stack.directory,
        **models.arguments(stack.models),
    )
