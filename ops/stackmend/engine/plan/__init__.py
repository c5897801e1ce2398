"""The decision: from the spec of an engine and the state of a host to what is done. Pure.

``installation`` says what a host needs to have an engine, ``source`` where that comes from,
``rivals`` what is in its way and ``selection`` which versions it is; ``settings`` says what
daemon.json needs, upon ``merge`` and ``flags``, and ``broken`` what becomes of one that the engine
does not start with; ``service`` says what an engine needs to run, and ``beneath`` what of its own
is gone from the kernel.
"""

from stackmend.engine.plan.installation import plan_engine
from stackmend.engine.plan.model import (
    Action,
    AttachPort,
    Enable,
    File,
    Install,
    InstallEngine,
    MoveDatabase,
    Plan,
    RaiseBridge,
    RemovePidFile,
    RemoveRule,
    RestartEngine,
    RestoreAddress,
    RestoreConfig,
    SetConfig,
    SettingsAction,
    SettingsPlan,
    Start,
    StartAgain,
    StartContainerd,
    TakeUp,
    Trust,
    WriteSource,
)
from stackmend.engine.plan.selection import Selection, select_packages
from stackmend.engine.plan.settings import add_first_settings, plan_settings
from stackmend.engine.plan.source import Source, find_source

__all__ = [
    "Action",
    "AttachPort",
    "Enable",
    "File",
    "Install",
    "InstallEngine",
    "MoveDatabase",
    "Plan",
    "RaiseBridge",
    "RemovePidFile",
    "RemoveRule",
    "RestartEngine",
    "RestoreAddress",
    "RestoreConfig",
    "Selection",
    "SetConfig",
    "SettingsAction",
    "SettingsPlan",
    "Source",
    "Start",
    "StartAgain",
    "StartContainerd",
    "TakeUp",
    "Trust",
    "WriteSource",
    "add_first_settings",
    "find_source",
    "plan_engine",
    "plan_settings",
    "select_packages",
]
