"""What the probe printed of units, containers and programs, as tables. Pure."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from stackmend.connection import parse_rows
from stackmend.ports.sockets import normalize
from stackmend.ports.state import Container, Program, Unit
from stackmend.provenance import LABEL, Origin, explain_foreign, is_written_by_compose

Section = tuple[int, list[str]]


def parse_units(found: Mapping[str, Section], names: Mapping[int, str]) -> tuple[Unit, ...]:
    """The units of every manager that was asked."""
    result = []
    for section, (status, lines) in found.items():
        word, _, manager = section.partition(" ")
        if word != "units" or status != 0:
            continue
        if manager.isdecimal():
            manager = names.get(int(manager), manager)
        block: dict[str, list[str]] = {}
        for line in [*lines, ""]:
            key, equals, value = line.partition("=")
            if equals:
                block.setdefault(key, []).append(value)
            elif block:
                result.append(_parse_unit(block, manager))
                block = {}
    return tuple(result)


def _parse_unit(block: Mapping[str, list[str]], manager: str) -> Unit:
    def get_first(key: str) -> str:
        return block.get(key, [""])[0]

    return Unit(
        name=get_first("Id"),
        manager=manager,
        active=get_first("ActiveState"),
        enabled=get_first("UnitFileState"),
        restart=get_first("Restart"),
        main_pid=int(get_first("MainPID")) if get_first("MainPID").isdecimal() else 0,
        triggered_by=tuple(get_first("TriggeredBy").split()),
        triggers=tuple(get_first("Triggers").split()),
        listens=tuple(block.get("Listen", ())),
        fragment=get_first("FragmentPath"),
    )


def parse_containers(found: Mapping[str, Section]) -> tuple[Container, ...]:
    """The containers of every engine that was asked.

    What an engine listed later adds those that it did not list at first.
    """
    result: dict[tuple[str, str], Container] = {}
    for word in ("containers", "later"):
        for section, (_, lines) in found.items():
            kind, _, engine = section.partition(" ")
            if kind != word:
                continue
            images = {
                _strip_algorithm(id_): {
                    LABEL + "project": project or "",
                    LABEL + "config-hash": hash_ or "",
                }
                for id_, project, hash_ in parse_rows(found.get(f"images {engine}", (0, []))[1], 3)
            }
            # A container that ends between being listed and inspected leaves a line of its own.
            for row in (*parse_rows(lines, _WIDTH), *parse_rows(lines, _WIDTH - 1)):
                with suppress(TypeError, ValueError, AttributeError):
                    container = _parse_container(engine, row, images)
                    result.setdefault((engine, container.id), container)
    return tuple(result.values())


#: Labels of Compose's, in the order of a row.
_LABELS = (
    "project",
    "service",
    "project.working_dir",
    "oneoff",
    "project.config_files",
    "container-number",
    "config-hash",
    "image",
)
#: The values of a row; the last is the ports that the container is configured to publish.
_WIDTH = 9 + len(_LABELS)


def _parse_container(
    engine: str, row: Sequence[Any], images: Mapping[str, Mapping[str, str]]
) -> Container:
    image, id_, name, status, pid, restart, mode, ports, *values = row
    values, configured = values[: len(_LABELS)], values[len(_LABELS) :]
    published = _list_published(ports or {})
    if not published and status != "running" and configured:
        # Its proxies are there before the engine shows it running with them, and after.
        published = _list_published(configured[0] or {})
    name = name.removeprefix("/")
    labels = {LABEL + key: value for key, value in zip(_LABELS, values, strict=True) if value}
    of_image = images.get(_strip_algorithm(image))
    origin = Origin(name, image, labels, of_image)
    project = origin.get_label("project")
    from_image = project if of_image is None else of_image[LABEL + "project"]
    if from_image == project and not is_written_by_compose(origin):
        # The word of the image's maker, who knows of no project of this host.
        origin, project = origin._replace(labels={}), ""
    return Container(
        id=id_,
        name=name,
        engine=engine,
        project=project,
        service=origin.get_label("service"),
        working_dir=origin.get_label("project.working_dir"),
        oneoff=origin.get_label("oneoff").lower() == "true",
        foreign=project
        and explain_foreign(origin, project, {origin.get_label("service"): (name,)}),
        running=status in ("running", "paused", "restarting", "stopping"),
        restart=restart or "no",
        published=tuple(sorted(published)),
        host_network=mode == "host",
        pid=pid,
    )


def _strip_algorithm(image: str) -> str:
    """An image's id as every engine writes it: Podman leaves the algorithm out."""
    return image.removeprefix("sha256:")


def _list_published(ports: Mapping[str, Any]) -> set[str]:
    found = set()
    for inner, bindings in ports.items():
        protocol = inner.partition("/")[2] or "tcp"
        for binding in bindings or ():
            address = binding.get("HostIp") or ""
            # An empty address is an engine's way to say every one.
            for host_ip in (address,) if address else ("0.0.0.0", "::"):  # noqa: S104
                normal = normalize(host_ip)
                bracketed = f"[{normal}]" if ":" in normal else normal
                port = binding.get("HostPort") or ""
                # What is only configured may be a range, or left to the engine.
                if port.isdigit() and int(port):
                    found.add(f"{bracketed}:{port}/{protocol}")
    return found


def parse_programs(found: Mapping[str, Section]) -> dict[int, Program]:
    """The programs that supervisord runs, by the number of their process.

    supervisord itself stands for what its client does not list: a program without commands.
    """
    result = {}
    for section, (_, lines) in found.items():
        if not section.startswith("supervisor "):
            continue
        client = (lines[0], "-c", lines[1]) if len(lines) > 1 else ()
        result[int(section.split()[1])] = Program(supervisor="supervisord", name="")
        for line in lines[2:]:
            match = re.match(r"(\S+)\s+\S+\s+pid (\d+),", line)
            if match:
                result[int(match[2])] = Program(
                    supervisor="supervisord",
                    name=match[1],
                    stop=(*client, "stop", match[1]),
                    start=(*client, "start", match[1]),
                )
    return result
