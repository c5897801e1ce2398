"""What processes of a machine are called with: ``python3 called_with.py FILE``, until it is ended.

Each command line that is met is a line of FILE, once. It looks again and again, and takes a quarter
of a processor for it at most: what lasts a tenth of a second is met. For a host of the lab, which
gets a copy, and with the word ``own`` for the controller, without what runs in containers there.
"""

import sys
import time
from pathlib import Path

own = Path("/proc/self/ns/pid").readlink() if sys.argv[2:] else None
known = set()
with Path(sys.argv[1]).open("wb", buffering=0) as file:
    while True:
        began = time.monotonic()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes()
                if words in known or (own and own != (process / "ns/pid").readlink()):
                    continue
            except OSError:
                continue
            known.add(words)
            file.write(words.replace(b"\0", b" ") + b"\n")
        time.sleep(max(0.01, 3 * (time.monotonic() - began)))
