"""From an action to the command that does it: the only place where values are quoted."""

from pyinfra.api import StringCommand

from stackmend.connection import script
from stackmend.schedule.facts import HOME

#: Seconds that a host has to unpack and prove a program.
LIMIT = 900

#: The exit status of a script where systemd takes no unit of it, or a run of the host fails.
REFUSED = 65

#: Seconds that systemd has to read its units.
UNITS_LIMIT = 120


def set_units(name: str, user: str, *, cron: str = "") -> StringCommand:
    """Write the files of a timer, which come on standard input, and start it.

    :param name: the timer's name.
    :param user: whose table it is.
    :param cron: where cron's table lies; empty for systemd's units.
    """
    return _build_script("set", name, cron, user, f"{HOME}/{name}/kept")


def remove(name: str, user: str) -> StringCommand:
    """Stop a timer and remove all of it.

    :param name: the timer's name.
    :param user: whose table it is.
    """
    return _build_script("remove", name, user, f"{HOME}/{name}")


def bring(name: str, generation: str, program: str, python: str) -> StringCommand:
    """Unpack the wheels and the settings that come on standard input, prove them, and switch.

    :param name: the timer's name.
    :param generation: the digest of program and settings.
    :param program: the digest of the program.
    :param python: the host's Python.
    """
    return _build_script("bring", f"{HOME}/{name}", generation, program, python)


def has_program(name: str, program: str) -> StringCommand:
    """Say whether a host has a program already.

    :param name: the timer's name.
    :param program: the digest of the program.
    """
    return StringCommand("test", "-e", f"{HOME}/{name}/programs/{program}/complete")


def _build_script(name: str, *arguments: str) -> StringCommand:
    return script("stackmend.schedule", name, *arguments, shared=["walk", "put"])
