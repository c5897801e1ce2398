"""The file of stackmend's own that corrects the links of a project's files, laid over them."""

from stackmend.compose.plan.links import is_correcting
from stackmend.compose.source import Source
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied, Correction


def restore_correction(
    spec: ComposeSpec, own: Source, applied: Applied | None
) -> Correction | None:
    """What corrects the project's own files by the record, where it was made from the same.

    :param own: the project's own files.
    """
    known = applied.correction if applied else None
    if applied is None or known is None or known.policy != spec.links or not is_correcting(spec):
        return None
    return known if apply_correction(own, known).digest == applied.source else None


def apply_correction(own: Source, correction: Correction | None) -> Source:
    """The project's own files, and over them the one that corrects their links."""
    if correction is None or not correction.content:
        return own
    return own.add_override(correction.content.encode())


def is_possible(spec: ComposeSpec, own: Source) -> bool:
    """Whether links are to be corrected, in files that another one can be laid over."""
    # Files that .env names are all that Compose reads.
    return is_correcting(spec) and not own.names_files
