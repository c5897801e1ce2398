"""Bring back what a run changed: ``pyinfra INVENTORY deploy/undo.py --data undo=RECORD``."""

from collections.abc import Callable
from typing import Any

from pyinfra import host

from stackmend import engine, ports, reporting, undo

found = undo.find(host)

restore: dict[str, Callable[..., Any]] = {"ports": ports.restored, "engine": engine.restored}

# On one line: pyinfra runs operations in the order of their lines.
for step in host.loop(found.steps):  # type: ignore[no-untyped-call]
    restore[step.room](name=f"Taken back: {step.what}", **step.arguments)

if found.left:
    undo.listed(name="What is left to do by hand is listed", left=found.left)

reporting.end_deploy(host)
