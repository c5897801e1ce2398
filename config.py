"""Read by pyinfra before the inventory: wrong settings end a run before any host is contacted."""

import atexit
import gc
import sys
from importlib.util import find_spec
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

# pyinfra forbids it for the files that it executes itself; without it every module of ours would be
# compiled again at every run.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

# At its end Python looks through every object for cycles to free, memory that the system takes back
# anyway: a fifth of the processor time of a run with nothing to do.
atexit.register(gc.freeze)

# pyinfra puts the working directory last on the import path: an installed package of the same
# name (Canonical's operator framework is an `ops` too) would be taken instead of ours.
_found = {name: getattr(find_spec(name), "origin", None) or "nowhere" for name in ("ops", "deploy")}
_together = len({Path(origin).parent.parent for origin in _found.values()}) == 1
if not _together or find_spec("ops.connection") is None:
    raise PyinfraError(
        "another package hides stackmend's: "
        + ", ".join(f"{name} is at {origin}" for name, origin in _found.items())
        + "; install stackmend into an environment of its own"
    )

from ops import reports  # noqa: E402 - only once it is known to be ours
from ops.access.reached import contact  # noqa: E402
from ops.compose.source import read_once  # noqa: E402
from ops.connection import preflight  # noqa: E402
from ops.spec import preflight as validate  # noqa: E402

read_once()
preflight.install(validate, contact)
# Last, so that it begins first: what is wrong with settings is said without their secrets.
reports.install()
