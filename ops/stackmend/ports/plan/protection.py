"""What is never stopped, whatever a rule allows, and what the user can do instead. Pure."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from stackmend.ports import darwin, windows
from stackmend.ports.format import name_program
from stackmend.ports.plan.target import Connections, Target, Units, list_names
from stackmend.ports.spec import RULE_KINDS, PortsSpec, is_named
from stackmend.ports.state import Holder, HostPorts, Process


class Protection(NamedTuple):
    """Why something is not stopped, and what can be done instead."""

    reason: str
    remedy: str


_ENGINE = "stop the container or the plugin that it holds the port for, or give it another port"
_NETWORK = "give your service another port or address, or configure that program to leave it"
_SSHD = "close the session that forwards the port, or give the SSH server another one"
_SYSTEM = "configure it to listen elsewhere, or give your service another port"
_RESOLVED = (
    "set DNSStubListener=no in /etc/systemd/resolved.conf AND link /etc/resolv.conf to "
    "/run/systemd/resolve/resolv.conf, then `systemctl restart systemd-resolved`; or bind port 53 "
    "of one address of the host that is not 127.0.0.53"
)

#: Programs by the name of their file, wherever it lies: what a host cannot be without, what other
#: people's logins or containers hang on.
_PROGRAMS: tuple[tuple[str, str, str], ...] = (
    (
        r"(?:docker-)?(?:dockerd|containerd|containerd-shim.*|docker-proxy|rootlesskit|"
        r"rootlesskit-docker-proxy|rootlessport|runc|crun|crio|conmon|conmonrs|buildkitd)"
        r"(?:-(?:current|ce|dev|rootless.*))?",
        "it is part of a container engine, and ending it would end containers",
        _ENGINE,
    ),
    (
        r"kubelet|kubelite|kube-proxy|kube-apiserver|k3s|k3s-.*|k0s|rke2",
        "it is part of Kubernetes",
        "give your service another port, or change the Kubernetes service that has it",
    ),
    (r"systemd-resolved", "it is the host's resolver", _RESOLVED),
    (r"systemd-networkd|NetworkManager|nm-.*", "the host's network hangs on it", _NETWORK),
    (
        r"systemd|systemd-executor|systemd-(?:journald|logind|udevd|machined|homed|userdbd)|init|"
        r"dbus-daemon|dbus-broker|dbus-broker-launch",
        "the host itself hangs on it",
        _SYSTEM,
    ),
    (r"sshd|sshd-session|sshd-auth", "ending it would cut somebody off", _SSHD),
)

#: Units whose every process is protected.
_UNITS: tuple[tuple[str, str, str], ...] = (
    ("docker.service docker.socket snap.docker.* containerd.service", *_PROGRAMS[0][1:]),
    ("kubelet.service k3s.service k3s-agent.service snap.microk8s.*", *_PROGRAMS[1][1:]),
    ("systemd-resolved.service systemd-resolved-*.socket", *_PROGRAMS[2][1:]),
    ("systemd-networkd.service systemd-networkd*.socket NetworkManager.service", *_PROGRAMS[3][1:]),
    (
        "systemd-journald.service systemd-journald*.socket systemd-logind.service "
        "systemd-udevd.service systemd-udevd-*.socket dbus.service dbus.socket "
        "dbus-broker.service init.scope",
        *_PROGRAMS[4][1:],
    ),
    (
        "ssh.service sshd.service ssh.socket sshd.socket ssh@*.service sshd@*.service",
        *_PROGRAMS[5][1:],
    ),
)


#: Programs by whose own connections somebody may come in, and perhaps we ourselves.
_TUNNELS = re.compile(
    r"ssh|autossh|dropbear|dbclient|cloudflared|tailscaled|openvpn|wireguard.*|frpc|ngrok|zerotier-one"
)


def find_protection(target: Target, spec: PortsSpec, state: HostPorts) -> Protection | None:
    """Why a target is never stopped; ``None`` where a rule may allow it."""
    others = _list_unit_processes(target, state)
    processes = (*target.processes, *others)
    guarded = _protect_connection(target, processes, state)
    if guarded is not None:
        return guarded
    for unit in target.units:
        for patterns, reason, remedy in _UNITS:
            if any(fnmatchcase(unit, pattern) for pattern in patterns.split()):
                return Protection(reason, remedy)
    # What runs in a container is known by the container, whatever it calls itself.
    if target.container is None:
        for process in processes:
            if (protection := _protect_program(process, target)) is not None:
                return protection
    if isinstance(target.owner, Connections) and _TUNNELS.fullmatch(
        name_program(target.owner.process)
    ):
        return Protection("it may be somebody's way to this host", _NETWORK)
    for holder in target.holders:
        if protection := _protect_other_system(holder, state):
            return protection
    return _protect_named(target, others, spec)


def _list_unit_processes(target: Target, state: HostPorts) -> tuple[Process, ...]:
    """What else is known to run in the units that would be stopped, behind a socket unit too."""
    if not isinstance(target.owner, Units):
        return ()
    return tuple(
        process
        for process in state.processes.values()
        if process.unit in target.owner.names
        and (process.manager or "system") == target.owner.manager
    )


def _protect_connection(
    target: Target, processes: Sequence[Process], state: HostPorts
) -> Protection | None:
    # Somebody else's way in may have brought us here: a web terminal, an agent.
    above = [state.processes[pid] for pid in state.guarded if pid in state.processes]
    if any(process.unit in target.units for process in above) or (
        target.container is not None
        and target.container.id in {process.container for process in above}
    ):
        return Protection("this very connection hangs on it", _SSHD)
    for process in processes:
        # systemd listens for its socket units: these are stopped, it is not signalled.
        if process.pid == 1 and not (target.units or target.container):
            return Protection("it is the host's first process", _SYSTEM)
        if process.pid in state.guarded and process.pid != 1:
            return Protection(
                "this very connection hangs on it: it is our shell, one of its ancestors, or the "
                "SSH server that we came through",
                _SSHD,
            )
        if target.members and process.pid <= 0:
            return Protection("it is part of the kernel", _SYSTEM)
    return None


def _protect_program(process: Process, target: Target) -> Protection | None:
    if process.pid == 1 and target.units:
        return None
    # A process may call itself whatever it likes: only where its program cannot be read does its
    # own name count.
    name = name_program(process)
    for pattern, reason, remedy in _PROGRAMS:
        if re.fullmatch(pattern, name):
            return Protection(reason, remedy)
    return None


def _protect_other_system(holder: Holder, state: HostPorts) -> Protection | None:
    if holder.kind == "windows" and windows.is_protected(holder):
        return Protection(
            "Windows or Docker Desktop hangs on it",
            windows.explain(holder) or "give your service another port",
        )
    if state.system == "darwin" and holder.process is not None and holder.container is None:
        if darwin.is_protected(holder):
            return Protection("macOS hangs on it", darwin.explain(holder) or _SYSTEM)
        # What it was could not be told apart from a later one for certain, nor be recorded.
        explained = darwin.explain(holder)
        end = f"end it there: kill {holder.process.pid}"
        return Protection("it runs on macOS", f"{explained} Or {end}" if explained else end)
    return None


def _protect_named(target: Target, others: Sequence[Process], spec: PortsSpec) -> Protection | None:
    container = target.container
    if (
        container is not None
        and spec.project
        and container.project == spec.project
        and not container.foreign
        and spec.directory in ("", container.working_dir)
    ):
        return Protection(
            "it is the project's own, which Compose itself stops", "stop what else holds the port"
        )
    for kind in RULE_KINDS:
        if is_named(spec.protect, kind, *list_names(target, kind, others)):
            return Protection(
                f'the stack\'s own "protect" names its {kind}',
                'take that rule out of "protect", or give your service another port',
            )
    return None
