"""Suggestions for a name that does not exist: names that do, and are like it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import SequenceMatcher
from typing import Any

from stackmend.models.spec import DEFAULT_REGISTRY, Name

#: How many names are suggested.
MAXIMUM = 3

#: How many names of a registry are compared, and how long one may be.
MOST = 5000
LONGEST = 512

#: How like a name must be but for its tag, from 0 to 1.
SIMILARITY = 0.7

# Ollama's library cannot be listed; what people ask for by a wrong name is mostly one of these.
LIBRARY = tuple(
    "all-minilm bge-m3 codellama codestral cogito command-r command-r-plus deepseek-coder "
    "deepseek-coder-v2 deepseek-r1 deepseek-v3 devstral dolphin3 falcon3 gemma gemma2 gemma3 "
    "gemma3n gpt-oss granite3.3 granite4 llama2 llama3 llama3.1 llama3.2 llama3.2-vision llama3.3 "
    "llama4 llava magistral minicpm-v mistral mistral-nemo mistral-small mixtral moondream "
    "mxbai-embed-large nomic-embed-text nous-hermes2 olmo2 openthinker orca-mini phi phi3 phi3.5 "
    "phi4 phi4-mini qwen qwen2 qwen2.5 qwen2.5-coder qwen2.5vl qwen3 qwen3-coder qwen3-embedding "
    "qwq smollm smollm2 snowflake-arctic-embed starcoder2 tinyllama vicuna wizardlm2 yi "
    "zephyr".split()
)


def list_similar(name: Name, ask: Callable[[str], Any]) -> list[str]:
    """Names like one that its registry lists, each with a tag that it has.

    :param name: the name that does not exist.
    :param ask: gives the JSON that the registry has at a path; ``None`` where there is none.
    """
    if name.host.lower() == DEFAULT_REGISTRY:
        return list(LIBRARY)
    repositories = _list_texts(ask("/v2/_catalog"), "repositories")
    similar = suggest(name, (f"{name.host}/{repository}" for repository in repositories))
    names = []
    for repository in dict.fromkeys(
        (name.repository, *(Name.parse(text).repository for text in similar))
    ):
        for tag in _list_texts(ask(f"/v2/{repository}/tags/list"), "tags"):
            # A name that Ollama cannot pull is no help.
            with suppress(ValueError):
                names.append(str(Name.parse(f"{name.host}/{repository}:{tag}")))
    return names


def suggest(name: Name, known: Iterable[str]) -> tuple[str, ...]:
    """The names that are most like one, the likest first; only those that are like it at all.

    :param known: names that exist.

    >>> suggest(Name.parse("lama3.2"), ["mistral", "llama3.2"])
    ('llama3.2',)
    """
    scores: dict[str, tuple[float, float]] = {}
    for text in known:
        with suppress(ValueError):
            scores[text] = _compare(name, Name.parse(text))
    scores.pop(str(name), None)
    similar = [text for text, (score, _) in scores.items() if score >= SIMILARITY]
    return tuple(
        sorted(similar, key=lambda text: (*(-score for score in scores[text]), text))[:MAXIMUM]
    )


def _compare(name: Name, other: Name) -> tuple[float, float]:
    """How like two names are but for their tags, and how like the tags, each from 0 to 1."""
    ours = [name.host, name.namespace, name.model]
    theirs = [other.host, other.namespace, other.model]
    # What they have in common says nothing, and long addresses are alike by their length alone.
    while len(ours) > 1 and ours[0].lower() == theirs[0].lower():
        ours, theirs = ours[1:], theirs[1:]
    return _rank("/".join(ours), "/".join(theirs)), _rank(name.tag, other.tag)


def _rank(text: str, other: str) -> float:
    return SequenceMatcher(None, text.lower(), other.lower()).ratio()


def _list_texts(answer: Any, key: str) -> list[str]:
    rows = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        return []
    return [row for row in rows[:MOST] if isinstance(row, str) and len(row) <= LONGEST]
