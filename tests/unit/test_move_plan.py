"""The move of a legacy worker: what it is, its steps from every state, and what decides."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stackmend.worker.benchmark.state import Comparison, Load
from stackmend.worker.move.plan import (
    Designed,
    Measure,
    add_comparison,
    advance,
    assemble_move,
    begin,
    change_settings,
    explain_return,
    is_final,
    make_key,
    make_layer,
    make_return,
    plan,
    return_failed,
)
from stackmend.worker.move.plan.layer import ORDER
from stackmend.worker.move.spec import MovePolicy
from stackmend.worker.move.state import (
    Answer,
    HostMove,
    Legacy,
    ModelFile,
    Move,
    MoveRecord,
    ProjectView,
    Runner,
)

SPEC = MovePolicy()
COMPOSE = b"""\
services:
  llm:
    image: ghcr.io/ggml-org/llama.cpp:server
  api:
    image: team/api:1
    environment:
      OPENAI_BASE_URL: http://llm:8080/v1
      OPENAI_MODEL: tiny
"""


def config(**services: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE)
    for name, body in services.items():
        found["services"].setdefault(name, {}).update(body)
    for body in found["services"].values():
        body.setdefault("networks", {"default": None})
    found["name"] = "ai"
    return found


def runner(**more: Any) -> Runner:
    return Runner.model_validate(
        {
            "service": "llm",
            "id": "a" * 64,
            "image": "ghcr.io/ggml-org/llama.cpp:server",
            "image_id": "sha256:1",
            "files": (ModelFile(path="/models/tiny.gguf", size=1000),),
            "addresses": ("172.18.0.2",),
            **more,
        }
    )


def legacy(**more: Any) -> Legacy:
    names = more.pop("names", ("/models/tiny.gguf",))
    answer = Answer(address="172.18.0.2", port=8080, server="llama.cpp", names=names)
    return Legacy(
        runner=runner(**more), engine="llama.cpp", evidence=("its image is …",), answer=answer
    )


def designed(
    spec: MovePolicy = SPEC,
    of: Legacy | None = None,
    project: dict[str, Any] | None = None,
    host: HostMove | None = None,
    files: dict[str, bytes] | None = None,
    **view: Any,
) -> Designed:
    known = {"compose.yaml": COMPOSE} if files is None else files
    over = tuple(path for path in known if path.endswith(".yaml"))
    more = {"directory": "/opt/ai", **view}
    view = ProjectView(config=project or config(), files=known, compose_files=over, **more)
    return assemble_move(spec, host or HostMove(), of or legacy(), view)


def move() -> Move:
    found = designed().move
    assert found is not None
    return found


def compared(ratio: float, p: float = 0.008, **more: Any) -> Comparison:
    return Comparison.model_validate(
        {
            "load": Load(concurrency=1),
            "figure": "output_tps",
            "before": 10.0,
            "after": 10.0 * ratio,
            "ratio": ratio,
            "threshold": 0.1,
            "p": p,
            "outcome": "better" if ratio > 1 else "worse",
            **more,
        }
    )


# What it is


def test_a_move() -> None:
    found = move()
    assert found.clients == ("api",)
    assert found.port == 8080
    assert [(model.name, model.path) for model in found.models] == [("tiny", "/models/tiny.gguf")]
    assert found.repointed == {
        "api": {"environment": {"OPENAI_BASE_URL": "http://ollama:11434/v1"}}
    }
    assert found.added["image"] == SPEC.image
    assert found.added["volumes"] == ["stackmend-ollama:/root/.ollama"]
    assert found.added["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert not {"networks", "deploy", "mem_limit"} & found.added.keys()


def test_a_gpu_is_reserved_where_containers_can_have_one() -> None:
    found = designed(host=HostMove(gpu=True)).move
    assert found is not None
    (device,) = found.added["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


LIMIT = {"deploy": {"resources": {"limits": {"memory": "1300"}}}}


@pytest.mark.parametrize(
    ("body", "settings", "limit"),
    [
        ({"mem_limit": "1200"}, {}, 1200),
        (LIMIT, {}, 1300),
        # Its models do not fit into that, as Ollama has them.
        ({"mem_limit": "1199"}, {}, None),
        ({"mem_limit": "0"}, {}, None),
        ({"mem_limit": "1200"}, {"mem_limit": "2g"}, "2g"),
        ({"mem_limit": "1200"}, LIMIT, None),
    ],
)
def test_the_limit_of_memory_is_that_of_the_legacy_one_where_it_fits(
    body: dict[str, Any], settings: dict[str, Any], limit: object
) -> None:
    found = designed(MovePolicy(settings=settings), project=config(llm=body)).move
    assert found is not None
    assert found.added.get("mem_limit") == limit


def test_a_file_of_unknown_size_fits_into_no_limit() -> None:
    of = legacy(files=(ModelFile(path="/models/tiny.gguf"),))
    spec = MovePolicy(allow=("space",))
    found = designed(spec, of=of, project=config(llm={"mem_limit": "9999999"})).move
    assert found is not None
    assert "mem_limit" not in found.added


def test_it_takes_its_place_where_clients_are() -> None:
    """Not where others are: they would have it by the name that it has there."""
    project = config(
        llm={"networks": {"back": None, "front": None, "shared": None}},
        api={"networks": {"back": None, "shared": None}},
    )
    project["networks"] = {"shared": {"external": True}}
    refused = designed(project=project)
    assert "callers outside of the project" in refused.refusals[0].reason
    found = designed(MovePolicy(allow=("network",)), project=project).move
    assert found is not None
    assert found.added["networks"] == ["back"]


def test_it_has_no_network_in_common_with_a_client() -> None:
    project = config(llm={"networks": {"a": None}}, api={"networks": {"b": None}})
    assert "shares no network" in designed(project=project).refusals[0].reason


def test_an_ollama_of_the_project_is_not_added() -> None:
    found = designed(project=config(ollama={"image": "ollama/ollama"}), served=("a:latest",)).move
    assert found is not None
    assert (found.added, found.volume) == ({}, "")
    assert make_layer(found, "added") == ""
    assert "ollama" not in yaml.safe_load(make_layer(found, "repointed"))["services"]


def test_a_host_and_a_port_of_their_own() -> None:
    env = {"LLM_HOST": "llm", "LLM_PORT": "8080", "LLM_MODEL": "tiny"}
    file = COMPOSE.replace(
        b"OPENAI_BASE_URL: http://llm:8080/v1\n      OPENAI_MODEL: tiny",
        b"LLM_HOST: llm\n      LLM_PORT: '8080'\n      LLM_MODEL: tiny",
    )
    project = config()
    project["services"]["api"]["environment"] = env
    files = {"compose.yaml": file}
    refused = designed(project=project, files=files)
    assert any('"allow": ["api"]' in each.remedy for each in refused.refusals)
    found = designed(MovePolicy(allow=("api",)), project=project, files=files).move
    assert found is not None
    repointed = found.repointed["api"]["environment"]
    assert repointed == {"LLM_HOST": "ollama", "LLM_PORT": "11434"}


@pytest.mark.parametrize(
    ("spec", "of", "project", "reason"),
    [
        ({}, {"published": ("127.0.0.1:8080",)}, {}, "published on the host at 127.0.0.1:8080"),
        ({}, {"accelerated": True}, {}, "an accelerator is reserved for it"),
        ({}, {}, {"llm": {"network_mode": "host"}}, "no network of the project's own"),
        ({}, {}, {"api": {"environment": {"MODEL": "tiny"}}}, "no service has its address"),
        ({"client": "cron"}, {}, {}, "cron has its address"),
        ({"client": "cron"}, {}, {}, "api calls it as well"),
        ({}, {"files": ()}, {}, "no process of it names a GGUF file"),
        (
            {},
            {},
            {"api": {"environment": {"URL": "http://llm:8080/v1", "MODEL": "/models/tiny.gguf"}}},
            "which is no name for Ollama",
        ),
        (
            {},
            {},
            {"api": {"environment": {"OPENAI_BASE_URL": "http://llm:8080/completion"}}},
            "none of OpenAI's API",
        ),
        (
            {},
            {"files": (ModelFile(path="/models/tiny.gguf", size=10**12),)},
            {},
            "are free where Docker keeps volumes",
        ),
        (
            {},
            {"names": ("big",), "files": (ModelFile(path="/a.gguf"), ModelFile(path="/b.gguf"))},
            {},
            "which file its model",
        ),
        (
            {"models": {"big": "/models/big-00001-of-00002.gguf"}},
            {},
            {},
            "one of several files",
        ),
    ],
)
def test_what_is_refused(
    spec: dict[str, Any], of: dict[str, Any], project: dict[str, Any], reason: str
) -> None:
    changed = config()
    for name, body in project.items():
        changed["services"][name].update(body)
    found = designed(
        MovePolicy.model_validate(spec), legacy(**of), changed, HostMove(free=10**9), {}
    )
    assert found.move is None
    assert any(reason in refusal.reason for refusal in found.refusals), found.refusals
    assert all(refusal.remedy for refusal in found.refusals)


def test_a_check_that_asks_it() -> None:
    view = ProjectView(config=config(), checked=("llm",))
    found = assemble_move(SPEC, HostMove(), legacy(), view)
    assert any("a check of the stack asks it" in each.reason for each in found.refusals)


def test_what_is_allowed() -> None:
    spec = MovePolicy.model_validate({"service": "llm", "allow": ("published",)})
    of = legacy(published=("0.0.0.0:80",), accelerated=True)
    assert designed(spec, of).move is not None


def test_models_that_are_named() -> None:
    raw = {"models": {"gpt-3.5-turbo": "/models/a.gguf", "tiny": "/models/tiny.gguf"}}
    refused = designed(MovePolicy.model_validate(raw), legacy(files=()))
    assert "how large /models/a.gguf is cannot be read" in refused.refusals[0].reason
    spec = MovePolicy.model_validate({**raw, "allow": ("space",)})
    found = designed(spec, legacy(files=())).move
    assert found is not None
    assert [model.name for model in found.models] == ["gpt-3.5-turbo", "tiny"]


def test_models_that_are_named_come_to_those_that_are_found() -> None:
    of = legacy(
        names=("team",),
        files=(ModelFile(path="/models/tiny.gguf", size=1), ModelFile(path="/b.gguf", size=1)),
    )
    spec = MovePolicy(models={"more": "/b.gguf", "team:latest": "/b.gguf"})
    found = designed(spec, of).move
    assert found is not None
    assert [(each.name, each.path, each.cause) for each in found.models] == [
        ("more", "/b.gguf", "models names it"),
        ("team:latest", "/b.gguf", "models names it"),
        ("tiny", "/models/tiny.gguf", "api asks for it"),
    ]


def test_a_name_that_clients_ask_for_and_would_not_have_is_refused() -> None:
    of = legacy(names=(), files=(ModelFile(path="/a.gguf", size=1), ModelFile(path="/b.gguf")))
    refused = designed(MovePolicy(models={"wrong": "/a.gguf"}), of)
    assert refused.move is None
    (refusal,) = refused.refusals
    assert "api asks for the model tiny, which the new one would not have" in refusal.reason
    assert '"models": {"NAME"' in refusal.remedy


def test_a_move_that_waits_for_somebody_is_not_tried_again() -> None:
    found = return_failed(record("repointed"), "api asks for 3", "name it")
    back = found.model_copy(update={"stage": "returned"})
    assert is_final(back, "k")
    assert not is_final(back, "other")
    (refusal,) = plan(SPEC, HostMove(record=back), "k").refusals
    assert refusal.remedy == "name it"
    assert "3 times" not in refusal.reason


def test_it_says_when_it_was_measured_and_how_to_measure_now() -> None:
    back = make_return(record("imported", at=1.0e9), "too slow")
    back = back.model_copy(update={"stage": "returned"})
    (finding,) = plan(SPEC, HostMove(record=back), "k").findings
    assert "measured at 2001-09-09 01:46 UTC: too slow" in finding.cause
    assert "remove /var/lib/stackmend/ai/move.json" in finding.remedy


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"margin": 1}, "less than 1"),
        ({"margin": 10}, "less than 1"),
        ({"settings": {"mem_limit": "lots"}}, "settings.mem_limit: must be a number of bytes"),
        ({"settings": {"cpus": "many"}}, "settings.cpus: must be a number"),
        ({"settings": {"cpus": True}}, "settings.cpus: must be a number"),
        ({"settings": {"environment": "A=1"}}, "settings.environment: must be a mapping"),
        ({"settings": {"environment": {"A": []}}}, "settings.environment: must be a mapping"),
        ({"settings": {"privileged": "yes"}}, "settings.privileged: must be True or False"),
        ({"settings": {"deploy": []}}, "settings.deploy: must be a mapping"),
        ({"settings": {"devices": [1]}}, "settings.devices: must be a list"),
        ({"settings": {"restart": 5}}, "settings.restart: must be a text"),
    ],
)
def test_settings_that_mean_nothing(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        MovePolicy.model_validate(raw)


def test_settings_as_compose_takes_them() -> None:
    MovePolicy(
        settings={
            "mem_limit": "1.5 GiB", "memswap_limit": -1, "cpus": "0.5", "shm_size": 65536,
            "environment": ["OLLAMA_DEBUG=1"], "labels": {"a": None, "b": 1}, "dns": "9.9.9.9",
            "mem_reservation": "${SOME}", "init": True, "deploy": {},
        }
    )  # fmt: skip


def test_a_file_that_is_not_there() -> None:
    spec = MovePolicy(models={"tiny": "/models/tyny.gguf"})
    refused = designed(spec, absent=("/models/tyny.gguf",))
    (refusal,) = refused.refusals
    assert refusal.reason == (
        "not moved: it has no file /models/tyny.gguf; its processes name /models/tiny.gguf"
    )
    assert "space" not in refusal.remedy


def test_every_name_of_one_file() -> None:
    found = designed(of=legacy(names=("team", "/models/tiny.gguf"))).move
    assert found is not None
    assert [model.name for model in found.models] == ["team", "tiny"]


def test_the_key_follows_settings_and_images() -> None:
    key = make_key(SPEC, [runner()])
    assert key == make_key(MovePolicy(keep_legacy=False), [runner()])
    assert key != make_key(MovePolicy(margin=0.2), [runner()])
    assert key != make_key(SPEC, [runner(image_id="sha256:2")])


def test_a_model_of_an_ollama_is_never_replaced() -> None:
    project = config(ollama={"image": "ollama/ollama"})
    refused = designed(project=project, served=("tiny:latest",))
    assert "has a model tiny already" in refused.refusals[0].reason
    found = designed(MovePolicy(allow=("models",)), project=project, served=("tiny:latest",)).move
    assert found is not None
    assert found.models[0].present
    steps = plan(SPEC, HostMove(record=begin(found, "k", "ai"))).actions
    assert [step.verb for step in steps] == ["measure", "re-point", "measure", "stop"]


@pytest.mark.parametrize(
    ("target", "project", "reason"),
    [
        ("llm", {}, "its own name"),
        ("ollama", {"ollama": {"image": "redis:7"}}, "no Ollama answers there"),
        ("api", {}, "api calls it itself"),
    ],
)
def test_what_it_cannot_be_moved_to(target: str, project: dict[str, Any], reason: str) -> None:
    found = designed(MovePolicy(target=target), project=config(**project))
    assert any(reason in each.reason for each in found.refusals), found.refusals


@pytest.mark.parametrize(
    ("api", "files", "reason"),
    [
        ({"healthcheck": {"test": ["CMD", "curl", "http://llm:8080/health"]}}, {}, "names it"),
        (
            {
                "volumes": [
                    {"type": "bind", "source": "/opt/ai/app.yaml", "target": "/etc/app.yaml"}
                ]
            },
            {"app.yaml": b"llm:\n  base_url: http://llm:8080/v1\n"},
            "app.yaml:2, a file of api, has its address",
        ),
    ],
)
def test_callers_whose_address_cannot_be_replaced(
    api: dict[str, Any], files: dict[str, bytes], reason: str
) -> None:
    found = designed(project=config(api=api), files={"compose.yaml": COMPOSE, **files})
    assert any(reason in each.reason for each in found.refusals), found.refusals


def test_a_check_that_asks_it_at_the_host() -> None:
    spec = MovePolicy(allow=("published",))
    of = legacy(published=("127.0.0.1:8080",))
    assert designed(spec, of).move is not None
    found = designed(spec, of, asked=(8080,))
    assert "asks it at port 8080 of the host" in found.refusals[0].reason


@pytest.mark.parametrize(
    "more",
    [
        {"command": ("llama-server", "--api-key", "***")},
        {"command": ("llama-server", "--mmproj=/m/p.gguf")},
        {"command": ("llama-server", "--lora", "/m/l.gguf")},
        {"command": ("llama-server", "--embedding")},
        {"env": {"LLAMA_API_KEY": "***"}},
    ],
)
def test_what_a_file_says_nothing_of(more: dict[str, Any]) -> None:
    found = designed(of=legacy(**more))
    assert "which the new one would not have" in found.refusals[0].reason
    assert designed(MovePolicy(allow=("options",)), legacy(**more)).move is not None


@pytest.mark.parametrize(
    ("more", "context"),
    [
        ({"command": ("llama-server", "-c", "8192")}, 8192),
        ({"command": ("llama-server", "--ctx-size=512")}, 512),
        ({"command": ("python3", "-m", "llama_cpp.server", "--n_ctx", "4096")}, 4096),
        ({"env": {"LLAMA_ARG_CTX_SIZE": "2048"}}, 2048),
        ({"command": ("llama-server", "-c", "0")}, 0),
        ({}, 0),
    ],
)
def test_models_keep_their_context(more: dict[str, Any], context: int) -> None:
    found = designed(of=legacy(**more)).move
    assert found is not None
    assert found.models[0].context == context
    (step,) = [s for s in plan(SPEC, HostMove(record=begin(found, "k", "ai"))).actions
               if s.verb == "import"]  # fmt: skip
    assert step.context == context


def test_the_context_that_it_answers_with_counts() -> None:
    of = legacy(command=("llama-server", "-c", "8192", "-np", "4"))
    assert of.answer is not None
    of = of.model_copy(update={"answer": of.answer.model_copy(update={"context": 2048})})
    found = designed(of=of).move
    assert found is not None
    assert found.models[0].context == 2048


def test_memory_for_a_second_copy() -> None:
    short = HostMove(available=1100)
    found = designed(host=short)
    assert "a second copy of its model needs about 1200 bytes" in found.refusals[0].reason
    assert designed(MovePolicy(allow=("memory",)), host=short).move is not None
    assert designed(host=HostMove(available=1100, gpu=True, gpu_free=1200)).move is not None
    assert designed(host=HostMove(available=1200)).move is not None


def test_paths_that_lead_to_one_file() -> None:
    files = (
        ModelFile(path="/hub/snapshots/a.gguf", size=1000, inode="1:2"),
        ModelFile(path="/models/b.gguf", size=1000, inode="1:2"),
    )
    found = designed(of=legacy(files=files, names=("other",)), host=HostMove(free=2 * 10**9)).move
    assert found is not None
    assert {model.path for model in found.models} == {"/hub/snapshots/a.gguf"}


def test_space_stays_free() -> None:
    host = HostMove(free=10**9)
    assert "stay free" in designed(host=host, minimum_free=10**9).refusals[0].reason
    assert designed(host=host, minimum_free=10**8).move is not None


def test_a_volume_of_an_earlier_move_is_left_alone() -> None:
    found = designed(host=HostMove(volumes=("ai_stackmend-ollama",))).move
    assert found is not None
    assert found.volume == "stackmend-ollama-1"
    assert "start_interval" not in found.added["healthcheck"]


# What is laid over the project's files


def test_the_layer_of_each_stage() -> None:
    layers = {stage: make_layer(move(), stage) for stage in ORDER}
    assert layers["planned"] == ""
    assert layers["added"] == layers["imported"] == layers["measured"]
    assert layers["repointed"] == layers["confirmed"]
    services = {
        stage: yaml.safe_load(text or "{}").get("services") for stage, text in layers.items()
    }
    assert set(services["added"]) == {"ollama"}
    assert set(services["repointed"]) == {"ollama", "api"}
    assert services["retired"]["llm"] == {"x-stackmend-kept": True}
    assert make_layer(move(), "returned") == make_layer(move(), "returning") == ""


# Its steps


def record(stage: str, **more: Any) -> MoveRecord:
    known = {"project": "ai", "key": "k", "stage": stage, "move": move(), **more}
    return MoveRecord.model_validate(known)


STEPS = {
    "planned": ["add", "import", "measure", "re-point", "measure", "stop"],
    "added": ["import", "measure", "re-point", "measure", "stop"],
    "imported": ["measure", "re-point", "measure", "stop"],
    "measured": ["re-point", "measure", "stop"],
    "repointed": ["measure", "stop"],
    "confirmed": ["stop"],
    "returning": ["put back"],
    "retired": [],
    "returned": [],
}


@pytest.mark.parametrize("stage", STEPS)
def test_the_steps_from_every_stage(stage: str) -> None:
    layer = make_layer(move(), "retired") if stage == "retired" else ""
    found = plan(SPEC, HostMove(record=record(stage), layer=layer), "k")
    assert [action.verb for action in found.actions] == STEPS[stage]
    assert all(action.cause for action in found.actions if stage != "returning")
    assert not found.refusals
    assert not found.problems


@pytest.mark.parametrize("cut", range(7))
def test_a_run_that_is_cut_short_anywhere_is_continued(cut: int) -> None:
    """As many steps as were done, and then a run of its own for each that is left."""
    known = begin(move(), "k", "ai")
    done: list[str] = []
    while steps := plan(SPEC, HostMove(record=known), "k").actions:
        for action in steps[: cut or 1]:
            done.append(action.verb)
            if isinstance(action, Measure):
                known = add_comparison(known, action.phase, compared(3.0), SPEC.margin)
            else:
                known = advance(known, action)
    assert done == STEPS["planned"]
    assert known.stage == "retired"
    assert MoveRecord.model_validate_json(known.model_dump_json()) == known


def test_a_model_of_several_is_not_all_of_them() -> None:
    both = designed(of=legacy(names=("team",))).move
    assert both is not None
    known = begin(both, "k", "ai").model_copy(update={"stage": "added"})
    first, second = plan(SPEC, HostMove(record=known)).actions[:2]
    assert advance(known, first).stage == "added"
    assert advance(known, second).stage == "imported"


def test_nothing_is_planned_without_a_legacy_worker() -> None:
    assert plan(SPEC, HostMove()).empty
    named = plan(MovePolicy(service="llm"), HostMove())
    assert "no running container of it says" in named.refusals[0].reason


def test_several_are_refused() -> None:
    found = plan(SPEC, HostMove(), "k", (legacy(), legacy(service="other")))
    assert "several services are legacy workers: llm, other" in found.refusals[0].reason


def test_a_record_that_cannot_be_read_is_refused() -> None:
    found = plan(SPEC, HostMove(record_problem="broken"))
    assert not found.actions
    assert found.refusals


def test_one_that_was_slower_is_tried_again_once_anything_changed() -> None:
    back = HostMove(record=record("returned", reason="slow"))
    assert not plan(SPEC, back, "k").actions
    again = plan(SPEC, back, "other", (legacy(),), designed())
    assert [action.verb for action in again.actions] == STEPS["planned"]


def test_a_layer_that_means_the_same_is_the_same() -> None:
    layer = yaml.safe_dump(yaml.safe_load(make_layer(move(), "retired")), sort_keys=False)
    found = plan(SPEC, HostMove(record=record("retired"), layer=layer), "k")
    assert [each.kind for each in found.findings] == ["moved"]


def test_settings_that_changed_back_are_followed_as_well() -> None:
    """Those that are no longer there are what they are without them."""
    spec = MovePolicy(image="ollama/ollama:9", settings={"mem_limit": "8g", "restart": "no"})
    changed = change_settings(move(), spec)
    assert (changed.added["mem_limit"], changed.added["restart"]) == ("8g", "no")
    assert change_settings(changed, SPEC) == move()


def test_a_record_of_settings_in_another_form_is_the_same() -> None:
    spec = MovePolicy(settings={"cap_drop": ("ALL",)})
    known = MoveRecord.model_validate_json(
        record("retired", move=change_settings(move(), spec)).model_dump_json()
    )
    assert change_settings(known.move, spec) is known.move


def test_what_changes_while_clients_still_call_the_legacy_one_is_another_move() -> None:
    spec = MovePolicy(margin=0.5, profile={"repeats": 9})
    for stage in ORDER[:4]:
        (back,) = plan(MovePolicy(target="o"), HostMove(record=record(stage)), "k").actions
        assert back.verb == "put back"
        # These say nothing of what was done so far.
        steps = plan(spec, HostMove(record=record(stage)), "k").actions
        assert [action.verb for action in steps] == STEPS[stage]
    again = make_return(record("added"), "why", final=False).model_copy(
        update={"stage": "returned"}
    )
    assert not is_final(again, "k")


@pytest.mark.parametrize(
    ("raw", "seconds"), [("1m30s", 90.0), ("1h0m0s", 3600.0), ("500ms", 0.5), (None, 10.0)]
)
def test_the_time_that_a_client_has_to_end(raw: str | None, seconds: float) -> None:
    found = designed(project=config(api={"stop_grace_period": raw})).move
    assert found is not None
    assert found.grace == {"api": seconds}


def test_one_that_was_taken_back_by_hand_is_left_alone() -> None:
    found = plan(SPEC, HostMove(record=record("retired")), "k")
    assert not found.actions
    assert "somebody took that back" in found.findings[0].cause


# What decides


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (compared(2.0), None, True),
        (compared(1.05), None, False),
        (compared(0.5), None, False),
        # Faster by chance, perhaps.
        (compared(2.0, p=0.2, outcome="noisy"), None, False),
        # Noisy, and faster beyond it.
        (compared(3.0, p=0.008, outcome="noisy", reason="its repeats vary by 49%"), None, True),
        # Clients kept the legacy worker busy, and then the new one.
        (compared(2.0), compared(0.5), False),
        (compared(2.6), compared(0.65), True),
        (compared(2.0), compared(0.6), False),
    ],
)
def test_it_is_kept_where_it_is_faster(
    before: Comparison, after: Comparison | None, kept: bool
) -> None:
    known = record("repointed", before=before, after=after)
    assert (explain_return(known, 0.1) == "") is kept
    phase, found = ("after", after) if after is not None else ("before", before)
    decided = add_comparison(known, phase, found, 0.1)
    forward = "confirmed" if after is not None else "measured"
    assert decided.stage == (forward if kept else "returning")
    assert bool(decided.reason) is not kept
    assert not decided.failed


def test_a_step_that_fails_leads_back() -> None:
    known = return_failed(record("imported"), "no disk")
    (back,) = plan(SPEC, HostMove(record=known)).actions
    assert (back.verb, back.cause) == ("put back", "no disk")
    assert known.failed
