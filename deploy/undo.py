"""Bring back what a run changed: ``pyinfra INVENTORY deploy/undo.py --data undo=RECORD``."""

from pyinfra import host

from stackmend import engine, ports, reporting, undo

found = undo.find(host)

for step in found.steps:
    if step.room == "ports":
        ports.restored(name=f"Taken back: {step.what}", record=step.name)
    else:
        engine.restored(name=f"Taken back: {step.what}", copy=step.name)

if found.left:
    undo.listed(name="What is left to do by hand is listed", left=found.left)

reporting.end_deploy(host)
