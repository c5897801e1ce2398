"""What a host does while a repeat runs: counters before and after it, and their difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.errors import StepError
from stackmend.worker.benchmark import guards
from stackmend.worker.benchmark.state import Conditions

if TYPE_CHECKING:
    from pyinfra.api.command import StringCommand
    from pyinfra.api.host import Host

#: Reads the host's conditions, before a repeat; what it gives reads them again, and tells what
#: happened between.
ReadConditions = Callable[[], Callable[[], Conditions]]

#: Seconds that one reading may take.
TIMEOUT = 30.0

#: The largest number that a counter may have.
LARGEST = 1e18

#: Bits of a GPU's reasons for a lower clock, those that are no choice of anybody's.
GPU_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software, for its temperature",
    0x40: "hardware, for its temperature",
    0x80: "power brake",
}

_COUNT = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True)
class Counters:
    """What a host has counted so far; a part that it does not say is left out.

    :param ticks: of all CPUs together: in all, idle, and stolen.
    :param swapped: pages that came in from swap.
    :param oom_kills: processes killed for memory.
    :param available: share of the memory that programs may still take.
    :param load_average: over one minute.
    :param thermal: events of thermal throttling.
    :param throttled: how often, and for how many seconds, each control group was held back.
    :param used: seconds of CPU time that the server's own groups used.
    :param gpu_throttle: reasons for which a GPU's clock is held back.
    :param gpu_temperature: degrees Celsius of the hottest GPU.
    """

    ticks: tuple[float, float, float] | None = None
    swapped: int | None = None
    oom_kills: int | None = None
    available: float | None = None
    load_average: float | None = None
    thermal: int | None = None
    throttled: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    used: float | None = None
    gpu_throttle: tuple[str, ...] = ()
    gpu_temperature: float | None = None


def make_reader(host: Host, processes: Sequence[int]) -> ReadConditions:
    """What reads a host before a repeat; what it gives reads it again, and says what was between.

    Each reading is one command of some milliseconds. A reading that fails leaves nothing known, and
    no measurement fails of it.

    :param host: the host.
    :param processes: the server's, on the host; none where they are not known.
    """

    def read() -> Counters:
        mark = connection.make_mark()
        try:
            result = connection.run(host, _build(mark, processes), readonly=True, timeout=TIMEOUT)
            return parse(result.stdout.decode(errors="replace").split("\n"), mark)
        except (connection.CommandTimeout, ValueError):
            return Counters()

    def begin() -> Callable[[], Conditions]:
        before = read()
        return lambda: compute_conditions(before, read())

    return begin


class Shortage(StepError):
    """A host runs out of memory while it is measured."""


def guard(
    read: ReadConditions, check: Callable[[], None], remedy: str, *, allowed: bool
) -> ReadConditions:
    """What reads a host, and ends a measurement before the host runs out of memory.

    :param read: reads it.
    :param check: raises an error where the lock of the measurement was lost.
    :param remedy: what would allow to go on.
    :param allowed: whether that is allowed.
    """

    def begin() -> Callable[[], Conditions]:
        # Without the lock another run may measure, or change what is measured.
        check()
        end = read()

        def finish() -> Conditions:
            found = end()
            if (reason := guards.find_shortage(found)) and not allowed:
                raise Shortage(
                    f"stopped measuring: {reason}; free memory, then run again; {remedy}"
                )
            return found

        return finish

    return begin


def _build(mark: str, processes: Sequence[int]) -> StringCommand:
    return connection.script(
        "stackmend.worker.benchmark",
        "conditions",
        *map(str, processes),
        mark=mark,
        before=["group"],
    )


def parse(output: Sequence[str], mark: str) -> Counters:
    """What the script printed.

    :raises ValueError: it is not the script's, or was cut off.
    """
    found = connection.parse_sections(output, mark)
    if "complete" not in found:
        raise ValueError("it did not run to its end")
    lines = {name: rows for name, (_, rows) in found.items()}
    memory = dict(_split_pairs(lines.get("memory", ())))
    throttled, used = _parse_groups(lines.get("groups", ()))
    reasons, temperature = _parse_gpus(lines.get("gpus", ()))
    thermal = [value for row in lines.get("thermal", ()) if (value := _parse(row)) is not None]
    average = _parse((lines.get("load") or [""])[0].partition(" ")[0])
    return Counters(
        ticks=_parse_ticks(lines.get("stat", ())),
        swapped=_convert_count(memory.get("pswpin")),
        oom_kills=_convert_count(memory.get("oom_kill")),
        available=_compute_share(memory.get("MemAvailable"), memory.get("MemTotal")),
        load_average=average,
        thermal=int(sum(thermal)) if thermal else None,
        throttled=throttled,
        used=used,
        gpu_throttle=reasons,
        gpu_temperature=temperature,
    )


def compute_conditions(before: Counters, after: Counters) -> Conditions:
    """What happened between two readings; a counter that went back says nothing."""
    held = [
        (times - before.throttled[name][0], seconds - before.throttled[name][1])
        for name, (times, seconds) in after.throttled.items()
        if name in before.throttled
    ]
    held = [(times, seconds) for times, seconds in held if times >= 0 and seconds >= 0]
    steal = busy = others = None
    if before.ticks is not None and after.ticks is not None:
        total, idle, stolen = (
            now - then for now, then in zip(after.ticks, before.ticks, strict=True)
        )
        if total > 0 and 0 <= idle <= total and 0 <= stolen <= total:
            steal = stolen / total
            busy = (total - idle - stolen) / total
            # USER_HZ is 100 on every architecture that containers run on.
            own = _subtract(after.used, before.used)
            if own is not None:
                others = min(1.0, max(0.0, busy - own * 100 / total))
    return Conditions(
        throttled=max((seconds for _, seconds in held), default=None),
        throttled_periods=max((times for times, _ in held), default=None),
        steal=steal,
        busy=busy,
        others=others,
        swapped=_convert_count(_subtract(after.swapped, before.swapped)),
        oom_kills=_convert_count(_subtract(after.oom_kills, before.oom_kills)),
        available=after.available,
        load_average=after.load_average,
        thermal=_convert_count(_subtract(after.thermal, before.thermal)),
        gpu_throttle=after.gpu_throttle,
        gpu_temperature=after.gpu_temperature,
    )


def _subtract(after: float | None, before: float | None) -> float | None:
    if after is None or before is None or after < before:
        return None
    return after - before


def _compute_share(part: float | None, total: float | None) -> float | None:
    return None if part is None or not total else min(1.0, part / total)


def _convert_count(value: float | None) -> int | None:
    return None if value is None else int(value)


def _parse(text: str) -> float | None:
    text = text.strip()
    return float(text) if _COUNT.fullmatch(text) and float(text) <= LARGEST else None


def _split_pairs(rows: Sequence[str]) -> list[tuple[str, float]]:
    found = []
    for row in rows:
        name, _, rest = row.partition(" ")
        if (value := _parse(rest)) is not None:
            found.append((name, value))
    return found


def _parse_ticks(rows: Sequence[str]) -> tuple[float, float, float] | None:
    """Of ``cpu user nice system idle iowait irq softirq steal …``; guests are within user."""
    fields = (rows or [""])[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    values = [_parse(text) for text in fields[1:9]]
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return None
    return sum(known), known[3] + known[4], known[7]


def _parse_groups(
    rows: Sequence[str],
) -> tuple[dict[str, tuple[int, float]], float | None]:
    throttled: dict[str, tuple[int, float]] = {}
    used: list[float] = []
    for row in rows[:1000]:
        match row.split():
            case [name, "throttled", times, seconds]:
                count, held = _parse(times), _parse(seconds)
                if count is not None and held is not None:
                    throttled[name] = (int(count), held)
            case [_, "used", seconds]:
                if (value := _parse(seconds)) is not None:
                    used.append(value)
    return throttled, sum(used) if used else None


def _parse_gpus(rows: Sequence[str]) -> tuple[tuple[str, ...], float | None]:
    mask, temperatures = 0, []
    for row in rows[:64]:
        reasons, _, degrees = row.partition(",")
        if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", reasons.strip()):
            mask |= int(reasons, 16)
        if (value := _parse(degrees)) is not None and value < 1000:
            temperatures.append(value)
    names = tuple(name for bit, name in GPU_REASONS.items() if mask & bit)
    return names, max(temperatures, default=None)
