"""Deploy of the tests: the engine of a host and its settings, from ``host.data.engine``."""

from pyinfra import host

from stackmend import engine
from stackmend.engine.spec import EnginePolicy

policy = EnginePolicy.model_validate(host.data.engine)

engine.prefetch(policy)
if "installed" in host.data.get("doing", ("installed", "settings")):
    engine.installed(name="The engine is here", **engine.installation(policy))
if "settings" in host.data.get("doing", ("installed", "settings")):
    engine.settings(name="The engine is set", **engine.daemon_settings(policy))
