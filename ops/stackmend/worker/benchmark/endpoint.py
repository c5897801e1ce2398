"""Where a model server answers, as its host sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Endpoint:
    """A model server, or a queue before one, that is measured.

    :param protocol: which API it is asked by.
    :param address: an IP address or a name, as the host sees it.
    :param port: the port.
    :param model: the name of the model that is asked; empty for that of a queue's worker.
    :param tls: whether it speaks HTTPS.
    :param base_path: what stands before the paths of its API; by default ``/v1`` for OpenAI's and
        nothing otherwise.
    :param api_key: what it takes as a bearer token; never part of a text.
    """

    protocol: Literal["ollama", "openai", "queue"]
    address: str
    port: int
    model: str
    tls: bool = False
    base_path: str | None = None
    api_key: str = field(default="", repr=False)

    @property
    def prefix(self) -> str:
        """What stands before the paths of its API."""
        if self.base_path is not None:
            return self.base_path.rstrip("/")
        return "/v1" if self.protocol == "openai" else ""

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'https' if self.tls else 'http'}://{address}:{self.port}{self.prefix}"
