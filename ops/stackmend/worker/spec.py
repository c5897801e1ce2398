"""What is desired of a stack's worker: validated before any host is contacted."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.benchmark.spec import BenchmarkPolicy
from stackmend.worker.engines import find_other, is_ollama
from stackmend.worker.move.spec import MovePolicy


class WorkerPolicy(BaseModel):
    """What the worker of a stack, and its model server, are held to.

    :param benchmark: what is measured, and what it has to come to.
    :param accelerated: what the models have to be on.
    :param engine: what a legacy worker is moved to, where that is faster.

    Example, in ``group_data/all.py``::

        stack = {..., "worker": {"benchmark": {"model": "llama3.2:1b", "minimum": 20}}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: BenchmarkPolicy | None = None
    accelerated: AccelerationPolicy | None = None
    engine: MovePolicy | None = None

    def list_named_services(self) -> list[tuple[str, str]]:
        """The settings that name a service of the project: the field, and the service."""
        named = []
        if self.benchmark is not None and self.benchmark.service_name:
            named.append(("benchmark.service", self.benchmark.service_name))
            if self.benchmark.target == "queue":
                named.append(("benchmark.worker", self.benchmark.worker))
        if self.accelerated is not None and self.accelerated.endpoint is None:
            named.append(("accelerated.service", self.accelerated.service))
        if self.engine is not None:
            pairs = [("service", self.engine.service), *(("client", c) for c in self.engine.client)]
            named += [(f"engine.{field}", name) for field, name in pairs if name]
        return named

    def find_contradiction(self, services: Mapping[str, Mapping[str, Any]]) -> str:
        """What a move cannot be, as far as the project's files say it; empty where it can.

        :param services: of the project, as its files declare them; none where that is not certain.
        """
        if self.engine is None:
            return ""
        target, legacy = self.engine.target, self.engine.service
        if (body := services.get(target)) and (other := find_other(*_describe(body))):
            return (
                f"engine.target: the service {target} is {other}, and no Ollama; name an Ollama of "
                "the project, or a service that it does not have, which is added"
            )
        if legacy and (body := services.get(legacy)) and is_ollama(*_describe(body)):
            return f"engine.service: the service {legacy} is an Ollama; name another one, or none"
        return ""


def _describe(body: Mapping[str, Any]) -> tuple[str, str]:
    """The image and the command of a service; what depends on variables is left aside."""
    words: list[Any] = []
    for key in ("entrypoint", "command"):
        value = body.get(key)
        words += value if isinstance(value, list) else [value]
    texts = [word for word in words if isinstance(word, str) and "$" not in word]
    image = body.get("image")
    return image if isinstance(image, str) and "$" not in image else "", " ".join(texts)
