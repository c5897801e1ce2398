"""Pauses: a host, or a part of it, that is left alone until somebody wants it mended again."""

import getpass
import os
import socket
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend import reporting
from stackmend.pause.reconciler import PauseReconciler
from stackmend.raw import validate
from stackmend.reconcile import operate
from stackmend.reporting import Collector
from stackmend.restraint.spec import PauseSpec, ResumeSpec
from stackmend.restraint.times import parse_until

__all__ = ["get_arguments", "held", "lifted"]


@operation()
def held(
    only: str = "", why: str = "", until: str = "", who: str = ""
) -> Generator[FunctionCommand, None, None]:
    """
    Have a host left alone: nothing of it is mended until it is resumed, by whatever controller.

    + only: a room such as ``models``, or ``service:NAME``; empty for the whole host
    + why: the reason, in a line
    + until: when it runs out: ``2h``, ``08:00``, ``2026-12-24T08:00``; empty for never
    + who: who pauses it; by default the user and the machine that this runs on

    What is found is still reported. It is written to ``/var/lib/stackmend/pauses.json`` (mode 0600)
    and to the host's journal; what a run is executing at this moment comes to its end.

    **Example:**

    .. code:: python

        from stackmend import pause

        pause.held(name="Ann looks at redis", only="service:redis", until="2h")
    """

    def build(report: Collector) -> PauseReconciler:
        try:
            at, lasts = parse_until(until, datetime.now(UTC).astimezone())
        except ValueError as error:
            raise ValueError(f"until: {error}") from None
        raw = {"only": only, "why": why, "who": who or _describe_self(), "until": at}
        return PauseReconciler(host, validate(PauseSpec, raw | {"lasts": lasts}), report)

    reporting.keep_quiet(host)
    yield from operate(host, "pause.held", build, converged="it is paused already")


@operation()
def lifted(only: str | None = None) -> Generator[FunctionCommand, None, None]:
    """
    Have a host mended again that was paused; the next run of another deploy does so.

    + only: the room or ``service:NAME`` that the pause is of; all of the host's by default

    **Example:**

    .. code:: python

        from stackmend import pause

        pause.lifted(name="redis is mended again", only="service:redis")
    """

    def build(report: Collector) -> PauseReconciler:
        return PauseReconciler(host, validate(ResumeSpec, {"only": only}), report)

    reporting.keep_quiet(host)
    yield from operate(host, "pause.lifted", build, converged="it is not paused")


def get_arguments(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The arguments of an operation that stand in a host's data, such as ``pause_why``.

    :param data: the host's data.
    :param *names: the arguments, such as ``why``.
    """
    found = {name: data.get(f"pause_{name}") for name in names}
    # What pyinfra's command line takes for a number is none here.
    return {name: str(value) for name, value in found.items() if value is not None}


def _describe_self() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
