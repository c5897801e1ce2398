"""Models: the ones that a stack needs are on its model server, complete and current."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from pyinfra.api import FunctionCommand, Host, operation
from pyinfra.context import ctx_host

from stackmend.models.declared import DeclaredServer, find_server
from stackmend.models.spec import ModelsPolicy, ModelsSpec
from stackmend.problems import WrongSettings
from stackmend.raw import validate
from stackmend.reconcile import operate

__all__ = [
    "DeclaredServer",
    "find_registries",
    "find_server",
    "get_arguments",
    "prefetch",
    "pulled",
]

# Every run reads the spec of the models; what observes and acts is loaded where it is used.


@operation()
def pulled(
    models: Sequence[Any] | str,
    service: str | None = None,
    endpoint: str | None = None,
    project: str | None = None,
    directory: str | None = None,
    update: str = "always",
    check: str = "registry",
    hashes: bool = False,
    insecure: bool = False,
    prune: bool = False,
    pull_from: str | None = None,
    source: str | None = None,
    stall: float = 60,
    attempts: int = 5,
    parallel: int = 2,
    minimum_free: int | str = "1GiB",
) -> Generator[FunctionCommand, None, None]:
    """
    Have models on an Ollama server, complete and current, and verify that they answer.

    + models: names such as ``llama3.2:1b``, or mappings of ``name`` with ``source`` (the name on a
      mirror that it is pulled by), ``gguf`` or ``modelfile`` (a file on this machine that it is
      created from)
    + service: the Compose service that is the server; ``ollama`` by default
    + endpoint: the address of a server that is no such service, as the host sees it:
      ``http://127.0.0.1:11434``
    + project: the Compose project of the service
    + directory: the directory on the host that this project is started from
    + update: ``always`` pulls what has moved on its registry, ``never`` only reports it
    + check: ``registry`` reads each model's manifest there; ``local`` asks no registry for a model
      that is intact
    + hashes: verify each blob's content against its digest, which reads every byte: once, and once
      more where something was changed; refused where they cannot be read
    + insecure: speak plain HTTP to registries other than Ollama's
    + prune: remove models that this operation pulled and that are no longer in ``models``
    + pull_from: ``registry``, which is the default, or ``peer``: one host pulls and gives its blobs
      to the others; another one, or the registry, replaces a host that can no longer give them. A
      deploy with operations before this one calls :func:`prefetch`, so that a host that is still at
      those can give
    + source: the former name of ``pull_from``
    + stall: seconds without a byte after which a pull is cut and resumed
    + attempts: how often in a row a pull may fail without progress
    + parallel: how many models are fetched at once, over all hosts
    + minimum_free: bytes (or ``"1GiB"``) that must stay free on the disk of the models

    A model that is present and equal to its registry's manifest is left alone, and so is one whose
    registry cannot be reached. The space that is needed is known before a byte is fetched; where it
    is lacking the operation refuses, and names what could be removed. A pull that is cut or stalls
    resumes; only weights that arrived with a wrong content are fetched twice. Blobs that do not
    match the manifest are deleted and pulled again. Models that somebody else put there are never
    removed. Blobs that a run replaced or sent, and that no model needs, are deleted; others are
    reported. A model that is made from another one follows it, and is made again where that one
    has changed.

    Every model is loaded and asked for one token after it, or the server, has changed, and by each
    run until it answers: only then is the host well.

    The operation waits for a server that is starting, two minutes at most; it does not start one
    that was stopped: ``compose.stack`` does, which ``deploy/site.py`` runs first. What it refuses
    fails it on this host alone.

    The report measures the bytes that arrived from registries (``fetched``) and, with ``peer``,
    from other hosts (``relayed``).

    **Example:**

    .. code:: python

        from stackmend import models

        models.pulled(
            name="The stack's models are on its server",
            models=["llama3.2:1b", {"name": "embed", "source": "registry.lan:5000/team/embed:2"}],
            project="ai",
        )
    """
    from stackmend.models.reconciler import ModelsReconciler

    options = {
        "wanted": models,
        "update": update,
        "check": check,
        "hashes": hashes,
        "insecure": insecure,
        "prune": prune,
        "stall": stall,
        "attempts": attempts,
        "parallel": parallel,
        "minimum_free": minimum_free,
    }
    optional = {
        "service": service,
        "endpoint": endpoint,
        "project": project,
        "directory": directory,
        "pull_from": pull_from,
        "source": source,
    }
    options |= {name: value for name, value in optional.items() if value is not None}
    # Parallel steps need the host itself, not the view of the current one.
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    yield from operate(
        host,
        "models.pulled",
        lambda report: ModelsReconciler(host, _validate(options), report),
        converged="every model is present, complete and current",
    )


def get_arguments(policy: ModelsPolicy) -> dict[str, Any]:
    """The arguments of :func:`pulled` for the ``models`` section of a stack."""
    return {**_list_options(policy), "models": policy.wanted}


def find_registries(policy: ModelsPolicy) -> tuple[str, ...]:
    """The registries that the models of a section ``models`` are pulled from, as URLs."""
    found: dict[str, None] = {}
    for model in policy.wanted:
        if model.pulled_as is not None:
            scheme = "http" if policy.is_insecure(model) else "https"
            found[f"{scheme}://{model.pulled_as.host}"] = None
    return tuple(found)


def prefetch(policy: ModelsPolicy, project: str) -> None:
    """Let the next reading of any fact of the host bring what :func:`pulled` will ask for.

    With ``pull_from: peer`` it also lets the host give its models from the start: hosts at other
    operations find it. Without it, they do once its own :func:`pulled` has begun.

    To be called while a deploy is prepared; reaches no host. With ``hashes`` it lets no reading
    bring them: nobody else is to wait until every byte is read.

    :param policy: the ``models`` section of the stack.
    :param project: the Compose project of the server.
    """
    from stackmend import connection
    from stackmend.models import peers
    from stackmend.models.facts import ModelStore

    spec = ModelsSpec.model_validate(
        {**_list_options(policy), "wanted": policy.wanted, "project": project}
    )
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    if spec.from_peers:
        peers.get_fleet(host.state).join(host, spec.fact_arguments)
    if not spec.hashes:
        connection.prefetch(host, ModelStore, **spec.fact_arguments)


def _list_options(policy: ModelsPolicy) -> dict[str, Any]:
    """What a policy was given, but for the models: its defaults may contradict that."""
    return {name: getattr(policy, name) for name in policy.model_fields_set - {"wanted"}}


def _validate(options: Mapping[str, Any]) -> ModelsSpec:
    """The spec of the operation's arguments.

    :raises ValueError: naming each wrong argument.
    """
    try:
        return validate(ModelsSpec, options)
    except ValueError as error:
        found = error.problems if isinstance(error, WrongSettings) else [str(error)]
        # The first argument has another name than its field.
        raise ValueError(
            "; ".join(problem.replace("wanted", "models", 1) for problem in found)
        ) from None
