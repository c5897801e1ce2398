"""What can go wrong between this machine and a host.

Every error is an ``OSError``, as pyinfra fails one host on an ``OSError`` and goes on with the
others, and a ``PyinfraError``, as its command line then shows one line and no traceback.
"""

from __future__ import annotations

from pyinfra.api.exceptions import PyinfraError

from stackmend.redaction import format_safe_line


class RemoteError(PyinfraError, OSError):
    """Something could not be done on a host.

    Attributes:
        host: name of the host.
        doing: what was being done, in words; commands are masked in it.
        reason: what went wrong.
    """

    def __init__(self, host: str, doing: str, reason: str) -> None:
        # Whoever catches it may print it anywhere.
        doing, reason = format_safe_line(doing), format_safe_line(reason)
        super().__init__(f"{host}: {reason} ({doing})")
        self.host = host
        self.doing = doing
        self.reason = reason


class ConnectionLost(RemoteError, ConnectionError):
    """The transport to the host died. Whether the command ran to its end is not known."""


class CommandTimeout(RemoteError, TimeoutError):
    """A command did not end within its limit and was ended on the host.

    Attributes:
        stdout: what it had written until then.
        stderr: likewise.
    """

    def __init__(
        self, host: str, doing: str, reason: str, stdout: bytes = b"", stderr: bytes = b""
    ) -> None:
        super().__init__(host, doing, reason)
        self.stdout = stdout
        self.stderr = stderr


class PrivilegeError(RemoteError):
    """The host did not grant the other user (sudo, doas, dzdo); the command never ran."""


class UnsupportedConnector(RemoteError):
    """The host is reached by a connector that has no channels (neither ``@ssh`` nor ``@local``)."""


class LeaseHeld(RemoteError):
    """Someone else holds the lock.

    Attributes:
        holder: the line the holder wrote into the lock file.
    """

    def __init__(self, host: str, doing: str, holder: str) -> None:
        super().__init__(host, doing, f"another run is at work here: {holder}")
        self.holder = holder


class DialError(RemoteError):
    """A connection from the host to an address and port could not be made."""
