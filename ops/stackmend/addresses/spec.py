"""What is desired of the addresses between services."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool
from pydantic_core import PydanticCustomError

from stackmend.frozen import Frozen
from stackmend.problems import abbreviate

_IGNORED = re.compile(r"\S+\.\S+")


def _wrap_single(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _check_ignored(value: str) -> str:
    if not _IGNORED.fullmatch(value):
        message = f"must be SERVICE.VARIABLE, such as api.REDIS_URL, not {abbreviate(value)}"
        # The message of a custom error has no "Value error, " before it.
        raise PydanticCustomError("ignored", message)
    return value


class LinksPolicy(Frozen):
    """The section ``links``: the addresses by which services reach each other.

    :param on_conflict: ``report`` says which address is wrong and what would be right; ``override``
        also writes a compose file of stackmend's own that corrects it, and applies it.
    :param files: whether mounted configuration files are read too (YAML, TOML, INI, JSON, .env);
        what is wrong in them is reported with a patch, and never rewritten.
    :param ignore: addresses that are left alone, each as ``SERVICE.VARIABLE``, such as
        ``api.REDIS_URL``; ``SERVICE.*`` is every one of a service, and ``*.VARIABLE`` one of every
        service.
    """

    on_conflict: Literal["report", "override"] = "report"
    files: StrictBool = False
    ignore: Annotated[
        tuple[Annotated[str, Field(max_length=300), AfterValidator(_check_ignored)], ...],
        BeforeValidator(_wrap_single),
        Field(max_length=1000),
    ] = ()
