"""Fixtures of the tests of whole stacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.fixtures import Lab
from tests.lab.stacks import Shop, standing


@pytest.fixture
def shop(lab: Lab, tmp_path: Path) -> Shop:
    """The shop, deployed and well on a managed host; reused where the last test settled it."""
    return standing(tmp_path, lab.hold(1)[0])
