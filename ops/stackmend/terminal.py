"""What pyinfra's command line prints goes through one place: no secret, nothing that steers.

Everything is shown through :class:`Screen`, whoever prints it: rooms by ``host.log``, pyinfra the
commands and their output at ``-vvv``, Python a traceback. Sequences that style text are let through
only where pyinfra or we added them: they carry a number that nobody else knows.
"""

from __future__ import annotations

import atexit
import functools
import io
import logging
import re
import secrets
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

from stackmend import redaction, text
from stackmend.connection import signals

if TYPE_CHECKING:
    from collections.abc import Callable

#: Text without a line end that is held back until then; more of it is shown as it comes.
HELD_LIMIT = 1024 * 1024

_NUMBER = str(10**17 + secrets.randbelow(9 * 10**17))
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_OURS = re.compile(rf"\x1b\[{_NUMBER};([0-9;]*)m")
# What pyinfra writes by itself to move the cursor: its spinner, and the prompt that it takes back.
_MOVES = re.compile(r"\x1b\[K|\x1b\[1A *\x1b\[1A")
_SPINNER = re.compile(r"    [-/|\\] [^\r\n]*\r")


class Screen:
    """A stream for people: every line without secrets, without control characters, not too long.

    :param stream: where it is written to.
    :param limit: the longest line; ``None`` where programs read it.
    """

    def __init__(self, stream: TextIO, limit: int | None = text.LINE_LIMIT) -> None:
        self._stream = stream
        self._limit = limit
        self._held: list[str] = []
        self._size = 0
        #: Bytes are text here as well.
        self.buffer = io.BufferedWriter(cast("Any", _Bytes(self)))

    def write(self, data: str) -> int:
        """Show text; what follows its last line end waits for the next one, or for a flush."""
        if not isinstance(data, str):
            raise TypeError(f"a stream of text takes str, not {type(data).__name__}")
        if _MOVES.fullmatch(data):
            self._put(data)
        elif _SPINNER.fullmatch(data):
            self._put(self._clean(data[:-1]) + "\r")
        else:
            self._hold(data)
        return len(data)

    def _hold(self, data: str) -> None:
        end = data.rfind("\n") + 1
        if end:
            ready = "".join([*self._held, data[:end]])
            self._held, self._size = [], 0
            self._put(self._clean(ready))
        if unended := data[end:]:
            self._held.append(unended)
            self._size += len(unended)
            if self._size > HELD_LIMIT:
                self._release()

    def writelines(self, lines: list[str]) -> None:
        """Show several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Show what waits for the end of its line, but not what may be half of a secret."""
        self._release()
        self._pass_on()

    def finish(self) -> None:
        """Show all that waits: nothing comes any more."""
        ready, self._held, self._size = "".join(self._held), [], 0
        try:
            self._put(self._clean(ready))
            self._pass_on()
        except OSError:
            # Whoever wrote has heard of it: nothing is left to be done at the end of the process.
            signals.drop(self._stream.fileno())

    def _release(self) -> None:
        if not self._held:
            return
        waiting = "".join(self._held)
        end = len(waiting) - redaction.count_partial(waiting)
        self._held, self._size = [waiting[end:]] if waiting[end:] else [], len(waiting) - end
        self._put(self._clean(waiting[:end]))

    def _put(self, data: str) -> None:
        try:
            self._stream.write(data)
        except BrokenPipeError:
            # Raised from here it would end whichever thread has written, and not the run.
            signals.replace_broken(self._stream.fileno())

    def _pass_on(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            signals.replace_broken(self._stream.fileno())

    def _clean(self, data: str) -> str:
        data = redaction.redact(data)
        return "\n".join(map(self._format_line, data.split("\n")))

    def _format_line(self, line: str) -> str:
        limit = self._limit if self._limit is not None else len(line)
        # The styles stand at odd places, text between them at even ones.
        parts = _OURS.split(line.removesuffix("\r"))
        if len(parts) == 1:
            return text.cut(parts[0], limit)
        pieces = []
        for index, part in enumerate(parts):
            if index % 2:
                pieces.append(f"\x1b[{part}m")
            elif part and limit >= 0:
                pieces.append(text.cut(part, limit))
                limit -= len(part)
        return "".join(pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes(io.RawIOBase):
    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._screen.write(bytes(data).decode("utf-8", "surrogateescape"))
        return len(data)

    def fileno(self) -> int:
        return int(self._screen.fileno())


def write_styled(stream: TextIO, output: str) -> None:
    """Write text whose styles are our own, such as a table, and that holds nothing foreign."""
    stream.write(_mark(output) if isinstance(stream, Screen) else output)


def install() -> None:
    """Have all that this process prints shown through here, from now on. Once is enough.

    For pyinfra's command line: a program of its own owns its streams itself.
    """
    if isinstance(sys.stderr, Screen):
        return
    screens = {sys.stdout: Screen(sys.stdout, None), sys.stderr: Screen(sys.stderr)}
    for handler in _find_handlers():
        if handler.stream in screens:
            handler.setStream(screens[handler.stream])
    sys.stdout = cast("TextIO", screens[sys.stdout])
    sys.stderr = cast("TextIO", screens[sys.stderr])
    for screen in screens.values():
        atexit.register(screen.finish)
    _mark_styles()
    _redact_records()
    _redact_debug_log()


def _find_handlers() -> list[Any]:
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return [
        handler
        for logger in loggers
        for handler in getattr(logger, "handlers", ())
        if isinstance(handler, logging.StreamHandler)
    ]


def _mark(output: str) -> str:
    return _STYLE.sub(lambda match: f"\x1b[{_NUMBER};{match[1]}m", output)


def _mark_styles() -> None:
    import click
    from pyinfra.api.output import set_formatter

    original: Callable[..., str] = click.style

    @functools.wraps(original)
    def style(output: Any, *args: Any, **kwargs: Any) -> str:
        before, _, after = original("\0", *args, **kwargs).partition("\0")
        return f"{_mark(before)}{output}{_mark(after)}"

    for module in (click, click.termui):
        cast("Any", module).style = style
    set_formatter(style)


def _redact_records() -> None:
    """Hide secrets from handlers that write elsewhere, such as to a file of the user's."""
    original = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = original(*args, **kwargs)
        if redaction.get_secrets() and isinstance(record.msg, str):
            message = record.getMessage()
            if (redacted := redaction.redact(message)) != message:
                record.msg, record.args = redacted, None
        return record

    logging.setLogRecordFactory(factory)


def _redact_debug_log() -> None:
    """Hide secrets from ``pyinfra-debug.log``, which pyinfra writes by itself."""
    from pyinfra_cli.exceptions import UnexpectedMixin  # type: ignore[import-untyped]

    traceback_lines, exception = UnexpectedMixin.get_traceback_lines, UnexpectedMixin.get_exception

    def clean(output: str) -> str:
        return text.make_lines_printable(redaction.redact(output))

    UnexpectedMixin.get_traceback_lines = lambda self: [*map(clean, traceback_lines(self))]
    UnexpectedMixin.get_exception = lambda self: clean(exception(self))
