"""A deploy file of the tests: ``access.basics`` and ``engine.accelerated`` as the data says."""

from pyinfra import host

from stackmend import access, engine

if host.data.get("basics") is not None:
    access.basics(name="The basics are in order", **host.data.basics)

if host.data.get("accelerated") is not None:
    engine.accelerated(name="Containers reach the accelerators", **host.data.accelerated)
