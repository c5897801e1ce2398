"""Compose stacks: brought to what is declared, mended where they fail, and proven healthy."""

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, operation

from stackmend import connection, reporting
from stackmend.addresses.spec import LinksPolicy
from stackmend.compose.observer import Observer
from stackmend.compose.outside import find_outside
from stackmend.compose.published import find_published_ports
from stackmend.compose.reconciler import ComposeReconciler, Project
from stackmend.compose.source import Source, load
from stackmend.compose.spec import ComposeSpec, GitSource, Mend
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.raw import validate
from stackmend.reconcile import find_other_run, is_observed_only, operate
from stackmend.reporting import Collector

#: The files that were read for :func:`find_unpublished_ports`, until :func:`stack` takes them over:
#: a run decides by one reading.
_loaded: WeakKeyDictionary[State, dict[str, tuple[ComposeSpec, Source]]] = WeakKeyDictionary()

__all__ = [
    "Project",
    "apply_layer",
    "find_outside",
    "find_published_ports",
    "find_unpublished_ports",
    "get_arguments",
    "observe_project",
    "prefetch",
    "read_files",
    "reconcile_stack",
    "stack",
]


@operation()
def stack(
    project: str,
    source: str | Path | Mapping[str, Any] | GitSource,
    directory: str,
    env: Mapping[str, Any] | None = None,
    checks: Sequence[Any] = (),
    profiles: Sequence[str] = (),
    health_timeout: float = 120,
    stability: float = 5,
    on_failure: str = "rollback",
    mend: Mapping[str, Any] | Mend | None = None,
    allow: Sequence[str] = (),
    minimum_free: int | str = "2GiB",
    drift: Mapping[str, str] | None = None,
    links: Mapping[str, Any] | LinksPolicy | None = None,
    on_bind_error: Callable[[Host, str], bool] | None = None,
) -> Generator[FunctionCommand, None, None]:
    """
    Bring a Docker Compose project to what its files declare, and prove that it is healthy.

    + project: the Compose project's name
    + source: the directory on this machine that holds compose.yaml and all that it names; or a git
      repository that the host fetches them from: ``{"git": URL, "ref": "main", "path": "deploy"}``
    + directory: where those files live on the host
    + env: variables, written to ``.env`` (mode 0600) beside the compose file; a
      ``pydantic.SecretStr`` is never shown
    + checks: health criteria beyond healthchecks, see ``stackmend.checks``
    + profiles: Compose profiles to enable
    + health_timeout: seconds a started service has to become healthy
    + stability: seconds it must then stay so
    + on_failure: ``rollback`` puts the files and images before back, ``keep`` does not
    + mend: limits of restarting what failed by itself: ``attempts``, ``window``, ``backoff``
    + allow: consent to touch what is not ours: ``container:NAME``, ``project:/DIRECTORY``
    + minimum_free: bytes (or ``"2GiB"``) that must be free before anything is written
    + drift: what is done about a field that differs from what was proven, by its path:
      ``{"services.*.environment.LOG_LEVEL": "ignore"}``; ``mend`` by default, or ``warn``
    + links: whether the addresses that services are given for each other are proven, and what is
      done about wrong ones: ``{}`` reports them, ``{"on_conflict": "override"}`` corrects them in
      a file of stackmend's own, see ``links.repaired``
    + on_bind_error: asked with the host and the engine's words where a container cannot be started;
      where it returns true, such as ``ports.remedy(…)`` once it has freed the port, the start is
      tried once more

    It touches only services that differ from what is declared or from what was proven before, or
    that are not healthy. It pulls and builds images before anything stops. It never removes a
    volume. It touches nothing foreign without consent: that is a refusal, which fails the
    operation on this host alone and names what to add.

    **Example:**

    .. code:: python

        from stackmend import compose

        compose.stack(
            name="The AI stack is up and answers",
            project="ai",
            source="deploy/stacks/ai",
            directory="/opt/ai",
            env={"OLLAMA_MODEL": "llama3.2:1b"},
            checks=[{"kind": "http", "url": "http://127.0.0.1:8000/healthz"}],
        )
    """
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
    converged = "the project is already as declared, and healthy"
    yield from reconcile_stack("compose.stack", options, converged, on_bind_error)


def reconcile_stack(
    name: str,
    options: Mapping[str, Any],
    converged: str,
    on_bind_error: Callable[[Host, str], bool] | None = None,
) -> Generator[FunctionCommand, None, None]:
    """The body of :func:`stack`, for operations that do the same under another name.

    :param name: the operation's name, such as ``links.repaired``.
    :param options: the fields of a :class:`~stackmend.compose.spec.ComposeSpec`, not validated yet.
    :param converged: what to say where nothing is to be done.
    :param on_bind_error: as :func:`stack` takes it.
    """

    def build(report: Collector) -> ComposeReconciler:
        spec = validate(ComposeSpec, options)
        explains = is_observed_only(host)
        room = ComposeReconciler(host, spec, _load(spec), report, on_bind_error, explains)
        for secret in room.observer.secrets:
            reporting.secret(secret)
        return room

    yield from operate(host, name, build, converged=converged)


def prefetch(spec: ComposeSpec) -> None:
    """Let the next reading of any fact of the host bring what :func:`stack` needs.

    :param spec: the project, on the host that pyinfra is at.
    """
    # What is asked of a host does not depend on the project's files.
    for fact, options in Observer(host, spec, Source({})).list_facts():
        connection.prefetch(host, fact, **options)


def find_unpublished_ports(spec: ComposeSpec) -> tuple[str, ...]:
    """The host ports that a project is to have and that no running container of its own has yet.

    For ``ports.free``, which is to have them free before :func:`stack` needs them. Looks only, in
    the same reading of the host as :func:`stack`; where the host cannot be read there are none, and
    :func:`stack` says why.

    :param spec: the project, on the host that pyinfra is at.
    :returns: ``ADDRESS:PORT/PROTOCOL`` each.
    """
    # Nothing of this is reported: the operation that it is asked for reports what it makes of it.
    report = reporting.Collector("ports")
    try:
        source = _read(spec)
        _loaded.setdefault(host.state, {})[host.name] = spec, source
        return ComposeReconciler(host, spec, source, report).find_unpublished()
    except (ValueError, StepError, connection.RemoteError):
        return ()


def observe_project(host: Host, spec: ComposeSpec) -> Project | str:
    """What a project is on a host, read now; where it cannot be told, why. Changes nothing.

    While another run is at work on it, what is read of it is half made: then that is why.

    :param host: the host.
    :param spec: the project.
    """
    try:
        # Nothing of this is reported: whoever asks reports what it makes of it.
        room = ComposeReconciler(host, spec, _read(spec), reporting.Collector("project"))
        found = room.describe()
    except (ValueError, StepError, connection.RemoteError) as error:
        return str(error)
    if isinstance(found, Project) and found.converged:
        return found
    busy = find_other_run(host)
    return busy.reason if busy else found


def apply_layer(
    host: Host,
    spec: ComposeSpec,
    content: str,
    report: Collector,
) -> bool:
    """Add services to a project on one host, or change them, and prove it healthy as :func:`stack`.

    What is added is laid over the project's own files as ``compose.stackmend.worker.yaml``, and
    counts for :func:`stack` from then on. Where the project is not proven with it, all is put back;
    with ``on_failure`` ``keep``, or where it cannot be put back, it stays laid over them.

    :param host: the host.
    :param spec: the project.
    :param content: a compose file; empty to remove it, and what it added.
    :param report: what it is reported to.
    :returns: whether the project is so now; the reason why not is reported.
    :raises LeaseHeld: another run is at work on the host; nothing was done.
    :raises StepError: the host cannot be read, or written to.
    :raises RemoteError: the host was lost on the way: how far it came is not known.
    """
    lease = fleet.hold(host)
    return ComposeReconciler(host, spec, _read(spec), report).apply_layer(content, lease)


def get_arguments(spec: ComposeSpec) -> dict[str, Any]:
    """The arguments of :func:`stack` for a validated spec; its secrets stay hidden in it."""
    return {name: getattr(spec, name) for name in ComposeSpec.model_fields}


def read_files(spec: ComposeSpec) -> dict[str, tuple[int, bytes]]:
    """The project's files on this machine by their paths: permission bits and content.

    None where the host fetches them by itself.

    :raises SourceError: they cannot be used.
    """
    return {path: (file.mode, file.content) for path, file in _read(spec).files.items()}


def _load(spec: ComposeSpec) -> Source:
    known = _loaded.get(host.state, {}).pop(host.name, None)
    return known[1] if known is not None and known[0] == spec else _read(spec)


def _read(spec: ComposeSpec) -> Source:
    """The project's files; none yet where the host is to fetch them."""
    return Source({}) if isinstance(spec.source, GitSource) else load(spec)
