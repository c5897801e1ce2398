"""The decision of ``models.pulled``: what is done for which server and which registry.

Each scenario's plan lies as plain text below ``golden/models_plan``. ``UPDATE_GOLDEN=1 pytest``
writes them anew; what then changes is to be read as the change of behaviour that it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackmend.models.plan import (
    ModelSource,
    Plan,
    add_answer,
    add_corrupt,
    add_digests,
    add_entry,
    add_leftovers,
    arrange,
    drop_answers,
    drop_leftovers,
    find_missing_base,
    keep_leftovers,
    measure_present,
    merge_problems,
    plan,
    select_to_check,
)
from stackmend.models.spec import Name
from stackmend.models.state import (
    Answered,
    NamedModel,
    PartialDownload,
    Record,
    Recorded,
    RegistryAnswer,
    Server,
)
from tests.unit.models_world import (
    MIB,
    UNREACHABLE,
    UP,
    found,
    hexed,
    layers,
    manifest,
    problem,
    render,
    spec,
    state,
    steps,
    stored,
)

A, B = "a:latest", "b:latest"
MIRRORED = {"name": "a", "source": "mirror:5000/team/a:1"}
GOLDEN = Path(__file__).parent / "golden" / "models_plan"
SCENARIOS: dict[str, Callable[[], Plan]] = {}


def scenario(build: Callable[[], Plan]) -> Callable[[], Plan]:
    SCENARIOS[build.__name__] = build
    return build


@scenario
def missing() -> Plan:
    """Two models, one of which was downloaded in part; their licence is there."""
    partial = PartialDownload(digest=layers("a")[1].digest, bytes=40 * MIB, allocated=41 * MIB)
    there = state([stored("c")], partials=(partial,))
    return plan(spec("a", "b"), there, {A: found("a"), B: found("b")})


@scenario
def moved() -> Plan:
    """The tag, on the registry: what shares a blob with the old one keeps it."""
    return plan(spec("a"), state([stored("a")]), {A: found("a", "2")})


@scenario
def moved_and_only_told() -> Plan:
    """The same, where nothing is to be updated."""
    return plan(spec("a", update="never"), state([stored("a")]), {A: found("a", "2")})


@scenario
def out_of_reach() -> Plan:
    """The registry: one is there, one is not."""
    return plan(spec("a", "b"), state([stored("a")]), {A: UNREACHABLE, B: UNREACHABLE})


@scenario
def private() -> Plan:
    """Asked who is there, only the server itself can say."""
    answer = RegistryAnswer(status="unreachable", layer="http", code=401, reason="HTTP 401")
    return plan(spec("a"), state(), {A: answer})


@scenario
def perhaps_at_a_peer() -> Plan:
    """The registry cannot be reached, but another host may have it."""
    return plan(spec("a", pull_from="peer"), state(), {A: UNREACHABLE})


@scenario
def gone_bad() -> Plan:
    """A truncated blob and a missing one."""
    there = state([stored("a")], [problem("a", "truncated"), problem("a", "missing", "config")])
    return plan(spec("a"), there, {A: found("a")})


@scenario
def full() -> Plan:
    """The disk: what could go is named."""
    there = state([stored("old")], free=120 * MIB)
    return plan(spec("a", "b", minimum_free=0), there, {A: found("a"), B: found("b")})


@scenario
def mirrored() -> Plan:
    """Pulled by a mirror's name, and kept by its own."""
    wanted = spec(MIRRORED, insecure=True)
    return plan(wanted, state(), {MIRRORED["source"]: found("a")})


@scenario
def made() -> Plan:
    """From a file, of which the server has nothing yet."""
    digest = hexed("file")
    files = {f"sha256:{digest}": 7 * MIB}
    from_file = {Name.parse("a").key: ModelSource(digest=digest, files=files)}
    return plan(spec({"name": "a", "gguf": "/models/a.gguf"}), state(), {}, from_file)


def derived(**bases: str) -> tuple[list[dict[str, str]], dict[str, ModelSource]]:
    """Models that are each made from another, and what they are made from."""
    wanted = [{"name": name, "modelfile": f"/models/{name}"} for name in bases]
    sources = {
        Name.parse(name).key: ModelSource(digest=hexed(name), base=Name.parse(base))
        for name, base in bases.items()
    }
    return wanted, sources


@scenario
def made_from_each_other() -> Plan:
    """The tag that all rests on has moved; what is derived comes in order, however it is listed."""
    wanted, sources = derived(c="b", b="a", d="a")
    record = {
        f"{name}:latest": Recorded(
            digest=stored(name).digest, made_from=hexed(name), base=stored(base).digest
        )
        for name, base in (("b", "a"), ("c", "b"))
    }
    there = state([stored("a"), stored("b"), stored("c")], record=record)
    return plan(spec(*wanted, "a"), there, {A: found("a", "2")}, sources)


@scenario
def made_from_what_is_missing() -> Plan:
    """One base is on no registry, one is desired of nobody, two are made from each other."""
    wanted, sources = derived(b="a", c="elsewhere", d="e", e="d", f="hf.co/team/x:1")
    return plan(spec("a", *wanted), state(), {A: RegistryAnswer(status="absent")}, sources)


@scenario
def let_go() -> Plan:
    """One that we pulled and nobody wants, one that another hand changed, one that is gone."""
    record = {
        "b:latest": Recorded(digest=stored("b").digest),
        "c:latest": Recorded(digest=hexed("the one that we pulled")),
        "d:latest": Recorded(digest=hexed("d")),
    }
    there = state([stored("a"), stored("b"), stored("c")], record=record)
    return plan(spec("a", prune=True), there, {A: found("a")})


@scenario
def unproven() -> Plan:
    """One has never answered, one not since it changed, one not since its server was started."""
    there = state([stored("a"), stored("b", "2"), stored("c"), stored("d")])
    answered = {
        Name.parse(name).key: Answered(digest=stored(name).digest, server=server)
        for name, server in (("b", UP.instance), ("c", "0.23.0"), ("d", UP.instance))
    }
    there = there.model_copy(update={"record": Record(answered=answered)})
    names = ("a", "b", "c", "d")
    answers = {f"{name}:latest": found(name, "2" if name == "b" else "1") for name in names}
    return plan(spec(*names), there, answers)


@scenario
def stopped() -> Plan:
    """The server's container, by hand."""
    reason = "its container ai-ollama-1 is exited"
    there = state(server=Server(status="stopped", state="exited", reason=reason))
    return plan(spec("a"), there, {})


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_plan_says_what_and_why(name: str) -> None:
    build = SCENARIOS[name]
    text = f"# {build.__doc__}\n{render(build())}"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    expected = path.read_text()
    difference = "\n".join(difflib.unified_diff(expected.split("\n"), text.split("\n")))
    assert text == expected, difference


def test_every_golden_plan_has_its_scenario() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)


def test_present_and_equal_is_nothing_to_do() -> None:
    decided = plan(spec("a"), state([stored("a")]), {A: found("a")})
    assert decided.empty
    assert decided.findings == ()


def test_missing_is_pulled_and_says_how_much() -> None:
    decided = plan(spec("a"), state(), {A: found("a")})
    assert steps(decided) == [f"pull {A}"]
    assert decided.actions[0].bytes == 100 * MIB + 1500
    assert "100.0MiB to fetch" in decided.actions[0].cause
    assert decided.actions[0].undo == f"ollama rm {A}"


def test_what_other_models_share_and_what_was_begun_is_not_fetched_again() -> None:
    partial = PartialDownload(digest=layers("a")[1].digest, bytes=40 * MIB, allocated=41 * MIB)
    decided = plan(spec("a"), state([stored("b")], partials=(partial,)), {A: found("a")})
    assert decided.actions[0].bytes == 60 * MIB + 500


def test_a_tag_that_moved_is_pulled_or_only_told() -> None:
    there, registry = state([stored("a")]), {A: found("a", "2")}
    assert steps(plan(spec("a"), there, registry)) == [f"pull {A}"]
    reported = plan(spec("a", update="never"), there, registry)
    assert reported.empty
    assert [finding.kind for finding in reported.findings] == ["moved"]


def test_a_manifest_that_an_old_server_wrote_anew_is_the_same_model() -> None:
    old = stored("a").model_copy(update={"digest": hexed("written anew")})
    assert plan(spec("a"), state([old]), {A: found("a")}).empty


@pytest.mark.parametrize("layer", ["name", "connect", "tls", "http"])
def test_an_unreachable_registry_is_a_note_or_a_refusal_that_names_the_layer(layer: Any) -> None:
    expected = {"name": "its name", "connect": "no connection", "tls": "TLS", "http": "HTTP"}[layer]
    registry = {
        A: RegistryAnswer(status="unreachable", layer=layer, reason="it is so"),
        B: RegistryAnswer(status="unreachable", layer=layer, reason="it is so"),
    }
    decided = plan(spec("a", "b"), state([stored("a")]), registry)
    assert decided.actions == ()
    (refusal,) = decided.refusals
    assert refusal.subject == B
    assert expected in refusal.reason
    assert "it is so" in refusal.reason
    assert [(finding.subject, finding.blocks) for finding in decided.findings] == [
        (A, False),
        (B, True),
    ]


def test_a_server_with_a_proxy_of_its_own_may_reach_what_the_host_cannot() -> None:
    proxied = state(server=UP.model_copy(update={"proxy": "http://proxy:3128"}))
    decided = plan(spec("a"), proxied, {A: UNREACHABLE})
    assert steps(decided) == [f"pull {A}"]


PRIVATE = UNREACHABLE.model_copy(update={"layer": "http", "code": 401})


def test_a_private_registry_is_left_to_the_key_of_the_server() -> None:
    decided = plan(spec("a"), state(), {A: PRIVATE})
    assert steps(decided) == [f"pull {A}"]
    assert "the server tries with its own key" in decided.actions[0].cause
    assert plan(spec("a"), state(), {A: PRIVATE.model_copy(update={"code": 500})}).refusals
    assert plan(spec("a"), state([stored("a")]), {A: PRIVATE}).empty


def test_where_a_peer_may_have_it_the_server_is_not_sent_to_a_registry_out_of_reach() -> None:
    for answer in (UNREACHABLE, PRIVATE, found("a")):
        (action,) = plan(spec("a", pull_from="peer"), state(), {A: answer}).actions
        assert bool(action.unreachable) == (answer is UNREACHABLE)
    assert (
        "no connection"
        in plan(spec("a", pull_from="peer"), state(), {A: UNREACHABLE}).actions[0].unreachable
    )
    proxied = state(server=UP.model_copy(update={"proxy": "proxy:3128"}))
    (action,) = plan(spec("a", pull_from="peer"), proxied, {A: UNREACHABLE}).actions
    assert action.unreachable == ""


def test_what_is_there_before_a_model_is_fetched_is_known_by_blob() -> None:
    licence, config, weights = layers("b")[2], layers("a")[0], layers("a")[1]
    partial = PartialDownload(digest=weights.digest, bytes=40 * MIB, allocated=41 * MIB)
    there = state([stored("b")], partials=(partial,))
    assert measure_present(there, manifest("a")) == {
        config.digest: 0,
        weights.digest: 40 * MIB,
        licence.digest: 1000,
    }
    # Of what nobody could tell the manifest of, any blob may be a part.
    assert measure_present(there, None) == {**(there.blobs or {}), weights.digest: 40 * MIB}
    bad = state([stored("a")], [problem("a", "corrupt")])
    assert measure_present(bad, manifest("a"))[weights.digest] == 0
    assert weights.digest not in measure_present(bad, None)


def test_what_was_found_corrupt_stays_so_until_it_is_another_file() -> None:
    before = state([stored("a"), stored("b")], [problem("a", "corrupt")], hashed=True)
    read_again = state([stored("a"), stored("b")])
    (kept,) = merge_problems(read_again, before).problems
    assert (kept.kind, kept.models) == ("corrupt", (A,))
    assert merge_problems(read_again, before).hashed
    for other in (
        state([stored("b")]),
        state([stored("a")], [problem("a", "truncated")]),
        state([stored("a")], [problem("a", "missing")]),
    ):
        kinds = [problem.kind for problem in merge_problems(other, before).problems]
        assert "corrupt" not in kinds
    unread = before.model_copy(update={"hashed": False})
    assert merge_problems(read_again, unread) == read_again


@pytest.mark.parametrize(
    ("server", "coming", "starting"),
    [
        ({"status": "up", "state": "running", "health": "healthy"}, False, False),
        ({"status": "up", "state": "running", "health": "starting"}, True, True),
        ({"status": "unreachable", "state": "running", "health": "starting"}, True, True),
        ({"status": "unreachable", "state": "running"}, True, False),
        ({"status": "unreachable", "state": "running", "health": "healthy"}, True, False),
        ({"status": "unreachable", "state": "running", "health": "unhealthy"}, False, False),
        # It answers, but where nobody else gets to.
        ({"status": "unreachable", "state": "running", "version": "0.24.0"}, False, False),
        ({"status": "stopped", "state": "restarting"}, True, True),
        ({"status": "stopped", "state": "exited", "health": "starting"}, False, False),
        ({"status": "stopped", "state": "created"}, False, False),
        ({"status": "stopped", "state": "paused"}, False, False),
        ({"status": "absent"}, False, False),
        ({"status": "unreachable"}, False, False),
    ],
)
def test_only_a_server_that_comes_by_itself_is_waited_for(
    server: dict[str, Any], coming: bool, starting: bool
) -> None:
    observed = Server(**server)
    assert (observed.may_start, observed.is_starting) == (coming, starting)


def test_a_name_that_does_not_exist_gives_the_nearest() -> None:
    registry = {A: RegistryAnswer(status="absent", suggestions=("aa:latest", "ab:latest"))}
    (refusal,) = plan(spec("a"), state(), registry).refusals
    assert "has no such model" in refusal.reason
    assert refusal.remedy == "did you mean aa:latest or ab:latest?"


def test_one_refusal_stops_no_other_model() -> None:
    decided = plan(spec("a", "b"), state(), {A: UNREACHABLE, B: found("b")})
    assert steps(decided) == [f"pull {B}"]
    assert len(decided.refusals) == 1


def test_too_little_space_is_refused_before_anything_is_deleted_or_pulled() -> None:
    there = state(
        [stored("a"), stored("big"), stored("small")],
        [problem("a", "truncated")],
        free=120 * MIB,
    )
    decided = plan(spec("a", "b", minimum_free=0), there, {A: found("a"), B: found("b")})
    assert decided.actions == ()
    (refusal,) = decided.refusals
    # Two models' weights and configs, less what is free and what the broken blob gives back.
    assert "takes 200.0MiB" in refusal.reason
    assert "30.0MiB are missing" in refusal.reason
    assert refusal.remedy.endswith(": small:latest (100.0MiB), big:latest (100.0MiB)")


def test_what_is_to_stay_free_stays_free() -> None:
    registry = {A: found("a")}
    enough = state(free=101 * MIB)
    assert plan(spec("a", minimum_free=0), enough, registry).actions
    (refusal,) = plan(spec("a", minimum_free="1GiB"), enough, registry).refusals
    assert refusal.subject == "space"


def test_where_nobody_knows_what_is_free_it_is_tried() -> None:
    assert plan(spec("a"), state(free=None, blobs=None), {A: found("a")}).actions


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("missing", [f"pull {A}"]),
        ("truncated", ["delete blob sha256:", f"pull {A}"]),
        ("corrupt", ["delete blob sha256:", f"pull {A}"]),
    ],
)
def test_blobs_that_went_bad_are_deleted_and_pulled_again(kind: str, wanted: list[str]) -> None:
    there = state([stored("a")], [problem("a", kind)])
    decided = plan(spec("a"), there, {A: found("a")})
    assert [step[: len(want)] for step, want in zip(steps(decided), wanted, strict=True)] == wanted
    assert decided.actions[-1].bytes == 100 * MIB


def test_nothing_is_deleted_that_cannot_be_had_again() -> None:
    there = state([stored("a")], [problem("a", "corrupt")])
    for answer in (UNREACHABLE, RegistryAnswer(status="absent"), found("a", "2")):
        decided = plan(spec("a", update="never"), there, {A: answer})
        assert decided.actions == ()
        assert len(decided.refusals) == 1


def test_a_blob_on_the_disk_that_no_model_names_is_not_taken_for_whole() -> None:
    weights = layers("a")[1]
    decided = plan(spec("a"), state(blobs={weights.digest: 17}), {A: found("a")})
    assert steps(decided) == [f"delete blob {weights.digest[:19]}", f"pull {A}"]


def test_what_is_broken_of_a_model_that_nobody_wants_is_told_and_left() -> None:
    there = state([stored("a"), stored("b")], [problem("b", "corrupt")])
    decided = plan(spec("a"), there, {A: found("a")})
    assert decided.empty
    assert [(finding.subject, finding.kind) for finding in decided.findings] == [(B, "corrupt")]


def test_a_mirrors_model_is_copied_to_its_name_and_the_other_name_goes() -> None:
    wanted = MIRRORED
    registry = {MIRRORED["source"]: found("a")}
    source = Name.parse("mirror:5000/team/a:1")
    decided = plan(spec(wanted, insecure=True), state(), registry)
    assert steps(decided) == [f"pull {source}", f"copy {A}", f"remove {source}"]
    assert decided.actions[0].insecure
    assert plan(spec(wanted), state([stored("a")]), registry).empty


def test_a_mirrors_model_that_was_there_under_its_own_name_stays() -> None:
    there = stored("a").model_copy(update={"name": Name.parse(MIRRORED["source"])})
    decided = plan(spec(MIRRORED), state([there]), {MIRRORED["source"]: found("a")})
    assert steps(decided) == [f"copy {A}"]


def test_only_what_we_pulled_and_nobody_wants_is_pruned() -> None:
    there = state(
        [stored("a"), stored("b"), stored("c"), stored("d"), stored("e")],
        record={
            A: Recorded(digest=stored("a").digest),
            B: Recorded(digest=stored("b").digest),
            "d:latest": Recorded(digest=hexed("the one that we pulled")),
            "e:latest": Recorded(digest=stored("e").digest),
        },
        named=(NamedModel(name=Name.parse("e"), service="worker", variable="OLLAMA_MODEL"),),
    )
    assert plan(spec("a"), there, {A: found("a")}).actions == ()
    decided = plan(spec("a", prune=True), there, {A: found("a")})
    assert steps(decided) == [f"remove {B}"]
    assert decided.actions[0].destructive
    assert [(finding.subject, finding.kind) for finding in decided.findings] == [
        ("d:latest", "unwanted")
    ]


def test_what_another_hand_removed_is_forgotten() -> None:
    record = {"gone:latest": Recorded(digest=hexed("x")), A: Recorded(digest=stored("a").digest)}
    decided = plan(spec("a"), state([stored("a")], record=record), {A: found("a")})
    assert steps(decided) == ["record gone:latest"]
    assert decided.actions[0].dropped == ("gone:latest",)


def test_a_model_that_the_stack_names_and_nobody_sees_to_is_told() -> None:
    named = NamedModel(name=Name.parse("b"), service="worker", variable="OLLAMA_MODEL")
    decided = plan(spec("a"), state([stored("a")], named=(named,)), {A: found("a")})
    assert decided.empty
    assert "OLLAMA_MODEL of worker names it" in decided.findings[0].cause


def test_the_former_name_of_a_field_is_reported() -> None:
    decided = plan(spec("a", source="peer"), state([stored("a")]), {A: found("a")})
    assert decided.empty
    (finding,) = decided.findings
    assert '"pull_from": "peer"' in finding.cause
    assert not plan(spec("a", pull_from="peer"), state([stored("a")]), {A: found("a")}).findings


def test_a_model_that_broke_after_its_registry_was_to_be_asked_is_a_problem() -> None:
    decided = plan(spec("a", check="local"), state(), {})
    assert decided.actions == ()
    assert [finding.kind for finding in decided.problems] == ["missing"]


def test_a_model_is_created_once_for_what_it_is_made_from() -> None:
    wanted = {"name": "a", "gguf": "/models/a.gguf"}
    key = Name.parse("a").key
    made = {key: ModelSource(digest=hexed("file"), files={f"sha256:{hexed('file')}": 7 * MIB})}
    created = plan(spec(wanted), state(), {}, made)
    assert steps(created) == [f"create {A}"]
    assert created.actions[0].bytes == 7 * MIB
    known = {A: Recorded(digest=stored("a").digest, made_from=hexed("file"))}
    assert plan(spec(wanted), state([stored("a")], record=known), {}, made).empty
    other = {key: ModelSource(digest=hexed("another file"))}
    again = plan(spec(wanted), state([stored("a")], record=known), {}, other)
    assert steps(again) == [f"create {A}"]
    reported = plan(spec(wanted, update="never"), state([stored("a")], record=known), {}, other)
    assert reported.empty
    assert reported.findings


def test_a_file_that_cannot_be_read_is_a_refusal_only_where_it_is_needed() -> None:
    wanted = {"name": "a", "gguf": "/models/a.gguf"}
    gone = {Name.parse("a").key: ModelSource(problem="No such file or directory")}
    assert len(plan(spec(wanted), state(), {}, gone).refusals) == 1
    assert plan(spec(wanted), state([stored("a")]), {}, gone).empty


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("absent", "there is no such model server"),
        ("stopped", "does not run"),
        ("not-ollama", "is not Ollama"),
        ("auth", "asks for authentication"),
        ("unreachable", "does not answer"),
        ("unknown", "cannot tell"),
    ],
)
def test_without_a_server_there_is_one_refusal(status: Any, expected: str) -> None:
    there = state(server=Server(status=status, reason="it says so"))
    decided = plan(spec("a", "b"), there, {})
    assert decided.actions == ()
    (refusal,) = decided.refusals
    assert expected in refusal.reason
    assert refusal.reason.endswith(": it says so")


def test_with_a_local_check_only_what_is_not_whole_is_asked_for() -> None:
    there = state([stored("a"), stored("b")], [problem("b", "corrupt")])
    local = spec("a", "b", "c", {"name": "d", "gguf": "/d"}, check="local")
    assert [str(model) for model in select_to_check(local, there)] == [B, "c:latest"]
    everything = spec("a", "b", {"name": "d", "gguf": "/d"})
    assert [str(model) for model in select_to_check(everything, there)] == [A, B]
    assert plan(spec("a", check="local"), state([stored("a")]), {}).empty


def test_an_answer_counts_for_that_model_on_that_start_of_the_server() -> None:
    """A failed one is no answer, whatever a later run reads."""
    there = state([stored("a"), stored("b")], record={})
    there = there.model_copy(update={"record": Record()})
    wanted, answers = spec("a", "b"), {A: found("a"), B: found("b")}
    assert steps(plan(wanted, there, answers)) == ["ask a:latest", "ask b:latest"]
    record = add_answer(wanted, there.record, there, Name.parse("a"))
    after = there.model_copy(update={"record": record})
    assert steps(plan(wanted, after, answers)) == ["ask b:latest"]
    record = add_answer(wanted, record, after, Name.parse("b"))
    after = after.model_copy(update={"record": record})
    assert plan(wanted, after, answers).empty
    for changes in (
        {"started": "later"},
        {"version": "0.25.0"},
        {"container": "f" * 64},
        {"memory": "209715200"},
    ):
        again = after.model_copy(update={"server": UP.model_copy(update=changes)})
        assert steps(plan(wanted, again, answers)) == ["ask a:latest", "ask b:latest"]
    dropped = drop_answers(record, {Name.parse("B").key})
    again = after.model_copy(update={"record": dropped})
    assert steps(plan(wanted, again, answers)) == ["ask b:latest"]
    # What is no longer desired is not remembered.
    record = add_answer(spec("a"), record, after, Name.parse("a"))
    assert list(record.answered) == [Name.parse("a").key]


def test_an_old_record_without_answers_is_read() -> None:
    assert Record.model_validate_json('{"version": 1, "models": {}}') == Record()


@pytest.mark.parametrize("reason", ["", "this user may not read /m"])
def test_contents_that_were_to_be_verified_and_could_not_be_are_a_refusal(reason: str) -> None:
    there, answers = state([stored("a")], reason=reason), {A: found("a")}
    (refusal,) = plan(spec("a", hashes=True), there, answers).refusals
    assert refusal.subject == "blobs"
    assert reason in refusal.reason
    assert '"hashes": false' in refusal.remedy
    assert plan(spec("a"), there, answers).refusals == ()
    hashed = there.model_copy(update={"hashed": True, "reason": ""})
    assert plan(spec("a", hashes=True), hashed, answers).empty


def test_what_is_made_from_another_is_made_again_once_for_each_that_comes() -> None:
    wanted, sources = derived(b="a")
    desired, answers = spec("a", *wanted), {A: found("a")}
    b = Name.parse("b")

    def recorded(**fields: str) -> Any:
        entry = Recorded(digest=stored("b").digest, made_from=hexed("b"), **fields)
        return state([stored("a"), stored("b")], record={B: entry})

    assert plan(desired, recorded(base=stored("a").digest), answers, sources).empty
    # Made by a stackmend that did not know, or before somebody else pulled the base.
    for before in ({}, {"base": stored("a", "2").digest}):
        decided = plan(desired, recorded(**before), answers, sources)
        assert steps(decided) == [f"create {B}"]
    never = spec("a", *wanted, update="never")
    reported = plan(never, recorded(base="x"), answers, sources)
    assert (reported.empty, len(reported.findings)) == (True, 1)
    after = state([stored("a"), stored("b")], record={})
    record = add_entry(after.record, b, Recorded(digest="", made_from=hexed("b")))
    record = add_digests(record, after, {B: Name.parse("a")})
    after = after.model_copy(update={"record": record})
    assert plan(desired, after, answers, sources).empty
    # The same weights again are no other base.
    broken = recorded(base=stored("a").digest)
    broken = broken.model_copy(update={"problems": (problem("a", "missing"),)})
    assert steps(plan(desired, broken, answers, sources)) == [f"pull {A}"]


def test_what_is_created_waits_for_what_it_is_created_from() -> None:
    wanted, sources = derived(c="b", b="a", a="base", d="base")
    decided = plan(spec(*wanted), state([stored("base")]), {}, sources)
    stages = [
        sorted(chain[0].subject for chain in stage.chains) for stage in arrange(decided.actions)
    ]
    assert stages == [[A, "d:latest"], [B], ["c:latest"]]
    (chain,) = list(arrange(decided.actions))[1].chains
    assert find_missing_base(chain, {Name.parse("a").key}) == A
    assert find_missing_base(chain, {Name.parse("d").key}) == ""


def test_a_mirrors_name_goes_also_after_a_run_that_was_cut() -> None:
    """Between its steps, whichever they were; one that somebody else pulled stays."""
    mirror = Name.parse(MIRRORED["source"])
    left = stored("a").model_copy(update={"name": mirror})
    wanted, answers = spec(MIRRORED), {MIRRORED["source"]: found("a")}
    for digest in (left.digest, ""):
        ours = {str(mirror): Recorded(digest=digest)}
        copied = state([stored("a"), left], record=ours)
        assert steps(plan(wanted, copied, answers)) == [f"remove {mirror}"]
        assert steps(plan(wanted, copied, {MIRRORED["source"]: UNREACHABLE})) == [
            f"remove {mirror}"
        ]
        pulled = plan(wanted, state([left], record=ours), answers)
        assert steps(pulled) == [f"copy {A}", f"remove {mirror}"]
    for theirs in ({}, {str(mirror): Recorded(digest=hexed("another"))}):
        assert plan(wanted, state([stored("a"), left], record=theirs), answers).empty
    both = spec(MIRRORED, MIRRORED["source"])
    assert plan(both, state([stored("a"), left], record=ours), answers).empty


def test_what_was_replaced_or_sent_goes_once_no_model_needs_it() -> None:
    old, new = stored("a"), manifest("a", "2")
    wanted = spec(MIRRORED, {"name": "b", "gguf": "/b.gguf"})
    file = f"sha256:{hexed('file')}"
    sources = {Name.parse("b").key: ModelSource(digest="x", files={file: 7})}
    before = state([old, stored("c")])
    decided = plan(wanted, before, {MIRRORED["source"]: found("a", "2")}, sources)
    record = add_leftovers(before.record, before, decided.actions)
    assert set(record.leftovers) == {*(x.digest for x in old.layers or ()), file}

    # The model is another one now; the file was refused.
    now = stored("a").model_copy(update={"digest": new.digest, "layers": new.layers})
    blobs = {x.digest: x.size for x in (*(old.layers or ()), *new.layers)} | {file: 7}
    after = state([now, stored("c")], blobs=blobs)
    after = after.model_copy(update={"record": record})
    gone = {action.digest for action in drop_leftovers(after)}
    # The licence is another model's, too.
    assert gone == {old.layers[0].digest, old.layers[1].digest, file}  # type: ignore[index]
    assert drop_leftovers(after, {file}) != drop_leftovers(after)
    assert set(keep_leftovers(record, after).leftovers) == gone
    # While somebody pulls, what is there may be what is needed.
    partial = PartialDownload(digest=f"sha256:{hexed('x')}", bytes=1, modified=after.now - 5)
    pulled = after.model_copy(update={"partials": (partial,)})
    assert drop_leftovers(pulled) == []
    (told,) = plan(spec(), after.model_copy(update={"record": Record()})).findings
    assert (told.subject, told.kind, told.blocks) == ("blobs", "unneeded", False)
    assert set(told.evidence) == gone


def test_what_another_host_found_corrupt_is_mended_as_if_it_had_been_read() -> None:
    there = state([stored("a"), stored("b")])
    weights = layers("a")[1].digest
    told = add_corrupt(there, {weights, f"sha256:{hexed('of nobody')}"})
    assert [(x.kind, x.digest, x.models) for x in told.problems] == [("corrupt", weights, (A,))]
    answers = {A: found("a"), B: found("b")}
    assert steps(plan(spec("a", "b"), told, answers)) == [
        f"delete blob {weights[:19]}",
        f"pull {A}",
    ]
    assert add_corrupt(told, {weights}).problems == told.problems
    gone = state([stored("a")], [problem("a", "missing")])
    assert add_corrupt(gone, {weights}).problems == gone.problems
