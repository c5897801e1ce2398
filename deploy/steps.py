"""Steps that more than one deploy has."""

from ops import engine
from ops.engine.spec import EnginePolicy


def engine_as_wanted(policy: EnginePolicy) -> None:
    """The engine: there, with its settings, and with the accelerators of the host.

    :param policy: the section ``engine`` of the stack.
    """
    engine.installed(
        name="Docker Engine and Compose are there, and answer",
        **engine.installation(policy),
    )
    engine.settings(
        name="The engine has the settings that are wanted",
        **engine.daemon(policy),
    )
    engine.accelerated(
        name="Containers reach the accelerators of the host",
        **engine.acceleration(policy),
    )
