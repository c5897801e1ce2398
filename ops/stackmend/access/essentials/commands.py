"""From an action to the command that does it: the only place where values are quoted."""

from pyinfra.api import StringCommand

from stackmend.access.essentials.plan import Action
from stackmend.access.essentials.state import HostBasics
from stackmend.connection import script
from stackmend.paths import STATE_ROOT

#: The file whose lock says that somebody brings this host's basics in order.
LOCK = f"{STATE_ROOT}/access/basics.lock"

#: Seconds that a command has which may fetch packages.
LIMIT = 1800

#: Where the files are kept that were there before ours.
KEPT = f"{STATE_ROOT}/access"


def command(action: Action, state: HostBasics) -> StringCommand:
    """What carries a step out; ports are reserved by their own room.

    :raises ValueError: that step is another room's.
    """
    match action.verb:
        case "install":
            packages, units = " ".join(action.packages), " ".join(action.units)
            return _script("install", state.manager, state.init, packages, units)
        case "start":
            return _script("install", state.manager, state.init, "", " ".join(action.units))
        case "set":
            return _script("updates", state.manager, KEPT)
    raise ValueError(f"{action.verb} is not done here")


def _script(name: str, *arguments: str) -> StringCommand:
    return script("stackmend.access.essentials", name, *arguments, shared=["walk", "put"])
