"""Whether a host's DNS servers are those desired, and whether they may be set. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from stackmend import decision
from stackmend.decision import Refusal
from stackmend.paths import STATE_ROOT
from stackmend.resolver.plan.owners import (
    RESOLV_CONF,
    File,
    Owner,
    Setting,
    find_owner,
    plan_owner,
)
from stackmend.resolver.spec import ServersSpec
from stackmend.resolver.state import Answers, HostResolver, Reply

#: A name that nobody may give an address to: whoever does invents answers.
NO_SUCH_NAME = "stackmend-check.invalid"

_FORCE = 'to allow it, set "on_conflict": "force" in the stack\'s "resolver" section'
_NXDOMAIN = 3
_CODES = {0: "no address", 2: "SERVFAIL", _NXDOMAIN: "NXDOMAIN", 5: "REFUSED"}


class SetServers(decision.Action):
    """Have the host ask these servers, for good; reverted unless names resolve afterwards.

    :param owner: who owns the resolver, and so takes the servers.
    :param servers: the servers.
    :param files: what is written.
    :param settings: what NetworkManager is told.
    :param reload: what takes it up.
    :param immutable: whether ``/etc/resolv.conf`` is immutable, and is made so again.
    """

    verb: Literal["set"] = "set"
    owner: Owner
    servers: tuple[str, ...]
    files: tuple[File, ...] = ()
    settings: tuple[Setting, ...] = ()
    reload: tuple[str, ...] = ()
    immutable: bool = False


class ServersPlan(decision.Plan[SetServers]):
    """What was found, what will be done, and what will not."""


def plan_servers(
    spec: ServersSpec, state: HostResolver, answers: Answers | None = None
) -> ServersPlan:
    """What is to be done so that a host asks these servers.

    :param spec: what is desired.
    :param state: what the host has.
    :param answers: what the servers answer; None where they were not asked yet, which is needed
        before anything is done.
    """
    if not state.root:
        return ServersPlan(refusals=(_refuse_unprivileged(),))
    owner, evidence = find_owner(state)
    drafted = plan_owner(owner, spec, state)
    cause = drafted.cause
    if state.armed:
        cause = cause or "an unverified change of it is about to be reverted"
    if not cause:
        return ServersPlan()
    refusals = drafted.refusals
    if spec.on_conflict == "refuse":
        refusals += tuple(_find_conflicts(owner, state, drafted.files))
    if answers is not None:
        refusals += tuple(check_servers(spec, answers))
    if refusals:
        return ServersPlan(refusals=refusals)
    action = SetServers(
        subject=f"DNS servers {', '.join(spec.servers)}",
        cause=f"{cause} ({owner}: {evidence})",
        undo=f"what was there before is kept in {STATE_ROOT}/resolver/kept",
        owner=owner,
        servers=spec.servers,
        files=drafted.files,
        settings=drafted.settings,
        reload=drafted.reload,
        immutable=state.file.immutable,
    )
    return ServersPlan(actions=(action,))


def check_servers(spec: ServersSpec, answers: Answers) -> Iterator[Refusal]:
    """A refusal for each server that does not answer as it has to.

    :param spec: the servers and the names.
    :param answers: what they answer.
    """
    for server in spec.servers:
        if reason := _find_fault(spec.check_names, answers.replies.get(server, {})):
            yield Refusal(
                subject=f"DNS server {server}",
                reason=reason,
                remedy='name another server in stack["resolver"]["servers"], or mend this one; '
                'what it is asked is stack["resolver"]["check_names"]',
            )


def _find_fault(names: tuple[str, ...], replies: Mapping[str, Reply]) -> str:
    """What is wrong with a server; empty where nothing is."""
    if not replies:
        return "does not answer: asked from the host over UDP, port 53, twice for each name"
    invented = replies.get(NO_SUCH_NAME)
    if invented is not None and invented.addresses:
        return (
            f"invents answers: it says that {NO_SUCH_NAME}, which cannot exist, is "
            f"{invented.addresses[0]}"
        )
    good = [name for name in names if (reply := replies.get(name)) and reply.addresses]
    bad = [f"{name} ({_describe(replies.get(name))})" for name in names if name not in good]
    if not bad:
        return ""
    if not good:
        return f"resolves none of the check names: {', '.join(bad)}"
    return f"does not resolve {', '.join(bad)}; it resolves {', '.join(good)}"


def _describe(reply: Reply | None) -> str:
    if reply is None:
        return "no answer"
    return _CODES.get(reply.code, f"code {reply.code}")


def _find_conflicts(
    owner: Owner, state: HostResolver, files: tuple[File, ...]
) -> Iterator[Refusal]:
    if state.file.immutable and any(file.path == RESOLV_CONF for file in files):
        yield Refusal(
            subject=RESOLV_CONF,
            reason="it is immutable (chattr +i): somebody wants it to stay as it is",
            remedy=f"{_FORCE}; it is immutable again afterwards",
        )
    if owner == "systemd-resolved":
        for name, domains in [
            ("systemd-resolved itself", state.domains),
            *((f"link {link.name}", link.domains) for link in state.links),
        ]:
            if "~." in domains:
                yield Refusal(
                    subject="split DNS",
                    reason=f"the routing domain ~. sends all names to {name}",
                    remedy=f"remove that domain, or leave the servers as they are; {_FORCE}",
                )
        return
    tunnels = {link.name for link in state.links if link.tunnel}
    tunnels |= {item.device for item in state.connections if item.kind in ("vpn", "wireguard")}
    named = {link: servers for link, servers in state.records.items() if servers}
    named |= {link: (server,) for server, link in state.routes.items()}
    if owner == "NetworkManager":
        named |= {
            item.device: (item.settings["dns"],)
            for item in state.connections
            if item.settings.get("dns")
        }
    for link, servers in sorted(named.items()):
        if link.partition(".")[0] in tunnels:
            yield Refusal(
                subject=f"VPN {link}",
                reason=f"it has its own server {', '.join(servers)}, and {owner} keeps one list "
                "for all names: its names would resolve no more",
                remedy=f"have systemd-resolved split names by link; or {_FORCE}",
            )


def _refuse_unprivileged() -> Refusal:
    return Refusal(
        subject="host",
        reason="neither root nor allowed to become root",
        remedy="set _sudo = True in the host's data, or log in as root",
    )
