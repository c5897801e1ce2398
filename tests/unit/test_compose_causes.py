"""What services themselves say is wrong: from what real ones print, and from what only looks so."""

from __future__ import annotations

import pytest

from stackmend.compose.plan.causes import find_cause
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Container

LOOPING = Container(
    id="a" * 64,
    name="shop-redis-1",
    service="redis",
    status="restarting",
    image="redis:7",
    image_id="sha256:1",
)


def said(*lines: str, **fields: object) -> tuple[str, str] | None:
    found = find_cause(LOOPING.model_copy(update={"log": lines, **fields}))
    return None if found is None else (found.kind, found.cause)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("1:M 1 Jan # Bad file format reading the append only file a.aof: make a backup", "aof"),
        ("write error: No space left on device", "disk"),
        ('FATAL: could not write file "pg_wal": No space left on device', "disk"),
        ("Error: ENOSPC: no space left on device, write", "disk"),
        ("MISCONF Redis is configured to save RDB snapshots", "disk"),
        ("fatal error: runtime: out of memory", "memory"),
        ("java.lang.OutOfMemoryError: Java heap space", "memory"),
        ("fork: Cannot allocate memory", "memory"),
        ("CUDA error: out of memory", "memory"),
        ("redis.exceptions.AuthenticationError: WRONGPASS invalid username-password", "password"),
        ("(error) NOAUTH Authentication required.", "password"),
        ('FATAL: password authentication failed for user "shop"', "password"),
        ("ERROR 1045 (28000): Access denied for user 'shop'@'%'", "password"),
    ],
)
def test_what_real_services_print(line: str, kind: str) -> None:
    found = said("starting", line, "bye")
    assert found == (kind, f"it says what is wrong: {line}")


@pytest.mark.parametrize(
    "line",
    [
        "listening",
        "disk space: 40% left",
        "maxmemory not set",
        "AUTH ok",
        "users authenticated",
        "",
    ],
)
def test_what_says_nothing(line: str) -> None:
    assert said(line) is None


def test_the_last_words_count() -> None:
    found = said("NOAUTH Authentication required.", "No space left on device")
    assert found == ("disk", "it says what is wrong: No space left on device")


def test_a_healthcheck_counts_while_it_fails() -> None:
    output = {"health_output": "NOAUTH Authentication required."}
    assert said(health="healthy", **output) is None
    assert said(health="unhealthy", **output) is not None


def test_what_the_kernel_ended() -> None:
    assert said(oom_killed=True) == ("memory", "it is OOM-killed")
    limited = said(oom_killed=True, shape={"mem_limit": 4096})
    assert limited == ("memory", "it is OOM-killed at its limit of 4096 bytes")


def test_the_remedy_is_what_the_settings_take() -> None:
    found = find_cause(
        LOOPING.model_copy(update={"log": ("Bad file format reading the append only file x",)})
    )
    assert found is not None
    assert '"allow": ["repair:redis-aof"]' in found.remedy
    spec = ComposeSpec.model_validate(
        {"project": "a", "source": "a", "directory": "/opt/a", "allow": ["repair:redis-aof"]}
    )
    assert spec.allow == ("repair:redis-aof",)
