"""What a model server is asked to do, over HTTP from the host's point of view."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ops import connection
from ops.models.spec import Name
from ops.models.state import Server

if TYPE_CHECKING:
    import httpx
    from pyinfra.api.host import Host

#: Seconds for what a server answers at once.
SOON = 30.0

#: Seconds that a model has to be loaded and to say a word.
LOADING = 900.0

#: Bytes a second at which even a slow disk is read: how long the server may be silent while it
#: holds what has come against its digest.
SLOW_DISK = 20e6

#: What the server says where asking again cannot help, and what that means.
_FINAL: Mapping[str, str] = {
    "file does not exist": "the registry has no such model",
    "newer version of ollama": "this model needs a newer Ollama than the server is",
    "412:": "this model needs a newer Ollama than the server is",
    "read-only file system": "the models cannot be written",
    "permission denied": "the models cannot be written",
    "invalid model name": "the server does not take this name",
    "unauthorized": "the registry does not let this server have it",
    "401:": "the registry does not let this server have it",
    "403:": "the registry does not let this server have it",
    "http: no location header": "the registry cannot be pulled from: it is not one for models",
    "gave http response to https client": 'the registry speaks plain HTTP: say "insecure": true',
    "certificate": "the server does not trust the registry's certificate",
}

#: What says that there is no room.
_FULL = ("no space left", "disk quota exceeded")

#: What says that bytes came and were thrown away.
_WASTED = ("digest mismatch", "must be downloaded again")


class Failed(Exception):
    """The server could not do it, and asking again would not help; the text says why."""


class Full(Failed):
    """There is no room for it where the models lie."""


class Passing(Exception):
    """It did not work this time.

    :param wasted: whether what had come until then is lost.
    """

    def __init__(self, reason: str, *, wasted: bool = False) -> None:
        super().__init__(reason)
        self.wasted = wasted


#: Told of each line of a pull: digest, bytes that are there, bytes in all.
Told = Callable[[str, int, int], None]


class Client:
    """One model server.

    :param host: the host that reaches it.
    :param server: the server as it was found.
    """

    def __init__(self, host: Host, server: Server) -> None:
        self._host = host
        self._server = server

    def pull(
        self, name: Name, *, insecure: bool, stall: float, size: int, told: Told, said: Said
    ) -> None:
        """Have a model pulled, and wait for it.

        :param insecure: whether the registry is spoken to over plain HTTP.
        :param stall: seconds without a byte after which it is given up.
        :param size: bytes of the model, which the server may take its time to hold against their
            digests.
        :param told: told how many bytes of a blob there are.
        :param said: told what the server does.
        :raises Failed: it cannot be pulled.
        :raises Passing: it may go better if it is asked for again.
        """
        silence = stall + size / SLOW_DISK
        body = {"model": str(name), "insecure": insecure, "stream": True}
        there: dict[str, int] = {}
        last = ""
        with self._stream("POST", "/api/pull", body, silence) as answer:
            cut = answer.extensions["network_stream"].close
            with Watchdog(stall, cut) as watchdog:
                try:
                    for line in _lines(answer):
                        last = str(line.get("status", ""))
                        digest = str(line.get("digest", ""))
                        # A stalled pull goes on telling how far it is: only more bytes count.
                        watchdog.limit = silence if last.startswith("verifying") else stall
                        if not digest:
                            watchdog.fed()
                            said(last)
                            continue
                        done = int(line.get("completed") or 0)
                        if there.get(digest) != done:
                            watchdog.fed()
                        there[digest] = done
                        told(digest, done, int(line.get("total") or 0))
                except connection.HTTPError as error:
                    if watchdog.fired:
                        raise Passing(f"no byte came for {watchdog.limit:g} s") from error
                    raise
        if last != "success":
            raise Passing("the server ended the pull before it was complete")

    def copy(self, source: Name, destination: Name) -> None:
        """Give a model a second name.

        :raises Failed: it cannot be done.
        """
        body = {"source": str(source), "destination": str(destination)}
        self._ask("POST", "/api/copy", body)

    def remove(self, name: Name) -> None:
        """Take a name away; blobs that no other name needs go with it.

        :raises Failed: it cannot be done.
        """
        self._ask("DELETE", "/api/delete", {"model": str(name)}, missing_ok=True)

    def has_blob(self, digest: str) -> bool:
        """Whether the server has a blob."""
        with self._http(SOON) as client:
            return bool(client.head(f"/api/blobs/{digest}").status_code == 200)

    def put_blob(self, digest: str, size: int, content: Iterable[bytes]) -> None:
        """Give the server a blob, which it holds against the digest.

        :raises Failed: it does not take it.
        """
        with self._http(SOON + size / SLOW_DISK) as client:
            answer = client.post(
                f"/api/blobs/{digest}", content=content, headers={"Content-Length": str(size)}
            )
            _checked(answer)

    def create(self, name: Name, made_of: Mapping[str, Any], size: int) -> None:
        """Have a model made.

        :param made_of: ``files``, ``from``, ``template`` and the like, as Ollama's API has them.
        :param size: bytes of it, which the server may take its time for.
        :raises Failed: it cannot be made.
        """
        body = {"model": str(name), "stream": True, **made_of}
        last = ""
        with self._stream("POST", "/api/create", body, LOADING + size / SLOW_DISK) as answer:
            for line in _lines(answer):
                last = str(line.get("status", ""))
        if last != "success":
            raise Failed(f"the server ended before {name} was made")

    def say_a_word(self, name: Name) -> None:
        """Have a model loaded and answer with one token, or embed one where it does not chat.

        :raises Failed: it does not.
        """
        asked = {
            "model": str(name),
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": False,
            "options": {"num_predict": 1},
        }
        with self._http(LOADING) as client:
            answer = client.post("/api/chat", json=asked)
            if answer.status_code == 400 and "does not support chat" in answer.text:
                answer = client.post("/api/embed", json={"model": str(name), "input": "Hi"})
                _checked(answer)
                return
            _checked(answer)
            said = _parsed(answer.text)
        if said.get("done") is not True or "message" not in said:
            raise Failed(f"{name} was asked a word and the answer is none: {answer.text[:200]}")

    def _ask(self, method: str, path: str, body: Any, *, missing_ok: bool = False) -> None:
        with self._http(SOON) as client:
            answer = client.request(method, path, json=body)
            if not (missing_ok and answer.status_code == 404):
                _checked(answer)

    @contextmanager
    def _stream(self, method: str, path: str, body: Any, silence: float) -> Iterator[Any]:
        with (
            self._http(SOON) as client,
            client.stream(method, path, json=body, timeout=(SOON, silence, SOON, SOON)) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                _checked(answer)
            yield answer

    @contextmanager
    def _http(self, timeout: float) -> Iterator[httpx.Client]:
        server = self._server
        with connection.http(
            self._host, server.address, server.port, tls=server.tls, timeout=timeout
        ) as client:
            try:
                yield client
            except connection.HTTPError as error:
                said = str(error) or type(error).__name__
                raise Passing(f"the model server cannot be asked: {said}") from error


#: Told what the server does, in its own words.
Said = Callable[[str], None]


class Watchdog:
    """Cuts a connection on which nothing has come for too long.

    :param limit: seconds; may be changed while it watches.
    :param cut: closes the connection.
    """

    def __init__(self, limit: float, cut: Callable[[], None]) -> None:
        self.limit = limit
        self.fired = False
        self._cut = cut
        self._fed = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def fed(self) -> None:
        """Something came."""
        self._fed = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self.limit / 4)):
            if time.monotonic() - self._fed > self.limit:
                self.fired = True
                self._cut()
                return

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()


def _lines(answer: Any) -> Iterator[dict[str, Any]]:
    """The objects of a stream; an error in it is an error, although the status is 200."""
    for text in answer.iter_lines():
        if not text.strip():
            continue
        line = _parsed(text)
        if "error" in line:
            raise sorted_out(str(line["error"]))
        yield line


def _parsed(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        raise Failed(f"what answers does not speak as Ollama does: {text[:200]!r}") from None
    if not isinstance(line, dict):
        raise Failed(f"what answers does not speak as Ollama does: {text[:200]!r}")
    return line


def _checked(answer: Any) -> None:
    if answer.status_code < 400:
        return
    try:
        said = str(_parsed(answer.text)["error"])
    except (Failed, KeyError):
        said = " ".join(answer.text.split())[:200] or "no reason given"
    told = f"{said} (HTTP {answer.status_code})"
    if answer.status_code == 429 or answer.status_code >= 500:
        raise sorted_out(told)
    raise Failed(told)


def sorted_out(said: str) -> Failed | Passing:
    """An error of the server's: final, or one that may pass."""
    lower = said.lower()
    if any(word in lower for word in _WASTED):
        return Passing(said, wasted=True)
    if any(word in lower for word in _FULL):
        return Full(f"the disk that the models lie on is full ({said})")
    for word, meaning in _FINAL.items():
        if word in lower:
            return Failed(f"{meaning} ({said})")
    return Passing(said)
