"""A deploy that moves a legacy worker, without what ``deploy/site.py`` does before that."""

from pyinfra import host

from stackmend import compose, worker
from stackmend.spec import Stack, parse_machine

stack = parse_machine(host.data.dict())  # type: ignore[no-untyped-call]
assert isinstance(stack, Stack)
assert stack.worker is not None
assert stack.worker.engine is not None
worker.engine(**worker.get_move_arguments(stack.worker.engine), **compose.get_arguments(stack))
