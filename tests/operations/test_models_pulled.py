"""``models.pulled`` with arguments that cannot be right: nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyinfra.api import FunctionCommand, OperationError
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from stackmend import models, reporting
from stackmend.models.spec import ModelsPolicy, ModelsSpec
from tests.connected import connected


@pytest.fixture
def host() -> Iterator[Host]:
    with connected("@fake", fake_delay=0) as host, ctx_host.use(host):
        yield host


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"models": ["a b"]}, "models[0].name: 'a b' is not a model's name"),
    "scheme": ({"models": ["http://r/a/b"]}, "models[0].name: 'http://r/a/b': a model's name has"),
    "number": ({"models": [7]}, "models[0]: must be a model's name such as"),
    "origins": (
        {"models": [{"name": "a", "source": "b", "gguf": "c"}]},
        "models[0]: give source or gguf, not both",
    ),
    "twice": ({"models": ["a", {"name": "A", "source": "b"}]}, "models: "),
    "both": ({"service": "ollama", "endpoint": "http://a:1"}, "give service or endpoint, not both"),
    "endpoint": ({"endpoint": "ftp://a"}, "endpoint: must be the address of a model server"),
    "update": ({"update": "sometimes"}, "update: must be 'always' or 'never'"),
    "transfer": (
        {"pull_from": "peer", "source": "peer"},
        "give pull_from or source, not both: source is its former name",
    ),
    "stall": ({"stall": 0}, "stall: must be greater than 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_an_error_of_the_operation(host: Host, case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(OperationError) as raised:
        list(models.pulled._inner(**{"models": ["a"], **changes}))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert host.connector.executed_commands == []


@pytest.mark.parametrize("case", WRONG)
def test_found_while_executing_it_fails_this_host_alone(host: Host, case: str) -> None:
    changes, message = WRONG[case]
    host.state.is_executing = True
    (command,) = models.pulled._inner(**{"models": ["a"], **changes})
    assert isinstance(command, FunctionCommand)
    assert command.function(host.state, host, *command.args, **command.kwargs) is False
    (failure,) = reporting.record(host, "models.pulled").errors
    assert failure.message.startswith(message)
    assert host.connector.executed_commands == []


@pytest.mark.parametrize(
    "section",
    [
        {"wanted": ["a", {"name": "b", "source": "r:5000/team/b", "insecure": True}]},
        {"wanted": "a", "endpoint": "http://10.0.0.1:11434", "minimum_free": "3GiB"},
        {"wanted": "a", "service": "models", "pull_from": "peer", "prune": True, "stall": 5},
        {"wanted": "a", "source": "peer"},
        {},
    ],
)
def test_a_stacks_section_becomes_the_operations_arguments(section: dict[str, Any]) -> None:
    """What the deploy passes on is what the stack says, whatever it says."""
    policy = ModelsPolicy.model_validate(section)
    options = models.get_arguments(policy)
    options["wanted"] = options.pop("models")
    spec = ModelsSpec.model_validate(options)
    assert {name: getattr(spec, name) for name in ModelsPolicy.model_fields} == {
        name: getattr(policy, name) for name in ModelsPolicy.model_fields
    }
