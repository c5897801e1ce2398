"""A deploy file of these tests: ``ports.free`` and ``ports.restored`` as the inventory says."""

from pyinfra import host

from stackmend import ports

given = host.data.dict()  # type: ignore[no-untyped-call]

if "free" in given:
    ports.free(name="The ports are free", **given["free"])

for record in given.get("restore", ()):
    ports.restored(name=f"What {record} ended is back", record=record)
