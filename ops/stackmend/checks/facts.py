"""Run the checks of a stack on a host; changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from stackmend.checks.diagnosis import Answer, explain, explain_shared_name
from stackmend.checks.greetings import (
    find_other_protocol,
    list_patterns,
    make_request,
    read_greeting,
)
from stackmend.checks.redis import explain_ignored, explain_passed, explain_redis
from stackmend.checks.spec import (
    Check,
    ExecCheck,
    GreetingCheck,
    HttpCheck,
    NameCheck,
    RedisCheck,
    TcpCheck,
    parse_checks,
)
from stackmend.checks.state import CheckResult, Hint, Outcome
from stackmend.connection import (
    PROBE_TIMEOUT,
    make_mark,
    parse_partial_section,
    read_frame,
    read_script,
)
from stackmend.redaction import redact

_PROBE = read_script("stackmend.connection", "own") + read_script("stackmend.checks", "probe")
_ATTEMPT = read_script("stackmend.checks", "attempt")
_FRAME = read_frame()


#: How many checks run at once, and how many of them are made from one entry into a network.
AT_ONCE = 32
GROUP = 16

#: Seconds for which what an attempt left behind in a container is looked for.
KILLING = 3


class CheckResults(FactBase[tuple[CheckResult, ...]]):
    """What each check of a stack finds on a host, in the order they were declared.

    Nothing is changed on the host. Checks run at once (32 at most), so that the fact takes as long
    as the slowest; one that fails is tried once more after a second. Checks from inside a service
    need root (also through sudo) for the host's own tools, otherwise the right to `docker exec` and
    a tool in the container; where neither is there they are `unknown`, with the reason.

    + project: the Compose project
    + checks: mappings or checks as in ``stackmend.checks.spec``; a wrong one raises
      ``pydantic.ValidationError`` before the host is asked
    + attempts: how often one that fails is tried (1 when the caller itself repeats)
    + diagnose: whether a failed one is explained in its ``details``
    + containers: the project's own, each as ``SERVICE NUMBER STATE ID NAME`` by service and number,
      where the caller has just read them; by default the host is asked for them

    **Example:**

    .. code:: python

        host.get_fact(
            CheckResults,
            project="ai",
            checks=[{"kind": "http", "url": "http://127.0.0.1:8000/healthz"}],
        )
    """

    _mark = ""
    limit = PROBE_TIMEOUT

    @override
    def command(
        self,
        project: str,
        checks: Sequence[Check | Mapping[str, Any]] | str,
        attempts: int = 2,
        diagnose: bool = True,
        containers: Sequence[str] = (),
    ) -> StringCommand:
        """Return the probe with its values; `checks` may also be JSON, as the CLI passes it."""
        raw: Sequence[Check | Mapping[str, Any]]
        raw = json.loads(checks) if isinstance(checks, str) else checks
        desired = parse_checks(raw)
        self._mark = make_mark()
        self.limit = find_limit(desired, attempts)
        return StringCommand(
            *_assemble(self._mark, project, desired, attempts, diagnose, containers),
            _separator="",
        )

    @staticmethod
    @override
    def default() -> tuple[CheckResult, ...]:
        """Return what is known when the host printed nothing: that nothing is known."""
        return (
            CheckResult(
                name="checks",
                outcome="unknown",
                evidence="the probe of the checks printed nothing: it could not run on this host",
            ),
        )

    @override
    def process(self, output: Iterable[str]) -> tuple[CheckResult, ...]:
        """Return the results from the lines of the probe; never raises."""
        return parse(parse_partial_section(list(output), self._mark, "checks"))


def find_limit(checks: Sequence[Check], attempts: int = 2) -> float:
    """Seconds after which checks that are still at it are ended, and are unknown.

    :param checks: those of a stack, 32 of which run at once.
    :param attempts: how often one that fails is tried, a second apart.
    """
    slowest = max((check.timeout for check in checks), default=0)
    rounds = _count_rounds(checks) * attempts
    return PROBE_TIMEOUT + rounds * (slowest + 1 + KILLING)


def _count_rounds(checks: Sequence[Check]) -> int:
    """How often the probe waits for room, where a group begins as a whole."""
    outside, groups, others = _sort(checks)
    rounds, started = 0, AT_ONCE
    for size in (*(1 for _ in outside), *map(len, groups), *(1 for _ in others)):
        started += size
        if started > AT_ONCE:
            rounds, started = rounds + 1, size
    return rounds


def _assemble(
    mark: str,
    project: str,
    checks: Sequence[Check],
    attempts: int,
    diagnose: bool,
    containers: Sequence[str],
) -> Iterable[str | QuoteString]:
    def call(function: str, *values: object) -> Iterable[str | QuoteString]:
        yield function
        for value in values:
            yield " "
            yield QuoteString(str(value))
        yield "\n"

    if not checks:
        yield f"printf '%s\\n' '{mark} begin checks' '|checks 0' '|end' '{mark} end'"
        return
    yield f"mark={mark}\n{_FRAME}begin checks\n"
    # A subshell: the probe's traps and variables are its own.
    yield "(\n"
    # First of all what is asked, so that whatever happens each check has its result.
    yield from call("printf", "checks %s\\n", len(checks))
    for index, check in enumerate(checks):
        yield from call("printf", f"{index} spec %s\\n", json.dumps(check.model_dump(mode="json")))
    # As it is: many hosts are asked at a time, and share it.
    yield _PROBE
    yield "\n"
    yield from call("checks_begin", project, attempts, _format_flag(diagnose))
    yield '[ -n "$checks_dir" ] || exit 0\n'
    yield f"cat >\"$checks_dir/attempt\" <<'STACKMEND_ATTEMPT'\n{_ATTEMPT}\nSTACKMEND_ATTEMPT\n"
    # What needs no container is under way while the containers are looked up.
    outside, groups, others = _sort(checks)
    for index, check in outside:
        function, values = _make_call(index, check)
        yield from call(function, *values)
    if groups or others:
        yield from call("checks_known" if containers else "checks_containers", *containers)
    if groups:
        yield from call("checks_groups", *(group[-1][0] for group in groups))
    for group in groups:
        yield "checks_calls() {\n"
        for index, check in group:
            function, values = _make_call(index, check)
            yield from call(function, *values)
        yield "}\n"
        yield from call("checks_group", len(group))
    for index, check in others:
        function, values = _make_call(index, check)
        yield from call(function, *values)
    yield "checks_end\n"
    yield ") | quoted\nend 0"


_Numbered = tuple[int, Check]


def _sort(
    checks: Sequence[Check],
) -> tuple[list[_Numbered], list[list[_Numbered]], list[_Numbered]]:
    """Checks from the host, those that one entry into a service's network makes, and the others."""
    outside: list[_Numbered] = []
    callers: dict[tuple[str, float], list[_Numbered]] = {}
    others: list[_Numbered] = []
    for number, check in enumerate(checks):
        if check.source is None:
            outside.append((number, check))
        elif isinstance(check, TcpCheck | GreetingCheck | RedisCheck):
            callers.setdefault((check.source, check.timeout), []).append((number, check))
        else:
            others.append((number, check))
    groups = [
        calls[at : at + GROUP] for calls in callers.values() for at in range(0, len(calls), GROUP)
    ]
    return outside, groups, others


def _make_call(index: int, check: Check) -> tuple[str, list[object]]:
    seconds = f"{check.timeout:.3f}".rstrip("0").rstrip(".")
    source = check.source or ""
    match check:
        case HttpCheck():
            path = check.target.partition("://")[2].partition("/")[2]
            return "checks_http", [
                index,
                seconds,
                source,
                check.host,
                check.port,
                " ".join(check.codes),
                _format_flag(check.contains is not None),
                check.contains or "",
                check.method,
                check.target,
                f"/{path}",
                _format_flag(check.insecure),
                *(f"{name}: {value}" for name, value in check.headers.items()),
            ]
        case TcpCheck():
            return "checks_tcp", [index, seconds, source, check.host, check.port]
        case NameCheck():
            return "checks_name", [index, seconds, source, check.host]
        case GreetingCheck():
            return "checks_greet", [
                index,
                seconds,
                source,
                check.host,
                check.port,
                " ".join(list_patterns(check)),
                _escape(make_request(check)),
            ]
        case RedisCheck():
            target = "127.0.0.1" if check.address is None else check.host
            owner = check.service
            values = [index, seconds, source, target, check.port, owner, check.role]
            return "checks_redis", values + [check.password_from] * bool(check.password_from)
        case ExecCheck():
            return "checks_exec", [
                index,
                seconds,
                source,
                check.exit_code,
                _format_flag(check.contains is not None),
                check.contains or "",
                *check.command,
            ]


def _escape(request: bytes) -> str:
    """Bytes as printf takes them: NULs have no place among a shell's arguments."""
    return "".join(f"\\{byte:03o}" for byte in request)


def _format_flag(value: bool) -> str:
    return "yes" if value else "no"


_LINE = re.compile(r"(\d{1,6}) ([a-z-]+)(?: (.*))?")


def parse(output: Iterable[str]) -> tuple[CheckResult, ...]:
    """Return the results in the probe's lines.

    A check without a result, and a probe without an answer, are `unknown`. Never raises, and never
    returns nothing when something was asked.
    """
    asked: int | None = None
    ended = False
    fatal = ""
    answers: dict[int, Answer] = {}
    for line in output:
        if match := re.fullmatch(r"checks (\d{1,6})\s*", line):
            asked = int(match[1])
        elif line.startswith("fatal "):
            fatal = line.removeprefix("fatal ").strip()
        elif line.strip() == "end":
            ended = True
        elif match := _LINE.fullmatch(line.rstrip("\r\n")):
            answers.setdefault(int(match[1]), Answer()).add(match[2], match[3] or "")
    if asked is None:
        return CheckResults.default()
    why = fatal or ("it printed nothing about this check" if ended else "it was cut off")
    return tuple(_parse_result(answers.get(index, Answer()), why, index) for index in range(asked))


def _parse_result(answer: Answer, why: str, index: int) -> CheckResult:
    try:
        check = parse_checks([json.loads(answer.get("spec"))])[0]
    except (ValueError, ValidationError):
        return CheckResult(
            name=f"check {index + 1}",
            outcome="unknown",
            evidence="the probe's answer about this check cannot be read",
        )
    outcome = _OUTCOMES.get(answer.get("result"))
    if outcome is None:
        return CheckResult(
            name=check.name,
            outcome="unknown",
            evidence=f"{check.asked}: not known, the probe gave no result ({why})",
        )
    hints: list[Hint] = []
    details: list[str] = []
    outcome_text = _explain_outcome(check, answer, outcome, hints)
    remedy = ""
    if isinstance(check, GreetingCheck) and outcome != "unknown" and (reply := _read_reply(answer)):
        outcome, text, remedy = read_greeting(check, reply)
        outcome_text = f"{text} in {answer.get_number('ms')} ms" if outcome == "passed" else text
    elif (
        isinstance(check, RedisCheck)
        and outcome == "failed"
        and (explained := explain_redis(check, answer))
    ):
        outcome, outcome_text, remedy = explained.outcome, explained.text, explained.remedy
        hints += explained.hints
    elif outcome == "failed" and _is_unanswered(check, answer):
        remedy = (
            "see which DNS server is asked there (/etc/resolv.conf; Docker's own is 127.0.0.11), "
            "and why it does not answer"
        )
    if isinstance(check, RedisCheck) and (ignored := explain_ignored(check, answer)):
        details.append(ignored)
    if outcome == "failed":
        explain(check, answer, details, hints)
    explain_shared_name(check, answer, details, hints)
    return CheckResult(
        name=check.name,
        outcome=outcome,
        evidence=f"{check.asked}{_format_place(answer)}: {outcome_text}",
        details=tuple(dict.fromkeys(details)),
        hints=tuple(dict.fromkeys(hints)),
        remedy=remedy,
        seconds=answer.get_number("ms") / 1000,
        method=answer.get("method"),
    )


_OUTCOMES: dict[str, Outcome] = {"passed": "passed", "failed": "failed", "unknown": "unknown"}


def _format_place(answer: Answer) -> str:
    name, _, running = answer.get("container").partition(" ")
    return f" ({name}, the first of {running} that run)" if running not in ("", "1") else ""


_STATUS = {
    6: "the name {host} does not resolve",
    7: "the connection to port {port} failed",
    18: "the answer began but ended before it was complete",
    28: "no answer within {timeout:g} s",
    35: "the TLS handshake failed",
    52: "the connection was accepted and closed without an answer",
    56: "the connection was reset before an answer came",
    60: "its certificate is not trusted",
}

# What tools print, in the C locale, where their exit status does not tell these apart.
_MESSAGES = (
    ("refused", "connection refused: nothing listens on port {port} of {host}"),
    ("no route to host", "no route to {host}"),
    ("unreachable", "the network of {host} is unreachable"),
    ("temporary failure in name resolution", "the name {host} does not resolve: no DNS answer"),
    ("name or service not known", "the name {host} does not resolve"),
    ("could not resolve", "the name {host} does not resolve"),
    ("unable to resolve", "the name {host} does not resolve"),
    ("bad address", "the name {host} does not resolve"),
    ("no address associated", "the name {host} does not resolve"),
    ("timed out", "no answer within {timeout:g} s"),
    ("reset by peer", "the connection was reset before an answer came"),
)


def _explain_outcome(check: Check, answer: Answer, outcome: Outcome, hints: list[Hint]) -> str:
    if "stopped" in answer:
        return _explain_stopped(answer.get("stopped"), hints)
    if outcome == "unknown":
        return _explain_unknown(answer)
    if isinstance(check, ExecCheck):
        return _explain_exec(check, answer, outcome)
    if isinstance(check, NameCheck):
        addresses = ", ".join(answer.get("resolved").split())
        return f"it is {addresses}" if outcome == "passed" else "it does not resolve"
    took = f"in {answer.get_number('ms')} ms"
    if "asleep" in answer:
        service, _, words = answer.get("asleep").partition(" ")
        states = words.split()
        hints.append("container-paused" if "paused" in states else "container-not-running")
        return (
            f"accepted, but by the kernel only: {service} is {' and '.join(dict.fromkeys(states))}"
            " and answers nothing"
        )
    if outcome == "passed":
        if isinstance(check, TcpCheck):
            return f"connected {took}"
        if isinstance(check, RedisCheck):
            return f"PONG, {explain_passed(check, answer)} {took}"
        if isinstance(check, GreetingCheck):
            return f"answered {took}"
        held = " with the text that was asked" if check.contains is not None else ""
        return f"HTTP {answer.get('status')}{held} {took}"
    return _explain_failure(check, answer) + (
        " (tried twice)" if answer.get("tries") == "2" else ""
    )


def _explain_failure(
    check: HttpCheck | TcpCheck | GreetingCheck | RedisCheck, answer: Answer
) -> str:
    reason = _explain_reason(check, answer)
    code = answer.get("status")
    if not isinstance(check, HttpCheck) or not code:
        return reason
    if not _is_accepted(check, code):
        return f"HTTP {code} instead of {' or '.join(check.codes)}"
    if answer.get("rc") == "0":
        return f"HTTP {code}, but without the text {_quote(check.contains)}"
    return f"HTTP {code}, but {reason.replace('no answer', 'the answer was not complete')}"


def _explain_reason(
    check: HttpCheck | TcpCheck | GreetingCheck | RedisCheck, answer: Answer
) -> str:
    words = answer.get("said").lower()
    status = answer.get_number("rc")
    if status in (124, 137, 143):
        status = 28
    text = _STATUS.get(status, "")
    if status not in (18, 28, 52, 60):
        text = next((sentence for word, sentence in _MESSAGES if word in words), text)
    if status == 28 and _is_unanswered(check, answer):
        text = "the name {host} got no answer within {timeout:g} s: no DNS server answers there"
    if status == 52 and isinstance(check, TcpCheck):
        text = "accepted and closed at once, as Docker's proxy does when nothing listens behind it"
    if status == 1 and isinstance(check, HttpCheck) and text == "":
        text = "what came back is not HTTP"
    if isinstance(check, RedisCheck) and (
        other := find_other_protocol("redis", _read_reply(answer))
    ):
        text = f"it speaks {other}, not redis' protocol"
    elif status == 0 and isinstance(check, RedisCheck):
        text = "what answers does not speak as redis does"
    text = text.format(host=check.host, port=check.port, timeout=check.timeout)
    return text or f"failed (exit status {status} of {answer.get('method') or 'the attempt'})"


def _is_unanswered(check: Check, answer: Answer) -> bool:
    """Whether no DNS server said anything of the name, so that nobody was connected to."""
    return not isinstance(check, ExecCheck) and "unanswered" in answer and "resolved" not in answer


def _read_reply(answer: Answer) -> bytes:
    """The first bytes of what came back, which the probe prints in hexadecimal."""
    try:
        return bytes.fromhex(answer.get("hex"))
    except ValueError:
        return b""


def _is_accepted(check: HttpCheck, code: str) -> bool:
    bounds = (code_range.partition("-") for code_range in check.codes)
    return any(low <= code <= (high or low) for low, _, high in bounds)


def _explain_exec(check: ExecCheck, answer: Answer, outcome: Outcome) -> str:
    status = answer.get("rc")
    if outcome == "passed":
        held = " with the text that was asked" if check.contains is not None else ""
        return f"ended with exit code {status}{held} in {answer.get_number('ms')} ms"
    output = f"; it said: {answer.get('out')}" if answer.get("out") else "; it said nothing"
    if status == "time":
        left = "; it may still run there: only root can end it" if "left" in answer else ""
        return f"had not ended after {check.timeout:g} s{output}{left}"
    if status == str(check.exit_code):
        return f"ended with exit code {status}, but without {_quote(check.contains)}{output}"
    if status in ("126", "127"):
        return f"could not be started there (exit code {status}){output}"
    return f"ended with exit code {status} instead of {check.exit_code}{output}"


def _explain_unknown(answer: Answer) -> str:
    if answer.get("reason"):
        return f"not known, {answer.get('reason')}"
    # Its own time is over, or it was ended from outside.
    if answer.get("rc") in ("28", "124", "137", "143"):
        return "not known: no answer came in time"
    if answer.get("rc") == "98":
        return (
            "not known: to enter the service's network root, nsenter and unshare are needed on the "
            f"host, and its container has no shell to ask from: {answer.get('said')}"
        )
    where = "neither the host nor the container has" if "container" in answer else "the host lacks"
    return f"not known: {where} a tool that can ask this (curl, wget, python3, bash or nc)"


def _explain_stopped(text: str, hints: list[Hint]) -> str:
    service, _, words = text.partition(" ")
    others = words.split()
    if not others:
        hints.append("container-missing")
        return f"{service} has no container"
    states = {other.rpartition("=")[2] for other in others}
    hints.append("container-paused" if "paused" in states else "container-not-running")
    return f"{service} is not running: {', '.join(o.replace('=', ' is ') for o in others)}"


def _quote(text: str | None) -> str:
    quoted = json.dumps(redact(text or ""), ensure_ascii=False)
    return quoted if len(quoted) <= 80 else f"{quoted[:77]}..."
