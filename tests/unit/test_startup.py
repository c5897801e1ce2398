"""What a run has pyinfra do once, and not again for each host."""

from __future__ import annotations

import pytest
from pyinfra.api import arguments
from pyinfra.api.host import Host

from stackmend import startup
from stackmend.connection.settings import resolve


def test_the_types_of_arguments_are_read_once(here: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    types, options = arguments.all_global_arguments(), {"_sudo": True, "_env": {"A": "1"}}
    # Put back at the end of the test.
    monkeypatch.setattr(arguments, "all_global_arguments", arguments.all_global_arguments)
    before = resolve(here, options)
    startup._read_types_once()
    monkeypatch.setattr(arguments, "get_type_hints", pytest.fail)
    assert resolve(here, options) == before
    # What somebody makes of the list is for nobody else.
    arguments.all_global_arguments().clear()
    assert arguments.all_global_arguments() == types
