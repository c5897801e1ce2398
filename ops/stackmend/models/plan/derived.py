"""Which made models are made from which others."""

from collections.abc import Mapping, Sequence


def sort_by_base(keys: Sequence[str], bases: Mapping[str, str]) -> list[str]:
    """Models in an order in which each comes behind the one that it is made from.

    :param keys: the models.
    :param bases: what they are made from; a circle is cut somewhere.

    >>> sort_by_base(["c", "a", "b"], {"c": "b", "b": "a"})
    ['a', 'b', 'c']
    """
    return sorted(keys, key=lambda key: len(list_bases(key, bases)))


def list_bases(key: str, bases: Mapping[str, str]) -> list[str]:
    """What a model is made from, the nearest first; ends where that comes back to one of them."""
    found: list[str] = []
    while key in bases and bases[key] not in found:
        key = bases[key]
        found.append(key)
    return found
