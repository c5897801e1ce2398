"""``make pictures``: the pictures in the README, made of what the demo really printed and wrote.

``python -m tests.lab.pictures --again`` makes them of the last demo, and runs none.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from stackmend import reporting
from stackmend.reporting import fleet, page, reader
from stackmend.worker import pictures
from tests import browser
from tests.lab import demo
from tests.lab.paths import PROJECT

PICTURES = PROJECT / "docs/pictures"
#: What the demo printed, with its colours.
PRINTED = demo.HOME.with_name("demo-terminal.txt")

#: Chapters of the demo that the picture has.
CHAPTERS = ("Now it is broken", "What is wrong?", "Mend it", "Once more")
#: The chapter of which only the titles of findings are kept, where they begin, and where they end.
SHORTENED = "What is wrong?"
_HEAD = re.compile(r"\s*(?:CRITICAL|ERROR|WARNING|\$ |==|ai1: )")
_BODY = re.compile(r"\s+(?:about|found|does|remedy|allow|proof|notes,)\b|-->")

#: Of the page, in pixels.
WIDTH, HEIGHT = 1000, 1100

_STYLE = re.compile(r"\x1b\[[0-9;]*m")
#: A font that would be fetched; whoever looks has a monospaced one.
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.S)


def main() -> int:
    """Run the demo unless it is to be the last one, and draw it; return 0 where both succeed."""
    if sys.argv[1:] != ["--again"] and (code := _run_demo()):
        return code
    PICTURES.mkdir(exist_ok=True)
    for path, data in (
        (PICTURES / "demo.svg", draw_terminal(PRINTED.read_text())),
        (PICTURES / "page.png", draw_page(demo.HOME / "var/reports")),
    ):
        path.write_bytes(data)
        print(f"{path.relative_to(PROJECT)}: {len(data) / 1000:.0f} kB")
    return 0


def draw_terminal(printed: str) -> bytes:
    """What a terminal of 80 columns showed, as SVG.

    + printed: by the demo, with its colours
    """
    console = Console(
        record=True, width=demo.WIDTH, file=io.StringIO(), force_terminal=True, legacy_windows=False
    )
    for line in select_lines(printed):
        console.print(Text.from_ansi(line), soft_wrap=True)
    drawn = console.export_svg(
        title="make demo", theme=DEFAULT_TERMINAL_THEME, unique_id="demo", font_aspect_ratio=0.61
    )
    return _FONT.sub("", drawn).replace("Fira Code, monospace", "monospace").encode()


def select_lines(printed: str) -> Iterator[str]:
    """The lines of the picture.

    + printed: by the demo, with its colours
    """
    title, left_out = "", False
    for line in printed.splitlines():
        plain = _STYLE.sub("", line)
        if plain.startswith("== "):
            title = plain[3:]
        if not title.startswith(CHAPTERS):
            continue
        if not plain or _HEAD.match(plain):
            left_out = False
        elif title.startswith(SHORTENED) and _BODY.match(plain) and not left_out:
            left_out = True
            yield " " * (len(plain) - len(plain.lstrip())) + "…"
        if not left_out:
            yield line


def draw_page(reports: Path) -> bytes:
    """The report's page as PNG, as of a controller without a name of its own.

    + reports: the directory of the demo's records
    """
    # The run that mended it has the most to show.
    path = next(
        path
        for path in sorted(reports.glob("*Z-*.json"), reverse=True)
        if reporting.read(path).hosts[demo.NAME].outcome == "changed"
    )
    record = reporting.read(path).model_copy(update={"controller": "laptop"})
    results, _ = pictures.read_readable(sorted((reports / "benchmarks").glob("*.json")))
    fragments = [pictures.render_fragment(results)] if results else []
    written = demo.HOME / "picture.html"
    page.write(written, record, reader.list_before(path, fleet.MOST_RUNS), fragments)
    drawn = demo.HOME / "picture.png"
    browser.draw(written, drawn, WIDTH, HEIGHT)
    return drawn.read_bytes()


def _run_demo() -> int:
    """Run the demo at a terminal of 80 columns; what it prints is shown and kept."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, demo.WIDTH, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "NO_COLOR")}
    kept = bytearray()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.lab.demo"], env=environment, stdin=theirs, stdout=theirs
    ) as process:
        os.close(theirs)
        # The terminal's end is an error of its reader.
        with contextlib.suppress(OSError):
            while read := os.read(ours, 65536):
                kept += read
                sys.stdout.buffer.write(read)
                sys.stdout.flush()
    os.close(ours)
    PRINTED.write_bytes(bytes(kept).replace(b"\r\n", b"\n"))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
