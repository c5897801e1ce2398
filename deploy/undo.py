"""Bring back what a run changed: ``pyinfra INVENTORY deploy/undo.py --data undo=RECORD``."""

from collections.abc import Callable
from typing import Any

from pyinfra import host

from stackmend import engine, ports, reporting, undo

found = undo.find(host)

restore: dict[str, Callable[..., Any]] = {"ports": ports.restored, "engine": engine.restored}

# What cannot be brought back keeps nothing else from it: the last operation fails the host.
operations = [
    undo.listed(name="What is left to do by hand is listed", found=found, _ignore_errors=True)
]
# On one line: pyinfra runs operations in the order of their lines.
for step in host.loop(found.steps):  # type: ignore[no-untyped-call]
    operations.append(
        restore[step.room](name=f"Taken back: {step.what}", _ignore_errors=True, **step.arguments)
    )

undo.completed(name="All of it is as it was", operations=operations)

reporting.end_deploy(host)
