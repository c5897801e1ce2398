"""Times as systemd's timers and cron have them. Pure."""

import re

from stackmend.problems import abbreviate

MINUTE, HOUR, DAY = 60, 3600, 86400

#: Words of systemd.time(7), and what cron has for them.
WORDS = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "weekly": "0 0 * * 1",
    "monthly": "0 0 1 * *",
    "quarterly": "0 0 1 1,4,7,10 *",
    "semiannually": "0 0 1 1,7 *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*"
_WEEKDAYS = rf"(?P<days>{_DAY}(?:(?:\.\.|-){_DAY})?(?:,{_DAY}(?:(?:\.\.|-){_DAY})?)*)"
_FIELD = r"(?:\*|[0-9]{1,4}(?:\.\.[0-9]{1,4})?)(?:/[0-9]{1,4})?"
_FIELDS = rf"{_FIELD}(?:,{_FIELD})*"
_DATE = rf"(?P<date>(?:{_FIELDS}-)?{_FIELDS}[-~]{_FIELDS})"
_CLOCK = rf"(?P<clock>{_FIELDS}:{_FIELDS}(?::{_FIELDS}(?:\.[0-9]{{1,6}})?)?)"
_ZONE = r"(?P<zone>UTC|[A-Z][A-Za-z_+-]{1,30}(?:/[A-Za-z0-9_+-]{1,30}){1,2})"
_EXPRESSION = rf"(?:{_WEEKDAYS}(?: |$))?(?:{_DATE}(?: |$))?(?:{_CLOCK}(?: |$))?(?:{_ZONE})?"
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::00)?")


def check_interval(seconds: float | None) -> float | None:
    """The time from one run to the next, as it was given.

    :raises ValueError: systemd and cron have no regular times for it.
    """
    if seconds is None:
        return None
    integral = seconds == int(seconds)
    minutes = integral and seconds % MINUTE == 0 and seconds < HOUR and HOUR % seconds == 0
    hours = integral and seconds % HOUR == 0 and seconds <= DAY and DAY % seconds == 0
    if not minutes and not hours:
        raise ValueError(
            "must be 1, 2, 3, 4, 5, 6, 10, 12, 15, 20 or 30 min, or 1, 2, 3, 4, 6, 8, 12 or 24 h; "
            'for other times set "at" instead'
        )
    return seconds


def check_expression(text: str) -> str:
    """A time of day or an expression of ``OnCalendar``, as it was given.

    The host's own ``systemd-analyze`` has the last word.

    :raises ValueError: it is none, as far as that is known without a host.
    """
    if not text or text.lower() in WORDS:
        return text
    match = _match(text) if len(text) <= 200 and text == text.strip() else None
    if match is None or not any(match.group("days", "date", "clock")):
        raise ValueError(
            "must be a time such as '03:00', a word such as 'daily', or an expression of systemd's "
            f"OnCalendar such as 'Mon..Fri 03:00' (see man systemd.time); got {abbreviate(text)}"
        )
    clock = match["clock"]
    for part, most in zip((clock or "").split(":"), (23, 59, 60), strict=False):
        for number in re.findall(r"(?<![/0-9.])[0-9]+|(?<=\.\.)[0-9]+", part):
            if int(number) > most:
                raise ValueError(f"{abbreviate(text)} holds {number} where {most} is the most")
    return text


def format_calendar(interval: float | None, at: str) -> str:
    """What ``OnCalendar=`` holds.

    :param interval: seconds from one run to the next; ``None`` where ``at`` says when.
    :param at: as of :func:`check_expression`.
    """
    if interval is None:
        match = _TIME.fullmatch(at)
        return f"*-*-* {int(match[1]):02}:{match[2]}:00" if match else at
    seconds = int(interval)
    if seconds < HOUR:
        return f"*-*-* *:00/{seconds // MINUTE:02}:00"
    if seconds < DAY:
        return f"*-*-* 00/{seconds // HOUR:02}:00:00"
    return "*-*-* 00:00:00"


def format_cron(interval: float | None, at: str) -> str:
    """The same as the five fields of a crontab; empty where cron has none for it.

    :param interval: seconds from one run to the next; ``None`` where ``at`` says when.
    :param at: as of :func:`check_expression`.
    """
    if interval is not None:
        seconds = int(interval)
        if seconds < HOUR:
            return f"*/{seconds // MINUTE} * * * *" if seconds > MINUTE else "* * * * *"
        return f"0 */{seconds // HOUR} * * *" if seconds < DAY else "0 0 * * *"
    if at.lower() in WORDS:
        return WORDS[at.lower()]
    match = _match(at)
    clock = _TIME.fullmatch((match["clock"] or "00:00") if match else "")
    if match is None or clock is None or match["date"] or match["zone"]:
        return ""
    return f"{int(clock[2])} {int(clock[1])} * * {_format_weekdays(match['days'])}"


def _match(text: str) -> re.Match[str] | None:
    # Compiled where it is used: most runs have no such settings.
    return re.fullmatch(_EXPRESSION, text, re.IGNORECASE)


def _format_weekdays(text: str | None) -> str:
    if not text:
        return "*"
    numbers: list[int] = []
    for part in text.lower().replace("..", "-").split(","):
        first, _, last = part.partition("-")
        begin = _DAYS.index(first[:3])
        end = _DAYS.index(last[:3]) if last else begin
        # From Saturday to Monday, say.
        numbers += range(begin, end + 1 if begin <= end else end + 8)
    return ",".join(map(str, sorted({number % 7 + 1 for number in numbers})))
