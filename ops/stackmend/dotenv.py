"""Variables that a ``.env`` assigns. Pure."""

import re

_ASSIGNED = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*(?:[=:](?P<value>.*))?")


def parse_dotenv(text: str) -> dict[str, str | None]:
    """The variables that a ``.env`` assigns, as far as one line each says; no escape is undone.

    :param text: the file's content.
    :returns: name → value without its quotes; ``None`` where only the name stands, and where an
        empty one stands behind a quote that may still be open.
    """
    found: dict[str, str | None] = {}
    is_open = False
    for line in text.splitlines():
        if match := _ASSIGNED.match(line):
            value = (match["value"] or "").strip()
            is_open |= value[:1] in ("'", '"') and (len(value) == 1 or value[-1] != value[0])
            unknown = match["value"] is None or (is_open and not value)
            found[match["name"]] = None if unknown else value.strip("'\"")
    return found
