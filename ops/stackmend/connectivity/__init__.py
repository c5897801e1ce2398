"""Whether a host reaches what its stack needs from outside, and which layer is broken where not."""

from collections.abc import Generator, Iterable, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend.connectivity.endpoints import list_needed
from stackmend.connectivity.spec import ConnectivityPolicy, ConnectivitySpec
from stackmend.connectivity.texts import classify
from stackmend.raw import validate
from stackmend.reconcile import operate

__all__ = ["checked", "classify", "get_arguments"]


@operation()
def checked(
    endpoints: Sequence[Any] | None = None,
    derived: bool | None = None,
    project: str = "",
    status_pages: Sequence[Any] | None = None,
    on_fault: str = "report",
    timeout: int = 5,
) -> Generator[FunctionCommand, None, None]:
    """
    Look whether a host reaches endpoints outside, and tell which layer is broken where not.

    + endpoints: addresses such as ``https://ghcr.io/v2/``, or mappings as in
      ``stackmend.connectivity.spec.Endpoint``
    + derived: whether to look at the host's own package sources as well; by default where no
      ``endpoints`` are given
    + project: the Compose project from one of whose containers to look as well
    + status_pages: the providers' pages about their outages; GitHub's, Docker's, PyPI's and Quay's
      by default
    + on_fault: ``report`` tells what is broken and goes on; ``fail`` fails on this host
    + timeout: seconds that one check of one layer may take

    Changes nothing. Clock, routes, DNS servers, the system's resolver, TCP, TLS and HTTP are looked
    at together, each three times at least, over one channel; IPv4 and IPv6 apart. Each endpoint
    gets one class with its evidence and remedy. A provider's status page is asked from this
    machine, and only for what the host does not explain. What could not be looked at is told with
    its reason.

    The arguments are the keys of the section ``connectivity``, and ``project``.

    By default nothing that is found fails the run: a stack that runs needs none of its registries
    until something is pulled, and is not to be left alone for one of them.

    **Example:**

    .. code:: python

        from stackmend import connectivity

        connectivity.checked(
            name="The mirror is reached",
            endpoints=["https://mirror.lan/v2/"],
            on_fault="fail",
        )
    """
    from stackmend.connectivity.reconciler import ConnectivityReconciler

    options: dict[str, Any] = {
        "endpoints": endpoints or (),
        "derived": endpoints is None if derived is None else derived,
        "on_fault": on_fault,
        "timeout": timeout,
        "project": project,
    }
    if status_pages is not None:
        options["status_pages"] = status_pages
    yield from operate(
        host,
        "connectivity.checked",
        lambda report: ConnectivityReconciler(host, validate(ConnectivitySpec, options), report),
        converged="looked only, and nothing that was found fails the run",
    )


def get_arguments(
    policy: ConnectivityPolicy,
    images: Iterable[str] = (),
    remotes: Iterable[str] = (),
    registries: Iterable[str] = (),
) -> dict[str, Any]:
    """The arguments of :func:`checked` for the ``connectivity`` section of a stack.

    :param policy: the section.
    :param images: references of the images that the stack pulls.
    :param remotes: the git remotes that it builds from.
    :param registries: the registries of its models, as URLs.
    """
    return {
        "endpoints": list_needed(policy, images, remotes, registries),
        "derived": policy.derived,
        "status_pages": policy.status_pages,
        "on_fault": policy.on_fault,
        "timeout": policy.timeout,
    }
