"""The one mapping that says what is wanted of a host: ``host.data.stack``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ops.access.keys import KeyProblem, public_keys
from ops.access.spec import AccessPolicy
from ops.compose.source import SourceError, load
from ops.compose.spec import ComposeSpec
from ops.engine.spec import EnginePolicy
from ops.models.spec import ModelsPolicy
from ops.ports.spec import PortsPolicy
from ops.problems import problems


class SpecError(ValueError):
    """The settings are wrong; one problem a line, each with the field's full path."""


class Report(BaseModel):
    """Where the record of a run is written.

    :param directory: on the controller; ``var/reports`` below the working directory by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path | None = None


class Machine(BaseModel):
    """What is wanted of a host before it carries a stack. A section that is absent is not managed.

    :param access: how the host is reached, and by whom; what ``deploy/bootstrap.py`` begins with.
    :param engine: the container engine that the host is to have.
    :param report: where the record of a run is written.

    Example, in ``group_data/all.py``::

        stack = {"access": {"user": "ops", "public_keys": "~/.ssh/id_ed25519.pub"}, "engine": {}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    access: AccessPolicy | None = None
    engine: EnginePolicy | None = None
    report: Report = Report()


class Stack(Machine, ComposeSpec):
    """Everything wanted of one host. A section that is absent is not managed.

    The Compose project's own settings stand at the top level, as :class:`ComposeSpec` has them.

    :param access: how the host is reached, and by whom; what ``deploy/bootstrap.py`` begins with.
    :param engine: the container engine that the host is to have.
    :param ports: what may be done about a port that the stack needs and something else holds.
    :param models: the models that the stack's model server is to have.
    :param report: where the record of a run is written.

    Example, in ``group_data/all.py``::

        stack = {"project": "ai", "source": "deploy/stacks/ai", "directory": "/opt/ai"}
    """

    ports: PortsPolicy | None = None
    models: ModelsPolicy | None = None


#: What a host may be given before it has a project.
_SECTIONS = frozenset({"access", "engine"})


def check(data: Mapping[str, Any]) -> Stack | None:
    """The validated settings in a host's data; ``None`` where it has no project.

    :param data: the host's data, as ``host.data.dict()`` gives it.
    :raises SpecError: naming each wrong field, and what would be right.
    """
    found = machine(data)
    return found if isinstance(found, Stack) else None


def machine(data: Mapping[str, Any]) -> Stack | Machine | None:
    """The same, also where a host has the sections ``access`` or ``engine`` alone.

    :param data: the host's data, as ``host.data.dict()`` gives it.
    :raises SpecError: naming each wrong field, and what would be right.
    """
    given = data.get("stack")
    if given is None:
        return None
    try:
        if isinstance(given, Machine):
            found = given
        elif isinstance(given, Mapping) and set(given) <= {*_SECTIONS, "report"} and given:
            found = Machine.model_validate(given)
        else:
            found = Stack.model_validate(given)
        if found.access is not None:
            public_keys(found.access.public_keys)
        if isinstance(found, Stack):
            load(found)
    except ValidationError as error:
        raise SpecError("\n".join(map(_told, problems(error, "stack")))) from None
    except KeyProblem as error:
        raise SpecError(f"stack.access.{error}") from None
    except SourceError as error:
        raise SpecError(f"stack.{error}") from None
    return found


def preflight(_host: str, data: Mapping[str, Any]) -> None:
    """Check one host's settings before any host is contacted.

    :raises SpecError: as :func:`check` does.
    """
    machine(data)


def _told(problem: str) -> str:
    if problem.endswith(": unknown key") and problem.count(".") == 1:
        return f"{problem}; known are {', '.join(sorted(Stack.model_fields))}"
    return problem + (" or a Stack" if problem == "stack: must be a mapping" else "")
