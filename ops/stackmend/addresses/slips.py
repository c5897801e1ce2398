"""Names that may be a slip of another. Pure."""

import re


def is_similar(host: str, name: str) -> bool:
    """Whether a name may be a slip of another.

    Numbers tell apart what is deliberately alike: ``ollama2`` is no slip of ``ollama``.

    >>> is_similar("postgress", "postgres"), is_similar("ollama2", "ollama")
    (True, False)
    >>> is_similar("db", "db_postgres"), is_similar("api", "app")
    (True, False)
    """
    if re.findall(r"\d+", host) != re.findall(r"\d+", name):
        return False
    parts = [frozenset(re.split("[-_]", word)) for word in (host, name)]
    if parts[0] < parts[1] or parts[1] < parts[0]:
        return True
    plain, other = (re.sub("[-_]", "", word) for word in (host, name))
    shorter = min(len(plain), len(other))
    allowed = 0 if shorter < 4 else 1 if shorter < 8 else 2
    return _count_slips(plain, other, allowed) <= allowed


def _count_slips(word: str, other: str, limit: int) -> int:
    """The letters that are added, left out, replaced or exchanged; more than a limit is any."""
    if abs(len(word) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        before, row, last = row, [i], before
        for j, other_letter in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other_letter))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == other_letter:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
