"""All incidents that a host is looked at for: those that stackmend knows, and a user's own."""

from collections.abc import Iterable

from stackmend.incidents.known import KNOWN
from stackmend.incidents.spec import Incident


def list_incidents(own: Iterable[Incident] = ()) -> tuple[Incident, ...]:
    """All incidents: a user's own first, one of the same id in place of the one of stackmend's.

    :param own: those of a user, as :func:`stackmend.incidents.custom.load` reads them.
    """
    chosen = tuple(own)
    names = {incident.id for incident in chosen}
    return (*chosen, *(incident for incident in KNOWN if incident.id not in names))
