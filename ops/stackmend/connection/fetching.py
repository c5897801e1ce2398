"""Many facts in one remote command, and what is remembered of them.

pyinfra runs every fact as a command of its own and remembers none. Here the commands of many
ordinary ``FactBase`` classes are joined into one script; each runs in a subshell of its own, with
an empty input, and its output is framed by a boundary no output can know of.
"""

from __future__ import annotations

import operator
import secrets
import shlex
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getcallargs
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from pyinfra import logger
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase, ShortFactBase
from pyinfra.api.hiddenvalue import HiddenValue
from pyinfra.api.output import format_text
from pyinfra.api.util import get_kwargs_str
from typing_extensions import override

from stackmend.redaction import format_safe_line

from .channel import execute
from .errors import CommandTimeout, RemoteError
from .link import Link, link
from .settings import Settings, resolve, reveal, unwrap
from .unknown import Unknown

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for which a fact stays valid when nothing has been executed on the host.
MAX_AGE = 60.0

#: Seconds after which what reads a fact is ended on the host, where neither ``_timeout`` nor the
#: fact (``limit``) says otherwise, and after which a reading of many is: nothing there that hangs
#: must hang the run. What single facts have beyond theirs comes on top.
PROBE_TIMEOUT = 30.0
TIMEOUT = 60.0

#: Seconds that an engine has to answer which did not when it was asked before.
HUNG_LIMIT = 3

#: What `timeout` exits with.
_LATE = ("124", "137")

_MISSING = "-"

_SHORT_WAIT = f"STACKMEND_ENGINE_LIMIT={HUNG_LIMIT}; export STACKMEND_ENGINE_LIMIT;"

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A fact wanted of a host: which, with what arguments, read as whom."""

    fact: type[FactBase[Any]]
    short: type[ShortFactBase[Any]] | None
    kwargs: Mapping[str, Any] = field(compare=False)
    kwargs_key: str = field(repr=False)
    settings: Settings

    @property
    def name(self) -> str:
        """As pyinfra would name it in its output."""
        cls = self.short or self.fact
        return f"{cls.name} ({get_kwargs_str(dict(self.kwargs))})" if self.kwargs else cls.name


class Section(NamedTuple):
    """What one command of a joined script wrote.

    :param stdout: its standard output, exactly.
    :param stderr: its standard error, exactly.
    :param status: its exit status, ``"-"`` where the command it requires is missing on the host,
        None where the script ended before this command did.
    """

    stdout: bytes
    stderr: bytes
    status: str | None


@dataclass(frozen=True)
class _Reading:
    value: Any
    generation: int
    at: float


def join(
    commands: Sequence[tuple[str, str | None, float]], token: str, *, hung: bool = False
) -> str:
    """One POSIX shell script that runs each command on its own and frames what it writes.

    :param commands: each command with the name of the program it requires, or None, and the
        seconds that it has.
    :param token: the boundary; must not be guessable.
    :param hung: whether the engine did not answer before.
    """
    parts = [
        *([_SHORT_WAIT] if hung else []),
        f"__frame={token}",
        # A probe that finds the engine hung says so to those behind it (frame.sh).
        "trap 'STACKMEND_HUNG=1; export STACKMEND_HUNG' USR1",
        "STACKMEND_READER=$$; export STACKMEND_READER",
        # `timeout` puts what it runs out of reach of the one that ends this shell.
        "__reading=; trap 'kill $__reading; exit 143' TERM",
        r"printf '\n%s begin\n' $__frame",
        r"printf '\n%s begin\n' $__frame >&2",
    ]
    for index, (command, required, limit) in enumerate(commands):
        # In another shell like this one: a syntax error, an exit or a changed directory stays in
        # there. By its input: arguments can be seen by every user of a host.
        fed = shlex.quote(f"eval {shlex.quote(command)} </dev/null")
        body = (
            f"printf '%s\\n' {fed} | timeout -k 2 {limit:g} \"$0\" -s & "
            "__reading=$!; wait $__reading; __status=$?; "
            # A signal ends the waiting, and not what is waited for.
            "while [ $__status -gt 128 ] && kill -0 $__reading 2>/dev/null; "
            "do wait $__reading; __status=$?; done"
        )
        if required is not None:
            program = shlex.quote(required)
            body = (
                f"if command -v {program} >/dev/null 2>&1; then {body}; "
                f"else __status={_MISSING}; fi"
            )
        parts += [
            body,
            rf"printf '\n%s {index} %s\n' $__frame $__status",
            rf"printf '\n%s {index}\n' $__frame >&2",
        ]
    parts.append(r"""[ -z "${STACKMEND_HUNG:-}" ] || printf '%s hung\n' $__frame""")
    return "\n".join(parts)


def split(stdout: bytes, stderr: bytes, token: str, count: int) -> list[Section]:
    """Takes apart what a script of :func:`join` wrote.

    :param stdout: its standard output, possibly cut short.
    :param stderr: its standard error, possibly cut short.
    :param token: the boundary it was made with.
    :param count: how many commands it had.
    """
    opening = f"\n{token} begin\n".encode()
    out = stdout.partition(opening)[2]
    err = stderr.partition(opening)[2]
    sections: list[Section] = []
    for index in range(count):
        written, found, rest = out.partition(f"\n{token} {index} ".encode())
        output, _, err = err.partition(f"\n{token} {index}\n".encode())
        if not found:
            sections.append(Section(written, output, None))
            out = err = b""
            continue
        status, _, out = rest.partition(b"\n")
        sections.append(Section(written, output, status.decode(errors="replace")))
    return sections


def fetch_facts(host: Host, facts: Iterable[tuple[type, Mapping[str, Any]]]) -> list[Any]:
    """Reads many facts of a host now, over one channel.

    Any fact class of pyinfra's kind will do: ``requires_command``, ``check_preconditions``,
    ``process`` and ``default`` mean what they mean there, with one difference: a fact that could
    not be read or understood is an :class:`Unknown` with the reason, never ``default()`` and never
    an exception. One fact that fails does not touch the others.

    :param host: the host.
    :param facts: pairs of a fact class and its keyword arguments, pyinfra's own (``_sudo``) among
        them. Facts to be read as different users take one channel per user.
    :returns: the values, in the order asked for. They are remembered and may be handed out again by
        :func:`read`: not to be changed by the caller.

    Example:
        >>> fetch_facts(host, [(Hostname, {}), (File, {"path": "/etc/hosts"})])
        ['web1', {'mode': 644, ...}]
    """
    host = unwrap(host)
    requests = [_make_request(host, fact, kwargs) for fact, kwargs in facts]
    values = _fetch(link(host), dict.fromkeys(requests))
    return [values[request] for request in requests]


def prefetch(host: Host, fact: type, **kwargs: Any) -> None:
    """Says that a fact will be asked for, so that the next reading of any fact reads it as well.

    To be called while a deploy is prepared, by what will call :func:`read` later. Reaches no host.

    :param host: the host.
    :param fact: the fact class.
    :param **kwargs: its arguments, exactly as they will be given to :func:`read`.
    """
    host = unwrap(host)
    _get_prefetched(link(host))[_make_request(host, fact, kwargs)] = None


def read(host: Host, fact: type, **kwargs: Any) -> Any:
    """A fact of a host: as read before, if that is still valid, else read now.

    What was read stays valid until any command has been executed on the host, by any operation or
    by :func:`stackmend.connection.run`, and for 60 seconds at most. When it has to be read, every
    expected fact that is not valid is read with it, over the same channel.

    :param host: the host.
    :param fact: the fact class.
    :param **kwargs: its arguments, pyinfra's own among them.
    :returns: the value, or an :class:`Unknown`. Not to be changed by the caller.

    Example:
        >>> read(host, Hostname)
        'web1'
    """
    host = unwrap(host)
    to = link(host)
    request = _make_request(host, fact, kwargs)
    known = _find_valid(to, request)
    if known is not None:
        return known.value
    needed = {request: None}
    slow = _get_slow(to)
    for other in _get_prefetched(to):
        # What did not end once is not waited for by those who have not asked for it.
        if other in slow or other.settings != request.settings:
            continue
        if _find_valid(to, other) is None:
            needed[other] = None
    return _fetch(to, needed)[request]


def derive(host: Host, key: Hashable, readings: Sequence[Any], compute: Callable[[], T]) -> T:
    """A value that follows from readings of a host: computed once, and dropped with the readings.

    :param host: the host.
    :param key: what is derived, such as a spec; one value is kept for each.
    :param readings: values as :func:`read`, :func:`fetch_facts` or this function gave them; another
        reading makes the value a new one.
    :param compute: gives the value; what it raises is not kept.
    """
    derived = _get_derived(link(unwrap(host)))
    known = derived.get(key)
    if known is None or not all(map(operator.is_, known[0], readings)):
        known = derived[key] = (tuple(readings), compute())
    return cast("T", known[1])


def invalidate(host: Host) -> None:
    """Makes every fact read so far of a host invalid, and all that was derived from them.

    :param host: the host.
    """
    to = link(unwrap(host))
    _get_readings(to).clear()
    _get_derived(to).clear()


def mark_hung(host: Host) -> None:
    """Says that a host's engine did not answer: until a command changes the host it has less time.

    What reads facts notes it by itself.

    :param host: the host.
    """
    link(unwrap(host)).hung = True


def shorten_wait(host: Host, command: StringCommand) -> StringCommand:
    """A command that asks the engine (``frame.sh``), with less time where that hung before.

    :param host: the host.
    :param command: the command.

    Example:
        >>> run(host, shorten_wait(host, script("stackmend.compose", "free", "/opt/ai", mark=mark)))
    """
    return StringCommand(_SHORT_WAIT, command) if link(unwrap(host)).hung else command


def keep(host: Host, kind: type[T]) -> T:
    """What a room knows of a host until the end of the run, whatever becomes of its readings.

    :param host: the host.
    :param kind: a class of the room's own; the first call makes its only object.
    """
    kept = link(unwrap(host)).memory.setdefault("kept", {})
    if kind not in kept:
        kept[kind] = kind()
    return cast("T", kept[kind])


def _get_readings(to: Link) -> dict[Request, _Reading]:
    readings: dict[Request, _Reading] = to.memory.setdefault("readings", {})
    return readings


def _get_derived(to: Link) -> dict[Hashable, tuple[tuple[Any, ...], Any]]:
    derived: dict[Hashable, tuple[tuple[Any, ...], Any]] = to.memory.setdefault("derived", {})
    return derived


def _get_prefetched(to: Link) -> dict[Request, None]:
    expected: dict[Request, None] = to.memory.setdefault("expected", {})
    return expected


def _get_slow(to: Link) -> set[Request]:
    slow: set[Request] = to.memory.setdefault("slow", set())
    return slow


def _find_valid(to: Link, request: Request) -> _Reading | None:
    reading = _get_readings(to).get(request)
    if reading is None or reading.generation != to.generation:
        return None
    return reading if time.monotonic() - reading.at <= MAX_AGE else None


def _make_request(host: Host, fact: type, kwargs: Mapping[str, Any]) -> Request:
    settings, own = resolve(host, kwargs)
    short: type[ShortFactBase[Any]] | None = None
    if issubclass(fact, ShortFactBase):
        short, fact = fact, fact.fact
    if not issubclass(fact, FactBase):
        raise TypeError(f"{fact!r} is not a fact")
    if own:
        # Binds defaults too, so that the same question is recognised however it is put.
        own = getcallargs(fact().command, **own)
        own.pop("self", None)
    # A hidden value looks like any other hidden value; two questions must not look alike.
    asked = {
        key: reveal(value) if isinstance(value, HiddenValue) else value
        for key, value in own.items()
    }
    return Request(fact, short, own, repr(sorted(asked.items())), settings)


def _fetch(to: Link, requests: Mapping[Request, None]) -> dict[Request, Any]:
    """Reads the facts, one channel for each user they are to be read as."""
    values: dict[Request, Any] = {}
    by_settings: dict[Settings, list[Request]] = {}
    for request in requests:
        reason = _check_precondition(to.host, request)
        if reason is not None:
            values[request] = Unknown(reason)
        else:
            by_settings.setdefault(request.settings, []).append(request)
    for settings, group in by_settings.items():
        values.update(_fetch_as(to, settings, group))
    return values


def _check_precondition(host: Host, request: Request) -> str | None:
    try:
        return request.fact().check_preconditions(host.state, host)
    except Exception as error:
        return f"precondition: {_format_error(error)}"


def _fetch_as(to: Link, settings: Settings, requests: list[Request]) -> dict[Request, Any]:
    values: dict[Request, Any] = {}
    # One instance from command() to process(): some facts keep their arguments in it.
    askable: list[tuple[Request, FactBase[Any]]] = []
    commands: list[tuple[StringCommand, str | None, float]] = []
    for request in requests:
        fact = request.fact()
        try:
            command, required = _make_command(fact, request)
        except Exception as error:
            values[request] = Unknown(f"{request.name}: {_format_error(error)}")
            continue
        askable.append((request, fact))
        own: float = getattr(fact, "limit", PROBE_TIMEOUT)
        limit = request.settings.timeout or own
        commands.append((command, required, limit))
    if not askable:
        return values

    host = to.host
    state = host.state
    token = secrets.token_hex(16)
    generation, at = to.generation, time.monotonic()
    longer = [max(0, limit - PROBE_TIMEOUT) for _, _, limit in commands]
    timeout = TIMEOUT + (max(longer) if settings.timeout else sum(longer))
    late = ""
    names = ", ".join(request.name for request, _ in askable)
    try:
        result = execute(
            to,
            settings,
            _Joined(commands, token, hung=to.hung),
            timeout=timeout,
            readonly=True,
            print_input=state.print_fact_input,
            doing=f"read {names}",
        )
        stdout, stderr = result.stdout, result.stderr
    except CommandTimeout as error:
        stdout, stderr, late = error.stdout, error.stderr, error.reason
    except (RemoteError, ValueError) as error:
        # Nothing was read at all: nothing to remember, the next one who asks tries again.
        reason = error.reason if isinstance(error, RemoteError) else _format_error(error)
        logger.warning("%sfacts could not be read: %s", host.print_prefix, reason)
        values.update((request, Unknown(reason)) for request, _ in askable)
        return values

    to.hung = stdout.endswith(f"\n{token} hung\n".encode())
    readings = _get_readings(to)
    sections = split(stdout, stderr, token, len(askable))
    for (request, fact), asked, section in zip(askable, commands, sections, strict=True):
        if section.status in (*_LATE, None):
            _get_slow(to).add(request)
        value = _understand(fact, request, section, late, asked[2])
        values[request] = value
        readings[request] = _Reading(value, generation, at)
        _log_value(host, request, value)
    return values


class _Joined(StringCommand):
    """The joined script, shown to the user as the commands it is made of.

    It is made when it is asked for: it is long, and many hosts are waited for at a time.

    :param commands: as :func:`join` takes them.
    :param token: likewise.
    :param hung: likewise.
    """

    def __init__(
        self, commands: Sequence[tuple[StringCommand, str | None, float]], token: str, *, hung: bool
    ) -> None:
        super().__init__()
        self._commands = commands
        self._token = token
        self._hung = hung

    @override
    def get_raw_value(self) -> str:
        made = [
            (command.get_raw_value(), required, limit)
            for command, required, limit in self._commands
        ]
        return join(made, self._token, hung=self._hung)

    @override
    def get_masked_value(self) -> str:
        return "; ".join(command.get_masked_value() for command, _, _ in self._commands)


class _InShell(StringCommand):
    """A command that a fact wants run by a shell of its choice, shown without that."""

    def __init__(self, shell: str, command: StringCommand) -> None:
        super().__init__(shlex.quote(shell), "-c", QuoteString(command))
        self._command = command

    @override
    def get_masked_value(self) -> str:
        return self._command.get_masked_value()


def _make_command(fact: FactBase[Any], request: Request) -> tuple[StringCommand, str | None]:
    # An attribute in old facts, a method in newer ones.
    made: Any = fact.command(**request.kwargs) if callable(fact.command) else fact.command
    command = made if isinstance(made, StringCommand) else StringCommand(made)
    required = fact.requires_command(**request.kwargs)
    if fact.shell_executable:
        command = _InShell(fact.shell_executable, command)
    # One that cannot be written down fails alone.
    command.get_raw_value()
    return command, required


def _understand(
    fact: FactBase[Any], request: Request, section: Section, late: str, limit: float
) -> Any:
    if section.status == _MISSING:
        return _shorten(request, fact.default())
    if section.status is None:
        output = _find_last_line(section.stderr)
        return Unknown(late or f"the reading broke off{f': {output}' if output else ''}")
    if section.status in _LATE:
        killed = "was killed, or " if section.status == _LATE[1] else ""
        return Unknown(f"{killed}did not end within {limit:g} s")
    if section.status != "0":
        output = _find_last_line(section.stderr) or _find_last_line(section.stdout)
        return Unknown(f"exit status {section.status}{f': {output}' if output else ''}")
    text = section.stdout.decode(errors="replace")
    lines = text.removesuffix("\n").split("\n") if text else []
    try:
        return _shorten(request, fact.process(lines) if lines else fact.default())
    except Exception as error:
        return Unknown(f"not understood: {_format_error(error)}")


def _shorten(request: Request, value: Any) -> Any:
    short: Any = request.short
    return value if short is None else short().process_data(value)


def _log_value(host: Host, request: Request, value: Any) -> None:
    say = logger.info if host.state.print_fact_info else logger.debug
    if isinstance(value, Unknown):
        say(f"{host.print_prefix}No fact {format_text(request.name, bold=True)}: {value.reason}")
    else:
        say(f"{host.print_prefix}Loaded fact {format_text(request.name, bold=True)}")


def _find_last_line(data: bytes) -> str:
    lines = [line.strip() for line in data.decode(errors="replace").splitlines()]
    return format_safe_line(next((line for line in reversed(lines) if line), ""), 300)


def _format_error(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if text and not isinstance(error, FactProcessError):
        text = f"{type(error).__name__}: {text}"
    return format_safe_line(text, 300) or type(error).__name__
