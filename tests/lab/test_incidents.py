"""All five incidents of the runbook at once: named by the doctor, healed by ``stackmend site``.

``python -m tests.lab.incidents`` does the same in more orders, and each alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import ai
from tests.lab.fixtures import Lab
from tests.lab.incidents import INJECTIONS, heal, runbook
from tests.lab.model_registry import ModelRegistry


@pytest.mark.slow
def test_all_five_in_two_random_orders(
    lab: Lab,
    model_registry: ModelRegistry,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    seed = random.randrange(10**6)
    record_property("seed", seed)
    print(f"seed {seed}")
    order = random.Random(seed)
    stack = ai.make(tmp_path, lab.take(1)[0], model_registry)
    stack.serve()
    with runbook(stack):
        for _ in range(2):
            names = list(INJECTIONS)
            order.shuffle(names)
            assert heal(stack, names) == []
