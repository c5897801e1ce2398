"""What providers say of themselves, asked from the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from stackmend import connection
from stackmend.answers import read_json
from stackmend.connection import Unknown
from stackmend.connectivity.state import ProviderStatus
from stackmend.redaction import format_safe_line

if TYPE_CHECKING:
    from stackmend.connectivity.spec import StatusPage

#: Seconds that a status page has to answer.
TIMEOUT = 5.0

#: Bytes of a page, and characters of its words that are shown.
LONGEST = 256 * 1024
LONGEST_TEXT = 200

#: What status.io calls each state of a provider.
_CODES: dict[int, Literal["none", "minor", "major", "critical"]] = {
    100: "none",
    200: "none",
    300: "minor",
    400: "minor",
    500: "major",
    600: "critical",
}


def ask(page: StatusPage) -> ProviderStatus | Unknown:
    """What a provider's page says now.

    :param page: the page.
    :returns: the status, or why it is not known.
    """
    try:
        answer = connection.get_from_controller(page.url, timeout=TIMEOUT, longest=LONGEST)
    except connection.HTTPError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Unknown(format_safe_line(f"{page.url}: {reason}", LONGEST_TEXT))
    if answer.status_code != 200:
        return Unknown(f"{page.url}: HTTP {answer.status_code}")
    try:
        return parse(page.provider, read_json(answer.content))
    except ValueError:
        return Unknown(f"{page.url}: it is no status page as statuspage.io or status.io has it")


def parse(provider: str, body: Any) -> ProviderStatus:
    """A page as statuspage.io (``status.indicator``) or status.io (``status_overall``) has it.

    :param provider: whose it is.
    :param body: its JSON.
    :raises ValueError: it is neither.
    """
    try:
        if "result" in body:
            overall = body["result"]["status_overall"]
            indicator: Any = _CODES[overall["status_code"]]
            text = overall["status"]
        else:
            indicator, text = body["status"]["indicator"], body["status"]["description"]
        return ProviderStatus(
            provider=provider, indicator=indicator, text=format_safe_line(text, LONGEST_TEXT)
        )
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it has no status") from None
