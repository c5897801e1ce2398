"""How a run treats the hosts that it changes: the section ``reconcile`` of a stack."""

from typing import Annotated

from pydantic import ConfigDict, Field

from stackmend.raw import PositiveSeconds, Seconds
from stackmend.restraint.spec import RestraintPolicy

#: Seconds that a run waits at most for another one to end.
LONGEST_WAIT = 24 * 3600.0


class ReconcilePolicy(RestraintPolicy):
    """How a run treats the hosts that it changes, and each other run there.

    :param wait: for how long a run waits for another one to end that is at work on a host; with 0
        it leaves that host at once. At most a day.
    :param limit: how long a run is at work on one host: once that is over, no further step begins
        there, and the host has failed. What waits for others does not count.
    :param canary: how many hosts are changed at first, until one of them is proven well.
    :param parallel: how many hosts are changed at the same time after that.
    :param stop_after: once so many hosts in a row got worse by being changed, the run begins to
        change no other; 0 for never. The first host that names it decides, as of ``canary`` and
        ``parallel``.

    Example, in ``group_data/all.py``::

        stack = {..., "reconcile": {"wait": "10min", "limit": "1h", "stop_after": 2}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wait: Annotated[Seconds, Field(ge=0, le=LONGEST_WAIT, allow_inf_nan=False)] = 0.0
    limit: Annotated[PositiveSeconds, Field(allow_inf_nan=False)] = 2 * 3600.0
    canary: int = Field(default=1, ge=1)
    parallel: int = Field(default=10, ge=1)
    stop_after: int = Field(default=3, ge=0)
