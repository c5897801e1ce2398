"""Results, arranged as a page: pure, without a clock, so that equal results make equal pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from stackmend.text import make_printable
from stackmend.worker import figures
from stackmend.worker.benchmark.state import (
    Comparison,
    Conditions,
    Invalid,
    Level,
    Load,
    Result,
    Shortfall,
)
from stackmend.worker.figures import MISSING, Figure
from stackmend.worker.pictures.common import (
    LONGEST_REASON,
    OUTCOMES,
    STEAL,
    clean,
    count_invalid,
    format_load,
    is_below,
    name_axis,
    name_baseline,
    name_model,
    shorten,
)
from stackmend.worker.pictures.content import Block, Cell, Content, Note, Section
from stackmend.worker.pictures.details import (
    build_fingerprint,
    build_invalid,
    build_repeats,
    build_server_times,
    choose_server_unit,
)
from stackmend.worker.pictures.fleet import build_fleet
from stackmend.worker.pictures.history import build_history
from stackmend.worker.pictures.levels import build_levels, build_overview
from stackmend.worker.pictures.metrics import Metric, choose_metrics, is_measured

#: Hosts of a page that get pictures of their own.
MOST_CHARTED = 40

#: Measurements of a page that are open at once.
MOST_OPEN = 8

#: Figures of a minimum.
MOST_SHORTFALLS = 8

#: After a figure, on the same line.
PERCENT = "\u00a0%"


def build_content(results: Iterable[Result]) -> Content:
    """Arrange what a page, a terminal and pictures show.

    The order of the results does not matter: equal results are shown in the same order.

    :param results: of one or more hosts.
    """
    listed = sorted(
        results,
        key=lambda result: (
            result.measurement.host,
            result.measurement.name,
            result.measurement.target,
            result.measurement.at,
            result.model_dump_json(),
        ),
    )
    labels = _name_results(listed)
    metrics = choose_metrics(listed)
    charted = _choose_charted(listed)
    server_unit = choose_server_unit(listed)
    sections = tuple(
        _build_section(
            result,
            f"m{index}",
            label,
            [metric for metric in metrics if is_measured(metric, result)],
            server_unit,
            charted=index in charted,
            folded=len(listed) > MOST_OPEN,
        )
        for index, (result, label) in enumerate(zip(listed, labels, strict=True))
    )
    several = _name_several(listed)
    fleet = build_fleet(listed, labels, metrics, several) if len(listed) > 1 else ()
    title = f"Benchmark of {labels[0] if len(listed) == 1 else _name_subject(listed)}"
    return Content(title=title, fleet=fleet, sections=sections, several=several)


def _name_subject(results: Sequence[Result]) -> str:
    """What several results are of: as many hosts, or one, and whether that is one server."""
    measured = [result.measurement for result in results]
    hosts = {row.host for row in measured}
    if len(hosts) > 1:
        return f"{len(hosts)} hosts"
    servers = {(row.name, row.target) for row in measured}
    what = clean(measured[0].name) if len(servers) == 1 else f"{len(servers)} servers"
    times = f", {len(results)} times" if len(servers) == 1 else ""
    return f"{clean(measured[0].host)} · {what}{times}"


def _name_several(results: Sequence[Result]) -> str:
    """What stands side by side: hosts, servers of one host, or measurements of one server."""
    measured = [result.measurement for result in results]
    if len({row.host for row in measured}) > 1:
        return "hosts"
    return "servers" if len({(row.name, row.target) for row in measured}) > 1 else "measurements"


def _name_results(results: Sequence[Result]) -> list[str]:
    """What tells each result from the others: the host, and as much more as is needed."""
    parts = [
        (
            clean(measurement.host),
            clean(measurement.name),
            measurement.target,
            figures.format_moment(measurement.at),
        )
        for measurement in (result.measurement for result in results)
    ]
    counts = Counter(part[:length] for part in parts for length in range(1, 5))
    return [
        " · ".join(next((part[:n] for n in range(1, 5) if counts[part[:n]] == 1), part))
        for part in parts
    ]


def _choose_charted(results: Sequence[Result]) -> frozenset[int]:
    """Which results get pictures of their own: all, or those of many that stand out first."""
    if len(results) <= MOST_CHARTED:
        return frozenset(range(len(results)))
    ranked = sorted(
        range(len(results)), key=lambda index: (-_measure_trouble(results[index]), index)
    )
    return frozenset(ranked[:MOST_CHARTED])


def _measure_trouble(result: Result) -> int:
    if is_below(result) or any(row.outcome == "worse" for row in result.comparisons):
        return 2
    noisy = any(summary.noisy for summary in result.summaries)
    return int(noisy or any(count_invalid(summary) for summary in result.summaries))


def _build_section(
    result: Result,
    anchor: str,
    label: str,
    metrics: Sequence[Metric],
    server_unit: figures.Unit,
    *,
    charted: bool,
    folded: bool,
) -> Section:
    measurement = result.measurement
    subtitle = " · ".join(
        shorten(clean(part), 28)
        for part in (
            measurement.host,
            measurement.fingerprint.engine,
            name_model(measurement),
        )
        if part
    )
    blocks = [build_levels(result, metric, anchor, subtitle) for metric in metrics]
    if history := build_history(result, anchor, subtitle):
        blocks.append(history)
    if not charted:
        blocks = [Block(block.table, note=block.note) for block in blocks]
    blocks.append(Block(build_server_times(result, server_unit), folded=True))
    blocks.append(
        Block(
            build_repeats(result, metrics),
            note="Each repeat is one run of requests; the repeats are what is compared.",
            folded=True,
        )
    )
    if invalid := build_invalid(result):
        blocks.append(Block(invalid, note="These samples are in no figure above."))
    blocks.append(
        Block(
            build_fingerprint(result),
            note="The figures hold while all of this stays the same.",
            folded=True,
        )
    )
    notes = list(_list_notes(result))
    if not charted:
        notes.append(
            Note(
                f"{MOST_CHARTED} hosts of a page get pictures of their own, first those that "
                "stand out; draw this result alone to get them",
                "",
            )
        )
    return Section(
        anchor=anchor,
        title=label,
        facts=tuple(_list_facts(result)),
        notes=tuple(notes),
        blocks=tuple(blocks),
        overview=build_overview(result, metrics),
        folded=folded,
    )


def _list_facts(result: Result) -> Iterator[tuple[str, Cell]]:
    measurement, fingerprint = result.measurement, result.measurement.fingerprint
    yield "server", Cell((clean(measurement.name),))
    yield "engine", Cell((clean(f"{fingerprint.engine} {fingerprint.version}".strip()),))
    if model := name_model(measurement):
        yield "model", Cell((clean(model),))
    if fingerprint.processor:
        yield "on", Cell((clean(fingerprint.processor),))
    yield "measured", Cell((figures.format_moment(measurement.at),))
    yield "because", Cell((clean(measurement.cause, LONGEST_REASON) or MISSING,))
    rtt = Figure(measurement.rtt, figures.MILLISECONDS)
    yield "round trip", Cell((rtt, " ms") if measurement.rtt else (MISSING,))
    if measurement.load is not None:
        yield "model loaded in", Cell((Figure(measurement.load, figures.SECONDS), " s"))
    if result.baseline is not None:
        moment = figures.format_moment(result.baseline.at)
        engine = clean(result.baseline.fingerprint.engine)
        yield name_baseline(result), Cell((f"{engine}, {moment}",))


def _list_notes(result: Result) -> Iterator[Note]:
    for shortfall in result.shortfalls[:MOST_SHORTFALLS]:
        yield Note(_describe_shortfall(shortfall), "bad" if shortfall.fails else "warn")
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in result.comparisons:
        groups.setdefault((comparison.figure, comparison.outcome), []).append(comparison)
    for (figure, outcome), comparisons in groups.items():
        if outcome != "equal":
            yield Note(_describe_comparisons(figure, comparisons), OUTCOMES[outcome][1])
    for summary in result.summaries:
        if summary.noisy:
            yield Note(f"noisy at {summary.load}: {clean(summary.noisy, LONGEST_REASON)}")
        if not summary.median.valid:
            yield Note(f"no sample counts at {summary.load}", "bad")
    invalid: Counter[Invalid] = Counter()
    for summary in result.summaries:
        invalid.update(count_invalid(summary))
    if total := invalid.total():
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in invalid.items())
        yield Note(f"{total:,} sample{'s do' if total != 1 else ' does'} not count: {kinds}")
    yield from _list_conditions(result.measurement.levels)


#: Figures that are compared, in words.
_NAMES = {
    "output_tps": "throughput",
    "ttft": "time to first token",
    "tpot": "time for each further token",
    "end": "time for a task",
}

#: Figures that have a minimum, in words, with their unit.
_MINIMA = {
    "output_tps": ("throughput", figures.TOKENS),
    "decode_tps": ("decoding of one request", figures.TOKENS),
    "requests_ps": ("requests", figures.REQUESTS),
    "goodput": ("requests within the limits", figures.REQUESTS),
    "tasks_pm": ("tasks", figures.TASKS),
}

_OUTCOMES_IN_WORDS = {
    "worse": "worse than before",
    "better": "better than before",
    "noisy": "too noisy to compare",
}


def _describe_shortfall(row: Shortfall) -> str:
    name, unit = _MINIMA.get(row.figure, (clean(row.figure), figures.PLAIN))
    minimum = f"minimum {figures.format_setting(row.minimum)} {unit.name}".rstrip()
    if row.value is None:
        return f"below {minimum}: the server does not say {name}"
    # Stored in the unit of the minimum already.
    reached = f"{name} is {figures.format_figure(row.value)} at its best load"
    if row.most is not None:
        reached += f", {figures.format_figure(row.most)} in its best repeat"
    if row.fails:
        return f"below {minimum}: {reached}"
    return f"{minimum} not reached: {reached}; not proven, {clean(row.noise, LONGEST_REASON)}"


def _describe_comparisons(figure: str, comparisons: Sequence[Comparison]) -> str:
    changes = _list_by_load(
        (
            item.load,
            f"{figures.format_figure(item.ratio - 1, figures.PERCENT, signed=True)}{PERCENT}",
        )
        for item in comparisons
    )
    name = _NAMES.get(figure, clean(figure))
    return f"{name} is {_OUTCOMES_IN_WORDS[comparisons[0].outcome]} ({changes})"


def _list_by_load(texts: Iterable[tuple[Load, str]]) -> str:
    pairs = list(texts)
    axis = name_axis(load for load, _ in pairs)
    return f"{axis} {', '.join(f'{format_load(load)}: {text}' for load, text in pairs)}"


def _list_conditions(levels: Sequence[Level]) -> Iterator[Note]:
    """What the host did that makes figures worse, in words."""
    for name, describe in _CONDITIONS:
        found = [
            (level.load, text)
            for level in levels
            if (text := describe([repeat.conditions for repeat in level.repeats]))
        ]
        if found:
            yield Note(f"{name} ({_list_by_load(found)})")


def _describe_throttling(conditions: Sequence[Conditions]) -> str:
    seconds = sum(condition.throttled or 0 for condition in conditions)
    return f"{figures.format_figure(seconds)} s" if seconds > 0 else ""


def _describe_steal(conditions: Sequence[Conditions]) -> str:
    steal = max((condition.steal or 0 for condition in conditions), default=0)
    return f"{figures.format_figure(steal, figures.PERCENT)}{PERCENT}" if steal >= STEAL else ""


def _describe_gpu(conditions: Sequence[Conditions]) -> str:
    reasons = {clean(reason) for condition in conditions for reason in condition.gpu_throttle}
    return make_printable(", ".join(sorted(reasons)))


def _count(take: Callable[[Conditions], int | None]) -> Callable[[Sequence[Conditions]], str]:
    def describe(conditions: Sequence[Conditions]) -> str:
        count = sum(take(condition) or 0 for condition in conditions)
        return f"{count:,}" if count else ""

    return describe


_CONDITIONS: tuple[tuple[str, Callable[[Sequence[Conditions]], str]], ...] = (
    ("the server's control group was throttled", _describe_throttling),
    ("the hypervisor gave CPU time to others, at most", _describe_steal),
    ("pages came in from swap", _count(lambda item: item.swapped)),
    ("the kernel killed processes for memory", _count(lambda item: item.oom_kills)),
    ("the CPU was throttled for its temperature", _count(lambda item: item.thermal)),
    ("the GPU's clock was held back", _describe_gpu),
)
