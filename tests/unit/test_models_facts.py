"""The probe of a model server, run here: in every shell there is, on real files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactProcessError
from pyinfra.api.exceptions import FactValueError

from stackmend.models import facts
from stackmend.models.facts import ModelStore
from stackmend.models.spec import Name
from stackmend.models.state import Record, Recorded, StoreState
from tests.marks import MARK, answer, asked, framed
from tests.unit.models_store import CONFIG, Peer, Store, named, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving(Peer()) as stand_in:
        yield stand_in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "my models")


def probe(
    endpoint: str,
    store: Store | None = None,
    shell: list[str] | None = None,
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> StoreState:
    """What the fact says of this machine."""
    here = {"OLLAMA_MODELS": str(store.root) if store else "/nowhere", "HOME": "/nowhere"}
    return answer(
        ModelStore,
        shell=shell or ["sh"],
        env={**here, **(env or {})},
        endpoint=endpoint,
        **more,
    )


def test_every_shell_tells_the_same(each_shell: list[str], peer: Peer, store: Store) -> None:
    digest, weights = store.model("registry.ollama.ai/library/tiny/latest", b"w" * 5000)
    other, _ = store.model("lan:5000/team/x.y/1b", b"o" * 300)
    peer.shows(**{"tiny:latest": digest, "lan:5000/team/x.y:1b": other})
    state = probe(peer.endpoint, store, each_shell)
    assert (state.server.status, state.server.version) == ("up", "0.24.0")
    assert state.server.place is not None
    assert state.server.place.path == str(store.root)
    assert state.server.place.owner == f"{os.getuid()}:{os.getgid()}"
    tiny = named(state, "tiny")
    assert (tiny.digest, tiny.served) == (digest, True)
    assert (tiny.family, tiny.parameters, tiny.quantization) == ("llama", "1.2B", "Q4_K_M")
    assert tiny.layers is not None
    assert [layer.digest for layer in tiny.layers][1] == weights
    assert tiny.size == 5000 + len(json.dumps(CONFIG))
    assert named(state, "lan:5000/team/x.y:1b").digest == other
    assert state.blobs is not None
    assert state.blobs[weights] == 5000
    assert state.free is not None
    assert abs(state.free - shutil.disk_usage(store.root).free) < 1024**3
    assert (state.problems, state.hashed, state.partials) == ((), False, ())


def test_what_is_wrong_with_blobs_is_told(peer: Peer, store: Store) -> None:
    found = {
        kind: store.model(f"registry.ollama.ai/library/{kind}/latest", kind.encode() * 99)[1]
        for kind in ("missing", "truncated", "corrupt", "whole")
    }
    store.path(found["missing"]).unlink()
    os.truncate(store.path(found["truncated"]), 5)
    flipped = bytearray(store.path(found["corrupt"]).read_bytes())
    flipped[3] ^= 1
    store.path(found["corrupt"]).write_bytes(flipped)

    def problems(state: StoreState) -> dict[str, tuple[str, tuple[str, ...]]]:
        return {problem.digest: (problem.kind, problem.models) for problem in state.problems}

    quick = {
        found["missing"]: ("missing", ("missing:latest",)),
        found["truncated"]: ("truncated", ("truncated:latest",)),
    }
    assert problems(probe(peer.endpoint, store)) == quick
    state = probe(peer.endpoint, store, hashes=True)
    assert state.hashed
    assert problems(state) == quick | {found["corrupt"]: ("corrupt", ("corrupt:latest",))}


def test_a_blob_that_two_models_need_is_wrong_for_both(peer: Peer, store: Store) -> None:
    _, weights = store.model("registry.ollama.ai/library/a/latest", b"same")
    store.model("registry.ollama.ai/library/b/latest", b"same")
    store.path(weights).unlink()
    (problem,) = probe(peer.endpoint, store).problems
    assert problem.models == ("a:latest", "b:latest")


def test_a_blob_that_is_a_link_is_what_it_leads_to(
    peer: Peer, store: Store, tmp_path: Path
) -> None:
    _, weights = store.model("registry.ollama.ai/library/a/latest", b"elsewhere")
    store.path(weights).rename(tmp_path / "kept")
    store.path(weights).symlink_to(tmp_path / "kept")
    assert probe(peer.endpoint, store, hashes=True).problems == ()
    (tmp_path / "kept").unlink()
    assert [problem.kind for problem in probe(peer.endpoint, store).problems] == ["missing"]


def test_a_download_that_was_begun_is_told_with_what_arrived(peer: Peer, store: Store) -> None:
    blobs = store.root / "blobs"
    with (blobs / f"sha256-{'c' * 64}-partial").open("wb") as file:
        file.write(b"x" * 8192)
        file.truncate(10_000_000)
    for number, done in enumerate((5000, 3192)):
        part = {"N": number, "Offset": number * 5_000_000, "Size": 5_000_000, "Completed": done}
        (blobs / f"sha256-{'c' * 64}-partial-{number}").write_text(json.dumps(part))
    (partial,) = probe(peer.endpoint, store).partials
    assert (partial.digest, partial.bytes) == (f"sha256:{'c' * 64}", 8192)
    assert 8192 <= partial.allocated < 100_000


def test_a_model_whose_weights_are_gone_is_still_listed(peer: Peer, store: Store) -> None:
    digest, weights = store.model("registry.ollama.ai/library/tiny/latest", b"w" * 5000)
    store.path(weights).unlink()
    peer.shows(**{"tiny:latest": digest})
    assert named(probe(peer.endpoint, store), "tiny").served is True


def test_a_manifest_that_is_none_is_no_model(peer: Peer, store: Store) -> None:
    store.model("registry.ollama.ai/library/tiny/latest", b"w")
    folder = store.root / "manifests/registry.ollama.ai/library"
    (folder / "tiny/cut").write_text('{"config": {"digest": "sha256:')
    (folder / "tiny/empty").touch()
    (folder / "stray").touch()
    state = probe(peer.endpoint, store)
    assert [str(model.name) for model in state.models] == ["tiny:latest"]


def test_the_models_of_another_server_are_not_taken_for_this_ones(peer: Peer, store: Store) -> None:
    store.model("registry.ollama.ai/library/tiny/latest", b"w")
    peer.shows(**{"tiny:latest": "f" * 64})
    state = probe(peer.endpoint, store)
    assert (state.blobs, state.free, state.server.place) == (None, None, None)
    assert "are not those that the server lists" in state.reason
    tiny = named(state, "tiny")
    assert (tiny.digest, tiny.size, tiny.layers) == ("f" * 64, 7, None)


def test_a_server_without_a_disk_of_this_host_shows_what_it_answers(peer: Peer) -> None:
    details = {"family": "llama", "parameter_size": "1B", "quantization_level": "Q8_0"}
    row = {
        "name": "tiny:latest",
        "digest": "e" * 64,
        "size": 7,
        "modified_at": "2026-01-02T03:04:05.123456789+01:00",
        "details": details,
    }
    peer.answers["/api/tags"] = (200, {"models": [row, {"name": "not a name"}]})
    loaded = {"name": "tiny:latest", "size": 9, "size_vram": 4, "context_length": 4096}
    peer.answers["/api/ps"] = (200, {"models": [loaded]})
    state = probe(peer.endpoint)
    (tiny,) = state.models
    assert (tiny.family, tiny.parameters, tiny.quantization) == ("llama", "1B", "Q8_0")
    assert tiny.modified == pytest.approx(1767319445.123456)
    assert state.loaded is not None
    (model,) = state.loaded
    assert (str(model.name), model.size, model.size_vram, model.context) == (
        "tiny:latest",
        9,
        4,
        4096,
    )
    assert state.reason == "cannot reach the server's disk from this host"


@pytest.mark.parametrize(
    ("status", "body", "expected", "expected_reason"),
    [
        (404, "404 page not found", "not-ollama", "is not Ollama: HTTP 404"),
        (200, "<html></html>", "not-ollama", "is not Ollama: HTTP 200"),
        (200, {"version": 7}, "not-ollama", "is not Ollama"),
        (200, [], "not-ollama", "is not Ollama"),
        (401, "", "auth", "asks for authentication (HTTP 401)"),
        (403, "", "auth", "asks for authentication (HTTP 403)"),
        (502, "", "unreachable", "answers HTTP 502"),
    ],
)
def test_what_answers_is_told_apart(
    peer: Peer, status: int, body: Any, expected: str, expected_reason: str
) -> None:
    peer.answers["/api/version"] = (status, body)
    server = probe(peer.endpoint).server
    assert (server.status, server.address, server.version) == (expected, "", "")
    assert expected_reason in server.reason


def test_where_nobody_listens_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    server = probe(f"http://127.0.0.1:{port}").server
    assert server.status == "unreachable"
    assert server.reason == "nothing listens there, or something blocks the connection"
    assert (
        probe("http://nowhere.invalid").server.reason == "the name nowhere.invalid does not resolve"
    )


def test_what_does_not_speak_http_is_not_ollama() -> None:
    def greet(client: socket.socket) -> None:
        with client:
            client.sendall(b"220 mail.example.org ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            greet(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        state = probe(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert state.server.status in ("not-ollama", "unreachable")


TOOLS = (
    "sh awk cat date df find grep head hostname id ip ls od printf readlink sed sha256sum sleep "
    "stat tail timeout tr true"
)


@pytest.mark.parametrize("tool", ["curl", "wget", "python3", "bash"])
def test_every_tool_that_speaks_http_will_do(
    tool: str, peer: Peer, store: Store, tmp_path: Path
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not here")
    digest, _ = store.model("registry.ollama.ai/library/tiny/latest", b"w")
    peer.shows(**{"tiny:latest": digest})
    path = tmp_path / "bin"
    path.mkdir()
    for name in (*TOOLS.split(), tool):
        # A shim on PATH may need tools of its own; a link would keep Python from its library.
        if found := sys.executable if name == "python3" else shutil.which(name):
            (path / name).write_text(f'#!{shutil.which("sh")}\nexec "{found}" "$@"\n')
            (path / name).chmod(0o755)
    state = probe(peer.endpoint, store, env={"PATH": str(path)})
    assert (state.server.status, state.server.version) == ("up", "0.24.0")
    assert named(state, "tiny").served is True


def test_what_was_recorded_is_read(peer: Peer) -> None:
    record = Record(models={"tiny:latest": Recorded(digest="a" * 64, at=5)})
    output = lines(record.model_dump_json())
    assert parse(output).find_entry(Name.parse("tiny")) == Recorded(digest="a" * 64, at=5)
    for broken in ("{", "[]", '{"version": 2}'):
        state = parse(lines(broken))
        assert (state.record, state.record_problem != "") == (Record(), True)


def parse(lines: list[str]) -> StoreState:
    return facts.parse(lines, facts.Query(MARK, MARK, "ai", "ollama"))


def lines(record: str, **more: tuple[int, list[str]]) -> list[str]:
    """A probe's output around a record."""
    return framed({"clock": (0, ["5"]), "record": (0, [record]), **more, "complete": (0, [])})


@pytest.mark.parametrize(
    ("section", "status", "expected_reason"),
    [
        (["engine", "127"], "absent", "docker is not installed"),
        (["engine", "1", "permission denied"], "unknown", "permission denied"),
        (["engine", "0"], "absent", "there is no container of ollama of the project ai"),
    ],
)
def test_why_there_is_no_server_is_told(
    section: list[str], status: str, expected_reason: str
) -> None:
    name, code, *text = section
    state = parse(lines("{}", **{name: (int(code), text)}))
    assert state.server.status == status
    assert expected_reason in state.server.reason


@pytest.mark.usefixtures("foreseen")
def test_what_was_cut_off_is_not_understood() -> None:
    with pytest.raises(FactProcessError):
        asked(ModelStore, project="ai").process(lines("{}")[:-2])


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(FactValueError, match="endpoint"):
        ModelStore().command(endpoint="ftp://x")
    with pytest.raises(FactValueError, match="service"):
        ModelStore().command(service="a b")
