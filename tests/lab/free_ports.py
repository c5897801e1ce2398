"""A deploy file of these tests: ``ports.free`` and ``ports.restored`` as the inventory says."""

from pyinfra import host

from stackmend import ports

data = host.data.dict()  # type: ignore[no-untyped-call]

if "free" in data:
    ports.free(name="The ports are free", **data["free"])

for record in data.get("restore", ()):
    ports.restored(name=f"What {record} ended is back", record=record)
