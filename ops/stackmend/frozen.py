"""The base of every value that is made once: states, findings, plans."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that is made once, and takes no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """As ``pyinfra HOST fact`` prints it."""
        return self.model_dump(mode="json")
