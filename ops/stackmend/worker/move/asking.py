"""What a server says when it is asked as one of OpenAI's API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stackmend import answers, connection
from stackmend.redaction import format_safe_line
from stackmend.worker.move.state import Answer

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for what a server answers at once; one that computes may be slow.
SOON = 10.0

#: Seconds that a model has to be loaded, and to answer.
LOADING = 900.0

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
            described = props.status_code == 200 and _is_llama(props.content)
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
        props=described,
    )


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


def _is_llama(content: bytes) -> bool:
    try:
        found = answers.read_json(content)
    except ValueError:
        return False
    return isinstance(found, dict) and "default_generation_settings" in found
