"""Models: the ones that a stack needs are on its model server, whole and current."""

from collections.abc import Generator, Sequence
from typing import Any

from pydantic import ValidationError
from pyinfra.api import FunctionCommand, Host, operation
from pyinfra.context import ctx_host

from stackmend import connection, reporting
from stackmend.models.spec import ModelsPolicy, ModelsSpec
from stackmend.problems import problems
from stackmend.raw import validate
from stackmend.reconcile import invalid

__all__ = ["arguments", "prefetch", "pulled"]

# Every run reads what models a stack may want; what looks and acts is loaded where it is used.


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
    source: str = "registry",
    stall: float = 60,
    attempts: int = 5,
    parallel: int = 2,
    minimum_free: int | str = "1GiB",
) -> Generator[FunctionCommand, None, None]:
    """
    Have models on an Ollama server, whole and current, and prove that they answer.

    + models: names such as ``llama3.2:1b``, or mappings of ``name`` with ``source`` (the name on a
      mirror that it is pulled by), ``gguf`` or ``modelfile`` (a file on this machine that it is
      created from)
    + service: the Compose service that is the server; ``ollama`` by default
    + endpoint: where a server answers that is no such service, as the host sees it:
      ``http://127.0.0.1:11434``
    + project: the Compose project of the service
    + directory: the directory on the host that this project is started from
    + update: ``always`` pulls what has moved on its registry, ``never`` only tells
    + check: ``registry`` reads each model's manifest there; ``local`` asks nobody for a model that
      is present and whole
    + hashes: hold each blob's content against its digest, which reads every byte: once, and once
      more where something was changed
    + insecure: speak plain HTTP to registries other than Ollama's
    + prune: remove models that this operation brought and nobody wants any more
    + source: ``peer`` has one host pull and gives its blobs to the others; a host that can give
      nothing any more is replaced by another, or by the registry
    + stall: seconds without a byte after which a pull is cut and resumed
    + attempts: how often in a row a pull may fail without having brought anything
    + parallel: how many models are fetched at once, over all hosts
    + minimum_free: bytes (or ``"1GiB"``) that must stay free where the models lie

    A model that is present and equal to its registry's manifest is left alone, and so is one whose
    registry cannot be reached. The space that is needed is known before a byte is fetched; where it
    is lacking that is a refusal, which names what could go. A pull that is cut or stalls goes on
    where it was; only weights that came whole and with another content are fetched twice. Blobs
    that are not what the manifest says are deleted and pulled again. Models that somebody else put
    there are never removed. A server that is starting is waited for, two minutes at most; one that
    was stopped is not started. What is refused fails the operation on this host alone.

    The report measures the bytes that came from registries (``fetched``) and, with ``peer``, from
    other hosts (``relayed``).

    **Example:**

    .. code:: python

        from stackmend import models

        models.pulled(
            name="The stack's models are on its server",
            models=["llama3.2:1b", {"name": "embed", "source": "registry.lan:5000/team/embed:2"}],
            project="ai",
        )
    """
    from stackmend.models.apply import Pulling

    # What works side by side needs the host itself, not the view of the current one.
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    report = reporting.record(host, "models.pulled")
    given: dict[str, Any] = {
        "wanted": models,
        "update": update,
        "check": check,
        "hashes": hashes,
        "insecure": insecure,
        "prune": prune,
        "source": source,
        "stall": stall,
        "attempts": attempts,
        "parallel": parallel,
        "minimum_free": minimum_free,
        "project": "" if project is None else project,
        "directory": "" if directory is None else directory,
    }
    # There is one server: a default beside an endpoint would name a second.
    given |= {"service": service} if service is not None else {}
    given |= {"endpoint": endpoint} if endpoint is not None else {}
    try:
        spec = validate(ModelsSpec, given)
    except ValueError as error:
        found = problems(error) if isinstance(error, ValidationError) else [str(error)]
        reason = "; ".join(one.replace("wanted", "models", 1) for one in found)
        yield from invalid(host, "models.pulled", reason)
        return
    work = Pulling(host, spec, report)
    try:
        if work.is_well():
            host.noop("the wanted models are already there, whole and current")
            return
        yield FunctionCommand(work.converge, (), {})
    finally:
        report.measured("channels", connection.channels(host), "channels")


def arguments(policy: ModelsPolicy) -> dict[str, Any]:
    """The arguments of :func:`pulled` for the ``models`` section of a stack."""
    given = _given(policy)
    given["models"] = given.pop("wanted")
    return given


def prefetch(policy: ModelsPolicy, project: str) -> None:
    """Let the next reading of any fact of the host bring what :func:`pulled` will ask for.

    To be called while a deploy is prepared; reaches no host. With ``hashes`` nobody else is made to
    wait for every byte to be read: what is asked for then has a reading of its own.

    :param policy: the ``models`` section of the stack.
    :param project: the Compose project of the server.
    """
    from stackmend.models.facts import ModelStore

    spec = ModelsSpec.model_validate({**_given(policy), "project": project})
    if not spec.hashes:
        connection.prefetch(ctx_host.get(), ModelStore, **spec.asked())  # type: ignore[no-untyped-call]


def _given(policy: ModelsPolicy) -> dict[str, Any]:
    given = {name: getattr(policy, name) for name in ModelsPolicy.model_fields}
    if policy.endpoint is not None:
        # There is one server: a default beside an endpoint would name a second.
        del given["service"]
    return given
