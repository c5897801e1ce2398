"""When a pause runs out, as people say it. Pure: the clock is passed in."""

from __future__ import annotations

from datetime import datetime, time, timedelta

from pydantic import TypeAdapter, ValidationError

from stackmend.problems import abbreviate
from stackmend.raw import PositiveSeconds

_SECONDS: TypeAdapter[float] = TypeAdapter(PositiveSeconds)


def parse_until(text: str, now: datetime) -> tuple[float | None, float | None]:
    """When a pause runs out: in seconds since 1970, or after so many seconds.

    :param text: a time such as ``2h`` or ``7d`` from now on; one of the day such as ``08:00``, the
        next that comes; or a date such as ``2026-12-24`` or ``2026-12-24T08:00``, with an offset
        such as ``Z`` where the time zone of ``now`` is not meant; empty for never.
    :param now: the clock, with its offset.
    :raises ValueError: saying what would be right.

    >>> parse_until("2h", datetime.now(UTC))
    (None, 7200.0)
    """
    text = text.strip()
    if not text:
        return None, None
    try:
        if not text.replace(".", "").isdigit():
            return None, _SECONDS.validate_python(text)
    except ValidationError:
        pass
    at = _parse_clock(text, now) or _parse_date(text, now)
    if at is None:
        raise ValueError(
            "must be a time from now on such as '2h' or '7d', a time of the day such as '08:00', "
            f"or a date such as '2026-12-24T08:00'; got {abbreviate(text)}"
        )
    if at <= now:
        raise ValueError(f"{at:%Y-%m-%d %H:%M %Z} is over already")
    return at.timestamp(), None


def _parse_clock(text: str, now: datetime) -> datetime | None:
    try:
        clock = time.fromisoformat(text)
    except ValueError:
        return None
    if ":" not in text:
        return None
    if clock.tzinfo is not None:
        now = now.astimezone(clock.tzinfo)
    at = now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
    return at if at > now else at + timedelta(days=1)


def _parse_date(text: str, now: datetime) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if "-" not in text:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=now.tzinfo)
