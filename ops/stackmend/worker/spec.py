"""What is desired of a stack's worker: validated before any host is contacted."""

from pydantic import BaseModel, ConfigDict

from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.benchmark.spec import BenchmarkPolicy
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
