"""Data that a new container would no longer see: never left behind without consent."""

from collections.abc import Iterable, Mapping
from typing import Any

from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Declared, Image, StackState
from stackmend.decision import Refusal


def find_losses(
    spec: ComposeSpec, state: StackState, declared: Declared, names: Iterable[str]
) -> tuple[Refusal, ...]:
    """Why services must not be recreated: a volume that they write to would be left behind.

    One with a name stays where its service has it at the same place, or another service has it.

    Compose hands an anonymous volume on to the next container where the image or the declaration
    still makes one at the same place (docker/compose ``pkg/compose/create.go``,
    ``buildContainerMountOptions``), and forgets it otherwise. Where the new image is not there yet,
    there is no answer: ask again once it is.
    """
    found: list[Refusal] = []
    for name in names:
        body = declared.services.get(name)
        if body is None:
            continue
        image = declared.images.get(str(body.get("image") or f"{spec.project}-{name}"))
        kept = _list_kept(body, image)
        named = _list_named(spec, declared, name)
        elsewhere = {
            volume
            for other in declared.services
            if other != name
            for volume in _list_named(spec, declared, other).values()
        }
        for container in state.list_containers(name):
            for path, mount in (container.shape.get("volumes") or {}).items():
                source, rule = mount.get("source"), f"volume:{name}:{path}"
                left = source in state.volume_labels and source != named.get(path)
                if _is_written(mount) and left and source not in elsewhere:
                    if rule not in spec.allow:
                        found.append(_refuse_left(name, path, str(source), named, rule))
                    continue
                if mount.get("source") != "(anonymous)" or kept is None or path in kept:
                    continue
                if rule in spec.allow:
                    continue
                found.append(
                    Refusal(
                        subject=name,
                        reason=f"{container.name} keeps data in an anonymous volume at {path}, "
                        "which its successor would not have",
                        remedy=f"declare a volume for {path} and copy the data into it; or, where "
                        f'it may be left behind, add to the stack: "allow": ["{rule}"]',
                    )
                )
    return tuple(dict.fromkeys(found))


def _is_written(mount: Mapping[str, Any]) -> bool:
    """Whether it is a volume with a name that its container can write to."""
    named = mount.get("type") == "volume" and mount.get("source") != "(anonymous)"
    return named and not mount.get("read_only")


def _list_named(spec: ComposeSpec, declared: Declared, name: str) -> dict[str, str]:
    """Where a service is to have volumes with a name, and how the engine calls them."""
    volumes = declared.config.get("volumes") or {}
    return {
        str(mount.get("target")): str(
            (volumes.get(mount["source"]) or {}).get("name") or f"{spec.project}_{mount['source']}"
        )
        for mount in (declared.services.get(name) or {}).get("volumes") or ()
        if mount.get("type") == "volume" and mount.get("source")
    }


def _refuse_left(name: str, path: str, volume: str, named: Mapping[str, str], rule: str) -> Refusal:
    at = next((other for other, source in named.items() if source == volume), "")
    new = named.get(path)
    then = f"has it at {at}" if at else f"has {new} there" if new else "has it no more"
    how = (
        "the report then says how to copy it"
        if new
        else f"copy it before (`docker run --rm -v {volume}:/from:ro -v DIRECTORY:/to busybox "
        "cp -a /from/. /to/`)"
    )
    return Refusal(
        subject=name,
        reason=f"{name} keeps data in the volume {volume} at {path}, and {then} from now on",
        remedy=f"keep {volume} at {path}; or, where {name} may go on without that data, add to "
        f'the stack: "allow": ["{rule}"]; {how}',
    )


def _list_kept(body: Mapping[str, Any], image: Image | None) -> frozenset[str] | None:
    """Where the next container has anonymous volumes; ``None`` where that is not known yet."""
    if image is None or image.volumes is None:
        return None
    declared = {mount.get("target"): mount for mount in body.get("volumes") or ()}
    anonymous = {
        str(path)
        for path, mount in declared.items()
        if mount.get("type") == "volume" and not mount.get("source")
    }
    return frozenset(anonymous | {path for path in image.volumes if path not in declared})
