"""Probe text to state: a host's clock, its kept ports and its security updates."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from pyinfra.api import FactBase, StringCommand

from stackmend.basics.spec import BasicsSpec
from stackmend.basics.state import Clock, HostBasics, Unit, Updates
from stackmend.connection import make_mark, parse_probe, parse_sections, script

Section = tuple[int, list[str]]


class Basics(FactBase[HostBasics]):
    """A host's clock against ours, its kept ports and its security updates; reads only.

    + updates: whether to look at how it installs security updates by itself.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.basics.facts.Basics
    """

    _asked = 0.0
    _mark = ""

    def command(self, updates: bool = False) -> StringCommand:
        """The probe."""
        self._asked, self._mark = time.time(), make_mark()
        asked = "updates" if updates else ""
        return script("stackmend.basics", "probe", asked, mark=self._mark)

    def process(self, output: list[str]) -> HostBasics:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        answered = time.time()
        return parse_probe(
            lambda lines: parse(lines, self._mark, self._asked, answered), output, "the basics"
        )


def get_arguments(spec: BasicsSpec) -> dict[str, bool]:
    """What the fact is asked with, for what is asked."""
    return {"updates": spec.security_updates}


def parse(output: Sequence[str], mark: str, asked: float, answered: float) -> HostBasics:
    """Probe output to state.

    :param asked: the controller's clock before the host was asked.
    :param answered: the same when the answer was there.
    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "whole" not in found:
        raise ValueError("it did not run to its end")
    host = _parse_pairs(found, "host")
    ports = [*found["ports"][1], "", ""]
    return HostBasics.model_validate(
        {
            "manager": host.get("manager", ""),
            "init": host.get("init", ""),
            "system": host.get("system", ""),
            "clock": Clock(
                asked=asked,
                now=int(host["now"]),
                answered=answered,
                synchronized={"yes": True, "no": False}.get(host.get("synchronized", "")),
                outside=host.get("outside", ""),
                services=tuple(_parse_units(found, "services")),
            ),
            "ephemeral": _parse_range(ports[0]),
            "reserved": ports[1].strip(),
            "updates": _parse_updates(found),
            "root": host["root"] == "0",
        }
    )


def _parse_pairs(found: Mapping[str, Section], name: str) -> dict[str, str]:
    rows = (line.partition(" ") for line in found.get(name, (0, []))[1] if line)
    return {key: value.strip() for key, _, value in rows}


def _parse_range(text: str) -> tuple[int, int]:
    with suppress(ValueError):
        first, last = map(int, text.split())
        return first, last
    return 32768, 60999


def _parse_units(found: Mapping[str, Section], name: str) -> Iterator[Unit]:
    """The units that are there; systemd tells of every name, and of an alias like of the unit."""
    block: dict[str, str] = {}
    names = set()
    for line in [*found.get(name, (0, []))[1], ""]:
        key, equals, value = line.partition("=")
        if equals:
            block[key] = value
        elif block:
            unit, load = block.get("Id", ""), block.get("LoadState", "")
            if unit not in names and load not in ("not-found", ""):
                names.add(unit)
                yield Unit(
                    name=unit,
                    load=load,
                    active=block.get("ActiveState") == "active",
                    enabled=block.get("UnitFileState", "").startswith("enabled"),
                )
            block = {}


def _parse_updates(found: Mapping[str, Section]) -> Updates | None:
    if "packages" not in found:
        return None
    return Updates(
        packages=tuple(line for line in found["packages"][1] if line),
        settings=_parse_pairs(found, "settings"),
        timers=tuple(_parse_units(found, "timers")),
    )
