"""The files of a timer, as text: systemd's units and a table of cron's. Pure."""

import hashlib
import shlex
from collections.abc import Iterator, Mapping

from stackmend.frozen import Frozen
from stackmend.schedule.calendar import format_calendar, format_cron
from stackmend.schedule.spec import TimerSpec

#: Where the units and the table lie on a host.
UNITS = "/etc/systemd/system"
CRON = "/etc/cron.d"

#: The first line of each file.
MADE = "# Made by stackmend (schedule.timer), which puts changes of this file back."

#: The version of systemd from which a random delay may be constant.
FIXED_DELAY = 247

#: The version of systemd that takes all of a unit's settings from `systemd-run`, too.
TRANSIENT = 247

#: The version of systemd from which a command of a service says whether it is needed.
CONDITION = 243

#: Seconds that this command has; where it does not end in time, the run is needed.
CONDITION_LIMIT = 60

#: Seconds that a run has in which a host proves what it was brought.
TRIAL = 330

#: Seconds that a run has to end once it is asked to, before all of it is killed.
STOP = 30

#: What cron's programs are found in.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Characters of a command that each cron takes.
LONGEST = 990

#: The variable by which a run knows that a timer began it.
MARK = "STACKMEND_TIMER"

#: The variable by which it knows that it may change nothing of the machine that it runs on.
CONFINED = "STACKMEND_CONFINED"

#: The exit code of a run that left a host to another run.
BUSY = 4

#: What no remedy needs of the host that it mends; root with the engine's socket is root all the
#: same.
_MILD = """\
KeyringMode=private
LockPersonality=yes
ProtectHostname=yes
RestrictRealtime=yes"""

#: What a run needs that changes nothing on this machine but its own records.
_STRICT = """\
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH
KeyringMode=private
LockPersonality=yes
NoNewPrivileges=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077"""


#: A start of the engine under way, at boot say, has a minute before a run takes it for a fault.
_AWAIT_ENGINE = (
    "n=30; while [ $n -gt 0 ]; do "
    "case $(systemctl show -p ActiveState -p Job docker.service 2>/dev/null) in "
    "*=activating*|*Job=[1-9]*) n=$((n - 1)); sleep 2 ;; *) exit 0 ;; esac; done"
)


class Job(Frozen):
    """What a timer runs.

    :param command: the program and its arguments.
    :param directory: where it runs.
    :param user: who runs it.
    :param lock: a file that nobody else may open, by which cron's runs are kept apart.
    :param writable: the directories that it writes to, where it may write to no other.
    :param environment: variables that it has, with their values.
    :param confined: whether it changes nothing of the machine that it runs on.
    :param private_tmp: whether it needs nothing of /tmp and /var/tmp, where it is confined.
    :param unchanged: the script that prints ``unchanged`` where there is nothing to run it for;
        empty where it is always run.
    :param purpose: what it does, in a line.
    """

    command: tuple[str, ...]
    directory: str
    lock: str
    user: str = "root"
    writable: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    confined: bool = False
    private_tmp: bool = True
    unchanged: str = ""
    purpose: str = "stackmend keeps this host as its settings say"


def log_in(job: Job, home: str) -> Job:
    """A job with the variables of a login, which systemd sets for no unit of root's.

    :param job: what is run.
    :param home: the directory of who runs it, on the machine that it runs on.
    """
    if job.user != "root" or not home:
        return job
    login = {"HOME": home, "USER": job.user, "LOGNAME": job.user}
    return job.model_copy(update={"environment": {**login, **job.environment}})


def make_units(spec: TimerSpec, job: Job, version: int) -> dict[str, str]:
    """The service and the timer, by their paths.

    :param spec: when it is run.
    :param job: what is run.
    :param version: systemd's.
    """
    return {
        f"{UNITS}/{spec.unit}.service": "\n".join(_list_service(spec, job, version)) + "\n",
        f"{UNITS}/{spec.unit}.timer": "\n".join(_list_timer(spec, job, version)) + "\n",
    }


def _list_service(spec: TimerSpec, job: Job, version: int) -> Iterator[str]:
    yield MADE
    yield "[Unit]"
    yield f"Description={_escape(job.purpose)}"
    yield "Wants=network-online.target"
    # Not after docker.service: a start of it that hangs is what a run is to mend.
    yield "After=network-online.target"
    yield ""
    yield "[Service]"
    yield "Type=oneshot"
    # By env, which SELinux lets systemd start, and which may start what lies below /var or /home.
    program = () if "=" in job.command[0] else ("/usr/bin/env",)
    words = (*program, *job.command)
    if job.unchanged and version >= CONDITION:
        yield f"ExecCondition=/bin/sh -c {_quote(f'! {_test(job)}').replace('$', '$$')}"
    elif job.unchanged:
        words = ("/bin/sh", "-c", f'{_test(job)} || exec "$@"', "sh", *words)
    if not job.confined:
        yield f"ExecStartPre=-/bin/sh -c {_quote(_AWAIT_ENGINE).replace('$', '$$')}"
    if job.user != "root":
        yield f"User={job.user}"
    yield f"WorkingDirectory={_escape(job.directory)}"
    yield "ExecStart=" + " ".join(_quote(word).replace("$", "$$") for word in words)
    variables = {**_list_variables(spec, job), **({CONFINED: "1"} if job.confined else {})}
    yield "Environment=" + " ".join(_quote(f"{key}={value}") for key, value in variables.items())
    yield f"SuccessExitStatus={BUSY}"
    # A oneshot has no limit of its own; stackmend ends within 20 seconds of SIGTERM.
    yield f"TimeoutStartSec={int(spec.timeout)}"
    yield f"TimeoutStopSec={STOP}"
    # A command that is still at work on this host comes to its end, as it does on any other.
    yield "KillMode=process"
    yield "Nice=5"
    yield "IOSchedulingClass=best-effort"
    yield "IOSchedulingPriority=7"
    yield "StandardOutput=journal"
    yield "StandardError=journal"
    yield f"SyslogIdentifier={spec.unit}"
    if job.confined:
        yield _STRICT
        if job.private_tmp:
            yield "PrivateTmp=yes"
        if job.writable:
            yield "ReadWritePaths=" + " ".join(_quote(f"-{path}") for path in job.writable)
    else:
        yield _MILD


def _test(job: Job) -> str:
    """What succeeds only where there is nothing to run a job for: whatever fails has it run."""
    script = f"timeout {CONDITION_LIMIT} /bin/sh {shlex.quote(job.unchanged)}"
    return f'[ "$({script})" = unchanged ]'


def _list_variables(spec: TimerSpec, job: Job) -> dict[str, str]:
    return {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1", MARK: spec.unit, **job.environment}


def make_trial(spec: TimerSpec, job: Job, version: int) -> tuple[str, ...]:
    """The words that begin a program as the timer does; variables may stand behind them.

    :param spec: when it is run.
    :param job: what is run.
    :param version: systemd's; 0 without it.
    """
    variables = {"PATH": PATH, **_list_variables(spec, job)}
    settings = tuple(f"{key}={value}" for key, value in variables.items())
    if version < TRANSIENT:
        return ("env", "-i", *settings)
    properties = [f"RuntimeMaxSec={TRIAL}", f"WorkingDirectory={job.directory}", *_MILD.split("\n")]
    words = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect")
    return (*words, *(f"--property={each}" for each in properties), "/usr/bin/env", *settings)


def _list_timer(spec: TimerSpec, job: Job, version: int) -> Iterator[str]:
    yield MADE
    yield "[Unit]"
    yield f"Description={_escape(job.purpose)}: when"
    yield ""
    yield "[Timer]"
    yield f"OnCalendar={format_calendar(spec.interval, spec.at)}"
    yield "Persistent=yes"
    yield "AccuracySec=1s"
    if spec.delay:
        yield f"RandomizedDelaySec={spec.delay}"
        if version >= FIXED_DELAY:
            yield "FixedRandomDelay=yes"
    yield ""
    yield "[Install]"
    yield "WantedBy=timers.target"


def make_table(
    spec: TimerSpec, job: Job, host: str, tools: tuple[str, ...], *, own: bool = False
) -> str:
    """The table of cron that does the same; empty where cron has no such times or lines so long.

    :param spec: when it is run.
    :param job: what is run.
    :param host: the host's name, by which it has a constant place within the delay.
    :param tools: the programs that the host has for it.
    :param own: whether it is part of the user's own table, where variables would change what stands
        behind it, and a line names no user.
    """
    fields = format_cron(spec.interval, spec.at)
    if not fields:
        return ""
    # Without a logger, the log of one run alone; where it may not be written, none.
    if "logger" in tools:
        output = f"2>&1 | logger -t {spec.unit}"
    else:
        output = ">/dev/null 2>&1" if job.user != "root" else f">/var/log/{spec.unit}.log 2>&1"
    variables = {"PATH": PATH, **_list_variables(spec, job)}
    settings = ["env", *(f"{key}={value}" for key, value in variables.items())]
    words = [*settings, *_limit(spec, tools), *job.command]
    lock = shlex.quote(job.lock)
    busy = "{ echo 'the run before is still at work'; exit; }"
    program = f"{shlex.join(words)} 9>&-"
    if job.unchanged:
        program = f"{_test(job)} || {program}"
    command = (
        f"cd {shlex.quote(job.directory)} && (umask 077; : >>{lock}) && "
        f"{{ flock -n 9 || {busy}; {program}; }} 9>>{lock} {output}"
    )
    if delay := find_place(host, spec.delay):
        command = f"sleep {delay}; {command}"
    # A percent sign is a line break to cron.
    command = command.replace("%", r"\%")
    if len(command) > LONGEST:
        return ""
    if own:
        return "\n".join([MADE, f"{fields} {command}", ""])
    return "\n".join([MADE, "SHELL=/bin/sh", 'MAILTO=""', f"{fields} {job.user} {command}", ""])


def _limit(spec: TimerSpec, tools: tuple[str, ...]) -> list[str]:
    # In the foreground it ends the program alone, and leaves the commands of a step under way.
    own = ["--foreground"] if "foreground" in tools else []
    return ["timeout", *own, "-k", str(STOP), str(int(spec.timeout))]


def find_place(host: str, delay: int) -> int:
    """The constant place of a host within a delay, in seconds.

    :param host: its name.
    :param delay: seconds.
    """
    if not delay:
        return 0
    return int.from_bytes(hashlib.sha256(host.encode()).digest()[:8]) % delay


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _quote(word: str) -> str:
    """A word of a line that systemd splits; in commands alone it expands variables, too."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
