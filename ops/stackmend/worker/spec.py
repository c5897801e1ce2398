"""What is desired of a stack's worker: validated before any host is contacted."""

from pydantic import BaseModel, ConfigDict

from stackmend.worker.benchmark.spec import BenchmarkPolicy


class WorkerPolicy(BaseModel):
    """What the worker of a stack, and its model server, are held to.

    :param benchmark: what is measured, and what it has to come to.

    Example, in ``group_data/all.py``::

        stack = {..., "worker": {"benchmark": {"model": "llama3.2:1b", "minimum": 20}}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: BenchmarkPolicy | None = None

    def list_named_services(self) -> list[tuple[str, str]]:
        """The settings that name a service of the project: the field, and the service."""
        if self.benchmark is None or not self.benchmark.service_name:
            return []
        named = [("benchmark.service", self.benchmark.service_name)]
        if self.benchmark.target == "queue":
            named.append(("benchmark.worker", self.benchmark.worker))
        return named
