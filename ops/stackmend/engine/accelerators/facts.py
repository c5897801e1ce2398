"""Probe text to state: the accelerators of a host."""

from collections.abc import Mapping, Sequence

from pyinfra.api import FactBase, StringCommand

from stackmend.connection import make_mark, parse_probe, parse_sections, script
from stackmend.engine.accelerators.state import VENDORS, Accelerators, CdiFile, Device, Node

Section = tuple[int, list[str]]


class HostAccelerators(FactBase[Accelerators]):
    """The accelerators of a host, and how far containers can have them; reads only.

    They are found by vendor and class on the PCI bus, also where no driver has them. One that is
    not on that bus (a Jetson's, a Windows host's behind WSL) is not found.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.engine.accelerators.facts.HostAccelerators
    """

    _mark = ""

    def command(self) -> StringCommand:
        """The probe."""
        self._mark = make_mark()
        return script("stackmend.engine.accelerators", "probe", mark=self._mark)

    def process(self, output: list[str]) -> Accelerators:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(lambda lines: parse(lines, self._mark), output, "the accelerators")


def parse(output: Sequence[str], mark: str) -> Accelerators:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "whole" not in found:
        raise ValueError("it did not run to its end")
    tools = dict(line.split(" ", 1) for line in _read_lines(found, "tools"))
    status, _, version = _read_first(found, "package").partition(" ")
    return Accelerators(
        devices=tuple(map(_parse_device, _read_lines(found, "pci"))),
        nodes=tuple(map(_parse_node, _read_lines(found, "nodes"))),
        driver=_read_first(found, "driver"),
        smi=tools.get("nvidia-smi", ""),
        ctk=tools.get("nvidia-ctk", ""),
        runtime=tools.get("nvidia-container-runtime", ""),
        toolkit=version if status == "installed" else "",
        cdi=tuple(
            _parse_cdi(lines) for name, (_, lines) in found.items() if name.startswith("cdi ")
        ),
        proof=_read_first(found, "proof"),
    )


def _read_lines(found: Mapping[str, Section], name: str) -> list[str]:
    return [line for line in found.get(name, (0, []))[1] if line]


def _read_first(found: Mapping[str, Section], name: str) -> str:
    return next(iter(_read_lines(found, name)), "").strip()


def _parse_device(line: str) -> Device:
    address, vendor, model, kind, *driver = line.split()
    return Device(
        address=address, vendor=VENDORS[vendor], model=model, kind=kind, driver="".join(driver)
    )


def _parse_node(line: str) -> Node:
    path, group, mode = line.split()
    return Node(path=path, group=int(group), mode=mode)


def _parse_cdi(lines: Sequence[str]) -> CdiFile:
    at = next(at for at, line in enumerate(lines) if line.startswith("path "))
    rows = [line.split(" ", 1) for line in lines[:at] if " " in line]
    return CdiFile(
        path="\n".join(lines[at:]).removeprefix("path "),
        versions=tuple(value for word, value in rows if word == "version"),
        devices=tuple(value for word, value in rows if word == "device"),
    )
