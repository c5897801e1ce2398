"""The JSON Schema of a collected result, made from its models."""

import json
import sys
from pathlib import Path
from typing import Any

from stackmend.reporting import schema
from stackmend.worker.benchmark import state
from stackmend.worker.benchmark.spec import Limits

#: Where it is kept: it travels with the package.
PATH = Path(__file__).with_name(f"schema-{state.SCHEMA}.json")


def generate() -> dict[str, Any]:
    """The schema of :class:`stackmend.worker.benchmark.state.Result`."""
    return schema.describe(state.Result, {**vars(state), "Limits": Limits})


if __name__ == "__main__":
    json.dump(generate(), sys.stdout, indent=1)
    print()
