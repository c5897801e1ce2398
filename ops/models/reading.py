"""What a host's model server has, its bytes read no more often than needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ops import connection
from ops.models.facts import ModelStore
from ops.models.plan import carried
from ops.models.state import StoreState

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds that a reading of every byte may take.
HASHING = 6 * 3600

#: The last reading of each host's server, with what it was asked but for contents.
_latest: WeakKeyDictionary[Host, tuple[Mapping[str, Any], StoreState]] = WeakKeyDictionary()

#: The last reading of every byte, likewise: good until something is changed.
_contents: WeakKeyDictionary[Host, tuple[Mapping[str, Any], StoreState]] = WeakKeyDictionary()

#: The last reading without them, and what the two make together.
_together: WeakKeyDictionary[Host, tuple[StoreState, StoreState]] = WeakKeyDictionary()


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
    given = dict(arguments or {})
    quick = {**asked, "hashes": False}
    before = _contents.get(host)
    if asked["hashes"] and (changed or before is None or before[0] != asked):
        long = {**given, **asked, "_timeout": HASHING}
        (state,) = connection.gather(host, [(ModelStore, long)])
        if isinstance(state, StoreState):
            _contents[host] = (dict(asked), state)
            _latest[host] = (quick, state)
            _together.pop(host, None)
        return _known(state)
    if anew:
        (state,) = connection.gather(host, [(ModelStore, {**given, **quick})])
    else:
        state = connection.read(host, ModelStore, **{**given, **quick})
    if not isinstance(state, StoreState):
        return _known(state)
    if asked["hashes"] and before is not None:
        if host not in _together or _together[host][0] is not state:
            _together[host] = (state, carried(state, before[1]))
        state = _together[host][1]
    _latest[host] = (quick, state)
    return state


def latest(
    host: Host, asked: Mapping[str, Any], arguments: Mapping[str, Any]
) -> StoreState | connection.Unknown:
    """What a server had when it was last looked at; read now, without contents, if never.

    :param asked: the arguments of the fact :class:`ModelStore`.
    :param arguments: pyinfra's own, as whom it is read.
    """
    quick = {**asked, "hashes": False}
    known = _latest.get(host)
    if known is not None and known[0] == quick:
        return known[1]
    return read(host, quick, arguments=arguments)


def _known(state: Any) -> StoreState | connection.Unknown:
    assert isinstance(state, StoreState | connection.Unknown), "the fact gives nothing else"
    return state
