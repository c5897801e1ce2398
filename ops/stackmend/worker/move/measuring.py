"""The legacy worker and the new one, measured in turns and held against each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from stackmend.errors import StepError
from stackmend.models.spec import DEFAULT_PORT
from stackmend.reporting import announce
from stackmend.worker.benchmark import conditions, progress, statistics, store, turns
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.interleaving import measure_interleaved
from stackmend.worker.benchmark.learning import TooSlow
from stackmend.worker.benchmark.measuring import measure
from stackmend.worker.benchmark.state import Comparison, Fingerprint, Measurement, Result
from stackmend.worker.move.spec import ATTEMPTS

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.worker.benchmark.conditions import ReadConditions
    from stackmend.worker.benchmark.progress import OnProgress
    from stackmend.worker.benchmark.spec import Profile
    from stackmend.worker.benchmark.state import Level, Summary
    from stackmend.worker.move.spec import MovePolicy
    from stackmend.worker.move.state import Move, Runner

#: What decides.
FIGURE = "output_tps"


class Measured(NamedTuple):
    """Both, and what they come to.

    :param comparison: what decides.
    :param comparisons: of every figure.
    :param old: the levels of the legacy worker; none where it ended no request in time.
    :param new: those of the new one.
    :param cut: seconds after which each request to the legacy worker was cut off; 0 where not all.
    :param at: when it began, in seconds since 1970; it names what is collected.
    """

    comparison: Comparison
    comparisons: tuple[Comparison, ...]
    old: tuple[Level, ...]
    new: tuple[Level, ...]
    cut: float = 0.0
    at: float = 0.0

    @property
    def slowest(self) -> float:
        """Seconds of the slowest request to the legacy worker; of one cut off, what it had."""
        ends = [
            sample.end
            for level in self.old
            for repeat in level.repeats
            for sample in repeat.samples
            if sample.invalid in (None, "timeout")
        ]
        return max(ends, default=self.cut)


def measure_move(
    host: Host,
    spec: MovePolicy,
    move: Move,
    phase: str,
    find: Callable[[str], Runner],
    on_result: Callable[[Path], None],
) -> Measured:
    """Measure both of a move, once more where that cannot be compared, and collect what it is.

    :param host: the host.
    :param spec: how both are measured, and what may be done although it disturbs.
    :param phase: whether clients call the legacy worker meanwhile (``before``) or the new one.
    :param find: the container of a service, which runs.
    :param on_result: called with where the result lies on this machine.
    :raises StepError: one of them cannot be measured.
    """
    endpoint = Endpoint("openai", find(move.legacy).addresses[0], move.port, "")
    # Those of worker.benchmarked: what it measures spoils this, and this what it measures.
    with turns.hold_turn(host, endpoint) as lease:
        source, target = find(move.legacy), find(move.target)
        reader = conditions.guard(
            conditions.make_reader(host, (source.process, target.process)),
            lease.check,
            'to allow it, add to the section "engine": "allow": ["memory"]',
            allowed="memory" in spec.allow,
        )
        pair = (source.addresses[0], move.port), (target.addresses[0], DEFAULT_PORT)
        for attempt in range(1, ATTEMPTS + 1):
            started = time.time()
            try:
                with progress.display(host, f"{move.legacy}, {move.target}") as on_progress:
                    measured = measure_both(
                        host,
                        *pair,
                        move.models[0].name,
                        spec.profile,
                        spec.margin,
                        reader,
                        on_progress,
                    )
            except conditions.Shortage:
                # It would run out of memory again.
                raise
            except StepError as error:
                if attempt == ATTEMPTS:
                    raise
                # What disturbs one measurement is no reason to recreate clients.
                announce.show_line(host, f"  measured again: {error}")
            else:
                measured = measured._replace(at=started)
                if (path := _collect(host, spec, move, phase, measured)) is not None:
                    on_result(path)
                return measured
        raise AssertionError("the last attempt returns or raises")


def find_collected(host: Host, move: Move, at: float) -> Path | None:
    """Where a measurement of a move was collected; ``None`` where this machine has it not.

    :param host: the host.
    :param move: what is moved.
    :param at: when it began.
    """
    path = store.find_path(host, _name_result(move), at)
    return path if path is not None and path.is_file() else None


def _name_result(move: Move) -> str:
    return f"move.{move.target}"


def _collect(
    host: Host, spec: MovePolicy, move: Move, phase: str, measured: Measured
) -> Path | None:
    """Write both to the controller, as ``worker.benchmarked`` does; no move fails of that."""
    called = move.legacy if phase == "before" else move.target
    at = measured.at
    cause = f"{move.legacy} is moved to {move.target}; clients called {called}"
    model = move.models[0].name
    old = make_measurement(
        host.name, "openai", move.legacy, move.engine, model, measured.old, cause, at
    )
    new = make_measurement(
        host.name, "ollama", move.target, spec.engine, model, measured.new, cause, at
    )
    try:
        result = make_result(measured, old, new, spec.profile)
        path = store.collect(host, _name_result(move), result)
    except StepError as error:
        announce.show_line(host, f"  {error}")
        return None
    if path is not None:
        announce.show_line(host, f"  measured: {path}")
    return path


def measure_both(
    host: Host,
    old: tuple[str, int],
    new: tuple[str, int],
    model: str,
    profile: Profile,
    margin: float,
    read_conditions: ReadConditions | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Measured:
    """Measure a server of OpenAI's API and an Ollama in turns, old, new, new, old.

    Both have the model in memory before anything counts, and keep it. Ollama is asked by its own
    API, which keeps the model until the end and says of each answer whether it was loaded for it;
    through OpenAI's that would be time to the first token. Of both the prompts are read as they
    are sent, without a template.

    A legacy worker that ends no request within the profile's ``timeout`` has no levels: the new one
    is held against the most that it can have written in that time.

    :param old: address and port of the legacy worker, as the host sees it.
    :param new: those of the new one, an Ollama.
    :param model: the name that clients ask for.
    :param margin: by how much they have to differ.
    :param read_conditions: reads what the host does meanwhile.
    :param on_progress: called after each request.
    :raises StepError: one of them cannot be measured.
    """
    ends = [Endpoint("openai", *old, model), Endpoint("ollama", *new, model)]
    try:
        levels = measure_interleaved(host, ends[0], ends[1], profile, read_conditions, on_progress)
    except TooSlow as error:
        if error.endpoint != ends[0]:
            raise
        return _measure_alone(host, ends[1], profile, margin, read_conditions, on_progress)
    before, after = (
        [statistics.summarize(level, profile.limits) for level in each] for each in levels
    )
    for name, summaries in (("legacy worker", before), ("new one", after)):
        if not any(row.valid for summary in summaries for row in summary.repeats):
            raise StepError(
                f"the {name} cannot be measured: no request to it counts: {_explain(levels)}"
            )
    compared = statistics.compare(before, after, margin)
    found = [each for each in compared if each.figure == FIGURE]
    if not found:
        raise StepError("the two cannot be compared: no level was measured of both")
    # Of several levels the one at which the new one is least ahead decides.
    return Measured(min(found, key=lambda each: each.ratio), compared, *levels)


def make_result(measured: Measured, old: Measurement, new: Measurement, profile: Profile) -> Result:
    """Both as one result: the new one, with the legacy worker as its baseline.

    :param old: the legacy worker's measurement.
    :param new: the new one's.
    :param profile: how they were measured.
    """
    summaries = [
        tuple(statistics.summarize(level, profile.limits) for level in each.levels)
        for each in (old, new)
    ]
    return Result(
        measurement=new,
        summaries=summaries[1],
        baseline=old,
        baseline_summaries=summaries[0],
        comparisons=tuple(map(_decide, measured.comparisons)),
    )


def _decide(found: Comparison) -> Comparison:
    """What decided, as it decided: measured in turns, both were disturbed by the same."""
    if found.figure != FIGURE or found.outcome != "noisy" or found.p >= statistics.SIGNIFICANT:
        return found
    outcome = "better" if found.ratio > 1 else "worse"
    return found.model_copy(update={"outcome": outcome})


def make_measurement(
    host: str,
    target: Literal["openai", "ollama"],
    service: str,
    engine: str,
    model: str,
    levels: tuple[Level, ...],
    cause: str,
    at: float,
) -> Measurement:
    """One side as measurements are kept.

    :param host: the host's name in the inventory.
    :param target: the API that it was asked by.
    :param at: when it began, in seconds since 1970.
    """
    return Measurement(
        target=target,
        name=f"service {service}",
        model=model,
        host=host,
        at=at,
        cause=cause,
        fingerprint=Fingerprint(parameters="move", engine=engine, model=model),
        levels=levels,
    )


def _measure_alone(
    host: Host,
    end: Endpoint,
    profile: Profile,
    margin: float,
    read_conditions: ReadConditions | None,
    on_progress: OnProgress,
) -> Measured:
    """The new one, held against the most that a legacy worker can have done that was too slow."""
    levels = measure(host, end, profile, read_conditions, on_progress)
    bounds = tuple(
        _compare_bound(statistics.summarize(level, profile.limits), profile, margin)
        for level in levels
    )
    return Measured(min(bounds, key=lambda each: each.ratio), bounds, (), levels, profile.timeout)


def _compare_bound(new: Summary, profile: Profile, margin: float) -> Comparison:
    most = max(new.load.concurrency, 1) * profile.output_tokens / profile.timeout
    speeds = [row.output_tps for row in new.repeats if row.valid]
    p = statistics.compute_p([most] * len(new.repeats), speeds)
    ratio = new.output_tps.median / most
    return Comparison(
        load=new.load,
        figure=FIGURE,
        before=most,
        after=new.output_tps.median,
        ratio=ratio,
        threshold=margin,
        p=p,
        outcome="better" if ratio > 1 + margin and p < statistics.SIGNIFICANT else "noisy",
        reason=f"no request to the legacy worker ended within {profile.timeout:g} s",
    )


def _explain(levels: tuple[tuple[Level, ...], tuple[Level, ...]]) -> str:
    reasons = [
        sample.reason or str(sample.invalid)
        for side in levels
        for level in side
        for repeat in level.repeats
        for sample in repeat.samples
        if sample.invalid
    ]
    return "; ".join(dict.fromkeys(reasons[:3])) or "none was sent"
