"""How often the bytes of a server's blobs are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import StringCommand
from pyinfra.api.host import Host

from stackmend import connection
from stackmend.models import reading
from stackmend.models.spec import Endpoint, ModelsSpec
from stackmend.models.state import StoreState
from tests.connected import local
from tests.unit.models_store import Peer, Store, named, serving


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    with local() as host:
        host.state.is_executing = True
        yield host


@pytest.fixture
def hashings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The time that each reading of every byte was given."""
    timeouts: list[Any] = []
    fetch_facts = connection.fetch_facts

    def counted(host: Host, facts: Any) -> list[Any]:
        facts = list(facts)
        timeouts.extend(arguments.get("_timeout") for _, arguments in facts if arguments["hashes"])
        return fetch_facts(host, facts)

    monkeypatch.setattr(connection, "fetch_facts", counted)
    return timeouts


def test_every_byte_is_read_once_and_once_more_after_a_change(
    host: Host, tmp_path: Path, hashings: list[Any]
) -> None:
    store = Store(tmp_path / "models")
    _, weights = store.model("registry.ollama.ai/library/tiny/latest", b"w" * 5000)
    store.path(weights).write_bytes(b"w" * 4999 + b"X")
    with serving(Peer()) as peer:
        spec = ModelsSpec(endpoint=Endpoint.parse(peer.endpoint), hashes=True)

        def read(**how: bool) -> StoreState:
            state = reading.read(host, spec.fact_arguments, **how)
            assert isinstance(state, StoreState)
            return state

        for how in ({}, {}, {"fresh": True}, {"fresh": True}):
            state = read(**how)
            assert [(problem.kind, problem.digest) for problem in state.problems] == [
                ("corrupt", weights)
            ]
            assert state.hashed
        # Long enough for a disk that is full of models, whatever a reading is given otherwise.
        assert hashings == [reading.HASHING]
        # What others want to know of it needs no contents.
        assert reading.read_latest(host, spec.fact_arguments, {}) is state

        store.path(weights).write_bytes(b"w" * 5000)
        assert read(fresh=True, changed=True).problems == ()
        assert read().problems == ()
        assert hashings == [reading.HASHING] * 2


def test_sizes_are_read_as_often_as_they_are_asked_for(
    host: Host, tmp_path: Path, hashings: list[Any]
) -> None:
    store = Store(tmp_path / "models")
    _, weights = store.model("registry.ollama.ai/library/tiny/latest", b"w" * 5000)
    with serving(Peer()) as peer:
        asked = ModelsSpec(endpoint=Endpoint.parse(peer.endpoint)).fact_arguments
        first = reading.read(host, asked)
        assert isinstance(first, StoreState)
        assert named(first, "tiny").layers
        # Until something is done on the host it holds.
        assert reading.read(host, asked) is first
        store.path(weights).unlink()
        again = reading.read(host, asked, fresh=True)
        assert isinstance(again, StoreState)
        assert [problem.kind for problem in again.problems] == ["missing"]
    assert hashings == []


def test_others_see_what_an_operation_has_changed_since_the_run_was_prepared(
    host: Host, tmp_path: Path
) -> None:
    store = Store(tmp_path / "models")
    with serving(Peer()) as peer:
        asked = ModelsSpec(endpoint=Endpoint.parse(peer.endpoint)).fact_arguments

        def list_models() -> list[str]:
            state = reading.read_latest(host, asked, {})
            assert isinstance(state, StoreState)
            return [str(model.name) for model in state.models]

        (tmp_path / "models").mkdir(exist_ok=True)
        host.state.is_executing = False
        assert isinstance(reading.read(host, asked), StoreState)
        host.state.is_executing = True
        assert list_models() == []
        store.model("registry.ollama.ai/library/tiny/latest", b"w" * 5000)
        assert list_models() == [], "valid until something is done on the host"
        connection.run(host, StringCommand("true"))
        assert list_models() == ["tiny:latest"]


def test_a_host_that_cannot_be_read_is_not_asked_for_each_model(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ModelsSpec(endpoint=Endpoint.parse("127.0.0.1")).fact_arguments
    readings: list[object] = []
    read = reading.read

    def fail(*arguments: Any, **named: Any) -> connection.Unknown:
        readings.append(arguments)
        return connection.Unknown("cut off")

    monkeypatch.setattr(reading, "read", fail)
    for _ in range(3):
        assert isinstance(reading.read_latest(host, asked, {}), connection.Unknown)
    assert len(readings) == 1
    monkeypatch.setattr(reading, "read", read)
    # Its own operation reads it whatever others could.
    assert isinstance(reading.read(host, asked), StoreState)
    assert isinstance(reading.read_latest(host, asked, {}), StoreState)
