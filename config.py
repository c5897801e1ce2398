"""Read by pyinfra before the inventory, in a checkout of stackmend."""

import atexit
import gc
import sys

from stackmend import startup

# pyinfra forbids it for the files that it executes itself; without it every module of ours would be
# compiled again at every run.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

# At its end Python looks through every object for cycles to free, memory that the system takes back
# anyway: a fifth of the processor time of a run with nothing to do.
atexit.register(gc.freeze)

# Here, and not only once the inventory is made: what is wrong with that is reported, too.
startup.install()
