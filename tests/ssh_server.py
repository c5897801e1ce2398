"""A server of SSH on loopback that lets one user in by one key, and runs nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko


@dataclass(frozen=True)
class Server:
    """It.

    + port: where it listens
    + known: its line of ``known_hosts``
    """

    port: int
    known: str


@contextlib.contextmanager
def serving(user: str, key: paramiko.PKey) -> Iterator[Server]:
    """Serve within the block.

    + user: who is let in
    + key: by what
    """

    class Interface(paramiko.ServerInterface):
        def get_allowed_auths(self, username: str) -> str:
            return "publickey"

        def check_auth_publickey(self, username: str, offered: paramiko.PKey) -> int:
            right = username == user and offered == key
            return paramiko.common.AUTH_SUCCESSFUL if right else paramiko.common.AUTH_FAILED

    own = paramiko.ECDSAKey.generate()
    transports: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    transport = paramiko.Transport(peer)
                    transport.add_server_key(own)
                    transports.append(transport)
                    with contextlib.suppress(paramiko.SSHException, EOFError):
                        transport.start_server(server=Interface())

        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        yield Server(port, f"[127.0.0.1]:{port} {own.get_name()} {own.get_base64()}\n")
        for transport in transports:
            transport.close()
