"""What a run begins with: all settings are validated before contact, and its end is reported.

pyinfra loads every installed connector while it makes the inventory. The entry point ``stackmend``
names :class:`Startup`, so that a run begins with this wherever stackmend is installed, whether or
not a ``config.py`` stands in the working directory. Runs whose hosts have no ``stack`` are left
alone, and pay nothing but this import.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pyinfra.api.exceptions import InventoryError
from pyinfra.context import ctx_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra.api.inventory import Inventory
    from pyinfra.api.state import State

_started: WeakSet[State] = WeakSet()


class Startup:
    """What pyinfra takes for a connector; no host is reached by it."""

    handles_execution = False

    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """Refuse to be named in an inventory."""
        raise InventoryError("@stackmend reaches no host: name hosts as for pyinfra itself")


def install() -> None:
    """Validate the settings of all hosts before the first is contacted, and report this run.

    To be called from a ``config.py``, where stackmend is on the import path without being
    installed; does nothing where no run is starting, or this run has begun so already.

    **Example:**

    .. code:: python

        from stackmend import startup

        startup.install()
    """
    state = _get_starting()
    if state is None or state in _started:
        return
    _started.add(state)
    from stackmend import invocation, reporting
    from stackmend.access.contact import find_contact
    from stackmend.compose.source import read_once
    from stackmend.connection import preflight
    from stackmend.spec import check_settings as validate

    invocation.remember(state)
    _report_unreadable_files()
    _read_no_source_lines()
    _read_types_once()
    read_once()
    preflight.install(validate, find_contact)
    # Last, so that it begins first: problems of settings are reported without their secrets.
    reporting.install()


def _report_unreadable_files() -> None:
    """Report in one line where an inventory or group data is no Python or cannot be read.

    pyinfra catches only what such a file raises when it runs.
    """
    from pyinfra_cli import cli  # type: ignore[import-untyped]
    from pyinfra_cli.exceptions import CliError  # type: ignore[import-untyped]

    make_inventory = cli.make_inventory

    def make(*args: Any, **kwargs: Any) -> Any:
        try:
            return make_inventory(*args, **kwargs)
        except SyntaxError as error:
            raise CliError(f"{error.filename} line {error.lineno}: {error.msg}") from None
        except UnicodeDecodeError as error:
            raise CliError(f"a file of the inventory is no text in UTF-8: {error}") from None
        except OSError as error:
            raise CliError(f"{error.filename} cannot be read: {error.strerror}") from None

    cli.make_inventory = make


def _read_no_source_lines() -> None:
    """Let pyinfra ask a call's stack for line numbers alone, which is all that it uses of it.

    By default each frame comes with its line of source, for which Python compares the path of every
    module with the frame's: a tenth of the processor time of a run with nothing to do.
    """
    import inspect

    from pyinfra.api import util

    util.stack = partial(inspect.stack, 0)
    util.getframeinfo = partial(inspect.getframeinfo, context=0)


def _read_types_once() -> None:
    """Let pyinfra read the types of its own arguments once, and not for each command of each host.

    That they are the same each time is half of what it takes to resolve the arguments of one.
    """
    from pyinfra.api import arguments

    known = tuple(arguments.all_global_arguments())
    # A list of its own for each: whoever asks may change it.
    arguments.all_global_arguments = lambda: list(known)


def _get_starting() -> State | None:
    state: State | None = ctx_state.get()  # type: ignore[no-untyped-call]
    return state if state is not None and not state.initialised else None


def _wait_for_inventory() -> None:
    """Begin once the inventory is known, if one of its hosts has a stack."""
    state = _get_starting()
    if state is None:
        return
    proceed = state.init

    def init(inventory: Inventory, *args: Any, **kwargs: Any) -> None:
        state.init = proceed  # type: ignore[method-assign]
        if any("stack" in host.data.dict() for host in inventory):  # type: ignore[no-untyped-call]
            install()
        state.init(inventory, *args, **kwargs)

    state.init = init  # type: ignore[method-assign]


_wait_for_inventory()
