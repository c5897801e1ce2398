"""Models, blobs and what went wrong, in words."""

from collections.abc import Mapping

from pydantic import ByteSize

from stackmend.decision import Refusal
from stackmend.models.spec import ModelSpec, ModelsSpec
from stackmend.models.state import BlobProblem, RegistryAnswer, Server

#: What helps where the server cannot be asked.
_WAYS: Mapping[str, str] = {
    "absent": 'deploy the stack that it belongs to, or name the server: "service" or "endpoint"',
    "stopped": "start it; the log of its container says why it stopped",
    "not-ollama": 'point "endpoint" or "service" at an Ollama server',
    "auth": "point the endpoint at the server itself, behind what asks for a login",
    "unreachable": "see the log of the server",
    "unknown": "see the reason; nothing is done to a server that cannot be read",
}


def human(count: int) -> str:
    """Bytes as people write them."""
    return ByteSize(count).human_readable()


def where(one: ModelSpec) -> str:
    """The registry of a model."""
    assert one.pulled is not None, "only what is pulled has a registry"
    return one.pulled.host


def unreachable(answer: RegistryAnswer) -> str:
    """Why a registry could not be asked, and what part of the way to it failed."""
    layers = {
        "name": "its name is not found",
        "connect": "no connection",
        "tls": "TLS",
        "http": "HTTP",
    }
    return f"cannot be asked ({layers[answer.layer or 'http']}): {answer.reason}"


def is_private(answer: RegistryAnswer | None) -> bool:
    """Whether a registry does not tell everybody."""
    return answer is not None and answer.code in (401, 403)


#: What helps where a registry cannot be asked, by the part of the way that failed.
_LAYERS: Mapping[str, str] = {
    "name": "check the registry's name and the host's resolver",
    "connect": "check the network between the host and the registry, and that it listens there",
    "tls": 'check the certificate and the host\'s clock; for plain HTTP say "insecure": true',
    "http": "see what the registry says, and whether it is well",
}


def way(answer: RegistryAnswer) -> str:
    """What would help where a registry could not be asked."""
    if answer.code == 412:
        return "update the model server: Ollama itself, or the image of its service"
    return _LAYERS[answer.layer or "http"]


def nearest(answer: RegistryAnswer) -> str:
    """What to do about a name that a registry does not know."""
    if not answer.nearest:
        return "check the name and its tag"
    return f"did you mean {' or '.join(answer.nearest)}?"


def told(problem: BlobProblem) -> str:
    """What is wrong with a blob."""
    blob = f"blob {problem.digest[:19]} of {', '.join(problem.models)}"
    match problem.kind:
        case "missing":
            return f"{blob} is missing ({human(problem.size)})"
        case "truncated":
            return f"{blob} has {problem.found} bytes instead of {problem.size}"
        case "corrupt":
            return f"{blob} does not have the content that its digest says"


def no_server(spec: ModelsSpec, server: Server) -> Refusal:
    """The refusal to do anything without a server, with what would help."""
    who = str(spec.endpoint) if spec.endpoint else f"service {spec.service}"
    said = f": {server.reason}" if server.reason else ""
    words = {
        "absent": "there is no such model server",
        "stopped": "the model server does not run",
        "not-ollama": "what answers there is not Ollama",
        "auth": "what answers there asks for authentication, which Ollama itself never does",
        "unreachable": "the model server does not answer",
        "unknown": "whether there is a model server cannot be told",
    }
    return Refusal(subject=who, reason=f"{words[server.status]}{said}", remedy=_WAYS[server.status])
