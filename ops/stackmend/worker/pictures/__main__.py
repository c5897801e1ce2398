"""``python -m stackmend.worker.pictures RESULT.json...``: results as a table, a page and PNG."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stackmend.text import make_lines_printable
from stackmend.worker import pictures


def main(arguments: list[str] | None = None) -> int:
    """Show results. Returns 0, or 2 where a file is no result or cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m stackmend.worker.pictures",
        description="Shows collected results of benchmarks: a table, a page, and pictures.",
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a page that stands alone")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write each chart, light and dark")
    options = parser.parse_args(arguments)
    try:
        results = pictures.read_all(options.results)
        if options.html:
            print(pictures.write_page(results, options.html))
        if options.png:
            for path in pictures.write_pictures(results, options.png):
                print(path)
        if not (options.html or options.png):
            pictures.show(results, sys.stdout)
    except (pictures.ResultError, pictures.ExtraMissingError, OSError) as error:
        print(make_lines_printable(str(error)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
