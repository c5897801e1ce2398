"""DNS messages: questions made, answers read. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from stackmend.resolver.state import Reply

_A, _AAAA, _CNAME_LIMIT = 1, 28, 64
_TRUNCATED = 0x02


def make_question(name: str, family: int, identity: bytes) -> str:
    """A question for a name's addresses, as ``printf %b`` takes it.

    :param name: the name, checked.
    :param family: 4 or 6.
    :param identity: two bytes that the answer has to repeat.
    """
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    kind = _A if family == 4 else _AAAA
    message = identity + b"\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0\0" + bytes([kind, 0, 1])
    return "".join(f"\\0{byte:03o}" for byte in message)


def parse_answer(text: str, name: str, identity: bytes) -> Reply | None:
    """What an answer says; None where it is none to this question.

    :param text: the message in hexadecimal, as a host printed it.
    :param name: the name that was asked for.
    :param identity: of the question.
    """
    try:
        message = bytes.fromhex(text)
        return _parse(message, name, identity)
    except (ValueError, IndexError):
        return None


def _parse(message: bytes, name: str, identity: bytes) -> Reply | None:
    if message[:2] != identity or not message[2] & 0x80:
        return None
    questions, answers = (int.from_bytes(message[at : at + 2]) for at in (4, 6))
    position = 12
    for _ in range(min(questions, 1)):
        asked, position = _read_name(message, position)
        if asked != name.lower():
            return None
        position += 4
    addresses = []
    for _ in range(min(answers, _CNAME_LIMIT)):
        position = _skip_name(message, position)
        kind = int.from_bytes(message[position : position + 2])
        length = int.from_bytes(message[position + 8 : position + 10])
        data = message[position + 10 : position + 10 + length]
        position += 10 + length
        if kind == _A and len(data) == 4:
            addresses.append(str(IPv4Address(data)))
        elif kind == _AAAA and len(data) == 16:
            addresses.append(str(IPv6Address(data)))
    # One that is cut short and brings no address says nothing.
    cut = message[2] & _TRUNCATED and not addresses
    return Reply(code=-2 if cut else message[3] & 0x0F, addresses=tuple(addresses))


def _read_name(message: bytes, position: int) -> tuple[str, int]:
    labels = []
    while length := message[position]:
        if length > 63:
            raise ValueError("a question that is compressed")
        labels.append(message[position + 1 : position + 1 + length].decode("ascii", "replace"))
        position += 1 + length
    return ".".join(labels).lower(), position + 1


def _skip_name(message: bytes, position: int) -> int:
    while length := message[position]:
        if length > 63:
            return position + 2
        position += 1 + length
    return position + 1
