"""What a check found."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["passed", "failed", "unknown"]
"""`unknown` is not a pass and not a failure: nothing could be asked, and the evidence says why."""

Hint = Literal[
    "container-missing",
    "container-not-running",
    "container-paused",
    "name-not-resolved",
    "no-shared-network",
    "nothing-listens",
    "loopback-only",
    "forwarding-off",
    "forwarding-blocked",
    "nat-missing",
    "masquerade-missing",
    "traffic-dropped",
    "traffic-blocked",
    "port-not-published",
    "name-shared",
    "host-loopback-only",
    "host-nothing-listens",
    "host-filtered",
    "login-refused",
    "unhealthy",
    "restart-harms",
]
"""What the diagnosis of a failed check established, for a plan to act upon."""


class CheckResult(BaseModel):
    """The outcome of one check, with its evidence.

    `evidence` is one sentence: what was asked, from where, what came back. `details` are lines of
    diagnosis, for a check that failed, or one that may have passed by chance (`name-shared`: its
    name leads to several services). `hints` are the same for a machine:

    - `restart-harms`: it cannot help, and what was not saved is lost by it;
    - `login-refused`: the caller's, where the service takes its own;
    - `host-loopback-only`, `host-nothing-listens`, `host-filtered` (its packet filter keeps
      containers out): of the host itself, which a container calls.

    `remedy` is what would mend it where that is known. `method` is the tool the evidence rests on,
    with how it reached the place (`curl`, `nsenter+python3`, `exec+wget`, `docker exec`), or an
    empty string when nothing could be asked. `seconds` is how long the last attempt took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    outcome: Outcome
    evidence: str
    details: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = ()
    remedy: str = ""
    seconds: float = 0.0
    method: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is proven that the check passes."""
        return self.outcome == "passed"

    def to_json(self) -> dict[str, Any]:
        """Return what `pyinfra ... fact` prints of it."""
        return self.model_dump(mode="json")
