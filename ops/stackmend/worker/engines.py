"""Engines that serve models, as they are where nobody changes them. Pure."""

import re
from collections.abc import Mapping

from stackmend.models.spec import DEFAULT_PORT

#: The port that each listens on; others listen on that of llama.cpp.
PORTS: Mapping[str, int] = {
    "ollama": DEFAULT_PORT,
    "llama.cpp": 8080,
    "llama-cpp-python": 8000,
    "vllm": 8000,
    "koboldcpp": 5001,
}

#: Images by parts of their name, without registry and tag, and the engine in each.
IMAGES = (
    (re.compile(r"llama-?cpp-?python"), "llama-cpp-python"),
    (re.compile(r"llama[._-]?cpp|llama-server"), "llama.cpp"),
    (re.compile(r"local-?ai"), "LocalAI"),
    (re.compile(r"koboldcpp"), "koboldcpp"),
    (re.compile(r"llamafile"), "llamafile"),
)
#: Commands likewise.
COMMANDS = (
    (re.compile(r"(?:^|[\s/])llama_cpp[./]server"), "llama-cpp-python"),
    (re.compile(r"(?:^|[\s/])(?:llama-server|llama-cpp-server)(?:\s|$)"), "llama.cpp"),
    (re.compile(r"(?:^|[\s/])local-ai(?:\s|$)"), "LocalAI"),
    (re.compile(r"(?:^|[\s/])koboldcpp"), "koboldcpp"),
    (re.compile(r"\.llamafile(?:\s|$)"), "llamafile"),
    (re.compile(r"(?:^|\s)(?:-m|--model)[\s=]\S+\.gguf(?:\s|$)", re.I), "llama.cpp"),
)

_OLLAMA = re.compile(r"(?:^|/)ollama(?::|@|$)|(?:^|[\s/])ollama\s+(?:serve|start)(?:\s|$)")

#: Images of servers, by the last part of their name, that are certainly no Ollama.
_OTHERS = re.compile(
    r"vllm(?:-openai)?|text-generation-inference|redis|valkey|postgres|mysql|mariadb|nginx|traefik"
)


def is_ollama(image: str, command: str) -> bool:
    """Whether an image or a command is Ollama's own.

    :param image: its name, with registry and tag.
    :param command: in one line.
    """
    return bool(_OLLAMA.search(image) or _OLLAMA.search(command))


def find_other(image: str, command: str) -> str:
    """The server that an image or a command names and that is no Ollama; empty where none is named.

    :param image: its name, with registry and tag; empty where it is built.
    :param command: in one line.
    """
    if is_ollama(image, command):
        return ""
    # Who made an image says nothing of what is in it.
    last = strip_tag(image).lower().rpartition("/")[2]
    for patterns, text in ((COMMANDS, command), (IMAGES, last)):
        for pattern, name in patterns:
            if pattern.search(text):
                return name
    return last if _OTHERS.fullmatch(last) else ""


def strip_tag(image: str) -> str:
    """The name of an image without its tag and its digest.

    :param image: as a service names it.
    """
    name = image.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
