"""OpenAI's API as model servers have it: ``/v1/completions``, or ``/v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackmend.worker.benchmark.protocols import (
    Parser,
    Protocol,
    Request,
    WrongForm,
    find_others,
    format_message,
    parse_count,
    parse_object,
    parse_seconds,
)

#: What llama-cpp-python calls the owner of every model.
SERIAL_OWNER = "me"


class OpenAI(Protocol):
    """Any server that speaks OpenAI's API.

    :param prefix: what stands before its paths, as ``/v1``.
    :param model: the name of the model.
    :param chat: whether it is asked by messages; its template then stands before the salt.
    """

    def __init__(self, prefix: str, model: str, *, chat: bool = False) -> None:
        super().__init__(prefix, model)
        self.chat = chat
        #: Whether it takes fields of which others know nothing.
        self.lenient = True
        self.probe = self.models = f"{prefix}/models"

    def note_models(self, body: Mapping[str, Any]) -> None:
        """Learn from the list of models how the server may be asked.

        llama-cpp-python answers one request at a time, and ends the answer that is under way when
        another request comes, be it for the list of models alone. Its documentation is outside of
        that.

        :param body: the answer to ``models``.
        """
        rows = body.get("data")
        # vLLM lists each of the names that it has for a model, and answers by the first of them.
        self.others = find_others(self._model, rows, "id", "root")
        first = rows[0] if isinstance(rows, list) and rows else None
        if isinstance(first, dict) and first.get("owned_by") == SERIAL_OWNER:
            self.serial = True
            self.probe = f"{self._prefix.removesuffix('/v1')}/docs"

    def build(self, prompt: str, output_tokens: int, seed: int) -> Request:
        """The request for an answer; those who do not know a field of it leave it aside.

        Some take no such field: ``lenient`` is false then, and the model may end early.
        """
        asked: dict[str, Any] = {"prompt": prompt}
        if self.chat:
            asked = {"messages": [{"role": "user", "content": prompt}]}
        body = {
            "model": self._model,
            **asked,
            "max_tokens": output_tokens,
            "temperature": 0,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.lenient:
            # llama.cpp and vLLM have the one, vLLM and llama-cpp-python the other.
            body |= {"ignore_eos": True, "min_tokens": output_tokens}
        path = "chat/completions" if self.chat else "completions"
        return Request(f"{self._prefix}/{path}", body)

    def make_parser(self, output_tokens: int) -> Parser:
        """What reads the answer."""
        return _Parser(output_tokens, self.others, self.named)


class _Parser(Parser):
    def _read(self, line: bytes, at: float) -> None:
        field, _, value = line.partition(b":")
        value = value.strip()
        if field == b"error":
            # llama.cpp's form of an error within a stream.
            reason = format_message(value.decode("utf-8", "replace"))
            self.fail("error", f"the server reports: {reason}")
        if field != b"data":
            if line[:1] in (b"{", b"["):
                fields = parse_object(line)
                self._has_error(fields)
                raise WrongForm("a line is no event")
            return
        if value == b"[DONE]":
            self._finish(at)
            return
        fields = parse_object(value)
        if self._has_error(fields) or not self._check_model(fields.get("model")):
            return
        choices = fields.get("choices") or []
        if not isinstance(choices, list):
            raise WrongForm("its choices are no list")
        for choice in choices[:1]:
            self._read_choice(choice, at)
        self._read_usage(fields.get("usage"))
        self._read_timings(fields.get("timings"))

    def _has_error(self, fields: dict[str, Any]) -> bool:
        if not fields.get("error"):
            return False
        self.fail("error", f"the server reports: {format_message(fields['error'])}")
        return True

    def _read_choice(self, choice: Any, at: float) -> None:
        if not isinstance(choice, dict):
            raise WrongForm("a choice is no object")
        part = choice.get("delta")
        part = part if isinstance(part, dict) else choice
        thought = next(
            (part[name] for name in ("reasoning_content", "reasoning") if _is_text(part.get(name))),
            None,
        )
        text = part.get("content", part.get("text"))
        reason = choice.get("finish_reason")
        self._add_text(at, thought, reasoning=True)
        self._add_text(at, text, reasoning=False)
        content = (thought or "") + (text or "")
        # A token that is part of a character may have no text; who begins or ends has none either.
        if content or (_is_text(text) and not isinstance(reason, str) and "role" not in part):
            self._pieces += 1
            self._wide += len(content.encode("utf-8", "surrogatepass")) - len(content)
        if isinstance(reason, str):
            self._add_counts(full=reason == "length")

    def _read_usage(self, usage: Any) -> None:
        if usage is None:
            return
        if not isinstance(usage, dict):
            raise WrongForm("its usage is no object")
        details = usage.get("prompt_tokens_details")
        kept = details.get("cached_tokens") if isinstance(details, dict) else None
        details = usage.get("completion_tokens_details")
        reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
        self._add_counts(
            reasoning=parse_count(reasoning),
            prompt=parse_count(usage.get("prompt_tokens")),
            output=parse_count(usage.get("completion_tokens")),
            kept=parse_count(kept),
        )

    def _read_timings(self, timings: Any) -> None:
        """What llama.cpp measured."""
        if not isinstance(timings, dict):
            return
        kept, evaluated = (parse_count(timings.get(name)) for name in ("cache_n", "prompt_n"))
        self._add_counts(
            kept=kept,
            prefill=parse_seconds(timings.get("prompt_ms"), 1e-3),
            decode=parse_seconds(timings.get("predicted_ms"), 1e-3),
        )
        if "prompt" not in self._counts and evaluated is not None:
            self._add_counts(prompt=evaluated + (kept or 0))
        if "output" not in self._counts:
            self._add_counts(output=parse_count(timings.get("predicted_n")))

    def _finish(self, at: float) -> None:
        # llama-cpp-python does not count what it streams; that the limit was reached, it says.
        if "output" not in self._counts and self._counts.get("full"):
            self._add_counts(
                output=self._output_tokens,
                assumed=True,
                pieces=self._pieces,
                wide=self._wide,
            )
        self.ended = at


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
