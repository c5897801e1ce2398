"""``python -m stackmend.reporting [PATH]``: a report in plain words; without a path the latest."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from stackmend import controller_files
from stackmend.reporting import summary
from stackmend.reporting.state import RunRecord
from stackmend.text import printable_lines

#: Bytes of a record of very many hosts.
MAXIMUM = 64 * 1024**2


def main(arguments: list[str] | None = None) -> int:
    """Print a report. Returns 0 if every host is well, 1 if one is not, 2 if there is no report."""
    default = Path(os.environ.get("STACKMEND_REPORTS") or "var/reports") / "latest.json"
    parser = argparse.ArgumentParser(prog="python -m stackmend.reporting", description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=default)
    path: Path = parser.parse_args(arguments).path
    try:
        record = RunRecord.model_validate_json(controller_files.read(path, MAXIMUM))
    except controller_files.Unreadable as error:
        print(f"no report: {printable_lines(str(path))} {error}", file=sys.stderr)
        return 2
    except ValidationError as error:
        print(f"not a report: {path}: {printable_lines(str(error))}", file=sys.stderr)
        return 2
    summary.show(record, path.resolve(), sys.stdout)
    return 1 if record.not_well() else 0


if __name__ == "__main__":
    sys.exit(main())
