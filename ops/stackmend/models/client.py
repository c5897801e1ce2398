"""What a model server is asked to do, over HTTP from the host's point of view."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stackmend import answers, connection
from stackmend.answers import read_json
from stackmend.errors import StepError
from stackmend.models.errors import Full, TransientError
from stackmend.models.spec import Name
from stackmend.models.state import Server
from stackmend.redaction import safe_line

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for what a server answers at once.
SOON = 30.0

#: Seconds that a model has to be loaded and to say a word.
LOADING = 900.0

#: Bytes a second at which even a slow disk is read: how long the server may be silent while it
#: holds what has come against its digest.
SLOW_DISK = 20e6

#: More bytes than any model has, for the same where nobody could tell its size.
UNKNOWN = 500e9

#: Seconds that one pull may take, whatever the server goes on to tell of it.
LONGEST_PULL = 7 * 86400.0

#: Blobs that the server may tell of in one pull.
MOST_BLOBS = 4096

#: Characters of the server's own words that are shown.
SHOWN = 400

#: What the server says while it holds what has come against its digests.
VERIFYING = "verifying"

_LOCKED = (
    "the registry asks for authentication, and the server's own key does not open it: give the "
    "server's ~/.ollama/id_ed25519.pub to an account there that may read this model"
)

_OLD = "this model needs a newer Ollama than the server is: update the server"

#: What the server says where asking again cannot help, and what that means.
_FINAL: Mapping[str, str] = {
    "file does not exist": "the registry has no such model",
    "newer version of ollama": _OLD,
    "412:": _OLD,
    "read-only file system": "the disk that the models lie on is mounted read-only",
    "permission denied": "the server may not write its models: see who owns their directory",
    "invalid model name": "the server does not take this name",
    "unauthorized": _LOCKED,
    "401:": _LOCKED,
    "403:": _LOCKED,
    "http: no location header": "the registry cannot be pulled from: it is not one for models",
    "gave http response to https client": 'the registry speaks plain HTTP: say "insecure": true',
    "certificate": "the server does not trust the registry's certificate: set SSL_CERT_FILE there",
}

#: What says that there is no room.
_FULL = ("no space left", "disk quota exceeded")

#: What says that bytes came and were thrown away.
_WASTED = ("digest mismatch", "must be downloaded again")

#: Which of them.
_LOST = re.compile(r"want (sha256:[0-9a-f]{64})")

_DIGEST = re.compile(r"sha256[-:][0-9a-f]{64}")


#: Told of each line of a pull: digest, bytes that are there, bytes in all or 0.
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
        :param stall: seconds without a byte after which it is given up; while the server holds
            what has come against its digests, as long as a slow disk takes for it is added.
        :param size: bytes of the model; 0 where nobody could tell.
        :param told: told how many bytes of a blob there are.
        :param said: told what the server does.
        :raises StepError: it cannot be pulled.
        :raises TransientError: it may go better if it is asked for again.
        """
        body = {"model": str(name), "insecure": insecure, "stream": True}
        there: dict[str, int] = {}
        sizes: dict[str, int] = {}
        last = ""
        # It is the watchdog that cuts, and knows what is being done.
        silence = stall + (size or UNKNOWN) / SLOW_DISK
        until = time.monotonic() + LONGEST_PULL
        with self._stream("POST", "/api/pull", body, silence) as answer:
            cut = answer.extensions["network_stream"].close
            with Watchdog(stall, cut) as watchdog:
                try:
                    for line in _lines(answer):
                        if time.monotonic() > until:
                            raise TransientError(f"the pull did not end within {LONGEST_PULL:g} s")
                        last = _status(line)
                        digest, done, total = _progress(line)
                        verified = sum(sizes.values()) if last.startswith(VERIFYING) else 0
                        watchdog.limit = stall + verified / SLOW_DISK
                        # A stalled pull goes on telling how far it is: only more bytes count.
                        if not digest:
                            watchdog.fed()
                            said(last)
                            continue
                        if digest not in there and len(there) >= MOST_BLOBS:
                            raise StepError(f"the server tells of more than {MOST_BLOBS} blobs")
                        if there.get(digest) != done:
                            watchdog.fed()
                        there[digest] = done
                        # Of a blob that another pull fetches its size is not always said.
                        sizes[digest] = total or sizes.get(digest, 0)
                        told(digest, done, sizes[digest])
                except connection.HTTPError as error:
                    if watchdog.fired:
                        raise TransientError(f"no byte came for {watchdog.limit:g} s") from error
                    raise
        if last != "success":
            raise TransientError("the server ended the pull before it was complete")

    def copy(self, source: Name, destination: Name) -> None:
        """Give a model a second name.

        :raises StepError: it cannot be done.
        """
        body = {"source": str(source), "destination": str(destination)}
        self._ask("POST", "/api/copy", body)

    def remove(self, name: Name) -> None:
        """Take a name away; blobs that no other name needs go with it.

        :raises StepError: it cannot be done.
        """
        self._ask("DELETE", "/api/delete", {"model": str(name)}, missing_ok=True)

    def has_blob(self, digest: str) -> bool:
        """Whether the server has a blob."""
        with self._http(SOON) as client:
            return bool(client.head(f"/api/blobs/{digest}").status_code == 200)

    def put_blob(self, digest: str, size: int, content: Iterable[bytes]) -> None:
        """Give the server a blob, which it holds against the digest.

        :raises StepError: it does not take it.
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
        :raises StepError: it cannot be made.
        """
        body = {"model": str(name), "stream": True, **made_of}
        last = ""
        with self._stream("POST", "/api/create", body, LOADING + size / SLOW_DISK) as answer:
            for line in _lines(answer):
                last = _status(line)
        if last != "success":
            raise StepError(f"the server ended before {name} was made")

    def say_a_word(self, name: Name) -> None:
        """Have a model loaded and answer with one token, or embed one where it does not chat.

        :raises StepError: it does not.
        """
        asked = {
            "model": str(name),
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": False,
            "options": {"num_predict": 1},
        }
        with self._http(LOADING) as client:
            answer = client.post("/api/chat", json=asked)
            if answer.status_code == 400 and "does not support chat" in _text(answer.content):
                answer = client.post("/api/embed", json={"model": str(name), "input": "Hi"})
                _checked(answer)
                return
            _checked(answer)
            said = _parsed(answer.content)
        if said.get("done") is not True or "message" not in said:
            raise StepError(
                f"{name} was asked a word and the answer is none: {_shown(answer.content)}"
            )

    def _ask(self, method: str, path: str, body: Any, *, missing_ok: bool = False) -> None:
        with self._http(SOON) as client:
            answer = client.request(method, path, json=body)
            if not (missing_ok and answer.status_code == 404):
                _checked(answer)

    @contextmanager
    def _stream(self, method: str, path: str, body: Any, silence: float) -> Iterator[Any]:
        with (
            self._http(SOON, endless=True) as client,
            client.stream(method, path, json=body, timeout=(SOON, silence, SOON, SOON)) as answer,
        ):
            if answer.status_code != 200:
                with Watchdog(SOON, answer.extensions["network_stream"].close):
                    answer.read()
                _checked(answer)
                raise _foreign(f"HTTP {answer.status_code}")
            yield answer

    @contextmanager
    def _http(self, timeout: float, *, endless: bool = False) -> Iterator[connection.HTTPClient]:
        server = self._server
        with connection.http(
            self._host,
            server.address,
            server.port,
            tls=server.tls,
            timeout=timeout,
            endless=endless,
        ) as client:
            try:
                yield client
            except connection.TooMuch as error:
                raise _foreign(str(error)) from error
            except connection.HTTPError as error:
                said = safe_line(str(error), SHOWN) or type(error).__name__
                raise TransientError(f"the model server cannot be asked: {said}") from error


#: Told what the server does, in its own words.
Said = Callable[[str], None]


class Watchdog:
    """Cuts a connection on which nothing has come for too long.

    It counts its own steps instead of asking the clock: while this process does not get to run, it
    hears nothing either, and what has come meanwhile is heard before the next step.

    :param limit: seconds; may be changed while it watches.
    :param cut: closes the connection.
    """

    def __init__(self, limit: float, cut: Callable[[], None]) -> None:
        self.limit = limit
        self.fired = False
        self._cut = cut
        self._came = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def fed(self) -> None:
        """Something came."""
        self._came = True

    def _watch(self) -> None:
        quiet = 0.0
        while not self._over.wait(step := min(1.0, self.limit / 4)):
            quiet = 0.0 if self._came else quiet + step
            self._came = False
            if quiet >= self.limit:
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
    for text in connection.lines(answer):
        if not text.strip():
            continue
        line = _parsed(text)
        if "error" in line:
            raise sorted_out(safe_line(str(line["error"]), SHOWN))
        yield line


def _parsed(given: bytes) -> dict[str, Any]:
    try:
        line = read_json(given)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise _foreign(_shown(given))
    return line


def _foreign(said: str) -> StepError:
    return StepError(f"what answers does not speak as Ollama does: {said}")


def _status(line: Mapping[str, Any]) -> str:
    status = line.get("status")
    return safe_line(status, SHOWN) if isinstance(status, str) else ""


def _progress(line: Mapping[str, Any]) -> tuple[str, int, int]:
    """The blob that a line of a pull tells of, or none; bytes that are there, and in all."""
    try:
        digest = answers.string(line.get("digest"))
        if not digest:
            return "", 0, 0
        if not _DIGEST.fullmatch(digest):
            raise ValueError("a digest that is none")
        # A size that is not known yet is a zero or nothing.
        done, total = (answers.size(line.get(key) or 0) for key in ("completed", "total"))
    except ValueError as error:
        raise _foreign(str(error)) from None
    return digest, done, total


def _text(given: bytes) -> str:
    # Whatever encoding the answer itself claims: some of those are no encodings of text.
    return given.decode(errors="replace")


def _shown(given: bytes) -> str:
    return safe_line(" ".join(_text(given).split()), 200)


def _checked(answer: Any) -> None:
    if answer.status_code < 400:
        return
    try:
        said = safe_line(str(_parsed(answer.content)["error"]), SHOWN)
    except (StepError, KeyError):
        said = _shown(answer.content) or "no reason given"
    told = f"{said} (HTTP {answer.status_code})"
    if answer.status_code == 429 or answer.status_code >= 500:
        raise sorted_out(told)
    raise StepError(told)


def sorted_out(said: str) -> StepError | TransientError:
    """An error of the server's: final, or one that may pass."""
    lower = said.lower()
    if any(word in lower for word in _WASTED):
        return TransientError(said, wasted=True, lost=_LOST.findall(said))
    if is_full(said):
        return Full(f"the disk that the models lie on is full ({said})")
    for word, meaning in _FINAL.items():
        if word in lower:
            return StepError(f"{meaning} ({said})")
    return TransientError(said)


def is_full(said: str) -> bool:
    """Whether an error says that there is no room on the disk."""
    return any(word in said.lower() for word in _FULL)
