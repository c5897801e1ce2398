"""A deploy file of these tests: ``models.pulled`` as the inventory says, once for each mapping."""

from pyinfra import host

from stackmend import models

calls = host.data.dict()["pulled"]  # type: ignore[no-untyped-call]
for number, arguments in enumerate(calls, 1):
    models.pulled(
        name=f"The models are there, complete and current ({number})",
        # The last one's outcome is that of the run.
        _ignore_errors=number < len(calls),
        **arguments,
    )
