"""Health criteria beyond healthchecks, declared by the owner of a stack and checked from outside.

`spec` holds the checks (http, tcp, greeting, name, exec, redis), `facts.CheckResults` runs them on
a host without changing it, `state.CheckResult` is what each found. There is no operation here: the
probe of a stack runs its checks, and so does the verification of a change.

Example::

    pyinfra HOST fact stackmend.checks.facts.CheckResults project=ai \\
        'checks=[{"kind": "tcp", "address": "127.0.0.1:8000"}]'
"""

from stackmend.checks.spec import (
    Check,
    Checks,
    ExecCheck,
    GreetingCheck,
    HttpCheck,
    NameCheck,
    RedisCheck,
    TcpCheck,
    parse_checks,
)
from stackmend.checks.state import CheckResult, Hint, Outcome

__all__ = [
    "Check",
    "CheckResult",
    "Checks",
    "ExecCheck",
    "GreetingCheck",
    "Hint",
    "HttpCheck",
    "NameCheck",
    "Outcome",
    "RedisCheck",
    "TcpCheck",
    "parse_checks",
]
