"""The endpoints that a stack needs, from the words that its files have for them. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from stackmend.connectivity.spec import ConnectivityPolicy, Endpoint

#: The registry of images whose name has none, and the repository that tells its rate limit.
DOCKER_HUB = "registry-1.docker.io"
RATE_LIMIT = "ratelimitpreview/test"

_REGISTRY = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_SCP = re.compile(r"(?:[A-Za-z0-9_.-]+@)?(?P<host>[A-Za-z0-9_.-]+):(?!//)(?P<path>.*)")
_URL = re.compile(
    r"(?P<scheme>(?i:https?|ssh|git))://(?:[^/?#]*@)?(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)?(?:[?#].*)?"
)


def list_needed(
    policy: ConnectivityPolicy,
    images: Iterable[str] = (),
    remotes: Iterable[str] = (),
    registries: Iterable[str] = (),
) -> tuple[Endpoint, ...]:
    """The endpoints of a stack, each once: those that its settings name come first.

    :param policy: the section ``connectivity``.
    :param images: references of images that are pulled.
    :param remotes: git remotes that are built from or fetched.
    :param registries: URLs of registries of models.
    """
    found: list[Endpoint] = list(policy.endpoints)
    if policy.derived:
        found += [
            endpoint
            for make, texts in (
                (parse_image, images),
                (parse_remote, remotes),
                (parse_registry, registries),
            )
            for text in texts
            for endpoint in _parse(make, text)
        ]
    unique: dict[str, Endpoint] = {}
    for endpoint in found:
        unique.setdefault(endpoint.origin, endpoint)
    return tuple(unique.values())


def _parse(make: Any, text: str) -> Iterator[Endpoint]:
    """What a text means, if it can be an endpoint at all: it comes from files of others."""
    try:
        if endpoint := make(text):
            yield endpoint
    except ValueError:
        return


def parse_image(reference: str) -> Endpoint | None:
    """The registry that an image is pulled from; ``None`` for what is no reference.

    :raises ValueError: its registry can be no endpoint.

    Example:
        >>> str(parse_image("ghcr.io/owner/api:1"))
        'https://ghcr.io/v2/'
        >>> str(parse_image("redis:7"))
        'https://registry-1.docker.io/v2/'
    """
    if not reference or "$" in reference or reference == "scratch":
        return None
    first, slash, _ = reference.partition("/")
    # As Docker tells a registry from a user's name.
    named = slash and ("." in first or ":" in first or first == "localhost")
    if not named or first in ("docker.io", "index.docker.io"):
        return Endpoint(
            host=DOCKER_HUB, port=443, path="/v2/", kind="registry", rate_limit=RATE_LIMIT
        )
    found = _REGISTRY.fullmatch(first)
    if found is None:
        return None
    host = found["host"].strip("[]")
    return Endpoint(host=host, port=int(found["port"] or 443), path="/v2/", kind="registry")


def parse_remote(url: str) -> Endpoint | None:
    """Where a git remote is; ``None`` for a path of this machine.

    :raises ValueError: its host can be no endpoint.

    Example:
        >>> str(parse_remote("git@github.com:owner/api.git"))
        'ssh://github.com'
        >>> str(parse_remote("https://user:secret@git.lan/owner/api.git#main"))
        'https://git.lan/owner/api.git/info/refs'
    """
    if found := _URL.fullmatch(url):
        scheme = found["scheme"].lower()
        host, port = found["host"].strip("[]"), int(found["port"] or 0)
        if scheme == "git":
            return Endpoint(scheme="tcp", host=host, port=port or 9418, kind="git")
        if scheme == "ssh":
            return Endpoint(scheme="ssh", host=host, port=port or 22, kind="git")
        path = (found["path"] or "").rstrip("/") + "/info/refs"
        default = 443 if scheme == "https" else 80
        return Endpoint(
            scheme="https" if scheme == "https" else "http",
            host=host,
            port=port or default,
            path=path,
            kind="git",
        )
    if found := _SCP.fullmatch(url):
        return Endpoint(scheme="ssh", host=found["host"], port=22, kind="git")
    return None


def parse_registry(url: str) -> Endpoint | None:
    """A registry of models.

    :raises ValueError: it is no URL.
    """
    return Endpoint.model_validate({"url": f"{url}/v2/"})
