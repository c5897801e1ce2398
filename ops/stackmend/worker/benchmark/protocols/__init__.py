"""How a model server is asked, and what its answer means: one module for each API.

A protocol knows paths, bodies and lines, and neither a connection nor a clock.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from stackmend.answers import read_json
from stackmend.redaction import format_safe_line, redact_likely
from stackmend.worker.benchmark.definitions import Answer, Counts, Problem, Text
from stackmend.worker.benchmark.state import Invalid

#: Characters of a server's messages that are reported.
LONGEST_MESSAGE = 300

#: Tokens, and seconds, beyond which a server's number is none.
MOST_TOKENS, MOST_SECONDS = 10**8, 1e7


#: What follows a model's name where it stands for a version of that: a date, or a number.
_VERSION = re.compile(r"[-@](?:v|0|[0-9]{3})[0-9.-]{0,20}")


@dataclass(frozen=True)
class Request:
    """What is sent.

    :param path: of the server's API.
    :param body: JSON.
    """

    path: str
    body: Mapping[str, Any]

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return json.dumps(self.body, ensure_ascii=False).encode()


class WrongForm(ValueError):
    """A server's line has not the form that its API has."""


class Parser(ABC):
    """Reads the lines of one answer as they come.

    Whatever comes is either understood or the end of the answer: nothing raises.

    :param output_tokens: tokens that were asked for.
    :param others: names of models that were not asked.
    :param named: the model that answered before; empty where nobody did.
    """

    #: Whether the text itself is kept: up to some megabytes of each answer.
    keep = False

    def __init__(self, output_tokens: int, others: Collection[str] = (), named: str = "") -> None:
        self._output_tokens = output_tokens
        self._others = others
        self._named = named
        self._model = ""
        self._pieces = self._wide = 0
        self._texts: list[Text] = []
        self._content: list[str] = []
        self._counts: dict[str, Any] = {}
        self._problem: Problem | None = None
        #: Seconds from sending to the last message; ``None`` until it came.
        self.ended: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether no further line means anything."""
        return self.ended is not None or self._problem is not None

    @property
    def invalid(self) -> Invalid | None:
        """Why the answer does not count; ``None`` where nothing went wrong yet."""
        return self._problem.invalid if self._problem else None

    def feed(self, line: bytes, at: float) -> None:
        """Read one line.

        :param line: without its end.
        :param at: seconds since the request was sent.
        """
        if self.is_over:
            return
        try:
            self._read(line, at)
        except (ValueError, TypeError) as error:
            self.fail("error", f"the answer has not the form of this API: {_shorten(error)}")

    def fail(self, invalid: Invalid, reason: str) -> None:
        """The answer ends here, and does not count.

        :param invalid: the class.
        :param reason: in words; made safe to be printed.
        """
        if self._problem is None:
            self._problem = Problem(invalid, _shorten(reason))

    def make_answer(self, end: float) -> Answer:
        """What came, in all.

        :param end: seconds from sending until nothing more came.
        """
        return Answer(
            texts=tuple(self._texts),
            counts=Counts(**self._counts),
            end=end if self.ended is None else self.ended,
            complete=self.ended is not None,
            problem=self._problem,
            content="".join(self._content),
            model=self._model,
        )

    @abstractmethod
    def _read(self, line: bytes, at: float) -> None: ...

    def _add_text(self, at: float, value: Any, *, reasoning: bool) -> None:
        if value is None or value == "":
            return
        if not isinstance(value, str):
            raise WrongForm("its text is no text")
        self._texts.append(Text(at, len(value), reasoning))
        if self.keep:
            self._content.append(value)

    def _check_model(self, name: Any) -> bool:
        """Whether it may be the model that was asked; a server may call that by any other name.

        Once it has called it by one, another name is another model: that of a fallback.
        """
        if not isinstance(name, str) or not name:
            return True
        # Some name it otherwise in their last message, which is of the same answer.
        self._model = self._model or name
        if name in self._others:
            self.fail("error", f"another model answers: {name}")
        elif self._named and self._model != self._named:
            self.fail(
                "error", f"another model answers: {self._model}, and {self._named} did before"
            )
        return self._problem is None

    def _add_counts(self, **counts: int | float | bool | None) -> None:
        self._counts |= {name: value for name, value in counts.items() if value is not None}


class Protocol(ABC):
    """One API.

    :param prefix: what stands before its paths.
    :param model: the name of the model.
    """

    #: The path of a request that a server answers at once, whatever its model does.
    probe: str

    #: Whether it answers one request at a time, and another one ends that.
    serial = False

    def __init__(self, prefix: str, model: str) -> None:
        self._prefix = prefix
        self._model = model
        #: Names of the server's models that are surely none of the one that is asked.
        self.others: frozenset[str] = frozenset()
        #: What the server calls the model in its answers; empty where that is not known.
        self.named = ""

    @abstractmethod
    def build(self, prompt: str, output_tokens: int, seed: int) -> Request:
        """The request for an answer, as a stream.

        :param prompt: what is asked.
        :param output_tokens: tokens that the answer is to have.
        :param seed: of the sampling.
        """

    @abstractmethod
    def make_parser(self, output_tokens: int) -> Parser:
        """What reads the answer.

        :param output_tokens: tokens that were asked for.
        """


def find_others(model: str, rows: Any, name: str, identity: str) -> frozenset[str]:
    """Names of a server's models that are surely not the one that is asked.

    A server may have several names for a model, list the version that a name stands for as well,
    and answer by either; or answer by the name of the model that an adapter is for.

    :param model: the name of the model that is asked.
    :param rows: the models, as the server lists them.
    :param name: the field of a name.
    :param identity: the field that the names of one model have in common.
    """
    known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    named = {row[name]: row for row in known if isinstance(row.get(name), str)}
    if model not in named:
        # What it is called here is not known.
        return frozenset()
    asked = named[model]
    return frozenset(
        other
        for other, row in named.items()
        if other.lower() != model.lower()
        and (asked.get(identity) is None or row.get(identity) != asked[identity])
        and other != asked.get("parent")
        and not any(
            _VERSION.fullmatch(long.removeprefix(short))
            for long, short in ((other, model), (model, other))
        )
    )


def is_loading(status: int, message: str) -> bool:
    """Whether a server turns a request away only because it loads its model.

    llama.cpp's listens before it has it, and until then answers most requests by 503 ``Loading
    model``; the list of models is none of these.

    :param status: of the answer.
    :param message: the error within it.
    """
    return status == 503 and "loading" in message.lower()


def parse_object(line: bytes | str) -> dict[str, Any]:
    """A line's JSON, which is an object.

    :param line: the line.
    :raises ValueError: it is none.
    """
    value = read_json(line)
    if not isinstance(value, dict):
        raise WrongForm("a line is no object")
    return value


def parse_count(value: Any) -> int | None:
    """A number of tokens; ``None`` where there is none.

    :param value: a server's.
    :raises ValueError: it is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise WrongForm("a number of tokens is none")
    return value


def parse_seconds(value: Any, unit: float) -> float | None:
    """A duration in seconds; ``None`` where there is none.

    :param value: a server's.
    :param unit: its unit, in seconds.
    :raises ValueError: it is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongForm("a duration is none")
    seconds = value * unit
    if not 0 <= seconds <= MOST_SECONDS:
        raise WrongForm("a duration is none")
    return seconds


def format_message(value: Any) -> str:
    """A server's error message, safe to be printed.

    :param value: the message, or an object that has one.
    """
    if isinstance(value, dict):
        value = value.get("message", value)
    return ("" if value is None else _shorten(value)) or "no reason given"


def _shorten(value: Any) -> str:
    return redact_likely(format_safe_line(" ".join(str(value).split()), LONGEST_MESSAGE))
