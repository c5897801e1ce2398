"""What a server says of itself: GETs alone, so that nothing is computed for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackmend import answers, connection
from stackmend.redaction import format_safe_line
from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import Answers, Loaded, Machine, Served

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for each answer.
TIMEOUT = 10.0

#: Models of one server, and characters of a name.
MOST_MODELS, LONGEST_NAME = 2000, 300

#: The largest context that a model may have.
LARGEST_CONTEXT = 1 << 32

_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


@dataclass(frozen=True)
class Reply:
    """The answer to one GET: its status, 0 for none, its JSON, its header ``Server``."""

    status: int = 0
    body: Any = None
    server: str = ""
    reason: str = ""

    def get(self, *path: str) -> Any:
        """A value within the JSON; ``None`` where it has none."""
        value = self.body
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def ask(host: Host, spec: BenchmarkSpec, machine: Machine) -> Answers:
    """Ask the server of what is desired, at the first address at which it answers.

    :param host: the host that reaches it.
    :param spec: what is desired.
    :param machine: the host, with the addresses of the service's containers.
    """
    if machine.reason and spec.endpoint is None:
        return Answers(reason=machine.reason)
    reasons: dict[str, None] = {}
    for address, port in _list_addresses(spec, machine):
        try:
            found = _ask_at(host, spec, address, port)
        except (connection.HTTPError, connection.DialError) as error:
            found = Answers(reason=format_safe_line(str(error), 200) or type(error).__name__)
        if not found.reason:
            return found
        reasons[found.reason] = None
    reason = "; ".join(reasons) or "its container has no address that the host reaches"
    return Answers(reason=f"{spec.server} does not answer: {reason}")


def _list_addresses(spec: BenchmarkSpec, machine: Machine) -> Iterator[tuple[str, int]]:
    if spec.endpoint is not None:
        yield spec.endpoint.address, spec.server_port
        return
    # The first of several replicas is as good as any.
    yield from (machine.servers[0].addresses[:8] if machine.servers else ())


def _ask_at(host: Host, spec: BenchmarkSpec, address: str, port: int) -> Answers:
    tls = spec.endpoint is not None and spec.endpoint.tls
    with connection.http(host, address, port, tls=tls, timeout=TIMEOUT) as client:
        if spec.target == "ollama":
            found = _ask_ollama(client, spec)
        elif spec.target == "openai":
            found = _ask_openai(client, spec)
        else:
            # What speaks for a queue is read where its tasks are sent.
            found = Answers(engine="queue", models=(Served(name=spec.model or "tasks"),))
            _get(client, spec, "/")
    return found.model_copy(update={"address": address, "port": port})


def _get(client: connection.HTTPClient, spec: BenchmarkSpec, path: str) -> Reply:
    headers = {}
    if spec.api_key is not None:
        headers["Authorization"] = f"Bearer {spec.api_key.get_secret_value()}"
    answer = client.get(path, headers=headers)
    body = None
    try:
        body = answers.read_json(answer.content)
    except ValueError as error:
        return Reply(answer.status_code, reason=format_safe_line(str(error), 100))
    return Reply(answer.status_code, body, answer.headers.get("server", "")[:LONGEST_NAME])


def _ask_ollama(client: connection.HTTPClient, spec: BenchmarkSpec) -> Answers:
    version = _get(client, spec, f"{spec.base_path}/api/version")
    if reason := _explain(version):
        return Answers(reason=reason)
    if not isinstance(version.get("version"), str):
        return Answers(reason="what answers there is not Ollama")
    tags = _get(client, spec, f"{spec.base_path}/api/tags")
    loaded = _get(client, spec, f"{spec.base_path}/api/ps")
    return parse_ollama(version.body, tags.body, loaded.body)


def parse_ollama(version: Any, tags: Any, loaded: Any) -> Answers:
    """What Ollama says of itself.

    :param version: the body of ``/api/version``.
    :param tags: that of ``/api/tags``.
    :param loaded: that of ``/api/ps``; one that is none leaves it unknown what is loaded.
    """
    rows = _list_rows(tags, "models")
    in_memory = _list_rows(loaded, "models")
    return Answers(
        engine="ollama",
        version=_clean(_find(version, "version")),
        models=tuple(
            Served(
                name=_clean(row.get("name")),
                digest=_parse_digest(row.get("digest")),
                size=_parse_size(row.get("size")),
            )
            for row in rows or ()
            if _clean(row.get("name"))
        ),
        loaded=None
        if in_memory is None
        else tuple(
            Loaded(
                name=_clean(row.get("name")),
                size=_parse_size(row.get("size")),
                vram=_parse_size(row.get("size_vram")),
                context=_parse_context(row.get("context_length")),
            )
            for row in in_memory
            if _clean(row.get("name"))
        ),
    )


def _ask_openai(client: connection.HTTPClient, spec: BenchmarkSpec) -> Answers:
    models = _get(client, spec, f"{spec.base_path}/models")
    if reason := _explain(models):
        return Answers(reason=reason)
    if _list_rows(models.body, "data") is None:
        return Answers(reason="what answers there does not speak OpenAI's API")
    # The one is llama.cpp's, the other vLLM's; whoever has neither says so.
    root = spec.base_path.removesuffix("/v1")
    return parse_openai(
        models, _get(client, spec, f"{root}/props"), _get(client, spec, f"{root}/version")
    )


def parse_openai(models: Reply, props: Reply, version: Reply) -> Answers:
    """What a server of OpenAI's API says of itself.

    :param models: the answer to ``/v1/models``.
    :param props: to ``/props``.
    :param version: to ``/version``.
    """
    rows = _list_rows(models.body, "data") or ()
    owners = {_clean(row.get("owned_by")) for row in rows}
    context = _parse_context(props.get("default_generation_settings", "n_ctx"))
    engine, named = "openai", ""
    if "vllm" in owners or (version.status == 200 and isinstance(version.get("version"), str)):
        engine, named = "vllm", _clean(version.get("version"))
        context = context or max(
            (_parse_context(row.get("max_model_len")) for row in rows), default=0
        )
    elif "llamacpp" in owners or isinstance(props.get("build_info"), str):
        engine, named = "llama.cpp", _clean(props.get("build_info"))
    elif "me" in owners:
        # What llama-cpp-python calls the owner of every model.
        engine = "llama-cpp-python"
    return Answers(
        engine=engine,
        version=named,
        models=tuple(
            Served(name=name, size=_parse_size(_find(row.get("meta"), "size")))
            for row in rows
            if (name := _clean(row.get("id")))
        ),
        context=context,
    )


def _explain(reply: Reply) -> str:
    """Why an answer says nothing; empty where it does."""
    if reply.status in (401, 403):
        return f"it asks for a key (HTTP {reply.status}): add api_key"
    if reply.status != 200:
        return f"it answers HTTP {reply.status}"
    return f"its answer is no JSON: {reply.reason}" if reply.reason else ""


def _find(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _list_rows(body: Any, key: str) -> Sequence[Mapping[str, Any]] | None:
    rows = _find(body, key)
    # Ollama writes null for an empty list.
    if rows is None and isinstance(body, Mapping) and key in body:
        return []
    if not isinstance(rows, list):
        return None
    return [row for row in rows[:MOST_MODELS] if isinstance(row, Mapping)]


def _clean(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    # A name that a terminal cannot show is none that a user can have meant.
    return text if len(text) <= LONGEST_NAME and text.isprintable() else ""


def _parse_digest(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return text if _DIGEST.fullmatch(text) else ""


def _parse_size(value: Any) -> int:
    try:
        return answers.parse_size(value)
    except ValueError:
        return 0


def _parse_context(value: Any) -> int:
    number = _parse_size(value)
    return number if number <= LARGEST_CONTEXT else 0
