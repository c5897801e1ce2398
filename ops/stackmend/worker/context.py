"""The memory that a model's context takes, by what its server says of it. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from stackmend.frozen import Frozen

#: More than any model has of anything, tokens of its context included.
_MOST = 100_000_000

#: Bytes of one number of a context, by what it is kept as.
_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 1.0625, "q4_0": 0.5625}


class Shape(Frozen):
    """What the memory of a model's context follows from.

    :param layers: that keep keys and values.
    :param heads: of each layer that do.
    :param key: numbers that one of them keeps for a token as its key.
    :param value: likewise, as its value.
    :param trained: tokens that the model was trained for; 0 where it does not say.
    """

    layers: int
    heads: int
    key: int
    value: int
    trained: int = 0

    def count_bytes(self, tokens: int, parallel: int, bytes_each: float = 2.0) -> int:
        """Bytes that a context takes.

        :param tokens: of one request.
        :param parallel: requests at one time, each of which has a context of its own.
        :param bytes_each: of one number: 2 for f16, about 1 for q8_0.
        """
        numbers = self.layers * self.heads * (self.key + self.value)
        return round(numbers * bytes_each * tokens * max(1, parallel))


class Context(Frozen):
    """The context that a server makes for a model.

    :param tokens: of one request.
    :param parallel: requests at one time.
    :param bytes_each: of one number.
    """

    tokens: int
    parallel: int
    bytes_each: float = 2.0

    def count_bytes(self, shape: Shape) -> int:
        """Bytes that it takes of a model of some shape; no more tokens than it was trained for."""
        tokens = min(self.tokens, shape.trained or self.tokens)
        return shape.count_bytes(tokens, self.parallel, self.bytes_each)


def find_context(find_setting: Callable[[str], str | None]) -> Context:
    """The context by the environment of an Ollama server, its defaults included.

    :param find_setting: gives the value of a variable; empty where it is not set.

    Example:
        >>> find_context({"OLLAMA_NUM_PARALLEL": "4"}.get)
        Context(tokens=4096, parallel=4, bytes_each=2.0)
    """

    def find(name: str, default: int) -> int:
        text = (find_setting(name) or "")[:9]
        return int(text) if text.isdecimal() and int(text) else default

    return Context(
        tokens=find("OLLAMA_CONTEXT_LENGTH", 4096),
        parallel=find("OLLAMA_NUM_PARALLEL", 1),
        bytes_each=_BYTES.get(find_setting("OLLAMA_KV_CACHE_TYPE") or "", 2.0),
    )


def parse_shape(body: Any) -> Shape | None:
    """The shape of a model as ``/api/show`` describes it; ``None`` where that does not say.

    :param body: the answer.
    """
    information = body.get("model_info") if isinstance(body, Mapping) else None
    if not isinstance(information, Mapping):
        return None
    family = information.get("general.architecture")

    def find(name: str) -> int:
        value = information.get(f"{family}.{name}")
        if not isinstance(value, int) or isinstance(value, bool):
            return 0
        return value if 0 < value <= _MOST else 0

    heads = find("attention.head_count")
    each = find("embedding_length") // heads if heads else 0
    shape = Shape(
        layers=find("block_count"),
        # Models of before have one for each.
        heads=find("attention.head_count_kv") or heads,
        key=find("attention.key_length") or each,
        value=find("attention.value_length") or each,
        trained=find("context_length"),
    )
    return shape if shape.layers and shape.heads and shape.key and shape.value else None
