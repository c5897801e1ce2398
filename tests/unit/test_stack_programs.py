"""The reference stack's api and worker: what can be known without running the stack."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.stacks.ai import settings
from deploy.stacks.ai.api.app import format_task, parse_task
from deploy.stacks.ai.worker.app import check_model_server, describe_model_server, pause_before
from deploy.stacks.ai.worker.model import Answer, ModelError, ModelServer, is_same_model


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"{}", "prompt must be"),
        (b'{"prompt": 1}', "prompt must be"),
        (b'{"prompt": " \\n"}', "prompt must be"),
        (b'{"prompt": "x", "model": null}', "model must be"),
        (b'{"prompt": "x", "stream": true}', "unknown field 'stream'"),
        (b'{"prompt": "\\ud800"}', "valid Unicode"),
    ],
)
def test_bodies_that_are_no_task(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_task(body)


@given(st.text().filter(str.strip), st.text())
def test_any_prompt_arrives_as_it_is(prompt: str, model: str) -> None:
    asked = json.dumps({"prompt": prompt, "model": model}).encode()
    assert parse_task(asked) == (prompt, model)


@given(st.binary())
def test_no_body_breaks_the_api(body: bytes) -> None:
    # A refusal is fine; any other exception is not.
    with contextlib.suppress(ValueError):
        prompt, _ = parse_task(body)
        assert prompt.strip()


def test_a_task_as_the_api_shows_it() -> None:
    queued = {"state": "queued", "attempts": "0", "submitted_at": "100.5", "prompt": "x"}
    assert format_task("a1", {**queued, "model": ""}) == {
        "id": "a1",
        "state": "queued",
        "model": None,
        "attempts": 0,
        "answer": None,
        "error": None,
        "timings": {"submitted_at": 100.5},
    }
    done = {
        **queued,
        "state": "done",
        "attempts": "2",
        "started_at": "101",
        "finished_at": "103.5",
        "answer": "",
        "timings": json.dumps({"model": "tiny", "eval_count": 3}),
    }
    found = format_task("a1", done)
    assert (found["model"], found["answer"], found["attempts"]) == ("tiny", "", 2)
    assert found["timings"] == {
        "submitted_at": 100.5,
        "started_at": 101.0,
        "finished_at": 103.5,
        "queued_seconds": 0.5,
        "run_seconds": 2.5,
        "eval_count": 3,
    }


def test_pauses_double_up_to_a_ceiling() -> None:
    pauses = [pause_before(attempt, first=0.5, longest=60) for attempt in range(1, 10)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_before(10**6, first=1, longest=60) == 60


def test_the_tag_latest_goes_without_saying() -> None:
    assert is_same_model("tiny", "tiny:latest")
    assert is_same_model("tiny:1b", "tiny:1b")
    assert not is_same_model("tiny", "tiny:1b")
    assert not is_same_model("tiny:1b", "tiny:latest")


def test_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SOME", "")
    assert settings.get_text("SOME", "default") == "default"
    assert settings.get_integer("SOME", 3, least=1) == 3
    monkeypatch.setenv("SOME", "2.5")
    assert settings.get_number("SOME", 1, least=0) == 2.5
    for given_text in ("many", "0", "nan", "inf", "2.5"):
        monkeypatch.setenv("SOME", given_text)
        with pytest.raises(SystemExit) as ended:
            settings.get_integer("SOME", 3, least=1)
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith(f"SOME='{given_text}': ")


class Peer:
    """A server on loopback that sends what it is told to, byte for byte, and hangs up.

    + reply: what it sends; while None it keeps the connection and says nothing
    + asked, body: the head and the body of the last request
    """

    def __init__(self) -> None:
        self.reply: bytes | None = None
        self._closed = threading.Event()
        self.asked = self.body = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def lines(self, *lines: object) -> None:
        """Reply with 200 and these lines of JSON."""
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.reply = b"HTTP/1.1 200 OK\r\n\r\n" + body

    def error(self, status: int, body: str) -> None:
        """Reply with a status and a body."""
        head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n"
        self.reply = (head + body).encode()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._closed.set()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as request:
                self.asked = b"".join(iter(request.readline, b"\r\n"))
                length = re.search(rb"(?i)content-length: (\d+)", self.asked)
                self.body = request.read(int(length[1]) if length else 0)
                if self.reply is None:
                    self._closed.wait()
                else:
                    connection.sendall(self.reply)


@pytest.fixture
def peer() -> Iterator[Peer]:
    found = Peer()
    yield found
    found.close()


def ask(url: str, **settings: float) -> Answer:
    async def asking() -> Answer:
        server = ModelServer(url, **settings)  # type: ignore[arg-type]
        try:
            return await server.ask("tiny", "hello")
        finally:
            await server.close()

    return asyncio.run(asking())


def part(text: str, **more: object) -> dict[str, object]:
    return {"message": {"role": "assistant", "content": text}, "done": False, **more}


def test_an_answer_is_put_together(peer: Peer) -> None:
    peer.lines(part("So "), part("it is."), part("", done=True, eval_count=2, total_duration=9))
    answer = ask(peer.url, num_predict=7)
    assert answer.text == "So it is."
    assert answer.timings["eval_count"] == 2
    assert answer.timings["total_duration"] == 9
    assert answer.timings["first_token_seconds"] > 0
    assert peer.asked.startswith(b"POST /api/chat ")
    assert json.loads(peer.body) == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "options": {"num_predict": 7},
    }


@pytest.mark.parametrize(
    ("prepare", "reason", "lasting"),
    [
        (lambda p: p.error(404, '{"error":"model \'x\' not found"}'), "model 'x' not found", False),
        (lambda p: p.error(503, '{"error":"server busy"}'), "server busy", False),
        (lambda p: p.error(500, "<html>oh"), "<html>oh", False),
        (lambda p: p.error(502, ""), "HTTP 502", False),
        (lambda p: p.error(400, '{"error":"no chat"}'), "no chat", True),
        (lambda p: p.lines(part("So "), {"error": "out of memory"}), "out of memory", False),
        (lambda p: p.lines(part("So ")), "broke its answer off", False),
        (lambda p: p.lines(), "broke its answer off", False),
        (lambda p: p.lines([1]), "not Ollama's", False),
        (lambda p: p.lines(part("So ", message=3)), "not Ollama's", False),
        (lambda p: setattr(p, "reply", b"HTTP/1.1 200 OK\r\n\r\n<html>\n"), "not JSON", False),
        (lambda p: setattr(p, "reply", b""), "cannot be reached", False),
        (lambda p: setattr(p, "reply", b"SSH-2.0-x\r\n"), "cannot be reached", False),
    ],
)
def test_what_can_go_wrong_with_an_answer(
    peer: Peer, prepare: Callable[[Peer], None], reason: str, lasting: bool
) -> None:
    prepare(peer)
    with pytest.raises(ModelError, match=reason) as failed:
        ask(peer.url)
    assert failed.value.lasting is lasting
    assert "\n" not in str(failed.value)


def test_a_server_that_falls_silent_is_given_up(peer: Peer) -> None:
    with pytest.raises(ModelError, match="cannot be reached: ReadTimeout"):
        ask(peer.url, silence=0.2)


def test_a_server_that_is_not_there(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy in the environment is not asked: it would answer here.
    monkeypatch.setenv("HTTP_PROXY", peer.url)
    peer.lines(part("from the proxy", done=True))
    with pytest.raises(ModelError, match="cannot be reached"):
        ask("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ({"models": [{"name": "other:latest"}, {"name": "tiny:latest"}]}, "ok"),
        ({"models": [{"name": "tiny:1b"}]}, "model 'tiny' not found"),
        ({"models": []}, "model 'tiny' not found"),
        ({"models": None}, "this is no Ollama: .*"),
        ("tiny", "this is no Ollama: .*"),
    ],
)
def test_the_condition_of_the_model_server(peer: Peer, reply: object, found: str) -> None:
    async def look() -> str:
        server = ModelServer(peer.url)
        try:
            return await check_model_server(server, "tiny")
        finally:
            await server.close()

    peer.lines(reply)
    assert re.fullmatch(found, asyncio.run(look()))


def test_a_worker_reports_the_models_of_its_server(peer: Peer) -> None:
    async def describe() -> dict[str, object]:
        server = ModelServer(peer.url)
        try:
            return await describe_model_server(server, "tiny")
        finally:
            await server.close()

    peer.lines({"models": [{"name": "other:1b"}, {"name": "tiny:latest"}]})
    assert asyncio.run(describe()) == {"ollama": "ok", "models": ["other:1b", "tiny:latest"]}
