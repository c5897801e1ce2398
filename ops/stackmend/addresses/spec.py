"""What is desired of the addresses between services."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stackmend.frozen import Frozen


def _wrap_single(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


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
    files: bool = False
    ignore: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^.\s]\S*\.\S+$", max_length=300)], ...],
        BeforeValidator(_wrap_single),
        Field(max_length=1000),
    ] = ()
