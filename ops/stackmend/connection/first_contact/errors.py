"""What ends first contact before anything is authenticated."""

from __future__ import annotations

from paramiko import SSHException


class HostKeyRefused(SSHException):
    """The host's key is not to be trusted; nothing was authenticated."""
