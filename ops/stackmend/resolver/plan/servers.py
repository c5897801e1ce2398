"""Whether a host's DNS servers are those desired, and whether they may be set. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from stackmend import decision
from stackmend.decision import Finding, Refusal
from stackmend.paths import STATE_ROOT
from stackmend.resolver.plan.owners import (
    RESOLV_CONF,
    TMPFILES,
    File,
    Owner,
    Setting,
    find_owner,
    find_unmanaged,
    is_of_vpn,
    plan_owner,
)
from stackmend.resolver.spec import ServersSpec
from stackmend.resolver.state import Answers, HostResolver, Reply

#: A name that nobody may give an address to: whoever does invents answers.
NO_SUCH_NAME = "stackmend-check.invalid"

_FORCE = 'to allow it, set "on_conflict": "force" in the stack\'s "resolver" section'
_NXDOMAIN = 3
_CODES = {
    -2: "cut short, and no answer over TCP",
    -1: "no DNS",
    0: "no address",
    2: "SERVFAIL",
    _NXDOMAIN: "NXDOMAIN",
    5: "REFUSED",
}


class SetServers(decision.Action):
    """Have the host ask these servers, for good; reverted unless names resolve afterwards.

    :param owner: who owns the resolver, and so takes the servers.
    :param servers: the servers.
    :param files: what is written.
    :param settings: what NetworkManager is told.
    :param reload: what takes it up.
    :param locked: the attributes by which ``/etc/resolv.conf`` is locked, and is locked again.
    """

    verb: Literal["set"] = "set"
    owner: Owner
    servers: tuple[str, ...]
    files: tuple[File, ...] = ()
    settings: tuple[Setting, ...] = ()
    reload: tuple[str, ...] = ()
    locked: str = ""


class Enable(decision.Action):
    """Have a service start with the host."""

    verb: Literal["enable"] = "enable"
    undo: str = "systemctl disable systemd-resolved.service"


class ServersPlan(decision.Plan[SetServers | Enable]):
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
        return _plan_as_it_is(owner, spec, state, answers)
    refusals = drafted.refusals or tuple(_find_obstacles(owner, state, drafted.files))
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
        locked=state.file.locked,
    )
    return ServersPlan(
        findings=tuple(_find_slow(spec, answers or Answers())),
        actions=(action, *_plan_startup(owner, state)),
    )


def _plan_as_it_is(
    owner: Owner, spec: ServersSpec, state: HostResolver, answers: Answers | None
) -> ServersPlan:
    """What is wrong where the servers are those desired, and nothing is to be written."""
    elsewhere = [
        (name, servers)
        for name, domains, servers in _list_scopes(owner, state)
        if "~." in domains and set(servers) - set(spec.servers)
    ]
    if elsewhere and spec.on_conflict == "refuse":
        return ServersPlan(refusals=tuple(_refuse_routing(name) for name, _ in elsewhere))
    findings = [
        Finding(
            subject="split DNS",
            kind="names go elsewhere",
            cause=f"the routing domain ~. sends all names to {name}: none is asked of "
            f"{', '.join(spec.servers)}",
            evidence=(f"servers of {name}: {', '.join(servers)}",),
            remedy="remove that domain where it is set",
            blocks=False,
        )
        for name, servers in elsewhere
    ]
    findings += [
        Finding(
            subject=f"link {link.name}",
            kind="at run time alone",
            cause="neither systemd-networkd nor NetworkManager gave it its servers: they are gone "
            "when the host starts, unless what set them does so again",
            evidence=(f"{link.name} has {', '.join(link.servers)}",),
            remedy=f"resolvectl revert {link.name}, and run again: systemd-resolved itself takes "
            "them then; or leave it where ifupdown's dns-nameservers or a hook sets them",
            blocks=False,
        )
        for link in (find_unmanaged(spec, state) if owner == "systemd-resolved" else ())
    ]
    others = [server for server in state.file.servers if server not in spec.servers]
    if owner == "resolvconf" and others:
        findings.append(
            Finding(
                subject=RESOLV_CONF,
                kind="other servers",
                cause=f"resolvconf keeps {', '.join(others)} behind those desired: they are asked "
                "where these are silent",
                evidence=tuple(f"{link} has {', '.join(s)}" for link, s in state.records.items()),
                remedy="take them away where they are configured for the interface, or name three "
                "servers: glibc asks no others",
                blocks=False,
            )
        )
    return ServersPlan(
        findings=(*findings, *_find_unresolved(spec, state, answers)),
        actions=tuple(_plan_startup(owner, state)),
    )


def _find_slow(spec: ServersSpec, answers: Answers) -> Iterator[Finding]:
    for server in spec.servers:
        late = [name for name, reply in answers.replies.get(server, {}).items() if reply.late]
        if late:
            yield Finding(
                subject=f"DNS server {server}",
                kind="slow",
                cause="it takes more than a second to answer, or packets on the way to it are lost",
                evidence=(f"answered only when asked again: {', '.join(late)}",),
                remedy="name a nearer server; what is to be proven with this one takes longer: see "
                'stack["resolver"]["revert_after"]',
                blocks=False,
            )


def _plan_startup(owner: Owner, state: HostResolver) -> Iterator[Enable]:
    if owner == "systemd-resolved" and state.startup in ("disabled", "enabled-runtime"):
        cause = "it owns the resolver, and does not start with the host: no name would resolve then"
        yield Enable(subject="systemd-resolved", cause=cause)


def _find_unresolved(
    spec: ServersSpec, state: HostResolver, answers: Answers | None
) -> Iterator[Finding]:
    """What keeps the host from resolving the check names."""
    known = state.resolved
    failing = [name for name in spec.check_names if known is None or name not in known]
    if not failing:
        return
    evidence = (f"the host does not resolve {', '.join(failing)}",)
    if known is None:
        evidence = ("the host has no getent or no timeout, by which it would be asked",)
    faults = [] if answers is None else list(check_servers(spec, answers))
    for fault in faults:
        yield Finding(
            subject=fault.subject,
            kind="names do not resolve",
            cause=fault.reason,
            evidence=evidence,
            remedy=fault.remedy,
        )
    if not faults:
        yield Finding(
            subject="names",
            kind="names do not resolve",
            cause="it is not proven that the host resolves by its own resolver"
            if known is None
            else "the host's own resolver does not answer, though the DNS servers do",
            evidence=evidence,
            remedy="install getent and timeout (coreutils)"
            if known is None
            else "see what getent hosts NAME says there, the line hosts: of /etc/nsswitch.conf, "
            "and the log of what owns the resolver",
        )


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
    if all(reply.code == -1 for reply in replies.values()):
        return "answers what is no DNS: something else listens there on UDP port 53"
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
    if state.file.locked and any(file.path == RESOLV_CONF for file in files):
        word = "immutable" if "i" in state.file.locked else "append-only"
        yield Refusal(
            subject=RESOLV_CONF,
            reason=f"it is {word} (chattr +{state.file.locked}): somebody wants it to stay "
            "as it is",
            remedy=f"{_FORCE}; it is {word} again afterwards",
        )
    scopes = _list_scopes(owner, state)
    yield from (_refuse_routing(name) for name, domains, _ in scopes if "~." in domains)
    if scopes:
        return
    named = {link: servers for link, servers in state.records.items() if servers}
    named |= {link: (server,) for server, link in state.routes.items()}
    if owner == "NetworkManager":
        named |= {
            item.device: tuple(item.settings["dns"].split(","))
            for item in state.connections
            if item.settings.get("dns")
        }
    for link, servers in sorted(named.items()):
        if is_of_vpn(link, state):
            yield Refusal(
                subject=f"VPN {link}",
                reason=f"it has its own server {', '.join(servers)}, and {owner} keeps one list "
                "for all names: its names would resolve no more",
                remedy=f"have systemd-resolved split names by link; or {_FORCE}",
            )


def _find_obstacles(
    owner: Owner, state: HostResolver, files: tuple[File, ...]
) -> Iterator[Refusal]:
    """What keeps the files from being written whole; no consent changes that."""
    file = state.file
    written = any(item.path == RESOLV_CONF for item in files)
    # Where it leads astray, what owns it may make that directory yet.
    if file.kind in _BROKEN and (written or file.kind != "astray"):
        reason, remedy = _BROKEN[file.kind]
        yield Refusal(subject=RESOLV_CONF, reason=reason.format(file.target), remedy=remedy)
        return
    if owner == "systemd-resolved" and not state.mode and state.startup in _UNSTARTABLE:
        reason, remedy = _UNSTARTABLE[state.startup]
        yield Refusal(subject="systemd-resolved", reason=reason, remedy=remedy)
    if file.closed and written:
        yield Refusal(
            subject=RESOLV_CONF,
            reason=f"root cannot write to {file.closed}: mounted read-only, or locked by chattr",
            remedy=f"see findmnt -T {file.closed} and lsattr -d {file.closed}; make it writable, "
            "or have a file of its own in the place of the link",
        )
    for item in files:
        text = file.text if item.path in (RESOLV_CONF, TMPFILES) else state.files.get(item.path, "")
        if reason := _find_unreadable(text):
            subject = RESOLV_CONF if item.path == TMPFILES else item.path
            yield Refusal(
                subject=subject,
                reason=f"{reason}: it would not be the same file when it is written again",
                remedy=f"look at it (file {subject}), and move it elsewhere or mend it",
            )
            return


_BROKEN = {
    "directory": (
        "it is a directory: nothing can resolve by it, nor be written there",
        f"see what is in it, then mv {RESOLV_CONF} {RESOLV_CONF}.old",
    ),
    "special": (
        "it is no file (a FIFO, a socket or a device): whoever reads it may wait forever",
        f"mv {RESOLV_CONF} {RESOLV_CONF}.old",
    ),
    "astray": (
        "it is a link that leads to itself or into a directory that is not there: {}",
        f"rm {RESOLV_CONF}, or make that directory",
    ),
}
_UNSTARTABLE = {
    "not-found": (
        f"{RESOLV_CONF} leads to its file, and it is not installed",
        f"install systemd-resolved, or rm {RESOLV_CONF} to have a file of its own there",
    ),
    "masked": (
        "it is masked: it does not start",
        "systemctl unmask systemd-resolved.service",
    ),
}

#: Bytes of a file at most, with the end of its last line, which it may lack; the probe prints more.
_LARGEST = 65537


def _find_unreadable(text: str) -> str:
    """Why a file cannot be written as it was read; empty where it can."""
    if len(text.encode(errors="replace")) > _LARGEST:
        return f"it has more than {_LARGEST // 1024} KiB"
    if "\0" in text or "\ufffd" in text:
        return "it has bytes that are no UTF-8 text"
    if text.replace("\r\n", "\n").splitlines() != text.replace("\r\n", "\n").split("\n")[:-1]:
        return "it has control characters that part lines"
    return ""


def _list_scopes(
    owner: Owner, state: HostResolver
) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """What systemd-resolved routes names to: in words, its domains, its servers."""
    if owner != "systemd-resolved":
        return []
    return [
        ("systemd-resolved itself", state.domains, state.servers),
        *((f"link {link.name}", link.domains, link.servers) for link in state.links),
    ]


def _refuse_routing(name: str) -> Refusal:
    return Refusal(
        subject="split DNS",
        reason=f"the routing domain ~. sends all names to {name}",
        remedy=f"remove that domain, or leave the servers as they are; {_FORCE}",
    )


def _refuse_unprivileged() -> Refusal:
    return Refusal(
        subject="host",
        reason="neither root nor allowed to become root",
        remedy="set _sudo = True in the host's data, or log in as root",
    )
