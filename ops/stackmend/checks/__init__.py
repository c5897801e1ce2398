"""What "well" means, declared by the owner of a stack and looked at from outside.

`spec` holds the checks (http, tcp, exec), `facts.CheckResults` runs them on a host without
changing it, `state.CheckResult` is what each found. There is no operation here: a check is looked
at by the probe of a stack and again when a change to it is verified.

Example::

    pyinfra HOST fact stackmend.checks.facts.CheckResults project=ai \\
        'checks=[{"kind": "tcp", "address": "127.0.0.1:8000"}]'
"""

from stackmend.checks.spec import Check, Checks, ExecCheck, HttpCheck, TcpCheck, validate_checks
from stackmend.checks.state import CheckResult, Hint, Outcome

__all__ = [
    "Check",
    "CheckResult",
    "Checks",
    "ExecCheck",
    "Hint",
    "HttpCheck",
    "Outcome",
    "TcpCheck",
    "validate_checks",
]
