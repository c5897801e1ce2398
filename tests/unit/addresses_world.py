"""Projects as ``docker compose config`` prints them, for what is thought of their addresses."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stackmend.addresses import classify, make_override, read
from stackmend.addresses.state import ImageFacts, Judgement, Running

#: Stacks of public shape in which every address is right, each in a directory of its own.
RIGHT = sorted((Path(__file__).parent / "right_stacks").iterdir())


def read_resolved(path: Path) -> Any:
    """What ``docker compose config --format json`` printed of a stack on a lab host."""
    return json.loads((path / "resolved.json").read_text(encoding="utf-8"))


def unescape(value: Any) -> Any:
    """A resolved value as the container has it."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, list):
        return [unescape(item) for item in value]
    if isinstance(value, dict):
        return {key: unescape(item) for key, item in value.items()}
    return value


def read_files(path: Path) -> dict[str, bytes]:
    """A stack's own files, by their path in it."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "resolved.json"
    }


def project(services: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A resolved project: every service is on ``default`` where nothing else is said."""
    bodies: dict[str, Any] = {}
    for name, body in services.items():
        made = copy.deepcopy(dict(body))
        if "network_mode" not in made:
            made.setdefault("networks", {"default": None})
        made["ports"] = [publish(port) for port in made.get("ports", ())]
        bodies[name] = made
    networks = {key for body in bodies.values() for key in body.get("networks") or ()}
    declared = {key: {"name": f"shop_{key}"} for key in sorted(networks)} | more.pop("networks", {})
    return {"name": "shop", "services": bodies, "networks": declared, **more}


def publish(port: Any) -> Any:
    """A port in Compose's long form."""
    if not isinstance(port, str):
        return port
    *host, published, target = port.split(":")
    made = {"mode": "ingress", "target": int(target), "published": published, "protocol": "tcp"}
    return made | ({"host_ip": ":".join(host)} if host else {})


def judge(
    config: Mapping[str, Any],
    running: Running | None = None,
    images: Mapping[str, ImageFacts] | None = None,
    mounted: Mapping[str, bytes] | None = None,
) -> tuple[Judgement, ...]:
    return classify(read(config, images, mounted), config, running, images)


def findings(*args: Any, **kwargs: Any) -> list[tuple[str, str, str, str]]:
    """What is not right: subject, status, reason, right value."""
    return [
        (one.subject, one.status, one.reason, one.right)
        for one in judge(*args, **kwargs)
        if one.status != "right"
    ]


def lay_over(config: Mapping[str, Any], content: bytes) -> dict[str, Any]:
    """A resolved project with an override laid over it, as Compose merges them."""
    merged = copy.deepcopy(dict(config))
    for name, over in (yaml.safe_load(content or b"{}") or {}).get("services", {}).items():
        body = merged["services"][name]
        for key, value in over.items():
            if key == "environment":
                body.setdefault(key, {})
                body[key] |= {k: str(v).replace("$$", "$") for k, v in value.items()}
            elif key == "extra_hosts":
                body[key] = [*body.get(key, []), *value]
            else:
                body[key] = [str(word).replace("$$", "$") for word in value]
    return merged


def write(config: Mapping[str, Any]) -> dict[str, bytes]:
    """A compose file that holds all that a resolved project has."""
    services = {
        name: {
            key: _escape(body[key])
            for key in ("environment", "command", "entrypoint")
            if key in body
        }
        for name, body in config["services"].items()
    }
    return {"compose.yaml": yaml.safe_dump({"services": services}, allow_unicode=True).encode()}


def _escape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    return (
        [_escape(item) for item in value]
        if isinstance(value, list)
        else (value.replace("$", "$$") if isinstance(value, str) else value)
    )


def mend(config: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
    """The project once its override is laid over it."""
    override = make_override(judge(config, **kwargs), config, write(config))
    return lay_over(config, override.content)
