"""What is to be measured: validated before any host is contacted."""

from typing import Annotated, Literal

from pydantic import Field

from stackmend.frozen import Frozen

Target = Literal["ollama", "openai", "queue"]


class Limits(Frozen):
    """What a request has to meet to count as good.

    :param ttft: seconds to the first token.
    :param tpot: seconds for each token after it.
    :param end: seconds to the end of the answer, or of the task.
    """

    ttft: float | None = Field(default=None, gt=0)
    tpot: float | None = Field(default=None, gt=0)
    end: float | None = Field(default=None, gt=0)


class Profile(Frozen):
    """How a server is asked.

    :param prompt_tokens: about how many tokens a prompt has.
    :param output_tokens: how many an answer is to have.
    :param concurrency: requests at one time, one level each.
    :param rate: requests a second of an open loop, instead of ``concurrency``.
    :param repeats: of each level: five at least, as fewer can prove no difference.
    :param requests: of each repeat; by default eight, or four for each at one time.
    :param warmups: requests before each level that are not counted.
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
    timeout: float = Field(default=300, gt=0, le=7200)
    limits: Limits = Limits()
