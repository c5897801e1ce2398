"""What a run has pyinfra do once, and not again for each host."""

from __future__ import annotations

import pytest
from pyinfra.api import Config, Inventory, State, arguments
from pyinfra.api.host import Host
from pyinfra.context import ctx_state

from stackmend import startup
from stackmend.connection.settings import find_arguments, resolve


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


def test_settings_are_those_that_pyinfra_resolves() -> None:
    """From each layer of each host's own data, and of no other host's."""
    rows = {
        "plain": {},
        "sudo": {"_sudo": True, "_sudo_user": "ops", "_env": {"A": "1"}},
        "limited": {"_timeout": 7, "_shell_executable": "bash", "stack": {"_sudo": True}},
    }
    inventory = Inventory(([*rows.items()], {"_chdir": "/srv"}), ops=(["sudo"], {"_timeout": 5}))
    state = State(inventory, Config(SUDO=False))
    with ctx_state.use(state):
        for options in ({}, {"_sudo": False, "_chdir": "/"}):
            found = {}
            for name in rows:
                host = inventory.get_host(name)
                expected, _ = arguments.pop_global_arguments(state, host, dict(options))
                found[name], unmanaged = resolve(host, {**options, "path": "/x"})
                assert unmanaged == {"path": "/x"}
                assert find_arguments(host) == arguments.pop_global_arguments(state, host, {})[0]
                assert found[name].sudo is expected["_sudo"]
                assert found[name].sudo_user == expected["_sudo_user"]
                assert found[name].directory == expected["_chdir"]
                assert found[name].timeout == expected["_timeout"]
                assert dict(found[name].env) == (expected["_env"] or {})
            assert len({str(each) + str(each.timeout) for each in found.values()}) == len(rows)
        # What is set during the run counts from then on, for that host.
        inventory.get_host("plain").data._sudo = True
        assert resolve(inventory.get_host("plain"), {})[0].sudo
        assert not resolve(inventory.get_host("limited"), {})[0].sudo
