"""The page of all settings, made from the models: ``python -m tests.settings_page``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ByteSize
from pydantic_core import PydanticUndefined

from stackmend.access.spec import AccessPolicy
from stackmend.addresses.spec import LinksPolicy
from stackmend.checks.spec import (
    ExecCheck,
    GreetingCheck,
    HttpCheck,
    NameCheck,
    RedisCheck,
    TcpCheck,
)
from stackmend.compose.spec import GitSource, Mend
from stackmend.connectivity.spec import ConnectivityPolicy, Endpoint, StatusPage
from stackmend.engine.spec import EnginePolicy
from stackmend.fleet.spec import ReconcilePolicy
from stackmend.models.spec import ModelSpec, ModelsPolicy
from stackmend.ports.spec import PortsPolicy
from stackmend.resolver.spec import ResolverPolicy
from stackmend.schedule.spec import TimerSpec
from stackmend.spec import Report, Stack
from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.benchmark.spec import BenchmarkPolicy, Limits, Minimum, Profile
from stackmend.worker.move.spec import MovePolicy
from stackmend.worker.spec import WorkerPolicy

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("`stack`", Stack),
    ("`stack.source` as a git repository", GitSource),
    ("`stack.mend`", Mend),
    ("`stack.checks[]` of the kind `http`", HttpCheck),
    ("`stack.checks[]` of the kind `tcp`", TcpCheck),
    ("`stack.checks[]` of the kind `greeting`", GreetingCheck),
    ("`stack.checks[]` of the kind `name`", NameCheck),
    ("`stack.checks[]` of the kind `exec`", ExecCheck),
    ("`stack.checks[]` of the kind `redis`", RedisCheck),
    ("`stack.access`", AccessPolicy),
    ("`stack.engine`", EnginePolicy),
    ("`stack.resolver`", ResolverPolicy),
    ("`stack.ports`", PortsPolicy),
    ("`stack.links`", LinksPolicy),
    ("`stack.models`", ModelsPolicy),
    ("`stack.models.wanted[]`", ModelSpec),
    ("`stack.connectivity`", ConnectivityPolicy),
    ("`stack.connectivity.endpoints[]`", Endpoint),
    ("`stack.connectivity.status_pages[]`", StatusPage),
    ("`stack.worker`", WorkerPolicy),
    ("`stack.worker.benchmark`", BenchmarkPolicy),
    ("`stack.worker.benchmark.profile`", Profile),
    ("`stack.worker.benchmark.profile.limits`", Limits),
    ("`stack.worker.benchmark.minimum`", Minimum),
    ("`stack.worker.accelerated`", AccelerationPolicy),
    ("`stack.worker.engine`", MovePolicy),
    ("`stack.reconcile`", ReconcilePolicy),
    ("`stack.schedule`", TimerSpec),
    ("`stack.report`", Report),
]

HEAD = """\
# Settings

Made from the models that validate them by `python -m tests.settings_page`; a test holds it current.
A section that is absent is not managed. Wrong settings end a run with the field's path before any
host is contacted. Times are seconds, or text such as `"90s"`, `"5min"`, `"12h"` or `"7d"`.
"""


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """What each field means, as the docstrings of the model and of those it inherits say."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel) or "__doc__" not in vars(base):
            continue
        for match in re.finditer(
            r"^:param (\w+): (.*?)(?=^:|^\S|\Z)", inspect.getdoc(base) or "", re.M | re.S
        ):
            text = " ".join(match[2].split())
            text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")
            found[match[1]] = text
    return found


def default(value: Any) -> str:
    """A default as one would write it."""
    match value:
        case None:
            return "none"
        case BaseModel():
            return "its own defaults"
        case ByteSize():
            return f'`"{value.human_readable()}"`'
        case tuple() | list() | dict() | "" if not value:
            return "none"
        case tuple() | list():
            return f"`{list(value)!r}`"
        case _:
            return f"`{value!r}`"


def rows(model: type[BaseModel]) -> list[str]:
    """A table of one section."""
    means = meanings(model)
    lines = ["| Key | Means | Default |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        given = None if field.default is PydanticUndefined else field.default
        shown = "needed" if field.is_required() else default(given)
        text = means[name].rstrip(".").replace("|", "\\|")
        lines.append(f"| `{name}` | {text} | {shown} |")
    return lines


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, model in SECTIONS:
        parts.append("\n".join([f"## {title}", "", *rows(model)]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
