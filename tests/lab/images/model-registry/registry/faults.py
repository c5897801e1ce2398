"""What is to go wrong at the registry, and how fast it sends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

KINDS = ("cut", "reset", "stall", "mismatch", "status")


@dataclass(eq=False)
class Fault:
    """Something that goes wrong.

    + target: `namespace/model:tag` for a manifest, a digest for a blob
    + on: `manifest`, `blob` (where the content is) or `storage` (the content itself)
    + kind: `status` answers `status` and `body`; `mismatch` flips the byte `at`; `cut`, `reset` and
        `stall` send what is before the byte `at`, and then end, break off or say no more
    + times: how often, or None for always
    """

    target: str
    on: str
    kind: str
    at: int = 0
    times: int | None = 1
    status: int = 0
    body: str = ""


@dataclass
class Faults:
    """All that is to go wrong.

    + rates: bytes a second by a blob's digest; "" is everything else
    + over: set when stalls are to end
    """

    rates: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """Let something go wrong from now on."""
        if fault.kind not in KINDS:
            raise ValueError(f"{fault.kind} is none of {', '.join(KINDS)}")
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Let nothing go wrong any more; stalls end."""
        with self._lock:
            self._faults.clear()
            self.rates.clear()
        over, self.over = self.over, threading.Event()
        over.set()

    def rate(self, digest: str) -> float | None:
        """Return how many bytes of a blob are sent in a second; None for as many as go."""
        return self.rates.get(digest, self.rates.get(""))

    def take(self, target: str, on: str, start: int = 0, end: int = 1) -> Fault | None:
        """Return what goes wrong next with a request, and count it.

        + start, end: the bytes that are asked for
        """
        with self._lock:
            due = [
                fault
                for fault in self._faults
                if (fault.target, fault.on) == (target, on)
                and (fault.kind == "status" or start <= fault.at < end)
            ]
            if not due:
                return None
            # Several cuts of one blob come one after the other.
            fault = min(due, key=lambda fault: (fault.kind != "status", fault.at))
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
            return fault
