"""What a git server and a host say of a repository: which commit a ref is, and its files. Pure."""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator

from stackmend.compose.source import (
    LEFT_OUT,
    MAXIMUM_BYTES,
    MAXIMUM_FILES,
    File,
    SourceError,
    check_name,
)
from stackmend.compose.spec import GitSource
from stackmend.paths import is_inside
from stackmend.problems import abbreviate, show

#: Bytes of an archive: its files, and what tar adds to each.
MAXIMUM_ARCHIVE = MAXIMUM_BYTES + 1024 * MAXIMUM_FILES

#: Links that lead to links.
MAXIMUM_HOPS = 8

#: What git has in the place of a file that LFS keeps (git-lfs ``docs/spec.md``).
_LARGE = b"version https://git-lfs.github.com/spec/v1\n"

_LINE = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t(\S{1,300})")


def list_patterns(source: GitSource) -> tuple[str, ...]:
    """The refs that a name may mean, in full; those of a tag's commit end with ``^{}``."""
    ref = source.ref
    names = (
        (ref,)
        if ref == "HEAD" or ref.startswith("refs/")
        else (
            f"refs/heads/{ref}",
            f"refs/tags/{ref}",
        )
    )
    return tuple(pattern for name in names for pattern in (name, f"{name}^{{}}"))


def choose_commit(source: GitSource, lines: Iterable[str]) -> tuple[str, str]:
    """The full name of a ref and the id of its commit.

    :param source: what is desired.
    :param lines: what ``git ls-remote`` printed.
    :raises SourceError: the server has no such ref, or two of that name.
    """
    if source.is_pinned:
        return source.ref, source.ref
    found = {match[2]: match[1] for match in map(_LINE.fullmatch, lines) if match}
    names = [name for name in list_patterns(source) if name in found and not name.endswith("^{}")]
    if not names:
        raise SourceError(f"source.ref: {show(source.url)} has no ref {show(source.ref)}")
    if len(names) > 1 and len({found.get(f"{name}^{{}}", found[name]) for name in names}) > 1:
        raise SourceError(
            f"source.ref: {show(source.ref)} is a branch and a tag of {show(source.url)}; write "
            f"{' or '.join(names)}"
        )
    return names[0], found.get(f"{names[0]}^{{}}", found[names[0]])


def unpack(archive: bytes) -> dict[str, File]:
    """The files in a packed tar archive of a commit.

    :param archive: what the host sent; anything.
    :raises SourceError: it holds what no project may: a submodule, a link that leads outside.
    """
    try:
        unpacking = zlib.decompressobj(wbits=31)
        data = unpacking.decompress(archive, MAXIMUM_ARCHIVE)
        if not unpacking.eof:
            raise SourceError("source: the repository's files came cut off, or are too many")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            return dict(_read_members(tar))
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError, OverflowError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"source: the repository's files cannot be read: {error}") from None


def _read_members(tar: tarfile.TarFile) -> Iterator[tuple[str, File]]:
    members: dict[str, tarfile.TarInfo] = {}
    parents: set[str] = set()
    total = 0
    for member in tar:
        path = member.name.rstrip("/")
        if not is_inside(path) or path in members:
            raise SourceError(f"source: {abbreviate(path)} is no path within the repository")
        parents.add(posixpath.dirname(path))
        if LEFT_OUT & {*path.split("/")}:
            continue
        check_name(path)
        members[path] = member
        total += member.size
        if len(members) > MAXIMUM_FILES or total > MAXIMUM_BYTES:
            raise SourceError(
                f"source: the repository holds more than {MAXIMUM_FILES} files or "
                f"{MAXIMUM_BYTES // 1024**2} MiB; keep data in volumes, or name a directory of it "
                'in "path"'
            )
    for path, member in members.items():
        if member.isdir():
            # Of all that git keeps, only what it keeps elsewhere is an empty directory here.
            if path not in parents:
                raise SourceError(
                    f"source: {show(path)} is a submodule, which is not fetched; put its files "
                    "into the repository"
                )
            continue
        target = _follow(path, members)
        content = tar.extractfile(target)
        if content is None:
            raise SourceError(f"source: {show(path)} is neither a file nor a link to one")
        file = File(target.mode & 0o755, content.read())
        if file.content.startswith(_LARGE):
            raise SourceError(f"source: {show(path)} is kept in git LFS, which is not fetched")
        yield path, file


def _follow(path: str, members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo:
    """The file that a path means: a link's content is that of the file in the repository."""
    at = path
    for _ in range(MAXIMUM_HOPS):
        member = members.get(at)
        if member is not None and member.isreg() and not member.issparse():
            return member
        if member is None or not member.issym():
            break
        at = posixpath.normpath(posixpath.join(posixpath.dirname(at), member.linkname))
        if not is_inside(at):
            raise SourceError(
                f"source: {show(path)} is a link to {show(member.linkname)}, outside the project"
            )
    if members[path].issym():
        link = show(members[path].linkname)
        raise SourceError(f"source: {show(path)} is a link to {link}, which is no file of it")
    raise SourceError(f"source: {show(path)} is neither a file nor a directory")
