"""What is desired of a model server: validated before any host is contacted."""

import re
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    field_validator,
    model_validator,
)

from stackmend import paths
from stackmend.compose.spec import check_project_name
from stackmend.frozen import Frozen
from stackmend.problems import abbreviate
from stackmend.raw import LocalPath, Seconds

#: The parts that a name may leave out.
DEFAULT_REGISTRY, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

#: The port that Ollama listens on by default.
DEFAULT_PORT = 11434

#: The directory on the host of the records of what stackmend pulled, and of the lock.
ROOT = f"{paths.STATE_ROOT}/models"

# Ollama's own rules (types/model/name.go): a namespace holds no dot, and only a host a colon.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_PORT = re.compile(r"[0-9]{1,5}")
_SERVICE = re.compile(r"[a-zA-Z0-9._-]+")
_ENDPOINT = re.compile(
    r"(?:(?P<scheme>[a-z]+)://)?(?P<address>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


class Name(Frozen):
    """A model's full name, as Ollama reads it: ``[host/namespace/]model[:tag]``.

    :param host: the registry, with its port if it has one.
    :param namespace: whose model it is.
    :param model: the model.
    :param tag: its variant.

    Example:
        >>> str(Name.parse("llama3.2"))
        'llama3.2:latest'
        >>> Name.parse("registry.lan:5000/team/tiny:1b").registry
        ('registry.lan', 5000)
    """

    host: str = DEFAULT_REGISTRY
    namespace: str = DEFAULT_NAMESPACE
    model: str
    tag: str = DEFAULT_TAG

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name.

        :raises ValueError: naming the part that is wrong, and what would be right.
        """
        excerpt = abbreviate(text)
        if "://" in text:
            raise ValueError(
                f"{excerpt}: a model's name has no scheme; for plain HTTP add insecure=True"
            )
        if "@" in text:
            raise ValueError(f"{excerpt}: name a model by its tag, not by a digest")
        path, colon, tag = text.rpartition(":")
        if not colon or "/" in tag:
            path, tag = text, DEFAULT_TAG
        parts = path.split("/")
        if len(parts) > 3:
            raise ValueError(f"{excerpt} has too many parts: write [host/namespace/]model[:tag]")
        host, namespace, model = [*(DEFAULT_REGISTRY, DEFAULT_NAMESPACE)[: 3 - len(parts)], *parts]
        if len(parts) == 2 and ("." in namespace or ":" in namespace):
            raise ValueError(
                f"{excerpt}: a registry other than Ollama's needs all of host/namespace/model"
            )
        for kind, value, rule in (
            ("host", host, _HOST),
            ("namespace", namespace, _NAMESPACE),
            ("model", model, _PART),
            ("tag", tag, _PART),
        ):
            if not rule.fullmatch(value):
                raise ValueError(
                    f"{excerpt} is not a model's name: its {kind} {abbreviate(value)} must be "
                    f"letters, digits, {_ALLOWED[kind]}, and start with a letter, a digit or '_'"
                )
        name = cls(host=host, namespace=namespace, model=model, tag=tag)
        port = name.registry[1]
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"{excerpt}: the registry's port must be a number from 1 to 65535")
        return name

    def __str__(self) -> str:
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_REGISTRY:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{short}"

    @property
    def key(self) -> str:
        """The same for names that Ollama takes for the same: it ignores the case."""
        return self.path.lower()

    @property
    def path(self) -> str:
        """Where its manifest lies below ``manifests/``."""
        return f"{self.host}/{self.namespace}/{self.model}/{self.tag}"

    @property
    def registry(self) -> tuple[str, int | None]:
        """The registry's host and its port, ``None`` for the scheme's own."""
        address, colon, port = self.host.rpartition(":")
        if not colon:
            return self.host, None
        return address, int(port) if _PORT.fullmatch(port) else 0

    @property
    def repository(self) -> str:
        """What the registry calls it: ``namespace/model``."""
        return f"{self.namespace}/{self.model}"


_ALLOWED = {
    "host": "'_', '-', '.' and ':' (350 at most)",
    "namespace": "'_' and '-' (80 at most)",
    "model": "'_', '-' and '.' (80 at most)",
    "tag": "'_', '-' and '.' (80 at most)",
}


def _parse_name(raw: Any) -> Any:
    if isinstance(raw, Name | Mapping):
        return raw
    if not isinstance(raw, str):
        raise ValueError(f"must be a model's name such as 'llama3.2:1b'; got {abbreviate(raw)}")
    return Name.parse(raw)


ModelName = Annotated[Name, BeforeValidator(_parse_name)]


class ModelSpec(Frozen):
    """One model that is to be on the server.

    At most one of ``source``, ``gguf`` and ``modelfile`` is given; without any it is pulled by its
    own name.

    :param name: its name on the server.
    :param source: the name that it is pulled by, on a mirror for example.
    :param gguf: a GGUF file on the controller that it is created from.
    :param modelfile: a Modelfile on the controller that it is created from.
    :param insecure: whether to speak plain HTTP to its registry; ``None`` is as the policy says.
    """

    name: ModelName
    source: ModelName | None = None
    gguf: LocalPath | None = None
    modelfile: LocalPath | None = None
    insecure: bool | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _accept_text(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(raw, str | Name):
            return handler({"name": raw})
        if not isinstance(raw, Mapping | cls):
            raise ValueError(
                f"must be a model's name such as 'llama3.2:1b', or a mapping; got {abbreviate(raw)}"
            )
        return handler(raw)

    @model_validator(mode="after")
    def _check_origin(self) -> Self:
        fields = ("source", "gguf", "modelfile")
        origins = [field for field in fields if getattr(self, field) is not None]
        if len(origins) > 1:
            raise ValueError(f"give {' or '.join(origins)}, not both: a model has one origin")
        return self

    @property
    def pulled_as(self) -> Name | None:
        """The name that it is pulled by; ``None`` where it is created from a file."""
        return None if self.is_created else self.source or self.name

    @property
    def is_created(self) -> bool:
        """Whether it is created from a file of the controller."""
        return self.gguf is not None or self.modelfile is not None

    def __str__(self) -> str:
        return str(self.name)


def _check_service(value: str) -> str:
    if not _SERVICE.fullmatch(value):
        raise ValueError(
            f"must be the name of a Compose service, such as 'ollama'; got {abbreviate(value)}"
        )
    return value


class Endpoint(Frozen):
    """Where a model server answers, as the host sees it.

    :param address: a name or an address.
    :param port: its port.
    :param tls: whether it is https.
    """

    address: str
    port: int = DEFAULT_PORT
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an endpoint: ``[http[s]://]address[:port]``.

        A scheme brings its own port, as everywhere; the default without one is Ollama's.

        :raises ValueError: naming what is wrong.
        """
        found = _ENDPOINT.fullmatch(text.strip())
        if found is None or found["scheme"] not in (None, "http", "https"):
            raise ValueError(
                f"must be the address of a model server such as 'http://127.0.0.1:{DEFAULT_PORT}', "
                f"without path, user or password; got {abbreviate(text)}"
            )
        port = int(found["port"] or {None: DEFAULT_PORT, "http": 80, "https": 443}[found["scheme"]])
        if not 1 <= port <= 65535:
            raise ValueError(f"{abbreviate(text)}: ports go from 1 to 65535")
        address = found["address"]
        if address.startswith("["):
            try:
                address = str(IPv6Address(address.strip("[]")))
            except ValueError:
                raise ValueError(f"{abbreviate(text)}: {address} is not an IPv6 address") from None
        return cls(address=address, port=port, tls=found["scheme"] == "https")

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'https' if self.tls else 'http'}://{address}:{self.port}"


def _check_project(value: str) -> str:
    # It is part of the name of a file on the host.
    return check_project_name(value) if value else value


def _parse_endpoint(raw: Any) -> Any:
    return Endpoint.parse(raw) if isinstance(raw, str) else raw


def _wrap(raw: Any) -> Any:
    """A model alone stands for a list of it."""
    return (raw,) if isinstance(raw, str | Name | ModelSpec | Mapping) else raw


class ModelsPolicy(BaseModel):
    """Which models a server is to have, and what may be done for them.

    :param wanted: the models: names, or mappings as :class:`ModelSpec` has them.
    :param service: the Compose service that is the model server.
    :param endpoint: where a model server answers that is not a service of the project, as the host
        sees it; given instead of ``service``.
    :param update: ``always`` pulls what has moved on its registry; ``never`` only reports it.
    :param check: ``registry`` reads each model's manifest there; ``local`` asks no registry for a
        model that is intact.
    :param hashes: whether to verify each blob's content against its digest, which reads every byte.
    :param insecure: whether to speak plain HTTP to registries; never applies to registry.ollama.ai.
    :param prune: whether to remove models that stackmend pulled and that are no longer wanted.
    :param pull_from: ``registry``: every host pulls; ``peer``: one host pulls and the others get
        the blobs from it.
    :param source: the former name of ``pull_from``.
    :param stall: seconds without a byte after which a pull is cut and resumed.
    :param attempts: how often in a row a pull may fail without progress.
    :param parallel: how many models are fetched at once, over all hosts.
    :param minimum_free: bytes that must stay free on the disk of the models.

    Example, in ``group_data/all.py``::

        stack = {..., "models": {"wanted": ["llama3.2:1b"], "update": "never"}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: Annotated[tuple[ModelSpec, ...], BeforeValidator(_wrap)] = ()
    service: Annotated[str, AfterValidator(_check_service)] = "ollama"
    endpoint: Annotated[Endpoint | None, BeforeValidator(_parse_endpoint)] = None
    update: Literal["always", "never"] = "always"
    check: Literal["registry", "local"] = "registry"
    hashes: bool = False
    insecure: bool = False
    prune: bool = False
    pull_from: Literal["registry", "peer"] = "registry"
    source: Literal["registry", "peer"] | None = None
    stall: Seconds = Field(default=60, gt=0, le=3600, allow_inf_nan=False)
    attempts: int = Field(default=5, ge=1, le=100)
    parallel: int = Field(default=2, ge=1, le=64)
    minimum_free: ByteSize = ByteSize(1024**3)

    @field_validator("wanted", mode="after")
    @classmethod
    def _drop_duplicates(cls, models: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        unique: dict[str, ModelSpec] = {}
        for model in models:
            first = unique.setdefault(model.name.key, model)
            if first.model_copy(update={"name": model.name}) != model:
                raise ValueError(f"duplicate model {model.name}, with different origins")
        return tuple(unique.values())

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        if self.source is not None and "pull_from" in self.model_fields_set:
            raise ValueError("give pull_from or source, not both: source is its former name")
        if self.endpoint is not None and "service" in self.model_fields_set:
            raise ValueError("give service or endpoint, not both: there is one model server")
        return self

    @property
    def from_peers(self) -> bool:
        """Whether one host pulls and the others get the blobs from it."""
        return (self.source or self.pull_from) == "peer"

    def is_insecure(self, model: ModelSpec) -> bool:
        """Whether to speak plain HTTP to the registry of a model."""
        if model.insecure is not None:
            return model.insecure
        name = model.pulled_as
        return self.insecure and name is not None and name.host.lower() != DEFAULT_REGISTRY


class ModelsSpec(ModelsPolicy):
    """The models that one host's server is to have.

    :param project: the Compose project that the service belongs to.
    :param directory: the directory that this project is started from.
    """

    project: Annotated[str, AfterValidator(_check_project)] = ""
    directory: str = ""

    @property
    def record(self) -> str:
        """The file on the host that records which models of this server stackmend pulled."""
        return record_path(self.project, self.service, self.endpoint)

    @property
    def fact_arguments(self) -> dict[str, Any]:
        """The arguments of the fact :class:`stackmend.models.facts.ModelStore`."""
        return {
            "project": self.project,
            "service": self.service,
            "endpoint": str(self.endpoint) if self.endpoint else "",
            "hashes": self.hashes,
        }


def record_path(project: str, service: str, endpoint: Endpoint | None) -> str:
    """The file on the host that records which models of a server stackmend pulled."""
    if endpoint is None:
        server = f"{project or '-'}.{service}"
    else:
        server = re.sub(r"[^A-Za-z0-9.-]", "_", f"{endpoint.address}.{endpoint.port}")
    return f"{ROOT}/{server}.json"
