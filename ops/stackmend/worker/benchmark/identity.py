"""What a server says of itself: GETs alone, so that nothing is computed for them.

llama-cpp-python answers one request at a time, and ends an answer that is under way for the next
request, be it for the list of models alone. What else it has, such as the description of its API,
is outside of that. So a server that may be one is asked for its models only where its host sees
that nobody is being answered.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from stackmend import answers, connection
from stackmend.redaction import format_safe_line
from stackmend.text import format_limit
from stackmend.worker.benchmark import guards
from stackmend.worker.benchmark.fingerprint import find_model
from stackmend.worker.benchmark.loading import wait_until_loaded
from stackmend.worker.benchmark.protocols import is_loading
from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import Answers, Loaded, Machine, Queue, Served, Server
from stackmend.worker.context import parse_shape

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for each answer.
TIMEOUT = 10.0

#: Models of one server, and characters of a name.
MOST_MODELS, LONGEST_NAME = 2000, 300

#: The largest context that a model may have.
LARGEST_CONTEXT = 1 << 32

#: The path of what a queue says of itself.
HEALTH = "/healthz"

#: What to do about a server that is not there, or not the one that is meant.
START = 'start the server, or correct its "port" or "endpoint" in worker.benchmark; then run again'
RUN = "start its container, then run again"
READ_LOG = "read its log, and run again once it serves"
CORRECT = (
    'correct "target", "service", "port" or "endpoint" in worker.benchmark: they have to name the '
    "server that is meant"
)

#: Seconds within which each worker of a queue reports anew.
REPORTED = 6.0

#: Seconds for an answer that is not needed.
SOON = 5.0

#: The most that may wait in a queue, or at a server.
MOST_WAITING = 10**9

#: The title of llama-cpp-python's description of its API, in lower case.
SERIAL_TITLE = "llama.cpp python api"

#: What servers call the requests that they have, in their metrics.
_REQUESTS = re.compile(
    r"(?:vllm:num_requests_(?:running|waiting)|llamacpp:requests_(?:processing|deferred))"
    r"(?:\{[^}\n]{0,2000}\})? +([0-9]{1,9})(?:\.0+)?"
)

#: What they have counted of these: by name and labels.
_COUNTERS = re.compile(
    r"((?:vllm:(?:request_success|prompt_tokens|generation_tokens)"
    r"|sglang:(?:prompt|generation)_tokens"
    r"|llamacpp:(?:prompt_tokens|tokens_predicted))_total(?:\{[^}\n]{0,2000}\})?)"
    r" +([0-9.e+]{1,40})"
)

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


class Introduction(NamedTuple):
    """What a server of OpenAI's API says of itself before it is asked for its models.

    :param props: the answer to ``/props``.
    :param version: to ``/version``.
    :param silence: why it is not asked for its models; empty where it is.
    :param serial: whether it describes itself as llama-cpp-python.
    """

    props: Reply
    version: Reply
    silence: str = ""
    serial: bool = False


def ask(host: Host, spec: BenchmarkSpec, machine: Machine) -> Answers:
    """Ask the server of what is desired, at the first address at which it answers.

    :param host: the host that reaches it.
    :param spec: what is desired.
    :param machine: the host, with the addresses of the service's containers.
    """
    if machine.reason and spec.endpoint is None:
        return Answers(reason=machine.reason)
    reasons: dict[str, None] = {}
    answered: Answers | None = None
    for address, port in _list_addresses(spec, machine):
        try:
            found = _ask_at(host, spec, machine, address, port)
        except (connection.HTTPError, connection.DialError) as error:
            reason = format_safe_line(str(error), 200) or type(error).__name__
            reasons[f"port {port}: {reason}"] = None
            continue
        if not found.reason or found.remedy:
            return found
        answered = answered or found
    if answered is not None:
        return answered.model_copy(update={"remedy": READ_LOG})
    if reasons:
        return Answers(reason=f"it does not answer at {'; '.join(reasons)}", remedy=START)
    return Answers(reason="its container has no address that the host reaches", remedy=RUN)


def complete(host: Host, spec: BenchmarkSpec, machine: Machine, found: Answers) -> Answers:
    """What has to be known besides before a server is measured; what it does not say stays unknown.

    The line of tasks before it, the requests that it has, and the shape of the model that is asked.
    For none of these it computes anything.

    :param host: the host that reaches it.
    :param spec: what is desired.
    :param machine: the host, with the containers of its queue.
    :param found: of :func:`ask`.
    """
    if found.reason or spec.target == "queue":
        return found
    more: dict[str, Any] = {}
    tls = spec.endpoint is not None and spec.endpoint.tls
    with (
        suppress(connection.HTTPError, connection.DialError),
        connection.http(host, found.address, found.port, tls=tls, timeout=SOON) as client,
    ):
        if spec.target == "ollama" and (model := find_model(spec, found)) is not None:
            path = f"{spec.base_path}/api/show"
            answer = client.post(path, json={"model": model.name}, headers=_make_headers(spec))
            more["shape"] = parse_shape(_read(answer))
        elif found.engine in ("llama.cpp", "vllm"):
            more["requests"] = _ask_requests(client, spec)
        # Who counts nothing is not asked twice: llama-cpp-python would end an answer for it.
        if "busy" not in spec.allow and found.engine != "llama-cpp-python":
            more["is_active"] = _watch(client, spec, found.engine)
    for address, port in (row for server in machine.queues for row in server.addresses[:4]):
        with (
            suppress(connection.HTTPError, connection.DialError),
            connection.http(host, address, port, timeout=SOON) as client,
        ):
            queue = parse_queue(_read(client.get(HEALTH)))
            if queue is not None:
                more["queue"] = queue
                break
    return found.model_copy(update=more)


def read_queue(host: Host, spec: BenchmarkSpec, found: Answers) -> Answers:
    """What a queue says of its tasks now.

    :param host: the host that reaches it.
    :param spec: what is desired.
    :param found: of :func:`ask`.
    :raises HTTPError: it does not answer.
    """
    tls = spec.endpoint is not None and spec.endpoint.tls
    with connection.http(host, found.address, found.port, tls=tls, timeout=SOON) as client:
        now = _ask_queue(client, spec)
    return found if now.queue is None else found.model_copy(update={"queue": now.queue})


def _ask_requests(client: connection.HTTPClient, spec: BenchmarkSpec) -> int | None:
    """Requests that a server has, where it offers that."""
    root = spec.base_path.removesuffix("/v1")
    slots = _get(client, spec, f"{root}/slots")
    if slots.status == 200 and (number := parse_slots(slots.body)) is not None:
        return number
    headers = _make_headers(spec)
    metrics = client.get(f"{root}/metrics", headers=headers)
    return parse_metrics(metrics.text) if metrics.status_code == 200 else None


def _watch(client: connection.HTTPClient, spec: BenchmarkSpec, engine: str) -> bool | None:
    """Whether what a server counts of its requests changes; ``None`` where it counts nothing."""
    before = _read_counters(client, spec, engine)
    if before is None:
        return None
    time.sleep(guards.INTERVAL)
    after = _read_counters(client, spec, engine)
    return None if after is None else has_changed(before, after)


def _read_counters(
    client: connection.HTTPClient, spec: BenchmarkSpec, engine: str
) -> Mapping[str, str] | None:
    root = spec.base_path.removesuffix("/v1")
    found: dict[str, str] | None = None
    if engine in ("llama.cpp", "vllm", "openai"):
        metrics = client.get(f"{root}/metrics", headers=_make_headers(spec))
        if metrics.status_code == 200:
            found = parse_counters(metrics.text)
    if engine == "llama.cpp":
        found = parse_slot_tasks(_get(client, spec, f"{root}/slots").body) or found
    elif engine in ("ollama", "openai") and found is None:
        # Ollama speaks OpenAI's API as well.
        found = parse_ends(_get(client, spec, f"{root}/api/ps").body)
    return found


def has_changed(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether a server answered somebody between two readings of what it counts.

    :param before: the first reading.
    :param after: the second; what it lacks, such as a model that was unloaded, is no request.
    """
    return any(before.get(name) != value for name, value in after.items())


def parse_counters(text: str) -> dict[str, str] | None:
    """Requests and tokens that a server has counted so far; ``None`` where it counts none.

    :param text: the answer to ``/metrics``.
    """
    matches = (_COUNTERS.fullmatch(line.strip()) for line in text.split("\n")[:20_000])
    return {match[1]: match[2] for match in matches if match} or None


def parse_slot_tasks(body: Any) -> dict[str, str] | None:
    """The last task of each slot of llama.cpp; ``None`` where it does not say.

    :param body: the answer to ``/slots``.
    """
    rows = body[:MOST_MODELS] if isinstance(body, list) else []
    tasks = {f"slot {at}": _find(row, "id_task") for at, row in enumerate(rows)}
    # One that never had a task names none.
    return {name: str(task) for name, task in tasks.items() if isinstance(task, int)} or None


def parse_ends(body: Any) -> dict[str, str] | None:
    """When Ollama will unload each model, which the end of each request defers.

    :param body: the answer to ``/api/ps``; ``None`` where it is none.
    """
    rows = _list_rows(body, "models")
    if rows is None:
        return None
    return {
        name: _clean(row.get("expires_at")) for row in rows if (name := _clean(row.get("name")))
    }


def parse_slots(body: Any) -> int | None:
    """Requests under way, as llama.cpp lists its slots; ``None`` where that is no such list.

    :param body: the answer to ``/slots``.
    """
    if not isinstance(body, list) or not body:
        return None
    busy = [_find(row, "is_processing") for row in body]
    return busy.count(True) if all(isinstance(value, bool) for value in busy) else None


def parse_metrics(text: str) -> int | None:
    """Requests under way and waiting, by a server's metrics; ``None`` where these have none.

    :param text: the answer to ``/metrics``.
    """
    matches = (_REQUESTS.fullmatch(line.strip()) for line in text.split("\n")[:20_000])
    found = [int(match[1]) for match in matches if match]
    return min(sum(found), MOST_WAITING) if found else None


def parse_queue(body: Any) -> Queue | None:
    """How many tasks wait and run, as a queue says; ``None`` where it does not.

    :param body: the answer to ``/healthz``.
    """
    row = _find(body, "queue")
    counts = [_find(row, name) for name in ("waiting", "running", "delayed")]
    known = [
        value
        for value in counts
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_WAITING
    ]
    if len(known) != len(counts):
        return None
    waiting, running, delayed = known
    return Queue(waiting=waiting + delayed, running=running, delayed=delayed)


def parse_queue_server(health: Reply, model: str | None) -> Answers:
    """What a queue says of itself, and of the workers that take its tasks.

    :param health: the answer to ``/healthz``.
    :param model: that is asked for; the workers' own where there is none.
    """
    if (refused := _refuse(health)) is not None:
        return refused
    queue, workers = parse_queue(health.body), _find(health.body, "workers")
    if queue is None or not isinstance(workers, Mapping):
        return Answers(reason="what answers there is no queue of this kind", remedy=CORRECT)
    rows = [row for row in list(workers.values())[:MOST_MODELS] if isinstance(row, Mapping)]
    if not rows:
        return Answers(reason="no worker takes the tasks of the queue", remedy="start the worker")
    if (state := _clean(rows[0].get("ollama"))) not in ("", "ok"):
        return Answers(reason=f"its worker says: {format_safe_line(state, 200)}")
    if model and (missing := _list_others(rows, model)) is not None:
        return Answers(engine="queue", models=missing, queue=queue)
    names = {name for row in rows if (name := _clean(row.get("model")))}
    name = model or ", ".join(sorted(names)) or "tasks"
    return Answers(engine="queue", models=(Served(name=name),), queue=queue)


def _list_others(rows: Sequence[Mapping[str, Any]], model: str) -> tuple[Served, ...] | None:
    """The models that workers have, where one of them says that it lacks the one that is asked."""
    for row in rows:
        listed = row.get("models")
        if not isinstance(listed, list):
            continue
        names = [name for item in listed[:MOST_MODELS] if (name := _clean(item))]
        if not {name.lower() for name in names} & {model.lower(), f"{model}:latest".lower()}:
            return tuple(Served(name=name) for name in names)
    return None


def _read(answer: connection.HTTPResponse) -> Any:
    """The JSON of an answer; ``None`` where it is none, or no answer."""
    if answer.status_code != 200:
        return None
    try:
        return answers.read_json(answer.content)
    except ValueError:
        return None


def _list_addresses(spec: BenchmarkSpec, machine: Machine) -> Iterator[tuple[str, int]]:
    if spec.endpoint is not None:
        yield spec.endpoint.address, spec.server_port
        return
    # The first of several replicas is as good as any.
    yield from (machine.servers[0].addresses[:8] if machine.servers else ())


def _ask_at(host: Host, spec: BenchmarkSpec, machine: Machine, address: str, port: int) -> Answers:
    tls = spec.endpoint is not None and spec.endpoint.tls
    with connection.http(host, address, port, tls=tls, timeout=TIMEOUT) as client:
        if spec.target == "ollama":
            found = _ask_ollama(client, spec)
        elif spec.target == "openai":
            found = _ask_openai(host, client, spec, machine)
        else:
            found = _ask_queue(client, spec)
    return found.model_copy(update={"address": address, "port": port})


def _ask_queue(client: connection.HTTPClient, spec: BenchmarkSpec) -> Answers:
    found = parse_queue_server(_get(client, spec, spec.base_path + HEALTH), spec.model)
    if found.reason or find_model(spec, found) is not None or spec.model is None:
        return found
    # A model that was pulled just now is in no worker's report yet.
    time.sleep(REPORTED)
    return parse_queue_server(_get(client, spec, spec.base_path + HEALTH), spec.model)


def _get(client: connection.HTTPClient, spec: BenchmarkSpec, path: str) -> Reply:
    answer = client.get(path, headers=_make_headers(spec))
    body = None
    try:
        body = answers.read_json(answer.content)
    except ValueError as error:
        return Reply(answer.status_code, reason=format_safe_line(str(error), 100))
    return Reply(answer.status_code, body, answer.headers.get("server", "")[:LONGEST_NAME])


def _make_headers(spec: BenchmarkSpec) -> dict[str, str]:
    if spec.api_key is None:
        return {}
    return {"Authorization": f"Bearer {spec.api_key.get_secret_value()}"}


def _ask_ollama(client: connection.HTTPClient, spec: BenchmarkSpec) -> Answers:
    version = _get(client, spec, f"{spec.base_path}/api/version")
    if (refused := _refuse(version)) is not None:
        return refused
    if not isinstance(version.get("version"), str):
        return Answers(reason="what answers there is not Ollama", remedy=CORRECT)
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


def _ask_openai(
    host: Host, client: connection.HTTPClient, spec: BenchmarkSpec, machine: Machine
) -> Answers:
    root = spec.base_path.removesuffix("/v1")
    # The one is llama.cpp's, the other vLLM's; whoever has neither says so.
    props = _get_loaded(host, client, spec, f"{root}/props")
    if _is_loading(props):
        return Answers(
            reason=f"it still loads its model, after {format_limit(spec.profile.timeout)}",
            remedy="wait until it has loaded its model, then run again",
        )
    introduction = read_introduction(client, spec, props, lambda: machine)
    if introduction.silence:
        remedy = f"run again when nobody uses it; or {guards.allow('busy')}"
        return Answers(reason=introduction.silence, remedy=remedy)
    version = introduction.version
    models = _get(client, spec, f"{spec.base_path}/models")
    if (refused := _refuse(models)) is not None:
        return refused
    if _list_rows(models.body, "data") is None:
        return Answers(reason="what answers there does not speak OpenAI's API", remedy=CORRECT)
    return parse_openai(models, props, version)


def read_introduction(
    client: connection.HTTPClient,
    spec: BenchmarkSpec,
    props: Reply | None,
    read_machine: Callable[[], Machine],
) -> Introduction:
    """Ask a server of OpenAI's API what it is, by what ends no answer of it to somebody.

    :param client: asks it.
    :param spec: which server it is, and whether it may be disturbed.
    :param props: the answer to ``/props``, where it was asked already.
    :param read_machine: its host, which is read only where that decides whether it is asked more.
    """
    root = spec.base_path.removesuffix("/v1")
    props = _get(client, spec, f"{root}/props") if props is None else props
    if _is_llama_cpp(props):
        return Introduction(props, Reply())
    version = _get(client, spec, f"{root}/version")
    if _is_vllm(version) or "busy" in spec.allow:
        return Introduction(props, version)
    described = _get(client, spec, f"{root}/openapi.json")
    serial = is_serial(described)
    if isinstance(described.get("info", "title"), str) and not serial:
        return Introduction(props, version)
    machine = read_machine()
    server = machine.servers[0] if machine.servers else None
    latest = machine.record.latest
    known = latest.fingerprint.engine if latest is not None else ""
    silence = explain_silence(described, known, server)
    return Introduction(props, version, silence, serial)


def is_serial(described: Reply) -> bool:
    """Whether a server describes itself as llama-cpp-python, which answers one at a time.

    :param described: the answer to ``/openapi.json``.
    """
    title = described.get("info", "title")
    return isinstance(title, str) and SERIAL_TITLE in title.lower()


def explain_silence(described: Reply, known: str, server: Server | None) -> str:
    """Why a server is not asked for its models; empty where it is.

    :param described: the answer to ``/openapi.json``.
    :param known: what it was when it was last measured; empty where it never was.
    :param server: as its host sees it; ``None`` where it runs elsewhere.
    """
    title = described.get("info", "title")
    serial = is_serial(described)
    if not serial and (isinstance(title, str) or known not in ("", "llama-cpp-python")):
        return ""
    if not guards.can_interrupt(server) or not (reason := guards.explain_unrest(server)):
        return ""
    kind = "it is llama-cpp-python" if serial else "it may be llama-cpp-python"
    return (
        f"{kind}, which ends an answer when another request comes, and {reason}: it was not asked "
        "for its models"
    )


def _get_loaded(host: Host, client: connection.HTTPClient, spec: BenchmarkSpec, path: str) -> Reply:
    """As :func:`_get`; a server that loads its model is waited for, as long as for an answer."""
    return wait_until_loaded(
        host, spec.server, spec.profile.timeout, lambda: _get(client, spec, path), _is_loading
    )


def _is_loading(reply: Reply) -> bool:
    return is_loading(reply.status, str(reply.get("error", "message") or ""))


def _is_llama_cpp(props: Reply) -> bool:
    return (
        isinstance(props.get("build_info"), str)
        or isinstance(props.get("default_generation_settings"), Mapping)
        or props.server == "llama.cpp"
    )


def _is_vllm(version: Reply) -> bool:
    return version.status == 200 and isinstance(version.get("version"), str)


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
    if "vllm" in owners or _is_vllm(version):
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


def _refuse(reply: Reply) -> Answers | None:
    """Why an answer says nothing; ``None`` where it does."""
    if reply.status in (401, 403):
        return Answers(
            reason=f"it asks for a key (HTTP {reply.status})",
            remedy='add "api_key" to the section worker.benchmark',
        )
    if 300 <= reply.status < 400:
        return Answers(
            reason=f"it redirects (HTTP {reply.status})",
            remedy="name the address that it leads to as endpoint",
        )
    if reply.status != 200:
        # A server that fails may well be the one that is meant.
        remedy = READ_LOG if reply.status >= 500 else CORRECT
        return Answers(reason=f"it answers HTTP {reply.status}", remedy=remedy)
    if reply.reason:
        return Answers(reason=f"its answer is no JSON: {reply.reason}", remedy=CORRECT)
    return None


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
