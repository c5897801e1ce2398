"""What is to be done about a host's resolver and its caches. Pure."""

from stackmend.resolver.plan.caches import Flush, plan_caches
from stackmend.resolver.plan.owners import File, Setting, find_owner
from stackmend.resolver.plan.servers import Enable, SetServers, check_servers, plan_servers

__all__ = [
    "Enable",
    "File",
    "Flush",
    "SetServers",
    "Setting",
    "check_servers",
    "find_owner",
    "plan_caches",
    "plan_servers",
]
