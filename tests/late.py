"""``late.py``: how late this machine lets a process run, until its standard input ends.

It does nothing else, and runs none of what is tested. Standard library alone.
"""

import sys
import threading
import time

#: Seconds between two readings.
SLEEP = 0.005


def main():
    """Print the seconds by which it was late at most."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    print("ready", flush=True)
    late = 0.0
    while not over.is_set():
        due = time.monotonic() + SLEEP
        time.sleep(SLEEP)
        late = max(late, time.monotonic() - due)
    print(late, flush=True)


if __name__ == "__main__":
    main()
