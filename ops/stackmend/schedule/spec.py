"""When ``stackmend reconcile`` is run by itself: validated before any host is contacted."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from stackmend.frozen import Frozen
from stackmend.problems import abbreviate
from stackmend.raw import LocalPath, PositiveSeconds, Seconds, check_ping
from stackmend.schedule.calendar import check_expression, check_interval

#: How often, where the settings say nothing.
EVERY = 300.0

#: Seconds of the random delay at most, where the settings say nothing.
DELAY = 300.0

#: Seconds between two full runs, where those between them may be skipped.
LEAST_FULL, MOST_FULL = 120, 86400

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

#: The rooms: units of theirs have such names, as the one that takes the resolver back.
RESERVED = frozenset(
    "access addresses basics checks cli compose connection connectivity engine fleet incidents "
    "links models pause ports reporting resolver restraint schedule undo worker".split()
)

_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")


def _check_name(value: str) -> str:
    if value and not _NAME.fullmatch(value):
        raise ValueError(
            "must hold lowercase letters, digits and '-', start with a letter or digit and have 40 "
            f"characters at most; got {abbreviate(value)}"
        )
    if value.partition("-")[0] in RESERVED:
        raise ValueError(f"must not be the name of a room of stackmend's; got {abbreviate(value)}")
    return value


def _check_user(value: str) -> str:
    if value and not _USER.fullmatch(value):
        raise ValueError(f"must be the name of a user of this machine; got {abbreviate(value)}")
    return value


class TimerSpec(Frozen):
    """When ``stackmend reconcile`` is run by itself, and where.

    :param every: the time from one run to the next, such as ``"5min"``: whole minutes that divide
        an hour, or whole hours that divide a day; ``"5min"`` unless there is ``at``.
    :param at: a time of day such as ``"03:00"``, or an expression of systemd's ``OnCalendar``, in
        place of ``every``.
    :param mode: ``controller``: this machine runs the whole fleet; ``host``: the host mends
        itself, without this machine and without the internet.
    :param present: whether there is to be such a timer; ``False`` removes all of it.
    :param random_delay: seconds within which each host has a constant place of its own; a tenth of
        ``every``, 5 minutes at most, in mode ``host``, else none.
    :param timeout: seconds after which a run is ended; more than the ``limit`` of ``reconcile``,
        which is for each host.
    :param name: tells several timers of one machine apart; the mode by default.
    :param inventory: the inventory on this machine, in mode ``controller``; that of this run by
        default.
    :param user: who runs it, in mode ``controller``; the user of this run by default.
    :param wheels: a directory of this machine with the wheels for the hosts, in mode ``host``;
        where it is not set, pip downloads them once and holds them against their hashes.
    :param ping: the address of a dead man's switch that hears how each run of the host ended, in
        mode ``host``. It is secret.
    :param notify: whether those of ``report.notify`` hear of the host's own runs, in mode ``host``:
        their addresses and what sends to them are brought to the host.
    :param full_every: in mode ``host``, the time such as ``"30min"`` within which a run is skipped
        where the host shows that nothing has happened to it since one that found nothing to do,
        see ``docs/schedule.md``; by default each run is a full one.
    :param allow: ``daemon-reload``: systemd may read its units again where that takes a GPU from
        running containers.

    Example::

        schedule = {"mode": "host", "every": "5min"}
    """

    every: Annotated[PositiveSeconds, AfterValidator(check_interval)] | None = None
    at: Annotated[str, AfterValidator(check_expression)] = ""
    mode: Literal["controller", "host"] = "controller"
    present: bool = True
    random_delay: Annotated[Seconds, Field(ge=0, le=86400)] | None = None
    timeout: Annotated[Seconds, Field(ge=60, le=86400)] = 10800.0
    name: Annotated[str, AfterValidator(_check_name)] = ""
    inventory: LocalPath | None = None
    user: Annotated[str, AfterValidator(_check_user)] = ""
    wheels: LocalPath | None = None
    ping: Annotated[SecretStr, AfterValidator(check_ping)] | None = None
    notify: bool = False
    full_every: Annotated[PositiveSeconds, Field(ge=LEAST_FULL, le=MOST_FULL)] | None = None
    allow: tuple[Literal["daemon-reload"], ...] = Field(default=(), max_length=5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.every is not None and self.at:
            raise ValueError('"every" and "at" exclude each other: remove one')
        others = {
            "controller": ("wheels", "ping", "notify", "full_every"),
            "host": ("inventory", "user"),
        }
        for field in others[self.mode]:
            if getattr(self, field):
                raise ValueError(
                    f'"{field}" means nothing in mode {self.mode}: remove it, or set "mode": '
                    f'"{"host" if self.mode == "controller" else "controller"}"'
                )
        if self.full_every and self.interval and self.full_every <= self.interval:
            raise ValueError(
                '"full_every" must be longer than "every": raise it, or remove it so that each run '
                "is a full one"
            )
        return self

    @property
    def unit(self) -> str:
        """The name of its units and files on the host, without their endings."""
        return f"stackmend-{self.name or self.mode}"

    @property
    def interval(self) -> float | None:
        """Seconds from one run to the next; ``None`` where ``at`` says when."""
        return None if self.at else self.every or EVERY

    @property
    def delay(self) -> int:
        """Seconds of the random delay."""
        if self.random_delay is not None:
            return int(self.random_delay)
        if self.mode == "controller":
            return 0
        return int(min((self.interval or 600.0) / 10, DELAY))
