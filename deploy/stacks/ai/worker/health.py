"""The worker container's healthcheck: exits 0 if redis has answered the worker lately.

A model server that is away does not make the worker ill: its tasks wait. Run with
`python -I -S health.py`: started every few seconds, so it imports nothing it can spare.
"""

import sys
import time

LATELY_SECONDS = 15

try:
    with open("/tmp/worker.alive") as file:  # noqa: PTH123, S108 - pathlib costs half the run
        age = time.monotonic() - float(file.read())
except (OSError, ValueError) as error:
    sys.exit(f"redis has not answered yet: {error}")
if age > LATELY_SECONDS:
    sys.exit(f"redis last answered {age:.0f} s ago")
