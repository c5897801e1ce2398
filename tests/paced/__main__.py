"""``python -m tests.paced PORT --ttft 0.2 --tpot 0.02 --slots 4 --trap NAME``: see `server.py`."""

from __future__ import annotations

from tests.paced.server import main

main()
