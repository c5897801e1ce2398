"""Answers to greetings as servers give them, and small servers that give them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator


def _error(state: str, message: str, where: str = "FClient.c\0L1\0RClient\0") -> bytes:
    """A postgres' ErrorResponse, whose fields stand in this order since 9.6."""
    fields = f"SFATAL\0VFATAL\0C{state}\0M{message}\0{where}\0".encode()
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


# Recorded from PostgreSQL 15.18 of Debian 12, by what checks/greetings.py sends: with
# scram-sha-256; with trust, up to its first setting; with trust, and a role and a database that
# are not there; with hostssl alone; while it recovers.
POSTGRES_SCRAM = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
POSTGRES_TRUST = (
    b"R\0\0\0\x08\0\0\0\0S\0\0\0\x1fapplication_name\0stackmend\0S\0\0\0\x19client_encoding\0UTF8\0"
)
POSTGRES_NO_ROLE = b"R\0\0\0\x08\0\0\0\0" + _error(
    "28000", 'role "nobody" does not exist', "Fmiscinit.c\0L768\0RInitializeSessionUserId\0"
)
POSTGRES_NO_DATABASE = b"R\0\0\0\x08\0\0\0\0" + _error(
    "3D000", 'database "nothere" does not exist', "Fpostinit.c\0L948\0RInitPostgres\0"
)
POSTGRES_TLS_ONLY = _error(
    "28000",
    'no pg_hba.conf entry for host "127.0.0.1", user "nobody", database "nobody", no encryption',
    "Fauth.c\0L544\0RClientAuthentication\0",
)
POSTGRES_STARTING = _error(
    "57P03", "the database system is starting up", "Fpostmaster.c\0L2415\0RProcessStartupPacket\0"
)
# As https://www.postgresql.org/docs/15/protocol-error-fields.html has it.
POSTGRES_FULL = _error("53300", "sorry, too many clients already")
# Recorded from RabbitMQ 3.10.8 of Debian 12: the start of its Connection.Start, and what it answers
# to whatever is no header.
RABBITMQ = bytes.fromhex(
    "010000000001ed000a000a0009000001c80c6361706162696c697469657346000000c712"
    "7075626c69736865725f636f6e6669726d737401"
)
RABBITMQ_OTHER = b"AMQP\0\0\x09\x01"
# Recorded from MariaDB 10.11.19 of Debian 12: to a login as nobody, to an address that nobody may
# log in from, and to one that failed too often.
MARIADB = bytes.fromhex(
    "640000000a352e352e352d31302e31312e31392d4d6172696144422d302b64656231327531000800000063262f5c61"
    "535b4e00fef72d0200ff81150000000000001d000000574a4a77374d5c666c6d5d69006d7973716c5f6e6174697665"
    "5f70617373776f72640037000002ff15042332383030304163636573732064656e69656420666f722075736572"
)
MARIADB_NOT_ALLOWED = (
    b"D\0\0\0\xffj\x04Host '192.0.2.2' is not allowed to connect to this MariaDB server"
)
MARIADB_BLOCKED = (
    b"j\0\0\0\xffi\x04Host '192.0.2.2' is blocked because of many connection errors; unblock with "
    b"'mariadb-admin flush-hosts'"
)
# MySQL 8: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_err_packet.html
MYSQL_FULL = b"\x17\0\0\0\xff\x10\x04Too many connections"
# https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/ and the command hello; the
# document is cut.
MONGODB = (
    struct.pack("<IIII", 300, 7, 1, 2013)
    + b"\0\0\0\0\0\x17\x01\0\0\x08helloOk\0\x01\x08isWritablePrimary\0\x01"
)
MONGODB_SECONDARY = MONGODB[:-1] + b"\0"
MONGODB_BY_HTTP = (
    b"HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 85\r\n\r\n"
    b"It looks like you are trying to access MongoDB over HTTP on the native driver port.\r\n"
)
# TCPHandler::receiveHello of ClickHouse.
CLICKHOUSE = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nPort 9000 is for clickhouse-client program.\r\n"
    b"You must use port 8123 for HTTP.\r\n"
)
HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
HTTPS = (
    b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>\r\n<head><title>400 The plain HTTP "
    b"request was sent to HTTPS port</title></head>\r\n"
)
REDIS = b"+PONG\r\n"
REDIS_CLOSED = b"-NOAUTH Authentication required.\r\n"
REDIS_DENIED = b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n"
SSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
TLS = b"\x15\x03\x01\0\x02\x02\x16"

Answer = Callable[[bytes], bytes | None]


@contextlib.contextmanager
def serve(answer: Answer, first: bytes = b"", pause: float = 0) -> Iterator[int]:
    """A server on loopback, and its port.

    + answer: what it sends back to the first bytes that come; ``None`` closes instead, and what is
      empty keeps the connection open in silence
    + first: what it says before anybody asks
    + pause: seconds between the first byte of an answer and the others
    """
    closing = threading.Event()

    def send(connection: socket.socket, text: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(text[:1])
        closing.wait(pause)
        connection.sendall(text[1:])

    def run(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            send(connection, first)
            request = connection.recv(65536)
            reply = answer(request) if request else None
            if reply is not None:
                send(connection, reply)
                while connection.recv(65536) and not closing.is_set():
                    pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=run, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            closing.set()
            server.shutdown(socket.SHUT_RDWR)
