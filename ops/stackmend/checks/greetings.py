"""The first words of protocols: what is sent, and what the answer says. Pure.

Nobody logs in: the answer to a protocol's first message already says who speaks there, and whether
it is ready.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from stackmend.checks.spec import GreetingCheck
from stackmend.checks.state import Outcome
from stackmend.redaction import format_safe_line

_USER = "postgres"

#: Names of protocols as people write them.
TITLES = {
    "amqp": "AMQP",
    "clickhouse": "ClickHouse's native protocol",
    "http": "HTTP",
    "mongodb": "MongoDB's protocol",
    "mysql": "MySQL's protocol",
    "postgres": "Postgres' protocol",
    "redis": "redis' protocol",
}


class Greeting(NamedTuple):
    """What an answer shows: the outcome, in words, and what would mend it."""

    outcome: Outcome
    text: str
    remedy: str = ""


def make_request(check: GreetingCheck) -> bytes:
    """What is sent at first. None of it logs in, and none of it holds a secret."""
    match check.protocol:
        case "postgres":
            user = check.user or _USER
            pairs = {"user": user, "database": check.database or user}
            pairs |= {"application_name": "stackmend"}
            words = b"".join(b"%b\0%b\0" % (k.encode(), v.encode()) for k, v in pairs.items())
            return struct.pack("!II", len(words) + 9, 196608) + words + b"\0"
        case "amqp":
            return b"AMQP\0\0\x09\x01"
        case "mysql":
            # A login as nobody, and the end: a server that is left without one counts an error of
            # the caller's address, and locks it out after max_connect_errors of them.
            login = struct.pack("<IIB23x", 0x8200, 0x1000000, 33) + b"stackmend\0\0"
            return _make_mysql_packet(1, login) + _make_mysql_packet(0, b"\x01")
        case "mongodb":
            hello = b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0"
            body = struct.pack("<IBI", 0, 0, len(hello) + 4) + hello
            return struct.pack("<IIII", len(body) + 16, 1, 0, 2013) + body
        case "redis":
            return b"PING\r\n"
        case "http":
            host = f"[{check.host}]" if ":" in check.host else check.host
            return (
                b"HEAD / HTTP/1.1\r\nHost: %b:%d\r\nUser-Agent: stackmend\r\nAccept: */*\r\n"
                b"Connection: close\r\n\r\n" % (host.encode(), check.port)
            )
        case "clickhouse":
            # What it says to those who mistake its port.
            return b"GET / HTTP/1.0\r\n\r\n"


def _make_mysql_packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def list_patterns(check: GreetingCheck) -> tuple[str, ...]:
    """Patterns of a shell for an answer in hexadecimal that needs no second attempt."""
    byte = "??"
    match check.protocol:
        case "postgres":
            if check.user or check.database:
                # It asks for a login, or lets in and goes on with what it is set to.
                return ("52????????0000000[3579a]*", "5200000008000000005*")
            # An error of the classes 28 and 3D is about a login that is nobody's.
            return ("52*", f"45*00{b'C28'.hex()}*", f"45*00{b'C3D'.hex()}*")
        case "amqp":
            return (f"010000{byte * 4}000a000a*", f"{b'AMQP'.hex()}*")
        case "mysql":
            return (f"{byte * 3}000a*",)
        case "mongodb":
            return (f"{byte * 12}dd070000*",)
        case "redis":
            return (f"{b'+PONG'.hex()}*", f"{b'-NOAUTH'.hex()}*")
        case "http":
            return (f"{b'HTTP/'.hex()}*",)
        case "clickhouse":
            return (f"*{b' is for clickhouse-client'.hex()}*",)


_HTTP = re.compile(rb"HTTP/[0-9.]+ (\d{3})")
_REDIS = re.compile(rb"\+PONG|-(?:ERR|NOAUTH|DENIED|LOADING|MISCONF|WRONGPASS|NOPERM|BUSY|MOVED)\b")

_KNOWN: tuple[tuple[str, Callable[[bytes], object]], ...] = (
    ("clickhouse", re.compile(rb"(?s).* is for clickhouse-client").match),
    ("mongodb", re.compile(rb"(?s)HTTP/.* MongoDB over HTTP|.{12}\xdd\x07\0\0").match),
    ("HTTPS", re.compile(rb"(?s)HTTP/.*(?:sent to HTTPS port|request to an HTTPS server)").match),
    ("http", _HTTP.match),
    ("redis", _REDIS.match),
    ("amqp", re.compile(rb"(?s)AMQP|\x01\0\0.{4}\0\n\0\n").match),
    ("mysql", re.compile(rb"(?s)..\0\0[\x0a\xff]").match),
    ("postgres", lambda reply: _read_postgres(reply) is not None),
    ("TLS", re.compile(rb"(?s)[\x15\x16]\x03[\x00-\x04]").match),
    ("SSH", re.compile(rb"SSH-").match),
    ("SMTP or FTP", re.compile(rb"220[ -]").match),
    ("NATS", re.compile(rb"INFO \{").match),
)  # fmt: skip


def find_protocol(reply: bytes) -> str:
    """The protocol that an answer is of, by the names of `GreetingCheck`; empty: not known."""
    return next((name for name, matches in _KNOWN if matches(reply)), "")


def find_other_protocol(protocol: str, reply: bytes) -> str:
    """What an answer speaks that is not of the protocol, by its title; empty: nothing known."""
    spoken = find_protocol(reply)
    return "" if spoken == protocol else TITLES.get(spoken, spoken)


def read_greeting(check: GreetingCheck, reply: bytes) -> Greeting:
    """What the answer to a greeting says.

    :param reply: its first bytes; not empty.
    """
    spoken = find_protocol(reply)
    name = TITLES.get(spoken, spoken)
    asked = TITLES[check.protocol]
    if not spoken:
        begins = format_safe_line(reply[:60].decode(errors="replace"), 60)
        return Greeting("failed", f"what answers does not speak {asked}; it begins: {begins}")
    if spoken != check.protocol:
        remedy = f"address the port of {check.host} that speaks {asked}"
        return Greeting("failed", f"it speaks {name}, not {asked}", remedy)
    match check.protocol:
        case "postgres":
            return _read_postgres(reply, check) or Greeting("failed", "its answer is cut off")
        case "mysql":
            return _read_mysql(reply)
        case "redis":
            return _read_redis(reply)
        case "mongodb":
            primary = b"\x08isWritablePrimary\0\0" not in reply
            return Greeting("passed", "it is a mongodb" + ("" if primary else ", and no primary"))
        case "amqp" if reply.startswith(b"AMQP"):
            version = ".".join(map(str, reply[5:8]))
            return Greeting("passed", f"it is a broker that speaks AMQP {version}")
        case "amqp":
            return Greeting("passed", "it is a broker that speaks AMQP")
        case "http":
            found = _HTTP.match(reply)
            return Greeting("passed", f"HTTP {found[1].decode()}" if found else "HTTP")
        case "clickhouse":
            return Greeting("passed", "it is a clickhouse")


_LOGINS = {
    0: "lets in without a password",
    3: "asks for a password",
    5: "asks for a password (MD5)",
    7: "asks for a login by Kerberos",
    9: "asks for a login by SSPI",
    10: "asks for a password (SCRAM)",
}


def _read_postgres(reply: bytes, check: GreetingCheck | None = None) -> Greeting | None:
    """What a postgres says; ``None`` where it is none."""
    if len(reply) < 9 or reply[:1] not in b"RE":
        return None
    length = int.from_bytes(reply[1:5], "big")
    if not 8 <= length <= 30_000:
        return None
    if reply[:1] == b"R":
        login = _LOGINS.get(int.from_bytes(reply[5:9], "big"))
        if login is None:
            return None
        # Whom it lets in without a password it may still refuse, and says so after it.
        after = _read_postgres(reply[9:], check) if length == 8 else None
        return after or Greeting("passed", f"it is a postgres, and {login}")
    fields = {
        field[:1].decode("latin-1"): format_safe_line(field[1:].decode(errors="replace"), 300)
        for field in reply[5 : length + 1].split(b"\0")
        if field
    }
    state, message = fields.get("C", ""), fields.get("M", "")
    if not re.fullmatch("[0-9A-Z]{5}", state):
        return None
    text = f"it is a postgres, and refuses: {message} ({state})"
    if state[:2] in ("28", "3D") and check is not None:
        if not (check.user or check.database):
            return Greeting("passed", f"it is a postgres, and lets not everybody in ({state})")
        if "no encryption" in message or "SSL off" in message:
            return Greeting("unknown", f"not known: {text}; TLS is not spoken here")
    return Greeting("failed", text, _POSTGRES_REMEDIES.get(state, ""))


_POSTGRES_REMEDIES = {
    "57P03": "wait until it is up (`docker logs` says what it is at)",
    "53300": "raise `max_connections`, or lower the callers' pools",
    "3D000": "create the database, or name one that exists: `POSTGRES_DB` makes it only where the "
    "data directory is empty",
    "28000": "create the role, or name one that exists: `POSTGRES_USER` makes it only where the "
    "data directory is empty",
}


def _read_mysql(reply: bytes) -> Greeting:
    if reply[4] == 0x0A:
        version = reply[5:].partition(b"\0")[0].decode(errors="replace")
        return Greeting("passed", f"it is a mysql ({format_safe_line(version, 60)})")
    code = int.from_bytes(reply[5:7], "little")
    message = format_safe_line(reply[7:].decode(errors="replace"), 300)
    remedy = {
        1040: "raise `max_connections`, or lower the callers' pools",
        1129: "run `mariadb-admin flush-hosts` (`mysqladmin flush-hosts`) there",
        1130: "create the user for this host, or for '%'",
    }.get(code, "")
    return Greeting("failed", f"it is a mysql, and refuses: {message} ({code})", remedy)


def _read_redis(reply: bytes) -> Greeting:
    line = format_safe_line(reply.partition(b"\r\n")[0].decode(errors="replace"), 300)
    if line.startswith("+PONG"):
        return Greeting("passed", "PONG")
    if line.startswith("-NOAUTH"):
        return Greeting("passed", "it is a redis, and asks for a password")
    return Greeting("failed", f"it is a redis, and refuses: {line[1:]}")
