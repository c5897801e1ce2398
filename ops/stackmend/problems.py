"""Problems of settings as messages: one printable line each, as long as a person reads."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from reprlib import Repr
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from stackmend.text import make_printable

#: The longest line of one problem, and the most problems that are reported at once.
MAXIMUM_LINE = 1000
MAXIMUM_PROBLEMS = 50

#: The longest text that is quoted as it stands.
MAXIMUM_QUOTED = 120

#: Categories of characters that move the cursor, end a line, or are no characters at all.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})

#: Characters that change the direction in which a line is read.
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_repr = Repr()
_repr.maxstring = _repr.maxother = MAXIMUM_QUOTED
_repr.maxlevel = 3


class Problem(ValueError):
    """A setting cannot be used; the text is one line that begins with its path."""

    def __init__(self, text: str) -> None:
        super().__init__(cut_line(text))


class WrongSettings(ValueError):
    """Settings are wrong; the text has all problems in one line.

    :param problems: one line each, which begins with the field's path.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def list_problems(
    error: ValidationError,
    *where: str,
    model: type[BaseModel] | None = None,
    raw: Any = None,
) -> Iterator[str]:
    """Each problem in one line, the field's path first; the value may be secret, and is left out.

    :param where: what stands before the field in its path.
    :param model: what the values were validated as: an unknown key is then held against its fields.
    :param raw: the values, by which the right one of several models is found.
    """
    found = error.errors(include_url=False)
    for item in islice(found, MAXIMUM_PROBLEMS):
        place = item["loc"]
        message = _format_message(item["type"], item["msg"], item["input"])
        if item["type"] == "extra_forbidden" and model is not None:
            keys = sorted({key for each in _find_models(model, place[:-1], raw) for key in each})
            message += suggest(str(place[-1]), keys)
        # What tells the kinds of a value apart is in angle brackets, and no part of its path.
        path = join_path(*where, *(part for part in place if str(part)[:1] != "<"))
        # An item that a validator of ours names is part of the path.
        joint = "" if re.match(r"\[[0-9]+\]", message) else ": "
        yield cut_line(joint.join(filter(None, [path, message])))
    if len(found) > MAXIMUM_PROBLEMS:
        yield cut_line(f"{join_path(*where)}: … and {len(found) - MAXIMUM_PROBLEMS} more problems")


#: What pydantic's kinds of errors mean to somebody who writes settings.
_MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "missing",
    **dict.fromkeys(("model_type", "dict_type", "mapping_type"), "must be a mapping"),
    **dict.fromkeys(
        ("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"),
        "must be a list",
    ),
    **dict.fromkeys(("string_type", "string_sub_type"), "must be text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be True or False"),
    "path_type": "must be a path",
}

_PERCENT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) *%")


def _format_message(kind: str, text: str, value: Any) -> str:
    """What is wrong with a value, in the words of those who write settings."""
    percent = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if percent and kind == "float_parsing":
        share = f"{float(percent[1]) / 100:.5f}".rstrip("0").rstrip(".")
        return f"must be a number: write {share} for {percent[1]} %"
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    text = text.removeprefix("Value error, ").replace(" after validation", "")
    return re.sub(r"^(?:Input|String|Tuple|List|Set|Dictionary|Value) should ", "must ", text)


def suggest(name: str, keys: Sequence[str]) -> str:
    """The key that an unknown one may be meant for, and all that there are.

    :param name: the unknown one.
    :param keys: those that are known.
    """
    if not keys:
        return ""
    meant = get_close_matches(name[:MAXIMUM_QUOTED], keys, 1)
    question = f" (did you mean {meant[0]}?)" if meant else ""
    return f"{question}; known are {', '.join(keys)}"


def _find_models(
    model: type[BaseModel], place: Sequence[str | int], raw: Any
) -> Iterator[Sequence[str]]:
    """The keys of each model that may stand at a place."""
    kinds: list[Any] = [model]
    for part in place:
        tagged = [arm for kind in kinds for arm in _expand(kind)]
        if isinstance(part, str) and part[:1] == "<":
            kinds = [kind for tag, kind in tagged if tag == part]
            continue
        kinds = [inner for _, kind in tagged for inner in _enter(kind, part)]
        if isinstance(raw, dict | list | tuple):
            raw = raw.get(part) if isinstance(raw, dict) else raw[int(part)]
    for _, arm in (arm for kind in kinds for arm in _expand(kind)):
        if isinstance(arm, type) and issubclass(arm, BaseModel) and _is_of_kind(arm, raw):
            yield tuple(arm.model_fields)


def _expand(kind: Any) -> Iterator[tuple[str, Any]]:
    """Each type that a field's type may stand for, with its tag."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        tag = next((note.tag for note in notes if isinstance(note, Tag)), "")
        yield from ((tag or other, arm) for other, arm in _expand(inner))
    elif get_origin(kind) in (Union, UnionType):
        for arm in get_args(kind):
            yield from _expand(arm)
    else:
        yield "", kind


def _enter(kind: Any, part: str | int) -> Iterator[Any]:
    """The type of what stands in a value of a type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if part in kind.model_fields:
            yield kind.model_fields[str(part)].annotation
    elif inner := [each for each in get_args(kind) if each is not Ellipsis]:
        yield inner[-1]


def _is_of_kind(model: type[BaseModel], raw: Any) -> bool:
    """Whether a mapping names the kind that a model is of."""
    if not isinstance(raw, dict):
        return True
    return all(
        raw[name] == kinds[0]
        for name, field in model.model_fields.items()
        if name in raw
        and get_origin(field.annotation) is Literal
        and len(kinds := get_args(field.annotation)) == 1
    )


def join_problems(error: ValueError) -> str:
    """All problems in one line."""
    return "; ".join(list_problems(error)) if isinstance(error, ValidationError) else str(error)


def join_path(*parts: str | int) -> str:
    """Join the parts of a field's path: ``checks[0].url``, with the first of a list as 0."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{show(part)}" if path else show(part)
    return path


def show(value: Any) -> str:
    """A name as it stands, where it is short and shows what it is; else as :func:`abbreviate`."""
    text = value if isinstance(value, str) else str(value) if isinstance(value, int) else None
    if text is None or len(text) > MAXIMUM_QUOTED or not text.isprintable():
        return abbreviate(value)
    return text


def abbreviate(value: Any) -> str:
    """A value as Python writes it, its middle left out where it is long: never more than a line."""
    try:
        text = _repr.repr(value)
    except Exception:  # The value may be anything, and its own methods may fail.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 4 * MAXIMUM_QUOTED else f"{text[: 4 * MAXIMUM_QUOTED]}..."


def cut_line(text: str) -> str:
    """Make a text one line that moves no cursor and is no longer than a person reads."""
    return make_printable(text, MAXIMUM_LINE)


def is_plain(text: str) -> bool:
    """Whether a text holds no character that moves the cursor, ends a line, or turns it around.

    Names may hold more than is shown as it stands, such as what joins two signs to one.
    """
    return text.isprintable() or not any(
        character in _DIRECTIONS or unicodedata.category(character) in _CONTROLS
        for character in text
    )
