"""What is asked of a registry and how its answers are read, against a server of this process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stackmend.models import registry, suggestions
from stackmend.models.registry import MANIFEST_TYPE, ask
from stackmend.models.spec import ModelSpec, ModelsPolicy, Name
from stackmend.models.state import Layer, Manifest, RegistryAnswer, Server, StoredModel
from stackmend.models.suggestions import suggest
from tests.connected import local

CONFIG = {"digest": "sha256:" + "1" * 64, "size": 10, "mediaType": "config"}
WEIGHTS = {"digest": "sha256:" + "2" * 64, "size": 5000, "mediaType": "model"}
MANIFEST = json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [WEIGHTS, WEIGHTS]}).encode()

Answer = tuple[int, dict[str, str], bytes]

#: What a registry says of what it does not have.
ABSENT = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


class Peer:
    """A server that says to each path what ``answers`` holds, in order, the last for ever."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, list[Answer]] = {}
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                peer.asked.append((self.path, dict(self.headers.items())))
                rest = peer.answers.get(self.path, [(404, {}, ABSENT)])
                status, headers, body = rest.pop(0) if len(rest) > 1 else rest[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server.server_address[1]}"

    def has(self, name: str, body: bytes = MANIFEST) -> None:
        self.answers[f"/v2/{name.replace(':', '/manifests/')}"] = [(200, {}, body)]

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr(registry, "LONGEST_WAIT", 0.0)
    stand_in = Peer()
    threading.Thread(target=stand_in.server.serve_forever, args=(0.02,), daemon=True).start()
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()


def answers(*names: str, **options: Any) -> dict[str, RegistryAnswer]:
    policy = ModelsPolicy(wanted=names, insecure=True)
    with local() as host:
        return ask(host, policy.wanted, policy, timeout=2, **options)


def answer(name: str, **options: Any) -> RegistryAnswer:
    (found,) = answers(name, **options).values()
    return found


def test_a_manifest_is_one_request_and_is_read_whole(peer: Peer) -> None:
    peer.has("team/tiny:1")
    got = answers(f"{peer.name}/team/tiny:1")
    assert list(got) == [f"{peer.name}/team/tiny:1"]
    manifest = got[f"{peer.name}/team/tiny:1"].manifest
    assert manifest is not None
    assert manifest.digest == hashlib.sha256(MANIFEST).hexdigest()
    assert manifest.raw.encode() == MANIFEST
    assert [layer.size for layer in manifest.layers] == [10, 5000, 5000]
    assert manifest.size == 5010
    ((path, headers),) = peer.asked
    assert path == "/v2/team/tiny/manifests/1"
    assert headers["Accept"] == MANIFEST_TYPE


def test_many_models_are_asked_for_over_one_connection(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    dial = socket.create_connection

    def counted(address: tuple[str, int], *more: Any) -> socket.socket:
        opened.append(address[0])
        return dial(address, *more)

    monkeypatch.setattr(socket, "create_connection", counted)
    for number in range(20):
        peer.has(f"team/m{number}:latest")
    got = answers(*(f"{peer.name}/team/m{number}" for number in range(20)))
    assert {found.status for found in got.values()} == {"found"}
    assert (len(peer.asked), len(opened)) == (20, 1)


def test_what_is_created_from_a_file_is_nobodys_to_ask() -> None:
    with local() as host:
        assert ask(host, [ModelSpec(name="x", gguf="/x.gguf")], ModelsPolicy()) == {}


def test_a_model_is_asked_for_by_the_name_it_is_pulled_by(peer: Peer) -> None:
    peer.has("mirror/tiny:2")
    policy = ModelsPolicy(
        wanted=[{"name": "tiny", "source": f"{peer.name}/mirror/tiny:2"}], insecure=True
    )
    with local() as host:
        got = ask(host, policy.wanted, policy)
    assert got[f"{peer.name}/mirror/tiny:2"].status == "found"


def test_an_absent_model_brings_the_nearest_names(peer: Peer) -> None:
    peer.answers["/v2/team/tiny/tags/list"] = [(200, {}, b'{"name": "x", "tags": ["1b", "3b"]}')]
    peer.answers["/v2/_catalog"] = [(200, {}, b'{"repositories": ["team/other", "team/tiny2"]}')]
    got = answer(f"{peer.name}/team/tiny:2b", known=["far/away"])
    assert (got.status, got.layer) == ("absent", None)
    # The similar repository lists no tag: none of its names is known to exist.
    assert set(got.suggestions) == {f"{peer.name}/team/tiny:1b", f"{peer.name}/team/tiny:3b"}


def test_a_near_repository_is_offered_with_a_tag_that_it_has(peer: Peer) -> None:
    peer.answers["/v2/_catalog"] = [(200, {}, b'{"repositories": ["team/present", "a/b"]}')]
    peer.answers["/v2/team/present/tags/list"] = [(200, {}, b'{"tags": ["1b"]}')]
    got = answers(f"{peer.name}/team/presnt", f"{peer.name}/team/presentt")
    assert {found.suggestions for found in got.values()} == {(f"{peer.name}/team/present:1b",)}
    # What the registry has is asked for once, and what is not similar not at all.
    assert peer.paths.count("/v2/_catalog") == 1
    assert peer.paths.count("/v2/team/present/tags/list") == 1
    assert "/v2/a/b/tags/list" not in peer.paths


def test_a_name_that_is_wanted_is_not_one_that_exists(peer: Peer) -> None:
    got = answers(f"{peer.name}/team/presnt:1b", f"{peer.name}/team/present:2b")
    assert [found.suggestions for found in got.values()] == [(), ()]


@pytest.mark.parametrize("listed", [b"[]", b'{"tags": null}', b'{"tags": [7, "a b"]}', b"<html>"])
def test_a_list_that_is_none_is_no_help_and_no_error(peer: Peer, listed: bytes) -> None:
    peer.answers["/v2/team/tiny/tags/list"] = [(200, {}, listed)]
    got = answer(f"{peer.name}/team/tiny:2b")
    assert (got.status, [name for name in got.suggestions if " " in name]) == ("absent", [])


@pytest.mark.parametrize(
    "body", [b"", b"404 page not found\n", b"<html>Not Found</html>", b'{"error": "none"}', b"[]"]
)
def test_a_404_of_what_is_no_registry_is_told_as_such(peer: Peer, body: bytes) -> None:
    peer.answers["/v2/team/tiny/manifests/1b"] = [(404, {}, body)]
    got = answer(f"{peer.name}/team/tiny:1b")
    assert (got.status, got.layer, got.code) == ("unreachable", "http", 404)
    assert got.reason.endswith("and not as a registry does")


def test_a_registry_is_known_by_its_header_too(peer: Peer) -> None:
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    peer.answers["/v2/team/tiny/manifests/1b"] = [(404, headers, b"")]
    assert answer(f"{peer.name}/team/tiny:1b").status == "absent"


def test_an_absent_model_of_a_registry_that_lists_nothing(peer: Peer) -> None:
    similar = f"{peer.name}/team/tinyy:1"
    assert answer(f"{peer.name}/team/tiny:1", known=[similar]).suggestions == (similar,)


def test_a_wrong_name_of_the_library_has_near_ones() -> None:
    assert suggest(Name.parse("lama3.2"), suggestions.LIBRARY)[0] == "llama3.2"
    assert suggest(Name.parse("llama3.2:1bb"), ["llama3.2:1b", "mistral"]) == ("llama3.2:1b",)
    assert suggest(Name.parse("zzzz"), suggestions.LIBRARY) == ()


def test_a_long_address_makes_no_names_alike() -> None:
    names = [f"registry.models.lab:5000/team/{name}" for name in ("present:1b", "refused:1b")]
    assert suggest(Name.parse("registry.models.lab:5000/team/presnt:1b"), names) == (names[0],)
    # Another tag of the same model is similar, however unlike the tag is.
    assert suggest(Name.parse("registry.models.lab:5000/team/present"), names) == (names[0],)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_asked_again(peer: Peer, status: int) -> None:
    peer.answers["/v2/t/x/manifests/latest"] = [
        (status, {"Retry-After": "1"}, b""),
        (200, {}, MANIFEST),
    ]
    assert answer(f"{peer.name}/t/x").status == "found"
    assert len(peer.asked) == 2


def test_a_registry_that_stays_busy_is_not_waited_for_again_and_again(peer: Peer) -> None:
    busy = [(503, {}, b"")]
    peer.answers = {f"/v2/t/{name}/manifests/latest": busy for name in "abc"}
    peer.has("t/d:latest")
    got = answers(*(f"{peer.name}/t/{name}" for name in "abcd"))
    assert [found.status for found in got.values()] == ["unreachable"] * 3 + ["found"]
    assert [found.layer for found in got.values()] == ["http"] * 3 + [None]
    assert len(peer.asked) == registry.ATTEMPTS + 3
    assert "HTTP 503" in next(iter(got.values())).reason


def test_a_token_that_anybody_may_have_is_fetched(peer: Peer) -> None:
    challenge = f'Bearer realm="http://{peer.name}/token",service="lab",scope="repository:t/x:pull"'
    peer.answers["/v2/t/x/manifests/latest"] = [
        (401, {"WWW-Authenticate": challenge}, b""),
        (200, {}, MANIFEST),
    ]
    peer.answers["/token?service=lab&scope=repository%3At%2Fx%3Apull"] = [
        (200, {}, b'{"token": "abc"}')
    ]
    assert answer(f"{peer.name}/t/x").status == "found"
    assert peer.asked[-1][1]["Authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ((401, {}, b""), "asks for authentication (HTTP 401)"),
        ((403, {}, b""), "asks for authentication (HTTP 403)"),
        ((412, {}, b""), "requires a newer Ollama"),
        ((418, {}, b""), "HTTP 418"),
        ((200, {}, b"<html>log in</html>"), "no manifest"),
        ((200, {}, b"[]"), "no manifest"),
        ((200, {}, b'{"config": {"digest": "x", "size": 1}, "layers": []}'), "no manifest"),
        ((302, {"Location": "/v2/t/x/manifests/latest"}, b""), "redirects without end"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "no address of a registry"),
    ],
)
def test_an_answer_that_is_none_is_told(peer: Peer, reply: Answer, expected: str) -> None:
    peer.answers["/v2/t/x/manifests/latest"] = [reply]
    got = answer(f"{peer.name}/t/x")
    assert (got.status, got.layer) == ("unreachable", "http")
    assert expected in got.reason


def test_a_redirection_is_followed_to_another_server(peer: Peer) -> None:
    other = Peer()
    threading.Thread(target=other.server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        other.answers["/elsewhere?a=b"] = [(200, {}, MANIFEST)]
        peer.answers["/v2/t/x/manifests/latest"] = [
            (307, {"Location": f"http://{other.name}/elsewhere?a=b"}, b"")
        ]
        assert answer(f"{peer.name}/t/x").status == "found"
    finally:
        other.server.shutdown()
        other.server.server_close()


@contextlib.contextmanager
def accepting(behave: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """A listener that does something of its own with every connection, and counts them."""
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    connections.append(1)
                    with client, contextlib.suppress(OSError):
                        behave(client)

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", connections
        server.shutdown(socket.SHUT_RDWR)


def test_a_registry_that_nobody_is_at_is_tried_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    got = answers(*(f"127.0.0.1:{port}/t/m{number}" for number in range(5)))
    assert {(found.status, found.layer) for found in got.values()} == {("unreachable", "connect")}
    assert f"cannot connect to 127.0.0.1:{port}: " in next(iter(got.values())).reason


def test_a_name_that_does_not_resolve_is_told() -> None:
    got = answer("registry.invalid/t/x")
    assert (got.status, got.layer) == ("unreachable", "name")
    assert "registry.invalid" in got.reason


def test_a_registry_without_tls_is_told(peer: Peer) -> None:
    policy = ModelsPolicy(wanted=[f"{peer.name}/t/x"])
    with local() as host:
        (got,) = ask(host, policy.wanted, policy, timeout=2).values()
    assert (got.status, got.layer) == ("unreachable", "tls")


def test_a_registry_that_breaks_off_is_asked_again_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "LONGEST_WAIT", 0.0)
    with accepting(lambda client: client.recv(10_000) and None) as (name, connections):
        got = answers(f"{name}/t/a", f"{name}/t/b")
    assert {(found.status, found.layer) for found in got.values()} == {("unreachable", "http")}
    assert len(connections) == registry.ATTEMPTS


@pytest.mark.parametrize("tls", [False, True])
def test_a_registry_that_says_nothing_is_waited_for_once(tls: bool) -> None:
    """For all its models, and in the next observation too; another host waits for itself."""
    over = threading.Event()
    with accepting(lambda client: over.wait(20) and None) as (name, connections):
        policy = ModelsPolicy(wanted=[f"{name}/t/{x}" for x in "abc"], insecure=not tls)
        server = Server(status="up")
        with local() as host:
            started = time.monotonic()
            for _ in range(3):
                got = ask(host, policy.wanted, policy, server=server, timeout=3)
            took = time.monotonic() - started
        over.set()
    assert {(found.status, found.layer) for found in got.values()} == {
        ("unreachable", "tls" if tls else "http")
    }
    assert 3 <= took < 6
    assert len(connections) == 1


def test_a_registry_that_is_refused_is_asked_again_in_the_next_look(peer: Peer) -> None:
    """It may be one that the stack itself brings up."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    name = f"127.0.0.1:{port}/t/x"
    policy = ModelsPolicy(wanted=[name], insecure=True)
    with local() as host:
        assert ask(host, policy.wanted, policy)[f"{name}:latest"].layer == "connect"
        server = ThreadingHTTPServer(("127.0.0.1", port), peer.server.RequestHandlerClass)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        assert ask(host, policy.wanted, policy)[f"{name}:latest"].status == "absent"
        server.shutdown()
        server.server_close()


def test_a_stored_model_is_equal_by_its_digest_or_by_its_blobs() -> None:
    layers = (Layer(digest="sha256:1", size=1), Layer(digest="sha256:2", size=2))
    manifest = Manifest(digest="a", layers=layers)
    name = Name.parse("x")
    assert manifest.is_equal(StoredModel(name=name, digest="a"))
    assert manifest.is_equal(StoredModel(name=name, digest="b", layers=layers))
    assert not manifest.is_equal(StoredModel(name=name, digest="b", layers=layers[:1]))
    assert not manifest.is_equal(StoredModel(name=name, digest="b"))
