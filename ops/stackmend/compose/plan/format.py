"""Short text for long things."""

import re
from collections.abc import Iterable, Sequence

from stackmend.paths import STATE_ROOT

#: What stands before an error that Compose prints of a service or an image.
_REPORTED = re.compile(r"^\s*(?:Image )?\S+ Error(?: |$)")


def shorten(image_id: str) -> str:
    """The part of an image's id that people compare."""
    return image_id.removeprefix("sha256:")[:12]


def fit_line(text: str) -> str:
    """Text on one line, cut where it is long."""
    joined = " ".join(text.split())
    return joined if len(joined) <= 200 else joined[:199] + "…"


def drop_repeated(lines: Sequence[str]) -> list[str]:
    """The lines of an error, each that a later one says again left out.

    Compose prints what the engine answers twice: behind the service's name, and alone.
    """
    cores = [_REPORTED.sub("", line).strip() for line in lines]
    return [
        line
        for at, line in enumerate(lines)
        if not any(cores[at] in later for later in lines[at + 1 :])
    ]


def list_few(items: Sequence[str]) -> list[str]:
    """A few of many, and how many more."""
    more = [f"and {len(items) - 6} more"] if len(items) > 6 else []
    return [*items[:6], *more]


def join_few(items: Iterable[str], between: str = "; ") -> str:
    """A few of many as one text."""
    return between.join(list_few(list(items)))


def explain_warning(warning: str) -> str:
    """What to do about a warning of Compose's, where it is of a known kind."""
    if "variable is not set" in warning:
        return "give the variable a value in `env`, or write $$ where the dollar itself is meant"
    return ""


def explain_obstacle(path: str, kind: str) -> tuple[str, str]:
    """Why stackmend does not write to a path of the project's files as root, and the remedy."""
    match kind:
        case "link":
            return (
                f"{path} is a link, and stackmend follows no links below a project's directory",
                f"remove {path}, or put what it leads to in its place",
            )
        case "directory":
            return (f"{path} is a directory, and should be a file", f"move {path} elsewhere")
        case "large":
            return (f"{path} is larger than any file of a project", f"move {path} elsewhere")
        case "odd":
            return (
                f"the record of the last apply names {path!r}, which leads elsewhere",
                f"see who could write to {STATE_ROOT}, and remove its list of the project's "
                "files (files, beside applied.json)",
            )
    return (
        f"{path} is neither the file nor the directory that the source has there",
        f"see what made it, and move {path} elsewhere",
    )
