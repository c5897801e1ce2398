"""What a host lacks before a stack can come to it. Pure."""

from typing import Literal

from stackmend import decision
from stackmend.basics.spec import BasicsSpec
from stackmend.basics.state import Clock, HostBasics, Unit, Updates
from stackmend.decision import Finding, Refusal
from stackmend.paths import STATE_ROOT
from stackmend.ports.spec import compress_ports, list_unreserved

#: Seconds that a clock may be away from ours before it is told, and before nothing goes well with
#: it: certificates that were just made are not valid yet, tokens are over.
REPORTED, WRONG = 2.0, 60.0

#: The package that keeps a clock right, and its service, by package manager.
TIME_SERVICES = {
    "apt": ("systemd-timesyncd", "systemd-timesyncd.service"),
    "dnf": ("chrony", "chronyd.service"),
    "apk": ("chrony", "chronyd"),
}

#: What apt's daily jobs are to be set to.
PERIODIC = {
    "APT::Periodic::Update-Package-Lists": "1",
    "APT::Periodic::Unattended-Upgrade": "1",
}

#: What dnf's automatic job is to be set to. ``default`` upgrades everything; who chose that gets
#: the security updates as well.
AUTOMATIC = {"apply_updates": ("yes", "true", "1"), "upgrade_type": ("security", "default")}

_NO_CLOCK = '"clock": False in the stack\'s "access" section leaves the clock alone'
_NO_UPDATES = '"security_updates": False in the stack\'s "access" section leaves them alone'


class Install(decision.Action):
    """Install packages, and start what they bring, now and with the host."""

    verb: Literal["install"] = "install"
    packages: tuple[str, ...]
    units: tuple[str, ...] = ()


class Start(decision.Action):
    """Start units, now and with the host."""

    verb: Literal["start"] = "start"
    units: tuple[str, ...]


class SetUpdates(decision.Action):
    """Have the distribution's security updates installed every day."""

    verb: Literal["set"] = "set"


class Reserve(decision.Action):
    """Keep ports from outgoing connections; the subject is their ranges."""

    verb: Literal["reserve"] = "reserve"


Action = Install | Start | SetUpdates | Reserve


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""


def plan(spec: BasicsSpec, state: HostBasics) -> Plan:
    """What is to be done so that the host has what its spec says.

    :param spec: what is desired.
    :param state: what the host has.
    """
    parts = [
        _plan_clock(state) if spec.clock else Plan(),
        _plan_updates(state) if spec.security_updates else Plan(),
        _plan_ports(spec, state),
    ]
    found = Plan(
        findings=tuple(finding for part in parts for finding in part.findings),
        actions=tuple(action for part in parts for action in part.actions),
        refusals=tuple(refusal for part in parts for refusal in part.refusals),
    )
    if found.actions and not state.root:
        refusal = Refusal(
            subject="host",
            reason="only root can do this: " + "; ".join(map(str, found.actions)),
            remedy="connect as root, or set _sudo = True in the host's data",
        )
        return Plan(findings=found.findings, refusals=(*found.refusals, refusal))
    return found


def _plan_clock(state: HostBasics) -> Plan:
    clock = state.clock
    findings = tuple(filter(None, (_find_skew(clock),)))
    if clock.outside:
        return Plan(findings=findings)
    running = [unit for unit in clock.services if unit.active]
    if running:
        unit = running[0]
        if unit.enabled:
            return Plan(findings=findings)
        return Plan(
            findings=findings,
            actions=(_start(unit.name, "it keeps the clock right, but only until the next start"),),
        )
    startable = [unit for unit in clock.services if unit.load == "loaded"]
    if startable:
        # One that is started with the host, and failed, was chosen by somebody.
        unit = sorted(startable, key=lambda unit: not unit.enabled)[0]
        return Plan(
            findings=findings,
            actions=(_start(unit.name, "nothing keeps the clock right, and it is installed"),),
        )
    masked = [unit.name for unit in clock.services if unit.load == "masked"]
    if masked:
        refusal = Refusal(
            subject="clock",
            reason=f"nothing keeps it right, and somebody masked {', '.join(masked)}",
            remedy=f"systemctl unmask {masked[0]}; {_NO_CLOCK}",
        )
        return Plan(findings=findings, refusals=(refusal,))
    if not state.manager or not state.init:
        refusal = Refusal(
            subject="clock",
            reason="nothing keeps it right, and how to install something on "
            f"{state.system or 'this system'} is not known",
            remedy=f"install chrony there; {_NO_CLOCK}",
        )
        return Plan(findings=findings, refusals=(refusal,))
    package, unit_name = TIME_SERVICES[state.manager]
    action = Install(
        subject=package,
        cause="nothing keeps the clock right, and a wrong one breaks TLS",
        packages=(package,),
        units=(unit_name,),
        undo=f"remove the package {package}",
    )
    return Plan(findings=findings, actions=(action,))


def _start(unit: str, cause: str) -> Start:
    return Start(
        subject=unit,
        cause=cause,
        units=(unit,),
        undo=f"stop and disable {unit}",
    )


def _find_skew(clock: Clock) -> Finding | None:
    skew = clock.skew
    if abs(skew) < REPORTED:
        return None
    side = "ahead of" if skew > 0 else "behind"
    cause = f"at least {abs(skew):.0f} s {side} this machine's"
    if clock.outside:
        remedy = f"the host is a container ({clock.outside}): set the clock of the machine it is on"
    elif clock.synchronized:
        remedy = "check this machine's clock: the host's kernel says that its own is right"
    else:
        remedy = (
            "no time server has answered the host yet: let UDP port 123 through, or name a server "
            "that it reaches (timesyncd.conf, chrony.conf)"
        )
    return Finding(
        subject="clock",
        kind="skew",
        cause=f"{cause}; {remedy}",
        blocks=abs(skew) > WRONG,
    )


def _plan_updates(state: HostBasics) -> Plan:
    updates = state.updates or Updates()
    masked = [unit.name for unit in updates.timers if unit.load == "masked"]
    if masked:
        refusal = Refusal(
            subject="security updates",
            reason=f"somebody masked {', '.join(masked)}",
            remedy=f"systemctl unmask {' '.join(masked)}; {_NO_UPDATES}",
        )
        return Plan(refusals=(refusal,))
    match state.manager:
        case "apt":
            package = "unattended-upgrades"
            timers = ["apt-daily.timer", "apt-daily-upgrade.timer"]
            settings = {
                name: value
                for name, value in PERIODIC.items()
                if updates.settings.get(name, "0") == "0"
            }
        case "dnf":
            five = "dnf" in updates.settings or "dnf5-plugin-automatic" in updates.packages
            package = "dnf5-plugin-automatic" if five else "dnf-automatic"
            timers = ["dnf5-automatic.timer" if five else "dnf-automatic.timer"]
            settings = {
                name: values[0]
                for name, values in AUTOMATIC.items()
                if updates.settings.get(name) not in values
            }
        case _:
            refusal = Refusal(
                subject="security updates",
                reason=f"{state.system or 'this system'} has nothing that installs them by itself",
                remedy=_NO_UPDATES,
            )
            return Plan(refusals=(refusal,))
    names = ", ".join(f"{name} {value}" for name, value in settings.items())
    actions: list[Action] = []
    if package not in updates.packages:
        actions.append(
            Install(
                subject=package,
                cause="the spec asks for security updates, and nothing installs them",
                packages=(package,),
                undo=f"remove the package {package}",
            )
        )
    if settings:
        actions.append(
            SetUpdates(
                subject="security updates",
                cause=f"not set: {names}",
                undo=f"the file before is kept in {STATE_ROOT}/access",
            )
        )
    idle = [name for name in timers if not _is_running(updates.timers, name)]
    if idle:
        actions.append(
            Start(
                subject=", ".join(idle),
                cause="it does not run, so that no security update is installed",
                units=tuple(idle),
                undo=f"systemctl disable --now {' '.join(idle)}",
            )
        )
    return Plan(actions=tuple(actions))


def _is_running(units: tuple[Unit, ...], name: str) -> bool:
    return any(unit.name == name and unit.active and unit.enabled for unit in units)


def _plan_ports(spec: BasicsSpec, state: HostBasics) -> Plan:
    ranges = compress_ports(list_unreserved(spec.ports, state.ephemeral, state.reserved))
    if not ranges:
        return Plan()
    first, last = state.ephemeral
    action = Reserve(
        subject=ranges,
        cause=f"the kernel gives ports from {first} to {last} to outgoing connections",
        undo="ports.restored with the name of its record",
    )
    return Plan(actions=(action,))
