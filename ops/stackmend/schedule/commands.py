"""From an action to the command that does it: the only place where values are quoted."""

from collections.abc import Sequence

from pyinfra.api import StringCommand

from stackmend.connection import script
from stackmend.schedule.facts import HOME

#: Seconds that a host has to unpack and prove a program.
LIMIT = 900

#: The exit status of a script where systemd takes no unit of it, or a run of the host fails.
REFUSED = 65

#: Seconds that systemd has to read its units.
UNITS_LIMIT = 120

#: Seconds that a host has to end a run and to remove its timer.
REMOVE_LIMIT = 240


def set_units(name: str, user: str, *, cron: str = "") -> StringCommand:
    """Write the files of a timer, which come on standard input, and start it.

    :param name: the timer's name.
    :param user: whose table it is.
    :param cron: where cron's table lies; empty for systemd's units.
    """
    return _build_script("set", name, cron, user, f"{HOME}/{name}/kept", before=["table"])


def remove(name: str, user: str) -> StringCommand:
    """Stop a timer and remove all of it.

    :param name: the timer's name.
    :param user: whose table it is.
    """
    return _build_script("remove", name, user, f"{HOME}/{name}", before=["table"])


def bring(
    name: str, generation: str, program: str, python: str, trial: Sequence[str]
) -> StringCommand:
    """Unpack the wheels and the settings that come on standard input, prove them, and switch.

    :param name: the timer's name.
    :param generation: the digest of program and settings.
    :param program: the digest of the program.
    :param python: the host's Python.
    :param trial: the words that begin a run as the timer does, see ``units.make_trial``.
    """
    words = (f"{HOME}/{name}", generation, program, python, *trial)
    return _build_script("bring", *words, before=["copy"])


def has_program(name: str, program: str) -> StringCommand:
    """Say whether a host has a program already, and it starts.

    :param name: the timer's name.
    :param program: the digest of the program.
    """
    return _build_script("has_program", f"{HOME}/{name}", program, before=["copy"])


def stop(name: str, user: str) -> StringCommand:
    """Stop a timer, and leave all else of it; setting it again starts it.

    :param name: the timer's name.
    :param user: whose table it is.
    """
    return _build_script("remove", name, user, "", before=["table"])


def _build_script(name: str, *arguments: str, before: Sequence[str] = ()) -> StringCommand:
    shared = ["walk", "put"]
    return script("stackmend.schedule", name, *arguments, before=before, shared=shared)
