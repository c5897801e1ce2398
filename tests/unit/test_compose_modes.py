"""What is done about drift, by the path of the field: in values, and in plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from stackmend.compose.facts import _make_shape
from stackmend.compose.modes import FIELDS, Mode, check_pattern, find_mode, list_services
from stackmend.compose.plan.order import separate
from stackmend.decision import Plan
from tests.unit.compose_shop import changed, shop
from tests.unit.compose_world import Desired, World, proven, well

MODE = "services.api.environment.MODE"


@pytest.mark.parametrize(
    ("modes", "path", "mode"),
    [
        ({}, MODE, "mend"),
        ({MODE: "ignore"}, MODE, "ignore"),
        ({"services.*.environment.MODE": "warn"}, MODE, "warn"),
        # What lies in it is meant as well, and what is only called alike is not.
        ({"services.api": "warn"}, MODE, "warn"),
        ({"services.ap": "warn"}, MODE, "mend"),
        ({"services.*.MODE": "warn"}, MODE, "mend"),
        ({"services.api.environment.MODES": "warn"}, MODE, "mend"),
        ({"services.*.image": "warn"}, "services.api.labels.image", "mend"),
        ({"services.a*.environment": "warn"}, MODE, "warn"),
        ({"files.*": "ignore"}, "files.conf/web.conf", "ignore"),
        ({"files.conf/*.conf": "ignore"}, "files.conf/web.conf", "ignore"),
        ({"services.api.labels": "ignore"}, "services.api.labels.org.example.x", "ignore"),
        # The one that says the most counts, whatever the order; of two alike the stricter.
        ({"services.api": "ignore", MODE: "mend"}, MODE, "mend"),
        ({MODE: "mend", "services.api": "ignore"}, MODE, "mend"),
        ({"services.*.environment": "ignore", "services.a*.environment": "warn"}, MODE, "warn"),
        ({"services.api.*.MODE": "ignore", "services.api.environm*": "warn"}, MODE, "warn"),
    ],
)
def test_the_mode_of_a_field(modes: dict[str, Mode], path: str, mode: Mode) -> None:
    assert find_mode(modes, path) == mode


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("services", "must begin with services.NAME or files.PATH"),
        ("engine.dns", "must begin with services.NAME or files.PATH"),
        ("services..image", "must be the path of a field"),
        ("services.api.", "must be the path of a field"),
        ("services.api.a\nb", "must be the path of a field"),
        ("x" * 501, "must be the path of a field"),
        ("services.api.imag", r"did you mean image\?"),
        ("services.*.environments.MODE", r"did you mean environment\?"),
    ],
)
def test_a_path_that_nothing_can_have_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_pattern(pattern)
    with pytest.raises(ValidationError):
        assert Desired(config={}, settings={"drift": {pattern: "warn"}}).spec


def test_a_name_with_dots_ends_before_its_field() -> None:
    modes: dict[str, Mode] = dict.fromkeys(
        ("services.a.b.image", "services.side", "services.*.image", "files.a"), "warn"
    )
    assert [name for _, name in list_services(modes)] == ["a.b", "side"]
    assert next(field for field, _ in list_services(modes)) == "drift.services.a.b.image"


def test_each_field_that_containers_are_compared_by_is_known() -> None:
    raw = {
        "Id": "1" * 64,
        "Name": "/x",
        "Config": dict.fromkeys(
            "Cmd Entrypoint User WorkingDir Healthcheck StopSignal StopTimeout Tty "
            "OpenStdin".split(),
            "x",
        )
        | {"Hostname": "h", "Env": ["A=1"], "Labels": {"a": "b"}},
        "HostConfig": dict.fromkeys(
            "Memory MemorySwap MemoryReservation NanoCpus CpuShares CpusetMems CpuRealtimeRuntime "
            "BlkioWeight PidsLimit OomScoreAdj ShmSize".split(),
            7,
        )
        | dict.fromkeys(
            "CpusetCpus Privileged ReadonlyRootfs Devices DeviceRequests Dns DnsSearch Sysctls "
            "Ulimits Tmpfs LogConfig Init PidMode IpcMode UsernsMode Runtime NetworkMode".split(),
            "x",
        )
        | {"CapAdd": ["a"], "CapDrop": ["a"], "SecurityOpt": ["a"], "ExtraHosts": ["a:b"]},
    }
    assert set(_make_shape(raw)) <= {*FIELDS}


def with_modes(modes: dict[str, Mode]) -> Desired:
    desired = shop()
    desired.settings["drift"] = modes
    return desired


def limit(world: World) -> None:
    one = world._of("side")[0]
    world.damage("side", shape={**one.shape, "mem_limit": 1 << 26})


def retag(world: World) -> None:
    world.damage("side", image_id=world.images["lab/redis:7"])


def detach(world: World) -> None:
    world.detach("side")


def edit(world: World) -> None:
    world.files["compose.yaml"] = "edited"


@pytest.mark.parametrize(
    ("change", "path", "kind"),
    [
        (limit, "services.side.mem_limit", "drift"),
        (retag, "services.side.image", "image"),
        (detach, "services.side.networks", "drift"),
        (edit, "files.compose.yaml", "files"),
    ],
)
def test_what_drifts_is_mended_warned_of_or_ignored(
    change: Callable[[World], None], path: str, kind: str
) -> None:
    plans: dict[str, Plan[Any]] = {}
    for mode in ("mend", "warn", "ignore"):
        desired = with_modes({path: mode})  # type: ignore[dict-item]
        world = well(desired)
        change(world)
        plans[mode] = world.observe(desired)
    assert plans["mend"].actions
    assert plans["mend"].problems
    assert (plans["warn"].actions, plans["warn"].problems) == ((), ())
    plain = well(shop()).observe(shop())
    (warning,) = [found for found in plans["warn"].findings if found not in plain.findings]
    assert warning.kind == kind
    assert warning.cause.endswith("; left as it is")
    assert path in warning.remedy
    assert plans["ignore"] == plain


def test_what_the_project_itself_changes_is_no_drift() -> None:
    desired = with_modes({"services.side": "ignore", "files.compose.yaml": "ignore"})
    world = well(desired)
    other = changed(desired, "side", environment={"MODE": "fast"})
    other.files["compose.yaml"] = "2"
    verbs = [action.verb for action in world.observe(other).actions]
    assert verbs == ["install files", "recreate", "record"]


def test_what_fails_is_no_drift() -> None:
    desired = with_modes({"services.side": "ignore"})
    world = proven(desired, well(desired))
    world.damage("side", status="exited", running=False, exit_code=0)
    assert "start" in [action.verb for action in world.observe(desired).actions]


def test_steps_are_told_apart_but_for_those_that_wait_for_one_another() -> None:
    desired = shop()
    world = well(desired)
    for name in ("redis", "web", "side"):
        world.damage(name, status="exited", running=False, exit_code=0)
    actions = world.observe(desired).actions
    redis = [action for action in actions if action.subject == "redis"]
    side = [action for action in actions if action.subject == "side"]
    left = separate(actions, redis)
    assert {action.subject for action in left} == {"side"}, "web waits for redis"
    assert {action.subject for action in separate(actions, side)} == {"redis", "web"}
    desired.files["compose.yaml"] = "2"
    assert separate(world.observe(desired).actions, redis) == ()
