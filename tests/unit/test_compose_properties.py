"""What holds of every plan, whatever is declared and whatever happened to the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from stackmend.checks.state import CheckResult
from stackmend.compose import drift
from stackmend.compose.plan.actions import Plan
from stackmend.compose.plan.decide import plan
from stackmend.compose.state import Engine
from tests.unit.compose_world import (
    PROJECT,
    Desired,
    World,
    by_hand,
    compose,
    converge,
    digest_of,
    labelled,
    render,
    scale,
    well,
)

quick = settings(
    phases=[Phase.explicit, Phase.generate],
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

NAMES = ("api", "cache", "db", "job", "web")
WORDS = st.sampled_from(["", "a", "b c", "fast", "0", "läuft", "'\"$(x)"])


@st.composite
def stacks(draw: st.DrawFn) -> Desired:
    """A declared stack whose services lean on one another in every way that Compose knows."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    keys = ["default", *draw(st.lists(st.just("back"), max_size=1))]
    files = {"compose.yaml": draw(st.sampled_from("12"))}
    services: dict[str, Any] = {}
    for index, name in enumerate(names):
        body: dict[str, Any] = {
            "restart": draw(st.sampled_from(["no", "always", "unless-stopped", "on-failure"]))
        }
        if draw(st.booleans()):
            body["environment"] = draw(
                st.dictionaries(st.sampled_from(["MODE", "LEVEL"]), WORDS, min_size=1)
            )
        if draw(st.booleans()):
            body["healthcheck"] = {"test": ["CMD", "true"]}
        elif draw(st.integers(0, 3)) == 0:
            body |= {"restart": "no", "x-completes": True}
        if draw(st.integers(0, 3)) == 0:
            body["build"] = {"context": f"/opt/shop/{name}"}
            files[f"{name}/Dockerfile"] = draw(st.sampled_from("12"))
        else:
            body["image"] = draw(st.sampled_from(["lab/box:1", "lab/box:2", "lab/redis:7"]))
            if "x-completes" in body and "redis" in body["image"]:
                # With no command of its own it would serve.
                body["command"] = ["redis-cli", "-h", "elsewhere", "save"]
        if draw(st.integers(0, 2)) == 0:
            path = f"{name}.conf"
            files[path] = draw(st.sampled_from("12"))
            body["volumes"] = [
                {"type": "bind", "source": f"/opt/shop/{path}", "target": "/etc/conf"}
            ]
        leaned = draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        if leaned:
            body["depends_on"] = {
                target: {"condition": "service_started", "restart": draw(st.booleans())}
                for target in leaned
            }
        hosts = [one for one in names[:index] if scale(services[one])]
        if hosts and draw(st.integers(0, 3)) == 0:
            body["network_mode"] = f"service:{draw(st.sampled_from(hosts))}"
        else:
            body["networks"] = dict.fromkeys(draw(st.sets(st.sampled_from(keys), min_size=1)))
            if "x-completes" not in body and draw(st.booleans()):
                body["ports"] = [{"target": 80, "published": str(8000 + index)}]
            else:
                body["scale"] = draw(st.sampled_from([1, 1, 1, 2, 3, 0]))
        services[name] = body
    network = draw(st.sampled_from([{}, {"internal": True}]))
    redis = [name for name, body in services.items() if body.get("image") == "lab/redis:7"]
    return Desired(
        compose(services, networks={"back": network}),
        files,
        {
            "mend": {"attempts": 100, "backoff": []},
            # One that nobody checks is told of.
            "checks": [{"kind": "redis", "service": name} for name in redis],
        },
    )


Damage = Callable[[World, str, Any], None]


def remove(world: World, name: str, _: Any) -> None:
    world.lose(name)


def happen(**changes: Any) -> Damage:
    def change(world: World, name: str, _: Any) -> None:
        for one in world._of(name):
            world._set(one, **changes)

    return change


def replaced(world: World, name: str, _: Any) -> None:
    """An apply was interrupted between the creation of the new container and the old one's end."""
    one = world._of(name)[0]
    world.made += 1
    left = one.model_copy(
        update={
            "id": f"{world.made:064x}",
            "name": f"0123456789ab_{one.name}",
            "replaces": True,
            **labelled(one, replace=one.id),
        }
    )
    world.containers[left.id] = left


def unnamed(world: World, name: str, _: Any) -> None:
    """The same, after the old one's end and before the new one had its name."""
    one = world._of(name)[-1]
    world._set(
        world.rename(one.id, f"0123456789ab_{one.name}"), **labelled(one, replace="0123456789ab")
    )


def drifted(world: World, name: str, _: Any) -> None:
    for one in world._of(name):
        world._set(one, shape={**one.shape, "restart": "on-failure:7"})


def network_made_anew(world: World, name: str, _: Any) -> None:
    for network in world._of(name)[0].endpoints:
        world.networks[network] = world.networks.get(network, "") + "-anew"


def network_gone(world: World, name: str, _: Any) -> None:
    for network in world._of(name)[0].endpoints:
        world.networks.pop(network, None)


def detached(world: World, name: str, _: Any) -> None:
    for network in world._of(name)[0].endpoints:
        world.detach(name, network)


def attached(world: World, name: str, _: Any) -> None:
    one = world._of(name)[0]
    if one.endpoints:
        world.networks["elsewhere"] = "net-elsewhere"
        world._attach(one, "elsewhere", "", ["someone"])


def tag_moved(world: World, name: str, _: Any) -> None:
    world.images[world._of(name)[0].image] = f"sha256:{digest_of('moved')}"


def unpublished(world: World, name: str, _: Any) -> None:
    for one in world._of(name):
        world._set(one, published=())


def one_lost(world: World, name: str, _: Any) -> None:
    del world.containers[world._of(name)[-1].id]


def one_too_many(world: World, name: str, desired: Any) -> None:
    if "ports" not in desired.services[name] and not world._of(name)[0].borrows:
        world.create(desired, name, 7)


def mount_replaced(world: World, name: str, _: Any) -> None:
    for one in world._of(name):
        places = one.shape.get("volumes") or {}
        world._set(one, replaced=dict.fromkeys(places, "file"))


#: Each with whether it hits what has ended by itself as well.
DAMAGES: Mapping[str, Damage] = {
    "removed": remove,
    "one removed": one_lost,
    "one too many": one_too_many,
    "created": happen(status="created", health=None, process=None, error="port is taken"),
    "stopped": happen(status="exited", exit_code=143, health=None, process=None),
    "crashed": happen(status="exited", exit_code=1, health=None, process=None),
    "paused": happen(status="paused"),
    "dead": happen(status="dead", health=None, process=None),
    "restarting": happen(status="restarting", restart_count=9, health=None, process=None),
    "unhealthy": happen(status="running", health="unhealthy"),
    "starting": happen(status="running", health="starting"),
    "stopped by a signal": happen(status="running", process="T"),
    "process gone": happen(status="running", process="gone"),
    "replaced": replaced,
    "unnamed": unnamed,
    "drifted": drifted,
    "network made anew": network_made_anew,
    "network gone": network_gone,
    "detached": detached,
    "attached": attached,
    "tag moved": tag_moved,
    "unpublished": unpublished,
    "mount replaced": mount_replaced,
}


#: How a container may look like a project's: see ``World.impostor``.
IMPOSTORS: tuple[dict[str, Any], ...] = (
    {},
    {"given": ("project", "service")},
    {"image_labels": None},
    {"oneoff": "True"},
    {"container_number": "7"},
    {"project__working_dir": "/opt/elsewhere", "project__config_files": "/opt/elsewhere/c.yaml"},
)


@st.composite
def damages(draw: st.DrawFn, desired: Desired) -> dict[str, str]:
    """Some services, and what happened to each."""
    alive = [
        name
        for name, body in desired.services.items()
        if scale(body) and not body.get("x-completes")
    ]
    hit = draw(st.lists(st.sampled_from(alive), unique=True)) if alive else []
    return {name: draw(st.sampled_from(sorted(DAMAGES))) for name in hit}


def strike(world: World, desired: Desired, what: Mapping[str, str]) -> None:
    for name, damage in what.items():
        if world._of(name):
            DAMAGES[damage](world, name, desired)


@quick
@given(st.data())
def test_every_broken_host_converges(data: st.DataObject) -> None:
    desired = data.draw(stacks())
    world = well(desired)
    strike(world, desired, data.draw(damages(desired)))
    converge(world, desired)


@quick
@given(st.data())
def test_every_change_converges_on_every_host(data: st.DataObject) -> None:
    before, desired = data.draw(stacks()), data.draw(stacks())
    world = well(before)
    strike(world, before, data.draw(damages(before)))
    converge(world, desired)


@quick
@given(st.data())
def test_what_was_started_by_hand_converges(data: st.DataObject) -> None:
    desired = data.draw(stacks())
    world = by_hand(desired)
    strike(world, desired, data.draw(damages(desired)))
    converge(world, desired)


@quick
@given(stacks())
def test_what_was_started_by_hand_and_is_right_is_only_remembered(desired: Desired) -> None:
    world = by_hand(desired)
    before = dict(world.containers)
    (decided,) = converge(world, desired)
    assert [action.verb for action in decided.actions] == ["record"]
    assert world.containers == before


@quick
@given(st.data())
def test_what_only_looks_like_ours_is_never_touched(data: st.DataObject) -> None:
    before, desired = data.draw(stacks()), data.draw(stacks())
    world = data.draw(st.sampled_from([well, by_hand]))(before)
    strike(world, before, data.draw(damages(before)))
    kept = [
        world.impostor(f"foreign-{at}", data.draw(st.sampled_from(NAMES)), **kind)
        for at, kind in enumerate(data.draw(st.lists(st.sampled_from(IMPOSTORS), min_size=1)))
    ]
    for _ in range(3):
        decided = world.observe(desired)
        touched = {getattr(action, "container", "") for action in decided.actions}
        assert not touched & {name for one in kept for name in (one.id, one.name)}
        if decided.refusals:
            reasons = " ".join(refusal.reason for refusal in decided.refusals)
            assert any(f"container:{one.name} " in reasons for one in kept) or not world.obstructs
            break
        # Compose would fail this, see World.up().
        world.execute(decided, desired)
    assert [world.impostors[one.name] for one in kept] == kept


@quick
@given(stacks(), st.sampled_from(NAMES))
def test_what_only_looks_like_ours_does_not_make_a_well_host_unwell(
    desired: Desired, service: str
) -> None:
    world = well(desired)
    for at, kind in enumerate(IMPOSTORS):
        world.impostor(f"foreign-{at}", service, **kind)
    decided = world.observe(desired)
    assert decided.empty, render(decided)
    assert {finding.kind for finding in decided.findings} == {"foreign"}
    for at in range(len(IMPOSTORS)):
        assert any(f"container:foreign-{at} " in one.cause for one in decided.findings)


@quick
@given(stacks())
def test_an_empty_host_converges_in_one_round(desired: Desired) -> None:
    converge(World(), desired, rounds=1)


@quick
@given(stacks())
def test_a_well_host_has_an_empty_plan(desired: Desired) -> None:
    decided = well(desired).observe(desired)
    assert decided.empty, render(decided)
    assert not decided.findings, render(decided)


@quick
@given(st.data())
def test_only_services_with_a_finding_and_their_dependants_are_touched(
    data: st.DataObject,
) -> None:
    desired = data.draw(stacks())
    world = well(desired)
    strike(world, desired, data.draw(damages(desired)))
    decided = world.observe(desired)
    assume(not decided.refusals)
    found = {finding.subject for finding in decided.findings}
    may = set(found)
    while True:
        leaning = {
            name
            for name, body in desired.services.items()
            if any(
                target in may and settings.get("restart")
                for target, settings in (body.get("depends_on") or {}).items()
            )
            or str(body.get("network_mode", "")).removeprefix("service:") in may
        }
        if leaning <= may:
            break
        may |= leaning
    touched = {action.subject for action in decided.actions if action.verb != "record"}
    assert touched <= may, render(decided)


@quick
@given(st.data())
def test_no_step_is_done_twice_to_one_container(data: st.DataObject) -> None:
    desired = data.draw(stacks())
    world = well(desired)
    strike(world, desired, data.draw(damages(desired)))
    decided = world.observe(desired)
    steps = [action.model_copy(update={"cause": ""}) for action in decided.actions]
    assert len(steps) == len(set(steps)), render(decided)


@quick
@given(st.data())
def test_the_order_in_which_the_engine_lists_things_does_not_matter(data: st.DataObject) -> None:
    desired = data.draw(stacks())
    world = well(desired)
    strike(world, desired, data.draw(damages(desired)))
    world.neighbour("other", endpoints={})
    state = world.state()
    names = data.draw(st.permutations(sorted(state.names)))
    shuffled = state.model_copy(
        update={
            "containers": tuple(data.draw(st.permutations(state.containers))),
            "names": {name: state.names[name] for name in names},
            "networks": dict(reversed(state.networks.items())),
        }
    )

    def decide(given: Any) -> Plan:
        return plan(desired.spec, desired.files, desired.digest, given)

    assert decide(shuffled) == decide(state)


@quick
@given(
    st.data(),
    st.sampled_from(["absent", "unexecutable", "stopped", "forbidden", "no-compose", "unknown"]),
)
def test_without_an_engine_that_answers_nothing_is_done(data: st.DataObject, status: Any) -> None:
    desired = data.draw(stacks())
    world = well(desired)
    world.engine = Engine(status=status, reason="as it says")
    for read in (world.state(), world.state().model_copy(update={"applied": None})):
        decided = plan(desired.spec, desired.files, desired.digest, read, world.declared(desired))
        assert not decided.actions
        assert decided.refusals
        assert not decided.empty


@quick
@given(stacks(), st.booleans())
def test_a_check_that_could_not_be_made_is_not_well_and_is_no_reason_to_act(
    desired: Desired, recorded: bool
) -> None:
    desired.settings["checks"] = [
        {"kind": "tcp", "name": "asked", "address": "127.0.0.1:80", "inside": name}
        for name in list(desired.services)[:1]
    ]
    world = well(desired) if recorded else by_hand(desired)
    result = CheckResult(name="asked", outcome="unknown", evidence="no tool to ask with")
    decided = world.observe(desired, [result])
    assert not decided.empty
    assert {action.verb for action in decided.actions} <= {"record"}


SECRETS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=4, max_size=24
).filter(
    # A text that stands in every plan anyway proves nothing; masks and blanks are no secrets.
    lambda text: len(set(text)) > 3 and text == " ".join(text.split()) and not text.isalpha()
)


@quick
@given(st.data(), SECRETS, st.sampled_from(["PLAIN", "REDIS_PASSWORD"]))
def test_no_secret_is_ever_shown(data: st.DataObject, secret: str, variable: str) -> None:
    desired, before = data.draw(stacks()), data.draw(stacks())
    assume(secret not in render(World().observe(desired)))
    for stack in (desired, before):
        stack.settings["env"] = {variable: SecretStr(secret)}
        where = data.draw(st.sampled_from(["environment", "command", "labels", "volumes"]))
        for body in stack.services.values():
            if where == "environment":
                body["environment"] = {"URL": f"redis://:{secret}@db/0", variable: secret}  # type: ignore[index]
            elif where == "command":
                body["command"] = ["run", f"--token={secret}", secret]  # type: ignore[index]
            elif where == "labels":
                body["labels"] = {"note": f"with {secret} in it"}  # type: ignore[index]
            else:
                body["volumes"] = [  # type: ignore[index]
                    {"type": "bind", "source": f"/srv/{secret}", "target": "/srv"}
                ]
    world = well(before)
    for name in before.services:
        for one in world._of(name):
            world._set(
                one,
                error=f"exec: {secret}: not found",
                health_output=f"login with {secret} failed",
                shape={**one.shape, "command": ["other", secret]},
            )
    strike(world, before, data.draw(damages(before)))
    desired.settings["checks"] = [{"kind": "tcp", "name": "asked", "address": "127.0.0.1:80"}]
    result = CheckResult(
        name="asked", outcome="failed", evidence=f"got {secret}", details=(f"saw {secret}",)
    )
    assert secret not in render(world.observe(desired, [result]))
    assert secret not in render(World().observe(desired, [result]))


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(TREES)
def test_a_thing_does_not_differ_from_itself(tree: Any) -> None:
    assert list(drift.find_differences(tree, tree)) == []


@given(TREES, TREES)
def test_applying_the_differences_leads_from_one_to_the_other(old: Any, new: Any) -> None:
    def without_nothing(tree: Any) -> Any:
        """``None`` and absent are one and the same."""
        if isinstance(tree, dict):
            return {
                key: kept
                for key, value in tree.items()
                if (kept := without_nothing(value)) is not None
            }
        return tree

    def put(tree: Any, path: list[str], value: Any) -> Any:
        if not path:
            return value
        tree = dict(tree)
        tree[path[0]] = put(tree.get(path[0]) or {}, path[1:], value)
        return tree

    # Keys hold no dots here, so that a path can be taken apart again.
    tree = old
    for path, was, now in drift.find_differences(old, new):
        at = tree
        for key in path.split(".") if path else []:
            at = at.get(key)
        assert at == was
        tree = put(tree, path.split(".") if path else [], now)
    assert without_nothing(tree) == without_nothing(new)


@given(TREES, TREES)
def test_differences_are_the_same_in_both_directions(old: Any, new: Any) -> None:
    there = [(path, was, now) for path, was, now in drift.find_differences(old, new)]
    back = [(path, now, was) for path, was, now in drift.find_differences(new, old)]
    assert there == back


@given(st.text(max_size=30), st.sets(SECRETS, max_size=3))
def test_what_is_masked_stays_so(text: str, secrets: set[str]) -> None:
    once = drift.redact(text, secrets)
    assert not [secret for secret in secrets if secret in once and secret not in drift.MASK]
    assert drift.redact(once, secrets) == once


@pytest.mark.parametrize("kind", sorted(DAMAGES))
def test_each_damage_is_found(kind: str) -> None:
    """The properties above say something only where the damage is seen."""
    desired = Desired(
        compose(
            {
                "web": {
                    "restart": "always",
                    "scale": 2,
                    "healthcheck": {"test": ["CMD", "true"]},
                    "volumes": [{"type": "bind", "source": "/srv/a", "target": "/a"}],
                },
                "published": {"restart": "always", "ports": [{"target": 80, "published": "8000"}]},
            }
        )
    )
    world = well(desired)
    name = "published" if kind == "unpublished" else "web"
    strike(world, desired, {name: kind})
    decided = world.observe(desired)
    assert name in {finding.subject for finding in decided.findings}, render(decided)
    assert f"{PROJECT}_" not in name
