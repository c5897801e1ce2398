"""The record of what was proven: read as a declaration, and made."""

from collections.abc import Collection, Mapping

from stackmend.compose.plan.actions import Tag
from stackmend.compose.plan.declaration import is_kept
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied, AppliedService, Declared, StackState


def read_declaration(applied: Applied, state: StackState) -> Declared:
    """The declaration of a record: good as long as the files are those of the record."""
    return Declared(
        config=applied.config, images=state.images, outside=state.outside, warnings=applied.warnings
    )


def list_tags(applied: Applied) -> tuple[Tag, ...]:
    """What the names of images mean by a record."""
    tags = {service.image: service.image_id for service in applied.services.values()}
    return tuple(Tag(image_id=id_, name=name) for name, id_ in tags.items() if name and id_)


def make_record(
    before: Applied | None,
    spec: ComposeSpec,
    files: Mapping[str, str],
    digest: str,
    declared: Declared,
    state: StackState,
    touched: Collection[str],
) -> Applied:
    """The record that a successful apply leaves.

    A service that this run touched is described by what runs now; one that it left alone keeps
    the description that was proven before, so that drift during a run is not written down as right.
    Of one that is kept as it is nothing else is known: it need not even run.
    """
    services: dict[str, AppliedService] = {}
    for name in declared.services:
        known = before.services.get(name) if before else None
        containers = state.list_containers(name)
        if known and name not in touched:
            services[name] = known
        elif containers and not is_kept(declared.services[name]):
            first = containers[0]
            services[name] = AppliedService(
                image=first.image, image_id=first.image_id, shape=first.shape
            )
    return Applied(
        project=spec.project,
        directory=spec.directory,
        profiles=spec.profiles,
        source=digest,
        files=dict(files),
        config=declared.config,
        outside={path: found for path, found in declared.outside.items() if found},
        services=services,
        secrets=tuple(sorted(spec.env_secrets)),
        warnings=declared.warnings,
        applied_at=state.now,
    )
