"""What the move of a legacy worker is: what is added, imported and re-pointed, or why not. Pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from stackmend import addresses
from stackmend.addresses import Sources
from stackmend.addresses.state import Address, Edit, ImageFacts, Judgement
from stackmend.decision import Refusal
from stackmend.frozen import Frozen
from stackmend.models.spec import DEFAULT_PORT, Name
from stackmend.worker.move.plan.evidence import find_port
from stackmend.worker.move.spec import MovePolicy
from stackmend.worker.move.state import HostMove, Legacy, Model, Move, ProjectView, Runner

_HEALTHCHECK = {
    "test": ["CMD-SHELL", "OLLAMA_HOST=127.0.0.1:11434 ollama list"],
    "interval": "10s",
    "timeout": "5s",
    "retries": 5,
    "start_period": "60s",
    "start_interval": "1s",
}
_GPU = {
    "resources": {
        "reservations": {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}
    }
}
#: Where Ollama keeps its models.
_HOME = "/root/.ollama"

_MODEL_VARIABLE = re.compile(r"(?i)(?:^|_)model(?:s|_?name|_?id)?$")
_PATH = re.compile(r"/?(?:v1(?:/.*)?)?")

#: What ends the name of a part of a model.
_SPLIT = re.compile(r"(?i)-[0-9]{5}-of-[0-9]{5}\.gguf$")

#: What ends the name of a model's file.
_ENDING = re.compile(r"(?i)\.gguf$")


class Designed(Frozen):
    """What a move is, or why there is none.

    :param move: the move; ``None`` where it is refused.
    """

    move: Move | None = None
    refusals: tuple[Refusal, ...] = ()


def make_key(spec: MovePolicy, runners: Iterable[Runner]) -> str:
    """What the decision about a move rests on: the settings, and the images of legacy workers.

    :param runners: their containers.
    """
    images = sorted({f"{runner.service} {runner.image_id}" for runner in runners})
    raw = spec.model_dump(mode="json", exclude={"keep_legacy", "allow"})
    text = json.dumps([raw, images], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def assemble_move(
    spec: MovePolicy, host: HostMove, legacy: Legacy, project: ProjectView
) -> Designed:
    """The move of a legacy worker, or the refusals of it.

    :param host: what the host has.
    :param project: the project as it is without the move.
    """
    return _Assembler(spec, host, legacy, project).assemble()


class _Assembler:
    def __init__(
        self, spec: MovePolicy, host: HostMove, legacy: Legacy, project: ProjectView
    ) -> None:
        self._spec, self._host, self._legacy, self._project = spec, host, legacy, project
        self._services: Mapping[str, Mapping[str, Any]] = project.config.get("services") or {}
        self._refusals: list[Refusal] = []

    def assemble(self) -> Designed:
        legacy, spec = self._legacy, self._spec
        body = self._services.get(legacy.service)
        if body is None:
            self._refuse("it is no service of the project's files", "name another service")
            return Designed(refusals=tuple(self._refusals))
        if body.get("network_mode"):
            self._refuse(
                "it has no network of the project's own, where another service could replace it",
                f"put {legacy.service} on a network of the project",
            )
        if legacy.runner.published and "published" not in spec.allow:
            ports = ", ".join(legacy.runner.published)
            self._refuse(
                f"it is published on the host at {ports}, where callers outside of the project may "
                "use it, and they would lose it",
                'have them call the new service, then add to the section "engine": '
                '"allow": ["published"]',
            )
        if legacy.runner.accelerated and spec.service is None:
            self._refuse(
                "an accelerator is reserved for it, so that it may well be fast",
                f'to move it all the same, add to the section "engine": '
                f'"service": "{legacy.service}"',
            )
        if legacy.service in self._project.checked:
            self._refuse(
                "a check of the stack asks it, and would fail once it is stopped",
                f'take {legacy.service} out of "checks"',
            )
        calls = self._find_calls()
        repointed = self._replace_addresses(calls) if calls else {}
        models = self._find_models(sorted({call.place.service for call in calls}))
        for model in models:
            if _SPLIT.search(model.path):
                self._refuse(
                    f"{model.path} is one of several files that make up a model",
                    "merge them with llama-gguf-split, and name the file in models",
                )
        added, volume = self._add(body)
        self._check_space(models)
        port = (legacy.answer.port if legacy.answer else 0) or find_port(
            legacy.runner, legacy.engine
        )
        if self._refusals:
            return Designed(refusals=tuple(self._refusals))
        return Designed(
            move=Move(
                legacy=legacy.service,
                port=port,
                target=spec.target,
                added=added,
                volume=volume,
                clients=tuple(sorted({call.place.service for call in calls})),
                models=models,
                repointed=repointed,
                engine=legacy.engine,
                evidence=legacy.evidence,
            )
        )

    def _refuse(self, reason: str, remedy: str) -> None:
        self._refusals.append(
            Refusal(subject=self._legacy.service, reason=f"not moved: {reason}", remedy=remedy)
        )

    # Who calls it

    def _find_calls(self) -> list[Address]:
        """The addresses by which services of the project call it."""
        spec, legacy, images = self._spec, self._legacy, self._list_images()
        sources = self._read_sources()
        found = [
            address
            for address in addresses.locate(addresses.read(self._project.config, images), sources)
            if addresses.is_call(address) and address.target == legacy.service
        ]
        callers = {address.place.service for address in found}
        if spec.client and (others := sorted(callers - {*spec.client})):
            self._refuse(
                f"{', '.join(others)} calls it as well, and would lose it",
                'name all of its clients in the section "engine": "client": [...]',
            )
        silent = sorted({*spec.client} - callers)
        if silent or not found:
            who = f"{', '.join(silent)} has" if silent else "no service has"
            self._refuse(
                f"{who} its address in an environment or a command, where it could be replaced",
                f"give its clients the address in a variable, as OPENAI_BASE_URL: "
                f"http://{legacy.service}:PORT/v1",
            )
        for address in found:
            if address.scheme not in ("", "http") or not _PATH.fullmatch(address.path):
                self._refuse(
                    f"{address.place.service}.{address.place.name} calls {address.url}, which is "
                    "none of OpenAI's API that Ollama has at /v1",
                    "have the client speak OpenAI's API",
                )
        return found

    def _replace_addresses(self, calls: Sequence[Address]) -> dict[str, dict[str, Any]]:
        """The sections of services that have them call the new one."""
        judgements = [
            Judgement(
                address=call,
                status="wrong",
                right=f"{self._spec.target}:{DEFAULT_PORT}",
                edits=tuple(self._list_edits(call)),
                cause=f"{call.target} is moved to {self._spec.target}",
            )
            for call in calls
        ]
        override = addresses.make_override(
            judgements, self._project.config, self._read_sources(), self._list_images()
        )
        for left in override.left:
            self._refuse(f"the address in {left.subject} stays: {left.reason}", left.remedy)
        content = yaml.safe_load(override.content or b"{}") or {}
        services: dict[str, dict[str, Any]] = content.get("services") or {}
        return services

    def _list_edits(self, call: Address) -> Iterator[Edit]:
        """What is replaced in a value: the host with its port, wherever each stands."""
        target = self._spec.target
        if call.port_place is not None and not call.explicit:
            yield Edit(place=call.place, old=call.text, new=target)
            old = str(call.port)
            yield Edit(place=call.port_place, old=old, new=str(DEFAULT_PORT))
        else:
            yield Edit(place=call.place, old=call.text, new=f"{target}:{DEFAULT_PORT}")

    def _list_images(self) -> dict[str, ImageFacts]:
        return {name: ImageFacts(env=env) for name, env in self._project.image_env.items()}

    def _read_sources(self) -> Sources:
        return Sources(self._project.files, self._project.laid_over)

    # What it serves

    def _find_models(self, clients: Sequence[str]) -> tuple[Model, ...]:
        """The models by the names that clients ask for."""
        spec, legacy = self._spec, self._legacy
        if spec.models:
            return tuple(Model(name=name, path=path) for name, path in sorted(spec.models.items()))
        files = [file.path for file in legacy.runner.files]
        offered = legacy.answer.names if legacy.answer else ()
        asked = {name: client for client in clients for name in self._list_asked(client)}
        remedy = 'add to the section "engine": "models": {"NAME": "/PATH/OF/ITS.gguf"}'
        if not files:
            self._refuse("no process of it names a GGUF file", remedy)
            return ()
        found: dict[str, str] = {}
        for name in (*asked, *offered):
            path = _choose_file(name, files)
            if not path:
                self._refuse(f"which file its model {name[:80]} is made of is not known", remedy)
            elif _is_model_name(name):
                found.setdefault(name, path)
            elif name in asked:
                self._refuse(
                    f"{asked[name]} asks for a model by {name[:80]}, which is no name for Ollama",
                    f"have {asked[name]} ask by another name, and {remedy}",
                )
        if not found and not self._refusals:
            self._refuse("by which names its clients ask for models is not known", remedy)
        return tuple(Model(name=name, path=path) for name, path in sorted(found.items()))

    def _list_asked(self, client: str) -> list[str]:
        """The names of models in a client's environment."""
        body = self._services.get(client) or {}
        image = str(body.get("image") or f"{self._project.config.get('name', '')}-{client}")
        env = {**self._project.image_env.get(image, {}), **(body.get("environment") or {})}
        return [
            str(value)
            for key, value in sorted(env.items())
            if _MODEL_VARIABLE.search(key) and value and "embed" not in key.lower()
        ]

    # What is added

    def _add(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The section of the new service, and the key of its volume; nothing where it is there."""
        spec = self._spec
        if spec.target in self._services:
            return {}, ""
        taken = self._project.config.get("volumes") or {}
        volume = next(
            key
            for key in ("stackmend-ollama", *(f"stackmend-ollama-{n}" for n in range(1, 99)))
            if key not in taken
        )
        added: dict[str, Any] = {
            "restart": "unless-stopped",
            **spec.settings,
            "image": spec.image,
            "volumes": [f"{volume}:{_HOME}"],
            "healthcheck": dict(_HEALTHCHECK),
        }
        networks = sorted(body.get("networks") or {})
        if networks and networks != ["default"]:
            added["networks"] = networks
        if self._host.gpu and "deploy" not in spec.settings:
            added["deploy"] = _GPU
        return added, volume

    def _check_space(self, models: Sequence[Model]) -> None:
        sizes = {file.path: file.size for file in self._legacy.runner.files}
        needed = sum(sizes.get(path, 0) for path in {model.path for model in models})
        free = self._host.free
        # What is created from a file is beside it until that is done.
        if free is not None and needed * 1.1 > free:
            self._refuse(
                f"its models have {needed} bytes, and {free} are free where Docker keeps volumes",
                "free that space, then run again",
            )


def _choose_file(name: str, files: Sequence[str]) -> str:
    """The file that a model's name stands for; empty where several may be it."""
    listed = sorted(set(files))
    if len(listed) == 1:
        return listed[0]
    stem = _ENDING.sub("", name.rpartition("/")[2])
    found = [
        path for path in listed if name == path or stem == _ENDING.sub("", path.rpartition("/")[2])
    ]
    return found[0] if len(found) == 1 else ""


def _is_model_name(name: str) -> bool:
    try:
        Name.parse(name)
    except ValueError:
        return False
    return True
