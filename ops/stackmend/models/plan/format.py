"""Models, blobs and what went wrong, as text for people."""

from collections.abc import Mapping

from pydantic import ByteSize

from stackmend.decision import Refusal
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import BlobProblem, RegistryAnswer, Server, ServerStatus, StoreState

#: Why a server cannot be asked, and what to do about it.
_SERVERS: Mapping[ServerStatus, tuple[str, str]] = {
    "absent": (
        "there is no such model server",
        'deploy the stack that it belongs to, or name the server: "service" or "endpoint"',
    ),
    "stopped": (
        "the model server does not run",
        "start it; the log of its container says why it stopped",
    ),
    "not-ollama": (
        "what answers there is not Ollama",
        'point "endpoint" or "service" at an Ollama server',
    ),
    "auth": (
        "what answers there asks for authentication, which Ollama itself never does",
        "point the endpoint at the server itself, behind what asks for a login",
    ),
    "unreachable": ("the model server does not answer", "see the log of the server"),
    "unknown": (
        "cannot tell whether there is a model server",
        "fix the error above and rerun; stackmend never changes a server it cannot read",
    ),
}

#: What failed on the way to a registry, and what to do about it.
_LAYERS: Mapping[str, tuple[str, str]] = {
    "name": ("its name is not found", "check the registry's name and the host's resolver"),
    "connect": (
        "no connection",
        "check the network between the host and the registry, and that it listens there",
    ),
    "tls": (
        "TLS",
        'check the certificate and the host\'s clock; for plain HTTP add "insecure": true',
    ),
    "http": ("HTTP", "check what the registry says, and that it is healthy"),
}


def format_size(count: int) -> str:
    """Bytes as people write them."""
    return ByteSize(count).human_readable()


def format_unreachable(name: Name, answer: RegistryAnswer) -> str:
    """Why the registry of a model could not be asked, and what part of the way to it failed."""
    return f"cannot ask {name.host} ({_LAYERS[answer.layer or 'http'][0]}): {answer.reason}"


def is_private(answer: RegistryAnswer | None) -> bool:
    """Whether a registry asks for authentication."""
    return answer is not None and answer.code in (401, 403)


def format_remedy(answer: RegistryAnswer) -> str:
    """What to do where a registry could not be asked."""
    if answer.code == 412:
        return "update the model server: Ollama itself, or the image of its service"
    if answer.code == 404:
        return "check the registry's address: something else answers there"
    return _LAYERS[answer.layer or "http"][1]


def format_suggestions(answer: RegistryAnswer) -> str:
    """What to do about a name that a registry does not know."""
    if not answer.suggestions:
        return "check the name and its tag"
    return f"did you mean {' or '.join(answer.suggestions)}?"


def format_problem(problem: BlobProblem) -> str:
    """What is wrong with a blob."""
    blob = f"blob {problem.digest[:19]} of {', '.join(problem.models)}"
    match problem.kind:
        case "missing":
            return f"{blob} is missing ({format_size(problem.size)})"
        case "truncated":
            return f"{blob} has {problem.found} bytes instead of {problem.size}"
        case "corrupt":
            return f"{blob} does not have the content that its digest says"


def refuse_unhashed(state: StoreState) -> Refusal:
    """The refusal to call blobs intact whose contents were to be read and could not be."""
    return Refusal(
        subject="blobs",
        reason='cannot verify their contents, which "hashes" asks for: '
        + (state.reason or "the host cannot read all of them, or has no sha256sum"),
        remedy='run as root on the host of the model server, or set "hashes": false in the '
        'stack\'s "models" section',
    )


def refuse_server(spec: ModelsSpec, server: Server) -> Refusal:
    """The refusal to do anything without a server, with its remedy."""
    reason, remedy = _SERVERS[server.status]
    return Refusal(
        subject=str(spec.endpoint) if spec.endpoint else f"service {spec.service}",
        reason=f"{reason}: {server.reason}" if server.reason else reason,
        remedy=remedy,
    )
