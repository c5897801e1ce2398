"""What a host's model server has, its bytes read no more often than needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stackmend import connection
from stackmend.models.facts import ModelStore
from stackmend.models.plan import carried
from stackmend.models.state import StoreState

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds that a reading of every byte may take.
HASHING = 6 * 3600


@dataclass
class _Known:
    """What was read of one host's server.

    :param latest: what was asked but for contents, and the last reading.
    :param contents: what was asked, and the last reading of every byte: good until something is
        changed.
    :param together: the last reading without contents, and what the two make together.
    """

    latest: tuple[Mapping[str, Any], StoreState] | None = None
    contents: tuple[Mapping[str, Any], StoreState] | None = None
    together: tuple[StoreState, StoreState] | None = None


_known: WeakKeyDictionary[Host, _Known] = WeakKeyDictionary()


def read(
    host: Host,
    asked: Mapping[str, Any],
    *,
    anew: bool = False,
    changed: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> StoreState | connection.Unknown:
    """What a server has, as it was read before where that still holds.

    Where contents are asked for, every byte is read once, and again only where it is said that
    they have changed; in between what was found of them is taken over.

    :param asked: the arguments of the fact :class:`ModelStore`.
    :param anew: read it now, whatever was read before.
    :param changed: contents were changed since the last reading.
    :param arguments: pyinfra's own, as whom it is read; by default those of the operation.
    """
    known = _known.setdefault(host, _Known())
    given = dict(arguments or {})
    quick = {**asked, "hashes": False}
    before = known.contents
    if asked["hashes"] and (changed or before is None or before[0] != asked):
        long = {**given, **asked, "_timeout": HASHING}
        (state,) = connection.fetch_facts(host, [(ModelStore, long)])
        if isinstance(state, StoreState):
            known.latest, known.contents = (quick, state), (dict(asked), state)
            known.together = None
        return _checked(state)
    if anew:
        (state,) = connection.fetch_facts(host, [(ModelStore, {**given, **quick})])
    else:
        state = connection.read(host, ModelStore, **{**given, **quick})
    if not isinstance(state, StoreState):
        return _checked(state)
    if asked["hashes"] and before is not None:
        # The same reading gives the same value, by which others tell that nothing is new.
        if known.together is None or known.together[0] is not state:
            known.together = (state, carried(state, before[1]))
        state = known.together[1]
    known.latest = (quick, state)
    return state


def latest(
    host: Host, asked: Mapping[str, Any], arguments: Mapping[str, Any]
) -> StoreState | connection.Unknown:
    """What a server had when it was last looked at; read now, without contents, if never.

    :param asked: the arguments of the fact :class:`ModelStore`.
    :param arguments: pyinfra's own, as whom it is read.
    """
    quick = {**asked, "hashes": False}
    known = _known.setdefault(host, _Known())
    if known.latest is not None and known.latest[0] == quick:
        return known.latest[1]
    return read(host, quick, arguments=arguments)


def _checked(state: Any) -> StoreState | connection.Unknown:
    assert isinstance(state, StoreState | connection.Unknown), "the fact gives nothing else"
    return state
