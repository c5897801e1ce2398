"""The worker: how fast it is, whether it uses the hardware, and the move of a legacy one."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from pydantic import SecretStr
from pyinfra.api import FunctionCommand, Host, operation
from pyinfra.context import ctx_host

from stackmend import reporting
from stackmend.raw import validate
from stackmend.reconcile import operate
from stackmend.worker.benchmark.spec import BenchmarkPolicy, BenchmarkSpec

__all__ = ["benchmarked", "get_benchmark_arguments"]

# Every run reads the spec of the worker; what observes and acts is loaded where it is used.


@operation()
def benchmarked(
    target: str = "ollama",
    service: str | None = None,
    endpoint: str | None = None,
    port: int | None = None,
    model: str | None = None,
    project: str | None = None,
    directory: str | None = None,
    worker: str | None = None,
    api_key: SecretStr | str | None = None,
    profile: Mapping[str, Any] | None = None,
    max_age: float | str = "7d",
    minimum: float | Mapping[str, Any] | None = None,
    baseline: str = "best",
    threshold: float = 0.1,
    allow: Sequence[str] | str = (),
) -> Generator[FunctionCommand, None, None]:
    """
    Have a result that says how fast a model server is, and hold it against what is expected.

    + target: ``ollama``; ``openai`` for any server that speaks OpenAI's API (llama.cpp,
      llama-cpp-python, vLLM); ``queue`` for the way of a task through the stack's own queue
    + service: the Compose service that is asked; by default ``ollama``, or ``api`` for a queue
    + endpoint: the address of a server that is no such service, as the host sees it:
      ``http://127.0.0.1:8080/v1``
    + port: the port that the service listens on; 11434 for Ollama, 8000 otherwise
    + model: the model that is asked; by default the only one that the server has
    + project: the Compose project of the service
    + directory: the directory on the host that this project is started from
    + worker: the Compose service that takes the tasks of a queue; ``worker`` by default
    + api_key: what the server wants as a bearer token; it appears nowhere
    + profile: how it is asked, as ``stackmend.worker.benchmark.spec.Profile`` has it: tokens of a
      prompt and an answer, requests at one time, repeats, limits of a good request
    + max_age: how long a result holds while nothing changes: seconds, or as ``"12h"``
    + minimum: what it has to reach: output tokens a second, or a mapping as ``{"goodput": 2}``
    + baseline: what it must not be worse than: the ``best`` result so far, the ``last`` one before,
      or ``none``
    + threshold: by how much it has to be worse to matter, as a share
    + allow: what may be done although it disturbs: ``busy``, ``model``, ``memory``

    A stored result is the answer as long as it is young enough and nothing changed that it rests
    on: what is asked, the server and its version, image and settings, the digest of the model and
    where it lies, CPU, cores, limits, threads, memory, GPUs and their driver, replicas. Then the
    server is asked by GET alone what it is, and no token is computed. Otherwise it is measured
    anew, and the cause names each field that changed.

    The operation fails on a host where the result is below ``minimum``, or worse than the baseline:
    by more than the threshold and than twice the spread of either, and with a probability below
    0.05 that this is chance. A level that looks worse is measured once more before it counts. What
    only noise can be says so, and fails nothing.

    Another model in memory, too little memory and a queue that is not empty are refusals, unless
    ``allow`` has them. One measurement at a time runs on a host. A run that is killed leaves the
    result of before.

    Results lie on the host below ``/var/lib/stackmend/benchmarks``, and with all samples on this
    machine in ``benchmarks`` beside the reports. The report measures the main figures.

    **Example:**

    .. code:: python

        from stackmend import worker

        worker.benchmarked(
            name="The model server is as fast as it was",
            project="ai",
            model="llama3.2:1b",
            minimum=20,
        )
    """
    from stackmend.worker.benchmark.reconciler import BenchmarkReconciler

    if isinstance(api_key, str):
        api_key = SecretStr(api_key)
    if api_key is not None:
        reporting.secret(api_key.get_secret_value())
    options: dict[str, Any] = {
        "target": target,
        "max_age": max_age,
        "baseline": baseline,
        "threshold": threshold,
        "allow": allow,
    }
    optional = {
        "service": service,
        "endpoint": endpoint,
        "port": port,
        "model": model,
        "project": project,
        "directory": directory,
        "worker": worker,
        "api_key": api_key,
        "profile": profile,
        "minimum": minimum,
    }
    options |= {name: value for name, value in optional.items() if value is not None}
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    yield from operate(
        host,
        "worker.benchmarked",
        lambda report: BenchmarkReconciler(host, validate(BenchmarkSpec, options), report),
        converged="the stored result holds, and is good enough",
    )


def get_benchmark_arguments(policy: BenchmarkPolicy) -> dict[str, Any]:
    """The arguments of :func:`benchmarked` for the section ``worker.benchmark`` of a stack."""
    return {name: getattr(policy, name) for name in policy.model_fields_set}
