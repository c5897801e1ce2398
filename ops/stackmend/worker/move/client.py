"""What a server says when it is asked as one of OpenAI's API."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stackmend import answers, connection
from stackmend.models.client import LOADING, SOON
from stackmend.models.spec import Name
from stackmend.redaction import format_safe_line
from stackmend.worker.move.state import Answer

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Models of a server that are read, and characters of a name.
MOST_MODELS, LONGEST_NAME = 100, 500


def read_answer(host: Host, address: str, port: int) -> Answer | None:
    """What a server says of itself and its models; ``None`` where none of OpenAI's API answers.

    :param address: its address, as the host sees it.
    """
    try:
        with connection.http(host, address, port, timeout=SOON) as client:
            listed = client.get("/v1/models")
            models = _parse_models(listed.content) if listed.status_code == 200 else None
            if models is None:
                return None
            props = client.get("/props")
            context = _parse_context(props.content) if props.status_code == 200 else None
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
    """Ask for one token by OpenAI's API, as a client does; why none comes, or nothing.

    :param model: the name that clients ask for.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    try:
        with connection.http(host, address, port, timeout=LOADING) as client:
            answer = client.post("/v1/chat/completions", json=body)
            if answer.status_code != 200:
                reason = format_safe_line(answer.content.decode(errors="replace"), 200)
                return f"HTTP {answer.status_code}: {reason}"
            reply = answers.read_json(answer.content)
    except connection.ConnectionLost:
        # Nothing is known of the server then.
        raise
    except (connection.HTTPError, ValueError, OSError) as error:
        return format_safe_line(str(error), 200) or type(error).__name__
    if isinstance(reply, dict) and isinstance(reply.get("choices"), list) and reply["choices"]:
        return ""
    return f"the reply is none of a model: {format_safe_line(json.dumps(reply), 200)}"


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


def _parse_context(content: bytes) -> int | None:
    """Tokens of a request's context, as llama.cpp's server describes itself; 0 is not known.

    ``None`` where it does not describe itself so.
    """
    try:
        found = answers.read_json(content)
    except ValueError:
        return None
    settings = found.get("default_generation_settings") if isinstance(found, dict) else None
    if settings is None:
        return None
    tokens = settings.get("n_ctx") if isinstance(settings, dict) else None
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        return 0
    return tokens if 0 < tokens <= 1 << 30 else 0
