"""What a redis answered to a check: recorded from redis 7, from those before, and from liars."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend.checks.facts import CheckResults, parse
from stackmend.checks.spec import RedisCheck, parse_checks
from stackmend.checks.state import CheckResult
from stackmend.connection import read_script
from tests.marks import checked
from tests.shells import find

QUEUE = RedisCheck(service="redis", address="redis:6379", inside="api")
WELL = (
    "+PONG",
    "role:master",
    "rdb_last_bgsave_status:ok",
    "aof_last_write_status:ok",
)
MISCONF = (
    "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist on "
    "disk."
)


def result(*lines: str, check: RedisCheck = QUEUE, outcome: str = "failed") -> CheckResult:
    """What comes of a check and the probe's lines about it."""
    printed = [
        "checks 1",
        f"0 spec {json.dumps(check.model_dump(mode='json'))}",
        *(f"0 {line}" for line in ("method nsenter+bash", "ms 9", "rc 0", *lines)),
        f"0 result {outcome}",
        "end",
    ]
    (found,) = parse(printed)
    return found


def replies(*lines: str) -> list[str]:
    return [f"reply {line}" for line in lines]


def test_well() -> None:
    found = result(outcome="passed")
    assert found.ok
    assert found.evidence == (
        "ask redis at redis:6379 of redis from inside api: PONG, it takes writes in 9 ms"
    )


NOPERM = "-NOPERM this user has no permissions to run the '{}' command"


def test_an_access_list_that_forbids_part_of_what_is_asked() -> None:
    """It does not say that it takes writes."""
    found = result(*replies("+PONG", NOPERM.format("setrange")), outcome="passed")
    assert found.evidence.endswith(
        "PONG, and not all may be asked: "
        "NOPERM this user has no permissions to run the 'setrange' command in 9 ms"
    )


def test_an_access_list_that_forbids_all_that_is_asked() -> None:
    """Nothing is known of it then, and no restart is spent."""
    asked = [NOPERM.format(word) for word in ("ping", "info", "setrange")]
    found = result(*replies(*asked))
    assert found.outcome == "unknown"
    assert found.evidence.endswith(
        "not known: its access list does not let this login ask: "
        "NOPERM this user has no permissions to run the 'ping' command"
    )
    assert "acl setuser" in found.remedy
    # What it says beside of itself counts.
    assert result(*replies(MISCONF, *asked)).outcome == "failed"


NOAUTH = "-NOAUTH Authentication required."
WRONG = "-WRONGPASS invalid username-password pair or user is disabled."
BARE = "-ERR AUTH <password> called without any password configured for the default user. Are you"
REPLICA = ("role:slave", "master_host:192.0.2.66", "master_port:6379", "master_link_status:down")


@pytest.mark.parametrize(
    ("lines", "evidence", "remedy", "harms"),
    [
        (replies(NOAUTH), "asks for a password that nothing of redis declares: NOAUTH", "set", 0),
        (
            ["secret --requirepass", *replies(WRONG)],
            "it refuses the password that --requirepass of redis gives: WRONGPASS invalid",
            "changed at run time",
            0,
        ),
        # Before redis 6.
        (
            ["secret --requirepass", *replies("-ERR invalid password")],
            "it refuses the password that --requirepass of redis gives: ERR invalid password",
            "changed at run time",
            0,
        ),
        (
            ["secret /etc/redis.conf", *replies(BARE, *WELL)],
            "it lets in everybody, although /etc/redis.conf of redis gives it a password",
            "taken away at run time",
            0,
        ),
        (
            replies("+PONG", *REPLICA, "-READONLY You can't write against a read only replica."),
            "it is a replica of 192.0.2.66:6379, link down",
            "a restart",
            0,
        ),
        (replies(MISCONF, "role:master"), "refuses writes: MISCONF Redis is", "free space", 1),
        (
            replies("+PONG", "role:master", "rdb_last_bgsave_status:err"),
            "its last write to disk failed (RDB: rdb_last_bgsave_status:err)",
            "free space",
            1,
        ),
        (
            replies("+PONG", "role:master", "aof_last_write_status:err"),
            "its last write to disk failed (AOF: aof_last_write_status:err)",
            "free space",
            1,
        ),
        (
            replies(*WELL, "-OOM command not allowed when used memory > 'maxmemory'."),
            "its memory is full, and it refuses writes: OOM command",
            "maxmemory-policy",
            1,
        ),
        (replies("-LOADING Redis is loading the dataset in memory"), "still loading", "wait", 1),
        (replies(*WELL, "-NOREPLICAS Not enough good replicas"), "too few replicas", "start", 1),
        (replies("-BUSY Redis is busy running a script."), "it answers BUSY Redis is busy", "", 0),
    ],
)
def test_what_is_wrong_comes_with_its_remedy(
    lines: list[str], evidence: str, remedy: str, harms: int
) -> None:
    found = result(*lines)
    assert found.outcome == "failed"
    assert evidence in found.evidence
    assert remedy in found.remedy
    assert ("restart-harms" in found.hints) == bool(harms)


def test_a_password_that_only_a_shell_knows_is_not_known() -> None:
    found = result("secret --requirepass", "hidden --requirepass", *replies(NOAUTH))
    assert found.outcome == "unknown"
    assert "what --requirepass of redis gives cannot be read" in found.evidence


def test_what_is_no_redis() -> None:
    assert "does not speak as redis does" in result().evidence
    assert "does not resolve" in result("rc 6").evidence
    assert "connection to port 6379 failed" in result("rc 7").evidence


@given(st.lists(st.text(max_size=40), max_size=8))
def test_whatever_is_answered_a_failure_stays_no_pass(lines: list[str]) -> None:
    said = [line.replace("\n", " ").replace("\r", " ") for line in lines]
    assert not result(*replies(*said)).ok


# The password


def find_password(*lines: str) -> str:
    """What the probe reads of a container's configuration."""
    found = re.search(
        r"checks_redis_password='(.*?\n})'", read_script("stackmend.checks", "probe"), re.S
    )
    assert found is not None
    done = subprocess.run(
        ["awk", found[1]],
        input="\n".join([*lines, "D /data", ""]),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["A redis-server"], ""),
        (["A redis-server", "A --requirepass", "A it's a $PW"], "--requirepass\tit's a $PW"),
        (["A redis-server --requirepass plain --save ''"], "--requirepass\tplain"),
        (["A exec redis-server --requirepass=plain; wait"], "--requirepass\tplain"),
        (['A redis-server --requirepass "two words" --port 1'], "--requirepass\ttwo words"),
        (["A redis-server --requirepass 'a $b'"], "--requirepass\ta $b"),
        (["E PW=of env", "A sh", "A x --requirepass $PW"], "--requirepass\tof env"),
        (["E PW=x=y", 'A redis-server --requirepass "${PW}"'], "--requirepass\tx=y"),
        (["A redis-server --requirepass $UNSET"], "--requirepass\thidden"),
        (["A redis-server --requirepass $(cat /run/secrets/pw)"], "--requirepass\thidden"),
        (["A redis-server", "A --aclfile", "A /acl"], "its access list\thidden"),
        (["A redis-server --user 'app on >pw ~* +@all'"], "its access list\thidden"),
        (["A redis-server", "A --username"], ""),
        (["A redis-server", "A /etc/redis.conf"], "conf\t/etc/redis.conf"),
        (["A r", "A my.conf", "E REDISCLI_AUTH=x"], "conf\t/data/my.conf\nREDISCLI_AUTH\tx"),
        (["E REDIS_PASSWORD=x"], "REDIS_PASSWORD\tx"),
        (["E REDISCLI_AUTH=x"], "REDISCLI_AUTH\tx"),
        (["E REDIS_PASSWORD=", "E VALKEY_PASSWORD=x"], "VALKEY_PASSWORD\tx"),
        (["E REDIS_PASSWORD_FILE=/run/secrets/pw"], "REDIS_PASSWORD_FILE\tfile /run/secrets/pw"),
        (["E REDIS_ARGS=--requirepass x"], "--requirepass\tx"),
    ],
)  # fmt: skip
def test_where_the_password_is(lines: list[str], found: str) -> None:
    assert find_password(*lines) == found


CALLER = [
    # What the variable holds, and what its caller sends: the state, the user, the password.
    ("redis://:pw@redis:6379/0", "found", "", "pw"),
    ("redis://redis:6379/0", "none", "", ""),
    ("redis://:@redis:6379", "none", "", ""),
    ("redis://app:pw@redis:6379", "found", "app", "pw"),
    ("redis://app@redis:6379", "none", "", ""),
    ("redis://:p%40s%2Fs%25%20%c3%bc@redis:6379/0", "found", "", "p@s/s% ü"),
    ("redis://:p@s@redis:6379", "found", "", "p@s"),
    ("redis://:a:b@redis", "found", "", "a:b"),
    ('redis://:it\'s $a "x"@redis', "found", "", 'it\'s $a "x"'),
    ("redis://:a@other:6379 redis://:b@redis:6379", "found", "", "b"),
    ("redis://:$a\\n&|`;@REDIS:6379", "found", "", "$a\\n&|`;"),
    ("redis://:pw@redis:6379?db=1", "found", "", "pw"),
    ("redis://:a@other:6379;redis://:b@redis:6379;redis://:c@redis:6380", "found", "", "b"),
    ("redis://:a@other:1,redis://:b@redis:6379/1", "found", "", "b"),
    ("sentinel://:pw@redis:26379;sentinel://:pw@b:26379", "found", "", "pw"),
    ("redis+socket://:pw@redis:6379", "found", "", "pw"),
    ("plain word: %40", "found", "", "plain word: %40"),
    ("", "none", "", ""),
    ("redis", "none", "", ""),
    ("redis:6379", "none", "", ""),
]


def read_caller(awk: list[str], variable: str, *lines: str, bare: bool = False) -> tuple[str, ...]:
    """What the probe reads of a caller's configuration, or of its first process's environment."""
    found = re.search(
        r"checks_redis_caller='(.*?\n})'", read_script("stackmend.checks", "probe"), re.S
    )
    assert found is not None
    values = {"variable": variable, "host": "redis", "port": "6379"}
    values |= {"bare": "1"} if bare else {}
    done = subprocess.run(
        [*awk, *(w for k, v in values.items() for w in ("-v", f"{k}={v}")), found[1]],
        input="\n".join([*lines, ""]),
        env={"LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return tuple(done.stdout.removesuffix("\n").split("\n"))


@pytest.fixture(params=["mawk", "busybox awk"])
def awk(request: pytest.FixtureRequest) -> list[str]:
    program, *applet = request.param.split()
    return [find(program), *applet]


def test_what_a_variable_of_the_caller_holds(awk: list[str]) -> None:
    for value, *found in CALLER:
        lines = ["A node", "E OTHER=redis://:wrong@redis:6379", f"E REDIS_URL={value}"]
        assert list(read_caller(awk, "REDIS_URL", *lines)) == found, value
        assert list(read_caller(awk, "REDIS_URL", f"V {value}")) == found, value


def test_what_the_first_process_of_the_caller_holds(awk: list[str]) -> None:
    """Any variable may be called as a line of the configuration begins."""
    for value, *found in CALLER:
        lines = ["A =V redis://:a@redis:6379", "V redis://:b@redis:6379", f"REDIS_URL={value}"]
        assert list(read_caller(awk, "REDIS_URL", *lines, bare=True)) == found, value
    assert read_caller(awk, "REDIS_URL", "IS_URL=x", "=", bare=True) == ("missing", "", "")
    file = read_caller(awk, "PASS_FILE", "PASS_FILE=/run/pw", bare=True)
    assert file == ("file", "", "/run/pw")


def test_what_else_a_caller_holds(awk: list[str]) -> None:
    cases: list[tuple[str, list[str], tuple[str, ...]]] = [
        ("REDIS_URL", ["E OTHER=x"], ("missing", "", "")),
        ("PASS_FILE", ["E PASS_FILE=/run/secrets/pw"], ("file", "", "/run/secrets/pw")),
        ("PASS_FILE", ["V two words"], ("found", "", "two words")),
        ("PASS_FILE", ["V redis://:a%40b@redis:6379"], ("found", "", "a@b")),
        ("command", ["A celery", "A -b", "A redis://:pw@redis:6379/0"], ("found", "", "pw")),
        ("command", ["A celery -b redis://:pw@redis:6379/0 -l info"], ("found", "", "pw")),
        ("command", ["A sh", "A -c", "A run 'redis://:pw@redis:6379'"], ("found", "", "pw")),
        ("command", ["A x redis://:$PW@redis", "E PW=a@b%"], ("found", "", "a@b%")),
        ("command", ["A x redis://:${PW}@redis", "E PW=y"], ("found", "", "y")),
        ("command", ["A x redis://:$PW@redis"], ("hidden", "", "")),
        ("command", ["A x redis://:$(cat)@redis"], ("hidden", "", "")),
        ("command", ["A x redis://redis:6379"], ("none", "", "")),
        ("command", ["A x redis://other:6379", "A redis://:b@redis:6379"], ("found", "", "b")),
        ("command", ["A node server.js"], ("none", "", "")),
    ]
    for variable, lines, found in cases:
        assert read_caller(awk, variable, *lines) == found, lines


def asked_as_caller(*lines: str) -> CheckResult:
    check = QUEUE.model_copy(update={"password_from": "REDIS_URL"})
    return result("secret REDIS_URL", *lines, check=check)


@pytest.mark.parametrize(
    ("lines", "evidence", "remedy", "hints"),
    [
        (
            ["own yes", "ownsecret --requirepass", *replies(WRONG)],
            f"it refuses the password that REDIS_URL of api gives: {WRONG[1:]}; "
            "it takes the one that --requirepass of redis gives",
            "give api the password that --requirepass of redis gives",
            ("login-refused", "restart-harms"),
        ),
        (
            ["bare none", "own yes", "ownsecret --requirepass", *replies(NOAUTH)],
            "it asks for a password, and REDIS_URL of api holds none: NOAUTH",
            "give api the password",
            ("login-refused", "restart-harms"),
        ),
        (
            ["bare missing", "own yes", "ownsecret REDIS_PASSWORD", *replies(NOAUTH)],
            "it asks for a password, and api has no REDIS_URL: NOAUTH",
            "give api the password that REDIS_PASSWORD of redis gives",
            ("login-refused", "restart-harms"),
        ),
        (
            ["own no", "ownsecret --requirepass", *replies(WRONG)],
            "; it refuses the one that --requirepass of redis gives, too",
            "it was changed at run time",
            (),
        ),
        (["bare none", *replies(NOAUTH)], "REDIS_URL of api holds none", "set at run time", ()),
        (
            ["ownsecret its access list", "ownhidden its access list", *replies(WRONG)],
            "it refuses the password that REDIS_URL of api gives",
            "compare both",
            ("restart-harms",),
        ),
        (replies("-ERR invalid password"), "refuses the password that REDIS_URL", "", ()),
        (replies(MISCONF), "refuses writes: MISCONF", "free space", ("restart-harms",)),
        (
            replies("-DENIED Redis is running in protected mode because protected mode is enabled"),
            "it is in protected mode, and answers its own container alone: DENIED Redis is running",
            "--protected-mode no",
            (),
        ),
    ],
)  # fmt: skip
def test_what_its_caller_is_answered(
    lines: list[str], evidence: str, remedy: str, hints: tuple[str, ...]
) -> None:
    found = asked_as_caller(*lines)
    assert found.outcome == "failed"
    assert evidence in found.evidence
    assert remedy in found.remedy
    assert found.hints == hints


def test_what_a_caller_passes_with() -> None:
    check = QUEUE.model_copy(update={"password_from": "REDIS_URL"})
    assert result(*replies(*WELL), check=check, outcome="passed").details == ()
    ignored = result("secret REDIS_URL", *replies(BARE, *WELL), check=check, outcome="passed")
    assert ignored.ok
    assert "it has no password, and REDIS_URL of api gives one" in ignored.details[0]
    unknown = asked_as_caller("hidden command", *replies(NOAUTH))
    assert unknown.outcome == "unknown"
    assert "cannot be read from outside its container" in unknown.evidence


def test_what_speaks_another_protocol() -> None:
    found = result(f"hex {b'HTTP/1.1 400 Bad Request'.hex()}")
    assert found.evidence.endswith("it speaks HTTP, not redis' protocol")


# The command


@pytest.mark.parametrize("text", ["a b", "'; id; '", "$(id)", "-x", "ü"])
def test_values_are_quoted(text: str) -> None:
    command = CheckResults().command(text, [QUEUE]).get_raw_value()
    assert "checks_redis 0 5 api redis 6379 redis master" in command
    assert not checked(command, "")
    caller = QUEUE.model_copy(update={"password_from": "REDIS_URL"})
    command = CheckResults().command(text, [caller]).get_raw_value()
    assert "checks_redis 0 5 api redis 6379 redis master REDIS_URL" in command


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "service"),
        ({"service": "a b"}, "is not a service name"),
        ({"service": "redis", "address": "redis"}, "must be host:port"),
        ({"service": "redis", "role": "slave"}, "role"),
        ({"service": "redis", "password": "x"}, "password"),
        ({"service": "redis", "password_from": "X"}, "password_from: name the service that has it"),
        (
            {"service": "redis", "inside": "api", "password_from": "p@ss"},
            "is not the name of a variable: never give the password itself",
        ),
    ],
)
def test_what_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse_checks([{"kind": "redis", **fields}])


def test_what_it_touches() -> None:
    assert QUEUE.list_services({"api", "redis"}) == ("api", "redis")
    assert RedisCheck(service="redis").list_services() == ("redis",)
    behind = RedisCheck(service="redis", address="proxy:6379", inside="api")
    assert behind.list_services({"api", "proxy", "redis"}) == ("api", "proxy", "redis")
