"""The JSON Schema of a diagnosis: ``python -m stackmend.incidents.schema``."""

import json
import sys
from pathlib import Path
from typing import Any

from stackmend import diagnosis
from stackmend.reporting import schema

#: Where it is kept: it travels with the package.
PATH = Path(__file__).with_name("schema-1.json")


def generate() -> dict[str, Any]:
    """The schema of :class:`stackmend.diagnosis.Diagnosis`."""
    return schema.describe(diagnosis.Diagnosis, vars(diagnosis))


if __name__ == "__main__":
    json.dump(generate(), sys.stdout, indent=1)
    print()
