"""The operations of a run, each host at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import gevent  # type: ignore[import-untyped]
from pyinfra.api import operations
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.util import log_operation_start
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_host, ctx_state
from pyinfra.progress import progress_spinner

from stackmend import reporting
from stackmend.errors import describe_fault
from stackmend.fleet import hosts as fleet
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State


def run_ops(state: State, serial: bool = False, no_wait: bool = False) -> None:
    """Run all operations on all hosts; no host waits for another between two operations.

    As pyinfra's own, which has all hosts wait for the slowest after each operation, and with
    ``no_wait`` does not count those that failed. Where it is asked for either manner, or where an
    operation is to run on a few hosts at a time, it is pyinfra's own.

    :param state: the pyinfra state of the run.
    :param serial: one host after the other, as of pyinfra.
    :param no_wait: as of pyinfra.
    :raises PyinfraError: no host is left, or too many failed.
    """
    if serial or no_wait or any(_is_bound(state, meta) for meta in state.op_meta.values()):
        operations.run_ops(state, serial, no_wait)
        return
    state.is_executing = True
    fleet.set_own_pace(state)
    hosts = list(state.inventory.get_active_hosts())
    order = state.get_op_order()  # type: ignore[no-untyped-call]
    run = _Run(state, order)
    with ctx_state.use(state), progress_spinner(hosts) as progress:
        assert state.pool is not None, "it is made with the inventory"
        running = [state.pool.spawn(run.run_host, host, progress) for host in hosts]
        gevent.joinall(running)
    # After the block: an error that left it would leave its spinner at work.
    for each in running:
        each.get()
    if run.ended is not None:
        raise run.ended


def _is_bound(state: State, meta: Any) -> bool:
    arguments = meta.global_arguments
    # By default it is how many hosts the run has at a time, which its pool keeps to.
    parallel = arguments.get("_parallel") or state.config.PARALLEL
    few = parallel < state.config.PARALLEL
    return bool(few or arguments.get("_serial") or arguments.get("_run_once"))


class _Run:
    def __init__(self, state: State, order: Iterable[str]) -> None:
        self._state = state
        self._order = tuple(order)
        #: What ends the run: no host is left, or too many failed.
        self.ended: PyinfraError | None = None

    def run_host(self, host: Host, progress: Callable[[Any], None]) -> None:
        """Run the operations of a host until one fails, and give up what it was held with."""
        try:
            self._run_each(host)
        finally:
            fleet.release(host)
            fleet.note_over(host)
            progress(host)

    def _run_each(self, host: Host) -> None:
        for op_hash in self._order:
            if self.ended is not None:
                return
            if op_hash not in self._state.ops[host]:
                continue
            # Others are in other operations meanwhile.
            log_operation_start(self._state.get_op_meta(op_hash), prefix=host.print_prefix)
            with ctx_host.use(host):
                try:
                    succeeded = operations.run_host_op(self._state, host, op_hash)
                except Exception as error:  # pyinfra catches none of what an operation prepares
                    succeeded = self._end_fault(host, op_hash, error)
            if not succeeded:
                self._fail(host)
                return

    def _end_fault(self, host: Host, op_hash: str, error: Exception) -> bool:
        """End an operation as pyinfra ends one that fails, and report why.

        :returns: whether the host goes on all the same.
        """
        data = self._state.get_op_data_for_host(host, op_hash)
        ignored = bool(data.global_arguments["_ignore_errors"])
        results = self._state.get_results_for_host(host)
        if ignored:
            results.ignored_error_ops += 1
            results.ops += 1
        else:
            results.error_ops += 1
        try:
            self._report(host, op_hash, error)
            self._state.trigger_callbacks("operation_host_error", host, op_hash, 0, 0)
        except BaseException:
            # Its report has a fault of its own, which ends the run once all hosts are done.
            self._fail(host)
            raise
        finally:
            if not data.operation_meta.is_complete():
                data.operation_meta.set_complete(False, [], CommandOutput([]))
        return ignored

    @staticmethod
    def _report(host: Host, op_hash: str, error: Exception) -> None:
        fault = describe_fault(error)
        host.current_op_hash = op_hash
        try:
            report = reporting.record(host)
        finally:
            host.current_op_hash = None
        announce.report_error(host, report, "", str(fault), fault.log)

    def _fail(self, host: Host) -> None:
        try:
            self._state.fail_hosts({host})  # type: ignore[no-untyped-call]
        except PyinfraError as error:
            self.ended = self.ended or error
            # Whoever waits for a turn by now begins nothing.
            fleet.stop(self._state)
