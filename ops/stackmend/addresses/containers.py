"""The addresses that containers have and their declaration does not say. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from stackmend.addresses.classification import classify
from stackmend.addresses.normalization import normalize
from stackmend.addresses.reading import read
from stackmend.addresses.state import ImageFacts, Judgement, Running

#: Environments of one service that are read where those of its containers differ.
MAXIMUM_ENVIRONMENTS = 4


def classify_containers(
    config: Mapping[str, Any],
    running: Running,
    images: Mapping[str, ImageFacts] | None = None,
    ignore: Collection[str] = (),
    declared: Iterable[Judgement] = (),
) -> tuple[Judgement, ...]:
    """What may not be right of what containers have otherwise than their services' sections say.

    Nothing corrects it in a file: their section does not have it.

    :param config: what ``docker compose config --format json`` gives, ``$$`` unescaped.
    :param running: what runs, with the environments of containers.
    :param images: what images bring, as for :func:`stackmend.addresses.read`.
    :param ignore: as for :func:`stackmend.addresses.classify`.
    :param declared: what is thought of the addresses in the declaration, which are not repeated.

    Example:
        >>> config = {"services": {"api": {"environment": {"URL": "redis://redis"}}, "redis": {}}}
        >>> environments = {"api": {"api-1": {"URL": "redis://localhost"}}}
        >>> found = classify_containers(config, Running(environments=environments))
        >>> [(one.address.place.source, one.right) for one in found]
        [('running container api-1', 'redis:6379')]
    """
    config = normalize(config)
    changed = {
        name: _list_changed(config, name, running.environments.get(name) or {}, images or {})
        for name in config["services"]
    }
    known = {_identify(judgement) for judgement in declared if judgement.status != "right"}
    found: list[Judgement] = []
    for number in range(min(max(map(len, changed.values()), default=0), MAXIMUM_ENVIRONMENTS)):
        chosen = {name: rows[number] for name, rows in changed.items() if number < len(rows)}
        services = {
            name: {**body, "environment": chosen[name][1]} if name in chosen else body
            for name, body in config["services"].items()
        }
        lived = {**config, "services": services}
        for judgement in classify(read(lived, images), lived, running, images, ignore):
            service, key = judgement.address.place.service, judgement.address.place.key
            # Of a name that no service has only asking can tell.
            right = judgement.status == "right" and judgement.reason != "unknown-name"
            if service not in chosen or right:
                continue
            containers, _, keys = chosen[service]
            if (key in keys or judgement.reason == "proxy") and _identify(judgement) not in known:
                found.append(_place(judgement, containers, running.down, key in keys))
    return tuple(found)


def _list_changed(
    config: Mapping[str, Any],
    name: str,
    containers: Mapping[str, Mapping[str, str]],
    images: Mapping[str, ImageFacts],
) -> list[tuple[list[str], dict[str, str], frozenset[str]]]:
    """The environments of a service's containers that are not its section's.

    Each with the containers that have it, and the variables that differ.
    """
    body = config["services"][name]
    own = {
        key: str(value)
        for key, value in (body.get("environment") or {}).items()
        if value is not None
    }
    image = images.get(str(body.get("image") or f"{config.get('name', '')}-{name}"))
    brought = image.env if image else {}
    found: list[tuple[list[str], dict[str, str], frozenset[str]]] = []
    for container, environment in containers.items():
        lived = {
            key: value
            for key, value in environment.items()
            # Of an image that is not known nobody can tell what it brings.
            if key in own or (image is not None and brought.get(key) != value)
        }
        keys = frozenset(key for key, value in lived.items() if own.get(key) != value)
        if not keys:
            continue
        for names, other, _ in found:
            if other == lived:
                names.append(container)
                break
        else:
            found.append(([container], lived, keys))
    return found


def _identify(judgement: Judgement) -> tuple[str, str, int, str, str]:
    address = judgement.address
    return judgement.subject, address.host, address.port, address.scheme, judgement.reason


def _place(
    judgement: Judgement, containers: Sequence[str], down: frozenset[str], changed: bool
) -> Judgement:
    """What is thought of an address, where it stands, and what takes it from there."""
    address = judgement.address
    where = f"container {', '.join(containers)}"
    if not down & {*containers}:
        where = f"running {where}"
    update: dict[str, Any] = {
        "address": address.model_copy(
            update={"place": address.place.model_copy(update={"file": where, "line": 0})}
        ),
        "edits": (),
        "needs": {},
    }
    if changed:
        update["remedy"] = f"recreate {address.place.service}; its declaration says otherwise"
    elif keys := sorted(judgement.needs.get("environment") or ()):
        # Docker sets these in both cases, and clients differ in which one they take.
        update["remedy"] = judgement.remedy.replace("NO_PROXY", " and ".join(keys))
    return judgement.model_copy(update=update)
