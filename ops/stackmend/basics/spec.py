"""What a host is to have before a stack comes to it: validated before any host is contacted."""

from pydantic import BaseModel, ConfigDict

from stackmend.ports.spec import Ports


class BasicsSpec(BaseModel):
    """What a host is to have before a stack comes to it.

    :param ports: the ports that services of the host are to be bound to.
    :param clock: whether its clock is to be kept right.
    :param security_updates: whether the distribution's security updates are to be installed by
        the host itself; where this is not wanted, nothing is done about them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ports: Ports = ()
    clock: bool = True
    security_updates: bool = False
