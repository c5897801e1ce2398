"""The incidents that stackmend knows by itself, root causes before what they cause."""

from stackmend.incidents.known.host import HOST
from stackmend.incidents.known.runbook import RUNBOOK
from stackmend.incidents.known.services import SERVICES
from stackmend.incidents.spec import Incident

KNOWN: tuple[Incident, ...] = (*HOST, *RUNBOOK, *SERVICES)
