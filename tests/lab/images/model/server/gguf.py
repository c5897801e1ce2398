"""What a GGUF file says of itself: its metadata and its tensors, without the weights."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_STRING, _ARRAY = 8, 9
_FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 15: "Q4_K_M", 32: "BF16"}


class NotGGUF(ValueError):
    """The file is no GGUF."""


@dataclass(frozen=True)
class Header:
    """+ metadata: key to value; arrays as lists
    + parameters: number of weights
    """

    metadata: dict[str, Any]
    parameters: int

    @property
    def family(self) -> str:
        """The architecture, such as `llama`."""
        return str(self.metadata["general.architecture"])

    @property
    def quantization(self) -> str:
        """The weights' type in Ollama's words; it calls plain floats of 32 bits unknown."""
        number = self.metadata.get("general.file_type", -1)
        return "unknown" if number == 0 else _FILE_TYPES.get(number, "unknown")

    @property
    def parameter_size(self) -> str:
        """The number of weights as Ollama shows it, such as `115K` or `1.2B`."""
        for unit, size in (("B", 1e9), ("M", 1e6)):
            if self.parameters >= size:
                return f"{self.parameters / size:.1f}{unit}".replace(".0", "", 1)
        return f"{self.parameters // 1000}K" if self.parameters >= 1000 else str(self.parameters)

    def shown(self) -> dict[str, Any]:
        """The metadata as `/api/show` gives them: arrays are left out unless asked for."""
        shown = {
            key: None if isinstance(value, list) else value for key, value in self.metadata.items()
        }
        del shown["general.name"]
        shown.pop("tokenizer.chat_template", None)
        return {**shown, "general.parameter_count": self.parameters}


def read(path: Path) -> Header:
    """Read a file's header. Raises `NotGGUF` where it has none."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise NotGGUF(f"{path} is no GGUF")
        _version, tensors, pairs = _take(file, "IQQ")
        metadata = {_string(file): _value(file, _take(file, "I")[0]) for _ in range(pairs)}
        parameters = 0
        for _ in range(tensors):
            _string(file)
            (dimensions,) = _take(file, "I")
            parameters += math.prod(_take(file, f"{dimensions}Q"))
            _take(file, "IQ")
    return Header(metadata, parameters)


def _take(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = "<" + layout
    data = file.read(struct.calcsize(layout))
    try:
        return struct.unpack(layout, data)
    except struct.error:
        raise NotGGUF("the header ends early") from None


def _string(file: BinaryIO) -> str:
    (length,) = _take(file, "Q")
    return file.read(length).decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        of, length = _take(file, "IQ")
        return [_value(file, of) for _ in range(length)]
    if kind not in _SCALARS:
        raise NotGGUF(f"unknown kind {kind} of value")
    return _take(file, _SCALARS[kind])[0]
