"""A model server's API, over HTTP from the host's point of view."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stackmend import answers, connection, connectivity
from stackmend.answers import read_json
from stackmend.connectivity.faults import TITLES, FaultName
from stackmend.errors import StepError
from stackmend.models.errors import Full, TransientError
from stackmend.models.spec import Name
from stackmend.models.state import Server
from stackmend.redaction import format_safe_line

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds for what a server answers at once.
SOON = 30.0

#: Seconds that a model has to be loaded and to answer.
LOADING = 900.0

#: Bytes a second at which even a slow disk is read: how long the server may be silent while it
#: verifies digests.
SLOW_DISK = 20e6

#: More bytes than any model has, where its size is not known.
UNKNOWN_SIZE = 500e9

#: Seconds that one pull may take, whatever progress the server reports.
LONGEST_PULL = 7 * 86400.0

#: Blobs that the server may name in one pull.
MOST_BLOBS = 4096

#: Characters of the server's messages that are reported.
LONGEST_MESSAGE = 400

#: The status of the server while it verifies digests.
VERIFYING = "verifying"

_LOCKED = (
    "the registry asks for authentication and does not accept the server's key: add the server's "
    "~/.ollama/id_ed25519.pub to an account there that may read this model"
)

_OLD = "this model needs a newer Ollama than the server is: update the server"

#: Messages of the server where another attempt cannot help, and what they mean.
_FINAL: Mapping[str, str] = {
    # Ollama says so of any 404.
    "file does not exist": "the registry has no such model, or what answers there is no registry",
    "newer version of ollama": _OLD,
    "412:": _OLD,
    "read-only file system": "the disk of the models is mounted read-only",
    "permission denied": "the server may not write its models: check the owner of their directory",
    "invalid model name": "the server does not accept this name",
    "unauthorized": _LOCKED,
    "401:": _LOCKED,
    "403:": _LOCKED,
    "http: no location header": "cannot pull from this registry: it is not one for models",
    "gave http response to https client": 'the registry speaks plain HTTP: add "insecure": true',
    "certificate": "the server does not trust the registry's certificate: set SSL_CERT_FILE there",
}

#: Classes of trouble in which the next attempt ends as this one.
_LASTING: frozenset[FaultName] = frozenset({"denied", "absent", "proxy", "portal"})

#: Messages of a full disk.
_FULL = ("no space left", "disk quota exceeded")

#: Messages where bytes arrived and were thrown away.
_WASTED = ("digest mismatch", "must be downloaded again")

#: The blob that they were of.
_LOST = re.compile(r"want (sha256:[0-9a-f]{64})")

_DIGEST = re.compile(r"sha256[-:][0-9a-f]{64}")

#: Called with the progress of a blob: digest, bytes that are present, bytes in all or 0.
OnProgress = Callable[[str, int, int], None]

#: Called with what the server does, as it says it.
OnStatus = Callable[[str], None]


class Client:
    """A model server.

    :param host: the host that reaches it.
    :param server: the server as it was observed.
    """

    def __init__(self, host: Host, server: Server) -> None:
        self._host = host
        self._server = server

    def pull(
        self,
        name: Name,
        *,
        insecure: bool,
        stall: float,
        size: int,
        on_progress: OnProgress,
        on_status: OnStatus,
    ) -> None:
        """Have the server pull a model, and wait for it.

        :param insecure: whether the server speaks plain HTTP to the registry.
        :param stall: seconds without a byte after which it is given up; while the server verifies
            digests, the time that a slow disk takes for it is added.
        :param size: bytes of the model; 0 where that is not known.
        :param on_progress: called with the bytes of a blob that are present.
        :param on_status: called with what the server does.
        :raises StepError: it cannot be pulled.
        :raises TransientError: another attempt may succeed.
        """
        body = {"model": str(name), "insecure": insecure, "stream": True}
        present: dict[str, int] = {}
        sizes: dict[str, int] = {}
        last = ""
        # The watchdog knows what the server does, and cuts earlier.
        silence = stall + (size or UNKNOWN_SIZE) / SLOW_DISK
        until = time.monotonic() + LONGEST_PULL
        with self._read_stream("POST", "/api/pull", body, silence) as answer:
            cut = answer.extensions["network_stream"].close
            with Watchdog(stall, cut) as watchdog:
                try:
                    for line in _read_lines(answer):
                        if time.monotonic() > until:
                            raise TransientError(f"the pull did not end within {LONGEST_PULL:g} s")
                        last = _parse_status(line)
                        digest, done, total = _parse_progress(line)
                        verified = sum(sizes.values()) if last.startswith(VERIFYING) else 0
                        watchdog.limit = stall + verified / SLOW_DISK
                        # A stalled pull keeps reporting its progress: only more bytes count.
                        if not digest:
                            watchdog.feed()
                            on_status(last)
                            continue
                        if digest not in present and len(present) >= MOST_BLOBS:
                            raise StepError(f"the server names more than {MOST_BLOBS} blobs")
                        if present.get(digest) != done:
                            watchdog.feed()
                        present[digest] = done
                        # The server leaves out some sizes of blobs that another pull fetches.
                        sizes[digest] = total or sizes.get(digest, 0)
                        on_progress(digest, done, sizes[digest])
                except connection.HTTPError as error:
                    if watchdog.fired:
                        raise TransientError(f"no byte arrived for {watchdog.limit:g} s") from error
                    raise
        if last != "success":
            raise TransientError("the server ended the pull before it was complete")

    def copy(self, source: Name, destination: Name) -> None:
        """Give a model a second name.

        :raises StepError: it cannot be done.
        """
        body = {"source": str(source), "destination": str(destination)}
        self._request("POST", "/api/copy", body)

    def remove(self, name: Name) -> None:
        """Remove a name, and the blobs that no other name needs.

        :raises StepError: it cannot be done.
        """
        self._request("DELETE", "/api/delete", {"model": str(name)}, missing_ok=True)

    def has_blob(self, digest: str) -> bool:
        """Whether the server has a blob."""
        with self._open_http(SOON) as client:
            return bool(client.head(f"/api/blobs/{digest}").status_code == 200)

    def put_blob(self, digest: str, size: int, content: Iterable[bytes]) -> None:
        """Send the server a blob, which it verifies against the digest.

        :raises StepError: it does not accept it.
        """
        with self._open_http(SOON + size / SLOW_DISK) as client:
            answer = client.post(
                f"/api/blobs/{digest}", content=content, headers={"Content-Length": str(size)}
            )
            _raise_for_status(answer)

    def create(self, name: Name, request: Mapping[str, Any], size: int) -> None:
        """Have the server create a model.

        :param request: ``files``, ``from``, ``template`` and the like, as Ollama's API has them.
        :param size: bytes of it, which the server has to read.
        :raises StepError: it cannot be created.
        """
        body = {"model": str(name), "stream": True, **request}
        last = ""
        with self._read_stream("POST", "/api/create", body, LOADING + size / SLOW_DISK) as answer:
            for line in _read_lines(answer):
                last = _parse_status(line)
        if last != "success":
            raise StepError(f"the server ended before it had created {name}")

    def check_answer(self, name: Name) -> None:
        """Have a model loaded and answer with one token, or embed one where it does not chat.

        :raises StepError: it does not answer.
        """
        question = {
            "model": str(name),
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": False,
            "options": {"num_predict": 1},
        }
        with self._open_http(LOADING) as client:
            answer = client.post("/api/chat", json=question)
            if answer.status_code == 400 and "does not support chat" in _decode(answer.content):
                answer = client.post("/api/embed", json={"model": str(name), "input": "Hi"})
                _raise_for_status(answer)
                return
            _raise_for_status(answer)
            reply = _parse(answer.content)
        if reply.get("done") is not True or "message" not in reply:
            raise _make_no_reply(answer.content)

    def check_completion(self, model: str) -> None:
        """Have any server of OpenAI's API answer with one token, as its clients ask it.

        :param model: the name that they ask for.
        :raises StepError: it does not answer.
        """
        question = {
            "model": model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
        }
        with self._open_http(LOADING) as client:
            answer = client.post("/v1/chat/completions", json=question)
            _raise_for_status(answer)
        try:
            reply = read_json(answer.content)
        except ValueError:
            reply = None
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices:
            raise _make_no_reply(answer.content)

    def _request(self, method: str, path: str, body: Any, *, missing_ok: bool = False) -> None:
        with self._open_http(SOON) as client:
            answer = client.request(method, path, json=body)
            if not (missing_ok and answer.status_code == 404):
                _raise_for_status(answer)

    @contextmanager
    def _read_stream(self, method: str, path: str, body: Any, silence: float) -> Iterator[Any]:
        with (
            self._open_http(SOON, endless=True) as client,
            client.stream(method, path, json=body, timeout=(SOON, silence, SOON, SOON)) as answer,
        ):
            if answer.status_code != 200:
                with Watchdog(SOON, answer.extensions["network_stream"].close):
                    answer.read()
                _raise_for_status(answer)
                raise _make_not_ollama(f"HTTP {answer.status_code}")
            yield answer

    @contextmanager
    def _open_http(
        self, timeout: float, *, endless: bool = False
    ) -> Iterator[connection.HTTPClient]:
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
                raise _make_not_ollama(str(error)) from error
            except connection.HTTPError as error:
                reason = format_safe_line(str(error), LONGEST_MESSAGE) or type(error).__name__
                raise TransientError(f"cannot ask the model server: {reason}") from error


class Watchdog:
    """Cuts a connection on which nothing arrived for too long.

    It counts its own steps instead of asking the clock: while this process does not get to run, it
    reads nothing either, and it reads what arrived meanwhile before the next step.

    :param limit: seconds; may be changed while it watches.
    :param cut: closes the connection.
    """

    def __init__(self, limit: float, cut: Callable[[], None]) -> None:
        self.limit = limit
        self.fired = False
        self._cut = cut
        self._fed = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def feed(self) -> None:
        """Something arrived."""
        self._fed = True

    def _watch(self) -> None:
        quiet = 0.0
        while not self._over.wait(step := min(1.0, self.limit / 4)):
            quiet = 0.0 if self._fed else quiet + step
            self._fed = False
            if quiet >= self.limit:
                self.fired = True
                self._cut()
                return

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()


def _read_lines(answer: Any) -> Iterator[dict[str, Any]]:
    """The objects of a stream; an error in it is an error, although the status is 200."""
    for text in connection.iterate_lines(answer):
        if not text.strip():
            continue
        line = _parse(text)
        if "error" in line:
            raise classify_error(format_safe_line(str(line["error"]), LONGEST_MESSAGE))
        yield line


def _parse(data: bytes) -> dict[str, Any]:
    try:
        line = read_json(data)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise _make_not_ollama(_shorten(data))
    return line


def _make_not_ollama(reason: str) -> StepError:
    return StepError(f"what answers does not speak as Ollama does: {reason}")


def _make_no_reply(content: bytes) -> StepError:
    return StepError(f"the reply is none of a model: {_shorten(content)}")


def _parse_status(line: Mapping[str, Any]) -> str:
    status = line.get("status")
    return format_safe_line(status, LONGEST_MESSAGE) if isinstance(status, str) else ""


def _parse_progress(line: Mapping[str, Any]) -> tuple[str, int, int]:
    """The blob that a line of a pull is about, or none; bytes that are present, and in all."""
    try:
        digest = answers.parse_string(line.get("digest"))
        if not digest:
            return "", 0, 0
        if not _DIGEST.fullmatch(digest):
            raise ValueError("it names a blob by what is no digest")
        # A size that is not known yet is a zero or nothing.
        done, total = (answers.parse_size(line.get(key) or 0) for key in ("completed", "total"))
    except ValueError as error:
        raise _make_not_ollama(str(error)) from None
    return digest, done, total


def _decode(data: bytes) -> str:
    # Whatever encoding the answer itself claims: some of those are no encodings of text.
    return data.decode(errors="replace")


def _shorten(data: bytes) -> str:
    return format_safe_line(" ".join(_decode(data).split()), 200)


def _raise_for_status(answer: Any) -> None:
    if answer.status_code < 400:
        return
    try:
        reason = format_safe_line(str(_parse(answer.content)["error"]), LONGEST_MESSAGE)
    except (StepError, KeyError):
        reason = _shorten(answer.content) or "no reason given"
    message = f"{reason} (HTTP {answer.status_code})"
    if answer.status_code == 429 or answer.status_code >= 500:
        raise classify_error(message)
    raise StepError(message)


def classify_error(message: str) -> StepError | TransientError:
    """What an error message of the server means: a final error, or one that may pass."""
    lower = message.lower()
    if any(part in lower for part in _WASTED):
        return TransientError(message, wasted=True, lost=_LOST.findall(message))
    if is_full(message):
        return Full(f"the disk of the models is full ({message})")
    for part, meaning in _FINAL.items():
        if part in lower:
            return StepError(f"{meaning} ({message})")
    name = connectivity.classify(message)
    if name in _LASTING:
        return StepError(f"{TITLES[name]} ({message})")
    return TransientError(message)


def is_full(message: str) -> bool:
    """Whether an error message says that the disk is full."""
    return any(part in message.lower() for part in _FULL)
