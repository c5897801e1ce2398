"""Registries, model servers and peers that answer anything: a value, or the room's own error.

In ``make test`` the examples are few and always the same; ``make fuzz`` runs many new ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyinfra.api.host import Host

from stackmend import answers, connection
from stackmend.connection import http_client
from stackmend.errors import StepError
from stackmend.models import client, peers, registry
from stackmend.models.client import Client
from stackmend.models.errors import PeerUnavailable, TransientError
from stackmend.models.spec import ModelsPolicy, Name
from stackmend.models.state import Place, RegistryAnswer, Server
from tests.connected import local
from tests.hostile import CONTROLS

#: What the share of examples is multiplied with; 0 where the few of ``make test`` are run.
FUZZ = float(os.environ.get("STACKMEND_FUZZ", "0"))

#: Where the number of examples is noted, for whoever adds them up.
COUNTS = os.environ.get("STACKMEND_FUZZ_COUNTS", "")

few = settings(
    max_examples=max(1, int(1000 * FUZZ)) if FUZZ else 60,
    derandomize=not FUZZ,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

DIGEST = "sha256:" + "1" * 64
CONFIG = {"digest": DIGEST, "size": 10, "mediaType": "config"}
MANIFEST = json.dumps({"config": CONFIG, "layers": [CONFIG]}).encode()


def manifest(size: str, digest: str = f'"{DIGEST}"', more: str = "") -> bytes:
    return f'{{"config": {{"digest": {digest}, "size": {size}{more}}}, "layers": []}}'.encode()


#: Numbers that are no sizes.
NO_SIZES = ("1e999", "-1e999", "-5", "NaN", "Infinity", "true", '"5"', "1.5", "9" * 4000, "[]")

#: Bodies that are no manifests, and no words of a model server.
BODIES = [
    *(b"[" * 200_000, b'{"a":' * 200_000, b"[" * 900 + b"]" * 900, b'"' + b"[" * 1000),
    *(manifest(size) for size in (*NO_SIZES, str(1 << 60))),
    *(manifest("5", digest) for digest in ("5", "null", "[]", '"sha256:1"', '"\\ud800"')),
    *(manifest("5", more=more) for more in (', "mediaType": 5', ', "size": 6', ', "x": "\\udc00"')),
    *(b"", b"null", b"[]", b"5", b'{"config": 5}', b'{"config": {}, "layers": {}}', b"\xff\xfe"),
    *(b"\xef\xbb\xbf{}", b"\xc2\xb2", b"x" * 100_000, b'{"token": {"a": 1}}', b'{"error": [5]}'),
    *(b'{"tags": [1e999]}', b'{"tags": ["\\ud800", null]}', b'{"repositories": {"a": 1}}'),
]

#: Headers that lead astray whoever believes them.
HEADERS = [
    *(b"Content-Type: text/plain; charset=hex", b"Content-Type: text/plain; charset=zlib_codec"),
    *(b"Content-Type: text/plain; charset=utf-16", b'Content-Type: x; charset="\x07"'),
    *(b"Content-Encoding: gzip", b"Content-Encoding: deflate, br", b"Retry-After: \xb2"),
    *(b"Retry-After: -1", b"Retry-After: " + b"9" * 5000, b"Content-Length: " + b"9" * 5000),
    *(b"Content-Length: \xb2", b"Transfer-Encoding: x", b"Set-Cookie: \xff=\x01; expires=x"),
    *(
        b"Location: " + to
        for to in (
            *(b"http://[", b"http://x:99999/", b"http://x:\xb2/", b"//[::1%25/", b"http:///x"),
            *(b"http://" + b"a" * 70 + b".test/", b"http://\xff/", b"/" + b"a" * 70_000),
            *(
                b"http://127.0.0.1:1/\x7f",
                b"http://..%00/",
                b"http://xn--\xe4/",
                b"http://127.0.0.1:0",
            ),
            b"http://127.0.0.1:1//[bad",
        )
    ),
    *(
        b'WWW-Authenticate: Bearer realm="' + to + b'",scope="\xff",service="x"'
        for to in (b"http://[", b"/token", b"//x:\xb2/", b"/" + b"a" * 70_000, b"\xe4", b"")
    ),
]

STATUSES = ["200 OK"] * 6 + ["302 x", "307", "400 x", "401 x", "404 x", "429 x", "500 x", "999 x"]


def raw_json() -> st.SearchStrategy[bytes]:
    """JSON that is almost right: a manifest, with anything in place of anything."""
    odd = st.one_of(
        st.sampled_from((*NO_SIZES, "null", "{}", "5", f'"{DIGEST}"', '"\\ud800"', "[" * 100)),
        st.text(max_size=20).map(json.dumps),
        st.sampled_from(CONTROLS).map(json.dumps),
    )
    keys = st.sampled_from(
        "digest size mediaType config layers token tags repositories error status completed total "
        "done message".split()
    )
    pairs = st.lists(st.tuples(keys, odd), max_size=5).map(
        lambda rows: "{" + ", ".join(f'"{key}": {value}' for key, value in rows) + "}"
    )
    whole = st.builds(
        lambda one, two: f'{{"config": {one}, "layers": [{two}]}}', st.one_of(pairs, odd), pairs
    )
    return st.one_of(pairs, whole, odd).map(lambda text: text.encode(errors="replace"))


def bodies() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.sampled_from(BODIES),
        raw_json(),
        st.lists(raw_json(), max_size=4).map(b"\n".join),
        st.binary(max_size=200),
    )


def replies() -> st.SearchStrategy[bytes]:
    """What a server says, from its first byte to its last."""
    said = st.builds(
        lambda status, headers, body: (
            f"HTTP/1.1 {status}\r\n".encode()
            + b"".join(header + b"\r\n" for header in headers)
            + b"Connection: close\r\n\r\n"
            + body
        ),
        st.sampled_from(STATUSES),
        st.lists(st.sampled_from(HEADERS), max_size=2),
        bodies(),
    )
    return st.one_of(said, said, said, said, said, said, st.binary(max_size=50))


@contextlib.contextmanager
def counted(what: str) -> Iterator[Counter[str]]:
    seen: Counter[str] = Counter()
    try:
        yield seen
    finally:
        if COUNTS:
            with Path(COUNTS).open("a") as file:
                file.write(json.dumps({"probe": what, **seen}) + "\n")


class Liar:
    """A server that says the same to whoever asks, piece after piece, for as long as it is heard.

    What it says is ``reply``, and then ``again`` without end.
    """

    def __init__(self) -> None:
        self.reply: bytes = b""
        self.again: bytes = b""
        self.pause = 0.0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._socket.accept()
                threading.Thread(target=self._speak, args=(one,), daemon=True).start()

    def _speak(self, one: socket.socket) -> None:
        reply, again = self.reply, self.again
        with one, contextlib.suppress(OSError):
            one.settimeout(20)
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += (piece := one.recv(65536))
                if not piece:
                    return
            one.sendall(reply)
            while again:
                one.sendall(again)
                time.sleep(self.pause)
            one.shutdown(socket.SHUT_WR)
            # Closed before all was read it would be a reset, and what was said lost.
            while one.recv(65536):
                pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def liar() -> Iterator[Liar]:
    one = Liar()
    yield one
    one.close()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(registry, "LONGEST_WAIT", 0.0)
    with local() as one:
        yield one


def asked(host: Host, liar: Liar, timeout: float = 5) -> RegistryAnswer:
    policy = ModelsPolicy(wanted=[f"127.0.0.1:{liar.port}/t/x"], insecure=True)
    connection.keep(host, registry._Silent).clear()
    (one,) = registry.ask(host, policy.wanted, policy, timeout=timeout).values()
    return one


def pulled(host: Host, liar: Liar, stall: float = 5) -> list[tuple[str, int, int]]:
    told: list[tuple[str, int, int]] = []
    server = Server(status="up", address="127.0.0.1", port=liar.port)
    Client(host, server).pull(
        Name.parse("x"),
        insecure=True,
        stall=stall,
        size=10,
        on_progress=lambda *row: told.append(row),
        on_status=lambda words: None,
    )
    return told


def body(text: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *headers, b"Connection: close", b"", text))


@pytest.mark.parametrize("text", BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_no_manifest_is_told(host: Host, liar: Liar, text: bytes) -> None:
    liar.reply = body(text)
    got = asked(host, liar)
    assert (got.status, got.layer) == ("unreachable", "http")
    assert "is no manifest" in got.reason


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
@pytest.mark.parametrize("status", ["200 OK", "302 x", "401 x", "503 x"])
def test_a_header_that_leads_astray_is_told(
    host: Host, liar: Liar, header: bytes, status: str
) -> None:
    liar.reply = body(MANIFEST, header).replace(b"200 OK", status.encode(), 1)
    got = asked(host, liar)
    assert got.status == "unreachable" or (status == "200 OK" and got.status == "found")


@pytest.mark.parametrize(
    ("reply", "again"),
    [
        (body(b""), b" " * 65536),
        (body(b"["), b'"x",' * 20_000),
        (body(b"", b"Transfer-Encoding: chunked"), b"10000\r\n" + b" " * 65536 + b"\r\n"),
    ],
)
def test_a_registry_that_sends_for_ever_is_not_heard_to_its_end(
    host: Host, liar: Liar, reply: bytes, again: bytes
) -> None:
    liar.reply, liar.again = reply, again
    begun = time.monotonic()
    got = asked(host, liar)
    assert (got.status, got.layer) == ("unreachable", "http")
    assert f"longer than {http_client.LONGEST} bytes" in got.reason
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("reply", "again"),
    [
        (body(b""), b" "),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["body", "header", "informational"],
)
def test_a_registry_that_drips_is_not_waited_for(
    host: Host, liar: Liar, reply: bytes, again: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "TO_ITS_END", 0.5)
    liar.reply, liar.again, liar.pause = reply, again, 0.05
    begun = time.monotonic()
    got = asked(host, liar, timeout=1)
    assert (got.status, got.layer) == ("unreachable", "http")
    assert "does not answer within" in got.reason
    assert 1 < time.monotonic() - begun < 6


def test_one_line_without_end_ends_a_pull(host: Host, liar: Liar) -> None:
    liar.reply, liar.again = body(b'{"status": "'), b"x" * 65536
    with pytest.raises(StepError, match="longer than"):
        pulled(host, liar)


def test_a_refusal_without_end_ends_a_pull(host: Host, liar: Liar) -> None:
    liar.reply = body(b"no").replace(b"200 OK", b"500 x")
    liar.again = b"x" * 65536
    with pytest.raises(StepError, match="longer than"):
        pulled(host, liar)


def test_blobs_without_end_end_a_pull(host: Host, liar: Liar) -> None:
    rows = [{"digest": f"sha256:{number:064x}", "completed": 1} for number in range(5000)]
    liar.reply = body(b"\n".join(json.dumps(row).encode() for row in rows))
    with pytest.raises(StepError, match=f"more than {client.MOST_BLOBS} blobs"):
        pulled(host, liar)


@pytest.mark.parametrize(
    "line",
    [
        *(b"[" * 200_000, b"[]", b"5", b'{"error": [5]}', b"\xff"),
        *(f'{{"digest": "{DIGEST}", "total": {size}}}'.encode() for size in (*NO_SIZES[:7], "[5]")),
        *(f'{{"digest": {digest}}}'.encode() for digest in ("5", '"../x"', '"\\ud800"')),
    ],
)
def test_a_line_that_is_none_ends_a_pull(host: Host, liar: Liar, line: bytes) -> None:
    liar.reply = body(line + b"\n", b"Content-Type: text/plain; charset=hex")
    with pytest.raises((StepError, TransientError)):
        pulled(host, liar)


def test_a_pull_is_read_as_it_comes(host: Host, liar: Liar) -> None:
    rows = [
        {"status": "pulling", "digest": DIGEST, "total": 10},
        {"status": "pulling", "digest": DIGEST, "total": 10, "completed": 10},
        {"status": "success"},
    ]
    text = b"\r\n".join(json.dumps(row).encode() for row in rows)
    for whole in (text, text + b"\n", b"\n\n" + text + b"\n\n"):
        liar.reply = body(whole)
        assert pulled(host, liar) == [(DIGEST, 0, 10), (DIGEST, 10, 10)]


def peer(host: Host) -> peers.Peer:
    return peers.Peer(host, {}, Place(path="/m"), (Name.parse("x"),))


@pytest.mark.parametrize("text", BODIES, ids=range(len(BODIES)))
def test_a_peers_manifest_that_is_none_is_told(host: Host, text: bytes) -> None:
    with pytest.raises(PeerUnavailable, match="is no manifest"):
        peers._parse_manifest(text, peer(host))


def test_what_lies_deep_inside_text_is_text() -> None:
    deep = "[" * 1000 + '\\"' + "{" * 1000
    assert answers.read_json(f'["{deep}"]') == [deep.replace('\\"', '"')]
    assert answers.read_json("[" * 64 + "]" * 64)
    with pytest.raises(ValueError, match="deeper"):
        answers.read_json("[" * 65 + "]" * 65)
    with pytest.raises(ValueError, match="longer"):
        answers.read_json("[]" + " " * 10, longest=11)


def test_whatever_a_registry_says_is_an_answer_or_none(host: Host, liar: Liar) -> None:
    @few
    @given(replies())
    def holds(reply: bytes) -> None:
        seen["examples"] += 1
        liar.reply = reply
        got = asked(host, liar)
        if got.status == "found":
            assert got.manifest is not None
            for layer in got.manifest.layers:
                assert 0 <= layer.size <= answers.LARGEST
                assert len(layer.digest) == 71
        else:
            assert got.reason

    with counted("answers of a registry") as seen:
        holds()


def test_whatever_a_model_server_says_is_an_answer_or_an_error(host: Host, liar: Liar) -> None:
    server = Client(host, Server(status="up", address="127.0.0.1", port=liar.port))
    name = Name.parse("x")

    @few
    @given(
        replies(), st.sampled_from(("pull", "create", "say", "complete", "remove", "copy", "has"))
    )
    def holds(reply: bytes, what: str) -> None:
        seen["examples"] += 1
        liar.reply = reply
        does: dict[str, Any] = {
            "pull": lambda: [
                (done, total) for _, done, total in pulled(host, liar) if not 0 <= done <= 1 << 44
            ],
            "create": lambda: server.create(name, {}, 1),
            "say": lambda: server.check_answer(name),
            "complete": lambda: server.check_completion("x"),
            "remove": lambda: server.remove(name),
            "copy": lambda: server.copy(name, name),
            "has": lambda: server.has_blob(DIGEST),
        }
        with contextlib.suppress(StepError, TransientError):
            assert not does[what]() or what == "has"

    with counted("answers of a model server") as seen:
        holds()


def test_whatever_a_peer_shows_is_a_manifest_or_none(host: Host) -> None:
    one = peer(host)

    @few
    @given(bodies())
    def holds(text: bytes) -> None:
        seen["examples"] += 1
        with contextlib.suppress(PeerUnavailable):
            assert all(
                0 <= layer.size <= answers.LARGEST for layer in peers._parse_manifest(text, one)
            )

    with counted("manifests of a peer") as seen:
        holds()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b"5",
        b"[]",
        b"null",
        b'{"ApiVersion": 5}',
        b'{"ApiVersion": "\\ud800"}',
        b"{",
    ],
)
def test_an_engine_that_answers_something_else_is_told(
    host: Host, text: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr("stackmend.connection.docker_api.SOCKET", path)
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(path)
        engine.listen()

        def speak() -> None:
            with contextlib.suppress(OSError):
                one, _ = engine.accept()
                with one:
                    one.recv(65536)
                    one.sendall(body(text))

        threading.Thread(target=speak, daemon=True).start()
        with pytest.raises(connection.RemoteError), connection.docker(host, timeout=5):
            pass
