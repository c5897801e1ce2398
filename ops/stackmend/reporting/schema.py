"""The JSON Schema of a report, made from its models."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stackmend import diagnosis
from stackmend.reporting import state

#: Where it is kept: it travels with the package.
PATH = Path(__file__).with_name("schema-2.json")

_PARAMETER = re.compile(r"^:param (\w+): (.*?)(?=^:|\Z)", re.M | re.S)


def generate() -> dict[str, Any]:
    """The schema of version 2: each field is there, and is described as its model says."""
    return describe(state.RunRecord, {**vars(state), **vars(diagnosis)})


def describe(model: type[BaseModel], models: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a model that is written with all its fields.

    :param model: the model; its docstring, and those of the models in it, say what a field means.
    :param models: all of them by name.
    """
    schema = model.model_json_schema(mode="serialization")
    for name, part in {model.__name__: schema, **schema["$defs"]}.items():
        _describe(part, models[name])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _describe(part: dict[str, Any], model: type[BaseModel]) -> None:
    part["description"] = _flatten((inspect.getdoc(model) or "").partition("\n\n")[0])
    part["required"] = list(part["properties"])
    meanings = {
        field: meaning
        for base in reversed(model.__mro__)
        for field, meaning in _PARAMETER.findall(inspect.cleandoc(vars(base).get("__doc__") or ""))
    }
    for field, content in part["properties"].items():
        content.pop("title", None)
        content.pop("default", None)
        content["description"] = _flatten(meanings[field])


def _flatten(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
