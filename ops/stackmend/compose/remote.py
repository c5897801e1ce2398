"""A project's files from a git repository, fetched by the host that they are for.

Nothing of the stack is touched: the commit is fetched into a directory of its own on the host, and
its files are then checked, staged and put in place as those of a directory on the controller are.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from pyinfra.api import Host, State

from stackmend import connection, reporting, retries
from stackmend.compose import commands
from stackmend.compose.checkout import choose_commit, list_patterns, unpack
from stackmend.compose.source import Source, SourceError, make
from stackmend.compose.state import Checkout
from stackmend.decision import Refusal
from stackmend.problems import show
from stackmend.reporting import announce
from stackmend.text import format_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyinfra.api import StringCommand

    from stackmend.compose.spec import ComposeSpec, GitSource

#: Seconds for the refs of a server and for a commit, each with all attempts.
LIST_LIMIT, TREE_LIMIT = 240.0, float(commands.FETCH_LIMIT)
#: How often it is asked again where a ref moves between the two.
MOVES = 3
FETCH_LIMIT = MOVES * (LIST_LIMIT + TREE_LIMIT)

#: The exit statuses of git.sh with a meaning of their own.
_NO_GIT, _MOVED, _NO_PATH = 69, 75, 66

_REMEDIES = {
    "denied": 'give it a login: "git": "https://USER:TOKEN@…", or a key of the login on the host '
    "for ssh://, whose server ~/.ssh/known_hosts there has to name",
    "absent": 'correct "git" and "ref" in the stack\'s "source"',
    "tls": "have the host trust the server's certificate, or correct the URL",
    "clock": "set the host's clock right",
    "proxy": "correct the proxy in the host's environment",
}
_UNTOUCHED = "what was proven before stays as it is; run again"


class Unfetched(Exception):
    """The files cannot be had; the stack stays as it is."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(subject="source", reason=reason, remedy=remedy)


class Fetched(NamedTuple):
    """The files of a commit.

    :param checkout: which one it is.
    :param packed: its files as the host sent them.
    :param source: the same, checked.
    """

    checkout: Checkout
    packed: bytes
    source: Source


class _Known(NamedTuple):
    """What was fetched of a source, and what it was last checked against."""

    source: GitSource
    spec: ComposeSpec
    fetched: Fetched


#: What was fetched in this run, which decides by one reading: of each host, by the project and its
#: directory.
_fetched: WeakKeyDictionary[State, dict[tuple[str, str, str], _Known]] = WeakKeyDictionary()


def fetch(host: Host, spec: ComposeSpec, source: GitSource) -> Fetched:
    """The files of the commit that the source's ref is now; once in a run.

    What else is desired of the project may differ: it is always the commit that was fetched first.

    :raises Unfetched: they cannot be had, or are none that a project can have.
    :raises RemoteError: the host itself cannot be reached.
    """
    for secret in source.secrets:
        reporting.secret(secret)
    known = _fetched.setdefault(host.state, {})
    key = host.name, spec.project, spec.directory
    before = known.get(key)
    if before is not None and before.source != source:
        before = None
    if before is not None and before.spec == spec:
        return before.fetched
    try:
        if before is None:
            found = _fetch(host, spec, source)
        else:
            checkout, packed, _ = before.fetched
            found = Fetched(checkout, packed, make(spec, unpack(packed)))
    except SourceError as error:
        remedy = f'correct the repository, or the stack\'s "source"; {_UNTOUCHED}'
        raise Unfetched(str(error), remedy) from None
    known[key] = _Known(source, spec, found)
    return found


def _fetch(host: Host, spec: ComposeSpec, source: GitSource) -> Fetched:
    run = partial(_run, host, spec, source)
    for _ in range(MOVES):
        lines: list[str] = []
        if not source.is_pinned:
            command = commands.read_git(spec, source, "list", *list_patterns(source))
            lines = run(command, LIST_LIMIT).text.splitlines()
        ref, commit = choose_commit(source, lines)
        result = run(commands.read_tree(spec, source, ref, commit), TREE_LIMIT)
        if result.ok:
            checkout = Checkout(url=source.url, ref=source.ref, path=source.path, commit=commit)
            packed = result.stdout.removeprefix(commands.FETCHING)
            return Fetched(checkout, packed, make(spec, unpack(packed)))
    raise Unfetched(f"{show(source.url)}: {result.reason}", _UNTOUCHED)


def _run(
    host: Host, spec: ComposeSpec, source: GitSource, command: StringCommand, limit: float
) -> connection.Result:
    """Run it until it succeeds or the ref has moved meanwhile.

    :raises Unfetched: it failed for good.
    """

    report = _make_report(host, source)

    def announce_fetch(data: bytes) -> None:
        if data.startswith(commands.FETCHING):
            report(
                f"fetching; ends within {format_limit(limit)}, and once nothing comes for "
                f"{commands.IDLE_LIMIT} s"
            )

    def attempt(left: float) -> connection.Result:
        try:
            return connection.run(
                host,
                commands.add_login(source, command),
                timeout=left,
                on_stdout=announce_fetch,
                readonly=True,
                secret=True,
                # Nobody waits for a fetch whose run is gone.
                tethered=True,
            )
        except connection.CommandTimeout:
            return connection.Result(124, b"", f"Operation timed out after {left:.0f} s".encode())

    result = retries.retry(attempt, limit=limit, on_retry=report)
    if result.ok or result.status == _MOVED:
        return result
    if result.status == _NO_GIT:
        raise Unfetched(
            "git is not installed on the host, which is to fetch the files by itself",
            "install it (apt-get install git), then run again",
        )
    if result.status == _NO_PATH:
        raise SourceError(f"source.path: {result.reason}")
    cause = retries.find_result_cause(result)
    remedy = _REMEDIES.get(cause.name, "") if cause else ""
    raise Unfetched(
        f"cannot fetch {show(source.url)}: {retries.explain(result)}",
        "; ".join(filter(None, (remedy, _UNTOUCHED))),
    )


def _make_report(host: Host, source: GitSource) -> Callable[[str], None]:
    return lambda text: announce.show_line(host, f"  {show(source.url)}: {text}")
