"""``compose.stack`` with arguments that cannot be right: said before anything is sent to a host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pyinfra.api import FunctionCommand, OperationError
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from stackmend import reporting
from stackmend.compose import stack
from tests.connected import connected

SECRET = "correct-horse-battery"


@pytest.fixture
def host() -> Iterator[Host]:
    with connected("@fake", fake_delay=0) as host, ctx_host.use(host):
        yield host


@pytest.fixture
def project(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: 'lab/box:1'}}\n")
    return {"project": "shop", "source": str(tmp_path), "directory": "/opt/shop"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "project": ({"project": "Shop"}, "project: a Compose project name holds lowercase letters"),
    "directory": ({"directory": "opt"}, "directory: must be an absolute path on the host"),
    "source": ({"source": "/nowhere/at/all"}, "source: /nowhere/at/all is not a directory"),
    "check": (
        {"checks": [{"kind": "tcp", "address": "web:0"}]},
        "checks[0].address: port '0' must be a number from 1 to 65535",
    ),
    "check of no service": (
        {"checks": [{"kind": "tcp", "address": "web:80", "inside": "wbe"}]},
        "checks[0].inside: there is no service 'wbe'; there are web",
    ),
    "mend": ({"mend": {"attempt": 1}}, "mend.attempt: unknown key"),
    "consent": ({"allow": ["all"]}, "allow[0]: must be 'container:NAME'"),
    "size": ({"minimum_free": "much"}, "minimum_free: could not parse value and unit"),
    "several": (
        {"stability": -1, "on_failure": "explode"},
        "stability: must be greater than or equal to 0; on_failure: must be",
    ),
    "secret": (
        {"env": {"PIN": SecretStr(SECRET), "OTHER": [SECRET]}},
        "env: OTHER must be text, a number, true, false or a SecretStr, not list",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_an_error_of_the_operation(
    host: Host, project: dict[str, Any], case: str
) -> None:
    changes, message = WRONG[case]
    with pytest.raises(OperationError) as raised:
        list(stack._inner(**{**project, **changes}))
    said = str(raised.value)
    assert said.startswith(message)
    assert SECRET not in said
    assert "\n" not in said
    assert host.connector.executed_commands == []


@pytest.mark.parametrize("case", WRONG)
def test_found_while_executing_it_fails_this_host_alone(
    host: Host, project: dict[str, Any], case: str
) -> None:
    """Raised there it would end the run on every other host as well."""
    changes, message = WRONG[case]
    host.state.is_executing = True
    (command,) = stack._inner(**{**project, **changes})
    assert isinstance(command, FunctionCommand)
    assert command.function(host.state, host, *command.args, **command.kwargs) is False
    assert SECRET not in str(command.args)
    (failure,) = reporting.record(host, "compose.stack").errors
    assert failure.message.startswith(message)
    assert host.connector.executed_commands == []
