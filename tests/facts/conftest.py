"""What was recorded of real hosts was asked for with one mark."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def mark(foreseen: str) -> str:
    """The mark of every fixture's sections."""
    return foreseen
