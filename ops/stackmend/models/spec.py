"""What is wanted of a model server: validated before any host is contacted."""

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
from stackmend.raw import LocalPath

#: What a name means where it does not say.
DEFAULT_REGISTRY, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

#: Where Ollama listens where nobody says otherwise.
DEFAULT_PORT = 11434

#: Where the host remembers which models were pulled by us, and where the lock lies.
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
    :param tag: which one of it.

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
        """The name that a text is.

        :raises ValueError: naming the part that is wrong, and what would be right.
        """
        shown = abbreviate(text)
        if "://" in text:
            raise ValueError(
                f"{shown}: a model's name has no scheme; for plain HTTP say insecure=True"
            )
        if "@" in text:
            raise ValueError(f"{shown}: a model is named by its tag, not by a digest")
        path, colon, tag = text.rpartition(":")
        if not colon or "/" in tag:
            path, tag = text, DEFAULT_TAG
        parts = path.split("/")
        if len(parts) > 3:
            raise ValueError(f"{shown} has too many parts: write [host/namespace/]model[:tag]")
        host, namespace, model = [*(DEFAULT_REGISTRY, DEFAULT_NAMESPACE)[: 3 - len(parts)], *parts]
        if len(parts) == 2 and ("." in namespace or ":" in namespace):
            raise ValueError(
                f"{shown}: a registry other than Ollama's needs all of host/namespace/model"
            )
        for kind, value, rule in (
            ("host", host, _HOST),
            ("namespace", namespace, _NAMESPACE),
            ("model", model, _PART),
            ("tag", tag, _PART),
        ):
            if not rule.fullmatch(value):
                raise ValueError(
                    f"{shown} is not a model's name: its {kind} {abbreviate(value)} must be "
                    f"letters, digits, {_ALLOWED[kind]}, and start with a letter, a digit or '_'"
                )
        name = cls(host=host, namespace=namespace, model=model, tag=tag)
        port = name.registry[1]
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"{shown}: the registry's port must be a number from 1 to 65535")
        return name

    def __str__(self) -> str:
        shown = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_REGISTRY:
            return f"{self.host}/{self.namespace}/{shown}"
        return shown if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{shown}"

    @property
    def key(self) -> str:
        """What two names share that Ollama takes for the same: it does not mind the case."""
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


def _name(given: Any) -> Any:
    if isinstance(given, Name | Mapping):
        return given
    if not isinstance(given, str):
        raise ValueError(f"must be a model's name such as 'llama3.2:1b'; got {abbreviate(given)}")
    return Name.parse(given)


ModelName = Annotated[Name, BeforeValidator(_name)]


class ModelSpec(Frozen):
    """One model that is to be on the server.

    At most one of ``source``, ``gguf`` and ``modelfile`` is given; without any it is pulled by its
    own name.

    :param name: what it is called on the server.
    :param source: the name that it is pulled by, on a mirror for example.
    :param gguf: a GGUF file on the controller that it is created from.
    :param modelfile: a Modelfile on the controller that it is created from.
    :param insecure: whether its registry is spoken to over plain HTTP; ``None`` is as the policy
        says.
    """

    name: ModelName
    source: ModelName | None = None
    gguf: LocalPath | None = None
    modelfile: LocalPath | None = None
    insecure: bool | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _from_text(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(given, str | Name):
            return handler({"name": given})
        if not isinstance(given, Mapping | cls):
            raise ValueError(
                "must be a model's name such as 'llama3.2:1b', or a mapping; got "
                f"{abbreviate(given)}"
            )
        return handler(given)

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        origins = [one for one in ("source", "gguf", "modelfile") if getattr(self, one) is not None]
        if len(origins) > 1:
            raise ValueError(f"give {' or '.join(origins)}, not both: a model has one origin")
        return self

    @property
    def pulled(self) -> Name | None:
        """The name that it is pulled by; ``None`` where it is created from a file."""
        return None if self.created else self.source or self.name

    @property
    def created(self) -> bool:
        """Whether it is made from a file of the controller's."""
        return self.gguf is not None or self.modelfile is not None

    def __str__(self) -> str:
        return str(self.name)


def _service(value: str) -> str:
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
        """The endpoint that a text is: ``[http[s]://]address[:port]``.

        A scheme brings its own port, as everywhere; without one Ollama's is meant.

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


def _project(value: str) -> str:
    # It is part of the name of a file on the host.
    return check_project_name(value) if value else value


def _endpoint(given: Any) -> Any:
    return Endpoint.parse(given) if isinstance(given, str) else given


def _list(given: Any) -> Any:
    """One model stands for a list of it."""
    return (given,) if isinstance(given, str | Name | ModelSpec | Mapping) else given


class ModelsPolicy(BaseModel):
    """Which models are wanted, where, and what may be done for them.

    :param wanted: the models: names, or mappings as :class:`ModelSpec` has them.
    :param service: the Compose service that is the model server.
    :param endpoint: where a model server answers that is not a service of the project, as the host
        sees it; given instead of ``service``.
    :param update: ``always`` pulls what has moved on its registry; ``never`` only tells.
    :param check: ``registry`` reads each model's manifest there; ``local`` asks nobody for a model
        that is present.
    :param hashes: whether each blob's content is held against its digest, which reads every byte.
    :param insecure: whether registries are spoken to over plain HTTP; never applies to
        registry.ollama.ai.
    :param prune: whether a model that we pulled and nobody wants any more is removed.
    :param source: ``registry``: every host pulls; ``peer``: one host pulls and the others get the
        blobs from it.
    :param stall: seconds without a byte after which a pull is cut and resumed.
    :param attempts: how often in a row a pull may fail without having brought anything.
    :param parallel: how many models are fetched at once, over all hosts.
    :param minimum_free: bytes that must stay free where the models lie.

    Example, in ``group_data/all.py``::

        stack = {..., "models": {"wanted": ["llama3.2:1b"], "update": "never"}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: Annotated[tuple[ModelSpec, ...], BeforeValidator(_list)] = ()
    service: Annotated[str, AfterValidator(_service)] = "ollama"
    endpoint: Annotated[Endpoint | None, BeforeValidator(_endpoint)] = None
    update: Literal["always", "never"] = "always"
    check: Literal["registry", "local"] = "registry"
    hashes: bool = False
    insecure: bool = False
    prune: bool = False
    source: Literal["registry", "peer"] = "registry"
    stall: float = Field(default=60, gt=0, le=3600, allow_inf_nan=False)
    attempts: int = Field(default=5, ge=1, le=100)
    parallel: int = Field(default=2, ge=1, le=64)
    minimum_free: ByteSize = ByteSize(1024**3)

    @field_validator("wanted", mode="after")
    @classmethod
    def _once_each(cls, wanted: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        seen: dict[str, ModelSpec] = {}
        for one in wanted:
            first = seen.setdefault(one.name.key, one)
            if first.model_copy(update={"name": one.name}) != one:
                raise ValueError(f"{one.name} is wanted twice, from different origins")
        return tuple(seen.values())

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if self.endpoint is not None and "service" in self.model_fields_set:
            raise ValueError("give service or endpoint, not both: there is one model server")
        return self

    def over_http(self, wanted: ModelSpec) -> bool:
        """Whether a model's registry is spoken to over plain HTTP."""
        if wanted.insecure is not None:
            return wanted.insecure
        name = wanted.pulled
        return self.insecure and name is not None and name.host.lower() != DEFAULT_REGISTRY


class ModelsSpec(ModelsPolicy):
    """The models that one host's server is to have.

    :param project: the Compose project that the service belongs to.
    :param directory: the directory that this project is started from.
    """

    project: Annotated[str, AfterValidator(_project)] = ""
    directory: str = ""

    @property
    def record(self) -> str:
        """The file on the host that remembers which models of this server we pulled."""
        return record(self.project, self.service, self.endpoint)

    def asked(self) -> dict[str, Any]:
        """The arguments of the fact :class:`stackmend.models.facts.ModelStore`."""
        return {
            "project": self.project,
            "service": self.service,
            "endpoint": str(self.endpoint) if self.endpoint else "",
            "hashes": self.hashes,
        }


def record(project: str, service: str, endpoint: Endpoint | None) -> str:
    """The file on the host that remembers which models of a server we pulled."""
    if endpoint is None:
        server = f"{project or '-'}.{service}"
    else:
        server = re.sub(r"[^A-Za-z0-9.-]", "_", f"{endpoint.address}.{endpoint.port}")
    return f"{ROOT}/{server}.json"
