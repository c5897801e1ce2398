"""Everything a host should be, in order: ``pyinfra INVENTORY deploy/site.py``."""

from pyinfra import host

from ops import compose
from ops.spec import check

stack = check(host.data.dict())  # type: ignore[no-untyped-call]

if stack is not None:
    compose.stack(
        name=f"Compose project {stack.project} is as declared, and well",
        **compose.arguments(stack),
    )
