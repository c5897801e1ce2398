"""What is decided around the plan: in which order, when Compose is asked, what is well already."""

from __future__ import annotations

from contextlib import nullcontext
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from stackmend.addresses.kinds import find_served_kind
from stackmend.addresses.spec import LinksPolicy
from stackmend.compose.plan.declaration import find_unpublished, list_mounts, sort_into_levels
from stackmend.compose.plan.gates import (
    explain_hold,
    identify_attempt,
    is_declaration_needed,
    refuse_crowded,
)
from stackmend.compose.plan.health import (
    classify,
    explain_unrunnable,
    find_moment,
    find_unstable,
)
from stackmend.compose.plan.serving import explain_serving
from stackmend.compose.state import Container, Engine, Mended
from stackmend.compose.waiter import Waiter
from stackmend.errors import StepError
from tests.unit.compose_shop import ENDED, changed, replicas, shop
from tests.unit.compose_world import NOW, Desired, World, by_hand, compose, proven, render, well


def test_levels_put_each_service_after_what_it_needs() -> None:
    services: dict[str, Any] = {
        "web": {"depends_on": {"api": {}, "elsewhere": {}}},
        "api": {"depends_on": {"db": {}, "cache": {}}},
        "db": {},
        "cache": {"network_mode": "service:vpn", "pid": "host"},
        "vpn": {"ipc": "service:db"},
    }
    assert sort_into_levels(services) == [["db"], ["vpn"], ["cache"], ["api"], ["web"]]
    assert sort_into_levels({}) == []


def test_levels_end_even_where_services_need_each_other() -> None:
    services = {"a": {"depends_on": {"b": {}}}, "b": {"depends_on": {"a": {}}}, "c": {}}
    assert sort_into_levels(services) == [["c"], ["a", "b"]]


def test_compose_is_asked_only_where_the_record_does_not_say_it() -> None:
    desired = shop()
    state = well(desired).state()
    spec, digest = desired.spec, desired.digest
    assert not is_declaration_needed(spec, digest, state)
    assert is_declaration_needed(spec, "other", state)
    assert is_declaration_needed(spec.model_copy(update={"profiles": ("gpu",)}), digest, state)
    assert is_declaration_needed(spec.model_copy(update={"directory": "/opt/b"}), digest, state)
    assert is_declaration_needed(spec, digest, state.model_copy(update={"applied": None}))
    down = state.model_copy(update={"engine": Engine(status="stopped"), "applied": None})
    assert not is_declaration_needed(spec, digest, down)


def test_mounts_are_those_of_every_service_with_configs_and_secrets() -> None:
    config = compose(
        {
            "a": {"volumes": [{"type": "bind", "source": "/b", "target": "/x"}]},
            "b": {
                "volumes": [{"type": "volume", "source": "data", "target": "/x"}],
                "configs": [{"source": "app"}, {"source": "inline"}],
                "secrets": [{"source": "pw"}, {"source": "unknown"}],
            },
        },
        configs={"app": {"file": "/a"}, "inline": {"content": "x"}},
        secrets={"pw": {"file": "/c"}},
    )
    assert list_mounts(config) == ["/a", "/b", "/c"]


def test_the_disk_is_looked_at_where_it_was_measured() -> None:
    desired = shop(minimum_free="1GiB")
    declared = World().declared(desired)
    assert refuse_crowded(desired.spec, declared) is None
    enough = declared.model_copy(update={"free": {"/": 1024**3}})
    assert refuse_crowded(desired.spec, enough) is None
    crowded = declared.model_copy(update={"free": {"/": 1024**3 - 1}})
    refused = refuse_crowded(desired.spec, crowded)
    assert refused is not None
    assert "minimum_free" in refused.refusals[0].remedy


@pytest.mark.parametrize(
    ("ago", "then"),
    [
        ([], ""),
        ([31], ""),
        ([20], "tried again in 10 s"),
        ([900, 100], "tried again in 20 s"),
        ([900, 800, 700], "left alone until they change"),
        ([40000, 39000, 37000], "left alone until they change"),
    ],
)
def test_files_that_failed_are_not_applied_again_at_once(ago: list[float], then: str) -> None:
    desired = shop(mend={"attempts": 3, "window": 3600, "backoff": [0, 30, 120]})
    world = well(desired)
    other = changed(desired, command=["crash"])
    world.mends = [
        Mended(at=NOW - 1, service="other files", action="rollback"),
        Mended(at=NOW - 1, service=other.digest, action="restart"),
        *(Mended(at=NOW - one, service=other.digest, action="rollback") for one in ago),
    ]
    said = explain_hold(other.spec, other.digest, world.state())
    assert (then in said) if then else said == ""
    # The files that run are not the ones that failed.
    assert explain_hold(desired.spec, desired.digest, world.state()) == ""
    assert explain_hold(other.spec, other.digest, World().state()) == ""


def test_files_that_failed_are_another_attempt_with_other_links() -> None:
    desired = shop(mend={"attempts": 1}, links={})
    world = well(desired)
    other = changed(desired, command=["crash"])
    failed = identify_attempt(other.spec, other.digest)
    world.mends = [Mended(at=NOW - 1, service=failed, action="rollback")]

    def explain(links: dict[str, Any] | None, digest: str = other.digest) -> str:
        spec = other.spec.model_copy(
            update={"links": None if links is None else LinksPolicy.model_validate(links)}
        )
        return explain_hold(spec, digest, world.state())

    assert explain({})
    assert not explain({"on_conflict": "override"})
    assert not explain({"ignore": ["web.URL"]})
    assert not explain(None)
    assert not explain({}, "files with a correction over them")


# Whether it is well already


def verdict(name: str = "web", desired: Desired | None = None, **changes: Any) -> tuple[Any, Any]:
    desired = desired or shop()
    world = well(desired)
    if changes:
        world.damage(name, **changes)
    said = classify(desired.services, world.state(), NOW)
    return said.waiting, said.failed


def test_what_is_well_is_neither_waited_for_nor_failed() -> None:
    assert verdict() == ((), ())


@pytest.mark.parametrize(
    ("changes", "waiting", "failed"),
    [
        ({"health": "starting"}, ["web: starting"], []),
        (
            {"health": "starting", "restart_count": 2, "started_at": NOW - 9, "exit_code": 3},
            ["web: starting, restarted 2 times, exit code 3"],
            [],
        ),
        ({"health": "unhealthy", "health_output": "HTTP\n500"}, ["web: unhealthy: HTTP 500"], []),
        (
            {
                "health": "unhealthy",
                "health_output": "sh: curl: not found",
                "health_failures": (NOW + 1,),
            },
            [],
            ["web: its healthcheck cannot run: curl: not found"],
        ),
        ({"status": "created", "error": ""}, ["web: not started yet"], []),
        ({"status": "created", "error": "no such device"}, [], ["web: no such device"]),
        ({"status": "paused"}, [], ["web: paused"]),
        ({"status": "restarting", "exit_code": 1}, ["web: restarting, exit code 1"], []),
        (
            {"status": "restarting", "restart_count": 3, "exit_code": 1, "health": None},
            [],
            ["web: restarted 3 times, exit code 1"],
        ),
        (
            {"status": "exited", "exit_code": 137, "oom_killed": True},
            [],
            ["web: exited with code 137, OOM-killed"],
        ),
        ({"status": "exited", "exit_code": 0}, [], ["web: exited with code 0"]),
        ({"restart_count": 9, "started_at": NOW - 9999, "health": None}, [], []),
        (
            {"restart_count": 9, "started_at": NOW - 9, "health": None},
            [],
            ["web: restarted 9 times, exit code 0"],
        ),
    ],
)
def test_classify(changes: dict[str, Any], waiting: list[str], failed: list[str]) -> None:
    said = verdict(**changes)
    assert (list(said[0]), list(said[1])) == (waiting, failed)


def test_classify_waits_for_containers_that_are_not_there() -> None:
    desired = replicas(2)
    world = well(desired)
    del world.containers[world._of("worker")[0].id]
    assert classify(desired.services, world.state(), NOW).waiting == ("worker: no container yet",)


def test_classify_takes_completion_for_an_end_only_where_nothing_is_served() -> None:
    ended: dict[str, Any] = {"status": "exited", "exit_code": 0, **ENDED}
    once = Desired(compose({"migrate": {}}))
    assert verdict("migrate", once, **ended) == ((), ())
    assert verdict("migrate", once, **{**ended, "exit_code": 1})[1]
    server = Desired(compose({"redis": {"ports": [{"target": 1, "published": "1"}]}}))
    assert verdict("redis", server, **ended)[1]


STARTED = {"depends_on": {"it": {"condition": "service_started"}}}


@pytest.mark.parametrize(
    ("body", "web", "serves"),
    [
        ({}, {"environment": {"REDIS_URL": "redis://it:6379/0"}}, "web calls it (REDIS_URL)"),
        ({}, {"environment": {"IT_HOST": "it", "IT_PORT": "80"}}, "web calls it (IT_HOST)"),
        ({}, {"command": ["serve", "--upstream", "http://it:80"]}, "web calls it (upstream)"),
        ({}, {"depends_on": {"it": {"condition": "service_healthy"}}}, "web needs it healthy"),
        ({"image": "redis:7"}, STARTED, "web needs it, which runs redis"),
        (
            {"image": "redis:7", "command": ["redis-server", "--save", ""]},
            STARTED,
            "web needs it, which runs redis",
        ),
        (
            {"image": "postgres:16", "restart": "on-failure"},
            {},
            "it runs postgres, with the restart policy on-failure",
        ),
        # Jobs: some wait for their start, their end, or have their name in a word.
        ({"image": "redis:7", "command": ["redis-cli", "-h", "x", "save"]}, STARTED, ""),
        ({"image": "postgres:16", "command": ["psql", "-h", "postgres"]}, STARTED, ""),
        ({"image": "redis:7"}, {**STARTED, "scale": 0}, ""),
        ({"image": "redis:7"}, {}, ""),
        ({}, {"depends_on": {"it": {"condition": "service_started"}}}, ""),
        ({}, {"environment": {"MODE": "it"}}, ""),
        ({}, {"environment": {"URL": "http://it:80"}, "scale": 0}, ""),
        (
            {"image": "redis:7"},
            {
                "depends_on": {"it": {"condition": "service_completed_successfully"}},
                "environment": {"URL": "http://it:80"},
            },
            "",
        ),
    ],
)
def test_who_serves_others_is_started_and_a_job_is_done(
    body: dict[str, Any], web: dict[str, Any], serves: str
) -> None:
    desired = Desired(compose({"it": body, "web": web}))
    world = well(desired, World(images=["lab/box:1", "redis:7", "postgres:16"]))
    world.damage("it", status="exited", exit_code=0, **ENDED)
    assert explain_serving("it", desired.services) == serves
    assert bool(classify(desired.services, world.state(), NOW).failed) == bool(serves)
    before = world.state()
    started = [action for action in world.observe(desired).actions if action.verb == "start"]
    assert [action.cause for action in started] == (
        [f"it exited with code 0, and {serves}"] if serves else []
    )
    world.damage("it", status="running")
    gone = find_unstable(world.state(), before, desired.services)
    assert bool(gone) == bool(serves)


@pytest.mark.parametrize(
    ("image", "body", "kind"),
    [
        ("docker.io/library/redis:7@sha256:0", {}, "redis"),
        ("mysql:8", {"command": ["--skip-log-bin"]}, "mysql"),
        ("postgres:16", {"command": ["docker-entrypoint.sh", "postgres", "-c", "x=1"]}, "postgres"),
        ("redis:7", {"command": ["sh", "-c", "A=1 exec redis-server --port 1"]}, "redis"),
        ("redis:7", {"entrypoint": ["/usr/local/bin/redis-server"], "command": ["/c"]}, "redis"),
        ("ollama/ollama", {"command": ["serve"]}, "ollama"),
        # A server's name may be that of a host.
        ("postgres:16", {"command": ["sh", "-c", "wait-for postgres && createdb x"]}, ""),
        ("postgres:16", {"entrypoint": ["/wait-for", "postgres"]}, ""),
        ("postgres:16", {"command": ["-V"]}, ""),
        ("mysql:8", {"command": ["mysqld", "--initialize"]}, ""),
        ("redis:7", {"entrypoint": ["/init.sh"]}, ""),
        ("redis:7", {"entrypoint": ["docker-entrypoint.sh"]}, ""),
        ("redis:7", {"entrypoint": ["/init.sh"], "command": ["--port", "1"]}, ""),
        ("ollama/ollama", {"command": ["pull", "x"]}, ""),
        ("redis:7", {"build": {"context": "."}}, ""),
        ("lab/box:1", {"command": ["redis-server"]}, ""),
    ],
)
def test_a_server_is_what_surely_starts_one(image: str, body: dict[str, Any], kind: str) -> None:
    assert find_served_kind({"image": image, **body}) == kind


def test_unstable_is_what_moved() -> None:
    desired = Desired(compose({name: {} for name in ("a", "b", "c", "d", "e")}))
    world = well(desired)
    before = world.state()
    assert find_unstable(before, world.state(), desired.services) == ()
    world.damage("a", restart_count=1, exit_code=2)
    world.damage("b", started_at=NOW + 1)
    world.damage("c", status="exited", exit_code=1)
    world.damage("d", status="exited", exit_code=0)  # it completed
    world.up(desired, "e", recreate=True)  # another container: nothing to compare it with
    assert find_unstable(before, world.state(), desired.services) == (
        "a: restarted within the stability window, exit code 2",
        "b: restarted within the stability window, exit code 0",
        "c: running → exited within the stability window",
    )


@pytest.mark.parametrize(
    ("declared", "published", "well"),
    [
        ("0.0.0.0:80->80/tcp", ["0.0.0.0:80->80/tcp", ":::80->80/tcp"], True),
        ("127.0.0.1:80->80/tcp", ["0.0.0.0:80->80/tcp"], False),
        ("0.0.0.0:80->80/tcp", ["0.0.0.0:81->80/tcp"], False),
        ("0.0.0.0:80->80/tcp", ["0.0.0.0:80->80/udp"], False),
        ("0.0.0.0:8000-8010->80/tcp", ["0.0.0.0:8003->80/tcp"], True),
        ("0.0.0.0:8000-8010->80/tcp", ["0.0.0.0:8011->80/tcp"], False),
        ("0.0.0.0:->80/tcp", ["0.0.0.0:32768->80/tcp"], True),
        ("0.0.0.0:0->80/tcp", ["0.0.0.0:32768->80/tcp"], True),
        ("0.0.0.0:0->80/tcp", [], False),
        ("[::1]:80->80/tcp", ["[::1]:80->80/tcp"], True),
    ],
)
def test_a_port_is_published_where_it_was_asked_for(
    declared: str, published: list[str], well: bool
) -> None:
    desired = Desired(compose({"web": {"restart": "always"}}))
    world = by_hand(desired)
    one = world._of("web")[0]
    shape = {**one.shape, "ports": [declared]}
    world._set(one, shape=shape, published=tuple(published))
    decided = proven(desired, world).observe(desired)
    assert decided.empty is well, render(decided)


def test_unpublished_ports_are_those_that_no_running_container_has() -> None:
    desired = shop()
    desired.config["services"]["side"]["ports"] = [
        {"target": 53, "published": "53", "protocol": "udp"},
        {"target": 53, "published": "53", "protocol": "tcp", "host_ip": "::1"},
        {"target": 80, "published": "8000-8010"},
        {"target": 81},
    ]
    desired.config["services"]["redis"].update(ports=[{"target": 1, "published": "1"}], scale=0)
    world = by_hand(shop())
    asked = "0.0.0.0:53/udp", "[::1]:53/tcp"
    assert find_unpublished(world.declared(desired), world.state()) == asked
    world.damage("web", status="exited", published=())
    assert find_unpublished(world.declared(desired), world.state()) == (
        "127.0.0.1:8080/tcp",
        *asked,
    )


def unhealthy(output: str, **changes: Any) -> Container:
    """A container whose last healthcheck left this output."""
    return well(shop()).damage("web", health="unhealthy", health_output=output, **changes)


@pytest.mark.parametrize(
    ("output", "reason", "remedy"),
    [
        (
            "OCI runtime exec failed: exec failed: unable to start container process: exec: "
            '"curl": executable file not found in $PATH: unknown',
            'exec failed: unable to start container process: exec: "curl": executable file not '
            "found in $PATH",
            "use a program that the image has",
        ),
        (
            "OCI runtime exec failed: exec failed: unable to start container process: exec: "
            '"/check.sh": permission denied: unknown',
            'exec failed: unable to start container process: exec: "/check.sh": permission denied',
            "make the program executable",
        ),
        (
            "OCI runtime exec failed: write /tmp/runc-process1: no space left on device: unknown",
            "write /tmp/runc-process1: no space left on device",
            "free space on the host",
        ),
        ("OCI runtime exec failed: what is new", "what is new", "fix what the engine reports"),
        ("/bin/sh: curl: not found", "curl: not found", "use a program"),
        ("/bin/sh: 1: curl: not found", "curl: not found", "use a program"),
        ("bash: line 1: wget: command not found", "wget: command not found", "use a program"),
        ("sh: /check.sh: Permission denied", "/check.sh: Permission denied", "make the program"),
    ],
)
def test_a_healthcheck_that_cannot_run(output: str, reason: str, remedy: str) -> None:
    found = explain_unrunnable(unhealthy(output))
    assert found is not None
    assert found.reason == reason
    assert found.remedy.startswith(remedy)
    assert found.lasting is ("image" in found.remedy)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "curl: (22) The requested URL returned error: 404 Not Found",
        "wget: server returned error: HTTP/1.1 404 Not Found",
        "model not found",
        "Permission denied (publickey)",
        "Health check exceeded timeout (5s)",
        "http: /healthz: not found",
    ],
)
def test_a_healthcheck_that_ran_and_failed(output: str) -> None:
    assert explain_unrunnable(unhealthy(output)) is None


FULL = "OCI runtime exec failed: write /tmp/runc-process1: no space left on device: unknown"
CANNOT_RUN = "web: its healthcheck cannot run: write /tmp/runc-process1: no space left on device"


@pytest.mark.parametrize(
    ("output", "began", "fails"),
    [
        # A result of before the reading says what was, however many there are.
        (FULL, [-60, -30, -1, 0], False),
        # The new one shows that nothing changed; where there was none before it takes two.
        (FULL, [-30, 1], True),
        (FULL, [1], False),
        (FULL, [1, 31], True),
        ("OCI runtime exec failed: what is new", [1], False),
        # What the image lacks is not there a moment later.
        ("sh: curl: not found", [-60, -30], False),
        ("sh: curl: not found", [1], True),
        ("sh: /check.sh: Permission denied", [1], True),
        # An engine that keeps no results.
        (FULL, [], False),
    ],
)
def test_a_healthcheck_cannot_run_where_a_new_result_says_so(
    output: str, began: list[int], fails: bool
) -> None:
    container = unhealthy(output, health_failures=tuple(NOW + second for second in began))
    desired = shop()
    world = well(desired)
    world.containers[container.id] = container
    found = classify(desired.services, world.state(), NOW)
    (text,) = found.failed if fails else found.waiting
    assert text.startswith("web: its healthcheck cannot run: ")
    assert not (found.waiting if fails else found.failed)


@pytest.mark.parametrize(
    ("healthcheck", "limit"),
    [
        ({"Interval": 6 * 10**9, "Timeout": 10 * 10**9}, 16),
        ({"Interval": 5 * 10**8, "Timeout": 10**9}, 1.5),
        ({"Interval": 0}, 60),
        ({}, 60),
    ],
)
def test_a_new_result_is_waited_for_as_long_as_the_healthcheck_takes(
    healthcheck: dict[str, Any], limit: float
) -> None:
    container = unhealthy(FULL, health_failures=(NOW - 1,))
    shape = {**container.shape, "healthcheck": healthcheck}
    desired = shop()
    world = well(desired)
    world.containers[container.id] = container.model_copy(update={"shape": shape})
    state = world.state()
    # The engine may be late by two seconds.
    assert classify(desired.services, state, NOW, {container.id: limit + 2}).failed == ()
    found = classify(desired.services, state, NOW, {container.id: limit + 2.1})
    assert (found.waiting, found.failed) == ((), (CANNOT_RUN,))
    assert classify(desired.services, state, NOW, {"another": 1000}).waiting == (CANNOT_RUN,)


def test_what_begins_in_the_second_of_a_reading_may_be_of_before_it() -> None:
    state = well(shop()).state()
    assert find_moment(state) == state.now + 1


def test_a_healthcheck_that_runs_now_and_then_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It runs at each look, and at none of the readings that count."""
    desired = shop(health_timeout=1, stability=0.1)
    world = well(desired)
    healthy = world.state()
    output = "OCI runtime exec failed: open /tmp/runc-process1: no space left on device: unknown"
    world.damage("web", health="unhealthy", health_output=output)
    flapping = world.state()
    observer: Any = SimpleNamespace(
        host=None,
        spec=desired.spec,
        watch=lambda *_: healthy,
        read_logs=lambda *_: [],
    )
    monkeypatch.setattr("stackmend.connection.docker", lambda *_, **__: nullcontext())
    waiter = Waiter(observer)
    monkeypatch.setattr("stackmend.compose.waiter.find_unstable", lambda *_: [])
    began = monotonic()
    with pytest.raises(StepError, match="not healthy after 1 s: web: its healthcheck cannot run"):
        waiter._wait(desired.services, healthy, True, None, lambda: (flapping, ()))
    assert monotonic() - began < 10
