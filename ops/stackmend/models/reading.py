"""What a host's model server has, its bytes read no more often than needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackmend import connection
from stackmend.models.facts import ModelStore
from stackmend.models.plan import add_corrupt, merge_problems
from stackmend.models.state import StoreState

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds that a reading of every byte may take.
HASHING = 6 * 3600

#: Seconds for which a server is not read again for other hosts that could not be.
PAUSE = 60.0


@dataclass
class _Known:
    """What was read of one host's server, each with the arguments of the fact.

    :param latest: the last reading of its own operation since the run executes; the arguments are
        without contents.
    :param contents: the last reading of every byte: valid until something is changed.
    :param corrupt: digests of blobs whose content others have found to be another: likewise.
    :param unread_until: until when it is not read for other hosts, on a clock that never goes back.
    """

    latest: tuple[dict[str, Any], StoreState] | None = None
    contents: tuple[dict[str, Any], StoreState] | None = None
    corrupt: set[str] = field(default_factory=set)
    unread_until: float = 0.0


def read(
    host: Host,
    arguments: dict[str, Any],
    *,
    fresh: bool = False,
    changed: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> StoreState | connection.Unknown:
    """What a server has, as it was read before where that is still valid.

    Where contents are asked for, every byte is read once, and again only where they have changed;
    in between the problems that were found in them are carried over.

    :param arguments: those of the fact :class:`ModelStore`.
    :param fresh: whether it is read again, whatever was read before.
    :param changed: whether contents were changed since the last reading.
    :param settings: pyinfra's own arguments, as whom it is read for other hosts; without them it
        is read for its own operation, as whom that is.
    """
    known = connection.keep(host, _Known)
    contents = known.contents
    quick = {**arguments, "hashes": False}
    deep = arguments["hashes"] and (changed or contents is None or contents[0] != arguments)
    query = {**(settings or {}), **(arguments | {"_timeout": HASHING} if deep else quick)}
    state: StoreState | connection.Unknown
    if deep or fresh:
        (state,) = connection.fetch_facts(host, [(ModelStore, query)])
    else:
        state = connection.read(host, ModelStore, **query)
    if not isinstance(state, StoreState):
        return state
    if deep and state.blobs is not None:
        known.contents = (arguments, state)
    elif (
        contents is not None
        and (arguments["hashes"] or settings is not None)
        and _is_of(contents, quick)
    ):
        now, before = state, contents[1]
        state = connection.derive(
            host, ModelStore, [now, before], lambda: merge_problems(now, before)
        )
    if changed:
        known.corrupt.clear()
    if known.corrupt:
        state = add_corrupt(state, known.corrupt)
    # What was read while the run was prepared may be long gone when it executes.
    if settings is None and host.state.is_executing:
        known.latest = (quick, state)
    return state


def _is_of(contents: tuple[dict[str, Any], StoreState], quick: Mapping[str, Any]) -> bool:
    """Whether contents are those of the server that arguments without contents are about."""
    return {**contents[0], "hashes": False} == quick


def note_corrupt(host: Host, digest: str) -> bool:
    """Note that a blob of a host has another content than its digest says; whether that is new."""
    known = connection.keep(host, _Known)
    if digest in known.corrupt:
        return False
    known.corrupt.add(digest)
    if known.latest is not None:
        known.latest = (known.latest[0], add_corrupt(known.latest[1], known.corrupt))
    return True


def read_latest(
    host: Host, arguments: Mapping[str, Any], settings: Mapping[str, Any]
) -> StoreState | connection.Unknown:
    """What a server had when its own operation last read it; before that, what it has now.

    Then it is read without contents, and again once a command was executed on its host: an earlier
    operation may still bring the server.

    :param arguments: those of the fact :class:`ModelStore`.
    :param settings: pyinfra's own arguments, as whom it is read.
    """
    quick = {**arguments, "hashes": False}
    known = connection.keep(host, _Known)
    if known.latest is not None and known.latest[0] == quick:
        return known.latest[1]
    if time.monotonic() < known.unread_until:
        return connection.Unknown("it could not be read a moment ago")
    state = read(host, quick, settings=settings)
    if not isinstance(state, StoreState):
        known.unread_until = time.monotonic() + PAUSE
    return state
