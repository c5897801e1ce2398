"""The library speaks the field's words: none of those that were given up is an identifier."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]

#: The words that were given up, each with what is said instead.
REJECTED = {
    "wanted": "spec, desired",
    "given": "raw, options",
    "look": "observe, observation",
    "look_again": "observe",
    "Look": "Observation",
    "Reader": "Reconciler",
    "seen": "observed",
    "way_out": "remedy",
    "carry_out": "execute",
    "act_upon": "reconcile",
    "is_well": "is_converged",
    "prove": "verify",
    "judge": "verify, classify",
    "settle": "wait_until_stable",
    "patience": "timeout",
    "Failure": "StepError",
    "Failed": "StepError",
    "Passing": "TransientError",
    "Gone": "TransientError",
    "said": "output, message",
    "told": "message, reported",
    "tell": "report",
    "telling": "report",
    "Teller": "report",
    "masked": "redacted",
    "shown": "output, redacted",
    "stranger": "foreign",
    "verdict": "status",
    "begun": "partial",
    "Barrier": "Protection",
    "barred": "protected",
    "near": "suggest",
    "nearest": "suggest",
    "expect": "prefetch",
    "forget": "invalidate",
    "gather": "fetch_facts",
    "anew": "fresh",
    "ways_in": "auth_methods",
    "usable": "matching_identities",
    "Bringer": "Puller",
    "making": "ModelSource",
    "serves": "for_model",
    "one": "the noun: port, holder, service",
}

MODULES = sorted(
    path
    for directory in ("ops/stackmend", "deploy")
    for path in (PROJECT / directory).rglob("*.py")
)


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """The names of a module with their lines, keyword arguments and attributes among them."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def test_no_identifier_is_a_word_that_was_given_up() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line}: {name}: say {REJECTED[name]}"
        for path in MODULES
        for line, name in identifiers(path)
        if name in REJECTED
    ]
    assert not found, "\n".join(found)
