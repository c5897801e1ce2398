"""What corrects the wrong links of a project, in a file of ours and as a patch. Pure."""

from collections.abc import Callable, Collection, Mapping

from stackmend import addresses
from stackmend.addresses import Sources
from stackmend.addresses.secrecy import show
from stackmend.addresses.state import (
    Judgement,
)
from stackmend.compose import drift
from stackmend.compose.plan.keepers import is_kept
from stackmend.compose.plan.links import Links, list_images
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Change, Correction, Declared, StackState


def list_correctable(links: Links) -> frozenset[str]:
    """The addresses that could be corrected."""
    return frozenset(judgement.subject for judgement in links.judgements if judgement.correctable)


def make_correction(
    spec: ComposeSpec,
    files: Sources | Mapping[str, bytes],
    declared: Declared,
    links: Links,
    state: StackState,
    redact: Callable[[str], str] = drift.redact,
) -> Correction:
    """What corrects the wrong links of a project's own files.

    :param files: these files.
    :param declared: what Compose makes of them.
    :param state: what runs.
    :param redact: what a report makes of a line.
    """
    assert spec.links is not None, "only what is desired is corrected"
    override = addresses.make_override(links.wrong, declared.config, files, list_images(declared))
    left = {left.subject: f"{left.reason}; {left.remedy}" for left in override.left}
    changes = tuple(
        Change(
            service=judgement.address.place.service,
            variable=judgement.address.place.name,
            origin=judgement.address.place.source,
            old=_format_address(judgement),
            new=show(judgement.right),
            cause=judgement.cause,
            kept=_is_kept(judgement, declared, state),
        )
        for judgement in links.wrong
        if judgement.correctable and judgement.subject not in left
    )
    patch, omitted = _make_patch(links, files, redact)
    return Correction(
        policy=spec.links,
        content=override.content.decode(),
        changes=changes,
        left=left,
        patch=patch,
        omitted=omitted,
    )


def _is_kept(judgement: Judgement, declared: Declared, state: StackState) -> bool:
    body = declared.services[judgement.address.place.service]
    image = declared.images.get(str(body.get("image")))
    environment = {**(image.env if image else {}), **(body.get("environment") or {})}
    return is_kept(judgement, body, environment, state)


def add_patch(
    links: Links,
    files: Sources | Mapping[str, bytes],
    correction: Correction | None,
    redact: Callable[[str], str] = drift.redact,
) -> Links:
    """The same with what corrects the project's own files, and with the patch that does so there.

    :param files: these files.
    :param correction: what corrects them, and was made from addresses as they stand there.
    :param redact: what a report makes of a line.
    """
    patch, omitted = (correction.patch, correction.omitted) if correction else ((), ())
    if not patch:
        patch, omitted = _make_patch(links, files, redact)
    return links.model_copy(update={"correction": correction, "patch": patch, "omitted": omitted})


def _make_patch(
    links: Links, files: Sources | Mapping[str, bytes], redact: Callable[[str], str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lines of a patch that corrects the project's own files, and what it does not correct."""
    wrong = links.wrong
    judgements = [
        judgement
        for judgement in links.judgements
        if judgement.status != "wrong" or judgement in wrong
    ]
    patch = addresses.make_patch(judgements, files, redact)
    omitted = [f"{left.subject}: {left.reason}; {left.remedy}" for left in patch.left]
    omitted += [
        f"{judgement.subject}: no other address mends it; {judgement.remedy}"
        for judgement in wrong
        if not judgement.correctable
    ]
    # A text of YAML may hold what only Python takes for the end of a line.
    lines = patch.text.removesuffix("\n").split("\n") if patch.text else ()
    return tuple(lines), tuple(dict.fromkeys(omitted))


def _format_address(judgement: Judgement) -> str:
    address = judgement.address
    return f"{address.host}:{address.port}" if address.port else address.text


def leave(correction: Correction, subjects: Collection[str], problem: str = "") -> Correction:
    """The same with what is still wrong although it was made.

    :param problem: why it is not laid over the project's files; empty where it is.
    """
    left = {subject: correction.left.get(subject, "") for subject in sorted(subjects)}
    changes = {"content": "", "changes": ()} if problem else {}
    return correction.model_copy(update={"left": left, "problem": problem, **changes})


def find_excess(declared: Declared, corrected: Declared, links: Links) -> str:
    """What a correction changes that it should not; empty where it changes what is wrong alone.

    :param declared: what Compose makes of the project's own files.
    :param corrected: what it makes of them with the file of ours.
    """
    allowed: dict[str, set[str]] = {}
    for judgement in links.wrong:
        place = judgement.address.place
        keys = allowed.setdefault(place.service, set())
        for edit in judgement.edits:
            kind = "environment" if edit.place.kind == "image" else edit.place.kind
            keys.add(f"environment.{edit.place.key}" if kind == "environment" else kind)
        for part, needed in judgement.needs.items():
            keys.update([f"{part}.{key}" for key in needed] if part == "environment" else [part])
    for name in sorted({*declared.services, *corrected.services}):
        pair = declared.services.get(name), corrected.services.get(name)
        for path, _, _ in drift.find_differences(*pair, ""):
            if not any(path == key or path.startswith(f"{key}.") for key in allowed.get(name, ())):
                return f"it would change {name}.{path}"
    rest = [{**config, "services": None} for config in (declared.config, corrected.config)]
    return "" if rest[0] == rest[1] else "it would change more than services"
