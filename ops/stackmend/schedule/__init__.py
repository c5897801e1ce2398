"""The schedule: ``stackmend reconcile`` run by itself, on this machine or on each host."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend.raw import validate
from stackmend.reconcile import operate
from stackmend.schedule.spec import TimerSpec
from stackmend.schedule.units import MARK

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel, SecretStr

    from stackmend.reporting import Collector
    from stackmend.schedule.reconciler import ScheduleReconciler

__all__ = ["TimerSpec", "get_arguments", "timer"]

# Every run imports this; what observes and acts is loaded where it is used.


@operation()
def timer(
    every: str | float | None = None,
    at: str = "",
    mode: Literal["controller", "host"] = "controller",
    present: bool = True,
    random_delay: str | float | None = None,
    timeout: str | float = 10800,
    name_of_timer: str = "",
    inventory: str | Path | None = None,
    user: str = "",
    wheels: str | Path | None = None,
    ping: str | SecretStr | None = None,
    notify: bool = False,
    full_every: str | float | None = None,
    allow: Sequence[str] | str = (),
    settings: BaseModel | None = None,
) -> Generator[FunctionCommand, None, None]:
    """
    Have ``stackmend reconcile`` run by itself, by a timer of systemd's or by cron.

    + every: the time from one run to the next, such as ``"5min"`` (the default unless there is
      ``at``): whole minutes that divide an hour, or whole hours that divide a day
    + at: a time of day such as ``"03:00"``, or an expression of systemd's ``OnCalendar``, in place
      of ``every``; the host's own ``systemd-analyze calendar`` checks it before it is written
    + mode: ``controller``: this machine runs the inventory of this run for all of its hosts, and
      the host has to be this machine (``@local``, or one that proves to be it). ``host``: the host
      gets stackmend, what it was locked with, and its own settings, and mends itself without this
      machine and without the internet; it needs Python 3.11 or newer
    + present: ``False`` ends it, and removes all that this operation ever put there
    + random_delay: seconds within which each host has a constant place of its own, so that hosts do
      not all begin at once
    + timeout: seconds after which a run is ended, by SIGTERM and 30 s later by SIGKILL; it sends
      its notices, and a command that is at work on this machine comes to its end
    + name_of_timer: tells several timers of one machine apart; its units are ``stackmend-NAME``
    + inventory: the inventory on this machine, where it is not the one of this run
    + user: who runs it in mode ``controller``, where it is not the user of this run
    + wheels: a directory of this machine with the wheels for the host, in mode ``host``; without it
      pip downloads them once into ``~/.cache/stackmend/wheels``, held against the lock's hashes
    + ping: the address of a dead man's switch that hears of each run of the host, in mode ``host``
    + notify: whether those of ``report.notify`` in ``settings`` hear of each change that a run of
      the host finds, in mode ``host``: what sends messages comes along, with their addresses
    + full_every: the time, such as ``"30min"``, after which a run is a full one again, in mode
      ``host``; until then those are skipped of which the host shows that nothing has happened since
      one that found nothing to do. Without it each run is a full one
    + allow: ``daemon-reload`` lets systemd read its units again where that takes a GPU from
      running containers
    + settings: the host's own, as ``stackmend.spec.check`` gives them, in mode ``host``

    The timer catches up on a run that the host slept through, never runs twice at once, and its
    output is in the journal (``journalctl -t stackmend-NAME``). A run that leaves a host to another
    run is no failure of the unit; each other exit code than 0 is. In mode ``controller`` the unit
    may write to its records and to nothing else, unless the inventory has this machine mended, too.
    In mode ``host`` it is root with the engine's socket, and may do whatever a remedy needs.

    What is brought to a host is prepared beside what runs there, proven by a run that changes
    nothing, and switched to by one rename. What the settings name on this machine comes along.
    Secrets lie in files that root alone reads.

    Refused, which fails the operation on this host alone and changes nothing: mode ``controller``
    on another machine; a host that is not Linux, has neither systemd nor cron, or has no Python for
    mode ``host``; times that cron does not know where there is no systemd; a masked unit; and,
    without consent, a ``daemon-reload`` that takes a GPU from containers.

    **Example:**

    .. code:: python

        from stackmend import schedule

        schedule.timer(name="This machine keeps the fleet", every="5min")
    """
    raw = {
        "every": every,
        "at": at,
        "mode": mode,
        "present": present,
        "random_delay": random_delay,
        "timeout": timeout,
        "name": name_of_timer,
        "inventory": inventory,
        "user": user,
        "wheels": wheels,
        "ping": ping,
        "notify": notify,
        "full_every": full_every,
        "allow": [allow] if isinstance(allow, str) else allow,
    }

    def build(report: Collector) -> ScheduleReconciler:
        from stackmend.schedule.reconciler import ScheduleReconciler

        return ScheduleReconciler(host, validate(TimerSpec, raw), report, settings)

    # Its own unit may not change units, and needs no look at what has begun it.
    if mode == "controller" and os.environ.get(MARK):
        from stackmend.schedule.reconciler import note_confined

        note_confined(host, validate(TimerSpec, raw))
        host.noop("a timer runs this")
        return
    yield from operate(host, "schedule.timer", build, converged="the timer is as it is to be")


def get_arguments(spec: TimerSpec) -> dict[str, Any]:
    """The arguments of :func:`timer` for validated settings, but for the host's own.

    :param spec: the stack's section ``schedule``.
    """
    arguments = {name: getattr(spec, name) for name in TimerSpec.model_fields}
    arguments["name_of_timer"] = arguments.pop("name")
    return arguments
