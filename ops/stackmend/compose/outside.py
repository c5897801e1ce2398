"""What a project's files name outside: images that are pulled, git remotes that are built from."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackmend.compose.published import read_declared, substitute
from stackmend.compose.source import Source, SourceError
from stackmend.compose.spec import ComposeSpec, GitSource

_FROM = re.compile(
    r"^[ \t]*FROM[ \t]+(?:--[a-z]+=\S+[ \t]+)*(?P<image>\S+)(?:[ \t]+AS[ \t]+(?P<stage>\S+))?",
    re.IGNORECASE | re.MULTILINE,
)
_REMOTE = re.compile(r"(?:https?|git|ssh)://.*|[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:.*")


def find_outside(spec: ComposeSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The images that a project needs from registries, and the git remotes that it builds from.

    Of a source in a git repository only that is known. What depends on a variable without a value
    is left out, and so is what ``FROM`` takes from an argument; where the files cannot be read
    there is nothing.

    :param spec: the project.
    :returns: references of images, and URLs.
    """
    if isinstance(spec.source, GitSource):
        return (), (spec.source.url,)
    try:
        source, services, variables = read_declared(spec)
    except SourceError:
        return (), ()
    images: dict[str, None] = {}
    remotes: dict[str, None] = {}
    for service in services:
        build = service.get("build")
        if build is None:
            if service.get("pull_policy") not in ("never", "build"):
                images[substitute(service.get("image"), variables)] = None
            continue
        context, file = _find_context(build, variables)
        if _REMOTE.fullmatch(context):
            remotes[context] = None
            continue
        for image in _list_bases(source, context, file):
            images[image] = None
    return tuple(filter(None, images)), tuple(remotes)


def _find_context(build: Any, variables: Mapping[str, str]) -> tuple[str, str]:
    options = build if isinstance(build, dict) else {"context": build}
    context = substitute(options.get("context", "."), variables)
    return context, substitute(options.get("dockerfile", "Dockerfile"), variables)


def _list_bases(source: Source, context: str, file: str) -> Iterator[str]:
    """The images that a build begins with, but for its own stages."""
    parts = [part for part in f"{context}/{file}".split("/") if part not in ("", ".")]
    found = source.files.get("/".join(parts))
    if found is None:
        return
    stages: set[str] = set()
    for match in _FROM.finditer(found.content.decode(errors="replace")):
        image = match["image"]
        if image.lower() not in stages and image != "scratch" and "$" not in image:
            yield image
        if match["stage"]:
            stages.add(match["stage"].lower())
