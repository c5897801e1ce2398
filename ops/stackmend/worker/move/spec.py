"""What is desired of a legacy worker: validated before any host is contacted."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stackmend.compose.source import SERVICE_KEYS
from stackmend.models.spec import Name
from stackmend.paths import is_plain
from stackmend.problems import abbreviate
from stackmend.worker.benchmark.spec import Profile

_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,199}")

#: How often both are measured until that can be compared.
ATTEMPTS = 3

#: What the added service has of us, whatever else is set for it.
_OWN_KEYS = frozenset({"image", "volumes", "healthcheck", "container_name", "profiles", "networks"})


#: A number of bytes, as Compose reads it.
_BYTES = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})? ?[kmgtp]?i?b?", re.IGNORECASE)
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_size(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_BYTES.fullmatch(value)) or value == "-1" or "$" in value
    return isinstance(value, int) and not isinstance(value, bool) and value >= -1


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_DECIMAL.fullmatch(value)) or "$" in value
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and "$" in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(map(_is_text, value)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_table(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_scalar(each) for key, each in value.items())
    return isinstance(value, list | tuple) and all(map(_is_text, value))


#: What Compose takes for the keys of a service, each kind with its name.
_KINDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        'a number of bytes, as "8g"',
        _is_size,
        "mem_limit mem_reservation memswap_limit shm_size",
    ),
    ("a number, as 1.5", _is_number, "cpus cpu_shares cpu_quota cpu_count cpu_percent"),
    ("True or False", _is_flag, "init privileged read_only tty stdin_open oom_kill_disable"),
    (
        'a mapping of names to values, as {"NAME": "VALUE"}, or a list, as ["NAME=VALUE"]',
        _is_table,
        "annotations environment extra_hosts labels sysctls",
    ),
    ("a mapping", _is_mapping, "blkio_config deploy logging ulimits"),
    (
        "a list of texts, or a text",
        _is_list,
        "cap_add cap_drop command devices dns dns_opt dns_search entrypoint security_opt tmpfs",
    ),
    (
        "a text",
        _is_text,
        "cgroup cgroup_parent cpuset domainname hostname ipc isolation network_mode pid platform "
        "pull_policy restart runtime stop_grace_period stop_signal userns_mode uts working_dir",
    ),
)


def _check_setting(key: str, value: Any) -> None:
    for kind, fits, keys in _KINDS:
        if key in keys.split() and not fits(value):
            raise ValueError(f"settings.{key}: must be {kind}; got {abbreviate(value)}")


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
    :param models: more names by which clients ask for models, each with its GGUF file in the legacy
        worker's container; they come to those that are found, and a file that is set here counts.
    :param margin: by how much faster the new one has to be: 0.1 is a tenth; less than 1.
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
    margin: float = Field(default=0.1, ge=0, lt=1, allow_inf_nan=False)
    keep_legacy: bool = True
    target: Service = "ollama"
    image: Annotated[str, AfterValidator(_check_image)] = "ollama/ollama:0.12.6"
    settings: dict[str, Any] = Field(default_factory=dict)
    profile: Profile = Profile(prompt_tokens=256, output_tokens=64, concurrency=(1,), requests=4)
    allow: Annotated[tuple[Consent, ...], BeforeValidator(_wrap)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, value in self.settings.items():
            if key in _OWN_KEYS or key not in SERVICE_KEYS:
                raise ValueError(
                    f"settings.{abbreviate(key)}: no key of a service that can be set here"
                )
            _check_setting(key, value)
        if self.target in (self.service, *self.client):
            raise ValueError(f"target: {self.target} is the legacy worker or its client")
        return self
