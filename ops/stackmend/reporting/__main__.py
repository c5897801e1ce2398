"""``python -m stackmend.reporting [PATH]``: a report in plain words; without a path the latest."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from stackmend.reporting import read, schema, summary
from stackmend.reporting.reader import ReportError, find_latest
from stackmend.text import make_lines_printable


def main(arguments: list[str] | None = None) -> int:
    """Print a report. Returns 0 if every host is well, 1 if one is not, 2 if there is no report."""
    parser = argparse.ArgumentParser(prog="python -m stackmend.reporting", description=__doc__)
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of reports")
    options = parser.parse_args(arguments)
    if options.schema:
        print(json.dumps(schema.generate(), indent=1))
        return 0
    path = options.path or find_latest()
    try:
        record = read(path)
    except ReportError as error:
        print(f"no report: {make_lines_printable(str(error))}", file=sys.stderr)
        return 2
    summary.show(record, path.resolve(), sys.stdout)
    return 1 if record.list_not_well() else 0


if __name__ == "__main__":
    sys.exit(main())
