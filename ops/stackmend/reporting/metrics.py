"""What runs leave for Prometheus: the last state of each host, and counts that outlive a run.

Names follow https://prometheus.io/docs/practices/naming/: base units, and ``_total`` for what only
grows. Labels hold no text of a host and no id of a run: both would make new series for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field

from stackmend.diagnosis import Diagnosis, Severity
from stackmend.reporting.state import WELL, HostRecord, Outcome, RunRecord
from stackmend.text import make_printable

if TYPE_CHECKING:
    from typing import Self


class Counted(BaseModel):
    """How many of a kind there are.

    :param operation: the operation that found or did them.
    :param kind: a finding's kind, or an action's verb.
    :param count: how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: str
    kind: str
    count: int = Field(ge=0)


class Diagnosed(BaseModel):
    """How many findings of the doctor's are of one incident.

    :param incident: its id; empty for what no incident names.
    :param severity: how bad it is.
    :param count: how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    incident: str
    severity: Severity
    count: int = Field(ge=0)


class HostState(BaseModel):
    """What is known of a host since it is in the inventory.

    :param outcome: of the last run that asked anything of it.
    :param last_run: when that ended, in seconds since 1970.
    :param last_success: when one last ended that proved it well; ``None`` where none did.
    :param seconds: how long the operations on it took in that run.
    :param findings: what that run found, counted.
    :param diagnosed: the root causes that the doctor found since, counted; ``None`` where it was
        not asked since.
    :param runs: how many runs ended with each outcome.
    :param actions: what all runs did, counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Outcome
    last_run: float
    last_success: float | None = None
    seconds: float = 0.0
    findings: tuple[Counted, ...] = ()
    diagnosed: tuple[Diagnosed, ...] | None = None
    runs: dict[Outcome, int] = {}
    actions: tuple[Counted, ...] = ()

    def add(self, record: HostRecord, ended: float) -> Self:
        """The same after another run."""
        runs = Counter(self.runs)
        runs[record.outcome] += 1
        found = Counter(
            (operation.name, finding.kind)
            for operation in record.operations
            for finding in operation.findings
        )
        done = Counter({(each.operation, each.kind): each.count for each in self.actions})
        done.update(
            (operation.name, action.verb)
            for operation in record.operations
            for action in operation.done
            if action.result == "done"
        )
        return self.model_copy(
            update={
                "outcome": record.outcome,
                "last_run": ended,
                "last_success": ended if record.outcome in WELL else self.last_success,
                "seconds": sum(operation.seconds for operation in record.operations),
                "findings": _count(found),
                "diagnosed": None,
                "runs": dict(runs),
                "actions": _count(done),
            }
        )

    def diagnose(self, diagnosis: Diagnosis) -> Self:
        """The same after the doctor."""
        found = Counter(
            (finding.incident, finding.severity)
            for finding in diagnosis.findings
            if not finding.explained_by
        )
        diagnosed = tuple(
            Diagnosed(incident=incident, severity=severity, count=count)
            for (incident, severity), count in sorted(found.items())
        )
        return self.model_copy(update={"diagnosed": diagnosed})


class History(BaseModel):
    """What the metrics of one file are made from.

    :param version: of this form.
    :param hosts: by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    hosts: dict[str, HostState] = {}


def update(history: History, record: RunRecord, inventory: Collection[str]) -> History:
    """What is known after a run.

    A dry one proves nothing: it changes nothing but the hosts listed, and, where it was the
    doctor's and asked for everything, what was found on hosts that are known.

    :param history: what was known before.
    :param record: the run.
    :param inventory: the names of all hosts; what is known of others is dropped.
    """
    known = {name: state for name, state in history.hosts.items() if name in inventory}
    if record.mode == "dry":
        for name, host in record.hosts.items():
            if name in known and host.diagnosis is not None and not host.diagnosis.only:
                known[name] = known[name].diagnose(host.diagnosis)
        return History(hosts=known)
    ended = record.ended.timestamp()
    for name, host in record.hosts.items():
        # A run that asks nothing of a host, or leaves it to another one, says nothing of how it is.
        if name in inventory and host.outcome not in ("unmanaged", "locked"):
            before = known.get(name) or HostState(outcome="unknown", last_run=ended)
            known[name] = before.add(host, ended)
    return History(hosts=known)


def _count(found: Mapping[tuple[str, str], int]) -> tuple[Counted, ...]:
    return tuple(
        Counted(operation=operation, kind=kind, count=count)
        for (operation, kind), count in sorted(found.items())
    )


class Families(Collector):
    """The families of metrics, as a registry of ``prometheus_client`` collects them."""

    def __init__(self, history: History, version: str) -> None:
        self._history = history
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Each family, whether or not it has a sample: its meaning is there from the first run."""
        build = GaugeMetricFamily(
            "stackmend_build_info", "The version of stackmend that ran last.", labels=["version"]
        )
        build.add_metric([self._version], 1)
        yield build
        hosts = [
            (make_printable(name), state) for name, state in sorted(self._history.hosts.items())
        ]
        state = GaugeMetricFamily(
            "stackmend_host_state",
            "Whether the host's last run ended with this outcome.",
            labels=["host", "state"],
        )
        last_run = GaugeMetricFamily(
            "stackmend_last_run_timestamp_seconds",
            "When the host's last run ended.",
            labels=["host"],
        )
        success = GaugeMetricFamily(
            "stackmend_last_success_timestamp_seconds",
            "When a run last proved the host well; 0 where none has.",
            labels=["host"],
        )
        seconds = GaugeMetricFamily(
            "stackmend_run_duration_seconds",
            "How long the operations of the host's last run took.",
            labels=["host"],
        )
        findings = GaugeMetricFamily(
            "stackmend_findings",
            "What the host's last run found, or the doctor since: then by incident and severity.",
            labels=["host", "operation", "kind", "incident", "severity"],
        )
        runs = CounterMetricFamily(
            "stackmend_runs", "Runs that ended with this outcome.", labels=["host", "outcome"]
        )
        actions = CounterMetricFamily(
            "stackmend_actions",
            "What runs did on the host.",
            labels=["host", "operation", "verb"],
        )
        for name, host in hosts:
            for outcome in get_args(Outcome):
                state.add_metric([name, outcome], host.outcome == outcome)
                runs.add_metric([name, outcome], host.runs.get(outcome, 0))
            last_run.add_metric([name], host.last_run)
            success.add_metric([name], host.last_success or 0)
            seconds.add_metric([name], host.seconds)
            for cause in host.diagnosed or ():
                findings.add_metric([name, "", "", cause.incident, cause.severity], cause.count)
            for each in host.findings if host.diagnosed is None else ():
                findings.add_metric([name, each.operation, each.kind, "", ""], each.count)
            for each in host.actions:
                actions.add_metric([name, each.operation, each.kind], each.count)
        yield from (state, last_run, success, seconds, findings, runs, actions)
