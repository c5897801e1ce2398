"""What may be desired of a model server, and what is reported of what may not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend.models.spec import Endpoint, ModelSpec, ModelsPolicy, ModelsSpec, Name, record_path
from stackmend.problems import list_problems

DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_" + DIGITS


@pytest.mark.parametrize(
    ("text", "shown", "path"),
    [
        ("llama3.2", "llama3.2:latest", "registry.ollama.ai/library/llama3.2/latest"),
        ("llama3.2:1b", "llama3.2:1b", "registry.ollama.ai/library/llama3.2/1b"),
        ("library/x", "x:latest", "registry.ollama.ai/library/x/latest"),
        ("team/x:1", "team/x:1", "registry.ollama.ai/team/x/1"),
        ("hf.co/team/X.GGUF:Q4_K_M", "hf.co/team/X.GGUF:Q4_K_M", "hf.co/team/X.GGUF/Q4_K_M"),
        ("lan:5000/team/x", "lan:5000/team/x:latest", "lan:5000/team/x/latest"),
        ("registry.ollama.ai/library/x", "x:latest", "registry.ollama.ai/library/x/latest"),
    ],
)
def test_a_name_is_read_and_shown_as_ollama_does(text: str, shown: str, path: str) -> None:
    name = Name.parse(text)
    assert (str(name), name.path) == (shown, path)
    assert Name.parse(shown) == name


def test_a_registry_has_an_address() -> None:
    assert Name.parse("lan:5000/team/x").registry == ("lan", 5000)
    assert Name.parse("x").registry == ("registry.ollama.ai", None)
    assert Name.parse("team/x:7").repository == "team/x"


def test_the_case_of_a_name_tells_none_apart() -> None:
    assert Name.parse("Team/X:Q4").key == Name.parse("team/x:q4").key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "its model ''"),
        ("x y", "its model 'x y'"),
        ("-x", "start with a letter"),
        ("x:", "its tag ''"),
        ("te.am/x", "all of host/namespace/model"),
        ("lan/te.am/x", "its namespace 'te.am'"),
        ("a/b/c/d", "too many parts"),
        ("http://lan/team/x", "insecure=True"),
        ("x@sha256:00", "not by a digest"),
        ("x" * 81, "80 at most"),
        ("../x/y", "its host '..'"),
        ("lan:0/team/x", "from 1 to 65535"),
        ("lan:abc/team/x", "from 1 to 65535"),
        ("x\n", "its model"),
        ("$(reboot)", "its model"),
    ],
)
def test_what_is_no_name_is_told(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        Name.parse(text)


PART = st.builds(
    lambda first, rest: first + rest,
    st.sampled_from(LETTERS),
    st.text(LETTERS + "-.", max_size=20),
)


@given(st.tuples(PART, PART.map(lambda part: part.replace(".", "-")), PART, PART))
def test_every_name_that_ollama_takes_is_taken(parts: tuple[str, str, str, str]) -> None:
    host, namespace, model, tag = parts
    name = Name.parse(f"{host}/{namespace}/{model}:{tag}")
    assert name.path == f"{host}/{namespace}/{model}/{tag}"
    assert Name.parse(str(name)).key == name.key


def report(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        ModelsPolicy.model_validate(raw)
    return list(list_problems(caught.value, "stack", "models"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"wanted": ["a", "b c"]}, "stack.models.wanted[1].name: 'b c' is not a model's name"),
        ({"wanted": [7]}, "stack.models.wanted[0]: must be a model's name"),
        ({"wanted": [{"gguf": "x"}]}, "stack.models.wanted[0].name: missing"),
        ({"wanted": [{"name": "x", "from": "y"}]}, "stack.models.wanted[0].from: unknown key"),
        (
            {"wanted": [{"name": "x", "gguf": "y", "source": "z"}]},
            "stack.models.wanted[0]: give source or gguf, not both",
        ),
        (
            {"wanted": ["x", {"name": "X:latest", "source": "y"}]},
            "stack.models.wanted: duplicate model X:latest, with different origins",
        ),
        ({"endpoint": "http://h/api"}, "stack.models.endpoint: must be the address"),
        ({"endpoint": "http://user:secret@h"}, "stack.models.endpoint: must be the address"),
        ({"endpoint": "h:0"}, "stack.models.endpoint: 'h:0': ports go from 1 to 65535"),
        ({"endpoint": "h", "service": "o"}, "stack.models: give service or endpoint, not both"),
        (
            {"pull_from": "registry", "source": "peer"},
            "stack.models: give pull_from or source, not both: source is its former name",
        ),
        ({"pull_from": "x"}, "stack.models.pull_from: must be 'registry' or 'peer'"),
        ({"service": "a b"}, "stack.models.service: must be the name of a Compose service"),
        ({"update": "sometimes"}, "stack.models.update: must be 'always' or 'never'"),
        ({"stall": 0}, "stack.models.stall: must be greater than 0"),
        ({"parallel": 0}, "stack.models.parallel: must be greater than or equal to 1"),
        ({"minimum_free": "much"}, "stack.models.minimum_free: could not parse"),
        ({"prune": "perhaps"}, "stack.models.prune: must be True or False"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(raw: dict[str, Any], expected: str) -> None:
    (problem,) = report(raw)
    assert problem.startswith(expected)


@pytest.mark.parametrize("field", ["pull_from", "source"])
def test_the_former_name_of_a_field_still_counts(field: str) -> None:
    assert not ModelsPolicy().from_peers
    assert not ModelsPolicy.model_validate({field: "registry"}).from_peers
    assert ModelsPolicy.model_validate({field: "peer"}).from_peers


def test_models_are_given_in_many_ways() -> None:
    raw = [
        "a",
        Name.parse("b"),
        {"name": "c", "source": "lan/t/c"},
        ModelSpec(name="d", gguf="/d"),
    ]
    wanted = ModelsPolicy.model_validate({"wanted": raw}).wanted
    assert [str(model.pulled_as) for model in wanted] == [
        "a:latest",
        "b:latest",
        "lan/t/c:latest",
        "None",
    ]
    assert [model.is_created for model in wanted] == [False, False, False, True]
    for raw in ("a", {"name": "a"}):
        assert ModelsPolicy.model_validate({"wanted": raw}).wanted == (ModelSpec(name="a"),)
    assert ModelsPolicy.model_validate({"wanted": ["a", "A:latest"]}).wanted[0] == ModelSpec(
        name="a"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host", "http://host:11434"),
        ("host:1", "http://host:1"),
        ("http://host", "http://host:80"),
        ("https://host/", "https://host:443"),
        ("http://[0::1]:5", "http://[::1]:5"),
    ],
)
def test_an_endpoint_is_an_address_and_a_port(text: str, shown: str) -> None:
    assert str(Endpoint.parse(text)) == shown
    assert str(Endpoint.parse(shown)) == shown


def test_plain_http_is_never_spoken_to_ollamas_own_registry() -> None:
    policy = ModelsPolicy(
        insecure=True, wanted=["a", "lan/t/b", {"name": "lan/t/c", "insecure": False}]
    )
    assert [policy.is_insecure(model) for model in policy.wanted] == [False, True, False]
    assert ModelsPolicy().is_insecure(ModelSpec(name="lan/t/b", insecure=True))


def test_each_server_has_a_record_of_its_own() -> None:
    places = {
        ModelsSpec(project="ai").record,
        ModelsSpec(project="ai", service="other").record,
        ModelsSpec(project="web").record,
        ModelsSpec(endpoint="http://[::1]:1").record,
        ModelsSpec(endpoint="http://h:1").record,
        ModelsSpec(endpoint="http://h:2").record,
    }
    assert len(places) == 6
    assert all(place.startswith("/var/lib/stackmend/models/") for place in places)
    assert not any(" " in place or ".." in place for place in places)
    assert record_path("", "ollama", None) == "/var/lib/stackmend/models/-.ollama.json"
