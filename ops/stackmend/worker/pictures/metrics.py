"""Which figures are drawn, and in which units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stackmend.worker import figures
from stackmend.worker.benchmark.state import Figures, Result, Steadiness, Summary
from stackmend.worker.figures import Unit


@dataclass(frozen=True)
class Metric:
    """A figure that is drawn.

    :param key: its field in a comparison, and in names.
    :param title: in words.
    :param unit: it is written in.
    :param middle: takes its median from the figures of a repeat or level.
    :param high: takes its 95th percentile; ``None`` where it has none.
    :param steadiness: takes how it varies from a summary.
    """

    key: str
    title: str
    unit: Unit
    middle: Callable[[Figures], float | None]
    high: Callable[[Figures], float | None] | None = None
    steadiness: Callable[[Summary], Steadiness | None] = lambda _: None

    @property
    def is_throughput(self) -> bool:
        """Whether it is what a minimum is set for."""
        return self.key in ("output_tps", "requests_ps")


def choose_metrics(results: Sequence[Result]) -> list[Metric]:
    """The metrics with their units: one unit for all hosts, so that they compare."""
    everything = [
        figures_of
        for result in results
        for summary in (*result.summaries, *result.baseline_summaries)
        for figures_of in (summary.median, *summary.repeats)
    ]

    def choose(take: Callable[[Figures], tuple[float, float] | None]) -> Unit:
        return figures.choose_time(
            value for item in everything for value in (take(item) or ()) if item.valid
        )

    return [
        Metric(
            "output_tps",
            "Throughput",
            figures.TOKENS,
            lambda item: item.output_tps if item.valid and item.output_tps else None,
            steadiness=lambda summary: summary.output_tps,
        ),
        Metric(
            "requests_ps",
            "Throughput of the queue",
            figures.TASKS,
            lambda item: item.requests_ps if item.valid else None,
            steadiness=lambda summary: summary.requests_ps,
        ),
        Metric(
            "ttft",
            "Time to first token",
            choose(lambda item: item.ttft),
            lambda item: take_pair(item.ttft, 0),
            lambda item: take_pair(item.ttft, 1),
            lambda summary: summary.ttft,
        ),
        Metric(
            "tpot",
            "Time for each further token",
            choose(lambda item: item.tpot),
            lambda item: take_pair(item.tpot, 0),
            lambda item: take_pair(item.tpot, 1),
            lambda summary: summary.tpot,
        ),
        Metric(
            "end",
            "Time for a task",
            choose(lambda item: item.end),
            lambda item: take_pair(item.end, 0),
            lambda item: take_pair(item.end, 1),
            lambda summary: summary.end,
        ),
    ]


#: Metrics of a queue alone: a model server is measured by its tokens.
_OF_QUEUES = frozenset({"requests_ps", "end"})


def is_measured(metric: Metric, result: Result) -> bool:
    """Whether a result has this figure: tasks of a queue, tokens of a model server."""
    if result.measurement.target != "queue":
        return metric.key not in _OF_QUEUES
    return metric.key in _OF_QUEUES or any(
        metric.middle(summary.median) is not None for summary in result.summaries
    )


def take_pair(pair: tuple[float, float] | None, index: int) -> float | None:
    """The median (0) or the 95th percentile (1) of a pair."""
    return None if pair is None else pair[index]
