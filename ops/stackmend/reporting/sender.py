"""``python -m stackmend.reporting.sender``: send messages, in a process that can be ended.

Apprise's plugins and the resolver may wait as long as they like. What is to be sent comes as JSON
on standard input, since it holds secrets; each success is one line of output, at once.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from typing import Any

from tenacity import Retrying, stop_after_attempt, wait_fixed

#: Seconds for one attempt of a ping, attempts, and seconds between them.
TIMEOUT, ATTEMPTS, PAUSE = 3.0, 3, 0.2

_printing = threading.Lock()


def main() -> None:
    """Send all at one time; the number of each that arrived is printed."""
    threads = [
        threading.Thread(target=_send, args=(number, item), daemon=True)
        for number, item in enumerate(json.load(sys.stdin))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send(number: int, item: dict[str, Any]) -> None:
    # An error's text may hold the address, which is secret: that it did not arrive is enough.
    try:
        sent = (
            _send_ping(item["url"], item["body"]) if item["kind"] == "ping" else _send_message(item)
        )
    except Exception:
        sent = False
    if sent:
        with _printing:
            print(number, flush=True)


def _send_message(item: dict[str, Any]) -> bool:
    import apprise

    target = apprise.Apprise()
    if not target.add(item["url"]):
        return False
    return bool(
        target.notify(
            title=item["title"],
            body=item["body"],
            notify_type=apprise.NotifyType(item["kind"]),
            body_format=apprise.NotifyFormat.TEXT,
        )
    )


def _send_ping(url: str, body: str) -> bool:
    """https://healthchecks.io/docs/http_api/: the body is kept as the log of the ping."""
    for attempt in Retrying(
        stop=stop_after_attempt(ATTEMPTS), wait=wait_fixed(PAUSE), reraise=True
    ):
        with attempt:
            request = urllib.request.Request(url, data=body.encode(), method="POST")  # noqa: S310 - http and https only, says the spec
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                answer.read(100)
    return True


if __name__ == "__main__":
    main()
