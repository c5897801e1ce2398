"""The chain from an accelerator to a model, and what is found of it: pure functions of a state.

Each scenario's findings lie as plain text below ``golden/acceleration_plan``. ``UPDATE_GOLDEN=1
pytest`` writes them anew; the difference is what is to be read.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.decision import Finding
from stackmend.engine.accelerators.state import Accelerators
from stackmend.models.spec import Endpoint
from stackmend.worker import get_acceleration_arguments
from stackmend.worker.acceleration.chain import build_chain, find_processor
from stackmend.worker.acceleration.plan import plan
from stackmend.worker.acceleration.spec import AccelerationPolicy, AccelerationSpec
from stackmend.worker.acceleration.state import (
    Load,
    Memory,
    ServerLog,
    StoredModel,
    Usage,
    WorkerAcceleration,
    describe_processor,
)
from stackmend.worker.context import Shape, parse_shape
from tests.unit.acceleration_world import (
    AMD,
    AMD_HOST,
    BREAKS,
    CPU,
    CPU_STATE,
    GIB,
    HEALTHY,
    HOST,
    LOADED,
    NO_HOST,
    STATE,
    TO_COME,
    WITHOUT,
    change,
    host,
    load,
)
from tests.unit.rendering import assert_golden, list_golden, render

SPEC = AccelerationSpec(project="ai")


def find(
    accelerators: Accelerators, state: WorkerAcceleration, **options: Any
) -> tuple[Finding, ...]:
    spec = AccelerationSpec(project="ai", **options)
    return plan(spec, accelerators, state).findings


#: What a host without an accelerator could do better.
ADVICE: dict[str, WorkerAcceleration] = {
    "more threads than quota": change(
        CPU_STATE,
        container={"quota": 2.0},
        usage=Usage(periods=1000, throttled=400),
    ),
    "more threads than quota, named": change(
        CPU_STATE,
        container={"quota": 2.5, "settings": (("LLAMA_ARG_THREADS", "16"),)},
    ),
    "more threads than cores": change(
        CPU_STATE, log=ServerLog(devices=(CPU,), loads=(Load(at=1, model="x", threads=16),))
    ),
    "few threads": change(CPU_STATE, container={"threads": 1}),
    "too little memory": change(CPU_STATE, container={"memory": GIB}),
    "too little memory, not loaded": change(
        CPU_STATE,
        samples=((), ()),
        stored=(StoredModel(name="llama3.3:70b", size=43 * GIB),),
    ),
    "too little memory, with its context": change(
        CPU_STATE,
        samples=((), ()),
        stored=(StoredModel(name="llama3.1:8b", size=5 * GIB),),
        shape=Shape(layers=32, heads=8, key=128, value=128, trained=131072),
        container={
            "memory": 8 * GIB,
            "settings": (("OLLAMA_CONTEXT_LENGTH", "8192"), ("OLLAMA_NUM_PARALLEL", "4")),
        },
    ),
    "swapping": change(
        CPU_STATE,
        memory=Memory(total=32 * GIB, available=GIB, swapped_in=(1000, 9000)),
        usage=Usage(resident=2 * GIB, swapped=3 * GIB),
    ),
    "clock held low": change(CPU_STATE, cpu={"governors": ("powersave acpi-cpufreq",)}),
    "clock held low, preferred": change(
        CPU_STATE, cpu={"governors": ("powersave intel_pstate power",)}
    ),
    "no AVX2": change(CPU_STATE, cpu={"flags": ("avx", "f16c")}),
}


def texts() -> dict[str, str]:
    found = {}
    for name, make in BREAKS.items():
        decided = plan(SPEC.model_copy(update={"processor": "gpu"}), *make())
        number = len(name) - len(name.rstrip())
        found[f"break {name.strip()}" + (f" {number + 1}" if number else "")] = decided
    found |= {f"cpu {name}": plan(SPEC, NO_HOST, state) for name, state in ADVICE.items()}
    named = {
        name.strip().replace(", ", "_").replace(" ", "_"): text for name, text in found.items()
    }
    return {name: render(decided, lambda _: ()) for name, decided in named.items()}


TEXTS = texts()


@pytest.mark.parametrize("name", TEXTS)
def test_golden(name: str) -> None:
    assert_golden("acceleration_plan", name, TEXTS[name])


def test_no_golden_is_left_over() -> None:
    assert list_golden("acceleration_plan") == set(TEXTS)


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_the_only_finding_and_fails_where_acceleration_is_expected(
    name: str,
) -> None:
    world = BREAKS[name]()
    (finding,) = find(*world, processor="gpu")
    blocks = name.strip() not in TO_COME
    assert (finding.kind, finding.blocks) == (name.strip(), blocks)
    assert finding.cause
    assert finding.remedy
    (reported,) = find(*world, processor="gpu", on_fault="report")
    assert reported.model_copy(update={"blocks": blocks}) == finding


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_healthy_has_no_finding(name: str) -> None:
    world = HEALTHY[name]()
    assert find(*world) == ()
    chain = build_chain(SPEC, *world)
    assert chain.broken is None
    assert {link.status for link in chain.links} <= {"ok", "unknown", "unused"}


def test_the_links_are_in_their_order() -> None:
    chain = build_chain(SPEC, HOST, STATE)
    names = ["host", "driver", "toolkit", "reservation", "container", "server", "model"]
    names.append("reload")
    assert [link.name for link in chain.links] == names
    assert {link.status for link in chain.links} == {"ok"}
    assert str(chain).startswith("host ok, driver ok, ")


def test_no_loaded_model_is_not_known_and_no_fault() -> None:
    chain = build_chain(SPEC, HOST, change(STATE, samples=((), ())))
    model = chain.get_link("model")
    assert (model.status, model.reason) == ("unknown", "no model is loaded")
    assert chain.processor == ""


def test_what_is_not_expected_is_no_finding() -> None:
    # A card without its driver that nothing reserves is a note beside the chain.
    idle = change(STATE, **WITHOUT, container={"requests": ()})
    for driver in ("nouveau", "vfio-pci"):
        assert find(host(driver=driver), idle) == ()
        chain = build_chain(SPEC, host(driver=driver), idle)
        assert f"0000:01:00.0 has the driver {driver}, and nothing reserves it" in str(chain)
    # With a reservation somebody expects it.
    (finding,) = find(host(driver="nouveau"), change(STATE, **WITHOUT))
    assert (finding.kind, finding.blocks) == ("no driver", True)
    # Who wants the CPU has no chain.
    assert find(HOST, change(STATE, **WITHOUT, container={"requests": ()}), processor="cpu") == ()


def test_an_amd_card_with_memory_of_its_own_is_expected() -> None:
    idle = change(CPU_STATE, vram=(("0000:03:00.0", 16 * GIB),))
    (finding,) = find(AMD_HOST, idle)
    assert (finding.kind, finding.blocks) == ("not reserved", True)
    # Graphics within a CPU are asked for by name.
    (finding,) = find(AMD_HOST, CPU_STATE, processor="gpu")
    assert (finding.kind, finding.blocks) == ("not reserved", True)


def test_nvidia_without_its_driver_is_named_before_graphics_within_a_cpu() -> None:
    both = Accelerators(devices=(host(driver="").devices[0], AMD))
    state = change(CPU_STATE, vram=((AMD.address, GIB // 2),))
    (finding,) = find(both, state, processor="gpu")
    assert (finding.kind, "NVIDIA" in finding.cause) == ("no driver", True)


@pytest.mark.parametrize(
    ("number", "remedy"),
    list(
        enumerate(
            (
                "remove CUDA_VISIBLE_DEVICES= from",
                "remove GGML_VK_VISIBLE_DEVICES=-1 from",
                "remove GPU_DEVICE_ORDINAL=-1 from",
                "set NVIDIA_DRIVER_CAPABILITIES=compute,utility in",
                "the container has device files and not the driver's libraries: reserve it",
                "nvidia-modprobe -u",
                "set OLLAMA_IGPU_ENABLE=1 in",
                "set HSA_OVERRIDE_GFX_VERSION in",
                "set HSA_OVERRIDE_GFX_VERSION in",
                "use a server of a later version",
                "update the GPU's driver",
            )
        )
    ),
)
def test_each_reason_of_an_unfound_accelerator_has_its_remedy(number: int, remedy: str) -> None:
    world = BREAKS[f"not found by the server{' ' * (number + 2)}"]()
    (finding,) = find(*world, processor="gpu")
    assert remedy in finding.remedy
    assert '"processor": "cpu"' in finding.remedy


def test_a_variable_that_is_not_set_hides_nothing() -> None:
    state = change(STATE, samples=((), ()), log=ServerLog(devices=(CPU,)))
    (finding,) = find(HOST, state)
    assert finding.remedy.startswith("restart the server")
    assert "docker restart ai-ollama-1" in finding.remedy


def test_a_remedy_names_no_command_that_the_host_has_no_files_for() -> None:
    for make in BREAKS.values():
        (finding,) = find(*make(), processor="gpu")
        assert "docker compose" not in finding.remedy


def test_a_model_on_the_cpu_beside_one_on_the_gpu_fails_nothing() -> None:
    embedding = LOADED.model_copy(update={"name": "nomic-embed-text:latest", "size_vram": 0})
    state = change(STATE, samples=((LOADED, embedding),) * 2)
    (finding,) = find(HOST, state)
    assert (finding.kind, finding.blocks) == ("model on CPU", False)
    assert '"cpu_models": ["nomic-embed-text:latest"]' in finding.remedy
    assert find(HOST, state, cpu_models=["nomic-embed-text"]) == ()
    # One that is alone there is slow for no reason that is known.
    (finding,) = find(HOST, change(STATE, samples=((embedding,),) * 2))
    assert finding.blocks
    assert find(HOST, change(STATE, samples=((embedding,),) * 2), cpu_models=[embedding.name]) == ()


def test_a_model_partly_on_the_gpu_fails_only_where_somebody_says_what_is_enough() -> None:
    state = change(STATE, samples=load(size=1000 * GIB // 1000, size_vram=950 * GIB // 1000))
    (finding,) = find(HOST, state)
    assert (finding.kind, finding.blocks) == ("model partly on CPU", False)
    assert "51 MiB are lacking" in finding.cause
    assert '"share": 0.94' in finding.remedy
    assert [found.blocks for found in find(HOST, state, share=0.99)] == [True]
    assert [found.blocks for found in find(HOST, state, processor="gpu")] == [True]
    assert find(HOST, state, share=0.94) == ()


def test_a_share_expects_an_accelerator_unless_the_processor_is_auto() -> None:
    (finding,) = find(NO_HOST, CPU_STATE, share=1.0)
    assert (finding.kind, finding.blocks) == ("no accelerator", True)
    assert not any(found.blocks for found in find(NO_HOST, CPU_STATE, share=1.0, processor="auto"))
    # The section's arguments say the same to the operation, and to what reads ahead.
    policy = AccelerationPolicy.model_validate({"share": 1.0})
    assert get_acceleration_arguments(policy)["processor"] == "gpu"
    assert (
        get_acceleration_arguments(AccelerationPolicy(endpoint="h:1"))["endpoint"] == "http://h:1"
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"share": 0.5, "processor": "cpu"}, "nothing is expected on an accelerator"),
        ({"service": "ollama", "endpoint": "http://h:1"}, "give service or endpoint, not both"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        AccelerationPolicy.model_validate(options)


def test_a_server_that_does_not_answer_is_reported() -> None:
    silent = change(
        STATE, answers=False, reason="it does not answer (status 7 of the request)", samples=()
    )
    (finding,) = find(HOST, silent)
    assert (finding.kind, finding.blocks) == ("no answer", False)
    assert "status 7" in finding.cause
    assert "status 7" in build_chain(SPEC, HOST, silent).get_link("model").reason


def test_evidence_has_an_end() -> None:
    models = tuple(
        LOADED.model_copy(update={"name": f"m{number}", "size_vram": 0}) for number in range(499)
    )
    (finding,) = find(HOST, change(STATE, samples=(models,)))
    assert len(finding.evidence) == 9
    assert finding.evidence[-1] == "and 492 more"


def test_access_is_read_also_while_the_model_is_still_on_the_accelerator() -> None:
    world = BREAKS["access lost"]()
    assert find_processor(world[1]) == "gpu"
    assert [finding.kind for finding in find(*world)] == ["access lost"]
    chain = build_chain(SPEC, *world)
    assert [link.status for link in chain.links[:4]] == ["ok"] * 4


def test_a_share_that_is_enough_is_no_break() -> None:
    world = BREAKS["model partly on CPU"]()
    assert find(*world, share=0.3) == ()
    (finding,) = find(*world, share=0.5)
    assert "13.0 GiB are lacking" in finding.cause
    assert build_chain(SPEC, *world).processor == "35% gpu"


@pytest.mark.parametrize(
    ("size", "vram", "processor"),
    [
        (100, 0, "cpu"),
        (100, 100, "gpu"),
        (100, 120, "gpu"),
        (100, 35, "35% gpu"),
        (10_000, 1, "1% gpu"),
        (10_000, 9_999, "99% gpu"),
    ],
)
def test_the_processor_in_words(size: int, vram: int, processor: str) -> None:
    assert describe_processor(size, vram) == processor


def test_a_context_is_estimated_as_llama_cpp_allocates_it() -> None:
    # Llama 3.1 8B: 8 heads of 128 in 32 layers; "KV self size = 1024.00 MiB" for 8192 tokens.
    information = {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.embedding_length": 4096,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.context_length": 131072,
    }
    shape = parse_shape({"model_info": information})
    assert shape == Shape(layers=32, heads=8, key=128, value=128, trained=131072)
    assert shape.count_bytes(8192, 1) == 1 << 30
    assert shape.count_bytes(8192, 4) == 4 << 30
    # DeepSeek's keys and values differ; older models name no heads of their own for them.
    other = {**information, "llama.attention.key_length": 192, "llama.attention.head_count_kv": 0}
    assert parse_shape({"model_info": other}) == Shape(
        layers=32, heads=32, key=192, value=128, trained=131072
    )


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"model_info": None},
        {"model_info": {"general.architecture": "llama"}},
        {"model_info": {"general.architecture": [], "[].block_count": 1}},
        {"model_info": {"general.architecture": "x", "x.block_count": -1, "x.embedding_length": 9}},
        {"model_info": {"general.architecture": "x", "x.block_count": 10**12}},
    ],
)
def test_a_model_without_a_shape_has_none(body: Any) -> None:
    assert parse_shape(body) is None


def test_a_context_that_fits_is_no_finding() -> None:
    state = ADVICE["too little memory, with its context"]
    few = (("OLLAMA_CONTEXT_LENGTH", "8192"), ("OLLAMA_NUM_PARALLEL", "2"))
    assert find(NO_HOST, change(state, container={"settings": few})) == ()
    half = (*few[:1], ("OLLAMA_KV_CACHE_TYPE", "q8_0"), ("OLLAMA_NUM_PARALLEL", "2"))
    assert find(NO_HOST, change(state, container={"settings": half})) == ()


def test_a_server_that_is_not_there() -> None:
    absent = change(STATE, container=None, inside=None, samples=(), log=ServerLog())
    kinds = [(found.kind, found.blocks) for found in find(HOST, absent)]
    assert kinds == [("no server", True)]
    stopped = change(absent, container=STATE.container.model_copy(update={"status": "exited"}))  # type: ignore[union-attr]
    (finding,) = find(HOST, stopped)
    assert finding.cause == "its container ai-ollama-1 is exited"
    hung = change(absent, engine={"reason": "the Docker daemon does not answer within 10 s"})
    assert [found.kind for found in find(HOST, hung)] == ["unreadable"]


def test_what_is_not_needed_is_said_with_its_reason() -> None:
    assert str(build_chain(SPEC, NO_HOST, CPU_STATE)) == (
        "not needed: host, driver, toolkit, reservation, container, server, model, reload (no "
        "accelerator of NVIDIA's or AMD's is on the PCI bus)"
    )
    idle = str(build_chain(SPEC, host(driver="nouveau"), CPU_STATE))
    assert idle.count("0000:01:00.0 has the driver nouveau, and nothing reserves it") == 1


def test_a_process_of_the_host_needs_no_container() -> None:
    endpoint = Endpoint.parse("http://127.0.0.1:11434")
    state = change(STATE, container=None, inside=None)
    bare = host(toolkit="", ctk="", runtime="", cdi=())
    assert find(bare, state, endpoint=endpoint) == ()
    chain = build_chain(AccelerationSpec(endpoint=endpoint), bare, state)
    assert [link.name for link in chain.links if link.status == "unused"] == [
        "toolkit",
        "reservation",
        "container",
        "reload",
    ]
    (finding,) = find(bare, change(state, samples=load(size_vram=0)), endpoint=endpoint)
    assert finding.kind == "model on CPU"


def test_a_server_elsewhere_needs_nothing_of_this_host() -> None:
    endpoint = Endpoint.parse("http://192.0.2.7:11434")
    # This host has all that would be found of a server of its own.
    here = (
        *(make()[1] for make in BREAKS.values()),
        *ADVICE.values(),
        change(CPU_STATE, log=ServerLog(loads=(Load(at=1, model="x", threads=64, seconds=1),))),
    )
    for read in here:
        state = change(read, is_local=False, container=None, inside=None, samples=((), ()))
        for accelerators in (HOST, NO_HOST, AMD_HOST, host(driver="nouveau")):
            assert find(accelerators, state, endpoint=endpoint) == ()
            assert find(accelerators, state, endpoint=endpoint, processor="gpu") == ()
        slow = change(state, samples=load(size_vram=0))
        assert find(HOST, slow, endpoint=endpoint) == ()
        (finding,) = find(HOST, slow, endpoint=endpoint, processor="gpu")
        assert (finding.kind, finding.blocks) == ("model on CPU", True)
    chain = build_chain(AccelerationSpec(endpoint=endpoint), HOST, state)
    assert [link.status for link in chain.links[:5]] == ["unused"] * 5


def test_slow_cores_are_not_counted_as_ollama_does_not_use_them() -> None:
    # 8 fast cores with two threads each, and 16 slow ones.
    hybrid = {"cores": 24, "performance": 8, "processors": 32}
    by_default = ServerLog(devices=(CPU,), loads=(Load(at=1, model="x", threads=8),))
    assert find(NO_HOST, change(CPU_STATE, cpu=hybrid, log=by_default)) == ()
    (finding,) = find(NO_HOST, change(CPU_STATE, cpu=hybrid, container={"threads": 2}))
    assert finding.kind == "few threads"
    assert "8 of the cores are performance cores" in finding.evidence


@pytest.mark.parametrize("name", ADVICE)
def test_each_advice_is_the_only_finding(name: str) -> None:
    (finding,) = find(NO_HOST, ADVICE[name])
    assert finding.kind == name.partition(",")[0]
    assert finding.remedy
    assert finding.blocks is (name == "too little memory")  # a model that is loaded
    # Where the GPU does the work, none of it matters.
    assert find(HOST, change(ADVICE[name], **dict(GPU_FIELDS))) == ()


GPU_FIELDS = {
    name: getattr(STATE, name)
    for name in ("smi", "engine", "container", "inside", "samples", "log")
}


@given(
    size=st.integers(1, 1 << 45),
    vram=st.integers(0, 1 << 45),
    count=st.integers(1, 3),
)
def test_a_model_is_found_if_and_only_if_it_is_not_whole_on_the_accelerator(
    size: int, vram: int, count: int
) -> None:
    model = LOADED.model_copy(update={"size": size, "size_vram": vram})
    found = find(HOST, change(STATE, samples=((model,) * count,)))
    assert bool(found) is (vram < size)
