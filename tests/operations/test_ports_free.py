"""``ports.free`` and ``ports.restored`` with arguments that cannot be right: nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyinfra.api import FunctionCommand, OperationError
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from stackmend import connection, ports, reporting
from stackmend.connection import RemoteError
from stackmend.ports.spec import PortsPolicy
from tests.connected import connected


@pytest.fixture
def host() -> Iterator[Host]:
    with connected("@fake", fake_delay=0) as host, ctx_host.use(host):
        yield host


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "port 0": ({"ports": 0}, "ports[0]: 0: 0 is no port; ports go from 1 to 65535"),
    "port 70000": ({"ports": ["80", "70000"]}, "ports[1]: '70000': 70000 is no port"),
    "protocol": ({"ports": "6379/sctp"}, "ports[0]: '6379/sctp': 'sctp' is not supported"),
    "empty range": ({"ports": "80-79"}, "ports[0]: '80-79': an empty range; write it as 79-80"),
    "no port": ({"ports": "redis"}, "ports[0]: 'redis' is not a port: write PORT"),
    "no address": ({"ports": "host:80"}, "ports[0]: 'host:80': host is not an IP address"),
    "too many": ({"ports": "1-65535"}, "ports[0]: '1-65535': 65535 ports are more than the 4096"),
    "given": ({"ports": lambda: ["0"]}, "ports[0]: '0': 0 is no port"),
    "conflict": ({"on_conflict": "kill"}, "on_conflict: must be 'report' or 'stop'"),
    "rule": ({"allow": ["redis"]}, "allow[0]: must be one of 'exe:…', 'unit:…'"),
    "one rule": ({"allow": "redis"}, "allow[0]: must be one of 'exe:…', 'unit:…'"),
    "protect": ({"protect": ["unit:a", "pid:1"]}, "protect[1]: must be one of"),
    "grace": ({"grace": 0}, "grace: must be greater than 0"),
    "several": ({"settle": -1, "grace": 1e9}, "grace: must be less than or equal to 300; "),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_an_error_of_the_operation(host: Host, case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(OperationError) as raised:
        list(ports.free._inner(**{"ports": 80, **changes}))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert host.connector.executed_commands == []


@pytest.mark.parametrize("case", WRONG)
def test_found_while_executing_it_fails_this_host_alone(host: Host, case: str) -> None:
    """Raised there it would end the run on every other host as well."""
    changes, message = WRONG[case]
    host.state.is_executing = True
    (command,) = ports.free._inner(**{"ports": 80, **changes})
    assert isinstance(command, FunctionCommand)
    assert command.function(host.state, host, *command.args, **command.kwargs) is False
    (failure,) = reporting.record(host, "ports.free").errors
    assert failure.message.startswith(message)
    assert host.connector.executed_commands == []


def test_no_ports_are_nothing_to_do() -> None:
    with connected("@local") as host, ctx_host.use(host):
        before = connection.count_channels(host)
        assert list(ports.free._inner(ports=[])) == []
        assert list(ports.free._inner(ports=lambda: ())) == []
        assert connection.count_channels(host) == before


def test_who_gives_the_ports_is_asked_in_each_phase_and_may_fail(host: Host) -> None:
    asked = []

    def give() -> list[str]:
        asked.append(1)
        raise RemoteError(host.name, "ask for the ports", "cut off")

    for executing in (False, True):
        host.state.is_executing = executing
        (command,) = ports.free._inner(ports=give)
        assert command.function(host.state, host, *command.args) is False
    assert len(asked) == 2
    failures = reporting.record(host, "ports.free").errors
    assert failures
    assert all("cut off" in failure.message for failure in failures)


@pytest.mark.parametrize("record", ["", "..", "20260101T120000Z-1/..", 5, None, "-1"])
def test_a_record_that_is_none(host: Host, record: Any) -> None:
    with pytest.raises(OperationError, match=r"^record: must be a name such as"):
        list(ports.restored._inner(record=record))
    host.state.is_executing = True
    (command,) = ports.restored._inner(record=record)
    assert command.function(host.state, host, *command.args) is False
    assert host.connector.executed_commands == []


@pytest.mark.parametrize("output", ["", "no such image", "Error response from daemon: conflict"])
def test_a_remedy_leaves_other_errors_alone(host: Host, output: str) -> None:
    assert ports.make_remedy(PortsPolicy())(host, output) is False
    assert host.connector.executed_commands == []
