"""What pyinfra itself reports while a run lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyinfra.api.state import BaseStateCallback

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.reporting.collect import Run

from stackmend import reporting
from stackmend.connection import signals
from stackmend.connection.link import add_address


class Watch(BaseStateCallback):
    """Notes hosts that cannot be reached, and how long each operation takes."""

    @staticmethod
    def host_connect_error(state: State, host: Host, error: Any) -> None:
        """Note why a host cannot be reached."""
        if run := reporting.find_run(state):
            run.connect_errors[host.name] = add_address(host, str(error))
            if listener := reporting.get_listener():
                listener.on_host(host.name, "unreachable", run.measure_seconds())

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: Any) -> None:
        """Start the clock of the operation, unless the run is being ended."""
        signals.proceed()
        # pyinfra begins each operation on each host, and then skips those that the host has not.
        if (run := reporting.find_run(state)) and op_hash in state.ops[host]:
            run.start_operation(host, op_hash)

    @staticmethod
    def operation_host_success(
        state: State, host: Host, op_hash: Any, retry_count: int = 0
    ) -> None:
        """Stop the clock of the operation."""
        if run := reporting.find_run(state):
            run.end_operation(host, op_hash)
            _announce(run, host, op_hash, failed=False)

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: Any, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """Stop the clock of the operation."""
        if run := reporting.find_run(state):
            run.end_operation(host, op_hash)
            _announce(run, host, op_hash, failed=True)


def _announce(run: Run, host: Host, op_hash: str, *, failed: bool) -> None:
    listener = reporting.get_listener()
    data = run.state.get_op_data_for_host(host, op_hash)
    if listener is None or data.parent_op_hash is not None:
        # A host goes on in the operation that another is nested in, whatever became of that one.
        return
    is_final = failed and not data.global_arguments["_ignore_errors"]
    # A host that is only observed is announced with its diagnosis.
    ended = run.has_ended(host) and not run.observed
    if is_final or ended:
        from stackmend.reporting import write

        listener.on_host(
            host.name, write.classify_ended(run, host, failed=failed), run.measure_seconds()
        )
