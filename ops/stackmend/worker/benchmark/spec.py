"""What is to be measured: validated before any host is contacted."""

import math
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from stackmend import paths
from stackmend.compose.spec import check_project_name
from stackmend.frozen import Frozen
from stackmend.models.spec import Endpoint as ServerEndpoint
from stackmend.models.spec import Name
from stackmend.problems import abbreviate, is_plain
from stackmend.raw import PositiveSeconds, Seconds
from stackmend.worker.engines import PORTS

Target = Literal["ollama", "openai", "queue"]

#: What a user may consent to: measuring although tasks wait (``busy``), although another model is
#: loaded, which the server may unload for it (``model``), or although memory may run short.
Consent = Literal["busy", "model", "memory"]

#: The directory on the host of what was measured, and of the lock.
ROOT = f"{paths.STATE_ROOT}/benchmarks"

#: Samples that one measurement may have: as many as a file of a few megabytes holds.
MOST_SAMPLES = 20_000

#: Requests, and seconds of them, that a repeat of an open loop has at least.
OPEN_REQUESTS, OPEN_SECONDS = 30, 20

#: Seconds of requests, one after another, after which a level has fewer rounds of them, and a
#: measurement no more levels that add nothing.
BUDGET = 1200.0

#: Rounds of requests that a repeat has at least.
LEAST_ROUNDS = 2

#: The service of each target, and the port that it listens on.
_SERVICES: dict[str, str] = {"ollama": "ollama", "openai": "", "queue": "api"}
QUEUE_PORT = 8000
_PORTS = {"ollama": PORTS["ollama"], "openai": PORTS["vllm"], "queue": QUEUE_PORT}

_SERVICE = re.compile(r"[a-zA-Z0-9._-]+")
_ENDPOINT = re.compile(r"(?P<server>(?:[a-z]+://)?[^/]+)(?P<path>(?:/[A-Za-z0-9._~-]+)*)/?")


class Limits(Frozen):
    """What a request has to meet to count as good.

    :param ttft: seconds to the first token.
    :param tpot: seconds for each token after it.
    :param end: seconds to the end of the answer, or of the task.
    """

    ttft: PositiveSeconds | None = None
    tpot: PositiveSeconds | None = None
    end: PositiveSeconds | None = None


class Profile(Frozen):
    """How a server is asked.

    :param prompt_tokens: about how many tokens a prompt has.
    :param output_tokens: how many an answer is to have.
    :param concurrency: requests at one time, one level each.
    :param rate: requests a second of an open loop, instead of ``concurrency``.
    :param repeats: of each level: five at least, as fewer can prove no difference.
    :param requests: of each repeat; by default eight, or four for each at one time; of an open
        loop thirty, or those of twenty seconds.
    :param warmups: requests before each level that are not counted, and as many at least as there
        are at one time; 0 for none.
    :param timeout: seconds that one request may take.
    :param limits: what a good request meets.
    """

    prompt_tokens: int = Field(default=512, ge=8, le=100_000)
    output_tokens: int = Field(default=128, ge=2, le=10_000)
    concurrency: tuple[Annotated[int, Field(ge=1, le=256)], ...] = (1, 2, 4, 8)
    rate: float | None = Field(default=None, gt=0, le=1000)
    repeats: int = Field(default=5, ge=5, le=50)
    requests: int | None = Field(default=None, ge=1, le=10_000)
    warmups: int = Field(default=2, ge=0, le=20)
    timeout: Seconds = Field(default=300, gt=0, le=7200)
    limits: Limits = Limits()

    def count_requests(self, concurrency: int, cold: float = 0.0) -> int:
        """Requests of one repeat.

        As many rounds of a closed loop as are asked for, or by default; fewer, and two at least,
        where the answers would take longer than :data:`BUDGET`. The last round is always full: an
        idle tail of another length would look like another speed.

        :param concurrency: requests at one time; 0 for an open loop.
        :param cold: seconds that one answer takes; 0 where that is not known.
        """
        if self.requests:
            return self.requests
        if self.rate is not None:
            usual = max(OPEN_REQUESTS, math.ceil(OPEN_SECONDS * self.rate))
            return min(usual, MOST_SAMPLES // self.repeats)
        usual = max(8, 4 * concurrency)
        if not concurrency or not cold:
            return usual
        # A server that answers one at a time takes as long as all of them together.
        rounds = BUDGET / (self.repeats * concurrency * cold)
        return min(usual, max(LEAST_ROUNDS, int(min(rounds, usual))) * concurrency)

    def count_warmups(self, concurrency: int) -> int:
        """Requests before a level that are not counted: one at least for each at one time.

        :param concurrency: requests at one time; 0 for an open loop.
        """
        return max(self.warmups, concurrency) if self.warmups else 0

    @property
    def samples(self) -> int:
        """Requests in all, without those that are not counted."""
        levels = (0,) if self.rate is not None else self.concurrency
        return self.repeats * sum(map(self.count_requests, levels))

    @field_validator("concurrency", mode="before")
    @classmethod
    def _wrap(cls, raw: Any) -> Any:
        return (raw,) if isinstance(raw, int) else raw

    @field_validator("concurrency", mode="after")
    @classmethod
    def _drop_duplicates(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("name at least one number of requests at one time")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.rate is not None and "concurrency" in self.model_fields_set:
            raise ValueError("give rate or concurrency, not both: a loop is open or closed")
        most = max(self.concurrency)
        if self.rate is None and most > 1 and (self.requests or MOST_SAMPLES) < 2 * most:
            raise ValueError(
                f"{self.requests} requests are no load of {most} at one time; "
                f"take {2 * most} requests at least, or fewer at one time"
            )
        if self.samples > MOST_SAMPLES:
            raise ValueError(
                f"{self.samples} requests in all are more than the {MOST_SAMPLES} that are kept; "
                "take fewer requests, repeats or levels"
            )
        return self


class Minimum(Frozen):
    """What a server has to reach, at the load at which it is best.

    A number alone is ``output_tps``.

    :param output_tps: output tokens a second, all requests together.
    :param decode_tps: output tokens a second of one request, by the server's own times.
    :param requests_ps: requests a second.
    :param goodput: requests a second that meet every limit of the profile.
    :param tasks_pm: tasks a minute, of a queue.
    """

    output_tps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    decode_tps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    requests_ps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    goodput: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tasks_pm: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _accept_number(cls, raw: Any) -> Any:
        if isinstance(raw, bool) or not isinstance(raw, int | float | Mapping | cls):
            raise ValueError(
                f"must be output tokens a second, or a mapping as {{'goodput': 2}}; "
                f"got {abbreviate(raw)}"
            )
        if isinstance(raw, Mapping) and not raw:
            raise ValueError(f"name at least one of {', '.join(cls.model_fields)}, with its figure")
        return {"output_tps": raw} if isinstance(raw, int | float) else raw


class Address(ServerEndpoint):
    """Where a server answers that is no service of the project, as the host sees it.

    :param port: its port; 0 for that of the target.
    :param path: what stands before the paths of its API, as ``/v1``.
    """

    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address: ``[http[s]://]address[:port][/path]``.

        :raises ValueError: naming what is wrong.
        """
        match = _ENDPOINT.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                "must be the address of a server such as 'http://127.0.0.1:8080/v1', without user "
                f"or password; got {abbreviate(text)}"
            )
        server = ServerEndpoint.parse(match["server"])
        named = "://" in match["server"] or re.search(r":[0-9]+$", match["server"])
        return cls(
            address=server.address,
            port=server.port if named else 0,
            tls=server.tls,
            path=match["path"],
        )


def _parse_address(raw: Any) -> Any:
    return Address.parse(raw) if isinstance(raw, str) else raw


def _check_service(value: str) -> str:
    if not _SERVICE.fullmatch(value):
        raise ValueError(
            f"must be the name of a Compose service, such as 'ollama'; got {abbreviate(value)}"
        )
    return value


def _check_model(value: str) -> str:
    if not value or len(value) > 300 or not is_plain(value):
        raise ValueError(f"must be the name of a model, as its server has it; {abbreviate(value)}")
    return value


def _check_project(value: str) -> str:
    # It is part of the name of a file on the host.
    return check_project_name(value) if value else value


class BenchmarkPolicy(BaseModel):
    """What is measured, how, how long that holds, and what it has to come to.

    :param target: ``ollama``; ``openai`` for any server that speaks OpenAI's API; ``queue`` for the
        way of a task through the stack's own queue.
    :param service: the Compose service that is asked; by default ``ollama``, or ``api`` for a
        queue.
    :param endpoint: where a server answers that is no service of the project, as the host sees it:
        ``http://127.0.0.1:8080/v1``; given instead of ``service``.
    :param port: the port that the service listens on; 11434 for Ollama, 8000 otherwise.
    :param model: the model that is asked; by default the only one that the server has.
    :param worker: the Compose service that takes the tasks of a queue.
    :param api_key: what the server wants as a bearer token.
    :param profile: how it is asked.
    :param max_age: how long a result holds while nothing changes: seconds, or as ``"12h"``.
    :param minimum: what it has to reach: output tokens a second, or a mapping.
    :param baseline: what it must not be worse than: the ``best`` result so far, the ``last`` one
        before, or ``none``.
    :param threshold: by how much it has to be worse to matter, as a share.
    :param allow: what may be done although it disturbs: ``busy``, ``model``, ``memory``.

    Example, in ``group_data/all.py``::

        stack = {..., "worker": {"benchmark": {"model": "llama3.2:1b", "minimum": 20}}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target = "ollama"
    service: Annotated[str, AfterValidator(_check_service)] | None = None
    endpoint: Annotated[Address | None, BeforeValidator(_parse_address)] = None
    port: int | None = Field(default=None, ge=1, le=65535)
    model: Annotated[str, AfterValidator(_check_model)] | None = None
    worker: Annotated[str, AfterValidator(_check_service)] = "worker"
    api_key: SecretStr | None = None
    profile: Profile = Profile()
    max_age: Seconds = Field(default=7 * 86400.0, ge=0, le=3660 * 86400, allow_inf_nan=False)
    minimum: Minimum | None = None
    baseline: Literal["best", "last", "none"] = "best"
    threshold: float = Field(default=0.1, gt=0, lt=1, allow_inf_nan=False)
    allow: tuple[Consent, ...] = ()

    @field_validator("allow", mode="before")
    @classmethod
    def _wrap(cls, raw: Any) -> Any:
        return (raw,) if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        if self.endpoint is not None and self.service is not None:
            raise ValueError("give service or endpoint, not both: one server is measured")
        if self.endpoint is not None and self.port is not None:
            raise ValueError("give the port within endpoint: it is that of the service")
        if self.endpoint is None and not self.service_name:
            raise ValueError(
                "name the server: add service, or endpoint as 'http://127.0.0.1:8080/v1'"
            )
        if self.target == "ollama" and self.model is not None:
            Name.parse(self.model)
        if self.minimum is not None:
            self._check_minimum(self.minimum)
        if self.target == "queue":
            self._check_queue()
        elif "worker" in self.model_fields_set:
            raise ValueError(f"worker: only a queue has one; {self.target} is asked itself")
        return self

    def _check_queue(self) -> None:
        """A task's answer comes in one piece, and is as long as the worker has it."""
        if "output_tokens" in self.profile.model_fields_set:
            raise ValueError(
                "profile.output_tokens: the worker decides how long the answer of a task is; set "
                "it there (OLLAMA_NUM_PREDICT)"
            )
        for field in ("ttft", "tpot"):
            if getattr(self.profile.limits, field) is not None:
                raise ValueError(
                    f"profile.limits.{field}: the answer of a task comes in one piece; take "
                    "{'end': …}, seconds to its end"
                )

    def _check_minimum(self, minimum: Minimum) -> None:
        if minimum.goodput is not None and self.profile.limits == Limits():
            raise ValueError("minimum.goodput: add profile.limits, which a good request meets")
        if minimum.output_tps is not None and self.target == "queue":
            raise ValueError(
                "minimum.output_tps: a queue gives no tokens; take {'tasks_pm': …}, tasks a minute"
            )
        if minimum.tasks_pm is not None and self.target != "queue":
            raise ValueError("minimum.tasks_pm: only a queue has tasks; take requests_ps")

    @property
    def service_name(self) -> str:
        """The Compose service that is asked; empty where an endpoint is."""
        if self.endpoint is not None:
            return ""
        return self.service or _SERVICES[self.target]

    @property
    def server_port(self) -> int:
        """The port that the server listens on."""
        named = self.port if self.endpoint is None else self.endpoint.port
        return named or _PORTS[self.target]

    @property
    def base_path(self) -> str:
        """What stands before the paths of the server's API."""
        if self.endpoint is not None and self.endpoint.path:
            return self.endpoint.path
        return "/v1" if self.target == "openai" else ""

    @property
    def server(self) -> str:
        """The server in words: ``service ollama``, or its endpoint."""
        if self.endpoint is None:
            return f"service {self.service_name}"
        return str(self.endpoint.model_copy(update={"port": self.server_port}))


class BenchmarkSpec(BenchmarkPolicy):
    """What is measured on one host.

    :param project: the Compose project that the service belongs to.
    :param directory: the directory that this project is started from.
    """

    project: Annotated[str, AfterValidator(_check_project)] = ""
    directory: str = ""

    @property
    def queue_name(self) -> str:
        """The service whose queue may send tasks to the server; empty where that is measured."""
        name = _SERVICES["queue"]
        return name if self.project and name != self.service_name else ""

    @property
    def slug(self) -> str:
        """What the files of this measurement are called, on the host and on the controller."""
        server = self.server.removeprefix("service ")
        named = ".".join(filter(None, [self.project, server, self.target, self.model or ""]))
        # Names that differ only in what no file's name holds stay apart.
        digest = sha256(named.encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', named)[:140].strip('._-')}.{digest}"
