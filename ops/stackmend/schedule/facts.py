"""Probe text to state: a host's timers, its cron and its Pythons."""

import re
from collections.abc import Iterator, Mapping, Sequence

from pyinfra.api import FactBase, StringCommand

from stackmend.connection import make_mark, parse_probe, parse_sections, script
from stackmend.paths import STATE_ROOT
from stackmend.schedule.state import HostSchedule, Interpreter
from stackmend.schedule.units import CRON, UNITS

Section = tuple[int, list[str]]

#: Where a host keeps what it runs by itself, in a directory for each timer.
HOME = f"{STATE_ROOT}/schedule"

#: Paths of a host that are kept of a list.
MOST = 50

_PYTHON = re.compile(r"(/\S{1,300}) ([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}) cpython-([0-9]{2,4}) yes")
_HOME = re.compile(r"/[A-Za-z0-9_.@+/-]{0,300}")
_NUMBER = re.compile(r"\.[0-9]+\Z")
_CONTAINER = re.compile(r"/?([A-Za-z0-9][A-Za-z0-9_.-]{0,250})")


class Schedule(FactBase[HostSchedule]):
    """What a host has of a timer of ``schedule.timer``; reads only.

    + unit: the timer's name, such as ``stackmend-controller``.
    + calendar: what its ``OnCalendar`` is to hold.
    + token: the path of a file of this run's machine.
    + secret: what that file holds, by which the machine is known.
    + mode: ``controller`` or ``host``.
    + user: who is to run it.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.schedule.facts.Schedule unit=stackmend-controller
    """

    _mark = ""
    _name = ""
    _secret = ""

    def command(
        self,
        unit: str,
        calendar: str = "",
        token: str = "",
        secret: str = "",
        mode: str = "controller",
        user: str = "root",
    ) -> StringCommand:
        """The probe."""
        self._mark, self._name, self._secret = make_mark(), unit, secret
        words = (unit, calendar, token or "/dev/null", mode, user, f"{HOME}/{unit}")
        return script(
            "stackmend.schedule", "probe", *words, mark=self._mark, before=["copy"], shared=["walk"]
        )

    def process(self, output: list[str]) -> HostSchedule:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(
            lambda lines: parse(lines, self._mark, self._name, self._secret), output, "the timer"
        )


def parse(output: Sequence[str], mark: str, name: str, secret: str = "") -> HostSchedule:
    """Probe output to state.

    :param mark: the mark of this reading.
    :param name: the timer's name.
    :param secret: what the file holds that only this run's machine has.
    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "whole" not in found:
        raise ValueError("it did not run to its end")
    host = dict(_parse_pairs(found["host"][1]))
    cron = host.get("cron", "")
    files = {
        f"{UNITS}/{name}.service": _join(found, "service"),
        f"{UNITS}/{name}.timer": _join(found, "timer"),
        cron if cron == "crontab" else f"{CRON}/{name}": _join(found, "table"),
    }
    units = dict(_parse_units(found["state"][1]))
    timer, service = units.get("timer", {}), units.get("service", {})
    dropins = f"{timer.get('DropInPaths', '')} {service.get('DropInPaths', '')}".split()
    status, message = found.get("calendar", (0, []))
    return HostSchedule.model_validate(
        {
            "root": host["root"] == "0",
            "same": bool(secret) and host.get("token") == secret,
            "system": host.get("system", ""),
            "machine": host.get("machine", "")[:50],
            "library": host.get("library", "")[:200].strip(),
            "login": match[0] if (match := _HOME.fullmatch(host.get("login", ""))) else "",
            "init": host.get("init", ""),
            "version": int(host.get("version") or 0),
            "misfit": " ".join(message)[:300] or f"exit status {status}" if status else "",
            "cron": cron,
            "cron_runs": host.get("runs") == "yes",
            "files": {path: text for path, text in files.items() if text},
            "foreign": tuple(dropins[:MOST]),
            "unread": "yes" in (timer.get("NeedDaemonReload"), service.get("NeedDaemonReload")),
            "enabled": timer.get("UnitFileState") == "enabled",
            "active": timer.get("ActiveState") == "active",
            "masked": "masked" in (timer.get("LoadState"), service.get("LoadState")),
            "leftovers": tuple(line for line in found["leftovers"][1][:MOST] if line),
            "inventory": "".join(found.get("inventory", (0, [""]))[1][:1])[:4096],
            "tools": tuple(line for line in found["tools"][1] if line),
            "reload_takes": tuple(
                match[1]
                for line in found["gpus"][1][:MOST]
                if (match := _CONTAINER.fullmatch(line.strip()))
            ),
            "interpreters": tuple(_parse_pythons(found["pythons"][1])),
            "intact": host.get("intact") == "yes",
            "starts": host.get("starts") == "yes",
            "failure": _describe_failure(service),
            "generation": _NUMBER.sub("", host.get("generation", "").rpartition("/")[2])[:100],
        }
    )


def _parse_pairs(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, value = line.partition(" ")
        yield key, value.strip()


def _parse_units(lines: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    values: dict[str, str] = {}
    for line in lines:
        if line.startswith("unit "):
            values = {}
            yield line.removeprefix("unit "), values
        else:
            key, _, value = line.partition("=")
            values[key] = value


def _describe_failure(service: Mapping[str, str]) -> str:
    result = service.get("Result", "")
    # The last is one that there was nothing to run for.
    if result in ("", "success", "exec-condition"):
        return ""
    return f"{result[:40]}, exit code {service.get('ExecMainStatus', '')[:5]}"


def _join(found: Mapping[str, Section], name: str) -> str:
    lines = found.get(name, (0, []))[1]
    return "".join(f"{line}\n" for line in lines)


def _parse_pythons(lines: Sequence[str]) -> Iterator[Interpreter]:
    known = set()
    for line in lines[:MOST]:
        match = _PYTHON.fullmatch(line.strip())
        if match and match[1] not in known:
            known.add(match[1])
            yield Interpreter(path=match[1], version=match[2], tag=f"cp{match[3]}")
