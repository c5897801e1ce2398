"""Running one command on a host over exactly one channel.

Under pyinfra's command line every wait in here yields to the other hosts. A program that uses
pyinfra's API has to call ``gevent.monkey.patch_all()`` before it imports anything else; without
it one waiting host holds up all others.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import string
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from getpass import getpass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pyinfra import logger
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.hiddenvalue import HiddenValue
from pyinfra.api.output import echo, format_text
from pyinfra.connectors.util import SUDO_PASSWORD_REQUIRED_LINES

from stackmend.redaction import format_safe_line, register

from . import signals
from .errors import CommandTimeout, ConnectionLost, PrivilegeError, RemoteError
from .link import Link, link
from .preamble import BEGINS_WITHIN, CLEARED, Preamble, format_silence, make_marker, skip
from .process import Process, StreamProcess, start, start_stream
from .settings import Settings, resolve, unwrap

if TYPE_CHECKING:
    from pyinfra.api.host import Host

T = TypeVar("T")

#: Longest script that travels as an argument. Longer ones go through standard input: the kernel
#: limits one argument to 128 KiB, and sudo copies every argument into the system log.
INLINE_LIMIT = 4 * 1024

#: Longest command that can be run when standard input is taken by data.
ARGUMENT_LIMIT = 100 * 1024

#: Seconds a command is given between SIGTERM and SIGKILL when its time is over.
KILL_AFTER = 5

#: Seconds that a command has by default which only reads, and one which changes something.
READ_LIMIT = 120
LIMIT = 600

#: Seconds for which a command is held open at most, and that one has to end once it was told to.
STREAM_LIMIT = 4 * 3600
ENDS_WITHIN = 60

#: What `timeout` exits with after SIGTERM and after SIGKILL, and what a lost channel gives.
_TIMED_OUT = (124, 128 + 9, -1)

#: A script that is ended with all that it started as soon as its input ends, which is when this
#: process lets go of it, in whatever way. The shell reads all of it before it runs any.
_TETHERED = """{{
exec 3<&0 </dev/null
(
trap '' TERM
while read -r _; do :; done
kill -TERM 0; sleep {kill_after}; kill -KILL 0
) <&3 3<&- >/dev/null 2>&1 &
(
{script}
) 3<&-
__status=$?
kill -KILL $!
exit $__status
}}
"""

#: Characters that mean nothing to a shell.
_PLAIN = frozenset(string.ascii_letters + string.digits + " ,./:=_-")

#: Bytes that fit into the window of a channel before anything has been read on the other side.
_WINDOW = 64 * 1024


class Result(NamedTuple):
    """What a command left behind.

    :param status: its exit status; -1 where a signal ended it.
    :param stdout: its standard output.
    :param stderr: its standard error, without what sudo said while asking.
    """

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.status == 0

    @property
    def text(self) -> str:
        """Standard output as text; what is not UTF-8 is replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def error_text(self) -> str:
        """Standard error as text; what is not UTF-8 is replaced."""
        return self.stderr.decode(errors="replace")

    @property
    def reason(self) -> str:
        """Why it failed, in one line: the last three that it wrote to standard error.

        Its exit status where it wrote none.
        """
        lines = [" ".join(line.split()) for line in self.error_text.splitlines() if line.strip()]
        return "; ".join(lines[-3:]) or f"exit status {self.status}"


@dataclass(frozen=True)
class _Call:
    """A command made ready for the wire."""

    line: str
    head: bytes
    body: bytes
    marker: bytes
    prompt: bytes
    display: str


def _compose(
    settings: Settings,
    command: StringCommand,
    stdin: bytes | None,
    timeout: float | None,
    *,
    tethered: bool = False,
) -> _Call:
    raw, redacted = command.get_raw_value(), command.get_masked_value()
    if raw != redacted:
        _register_secrets(command)
    setup = CLEARED + "".join(
        f"export {shlex.quote(f'{key}={value}')} || exit\n" for key, value in settings.env
    )
    if settings.directory is not None:
        setup += f"cd -- {shlex.quote(settings.directory)} || exit\n"
    script = setup + raw
    secret = raw != redacted or settings.secret_env
    feed = stdin is None and (tethered or secret or len(script) > INLINE_LIMIT or "\n" in script)
    if stdin is not None and tethered:
        raise ValueError(f"a tethered command cannot also be given input: {redacted}")
    if stdin is not None and secret:
        raise ValueError(f"a command that holds a secret cannot also be given input: {redacted}")
    if not feed and len(script.encode()) > ARGUMENT_LIMIT:
        raise ValueError(f"a command of {len(script)} characters cannot also be given input")

    token = secrets.token_hex(8)
    # sudo writes %% as %: no echo of the command holds what it asks.
    prompt, boundary = f"{token}%%password:", f"{token}-input"
    marker = make_marker()
    asking = settings.sudo and settings.sudo_password is not None
    announce = marker.command
    shell = shlex.quote(settings.shell)
    if feed:
        # Braces: the shell reads all of the script before it runs any of it, so that no command
        # in it can take the rest of the script for its own input.
        tether = _TETHERED.format(script=script, kill_after=KILL_AFTER)
        body = (tether if tethered else f"{{\n{script}\n}} </dev/null\n").encode()
        inner = f"exec {shell} -s" if asking else ""
        if not asking:
            body = f"{announce}\n".encode() + body
    else:
        body = stdin or b""
        inner = script
    if asking:
        # Where sudo did not ask, the password is still waiting to be read: skip to the boundary.
        skip_to = f'while IFS= read -r l && [ "$l" != {boundary} ]; do :; done; '
        announce += skip_to
        body = f"{boundary}\n".encode() + body
    # exec: the login shell, whichever it is, has nothing left to do.
    parts = ["exec"]
    if settings.elevated:
        parts.append(settings.build_prefix(prompt=prompt if asking else None))
    if timeout is not None:
        parts.append(f"timeout -k {KILL_AFTER} {timeout:g}")
    inline = announce + inner
    if settings.sudo_login:
        inline = _encode_script(inline)
    parts.append(f"{shell} -c {shlex.quote(inline)}" if inner else f"{shell} -s")
    return _Call(
        line=" ".join(parts),
        head=f"{settings.sudo_password}\n".encode() if asking else b"",
        body=body,
        marker=marker.value,
        prompt=prompt.replace("%%", "%").encode() if asking else b"",
        display=" ".join(
            filter(None, (settings.build_prefix(prompt=None), shell, "-c", shlex.quote(redacted)))
        ),
    )


def _encode_script(script: str) -> str:
    """A script without a character that means something to the shell of ``sudo -i``.

    sudo hands the words on to it with a backslash before each of these, but for ``$``.
    """
    spelled = "".join(
        chr(byte) if chr(byte) in _PLAIN else rf"\\{byte:03o}" for byte in script.encode()
    )
    return f"eval \"`printf '{spelled}'`\""


def _register_secrets(bit: object) -> None:
    """Let what is hidden in a command be hidden in what the command says as well."""
    if isinstance(bit, QuoteString):
        bit = bit.obj
    if isinstance(bit, HiddenValue):
        register(str(bit.unmask()))
    elif isinstance(bit, StringCommand):
        for part in bit.bits:
            _register_secrets(part)


class _Errors:
    """Reads standard error as it comes and watches sudo ask, refuse or let the command begin."""

    def __init__(self, process: Process, call: _Call, began: bytes = b"") -> None:
        self._process = process
        self._prompt = call.prompt
        self._preamble = Preamble(*filter(None, (call.marker, began)))
        self._received = bytearray()
        self.refused = False
        #: Set as soon as the command began, sudo refused, or standard error ended.
        self.decided = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def began(self) -> bool:
        return self._preamble.over

    def _read(self) -> None:
        try:
            while data := self._process.read_error():
                self._received += self._preamble.strip(data)
                # The second prompt means that the first answer was wrong. Saying more would only
                # count as further failed attempts.
                self.refused = bool(self._prompt) and self._preamble.before.count(self._prompt) > 1
                if self.began or self.refused:
                    self.decided.set()
        except (OSError, EOFError, ValueError):
            pass  # The other stream tells what became of the channel.
        finally:
            self.decided.set()

    def finish(self) -> bytes:
        self._thread.join()
        return self.read()

    def join_briefly(self) -> None:
        # Not for ever: something the command left behind may hold standard error open.
        self._thread.join(1)

    def read(self) -> bytes:
        received = bytes(self._received) if self.began else self._preamble.before
        return received.replace(self._prompt, b"") if self._prompt else received


class _Guard:
    """Lets go of a command that outlives its limit although the host was told to end it."""

    def __init__(self, process: Process, timeout: float | None) -> None:
        self.expired = False
        self._process = process
        self._timer = None
        if timeout is not None:
            self._timer = threading.Timer(timeout + KILL_AFTER + 5, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        self.expired = True
        self._process.close()

    def __enter__(self) -> _Guard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


def run(
    host: Host,
    command: str | StringCommand,
    *,
    stdin: bytes | None = None,
    timeout: float | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    readonly: bool = False,
    secret: bool = False,
    closing: bool = False,
    tethered: bool = False,
    **arguments: Any,
) -> Result:
    """Runs a shell command on a host, over exactly one channel, and returns what it left.

    It runs as whom and where pyinfra would run it: the arguments given here, else those of the
    current operation, of the deploy, of the host's data, of the configuration. A sudo password
    travels on standard input; so does a command that is long or holds a ``HiddenValue``.

    :param host: the host, reached by ``@ssh`` or ``@local``.
    :param command: what the shell is to run; every value in it already quoted.
    :param stdin: what the command reads; without it, an empty input.
    :param timeout: seconds after which the command is ended on the host. Without it the
        ``_timeout`` in force, else 120 for one that is ``readonly`` and 600 for any other. Needs
        ``timeout`` (coreutils or busybox) on the host.
    :param on_stdout: called with standard output as it arrives.
    :param readonly: the command changes nothing on the host, so facts read before stay valid.
    :param secret: what it writes holds secrets, and is not printed at ``-vvv`` either.
    :param closing: it tells of a step that has been done, or takes back one under way, and runs
        although a signal is ending the run (see :mod:`stackmend.connection.signals`).
    :param tethered: it is safe to end at any moment, and is ended on the host as soon as this
        process lets go of it, or dies. It can be given no input.
    :param **arguments: pyinfra's own, such as ``_sudo=True`` or ``_chdir="/srv"``.
    :returns: status and output. A status other than 0 is no error here.
    :raises ConnectionLost: the transport died; whether the command ran is not known.
    :raises CommandTimeout: the command was ended; what it wrote is in the exception.
    :raises PrivilegeError: sudo (doas, dzdo) refused; the command did not run.
    :raises UnsupportedConnector: the host has no channels.
    :raises ValueError: input was given together with a secret or a very long command.

    Example:
        >>> run(host, "cat >/srv/app/.env.new", stdin=b"A=1\\n", _sudo=True).ok
        True
    """
    host = unwrap(host)
    settings, command = resolve_command(host, command, arguments)
    state = host.state
    return execute(
        link(host),
        settings,
        command,
        stdin=stdin,
        timeout=timeout or settings.timeout or (READ_LIMIT if readonly else LIMIT),
        on_stdout=on_stdout,
        readonly=readonly,
        print_input=state.print_input,
        print_output=state.print_output and not secret,
        closing=closing,
        tethered=tethered,
    )


def execute(
    link: Link,
    settings: Settings,
    command: StringCommand,
    *,
    stdin: bytes | None = None,
    timeout: float | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    readonly: bool = False,
    print_input: bool = False,
    print_output: bool = False,
    doing: str | None = None,
    closing: bool = False,
    tethered: bool = False,
) -> Result:
    """:func:`run` with everything resolved; asks the user for a sudo password where one is needed.

    :param link: the link to the host.
    :param settings: as whom and how.
    :param command: the command.
    :param stdin: its input.
    :param timeout: seconds.
    :param on_stdout: called with output as it arrives.
    :param readonly: facts stay valid.
    :param print_input: print the command, masked.
    :param print_output: print its output, line by line.
    :param doing: what to say is being done in errors; the masked command by default.
    :param closing: it runs although a signal is ending the run.
    :param tethered: it ends on the host when this process lets go of it.
    """
    if not closing:
        signals.proceed()
    doing = doing or _shorten(command.get_masked_value())

    def try_once(settings: Settings) -> Result:
        call = _compose(settings, command, stdin, timeout, tethered=tethered)
        _announce(link, call, print_input)
        began_at = time.monotonic()
        process = start(link, call.line, doing)
        with contextlib.closing(process), _Guard(process, timeout) as guard:
            errors = _Errors(process, call)
            _unlock(link, process, call, errors, doing)
            writer = _feed(process, call.body, close=not tethered)
            out, preamble = bytearray(), Preamble(call.marker)
            # It may be long, and many hosts are waited for at a time.
            del call
            while data := _read_next(process, guard, link.host.name, doing):
                data = preamble.strip(data)
                out += data
                if data and on_stdout is not None:
                    on_stdout(data)
            if writer is not None:
                writer.join()
            err = errors.finish()
            status = -1 if guard.expired else process.wait()
        result = Result(status, bytes(out), err)
        if timeout is not None and time.monotonic() - began_at >= timeout and status in _TIMED_OUT:
            reason = f"did not end within {timeout:g} s"
            if guard.expired:
                reason += " and could not be ended"
            raise CommandTimeout(link.host.name, doing, reason, result.stdout, result.stderr)
        if not preamble.over:
            reason = format_silence(preamble.before, err, status)
            raise _refuse_start(link, settings, doing, reason)
        return result

    with contextlib.ExitStack() as acting:
        if not readonly:
            acting.enter_context(link.mark_change())
            acting.enter_context(signals.step(link.host.name, cut=tethered))
        result = _retry_with_password(link.host, settings, try_once)
        if not readonly:
            # It may have brought the engine back, which then has all the time that it needs.
            link.hung = False
    if print_output:
        _print(link.host, result)
    return result


class Stream:
    """A command held open, with both its ends in hand. Made by :func:`spawn`."""

    def __init__(self, link: Link, process: StreamProcess, errors: _Errors, readonly: bool) -> None:
        self._process = process
        self._errors = errors
        self._acting = contextlib.ExitStack()
        if not readonly:
            self._acting.enter_context(link.mark_change())
        #: What carries the bytes: a paramiko channel, or a socket on ``@local``.
        self.sock = process.sock

    @property
    def closed(self) -> bool:
        """Whether the command has ended or the channel is gone."""
        return self._process.closed

    @property
    def error_text(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.read().decode(errors="replace")

    def write(self, data: bytes) -> None:
        """Writes all of data to its standard input; ``OSError`` when it reads no more."""
        self._process.write(data)

    def read(self, size: int = 32 * 1024) -> bytes:
        """The next bytes of its standard output, at most size of them; empty at the end."""
        return self._process.read(size)

    def close_stdin(self) -> None:
        """Says that no more input comes."""
        self._process.close_stdin()

    def wait(self, timeout: float = ENDS_WITHIN) -> int:
        """Waits for its end; the exit status, -1 where a signal or this limit ended it.

        :param timeout: seconds after which it is let go of.
        """
        late = threading.Timer(timeout, self._process.close)
        late.daemon = True
        late.start()
        try:
            status = self._process.wait()
        finally:
            late.cancel()
        self._errors.join_briefly()
        return status

    def close(self) -> None:
        """Lets go of it. Its input ends, which ends any command made for this."""
        self._process.close()
        self._acting.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spawn(
    host: Host, command: str | StringCommand, *, readonly: bool = False, **arguments: Any
) -> Stream:
    """Starts a command on a host and holds it open over one channel.

    :param host: the host, reached by ``@ssh`` or ``@local``.
    :param command: what the shell is to run; it should end when its input does, for that is all
        that reaches it when this process dies. It must hold no secret. The host ends it after four
        hours.
    :param readonly: the command changes nothing on the host, so facts read before stay valid.
    :param **arguments: pyinfra's own, as for :func:`run`.
    :returns: the open command; to be closed by the caller, or used in a ``with``.
    :raises ConnectionLost: the transport is dead.
    :raises PrivilegeError: sudo (doas, dzdo) refused.
    :raises RemoteError: the host opens no further channel.
    :raises UnsupportedConnector: the host has no channels.

    Example:
        >>> with spawn(host, "cat") as echo:
        ...     echo.write(b"hello")
        ...     echo.read()
        b'hello'
    """
    host = unwrap(host)
    settings, command = resolve_command(host, command, arguments)
    return open_stream(link(host), settings, command, readonly=readonly)


def open_stream(
    link: Link,
    settings: Settings,
    command: StringCommand,
    *,
    readonly: bool = False,
    began: str | None = None,
    doing: str | None = None,
    limit: float | None = STREAM_LIMIT,
) -> Stream:
    """:func:`spawn` with everything resolved.

    :param link: the link to the host.
    :param settings: as whom and how; a timeout in it is not for commands held open.
    :param command: the command.
    :param readonly: facts stay valid.
    :param began: what the command writes to standard error once it is of use, and only then; it is
        waited for.
    :param doing: what to say is being done in errors; the command by default.
    :param limit: seconds after which the host ends it; None for a command that sees to it itself.
    :raises RemoteError: the command ended without having been of use; the reason is what it said.
    """
    signals.proceed()
    doing = doing or _shorten(command.get_masked_value())

    def try_once(settings: Settings) -> Stream:
        call = _compose(settings, command, b"", limit)
        _announce(link, call, link.host.state.print_input)
        process = start_stream(link, call.line, doing)
        with contextlib.ExitStack() as unless_started:
            unless_started.callback(process.close)
            errors = _Errors(process, call, (began or "").encode())
            _unlock(link, process, call, errors, doing)
            if call.body:
                process.write(call.body)
            preamble = skip(process, call.marker)
            if not preamble.over:
                errors.join_briefly()
                reason = format_silence(preamble.before, errors.read())
                raise _refuse_start(link, settings, doing, reason)
            errors.decided.wait(BEGINS_WITHIN)
            if not errors.began:
                reason = _format_error(errors.read()) or "it ended at once"
                raise RemoteError(link.host.name, doing, reason)
            unless_started.pop_all()
        return Stream(link, process, errors, readonly)

    return _retry_with_password(link.host, settings, try_once)


def resolve_command(
    host: Host, command: str | StringCommand, arguments: dict[str, Any]
) -> tuple[Settings, StringCommand]:
    """A command and the settings it is to run with.

    :param host: the host.
    :param command: the command; arguments it carries itself count too.
    :param arguments: pyinfra's own, and no others.
    """
    if isinstance(command, str):
        command = StringCommand(command)
    settings, rest = resolve(host, {**command.connector_arguments, **arguments})
    if rest:
        raise TypeError(f"unexpected arguments: {', '.join(sorted(rest))}")
    return settings, command


def _announce(link: Link, call: _Call, print_input: bool) -> None:
    logger.debug("Running command on %s: %s", link.host.name, call.display)
    if print_input:
        echo(f"{link.host.print_prefix}>>> {call.display}", err=True)


def _refuse_start(link: Link, settings: Settings, doing: str, reason: str) -> RemoteError:
    """The error of a command of which not even the first word came."""
    if settings.elevated:
        return PrivilegeError(link.host.name, doing, reason)
    return RemoteError(link.host.name, doing, f"the host did not run the command: {reason}")


def _unlock(link: Link, process: Process, call: _Call, errors: _Errors, doing: str) -> None:
    """Answers sudo's question for the password and waits until it decides."""
    if not call.head:
        return
    _send(process, call.head)
    if errors.decided.wait(BEGINS_WITHIN) and not errors.refused:
        return
    reason = f"sudo did not answer within {BEGINS_WITHIN} s"
    if errors.refused:
        reason = f"sudo refused the password of {_get_user(link.host)}"
    raise PrivilegeError(link.host.name, doing, reason)


def _retry_with_password(host: Host, settings: Settings, once: Callable[[Settings], T]) -> T:
    """Runs once; where sudo turns out to want a password, asks the user for it and runs again."""
    try:
        return once(settings)
    except PrivilegeError as error:
        if settings.sudo_password is not None or not _is_password_needed(error.reason):
            raise
        return once(_ask_password(host, settings, error))


def _send(process: Process, data: bytes) -> None:
    # A command that ends without reading its input is its own business.
    with contextlib.suppress(OSError, EOFError, ValueError):
        process.write(data)


def _read_next(process: Process, guard: _Guard, host: str, doing: str) -> bytes:
    try:
        return process.read()
    except (OSError, EOFError, ValueError) as error:
        if guard.expired:
            return b""
        raise ConnectionLost(host, doing, f"connection lost: {error}") from error


def _feed(process: Process, data: bytes, *, close: bool) -> threading.Thread | None:
    """Writes the input; in the background where it might have to wait for output to be read."""

    def write_all() -> None:
        _send(process, data)
        if close:
            process.close_stdin()

    if len(data) <= _WINDOW // 2:
        write_all()
        return None
    writer = threading.Thread(target=write_all, daemon=True)
    writer.start()
    return writer


def _is_password_needed(reason: str) -> bool:
    return any(line in reason for line in SUDO_PASSWORD_REQUIRED_LINES)


def _ask_password(host: Host, settings: Settings, refusal: PrivilegeError) -> Settings:
    if not sys.stdin.isatty():
        raise PrivilegeError(
            host.name,
            refusal.doing,
            f"sudo wants the password of {_get_user(host)}: set _sudo_password in the host's data, "
            "or run with --same-sudo-password",
        ) from refusal
    with signals.hold_terminal():
        password = getpass(f"{host.print_prefix}sudo password: ")
    register(password)
    # Where pyinfra keeps it too, so that the user is asked once.
    host.connector_data["prompted_sudo_password"] = password
    return replace(settings, sudo_password=password)


def _get_user(host: Host) -> str:
    return host.data.get("ssh_user") or "the login user"


def _format_error(data: bytes) -> str:
    lines = (line.strip() for line in data.decode(errors="replace").splitlines())
    return format_safe_line("; ".join(line for line in lines if line), 300)


def _shorten(text: str, limit: int = 120) -> str:
    first, _, more = text.strip().partition("\n")
    return first[:limit] + ("…" if more or len(first) > limit else "")


def _print(host: Host, result: Result) -> None:
    for line in result.text.splitlines():
        echo(f"{host.print_prefix}{line}", err=True)
    for line in result.error_text.splitlines():
        echo(f"{host.print_prefix}{format_text(line, 'red')}", err=True)
