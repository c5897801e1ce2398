"""The worker: how fast it is, whether it uses the hardware, and the move of a legacy one."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation
from pyinfra.context import ctx_host

from stackmend.raw import validate
from stackmend.reconcile import operate

if TYPE_CHECKING:
    from stackmend.worker.acceleration.spec import AccelerationPolicy
    from stackmend.worker.spec import WorkerPolicy

__all__ = ["accelerated", "get_acceleration_arguments", "prefetch"]

# Every run reads the spec of the worker; what observes and acts is loaded where it is used.


@operation()
def accelerated(
    service: str | None = None,
    endpoint: str | None = None,
    project: str = "",
    processor: str = "auto",
    share: float = 1.0,
    minutes: int = 10,
    samples: int = 2,
    maximum_reloads: int = 2,
    on_fault: str = "fail",
) -> Generator[FunctionCommand, None, None]:
    """
    Check that a model server computes with the host's accelerator, and name the missing link.

    + service: the Compose service that is the server; ``ollama`` by default
    + endpoint: the address of a server that is no such service, as the host sees it:
      ``http://127.0.0.1:11434``
    + project: the Compose project of the service; any by default
    + processor: ``gpu``: models have to be on an accelerator; ``cpu``: none is expected; ``auto``:
      one is expected where the host has an accelerator with its driver, or the service reserves one
    + share: which share of each loaded model has to be on the accelerator, above 0 and up to 1
    + minutes: how far back the server's log is read
    + samples: how often the loaded models are read, a second apart
    + maximum_reloads: how many avoidable loads of models in that time are no finding
    + on_fault: ``fail``: a broken chain fails the operation on this host; ``report``: it is
      reported, and the run goes on

    Changes nothing. The chain is: an accelerator in the host, its driver, NVIDIA's toolkit in the
    engine, a reservation by the service, device files that the container can open, a server that
    found them, a model that is on them. The first link that is broken is the finding, with its
    remedy; what is not known, such as where models are while none is loaded, is no fault. Whether
    the container can open the devices is read each time: it may lose them while it runs.

    Without an accelerator the operation reports what the server could do better on the CPU:
    threads against cores and quota, memory, swap, clock and instruction sets. That fails nothing,
    but for loaded models that need more memory than there is.

    Models that the server loads again and again are reported with their cause and with who asks
    for them, by the server's log and by the containers' environment.

    **Example:**

    .. code:: python

        from stackmend import worker

        worker.accelerated(
            name="The models are on the GPU",
            project="ai",
            processor="gpu",
        )
    """
    from stackmend.worker.acceleration import AccelerationReconciler, AccelerationSpec

    options: dict[str, Any] = {
        "project": project,
        "processor": processor,
        "share": share,
        "minutes": minutes,
        "samples": samples,
        "maximum_reloads": maximum_reloads,
        "on_fault": on_fault,
    }
    optional = {"service": service, "endpoint": endpoint}
    options |= {name: value for name, value in optional.items() if value is not None}
    yield from operate(
        host,
        "worker.accelerated",
        lambda report: AccelerationReconciler(host, validate(AccelerationSpec, options), report),
        converged="read only, and nothing that was found fails the run",
    )


def get_acceleration_arguments(policy: "AccelerationPolicy") -> dict[str, Any]:
    """The arguments of :func:`accelerated` for the section ``worker.accelerated`` of a stack."""
    endpoint = str(policy.endpoint) if policy.endpoint else None
    return {**policy.model_dump(), "endpoint": endpoint}


def prefetch(policy: "WorkerPolicy", project: str) -> None:
    """Let the next reading of any fact of the host bring what the operations will ask for.

    To be called while a deploy is prepared; reaches no host.

    :param policy: the ``worker`` section of the stack.
    :param project: the Compose project of the model server.
    """
    if policy.accelerated is not None:
        from stackmend.worker import acceleration

        acceleration.prefetch(ctx_host.get(), policy.accelerated, project)  # type: ignore[no-untyped-call]
