"""Probe text to state."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pyinfra.api import FactBase, StringCommand

from stackmend.answers import read_json
from stackmend.connection import make_mark, parse_probe, parse_sections, script
from stackmend.paths import STATE_ROOT
from stackmend.redaction import format_safe_line
from stackmend.restraint.state import Limits, Memory, Pauses

#: Bytes that one of the files can have.
MAXIMUM = 1024 * 1024

M = TypeVar("M", bound=BaseModel)


class Restraints(FactBase[Memory]):
    """The pauses of a host, and what was mended and failed there lately; reads only.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.restraint.facts.Restraints
    """

    _mark = ""

    def command(self) -> StringCommand:
        """The probe."""
        self._mark = make_mark()
        return script("stackmend.restraint", "probe", STATE_ROOT, str(MAXIMUM), mark=self._mark)

    def process(self, output: list[str]) -> Memory:
        """The state that the probe printed."""
        return parse_probe(self._parse, output, "the host's pauses")

    def _parse(self, lines: list[str]) -> Memory:
        sections = parse_sections(lines, self._mark)
        pauses, pauses_problem = _parse_file(Pauses, *sections["pauses"])
        limits, limits_problem = _parse_file(Limits, *sections["limits"])
        return Memory(
            now=float(sections["clock"][1][0]),
            pauses=pauses.pauses,
            limits=limits,
            pauses_problem=pauses_problem,
            limits_problem=limits_problem,
        )


def _parse_file(model: type[M], status: int, lines: list[str]) -> tuple[M, str]:
    """What a file holds, and why it cannot be told."""
    text = "\n".join(lines)
    if status:
        return model(), format_safe_line(text, 200) or f"exit status {status}"
    if not lines:
        return model(), ""
    try:
        return model.model_validate(read_json(text, MAXIMUM)), ""
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return model(), format_safe_line(f"{where}: {first['msg']}", 200)
    except ValueError as error:
        return model(), format_safe_line(str(error), 200)
