"""Looking at every host's settings before the first host is contacted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state

from .link import limit_key_errors, quicken
from .redial import add_attempts

if TYPE_CHECKING:
    from pyinfra.api.config import Config
    from pyinfra.api.host import Host
    from pyinfra.api.inventory import Inventory
    from pyinfra.api.state import State

    from .first_contact.contact import Contact

#: Told the name and the data of one host; raises ``ValueError`` with one problem a line.
Validate = Callable[[str, Mapping[str, Any]], None]

#: Told the data of one host; says how it is reached the first time, or None for pyinfra's own way.
Reached = Callable[[Mapping[str, Any]], "Contact | None"]


class SettingsError(PyinfraError):
    """Some hosts' settings are wrong; the message names every distinct problem once.

    :param problems: each problem with the names of the hosts that have it.
    """

    def __init__(self, problems: Mapping[str, list[str]], hosts: int) -> None:
        lines = [f"{problem}{_format_hosts(names, hosts)}" for problem, names in problems.items()]
        intro = "wrong settings; no host was contacted:"
        super().__init__(
            f"{intro} {lines[0]}" if len(lines) == 1 else "\n    - ".join([intro, *lines])
        )
        self.problems = dict(problems)


def check(inventory: Inventory, validate: Validate) -> None:
    """Looks at the data of every host of an inventory, those left out by ``--limit`` among them.

    :param inventory: the inventory.
    :param validate: called once for every host.
    :raises SettingsError: one error for all hosts and all their problems.

    Example:
        >>> check(state.inventory, lambda host, data: Stack.model_validate(data["stack"]))
    """
    problems: dict[str, list[str]] = {}
    for host in inventory:
        for problem in _find_problems(host, validate):
            problems.setdefault(problem, []).append(host.name)
    if problems:
        raise SettingsError(problems, len(inventory))


def install(validate: Validate, reached: Reached | None = None) -> None:
    """Makes the run that is starting look at all settings first; for a project's ``config.py``.

    pyinfra reads ``config.py`` before the inventory. A wrong inventory then ends the run with one
    message, exit code 1 and no traceback, before any host is contacted. The connections of a run
    that goes on are made without Nagle's delays, and made again where they break off meanwhile.

    :param validate: called with each host's name and data; raises ``ValueError`` with one problem a
        line.
    :param reached: called with each host's data once all are right; a host for which it gives a
        contact is connected to by first contact (:mod:`~stackmend.connection.first_contact`).
    :raises RuntimeError: no run is starting: this is not a ``config.py`` read by pyinfra.

    Example:
        >>> preflight.install(lambda host, data: check_stack(data.get("stack")))
    """
    state = cast("State | None", ctx_state.context._container.module)
    if state is None or state.initialised:
        raise RuntimeError("preflight.install() belongs into config.py, which pyinfra reads itself")
    proceed = state.init

    # Callback handlers do not reach this early: State.init() drops those added before it, and
    # after it the first connection is already on its way.
    def init(
        inventory: Inventory, config: Config | None, initial_limit: list[Host] | None = None
    ) -> None:
        try:
            check(inventory, validate)
        except SettingsError as error:
            from pyinfra_cli.exceptions import CliError  # type: ignore[import-untyped]

            raise CliError(str(error)) from None
        proceed(inventory, config, initial_limit)
        quicken(inventory)
        limit_key_errors(inventory)
        add_attempts(inventory)
        if reached is not None:
            _arrange(inventory, reached)

    state.init = init  # type: ignore[method-assign]


def _arrange(inventory: Inventory, reached: Reached) -> None:
    for host in inventory:
        contact = reached(host.data.dict())  # type: ignore[no-untyped-call]
        if contact is not None:
            from .first_contact.arrange import arrange

            arrange(host, contact)


def _find_problems(host: Host, validate: Validate) -> list[str]:
    try:
        validate(host.name, host.data.dict())  # type: ignore[no-untyped-call]
    except ValueError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        return [line for line in lines if line] or [type(error).__name__]
    return []


def _format_hosts(names: list[str], hosts: int) -> str:
    if len(names) == hosts:
        return "" if hosts == 1 else " (all hosts)"
    listed = ", ".join(names[:5])
    return f" ({listed}{f' and {len(names) - 5} more' if len(names) > 5 else ''})"
