"""What the models of a server are to run on: validated before any host is contacted."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stackmend.models.spec import Endpoint


def _parse_endpoint(raw: Any) -> Any:
    return Endpoint.parse(raw) if isinstance(raw, str) else raw


class AccelerationPolicy(BaseModel):
    """What the models of a server are to run on.

    :param service: the Compose service that is the model server.
    :param endpoint: the address of a server that is no such service, as the host sees it:
        ``http://127.0.0.1:11434``. Of a server on another host only the models are read.
    :param processor: ``gpu``: models have to be on an accelerator; ``cpu``: none is expected;
        ``auto``: one is expected where the host has a card with its driver, the service reserves an
        accelerator, or the server uses one. Graphics within an AMD CPU are no card. With ``share``
        it is ``gpu`` by default.
    :param share: which share of each loaded model has to be on the accelerator, above 0 and up to
        1: 0.9 is 90 %. A host without an accelerator fails it, unless ``processor`` is ``auto``.
        Without it a model that is partly on the CPU is reported, and fails the operation only with
        ``gpu``.
    :param cpu_models: models that compute with the CPU on purpose, as ``num_gpu 0`` has it.
    :param minutes: how far back the server's log is read.
    :param samples: how often the loaded models are read, a second apart.
    :param maximum_reloads: how many avoidable loads of models within ten minutes are no finding.
    :param on_fault: ``fail``: a broken chain fails the operation on that host; ``report``: it is
        reported, and the run goes on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str = Field(default="ollama", pattern=r"^[a-zA-Z0-9._-]{1,200}$")
    endpoint: Annotated[Endpoint | None, BeforeValidator(_parse_endpoint)] = None
    processor: Literal["auto", "gpu", "cpu"] = "auto"
    share: float | None = Field(default=None, gt=0, le=1)
    cpu_models: tuple[str, ...] = Field(default=(), max_length=100)
    minutes: int = Field(default=10, ge=1, le=1440)
    samples: int = Field(default=2, ge=1, le=10)
    maximum_reloads: int = Field(default=2, ge=0, le=1000)
    on_fault: Literal["fail", "report"] = "fail"

    @model_validator(mode="before")
    @classmethod
    def _choose_processor(cls, raw: Any) -> Any:
        """A share has to be on something: who names one expects an accelerator."""
        if not isinstance(raw, Mapping) or raw.get("processor") is not None:
            return raw
        rest = {name: value for name, value in raw.items() if name != "processor"}
        return rest if raw.get("share") is None else {**rest, "processor": "gpu"}

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        if self.endpoint is not None and "service" in self.model_fields_set:
            raise ValueError("give service or endpoint, not both: one server is read")
        if self.share is not None and self.processor == "cpu":
            raise ValueError(
                'share: with "processor": "cpu" nothing is expected on an accelerator; remove one '
                "of the two"
            )
        return self


class AccelerationSpec(AccelerationPolicy):
    """The same for one host.

    :param project: the Compose project of the service; empty for any.
    """

    project: str = Field(default="", pattern=r"^[a-z0-9_-]{0,200}$")

    @property
    def fact_arguments(self) -> dict[str, Any]:
        """The arguments of the fact that reads the host."""
        return {
            "project": self.project,
            "service": self.service,
            "endpoint": str(self.endpoint) if self.endpoint else "",
            "minutes": self.minutes,
            "samples": self.samples,
        }
