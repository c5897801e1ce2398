"""Engines that serve models, as they are where nobody changes them. Pure."""

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
