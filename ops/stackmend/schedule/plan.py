"""What is done so that ``stackmend reconcile`` runs by itself, or does not any more. Pure."""

from collections.abc import Mapping
from typing import Literal

from stackmend import decision
from stackmend.decision import Finding, Refusal
from stackmend.frozen import Frozen
from stackmend.problems import show
from stackmend.schedule.spec import TimerSpec
from stackmend.schedule.state import HostSchedule, Interpreter
from stackmend.schedule.units import Job, log_in, make_table, make_units

#: The oldest Python that stackmend runs with.
OLDEST = (3, 11)

#: Exit codes of a unit whose program could not be started: systemd's, and those of `env`.
_NOT_STARTED = ("203", "126", "127")

_RELOAD = '"allow": ["daemon-reload"] in the stack\'s "schedule" section'


class Bring(decision.Action):
    """Bring the program and the settings to a host that mends itself."""

    verb: Literal["bring"] = "bring"
    python: str
    tag: str


class Write(decision.Action):
    """Write the timer's files, and start it."""

    verb: Literal["set"] = "set"
    files: Mapping[str, str]


class Remove(decision.Action):
    """Stop the timer, and remove all of it."""

    verb: Literal["remove"] = "remove"
    paths: tuple[str, ...]


Action = Bring | Write | Remove


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""


class Desired(Frozen):
    """What a host is to have, once this run's own side of it is known.

    :param spec: when it is run.
    :param job: what is run.
    :param host: the host's name in the inventory.
    :param generation: the digest of the program and the settings that the host is to run.
    :param problem: why this machine cannot say what is to be run, and what would allow it.
    """

    spec: TimerSpec
    job: Job
    host: str
    generation: str = ""
    problem: tuple[str, str] | None = None


def plan(desired: Desired, state: HostSchedule) -> Plan:
    """What is to be done so that a host has a timer, or none.

    :param desired: what it is to have.
    :param state: what it has.
    """
    refusal = _refuse(desired, state)
    if refusal is not None:
        return Plan(refusals=(refusal,))
    spec = desired.spec
    if not spec.present:
        return _plan_absence(spec, state)
    actions: list[Action] = []
    python = choose_python(state)
    if (
        spec.mode == "host"
        and python is not None
        and (cause := _find_fault(desired, state, python))
    ):
        actions.append(
            Bring(
                subject="stackmend and the settings of this host",
                cause=cause,
                python=python.path,
                tag=python.tag,
                undo='"present": False in the stack\'s "schedule" section',
            )
        )
    files = _make_files(desired, state)
    causes = [
        _describe(path, state.files) for path in files if files[path] != state.files.get(path)
    ]
    if state.init == "systemd":
        if not causes and state.unread:
            causes.append("systemd has not read its files again")
        if not causes and not state.enabled:
            causes.append("it does not start with the host")
        if not causes and not state.active:
            causes.append("it does not run")
    if causes:
        actions.append(
            Write(
                subject=spec.unit,
                cause="; ".join(causes),
                files=files,
                undo='"present": False in the stack\'s "schedule" section',
            )
        )
    findings = _find(spec, state, mended=bool(actions))
    if any(isinstance(action, Bring) for action in actions) and spec.ping is None:
        findings = (*findings, _find_unheard(spec))
    if actions and state.reload_takes and "daemon-reload" not in spec.allow and causes:
        return Plan(findings=findings, refusals=(_refuse_reload(state),))
    return Plan(findings=findings, actions=tuple(actions))


def _find_fault(desired: Desired, state: HostSchedule, python: Interpreter) -> str:
    """What is wrong with what a host mends itself with; empty where nothing is."""
    if not state.generation:
        return "the host is to mend itself, and has neither"
    if state.generation != make_generation(desired.generation, python.tag):
        return "its program or its settings are not those of this run"
    if not state.starts:
        return "its program does not start any more"
    return "" if state.intact else "somebody changed its settings or their files"


def find_mended(desired: Desired, *, confined: bool) -> Plan:
    """What a run that a timer began says of its own unit, which it may not change.

    :param desired: what this machine is to have.
    :param confined: whether this run may change nothing of this machine.
    """
    if not confined or desired.job.confined:
        return Plan()
    finding = Finding(
        subject=desired.spec.unit,
        kind="confined",
        cause="the inventory has this machine mended, and its timer may change nothing of it",
        remedy="run `stackmend site` with this inventory here, which sets the timer anew",
    )
    return Plan(findings=(finding,))


def choose_python(state: HostSchedule) -> Interpreter | None:
    """The Python of a host that is new enough; ``None`` without any."""
    return next((python for python in state.interpreters if python.number >= OLDEST), None)


def make_generation(digest: str, tag: str) -> str:
    """The name of what a host runs by itself.

    :param digest: of the program and the settings.
    :param tag: what the host's Python takes, such as ``cp311``.
    """
    return f"{digest}-{tag}"


def _make_files(desired: Desired, state: HostSchedule) -> dict[str, str]:
    job = log_in(desired.job, state.login)
    if state.init == "systemd":
        return make_units(desired.spec, job, state.version)
    own = state.cron == "crontab"
    table = make_table(desired.spec, job, desired.host, state.tools, own=own)
    return {state.cron: table}


def _describe(path: str, files: Mapping[str, str]) -> str:
    return f"{path} is not as it is to be" if path in files else f"there is no {path}"


def _plan_absence(spec: TimerSpec, state: HostSchedule) -> Plan:
    paths = tuple(dict.fromkeys((*state.leftovers, *state.files)))
    if not paths:
        return Plan()
    if state.init == "systemd" and state.reload_takes and "daemon-reload" not in spec.allow:
        return Plan(refusals=(_refuse_reload(state),))
    cause = "the settings ask for no timer, and there is one"
    return Plan(actions=(Remove(subject=spec.unit, cause=cause, paths=paths),))


def _find(spec: TimerSpec, state: HostSchedule, *, mended: bool) -> tuple[Finding, ...]:
    findings = []
    if state.foreign:
        findings.append(
            Finding(
                subject=spec.unit,
                kind="changed by drop-ins",
                cause="somebody's files change what the units of stackmend say: "
                + ", ".join(state.foreign),
                remedy="remove them, or leave them where they are meant",
                blocks=False,
            )
        )
    if state.failure:
        findings.append(
            Finding(
                subject=spec.unit,
                kind="last run failed",
                cause=f"the last run that the timer began has failed: {state.failure}",
                remedy=f"read `journalctl -t {spec.unit} -e` on the host",
                # Then nothing runs at all.
                blocks=not mended and state.failure.rpartition(" ")[2] in _NOT_STARTED,
            )
        )
    return tuple(findings)


def _find_unheard(spec: TimerSpec) -> Finding:
    return Finding(
        subject=spec.unit,
        kind="unheard",
        cause="nobody hears how the host's own runs end: its messages stay on this machine",
        remedy='add "ping": "https://..." to the stack\'s "schedule" section',
        blocks=False,
    )


def _refuse_reload(state: HostSchedule) -> Refusal:
    names = ", ".join(state.reload_takes)
    return Refusal(
        subject="timer",
        reason="systemd has to read its units again for it (systemctl daemon-reload), which takes "
        f"the GPU from running containers: {names}",
        remedy=f"hand the GPU to them by CDI, or add {_RELOAD} and restart them afterwards",
    )


def _refuse(desired: Desired, state: HostSchedule) -> Refusal | None:
    spec = desired.spec
    if state.system != "Linux":
        return Refusal(
            subject="timer",
            reason=f"the host runs {state.system or 'an unknown system'}, and stackmend has timers "
            "for Linux alone",
            remedy="run `stackmend reconcile` there by launchd or the task scheduler, and remove "
            '"schedule" from this host\'s stack',
        )
    if not state.root:
        return Refusal(
            subject="timer",
            reason="only root can set a timer of the system",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    if spec.mode == "controller" and not state.same:
        return Refusal(
            subject="timer",
            reason=f"mode controller runs the whole fleet from this machine, and {desired.host} "
            "is another",
            remedy='add ("@local", {"_sudo": True, "stack": {"schedule": {"mode": "controller"}}}) '
            'to the hosts of the inventory, or set "mode": "host" for this host',
        )
    if not spec.present:
        return None
    if desired.problem is not None:
        reason, remedy = desired.problem
        return Refusal(subject="timer", reason=reason, remedy=remedy)
    if spec.mode == "controller" and state.inventory not in ("", desired.job.command[-1]):
        return Refusal(
            subject="timer",
            reason=f"{spec.unit} runs another inventory: {show(state.inventory)}",
            remedy='add "name": "..." to the stack\'s "schedule" section, so that each has its '
            'own, or end that one by "present": False there; where the inventory has moved, remove '
            "the file that it was",
        )
    return _refuse_init(desired, state) or _refuse_program(spec, state)


def _refuse_init(desired: Desired, state: HostSchedule) -> Refusal | None:
    spec = desired.spec
    if state.init == "systemd":
        if state.misfit:
            return Refusal(
                subject="timer",
                reason=f"systemd of this host does not take {spec.at!r}: {state.misfit}",
                remedy='correct "at" in the stack\'s "schedule" section; `systemd-analyze '
                "calendar` on the host tries it",
            )
        if state.masked:
            return Refusal(
                subject="timer",
                reason=f"somebody masked {spec.unit}",
                remedy=f"systemctl unmask {spec.unit}.timer {spec.unit}.service, or set "
                '"present": False in the stack\'s "schedule" section',
            )
        return None
    if state.init != "cron":
        return Refusal(
            subject="timer",
            reason="the host has neither systemd nor cron",
            remedy="install cron there",
        )
    if missing := [tool for tool in ("flock", "timeout") if tool not in state.tools]:
        return Refusal(
            subject="timer",
            reason=f"the host has cron without {' and '.join(missing)}, which keep a run from "
            "overlapping the next",
            remedy="install util-linux and coreutils there",
        )
    if not state.cron_runs:
        return Refusal(
            subject="timer",
            reason="the host has no systemd, and cron does not run",
            remedy="start cron there, and have it start with the host",
        )
    if not _make_files(desired, state)[state.cron]:
        return Refusal(
            subject="timer",
            reason=f"cron has no times such as {spec.at!r}, and the host has no systemd",
            remedy='set "every", or "at" as a time of day with weekdays, in the stack\'s '
            '"schedule" section',
        )
    return None


def _refuse_program(spec: TimerSpec, state: HostSchedule) -> Refusal | None:
    if spec.mode != "host" or choose_python(state) is not None:
        return None
    found = ", ".join(python.version for python in state.interpreters) or "none"
    return Refusal(
        subject="timer",
        reason="mode host needs Python 3.11 or newer with the modules venv, ssl and ctypes on the "
        f"host; it has {found}",
        remedy="install python3 (3.11 or newer) there, or run the fleet from this machine with "
        '"mode": "controller"',
    )
