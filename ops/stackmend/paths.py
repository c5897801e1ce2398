"""Paths and names from elsewhere: which of them may be used below a directory. Pure."""

import unicodedata

#: What stackmend remembers on a host lies below it: records, kept files, locks, the journal.
STATE_ROOT = "/var/lib/stackmend"

#: Controls and surrogates: what no list of names, one a line, can carry, or no file's name can be.
_ODD = frozenset({"Cc", "Cs"})


def is_plain(path: str) -> bool:
    """Whether a path is one that a list can carry, and not empty.

    :param path: the path, with slashes.
    """
    if path.isascii() and path.isprintable():
        return path != ""
    return not any(unicodedata.category(character) in _ODD for character in path)


def is_inside(path: str) -> bool:
    """Whether a relative path, joined to a directory, names something below that directory.

    It does not where it is empty, absolute or not in its shortest form, and not where it holds
    ``..`` or a control character. Links on the way are not looked at: nothing is read here.

    :param path: the path, with slashes.
    """
    return is_plain(path) and all(part not in ("", ".", "..") for part in path.split("/"))


def is_name(name: str) -> bool:
    """Whether a name, joined to a directory, names something that lies in that very directory."""
    return "/" not in name and is_inside(name)
