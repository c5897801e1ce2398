"""Configuration files as flat values: the path of keys to each text. Pure."""

import configparser
import json
import tomllib
from functools import lru_cache
from typing import Any

import yaml

from stackmend.dotenv import parse_dotenv

#: A larger file is data.
LARGEST = 1024**2
#: Values of one file.
MOST = 20_000
#: Nodes of one document of YAML, and how deep they lie; more than a compose file may have.
MOST_NODES, DEEPEST = 30_000, 64


class Loader(yaml.SafeLoader):
    """Gives up what is deeper or larger than what people write, before it takes its time."""

    depth = count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node.

        :raises yaml.YAMLError: there are too many, or they lie too deep.
        """
        self.depth += 1
        self.count += 1
        if self.depth > DEEPEST or self.count > MOST_NODES:
            raise yaml.YAMLError("too much")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


@lru_cache(64)
def flatten(path: str, content: bytes) -> dict[str, str]:
    """The values of a configuration file by the path of their keys; none of what is no such file.

    :param path: its name says what it is.
    :param content: what is in it.

    Example:
        >>> flatten("app.toml", b'[redis]\\nhost = "localhost"\\nport = 6379\\n')
        {'redis.host': 'localhost', 'redis.port': '6379'}
    """
    name = path.rpartition("/")[2].lower()
    ending = name.rpartition(".")[2]
    if len(content) > LARGEST:
        return {}
    text = content.decode("utf-8", "replace")
    found: dict[str, str] = {}
    budget = [MOST]
    try:
        if ending in ("yaml", "yml"):
            for document in yaml.load_all(text, Loader=Loader):
                _flatten(document, "", found, budget)
        elif ending == "json":
            _flatten(json.loads(text), "", found, budget)
        elif ending == "toml":
            _flatten(tomllib.loads(text), "", found, budget)
        elif ending in ("ini", "cfg"):
            parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            parser.read_string(text)
            for section in parser.sections():
                _flatten(dict(parser.items(section)), section, found, budget)
        elif ending == "env" or name.startswith(".env"):
            found = {key: value for key, value in parse_dotenv(text).items() if value is not None}
    except (ValueError, yaml.YAMLError, configparser.Error, RecursionError):
        # What its own program reads in another way is none of ours.
        return {}
    return found


def _flatten(value: Any, path: str, found: dict[str, str], budget: list[int]) -> None:
    """Add what lies below; an alias of YAML may stand for more than anybody can count."""
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError("too many values")
    if isinstance(value, dict):
        for key, below in value.items():
            _flatten(below, f"{path}.{key}" if path else str(key), found, budget)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            _flatten(below, f"{path}.{index}" if path else str(index), found, budget)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        found[path] = str(value)
