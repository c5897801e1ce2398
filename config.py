"""Read by pyinfra before the inventory: wrong settings end a run before any host is contacted."""

from ops import reports
from ops.connection import preflight
from ops.spec import preflight as validate

reports.install()
preflight.install(validate)
