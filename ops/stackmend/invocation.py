"""How a run was called: which inventory it reads, and where from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from pyinfra.api.state import State

_inventories: WeakKeyDictionary[State, str] = WeakKeyDictionary()


def remember(state: State) -> None:
    """Remember the inventory that pyinfra's command line reads for a run that is starting.

    To be called while it does: what a greenlet of a host asks later is not known to click.

    :param state: the run.
    """
    import click

    context = click.get_current_context(silent=True)
    name = context.params.get("inventory") if context is not None else None
    if isinstance(name, str):
        _inventories[state] = name


def find_inventory(state: State) -> Path | None:
    """The absolute path of the inventory that a run reads; ``None`` where it is no file.

    :param state: the run.
    """
    name = _inventories.get(state)
    if name is None or name.startswith("@"):
        return None
    path = Path(state.cwd or ".").absolute() / name
    return path if path.is_file() else None
