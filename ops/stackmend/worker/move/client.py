"""What a server says when it is asked as one of OpenAI's API."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stackmend import answers, connection
from stackmend.errors import StepError
from stackmend.models.client import SOON, Client
from stackmend.models.errors import TransientError
from stackmend.models.spec import Name
from stackmend.models.state import Server
from stackmend.redaction import format_safe_line
from stackmend.worker.move.state import Answer

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.worker.benchmark.spec import BenchmarkSpec

#: Models of a server that are read, and characters of a name.
MOST_MODELS, LONGEST_NAME = 100, 500


def read_answer(host: Host, spec: BenchmarkSpec, address: str, port: int) -> Answer | None:
    """What a server says of itself and its models; ``None`` where none of OpenAI's API answers.

    It is not asked for its models where that may end what it answers to somebody, by the rule of
    ``worker.benchmarked``.

    :param spec: which server it is, and whether it may be disturbed.
    :param address: its address, as the host sees it.
    """
    from stackmend.worker.benchmark import occupation

    try:
        with connection.http(host, address, port, timeout=SOON) as client:
            introduction = occupation.read_introduction(host, spec, client)
            if introduction.silence:
                return Answer(
                    address=address,
                    port=port,
                    serial=introduction.serial,
                    silence=introduction.silence,
                )
            listed = client.get("/v1/models")
            models = _parse_models(listed.content) if listed.status_code == 200 else None
            if models is None:
                return None
            context = _parse_context(introduction.props.body)
            server = format_safe_line(listed.headers.get("server", ""), 200)
    except connection.ConnectionLost:
        raise
    except (connection.HTTPError, connection.RemoteError, OSError):
        return None
    return Answer(
        address=address,
        port=port,
        server=server,
        names=tuple(dict.fromkeys(name for name, _ in models)),
        owners=tuple(dict.fromkeys(owner for _, owner in models if owner)),
        props=context is not None,
        context=context or 0,
        serial=introduction.serial,
    )


def list_models(host: Host, address: str, port: int) -> tuple[str, ...] | None:
    """The full names of an Ollama's models; ``None`` where none answers."""
    try:
        with connection.http(host, address, port, timeout=SOON) as client:
            answer = client.get("/api/tags")
            return _parse_tags(answer.content) if answer.status_code == 200 else None
    except connection.ConnectionLost:
        raise
    except (connection.HTTPError, connection.RemoteError, OSError):
        return None


def check_answer(host: Host, address: str, port: int, model: str) -> str:
    """Why a server of OpenAI's API does not answer with a token, as a client asks it, or nothing.

    :param model: the name that clients ask for.
    """
    try:
        Client(host, Server(status="up", address=address, port=port)).check_completion(model)
    except connection.ConnectionLost:
        # Nothing is known of the server then.
        raise
    except (StepError, TransientError, OSError) as error:
        return format_safe_line(str(error), 300) or type(error).__name__
    return ""


def _parse_tags(content: bytes) -> tuple[str, ...] | None:
    try:
        found = answers.read_json(content)
    except ValueError:
        return None
    rows: Any = found.get("models") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        return None
    names = []
    for row in rows:
        with suppress(ValueError):
            if isinstance(row, dict) and isinstance(row.get("name"), str):
                names.append(str(Name.parse(row["name"])))
    return tuple(names)


def _parse_models(content: bytes) -> list[tuple[str, str]] | None:
    try:
        found = answers.read_json(content)
    except ValueError:
        return None
    data: Any = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list):
        return None
    return [
        (format_safe_line(row["id"], LONGEST_NAME), format_safe_line(str(row.get("owned_by")), 80))
        for row in data[:MOST_MODELS]
        if isinstance(row, dict) and isinstance(row.get("id"), str)
    ]


def _parse_context(found: object) -> int | None:
    """Tokens of a request's context, as llama.cpp's server describes itself; 0 is not known.

    ``None`` where it does not describe itself so.
    """
    settings = found.get("default_generation_settings") if isinstance(found, dict) else None
    if settings is None:
        return None
    tokens = settings.get("n_ctx") if isinstance(settings, dict) else None
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        return 0
    return tokens if 0 < tokens <= 1 << 30 else 0
