"""Whether a server computes for others at this moment, for rooms that would disturb them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.worker.benchmark import guards, identity
from stackmend.worker.benchmark.facts import BenchmarkHost, make_arguments
from stackmend.worker.benchmark.state import BenchmarkState, Machine

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.worker.benchmark.spec import BenchmarkSpec


def read_busy(host: Host, spec: BenchmarkSpec) -> str:
    """What a server computes for others, by the rule of ``worker.benchmarked``; or nothing.

    It is read anew each time: the tasks in the queue before it, its requests under way where it
    lists them, or else the CPU time that its processes use. Nothing is computed for it.

    :param host: the host that reaches it.
    :param spec: which server it is.
    """
    machine = _read_machine(host, spec)
    if isinstance(machine, connection.Unknown):
        return f"what it does for others cannot be read: {machine.reason}"
    answers = identity.ask(host, spec, machine)
    if answers.remedy:
        # It was not asked, because that would end an answer to somebody.
        return answers.reason
    completed = identity.complete(host, spec, machine, answers)
    return guards.explain_busy(spec, BenchmarkState(machine=machine, answers=completed))


def read_introduction(
    host: Host, spec: BenchmarkSpec, client: connection.HTTPClient
) -> identity.Introduction:
    """Ask a server of OpenAI's API what it is, by the rule of ``worker.benchmarked``.

    :param host: the host that reaches it.
    :param spec: which server it is, and whether it may be disturbed.
    :param client: asks it.
    """

    def read() -> Machine:
        machine = _read_machine(host, spec)
        return Machine(now=0.0) if isinstance(machine, connection.Unknown) else machine

    return identity.read_introduction(client, spec, None, read)


def _read_machine(host: Host, spec: BenchmarkSpec) -> Machine | connection.Unknown:
    facts = [(BenchmarkHost, make_arguments(spec, "/nonexistent"))]
    (machine,) = connection.fetch_facts(host, facts)
    assert isinstance(machine, Machine | connection.Unknown)
    return machine
