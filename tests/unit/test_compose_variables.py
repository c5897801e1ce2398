"""Required variables of a compose file: told before contact where nothing gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stackmend.compose.source import SourceError, load
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.variables import find_missing


def read(root: Path, body: dict[str, Any], dotenv: str = "", **more: Any) -> None:
    (root / "compose.yaml").write_text(yaml.safe_dump(body))
    if dotenv:
        (root / ".env").write_text(dotenv)
    load(
        ComposeSpec.model_validate(
            {"project": "shop", "source": root, "directory": "/opt/shop", **more}
        )
    )


def web(value: str, **more: Any) -> dict[str, Any]:
    return {"services": {"web": {"image": "lab/box:1", "environment": {"KEY": value}}}, **more}


REFUSED: dict[str, tuple[dict[str, Any], str, dict[str, Any], str]] = {
    "example": (
        web("${TOKEN:?give the token}"),
        "",
        {},
        "source: compose.yaml: services.web.environment.KEY: ${TOKEN} has no value: give the "
        "token; set it in env",
    ),
    "without a message": (
        web("${TOKEN?}"),
        "",
        {},
        "source: compose.yaml: services.web.environment.KEY: ${TOKEN} has no value; set it in env",
    ),
    "within a text": (web("redis://${LOGIN:?}@db/${DB:?}"), "LOGIN=me\n", {}, "${DB} has no value"),
    "in a list": (
        {"services": {"web": {"image": "lab/box:1", "ports": ["${PORT:?}:80"]}}},
        "",
        {"env": {"PORTS": "80"}},
        "services.web.ports.0: ${PORT} has no value",
    ),
    "empty in env": (web("${TOKEN:?}"), "", {"env": {"TOKEN": ""}}, "${TOKEN} has no value"),
    "empty in .env": (web("${TOKEN:?}"), "TOKEN=\n", {}, "${TOKEN} has no value"),
    "only in a comment": (web("${TOKEN:?}"), "# TOKEN=x\n", {}, "${TOKEN} has no value"),
    "in another section": (
        web("x", volumes={"data": {"name": "${VOLUME:?}"}}),
        "",
        {},
        "volumes.data.name: ${VOLUME} has no value",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_required_variable_that_nothing_gives_is_refused(tmp_path: Path, name: str) -> None:
    body, dotenv, more, message = REFUSED[name]
    with pytest.raises(SourceError) as raised:
        read(tmp_path, body, dotenv, **more)
    assert message in str(raised.value)
    assert str(raised.value).endswith("; set it in env")


ACCEPTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "in env": ("${TOKEN:?}", "", {"env": {"TOKEN": "x"}}),
    "in .env": ("${TOKEN:?}", "TOKEN=x\n", {}),
    "exported in .env": ("${TOKEN:?}", "export TOKEN='x'\n", {}),
    "in .env without a value, which the host may have": ("${TOKEN:?}", "TOKEN\n", {}),
    "with a default": ("${TOKEN:-x}${TOKEN-x}", "", {}),
    "empty where that is enough": ("${TOKEN?}", "TOKEN=\n", {}),
    "empty in env where that is enough": ("${TOKEN?}", "", {"env": {"TOKEN": ""}}),
    "escaped": ("$${TOKEN:?}", "", {}),
    "escaped twice, and there": ("$$${TOKEN:?}", "TOKEN=x\n", {}),
    "of the host's shell": ("${HOME:?}${COMPOSE_PROFILES:?}${USER?}", "", {}),
    "made of another one": ("${TOKEN:?}", "OTHER=x\nTOKEN=${OTHER}\n", {}),
    # Compose asks for it only where the first is not there.
    "within another one": ("${FIRST:-${TOKEN:?}}", "FIRST=x\n", {}),
    "not required": ("${TOKEN}$TOKEN", "", {}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_may_have_a_value_is_not_refused(tmp_path: Path, name: str) -> None:
    text, dotenv, more = ACCEPTED[name]
    read(tmp_path, web(text), dotenv, **more)


def test_three_dollars_are_one_and_a_variable() -> None:
    assert list(find_missing({"a": "$$${X:?}"}, {})) == ["a: ${X} has no value"]


def test_what_is_laid_over_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "compose.override.yaml").write_text(yaml.safe_dump(web("${TOKEN:?}")))
    with pytest.raises(SourceError, match=r"source: compose\.override\.yaml: services\.web"):
        read(tmp_path, web("x"))


def test_what_only_other_files_may_say_is_not_refused(tmp_path: Path) -> None:
    # Its .env names the compose files: which of them are read is Compose's to say.
    read(tmp_path, web("${TOKEN:?}"), "COMPOSE_FILE=compose.yaml\n")


def test_below_x_anything_may_stand() -> None:
    assert not list(find_missing({"x-later": {"a": "${X:?}"}}, {}))
