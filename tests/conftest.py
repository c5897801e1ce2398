"""What all tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from stackmend import redaction
from tests.calm import is_skipped_in_all
from tests.lab.fixtures import (
    bare_host,
    calm_lab,
    closed_host,
    host,
    hosts,
    lab,
    model_registry,
    packages,
    registry,
    trixie_host,
)
from tests.marks import foreseen
from tests.rotating import describe, leave_out
from tests.shells import each_shell
from tests.wheel import home, wheel

# How long one example takes says how busy the machine is; what must be quick is timed by itself.
settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")

# Under nohup the runs that the tests start would ignore it, as they should.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

__all__ = [
    "bare_host",
    "calm_lab",
    "closed_host",
    "each_shell",
    "foreseen",
    "home",
    "host",
    "hosts",
    "lab",
    "model_registry",
    "packages",
    "registry",
    "trixie_host",
    "wheel",
]


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test registers as a secret is not hidden in the next."""
    monkeypatch.setattr(redaction, "_process", redaction.Redactor(redaction.get_secrets()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Say where a machine was late for every exact test: nothing has held them."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and is_skipped_in_all(reporter.stats):
        reporter.write_line("every exact test was skipped: this machine is too busy for them")


#: Modules that take minutes by themselves, mostly waiting: the last to end if they began late.
_SLOW = ("test_checks_probe.py", "test_reference_stack.py")


def pytest_report_header() -> str:
    return describe()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs real hosts, so that ``-m 'not lab'`` runs the rest; and put it in order.

    One worker starts with what needs the lab, and so makes it, while the others have the first
    half of the rest; the second half fills their time until the last tests on hosts have ended.
    """
    leave_out(config, items)
    for item in items:
        # Its examples differ from run to run: no line counts as covered by them. Tracing doubles
        # what they take.
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("no_cover")
    items.sort(key=lambda item: item.path.name not in _SLOW)
    on_hosts: dict[Path, None] = {}
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):  # every fixture that gives hosts needs it
            item.add_marker("lab")
            on_hosts[item.path] = None
    first, *others = on_hosts or [Path()]
    rest = list(dict.fromkeys(item.path for item in items if item.path not in on_hosts))
    order = [first, *rest[::2], *others, *rest[1::2]]
    items.sort(key=lambda item: order.index(item.path))
