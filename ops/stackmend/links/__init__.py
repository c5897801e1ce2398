"""Links: the addresses by which the services of a stack reach each other, proven and corrected."""

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pyinfra.api import FunctionCommand, Host, operation

from stackmend.compose import reconcile_stack
from stackmend.compose.spec import GitSource, Mend

__all__ = ["repaired"]


@operation()
def repaired(
    project: str,
    source: str | Path | Mapping[str, Any] | GitSource,
    directory: str,
    on_conflict: Literal["report", "override"] = "report",
    files: bool = False,
    ignore: Sequence[str] = (),
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
    on_bind_error: Callable[[Host, str], bool] | None = None,
) -> Generator[FunctionCommand, None, None]:
    """
    Prove that the services of a Compose project reach each other, and correct wrong addresses.

    + project: the Compose project's name
    + source: the project's files, as ``compose.stack`` takes them
    + directory: where those files live on the host
    + on_conflict: ``report`` says which address is wrong, why, and what would be right;
      ``override`` also corrects it, in ``compose.stackmend.yaml`` beside the project's files
    + files: whether configuration files that services mount are read too; what is wrong in them is
      reported with a patch, and never rewritten
    + ignore: addresses that are left alone, each as ``SERVICE.VARIABLE``
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
    + on_bind_error: asked where a container cannot be started

    This is ``compose.stack`` with the section ``links``: the project is brought to what its files
    declare, and each address that one service has for another is asked from inside that service's
    network. One that is not answered fails the operation on this host alone, with its reason.

    With ``override`` only what is wrong for certain is corrected, in a file of stackmend's own that
    is laid over the project's, which stay as they are; only the services whose addresses it
    corrects are recreated. What may be right either way is reported and left alone. The report
    holds the same change as a patch. Once the project's own files are right the file goes away, and
    nothing is recreated for that.

    **Example:**

    .. code:: python

        from stackmend import links

        links.repaired(
            name="The services of the AI stack reach each other",
            project="ai",
            source="deploy/stacks/ai",
            directory="/opt/ai",
            on_conflict="override",
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
        "links": {"on_conflict": on_conflict, "files": files, "ignore": ignore},
    }
    converged = "the services already reach each other"
    yield from reconcile_stack("links.repaired", options, converged, on_bind_error)
