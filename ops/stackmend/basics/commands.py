"""From an action to the command that does it: the only place where values are quoted."""

from pyinfra.api import StringCommand

from stackmend.basics.plan import Install, SetUpdates, Start
from stackmend.basics.state import HostBasics
from stackmend.connection import script
from stackmend.paths import STATE_ROOT

#: Seconds that a command has which may fetch packages.
LIMIT = 1800

#: Where the files are kept that were there before ours.
KEPT = f"{STATE_ROOT}/access"


def command(action: Install | Start | SetUpdates, state: HostBasics) -> StringCommand:
    """What executes an action; ports are reserved by their own room."""
    match action:
        case Install():
            packages, units = " ".join(action.packages), " ".join(action.units)
            return _build_script("install", state.manager, state.init, packages, units)
        case Start():
            return _build_script("install", state.manager, state.init, "", " ".join(action.units))
        case SetUpdates():
            return _build_script("updates", state.manager, KEPT)


def _build_script(name: str, *arguments: str) -> StringCommand:
    return script("stackmend.basics", name, *arguments, shared=["walk", "put"])
