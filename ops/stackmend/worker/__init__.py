"""The worker: how fast it is, whether it uses the hardware, and the move of a legacy one."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from pyinfra import host
from pyinfra.api import FunctionCommand, Host, operation
from pyinfra.context import ctx_host

from stackmend import reporting
from stackmend.raw import validate
from stackmend.reconcile import operate

if TYPE_CHECKING:
    from stackmend.addresses.spec import LinksPolicy
    from stackmend.compose.spec import GitSource, Mend
    from stackmend.worker.acceleration.spec import AccelerationPolicy
    from stackmend.worker.benchmark.spec import BenchmarkPolicy
    from stackmend.worker.move.spec import MovePolicy
    from stackmend.worker.spec import WorkerPolicy

__all__ = [
    "accelerated",
    "benchmarked",
    "engine",
    "get_acceleration_arguments",
    "get_benchmark_arguments",
    "get_move_arguments",
    "prefetch",
]

# Every run reads the spec of the worker; what observes and acts is loaded where it is used.


@operation()
def accelerated(
    service: str | None = None,
    endpoint: str | None = None,
    project: str = "",
    processor: str | None = None,
    share: float | None = None,
    cpu_models: Sequence[str] = (),
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
      one is expected where the host has a card with its driver, the service reserves an
      accelerator, or the server uses one; graphics within an AMD CPU are no card; ``gpu`` by
      default with ``share``, and ``auto`` without
    + share: which share of each loaded model has to be on the accelerator, above 0 and up to 1: 0.9
      is 90 %; a host without an accelerator fails it, unless ``processor`` is ``auto``; without it
      a model that is partly on the CPU fails the operation only with ``gpu``
    + cpu_models: models that compute with the CPU on purpose, as ``num_gpu 0`` has it
    + minutes: how far back the server's log is read
    + samples: how often the loaded models are read, a second apart
    + maximum_reloads: how many avoidable loads of models within ten minutes are no finding
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
        "share": share,
        "cpu_models": tuple(cpu_models),
        "minutes": minutes,
        "samples": samples,
        "maximum_reloads": maximum_reloads,
        "on_fault": on_fault,
    }
    optional = {"service": service, "endpoint": endpoint, "processor": processor}
    options |= {name: value for name, value in optional.items() if value is not None}
    yield from operate(
        host,
        "worker.accelerated",
        lambda report: AccelerationReconciler(host, validate(AccelerationSpec, options), report),
        converged="read only, and nothing that was found fails the run",
    )


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

    What would disturb somebody is a refusal with its numbers, unless ``allow`` has its word: tasks
    that wait or run, or a server that computes for others (``busy``); another model in memory
    (``model``); a model, its context, or the prompts that the server keeps of a measurement, that
    do not fit into what is free (``memory``). A host that runs short of memory meanwhile ends the
    measurement. One measurement at a time runs on a host. A run that is killed leaves the result
    of before; tasks that it left in a queue end by themselves.

    Results lie on the host below ``/var/lib/stackmend/benchmarks``, and with all samples on this
    machine in ``benchmarks`` beside the reports. The report measures the main figures. The run
    ends with a table of all hosts and, with the extra ``benchmark``, a page beside the results.

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
    from stackmend.worker.benchmark import BenchmarkReconciler, BenchmarkSpec
    from stackmend.worker.showing import Benchmarks

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
    # Parallel requests need the host itself, not the view of the current one.
    own: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    yield from operate(
        own,
        "worker.benchmarked",
        lambda report: BenchmarkReconciler(
            own,
            validate(BenchmarkSpec, options),
            report,
            reporting.get_ending(own, Benchmarks).add,
        ),
        converged="the stored result holds, and is good enough",
    )


@operation()
def engine(
    project: str,
    source: "str | Path | Mapping[str, Any] | GitSource",
    directory: str,
    engine: str = "ollama",
    service: str | None = None,
    client: str | Sequence[str] | None = None,
    models: Mapping[str, str] | None = None,
    margin: float = 0.1,
    keep_legacy: bool = True,
    target: str = "ollama",
    image: str | None = None,
    settings: Mapping[str, Any] | None = None,
    profile: Mapping[str, Any] | Any | None = None,
    allow_move: Sequence[str] | str = (),
    env: Mapping[str, Any] | None = None,
    checks: Sequence[Any] = (),
    profiles: Sequence[str] = (),
    health_timeout: float = 120,
    stability: float = 5,
    on_failure: str = "rollback",
    mend: "Mapping[str, Any] | Mend | None" = None,
    allow: Sequence[str] = (),
    minimum_free: int | str = "2GiB",
    drift: Mapping[str, str] | None = None,
    links: "Mapping[str, Any] | LinksPolicy | None" = None,
) -> Generator[FunctionCommand, None, None]:
    """
    Move a legacy worker (llama-cpp-python, llama.cpp, LocalAI) to Ollama, where that is faster.

    + project: the Compose project's name
    + source: the project's files, as ``compose.stack`` takes them
    + directory: where those files live on the host
    + engine: what it is moved to: ``ollama``
    + service: the legacy worker; by default the one that is recognised
    + client: the services that call it; by default those whose environment or command names it
    + models: the names by which clients ask for models, each with its GGUF file in the legacy
      worker's container; by default what is found there
    + margin: by how much faster the new one has to be: 0.1 is a tenth
    + keep_legacy: whether the legacy worker's container is kept, stopped; its volumes always are
    + target: the name of the service that is added, or of an Ollama that the project has
    + image: its image, where it is added
    + settings: more of the added service, in Compose's words, as ``{"mem_limit": "8g"}``
    + profile: how both are measured, as ``worker.benchmarked`` takes it
    + allow_move: what may be done although it disturbs, or is not known to be safe: ``busy``,
      ``published``, ``network``, ``api``, ``models``, ``memory``, ``space``, ``options``,
      ``tasks``, as ``stackmend.worker.move.spec.MovePolicy`` has them
    + env: as ``compose.stack`` takes it, and so are all that follow
    + checks: health criteria beyond healthchecks
    + profiles: Compose profiles to enable
    + health_timeout: seconds a started service has to become healthy
    + stability: seconds it must then stay so
    + on_failure: ``rollback`` puts the files and images before back, ``keep`` does not
    + mend: limits of restarting what failed by itself
    + allow: consent to touch what is not ours
    + minimum_free: bytes (or ``"2GiB"``) that must be free before anything is written
    + drift: what is done about a field that differs from what was proven, by its path:
      ``{"services.*.environment.LOG_LEVEL": "ignore"}``; ``mend`` by default, or ``warn``
    + links: as ``compose.stack`` takes it

    The new service is added in a file of stackmend's own that is laid over the project's, which
    stay as they are. It is given the legacy worker's models, copied on the host itself, under the
    names that the clients use. Both are measured in turns, the clients are re-pointed, the new one
    is asked from each client's network, and both are measured once more. It is kept only where it
    is faster by the margin; the legacy worker is then stopped, and nothing starts it again.
    Otherwise all is put back, and the service that was added is removed with its volume.

    A legacy worker that computes for somebody, or for which tasks wait, is not moved without
    ``busy``. A move that is over follows ``settings``, ``image`` and ``keep_legacy``; another
    ``service``, ``client``, ``models`` or ``target``, or a ``margin`` that was not reached, is
    refused then. One that is under way is taken back where these changed, and the operation fails;
    the next run begins again.

    Each time both were measured it is collected as :func:`benchmarked` collects its results, and
    the run ends with a table of both and, with the extra ``benchmark``, a page beside the results.

    One of the two answers at every moment. Clients end what they have under way within their own
    ``stop_grace_period``. A run that is cut short is continued, or taken back, by the next one.

    To call it is the consent to add a service to the project, and to stop the legacy worker's. A
    host without a legacy worker, or whose legacy worker is the faster one, is left as it is.

    **Example:**

    .. code:: python

        from stackmend import worker

        worker.engine(
            name="The worker runs on Ollama, if that is faster",
            project="ai",
            source="deploy/stacks/ai",
            directory="/opt/ai",
            engine="ollama",
        )
    """
    from stackmend.compose.spec import ComposeSpec
    from stackmend.worker.move import make_reconciler
    from stackmend.worker.move.spec import MovePolicy
    from stackmend.worker.showing import Benchmarks

    policy: dict[str, Any] = {
        "engine": engine,
        "margin": margin,
        "keep_legacy": keep_legacy,
        "target": target,
        "allow": allow_move,
    }
    optional = {
        "service": service,
        "client": client,
        "models": models,
        "image": image,
        "settings": settings,
        "profile": profile,
    }
    policy |= {name: value for name, value in optional.items() if value is not None}
    options = {
        "project": project,
        "source": source,
        "directory": directory,
        "env": {} if env is None else env,
        "checks": checks,
        "profiles": profiles,
        "health_timeout": health_timeout,
        "stability": stability,
        "on_failure": on_failure,
        "mend": {} if mend is None else mend,
        "allow": allow,
        "minimum_free": minimum_free,
        "drift": {} if drift is None else drift,
        "links": links,
    }
    # What it does takes the host itself, not the view of the current one.
    current: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    yield from operate(
        current,
        "worker.engine",
        lambda report: make_reconciler(
            current,
            validate(MovePolicy, policy),
            validate(ComposeSpec, options),
            report,
            reporting.get_ending(current, Benchmarks).add,
        ),
        converged="no legacy worker is left to move",
    )


def get_acceleration_arguments(policy: "AccelerationPolicy") -> dict[str, Any]:
    """The arguments of :func:`accelerated` for the section ``worker.accelerated`` of a stack."""
    found = {name: getattr(policy, name) for name in policy.model_fields_set}
    return {**found, "endpoint": str(policy.endpoint) if policy.endpoint else None}


def get_benchmark_arguments(policy: "BenchmarkPolicy") -> dict[str, Any]:
    """The arguments of :func:`benchmarked` for the section ``worker.benchmark`` of a stack."""
    return {name: getattr(policy, name) for name in policy.model_fields_set}


def get_move_arguments(policy: "MovePolicy") -> dict[str, Any]:
    """The arguments of :func:`engine` for the ``worker.engine`` section of a stack.

    Those of the project are :func:`stackmend.compose.get_arguments`.
    """
    found = {name: getattr(policy, name) for name in policy.model_fields_set - {"allow"}}
    return {**found, "allow_move": policy.allow}


def prefetch(policy: "WorkerPolicy", project: str) -> None:
    """Let the next reading of any fact of the host bring what the operations will ask for.

    To be called while a deploy is prepared; reaches no host.

    :param policy: the ``worker`` section of the stack.
    :param project: the Compose project of the model server.
    """
    if policy.accelerated is not None:
        from stackmend.worker import acceleration

        acceleration.prefetch(ctx_host.get(), policy.accelerated, project)  # type: ignore[no-untyped-call]
    if policy.engine is not None:
        from stackmend.worker import move

        move.prefetch(ctx_host.get(), project)  # type: ignore[no-untyped-call]
