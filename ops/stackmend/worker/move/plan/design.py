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
from stackmend.worker.move.state import (
    HostMove,
    Legacy,
    Model,
    ModelFile,
    Move,
    ProjectView,
    Runner,
)

_HEALTHCHECK = {
    "test": ["CMD-SHELL", "OLLAMA_HOST=127.0.0.1:11434 ollama list"],
    "interval": "2s",
    "timeout": "5s",
    "retries": 5,
    "start_period": "60s",
}
#: As those of the reference stack.
_LOGGING = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
_GPU = {
    "resources": {
        "reservations": {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}
    }
}
#: Where Ollama keeps its models.
_HOME = "/root/.ollama"

_MODEL_VARIABLE = re.compile(r"(?i)(?:^|_)model(?:s|_?name|_?id)?$")
_PATH = re.compile(r"/?(?:v1(?:/.*)?)?")

#: How a client's variable says that it speaks OpenAI's API.
_OPENAI = re.compile(r"(?i)openai")

#: How a legacy worker's command and environment say how many tokens the context of a model has.
_CONTEXT = re.compile(r"(?:^|\s)(?:-c|--ctx-size|--n_ctx)[\s=]([0-9]{1,9})(?:\s|$)")
_CONTEXT_VARIABLES = ("LLAMA_ARG_CTX_SIZE", "N_CTX")

#: What it may do beyond that, and Ollama would not do by the model's file alone.
_BEYOND = (
    (
        "a key that its clients send",
        r"--api[-_]key(?:-file)?",
        ("LLAMA_API_KEY", "LLAMA_ARG_API_KEY"),
    ),
    ("a projector of images", r"--mmproj(?:-url)?|--clip_model_path", ("LLAMA_ARG_MMPROJ",)),
    ("an adapter", r"--lora(?:-scaled|_path)?", ()),
    ("embeddings", r"--embeddings?", ("LLAMA_ARG_EMBEDDINGS",)),
)

#: Seconds that a container has to end, where nobody says.
_GRACE = 10.0

#: What a model needs beyond its weights, as a share of them.
_OVERHEAD = 0.2

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
    """What the decision about a move rests on: the settings, and what legacy workers are made of.

    :param runners: their containers.
    """
    images = sorted(
        {" ".join((runner.service, runner.image_id, *runner.settings)) for runner in runners}
    )
    raw = spec.model_dump(mode="json", exclude={"keep_legacy", "allow"})
    # What is known only once it was measured.
    raw["allow"] = [consent for consent in spec.allow if consent == "tasks"]
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
            self._refuse(
                "it is no service of the project's files",
                'name another one: add to the section "engine": "service": "NAME"',
            )
            return Designed(refusals=tuple(self._refusals))
        self._check_busy()
        if self._refusals:
            # It may not have been asked what else there is to know.
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
        self._check_options()
        self._check_target()
        published = {int(each.rpartition(":")[2] or 0) for each in legacy.runner.published}
        if asked := sorted(published & {*self._project.asked}):
            self._refuse(
                f"a check of the stack asks it at port {asked[0]} of the host, and would fail once "
                "it is stopped",
                f'take port {asked[0]} out of "checks"',
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
        copied = [model for model in models if not model.present]
        networks = self._find_networks(body, calls)
        base, volume = self._add(networks, self._find_memory_limit(body, copied))
        self._check_space(copied)
        self._check_memory(copied)
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
                added=make_added(base, spec),
                base=base,
                volume=volume,
                clients=tuple(sorted({call.place.service for call in calls})),
                models=models,
                repointed=repointed,
                engine=legacy.engine,
                evidence=legacy.evidence,
                grace={
                    call.place.service: _parse_grace(
                        (self._services.get(call.place.service) or {}).get("stop_grace_period")
                    )
                    for call in calls
                },
            )
        )

    def _refuse(self, reason: str, remedy: str) -> None:
        self._refusals.append(
            Refusal(subject=self._legacy.service, reason=f"not moved: {reason}", remedy=remedy)
        )

    def _refuse_unless(self, consent: str, reason: str, remedy: str = "") -> None:
        """Refuse what the user may allow."""
        if consent not in self._spec.allow:
            allow = f'add to the section "engine": "allow": ["{consent}"]'
            self._refuse(reason, f"{remedy}; or {allow}" if remedy else allow)

    def _check_busy(self) -> None:
        """Whom measuring both, and recreating clients, would disturb."""
        for service, reason in sorted(self._project.busy.items()):
            who = "" if service == self._legacy.service else f"{service}: "
            self._refuse_unless(
                "busy",
                f"{who}{reason}; a move, which measures both, would slow that",
                "wait until that is over, then run again",
            )

    def _check_options(self) -> None:
        """What it does that the file of a model says nothing of."""
        runner = self._legacy.runner
        command = " ".join(runner.command)
        for what, option, variables in _BEYOND:
            match = re.search(rf"(?:^|\s)({option})(?:[\s=]|$)", command)
            named = match[1] if match else next((key for key in variables if key in runner.env), "")
            if named:
                self._refuse_unless(
                    "options",
                    f"it is started with {named}: {what}, which the new one would not have",
                )

    def _check_target(self) -> None:
        """The new one is another service than those of the move; one that is there is an Ollama."""
        target = self._spec.target
        if target == self._legacy.service:
            self._refuse(
                f"the service to move it to has its own name, {target}",
                'name another one: add to the section "engine": "target": "NAME"',
            )
        elif target in self._services and self._project.served is None:
            self._refuse(
                f"the project has a service {target} already, and no Ollama answers there",
                'name another one: add to the section "engine": "target": "NAME"',
            )

    # Who calls it

    def _find_calls(self) -> list[Address]:
        """The addresses by which services of the project call it."""
        spec, legacy, images = self._spec, self._legacy, self._list_images()
        sources = self._read_sources()
        directory = self._project.directory
        placed = {f"{directory}/{path}": content for path, content in sources.files.items()}
        read = addresses.locate(addresses.read(self._project.config, images, placed), sources)
        meant = [
            address
            for address in read
            if address.target == legacy.service and address.place.service != legacy.service
        ]
        for address in meant:
            if address.place.kind == "file":
                self._refuse(
                    f"{address.place.source}, a file of {address.place.service}, has its address",
                    f"give {address.place.service} the address in a variable",
                )
            elif not addresses.is_call(address):
                self._refuse(
                    f"{address.place.source} names it, where its address is not replaced",
                    f"take the address {address.url} out of {address.place.source}",
                )
        found = [
            address
            for address in meant
            if addresses.is_call(address) and address.place.kind != "file"
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
            elif "/v1" not in address.path and not _OPENAI.search(address.place.name):
                self._refuse_unless(
                    "api",
                    f"{address.place.service}.{address.place.name} does not say that its calls are "
                    "of OpenAI's API, and others have no answer from Ollama",
                    "end the address in /v1",
                )
        if spec.target in callers:
            self._refuse(
                f"{spec.target} calls it itself",
                'name another one: add to the section "engine": "target": "NAME"',
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
        return Sources(self._project.files, self._project.compose_files)

    # What it serves

    def _find_models(self, clients: Sequence[str]) -> tuple[Model, ...]:
        """The models by the names that clients ask for: those that are set, and those found."""
        legacy = self._legacy
        files, found = legacy.runner.files, dict(self._spec.models)
        named = {str(Name.parse(name)) for name in found}
        offered = legacy.answer.names if legacy.answer else ()
        asked = {name: client for client in clients for name in self._list_asked(client)}
        remedy = 'add to the section "engine": "models": {"NAME": "/PATH/OF/ITS.gguf"}'
        if not files and not found:
            self._refuse("no process of it names a GGUF file", remedy)
            return ()
        for name in dict.fromkeys((*asked, *offered)):
            valid = _is_model_name(name)
            if valid and str(Name.parse(name)) in named:
                continue
            path = _choose_file(name, files)
            if name in asked and not valid:
                self._refuse(
                    f"{asked[name]} asks for a model by {name[:80]}, which is no name for Ollama",
                    f"have {asked[name]} ask by another name, and {remedy}",
                )
            elif not path and name in asked:
                self._refuse(
                    f"{asked[name]} asks for the model {name[:80]}, which the new one would not "
                    "have: which file it is made of is not known",
                    remedy,
                )
            elif not path and (valid or not found):
                self._refuse(f"which file its model {name[:80]} is made of is not known", remedy)
            elif valid:
                found.setdefault(name, path)
        if not found and not self._refusals:
            self._refuse("by which names its clients ask for models is not known", remedy)
        return self._make_models(found, asked)

    def _make_models(self, files: Mapping[str, str], asked: Mapping[str, str]) -> tuple[Model, ...]:
        """Models by their names; what an Ollama of the project has is never replaced.

        :param asked: the names that clients ask for, each with the client.
        """
        served = {*(self._project.served or ())}
        context = self._find_context()
        made = []
        for name, path in sorted(files.items()):
            cause = f"{self._legacy.service} offers it"
            if name in self._spec.models:
                cause = "models names it"
            if name in asked:
                cause = f"{asked[name]} asks for it"
            present = str(Name.parse(name)) in served
            if present:
                self._refuse_unless(
                    "models",
                    f"{self._spec.target} has a model {name} already",
                    "to have clients use that one as it is, name its file in models",
                )
            made.append(Model(name=name, path=path, context=context, present=present, cause=cause))
        return tuple(made)

    def _find_context(self) -> int:
        """Tokens of a request's context, as the legacy worker has it; 0 is not known."""
        answer, runner = self._legacy.answer, self._legacy.runner
        if answer is not None and answer.context:
            return answer.context
        match = _CONTEXT.search(" ".join(runner.command))
        named = [match[1]] if match else [runner.env.get(key, "") for key in _CONTEXT_VARIABLES]
        return next((int(text) for text in named if re.fullmatch("[0-9]{1,9}", text)), 0)

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

    def _find_networks(self, body: Mapping[str, Any], calls: Sequence[Address]) -> list[str]:
        """The networks that it shares with its clients: not those that others are on as well."""
        declared: Mapping[str, Any] = self._project.config.get("networks") or {}
        own = {*(body.get("networks") or {"default": None})}
        foreign = sorted(name for name in own if (declared.get(name) or {}).get("external"))
        if foreign:
            self._refuse_unless(
                "network",
                f"it is on {', '.join(foreign)}, which the project does not make: callers outside "
                "of the project would lose it",
            )
        found: set[str] = set()
        for client in sorted({call.place.service for call in calls}):
            networks = {*((self._services.get(client) or {}).get("networks") or {"default": None})}
            shared = (own & networks) - {*foreign}
            if not shared:
                self._refuse(
                    f"it shares no network of the project's own with {client}",
                    f"put {client} and {self._legacy.service} on one",
                )
            found |= shared
        return sorted(found)

    def _add(self, networks: Sequence[str], memory: int) -> tuple[dict[str, Any], str]:
        """The new service without its settings, and the key of its volume; nothing if it is there.

        :param memory: bytes that it may take; 0 for no limit.
        """
        spec = self._spec
        if spec.target in self._services:
            return {}, ""
        # A volume of an earlier move may hold what somebody pulled since.
        project = str(self._project.config.get("name", ""))
        taken = {*(self._project.config.get("volumes") or {})}
        taken |= {volume.removeprefix(f"{project}_") for volume in self._host.volumes}
        volume = next(
            key
            for key in ("stackmend-ollama", *(f"stackmend-ollama-{n}" for n in range(1, 99)))
            if key not in taken
        )
        base: dict[str, Any] = {
            "restart": "unless-stopped",
            "logging": _LOGGING,
            "volumes": [f"{volume}:{_HOME}"],
            "healthcheck": dict(_HEALTHCHECK),
        }
        if networks and [*networks] != ["default"]:
            base["networks"] = [*networks]
        if memory:
            base["mem_limit"] = memory
        if self._host.gpu:
            base["deploy"] = _GPU
        return base, volume

    def _find_memory_limit(self, body: Mapping[str, Any], models: Sequence[Model]) -> int:
        """Bytes of memory that the legacy worker may take, where its models fit there; 0 is none.

        :param body: its section.
        """
        limits = ((body.get("deploy") or {}).get("resources") or {}).get("limits") or {}
        text = str(body.get("mem_limit") or limits.get("memory") or "")
        limit = int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
        sizes = self._list_sizes(models)
        if not sizes or not all(sizes.values()):
            return 0
        return limit if limit >= _count_needed(sizes) else 0

    def _check_space(self, models: Sequence[Model]) -> None:
        sizes = self._list_sizes(models)
        if absent := sorted({*sizes} & {*self._project.absent}):
            files = ", ".join(file.path for file in self._legacy.runner.files[:5])
            named = f"; its processes name {files}" if files else ""
            self._refuse(
                f"it has no file {absent[0]}{named}",
                'correct the path in the section "engine", in "models"',
            )
            return
        if unknown := sorted(path for path, size in sizes.items() if not size):
            self._refuse_unless(
                "space", f"how large {unknown[0]} is cannot be read, nor whether it fits the disk"
            )
        needed, free = sum(sizes.values()), self._host.free
        # What is created from a file is beside it until that is done.
        if free is not None and needed * 1.1 + self._project.minimum_free > free:
            self._refuse(
                f"its models have {needed} bytes, {free} are free where Docker keeps volumes, and "
                f"{self._project.minimum_free} stay free",
                "free that space, then run again; or set minimum_free",
            )

    def _check_memory(self, models: Sequence[Model]) -> None:
        """Both have a model in memory at one time, while they are measured."""
        needed = _count_needed(self._list_sizes(models))
        host = self._host
        if host.gpu and (host.gpu_free or 0) >= needed:
            return
        if host.available is not None and needed > host.available:
            self._refuse_unless(
                "memory",
                f"a second copy of its model needs about {needed} bytes of memory, and "
                f"{host.available} are free",
                "free that memory, then run again",
            )

    def _list_sizes(self, models: Sequence[Model]) -> dict[str, int]:
        """The bytes of files, each file once, by one of its paths; 0 where they are not known."""
        files = {file.path: file for file in self._legacy.runner.files}
        found: dict[str, tuple[str, int]] = {}
        for path in sorted({model.path for model in models}):
            file = files.get(path)
            found.setdefault(
                file.inode if file and file.inode else path, (path, file.size if file else 0)
            )
        return dict(found.values())


def make_added(base: Mapping[str, Any], spec: MovePolicy) -> dict[str, Any]:
    """The section of the service that is added, with the settings of now; empty for none.

    :param base: the section without them.
    :param spec: what is desired.
    """
    if not base:
        return {}
    # Compose takes a limit of memory in one of both places.
    both = "mem_limit" in base and "deploy" in spec.settings
    kept = {key: value for key, value in base.items() if not (both and key == "mem_limit")}
    return {**kept, **spec.settings, "image": spec.image}


def list_changes(move: Move, spec: MovePolicy) -> list[str]:
    """The settings of now that a move was not planned with, by their names.

    :param move: the move.
    :param spec: what is desired.
    """
    models = {model.name: model.path for model in move.models}
    changed = {
        "service": spec.service is not None and spec.service != move.legacy,
        "client": bool(spec.client) and {*spec.client} != {*move.clients},
        "models": any(models.get(name) != path for name, path in spec.models.items()),
        "target": spec.target != move.target,
    }
    return [name for name, differs in changed.items() if differs]


def _count_needed(sizes: Mapping[str, int]) -> int:
    """Bytes of memory that the largest of some files needs as a model."""
    return int(max(sizes.values(), default=0) * (1 + _OVERHEAD))


def _choose_file(name: str, files: Sequence[ModelFile]) -> str:
    """The file that a model's name stands for; empty where several may be it."""
    stem = _ENDING.sub("", name.rpartition("/")[2])
    named = [
        file
        for file in files
        if name == file.path or stem == _ENDING.sub("", file.path.rpartition("/")[2])
    ]
    # Several paths may lead to one file.
    for found in (named, files):
        if len({file.inode or file.path for file in found}) == 1:
            return min(file.path for file in found)
    return ""


def _parse_grace(raw: object) -> float:
    """Seconds that a service has to end, as Compose writes them: ``1m30s``."""
    parts = re.findall(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|h|m|s)", str(raw or ""))
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
    return sum(float(number) * units[unit] for number, unit in parts) if parts else _GRACE


def _is_model_name(name: str) -> bool:
    try:
        Name.parse(name)
    except ValueError:
        return False
    return True
