"""Data that a new container would no longer see: never left behind without consent."""

from collections.abc import Iterable, Mapping
from typing import Any

from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Declared, Image, StackState
from stackmend.decision import Refusal


def find_losses(
    spec: ComposeSpec, state: StackState, declared: Declared, names: Iterable[str]
) -> tuple[Refusal, ...]:
    """Why services must not be recreated: an anonymous volume of theirs would be left behind.

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
        for container in state.list_containers(name):
            for path, mount in (container.shape.get("volumes") or {}).items():
                if mount.get("source") != "(anonymous)" or kept is None or path in kept:
                    continue
                rule = f"volume:{name}:{path}"
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
