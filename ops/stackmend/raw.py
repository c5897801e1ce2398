"""Raw settings of a user, copied to plain data before anything else touches them.

Settings come from Python files, so that they may be anything: objects whose methods fail, mappings
that hold themselves, numbers of a million digits, generators that give their items once. What is
validated, copied, compared and sent from here on is plain data of a size that is known.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
)

from stackmend.problems import (
    Problem,
    WrongSettings,
    abbreviate,
    is_plain,
    join_path,
    list_problems,
)

#: Values in one mapping of settings, whatever they lie in, and how deep they may lie.
MAXIMUM_VALUES = 50_000
MAXIMUM_DEPTH = 32

#: Characters of all its texts together.
MAXIMUM_TEXT = 4 * 1024**2

#: Bits of a number.
MAXIMUM_BITS = 128

#: What Linux takes for one name and for one path, in bytes.
NAME_MAX, PATH_MAX = 255, 4095

_AS_THEY_ARE = (
    BaseModel,
    Decimal,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)

Model = TypeVar("Model", bound=BaseModel)


class RawProblem(Problem):
    """A value is none that settings can hold; the text begins with its path."""


def validate(model: type[Model], raw: Mapping[str, Any]) -> Model:
    """Settings as a model has them.

    :param raw: the settings, of whatever kind their values are.
    :raises RawProblem: naming the first value that is none that settings can hold.
    :raises WrongSettings: naming each wrong field.
    """
    plain = copy_plain(raw)
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        raise WrongSettings(tuple(list_problems(error, model=model, raw=plain))) from None


def copy_plain(raw: Any, *where: str) -> Any:
    """Copy settings to nothing but plain data, ``Path`` and ``SecretStr``.

    Models of ours that are validated already stay as they are.

    :param where: its path.
    :raises RawProblem: naming the first value that is none of these, or too large.
    """
    return _Copier().copy(raw, where)


class _Copier:
    """Copies one mapping of settings, and counts."""

    def __init__(self) -> None:
        self._values = MAXIMUM_VALUES
        self._text = MAXIMUM_TEXT
        self._open: set[int] = set()

    def copy(self, raw: Any, where: tuple[str | int, ...]) -> Any:
        self._values -= 1
        if self._values < 0:
            raise _make_problem(where, f"more than {MAXIMUM_VALUES} values are no settings")
        kind = type(raw)
        if raw is None or kind is bool or issubclass(kind, float):
            return raw if kind in (bool, type(None)) else float.__float__(raw)
        if issubclass(kind, int):
            return _check_number(int.__int__(raw), where)
        if issubclass(kind, str):
            return self._count(str.__str__(raw), where)
        if issubclass(kind, bytes):
            self._count(raw.decode("latin-1"), where)
            return raw
        if issubclass(kind, PurePath):
            self._count(str(raw), where)
            return raw
        if issubclass(kind, SecretStr | SecretBytes):
            return self._check_secret(raw, where)
        if issubclass(kind, _AS_THEY_ARE):
            return raw
        return self._copy_nested(raw, kind, where)

    def _copy_nested(self, raw: Any, kind: type, where: tuple[str | int, ...]) -> Any:
        if not issubclass(kind, Collection) or issubclass(kind, Iterator):
            raise _make_problem(
                where,
                "must be plain data: text, a number, true, false, a list or a mapping; got "
                f"{kind.__name__}",
            )
        if id(raw) in self._open:
            raise _make_problem(where, "holds itself; write out what it is to hold")
        if len(self._open) >= MAXIMUM_DEPTH:
            raise _make_problem(where, f"lies deeper than {MAXIMUM_DEPTH} levels; flatten it")
        self._open.add(id(raw))
        try:
            if issubclass(kind, Mapping):
                return dict(self._copy_pairs(raw, where))
            copied = [
                self.copy(item, (*where, index))
                for index, item in enumerate(_read_items(raw, kind, where))
            ]
            return tuple(copied) if issubclass(kind, tuple) else copied
        finally:
            self._open.discard(id(raw))

    def _copy_pairs(self, raw: Any, where: tuple[str | int, ...]) -> Iterator[tuple[str, Any]]:
        for pair in _read_items(raw, type(raw), where, mapping=True):
            key, value = pair
            if not isinstance(key, str):
                raise _make_problem(
                    where, f"{abbreviate(key)} is a key that is no text; put it in quotes"
                )
            key = self._count(str.__str__(key), where)
            yield key, self.copy(value, (*where, key))

    def _check_secret(self, raw: SecretStr | SecretBytes, where: tuple[str | int, ...]) -> Any:
        content = raw.get_secret_value()
        if isinstance(content, str):
            self._count(content, where)
        elif not isinstance(content, bytes):
            raise _make_problem(where, "a SecretStr must hold text")
        return raw

    def _count(self, text: str, where: tuple[str | int, ...]) -> str:
        self._text -= len(text)
        if self._text < 0:
            raise _make_problem(where, f"more than {MAXIMUM_TEXT} characters are no settings")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _make_problem(where, "holds half of a character, which is no text") from None
        return text


def _read_items(
    raw: Any, kind: type, where: tuple[str | int, ...], *, mapping: bool = False
) -> Iterable[Any]:
    """What a collection holds; its methods may be of the user's own, and may fail."""
    try:
        size = len(raw)
        if size > MAXIMUM_VALUES:
            raise _make_problem(
                where, f"{size} values are more than the {MAXIMUM_VALUES} of settings"
            )
        # One more than it says: its size may be a lie, and its items without end.
        items = zip(range(size), raw.items() if mapping else raw, strict=False)
        return [item for _, item in items]
    except RawProblem:
        raise
    except Exception as error:
        raise _make_problem(
            where, f"cannot be read: {kind.__name__} raises {type(error).__name__}"
        ) from None


def _check_number(number: int, where: tuple[str | int, ...]) -> int:
    if number.bit_length() > MAXIMUM_BITS:
        raise _make_problem(
            where, f"a number of {number.bit_length()} bits is too large; write it as text"
        )
    return number


def _make_problem(where: tuple[str | int, ...], reason: str) -> RawProblem:
    return RawProblem(": ".join(filter(None, [join_path(*where), reason])))


def check_lengths(path: str) -> None:
    """Hold a path against what Linux takes.

    :raises ValueError: saying which part is too long.
    """
    if len(path.encode(errors="replace")) > PATH_MAX:
        raise ValueError(
            f"a path of {len(path.encode(errors='replace'))} bytes is too long; "
            f"{PATH_MAX} are the most"
        )
    for part in path.split("/"):
        if len(part.encode(errors="replace")) > NAME_MAX:
            raise ValueError(
                f"{abbreviate(part)} is too long for the name of a file; {NAME_MAX} bytes are "
                "the most"
            )


def check_plain(text: str) -> None:
    """Hold a name against what a terminal and a list of files can carry.

    :raises ValueError: it holds control characters.
    """
    if not is_plain(text):
        raise ValueError(f"must not hold control characters; got {abbreviate(text)}")


def _check_local(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("must not hold a NUL: no file has such a name")
    check_lengths(str(value))
    return value


LocalPath = Annotated[Path, AfterValidator(_check_local)]
"""A path on this machine, as far as its name says; for use as a type in models."""


_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(ms|s|min|h|d|w)")
_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _parse_time(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    match = _TIME.fullmatch(raw.strip())
    if match is not None:
        return float(match[1]) * _UNITS[match[2]]
    try:
        return float(raw)
    except ValueError:
        raise ValueError(
            "must be seconds, or a time such as '500ms', '90s', '5min', '12h' or '7d'"
        ) from None


Seconds = Annotated[float, BeforeValidator(_parse_time)]
"""Seconds, or a time such as ``"5min"``; for use as a type in models."""

# The bound stands first: behind the validator it would be no keyword of a JSON schema.
PositiveSeconds = Annotated[float, Field(gt=0), BeforeValidator(_parse_time)]
"""The same, above 0."""

IntegerSeconds = Annotated[int, BeforeValidator(_parse_time)]
"""The same, without parts of a second."""


def check_ping(value: SecretStr) -> SecretStr:
    """The address of a dead man's switch, as it was set.

    :param value: the address.
    :raises ValueError: it is none.
    """
    try:
        parts = urlsplit(value.get_secret_value())
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or not value.get_secret_value().isascii() or " " in value.get_secret_value():
        raise ValueError("must be an address that begins with http:// or https://")
    return value
