"""What a host has of a clock, of kept ports and of security updates: models only."""

from collections.abc import Mapping
from typing import Literal

from stackmend.frozen import Frozen


class Unit(Frozen):
    """A service or a timer, whichever init has it.

    :param load: ``loaded``, ``masked`` or ``not-found``.
    :param active: whether it runs.
    :param enabled: whether it is started with the host.
    """

    name: str
    load: str = "loaded"
    active: bool = False
    enabled: bool = False


class Clock(Frozen):
    """The host's clock against the controller's.

    :param asked: the controller's clock when the host was asked, in seconds since 1970.
    :param now: the host's clock then, in whole seconds since 1970.
    :param answered: the controller's clock when the answer was there.
    :param synchronized: whether the kernel was told that it is right; ``None`` if it did not say.
    :param outside: what the host is a container of, where its clock is that machine's.
    :param services: the services that keep clocks right, as far as they are installed.
    """

    asked: float
    now: int
    answered: float
    synchronized: bool | None = None
    outside: str = ""
    services: tuple[Unit, ...] = ()

    @property
    def skew(self) -> float:
        """Seconds that the host's clock is ahead of the controller's, at the least.

        Zero where it may be right: the host read its clock somewhere between the question and the
        answer, and said it in whole seconds.
        """
        least, most = self.now - self.answered, self.now + 1 - self.asked
        return 0.0 if least <= 0 <= most else least if least > 0 else most


class Updates(Frozen):
    """How the host installs security updates by itself.

    :param packages: those that do it, as far as they are installed.
    :param settings: what they are set to, once all files are read.
    :param timers: what starts them.
    """

    packages: tuple[str, ...] = ()
    settings: Mapping[str, str] = {}
    timers: tuple[Unit, ...] = ()


class HostBasics(Frozen):
    """What a host has of a clock, of kept ports and of security updates.

    :param manager: the package manager; empty where none is known.
    :param init: what starts services.
    :param system: what the distribution calls itself.
    :param ephemeral: the first and the last port that the kernel gives to outgoing connections.
    :param reserved: those that it does not.
    :param updates: ``None`` where it was not asked for.
    :param root: whether we are root there.
    """

    manager: Literal["apt", "dnf", "apk", ""]
    init: Literal["systemd", "openrc", ""]
    clock: Clock
    system: str = ""
    ephemeral: tuple[int, int] = (32768, 60999)
    reserved: str = ""
    updates: Updates | None = None
    root: bool = True
