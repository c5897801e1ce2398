"""The model server on a lab host, started and looked at by hand: docker, curl and files on disk.

>>> server = ModelServer(host)
>>> server.up()
>>> sorted(server.tags())
['slow:latest', 'tiny:latest']
>>> server.chat("tiny")
(200, {'model': 'tiny', …})
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.lab.hosts import LabHost
from tests.lab.model_registry import Pushed
from tests.lab.stacks import HEALTH

#: What a client may do to a server by which it would be changed.
CHANGING = ("/api/pull", "/api/copy", "/api/create", "/api/delete", "/api/blobs", "/api/push")


@dataclass(frozen=True)
class Layer:
    """A blob that a manifest names.

    + digest: its sha256 in hex, as the manifest has it
    + size: bytes, as the manifest has them
    + media: the last word of its media type, such as ``model``
    """

    digest: str
    size: int
    media: str


class ModelServer:
    """One Compose project with the model server in it, on the Compose network alone.

    + host: where
    + storage: what is mounted at its models, as a short volume of Compose has it; a named volume
        begins with the models of the image, a directory of the host with none
    + project: the Compose project's name
    + environment: of its container
    """

    service = "ollama"

    def __init__(
        self,
        host: LabHost,
        storage: str = "models:/root/.ollama",
        project: str = "ai",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.host, self.project = host, project
        self._compose: dict[str, Any] = {
            "services": {
                self.service: {
                    "image": "lab/model:1",
                    "restart": "unless-stopped",
                    "environment": dict(environment or {}),
                    "volumes": [storage],
                    # Once it is healthy, each further look would only cost a process.
                    "healthcheck": {
                        "test": ["CMD", "ollama", "list"],
                        **HEALTH,
                        "interval": "30s",
                    },
                }
            },
        }
        if not storage.startswith("/"):
            self._compose["volumes"] = {storage.partition(":")[0]: {}}

    # By hand

    def up(self) -> None:
        """Start it and wait until it is healthy."""
        self.host.put(f"{self.directory}/compose.yaml", yaml.safe_dump(self._compose))
        self.compose("up", "-d", "--wait", "--wait-timeout", "60")

    def compose(self, *words: str) -> str:
        """``docker compose WORDS...`` in its directory."""
        command = shlex.join(["docker", "compose", "-p", self.project, *words])
        return self.host.sh(f"cd {self.directory} && {command} 2>&1", timeout=120)

    @property
    def directory(self) -> str:
        """Where its compose file lies on the host."""
        return f"/opt/{self.project}"

    @property
    def container(self) -> str:
        """Its container's name."""
        return f"{self.project}-{self.service}-1"

    @property
    def address(self) -> str:
        """Where it answers, from its host: ``ADDRESS:11434``."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return f"{self.host.docker('inspect', '-f', networks, self.container)}:11434"

    def pull(self, *models: Pushed) -> None:
        """Have it pull models by itself, over plain HTTP."""
        for model in models:
            body = {"model": model.name, "insecure": True, "stream": False}
            status, said = self.ask("POST", "/api/pull", body)
            assert (status, said["status"]) == (200, "success"), said

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request, by curl on the host; the status (0 where nobody answers) and the JSON."""
        data = "" if body is None else f"-d {shlex.quote(json.dumps(body))}"
        said = self.host.sh(
            f"curl -s -m 60 -w '\\n%{{http_code}}' -X {method} {data} http://{self.address}{path}",
            check=False,
            timeout=90,
        )
        text, _, status = said.rpartition("\n")
        return int(status), json.loads(text) if text else None

    # What it says

    def tags(self) -> dict[str, dict[str, Any]]:
        """Name → what ``/api/tags`` says of it: digest, size, modified_at and the rest."""
        status, said = self.ask("GET", "/api/tags")
        assert status == 200, said
        return {model["name"]: model for model in said["models"]}

    def digests(self) -> dict[str, str]:
        """Name → digest, as ``/api/tags`` has them."""
        return {name: model["digest"] for name, model in self.tags().items()}

    def modified(self) -> dict[str, str]:
        """Name → when it was last written, as ``/api/tags`` has it."""
        return {name: model["modified_at"] for name, model in self.tags().items()}

    def loaded(self) -> set[str]:
        """The models in memory, as ``/api/ps`` has them."""
        return {model["name"] for model in self.ask("GET", "/api/ps")[1]["models"]}

    def unload(self, *names: str) -> None:
        """Have these models in memory no more."""
        for name in self.loaded() & set(names):
            self.ask("POST", "/api/generate", {"model": name, "keep_alive": 0})

    def chat(self, name: str) -> tuple[int, Any]:
        """Ask a model for three tokens through ``/api/chat``; the status and the JSON."""
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "hello"}],
            "options": {"num_predict": 3},
            "stream": False,
        }
        return self.ask("POST", "/api/chat", body)

    def answers(self, *names: str) -> bool:
        """Whether each of these models answers."""
        said = {name: self.chat(name) for name in names}
        assert all(status == 200 and one["done"] for status, one in said.values()), said
        return True

    def asked(self, since: str, *paths: str) -> list[str]:
        """Which requests of these paths its log has since a moment (see ``host.now()``)."""
        log = self.host.sh(f"docker logs --since {since} {self.container} 2>&1")
        wanted = "|".join(map(re.escape, paths or CHANGING))
        return [line for line in log.splitlines() if re.search(rf'"?({wanted})', line)]

    # What is on the disk

    @property
    def root(self) -> str:
        """Where its models lie on the host."""
        for mount in self.host.inspect(self.container)["Mounts"]:
            if mount["Destination"] == "/root/.ollama":
                return f"{mount['Source']}/models"
        raise AssertionError("nothing is mounted at /root/.ollama")

    def manifest_path(self, name: str) -> str:
        """The file of a model's manifest."""
        path, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            path, tag = name, "latest"
        parts = path.split("/")
        default = ["registry.ollama.ai", "library"]
        return "/".join([self.root, "manifests", *default[: 3 - len(parts)], *parts, tag])

    def layers(self, name: str) -> list[Layer]:
        """The config and the layers that a model's manifest names."""
        manifest = json.loads(self.host.read(self.manifest_path(name)))
        return [
            Layer(
                layer["digest"].removeprefix("sha256:"),
                layer["size"],
                re.split(r"[./]", layer["mediaType"].removesuffix(".v1+json"))[-1],
            )
            for layer in (manifest["config"], *manifest["layers"])
        ]

    def weights(self, name: str) -> Layer:
        """The layer that holds a model's weights."""
        return next(layer for layer in self.layers(name) if layer.media == "model")

    def blob(self, digest: str) -> str:
        """The file of a blob."""
        return f"{self.root}/blobs/sha256-{digest}"

    def lacks(self, *models: Pushed) -> int:
        """Bytes of these models that are not on the disk, each blob once."""
        there = set(self.host.sh(f"ls {self.root}/blobs", check=False).split())
        layers = {layer.digest: layer.size for model in models for layer in model.layers}
        return sum(size for digest, size in layers.items() if digest.replace(":", "-") not in there)

    def is_complete(self, *names: str) -> bool:
        """Whether every blob of these models is on the disk with the content of its name."""
        layers = {layer.digest: layer for name in names for layer in self.layers(name)}
        lines = "".join(f"{digest}  {self.blob(digest)}\n" for digest in layers)
        done = self.host.run("sha256sum --quiet -c -", stdin=lines.encode())
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return True

    def partials(self) -> list[str]:
        """Downloads that were begun and not ended."""
        listed = self.host.sh(f"cd {self.root}/blobs && ls", check=False)
        return [file for file in listed.split() if "partial" in file]

    def files(self) -> dict[str, str]:
        """Every file of the store → size and time of writing: equal = untouched."""
        listed = self.host.sh(f"cd {self.root} && find . -type f -printf '%p %s %T@\\n'")
        return {path: rest for path, _, rest in (row.partition(" ") for row in listed.splitlines())}

    def flip(self, digest: str, offset: int) -> None:
        """Turn one byte of a blob into another, and leave its size and times as they were."""
        file = self.blob(digest)
        was = self.host.run(f"dd if={file} bs=1 skip={offset} count=1 2>/dev/null").stdout
        new = base64.b64encode(bytes([was[0] ^ 0xFF])).decode()
        self.host.sh(
            f"touch -r {file} /tmp/was && echo {new} | base64 -d | "
            f"dd of={file} bs=1 seek={offset} conv=notrunc 2>/dev/null && touch -r /tmp/was {file}"
        )

    def remove(self, *names: str) -> None:
        """Remove models as ``ollama rm`` does: out of memory first, which would keep the space."""
        self.unload(*names)
        for name in names:
            status, said = self.ask("DELETE", "/api/delete", {"model": name})
            assert status in (200, 404), said
