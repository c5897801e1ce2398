"""Ollama's own API: ``/api/generate``, a line of JSON for each piece of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackmend.worker.benchmark.protocols import (
    Parser,
    Protocol,
    Request,
    find_others,
    format_message,
    parse_count,
    parse_object,
    parse_seconds,
)

#: Seconds that a model stays loaded after a request of ours: longer than any pause within a
#: measurement, and not for ever where a measurement is killed.
KEEP = 3600


class Ollama(Protocol):
    """Ollama.

    Whatever makes it load the model again where a client differs in it is left unset, as clients
    leave it, but for the context of a model that is loaded: a client asked for that one.

    :param prefix: what stands before its paths.
    :param model: the name of the model.
    :param keep: what is sent as ``keep_alive``, in seconds; ``-1`` is for ever.
    """

    def __init__(self, prefix: str, model: str, keep: int = KEEP) -> None:
        super().__init__(prefix, model)
        self.keep = keep
        #: Tokens of the context that the model is loaded with; 0 leaves it to the server.
        self.context = 0
        #: When the model was to be unloaded before anything was asked, in seconds since 1970.
        self.expiry = 0.0
        self.probe = f"{prefix}/api/version"
        self.loaded = f"{prefix}/api/ps"
        self.models = f"{prefix}/api/tags"

    def note_models(self, body: Mapping[str, Any]) -> None:
        """Learn from the list of models which are others than the one that is asked.

        :param body: the answer to ``models``.
        """
        self.others = find_others(self._model, body.get("models"), "name", "digest")

    def build(self, prompt: str, output_tokens: int, seed: int) -> Request:
        """The request for an answer; ``raw``, so that no template lets the model think or stop."""
        options = {
            "temperature": 0,
            "seed": seed,
            "num_predict": output_tokens,
            **self._list_options(),
        }
        body = {"model": self._model, "prompt": prompt, "raw": True, "stream": True}
        return Request(
            f"{self._prefix}/api/generate", {**body, "options": options, "keep_alive": self.keep}
        )

    def build_load(self, keep: int | None) -> Request:
        """The request that loads the model, and answers nothing.

        :param keep: how long it stays, in seconds; ``None`` for as long as the server has it.
        """
        body: dict[str, Any] = {"model": self._model, "stream": False}
        if keep is not None:
            body["keep_alive"] = keep
        if options := self._list_options():
            body["options"] = options
        return Request(f"{self._prefix}/api/generate", body)

    def _list_options(self) -> dict[str, int]:
        return {"num_ctx": self.context} if self.context else {}

    def make_parser(self, output_tokens: int) -> Parser:
        """What reads the answer."""
        return _Parser(output_tokens, self.others, self.named)


class _Parser(Parser):
    def _read(self, line: bytes, at: float) -> None:
        if not line.strip():
            return
        fields = parse_object(line)
        if "error" in fields:
            self.fail("error", f"the server reports: {format_message(fields['error'])}")
            return
        if not self._check_model(fields.get("model")):
            return
        self._add_text(at, fields.get("thinking"), reasoning=True)
        self._add_text(at, fields.get("response"), reasoning=False)
        done = fields.get("done")
        if not isinstance(done, bool):
            raise ValueError("a line does not say whether it is the last")
        if done:
            self._add_counts(
                prompt=parse_count(fields.get("prompt_eval_count")),
                output=parse_count(fields.get("eval_count")),
                load=parse_seconds(fields.get("load_duration"), 1e-9),
                prefill=parse_seconds(fields.get("prompt_eval_duration"), 1e-9),
                decode=parse_seconds(fields.get("eval_duration"), 1e-9),
                total=parse_seconds(fields.get("total_duration"), 1e-9),
                full=fields.get("done_reason") == "length",
            )
            self.ended = at
