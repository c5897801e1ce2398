"""Keep every host as it should be, again and again: what the schedule runs."""

from pyinfra import host, local

from stackmend import reconcile
from stackmend.spec import parse_machine

desired = parse_machine(host.data.dict())  # type: ignore[no-untyped-call]
reconcile.run_unattended(host, desired.reconcile if desired is not None else None)

local.include("./site.py")
