"""Who made a container: Compose for a project, or somebody else. Pure.

Labels are a claim, not a proof. ``docker commit`` writes a container's labels into the image, an
image that somebody pulls may hold any label, and ``docker run`` hands all of an image's labels on
to the container. Anybody's container can so bear the labels of a project whose replica it is not,
and Docker Compose itself, which chooses by labels alone, would stop and remove it. A container is
therefore a project's own only where all of this agrees:

1. **Compose wrote its labels when it was created**, not its image's maker before. Compose writes
   all of its labels at once, so one that cannot come from the image proves the others. Either the
   label ``image`` holds the id of the very image that the container runs: an id is a digest over
   the image's labels, so no image can hold its own. Or the label ``config-hash`` has a value that
   the image's label of that name has not: Compose hashes the service's declaration, which names the
   image. This one is needed where ``image`` says something else than the engine's id (a service
   pinned to a platform, a container that another tool made again from a newer image). Labels that
   equal the image's, and neither proof, count for nothing; where the image is gone, the first
   proof alone is left.
2. **The labels are complete and look as Compose writes them**: project, service, number,
   config-hash, oneoff, working directory and files. A container that was given two of them by hand
   is its maker's.
3. **Its name is the one Compose gives**: ``PROJECT-SERVICE-NUMBER`` (``_`` in compatibility mode),
   the service's ``container_name``, or one of these behind ``<12 hex>_`` while Compose puts it in
   another's place. An engine has each name once, so at most one container can be a replica. One-off
   runs may have any name: ``docker compose run --name`` takes one.

From which directory it was started is a question of its own (:func:`get_start_directory`): a
container that Compose made for a project of the same name elsewhere is that project's, and may be
taken over with consent.

Who may speak to the engine can forge all of it, and could remove the container as well: this keeps
images, other tools, and people who start things by hand from being taken for the project.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

LABEL = "com.docker.compose."

#: The name of a container that Compose has made to take another's place, until it has.
TEMPORARY_NAME = re.compile(r"[0-9a-f]{12}_")

#: Labels that Compose gives each container, and what it writes there.
_SHAPES: Mapping[str, re.Pattern[str]] = {
    "service": re.compile(r".+", re.DOTALL),
    "config-hash": re.compile(r"[0-9a-f]{64}"),
    "oneoff": re.compile(r"True|False"),
    "project.working_dir": re.compile(r"/.*", re.DOTALL),
    "project.config_files": re.compile(r".+", re.DOTALL),
}
_NUMBER = re.compile(r"[1-9][0-9]*")


class Origin(NamedTuple):
    """What tells who made a container.

    :param labels: its labels; those of Compose are enough.
    :param image_labels: the same of its image; ``None`` where the image could not be asked.
    """

    name: str
    image_id: str
    labels: Mapping[str, str]
    image_labels: Mapping[str, str] | None = None

    def get_label(self, name: str) -> str:
        """A label of Compose's, or nothing."""
        return self.labels.get(LABEL + name, "")


def explain_foreign(origin: Origin, project: str, names: Mapping[str, Collection[str]]) -> str:
    """Why Compose did not make a container for a project; empty where it did.

    :param names: per service the ``container_name`` that it is or was declared with.
    """
    if origin.get_label("project") != project:
        return (
            "its labels name no project" if not origin.get_label("project") else "another project's"
        )
    for name, shape in _SHAPES.items():
        if not shape.fullmatch(origin.get_label(name)):
            return _explain_label(origin, name)
    if not is_written_by_compose(origin):
        if origin.image_labels is None:
            return "its image is gone, and nothing else tells whose its labels are"
        return "its labels come from its image"
    if origin.get_label("oneoff") == "True":
        return ""
    if not _NUMBER.fullmatch(origin.get_label("container-number")):
        return _explain_label(origin, "container-number")
    service, number = origin.get_label("service"), origin.get_label("container-number")
    usual = f"{project}-{service}-{number}"
    expected = {usual, f"{project}_{service}_{number}", *names.get(service, ())}
    name = origin.name
    if LABEL + "replace" in origin.labels:
        name = TEMPORARY_NAME.sub("", name, count=1)
    if name not in expected and origin.name not in expected:
        return f"Compose calls its own {' or '.join([usual, *sorted(names.get(service, ()))])}"
    return ""


def is_written_by_compose(origin: Origin) -> bool:
    """Whether Compose wrote the labels when it created the container; see the module."""
    if origin.image_id and origin.get_label("image") == origin.image_id:
        return True
    written = origin.get_label("config-hash")
    if not written or origin.image_labels is None:
        return False
    return origin.image_labels.get(LABEL + "config-hash", "") != written


def get_start_directory(origin: Origin) -> str:
    """The directory that a project was started from, by the labels of one of its containers.

    Where the first compose file lies outside of the working directory, it is that file's.
    """
    directory = origin.get_label("project.working_dir").rstrip("/") or "/"
    # A directory's name may hold the comma that parts the files.
    inside = directory.rstrip("/") + "/"
    first = origin.get_label("project.config_files").replace(inside, "").partition(",")[0]
    return (first.rpartition("/")[0] or "/") if first.startswith("/") else directory


def is_chosen_by_compose(origin: Origin) -> bool:
    """Whether Compose takes it for a replica of the service that its labels name.

    It asks for the label config-hash, and leaves out what says to be a one-off run (docker/compose
    ``pkg/compose/containers.go``; the same from v2.16 to v5.5).
    """
    oneoff = origin.labels.get(LABEL + "oneoff", "False")
    hashed = LABEL + "config-hash" in origin.labels or LABEL + "oneoff" in origin.labels
    return bool(origin.get_label("service")) and hashed and oneoff == "False"


def _explain_label(origin: Origin, name: str) -> str:
    if not origin.get_label(name):
        return f"it has no label {LABEL}{name}"
    return f"its label {LABEL}{name} is not as Compose writes it"
