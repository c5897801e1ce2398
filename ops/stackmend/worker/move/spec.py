"""What is desired of a legacy worker: validated before any host is contacted."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stackmend.compose.source import SERVICE_KEYS
from stackmend.models.spec import Name
from stackmend.paths import is_plain
from stackmend.problems import abbreviate
from stackmend.worker.benchmark.spec import Profile

_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,199}")

#: What the added service has of us, whatever else is set for it.
_OWN_KEYS = frozenset({"image", "volumes", "healthcheck", "container_name", "profiles", "networks"})


def _check_service(name: str) -> str:
    if not _SERVICE.fullmatch(name):
        raise ValueError(f"must be the name of a service; got {abbreviate(name)}")
    return name


def _check_image(image: str) -> str:
    if not is_plain(image) or image.startswith("-") or " " in image or "$" in image:
        raise ValueError(f"must be the name of an image; got {abbreviate(image)}")
    return image


def check_model(name: str) -> str:
    """The name of a model, as Ollama has them.

    :raises ValueError: it is none.
    """
    Name.parse(name)
    return name


def check_path(path: str) -> str:
    """The path of a file in a container.

    :raises ValueError: it is not absolute, or holds what no path may.
    """
    if not (path.startswith("/") and is_plain(path)):
        raise ValueError(
            "must be the absolute path of a GGUF file in the legacy worker's container"
        )
    return path


def _wrap(raw: Any) -> Any:
    return (raw,) if isinstance(raw, str) else raw or ()


Service = Annotated[str, AfterValidator(_check_service)]


Consent = Literal[
    "busy", "published", "network", "api", "models", "memory", "space", "options", "tasks"
]


class MovePolicy(BaseModel):
    """A legacy worker is moved to Ollama, where that is faster.

    That it is set is the consent to add a service to the project on the host, and to stop the
    legacy worker's once its clients call the new one.

    :param engine: what it is moved to.
    :param service: the legacy worker; by default the one that is recognised.
    :param client: the services that call it; by default those whose environment or command names
        it.
    :param models: the names by which clients ask for models, each with its GGUF file in the legacy
        worker's container; by default what is found there.
    :param margin: by how much faster the new one has to be: 0.1 is a tenth.
    :param keep_legacy: whether the legacy worker's container is kept, stopped; its volumes always
        are.
    :param target: the name of the service that is added, or of an Ollama that the project has.
    :param image: its image, where it is added.
    :param settings: more of the added service, in Compose's words, as ``{"mem_limit": "8g"}``.
    :param profile: how both are measured; one request at a time by default.
    :param allow: what may be done although it disturbs, or is not known to be safe. ``busy``: the
        legacy worker computes for others, or tasks wait for it, as ``worker.benchmarked`` has it;
        ``published``: a port of the legacy worker is published on the host, where callers outside
        of the project may use it; ``network``: likewise, it is on a network of others; ``api``: an
        address does not say that it is of OpenAI's API; ``models``: an Ollama of the project has a
        model of that name, which is used as it is; ``memory``, ``space``: the models may not fit;
        ``options``: the legacy worker is started with more than a model and its context;
        ``tasks``: a client may have less time to end what it has under way than the legacy worker
        needs.

    Example, in ``group_data/all.py``::

        stack = {..., "worker": {"engine": {"engine": "ollama"}}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["ollama"] = "ollama"
    service: Service | None = None
    client: Annotated[tuple[Service, ...], BeforeValidator(_wrap)] = ()
    models: dict[
        Annotated[str, AfterValidator(check_model)], Annotated[str, AfterValidator(check_path)]
    ] = Field(default_factory=dict)
    margin: float = Field(default=0.1, ge=0, le=10, allow_inf_nan=False)
    keep_legacy: bool = True
    target: Service = "ollama"
    image: Annotated[str, AfterValidator(_check_image)] = "ollama/ollama:0.12.6"
    settings: dict[str, Any] = Field(default_factory=dict)
    profile: Profile = Profile(prompt_tokens=256, output_tokens=64, concurrency=(1,), requests=4)
    allow: Annotated[tuple[Consent, ...], BeforeValidator(_wrap)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in self.settings:
            if key in _OWN_KEYS or key not in SERVICE_KEYS:
                raise ValueError(
                    f"settings.{abbreviate(key)}: no key of a service that can be set here"
                )
        if self.target in (self.service, *self.client):
            raise ValueError(f"target: {self.target} is the legacy worker or its client")
        return self
