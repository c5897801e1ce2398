"""Who made a container: what proves it, what only claims it, and what no image can fake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.provenance import (
    LABEL,
    Origin,
    explain_foreign,
    get_start_directory,
    is_chosen_by_compose,
)

HASH, OTHER_HASH = "1" * 64, "2" * 64
IMAGE, SNAPSHOT = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def labels(**changes: str | None) -> dict[str, str]:
    """What Compose gives the second worker; ``__`` for a dot, ``None`` for none."""
    given = {
        "project": "gym",
        "service": "worker",
        "container-number": "2",
        "config-hash": HASH,
        "oneoff": "False",
        "image": IMAGE,
        "project.working_dir": "/opt/gym",
        "project.config_files": "/opt/gym/compose.yaml",
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return {LABEL + name: value for name, value in given.items() if value is not None}


def why(
    name: str = "gym-worker-2",
    image_id: str = IMAGE,
    image_labels: Mapping[str, str] | None = {},
    names: Mapping[str, tuple[str, ...]] = {},
    **changes: Any,
) -> str:
    renamed = {
        key.replace("_number", "-number").replace("_hash", "-hash"): value
        for key, value in changes.items()
    }
    return explain_foreign(Origin(name, image_id, labels(**renamed), image_labels), "gym", names)


# Compose's own


@pytest.mark.parametrize(
    "own",
    [
        {},
        # In compatibility mode, and with container_name.
        {"name": "gym_worker_2"},
        {"name": "hands", "names": {"worker": ("hands",)}},
        # While it takes another's place, and for ever after.
        {"name": "0123456789ab_gym-worker-2", "replace": "0123"},
        {"name": "0123456789ab_hands", "replace": "0123", "names": {"worker": ("hands",)}},
        {"replace": "0123"},
        # One-off runs: of any name, and not numbered.
        {"name": "gym-worker-run-0123456789ab", "oneoff": "True", "container_number": None},
        {"name": "errand", "oneoff": "True"},
        # From an image that Compose built, and that has labels of its own.
        {"image_labels": {LABEL + "project": "gym", LABEL + "service": "worker"}},
        # From an image committed from a container of the same service: all but the id is the same.
        {"image_labels": labels(), "image": SNAPSHOT, "image_id": SNAPSHOT},
        # The same, where Compose writes another digest than the engine's id.
        {
            "image_labels": labels(config_hash=None) | {LABEL + "config-hash": OTHER_HASH},
            "image_id": SNAPSHOT,
        },
        # Made again by another tool from a newer image; from one that is gone.
        {"image_id": SNAPSHOT},
        {"image_labels": None},
    ],
    ids=str,
)
def test_what_compose_made_is_the_projects(own: dict[str, Any]) -> None:
    assert why(**own) == ""


# Others'


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [
        # docker commit, docker run: under any name, also the very one.
        ({"image_labels": labels(), "image_id": SNAPSHOT}, "come from its image"),
        ({"image_labels": labels(), "image_id": SNAPSHOT, "name": "debug"}, "come from its image"),
        ({"image_labels": None, "image_id": SNAPSHOT}, "its image is gone"),
        # An image that holds what it likes.
        ({"image_labels": labels(image="sha256:x"), "image": "sha256:x"}, "come from its image"),
        ({"image": None, "image_labels": labels(image=None)}, "come from its image"),
        ({"image": "", "image_id": "", "image_labels": labels()}, "come from its image"),
        # Two labels, given by hand; a few more.
        ({"config_hash": None, "container_number": None, "oneoff": None}, "config-hash"),
        ({"config_hash": "mine"}, "config-hash is not as Compose writes it"),
        ({"oneoff": None}, "oneoff"),
        ({"oneoff": "true"}, "oneoff is not as Compose writes it"),
        ({"container_number": "two"}, "container-number is not as Compose writes it"),
        ({"container_number": "02"}, "container-number is not as Compose writes it"),
        ({"service": None}, "service"),
        ({"project__working_dir": None}, "working_dir"),
        ({"project__working_dir": "gym"}, "working_dir is not as Compose writes it"),
        ({"project__config_files": None}, "config_files"),
        # Another number, another service, another name.
        ({"name": "gym-worker-1"}, "Compose calls its own gym-worker-2"),
        ({"name": "gym-redis-2"}, "Compose calls its own gym-worker-2"),
        ({"name": "debug"}, "Compose calls its own gym-worker-2"),
        ({"name": "hands", "names": {"redis": ("hands",)}}, "Compose calls its own"),
        ({"name": "gym-worker-2-set-aside"}, "Compose calls its own"),
        ({"name": "0123456789ab_gym-worker-2"}, "Compose calls its own"),
        ({"name": "0123_gym-worker-2", "replace": "0123"}, "Compose calls its own"),
        ({"name": "0123456789ab_0123456789ab_gym-worker-2", "replace": "1"}, "Compose calls"),
        ({"project": "other"}, "another project's"),
        ({"project": None}, "no project"),
    ],
    ids=str,
)
def test_what_only_claims_to_be_the_projects(foreign: dict[str, Any], reason: str) -> None:
    assert reason in why(**foreign)


NAMES = st.sampled_from(
    ["gym-worker-1", "gym_worker_1", "gym-worker-2", "debug", "0123456789ab_gym-worker-1"]
) | st.text(max_size=12)
VALUES = st.sampled_from(
    [
        "gym",
        "worker",
        "1",
        "2",
        HASH,
        OTHER_HASH,
        "True",
        "False",
        IMAGE,
        SNAPSHOT,
        "/opt/gym",
        "/opt/gym/compose.yaml",
        "",
    ]
) | st.text(max_size=12)
KEYS = st.sampled_from(
    [
        "project",
        "service",
        "container-number",
        "config-hash",
        "oneoff",
        "image",
        "replace",
        "project.working_dir",
        "project.config_files",
    ]
)
LABELS = st.dictionaries(KEYS.map(lambda key: LABEL + key), VALUES) | st.just(labels())


@given(NAMES, LABELS)
def test_no_image_makes_a_container_ours(name: str, held: dict[str, str]) -> None:
    """Whatever an image holds, but its own id: no image can, which is made of what it holds."""
    image_id = "sha256:" + "f" * 64
    assert explain_foreign(Origin(name, image_id, held, held), "gym", {"worker": (name,)})


@given(NAMES, LABELS, st.dictionaries(st.text(max_size=8), VALUES, max_size=3))
def test_labels_of_ones_own_add_nothing_to_an_images(
    name: str, held: dict[str, str], own: dict[str, str]
) -> None:
    """``docker run --label team=x``: only a label of Compose's tells of Compose."""
    image_id = "sha256:" + "f" * 64
    assert explain_foreign(
        Origin(name, image_id, {**held, **own}, held), "gym", {"worker": (name,)}
    )


@given(NAMES, LABELS, st.none() | LABELS, st.sampled_from([IMAGE, SNAPSHOT, ""]))
def test_at_most_one_container_is_a_replica(
    name: str, held: dict[str, str], image_labels: dict[str, str] | None, image_id: str
) -> None:
    """What is ours and no one-off run has the name of its service and number: one each."""
    origin = Origin(name, image_id, held, image_labels)
    if not explain_foreign(origin, "gym", {}) and origin.get_label("oneoff") != "True":
        service, number = origin.get_label("service"), origin.get_label("container-number")
        plain = name[13:] if LABEL + "replace" in held and name[12:13] == "_" else name
        assert plain in {f"gym-{service}-{number}", f"gym_{service}_{number}"}
        # Compose itself would choose it.
        assert is_chosen_by_compose(origin)


# Whom Compose takes for a replica


@pytest.mark.parametrize(
    ("held", "chosen"),
    [
        (labels(), True),
        (labels(oneoff="True"), False),
        (labels(oneoff=None), True),
        ({LABEL + "project": "gym", LABEL + "service": "redis"}, False),
        ({LABEL + "service": "redis", LABEL + "oneoff": "False"}, True),
        ({LABEL + "service": "redis", LABEL + "config-hash": ""}, True),
        (labels(service=None), False),
    ],
)
def test_whom_compose_chooses(held: dict[str, str], chosen: bool) -> None:
    assert is_chosen_by_compose(Origin("debug", IMAGE, held)) is chosen


# Where it was started


@pytest.mark.parametrize(
    ("directory", "files", "start"),
    [
        ("/opt/gym", "/opt/gym/compose.yaml", "/opt/gym"),
        ("/opt/gym", "/opt/gym/compose.yaml,/opt/gym/more/prod.yaml", "/opt/gym"),
        ("/opt/gym", "compose.yaml", "/opt/gym"),
        ("/opt/gym", "-", "/opt/gym"),
        ("/opt/gym/", "/opt/gym/compose.yaml", "/opt/gym"),
        ("/opt/a,/b", "/opt/a,/b/compose.yaml,/opt/a,/b/more.yaml", "/opt/a,/b"),
        ("/", "/compose.yaml", "/"),
        ("/opt/gym", "/opt/gym/compose.yaml,/srv/other/compose.yaml", "/opt/gym"),
        ("/opt/gym", "/srv/other/compose.yaml,/opt/gym/compose.yaml", "/srv/other"),
        ("/opt/gym", "/opt/gym-2/compose.yaml", "/opt/gym-2"),
        ("/opt/gym", "/compose.yaml", "/"),
    ],
)
def test_where_a_project_was_started(directory: str, files: str, start: str) -> None:
    held = labels(project__working_dir=directory, project__config_files=files)
    assert get_start_directory(Origin("gym-worker-2", IMAGE, held)) == start
