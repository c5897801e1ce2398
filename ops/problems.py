"""What is wrong with settings, in words."""

from collections.abc import Iterator

from pydantic import ValidationError


def problems(error: ValidationError, *where: str) -> Iterator[str]:
    """Each problem in one line, the field's path first; what was given may be secret, and is not.

    :param where: what stands before the field in its path.
    """
    for item in error.errors(include_url=False, include_input=False):
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        elif item["type"] == "missing":
            message = "missing"
        elif item["type"] == "model_type":
            message = "must be a mapping"
        yield ": ".join(filter(None, [".".join(map(_part, (*where, *item["loc"]))), message]))


def _part(name: str | int) -> str:
    # A key may hold a line break, which would make two problems of one.
    return str(name) if str(name).isprintable() else repr(name)


def in_one_line(error: ValueError) -> str:
    """All that is wrong, in one line."""
    return "; ".join(problems(error)) if isinstance(error, ValidationError) else str(error)
