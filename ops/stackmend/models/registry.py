"""The registries' answers about the desired models, asked from the host: one manifest each."""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from stackmend import connection
from stackmend.answers import read_json
from stackmend.connection import script
from stackmend.models import suggestions
from stackmend.models.spec import DEFAULT_REGISTRY, ModelSpec, ModelsPolicy, Name
from stackmend.models.state import Manifest, RegistryAnswer, RegistryLayer, Server
from stackmend.models.store import parse_layers
from stackmend.redaction import format_safe_line

if TYPE_CHECKING:
    from pyinfra.api.host import Host

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

#: How often one manifest is asked for while the registry is busy or its answers break off.
ATTEMPTS = 3

#: The longest Retry-After of a registry that is waited for, in seconds.
LONGEST_WAIT = 10.0

#: Seconds of silence after which a registry counts as silent: asking again costs the same.
LONG = 5.0

#: Seconds for which a registry that was silent is not asked again.
SILENCE = 300.0

_REDIRECTIONS = 5

#: The status that stands for an answer that was not read: its other models may be asked for.
_ANSWERED = 200

#: The exit status of checks/attempt.sh for a name without an address.
_NO_NAME = 6

#: What a request line may hold, and what addresses and names of hosts may be.
_LINK = re.compile(r"[!-~]{1,4096}")
_ADDRESS = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|[0-9A-Fa-f:.]{2,45}"
)

#: What may stand in a header as a token.
_TOKEN = re.compile(r"[!-~]{1,16384}")

_CHALLENGE = re.compile(r'(realm|service|scope)="([^"]*)"')


class _Origin(NamedTuple):
    tls: bool
    address: str
    port: int

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return address if self.port == (443 if self.tls else 80) else f"{address}:{self.port}"


class _Unreachable(Exception):
    """A registry could not be asked; the text says why, the layer where it failed.

    :param code: the HTTP status; 0 where it did not answer at all, so that asking for its other
        models is useless.
    """

    def __init__(self, layer: RegistryLayer, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.layer: RegistryLayer = layer
        self.code = code

    @property
    def answer(self) -> RegistryAnswer:
        return RegistryAnswer(
            status="unreachable", layer=self.layer, code=self.code, reason=str(self)
        )


class _Busy(_Unreachable):
    """It may answer if it is asked again."""

    def __init__(self, reason: str, code: int = 0, after: float | None = None) -> None:
        super().__init__("http", reason, code)
        self.after = after


class _Silent(dict[_Origin, tuple[float, RegistryAnswer]]):
    """The registries that were silent: until when each is not asked again, and its answer."""


def ask(
    host: Host,
    models: Iterable[ModelSpec],
    policy: ModelsPolicy,
    known: Iterable[str] = (),
    server: Server | None = None,
    timeout: float = 10.0,
) -> dict[str, RegistryAnswer]:
    """Read the manifest of each model that is pulled, from the host.

    One request each, over one connection a registry. A registry that is busy or breaks off is asked
    again, and one that has no such model is asked what it has. A registry that cannot be reached is
    not asked for its other models, and one that was silent is not waited for again in the next five
    minutes. Changes nothing.

    :param host: the host.
    :param models: the models; those that are created from a file are left out.
    :param policy: says to which registries plain HTTP is spoken.
    :param known: names of models that exist, which may be suggested for a wrong one.
    :param server: the model server. Registries may also use certificates that this server trusts,
        because it is the server that pulls.
    :param timeout: seconds for each step: connecting, each wait for an answer.
    :returns: the answers, by the name that the model is pulled by.
    :raises ConnectionLost: the connection to the host is dead.

    Example:
        >>> ask(host, [ModelSpec(name="llama3.2:1b")], policy)["llama3.2:1b"].status
        'found'
    """
    answers: dict[str, RegistryAnswer] = {}
    silent = connection.keep(host, _Silent)
    now = time.monotonic()
    unreachable = {origin: answer for origin, (until, answer) in silent.items() if until > now}
    names = tuple(known)
    with ExitStack() as stack:
        asker = _Asker(host, stack, server, timeout)
        for model in models:
            name = model.pulled_as
            if name is None:
                continue
            origin = _find_origin(name, tls=not policy.is_insecure(model))
            if origin in unreachable:
                answers[str(name)] = unreachable[origin]
                continue
            started = time.monotonic()
            try:
                answers[str(name)] = _fetch_manifest(asker, origin, name, names)
            except _Unreachable as error:
                answers[str(name)] = error.answer
                if error.code == 0:
                    unreachable[origin] = error.answer
                    ended = time.monotonic()
                    if ended - started > min(LONG, timeout):
                        silent[origin] = (ended + SILENCE, error.answer)
                if isinstance(error, _Busy):
                    asker.attempts = 1
    return answers


def _find_origin(name: Name, *, tls: bool) -> _Origin:
    address, port = name.registry
    return _Origin(tls, address, port or (443 if tls else 80))


def _fetch_manifest(
    asker: _Asker, origin: _Origin, name: Name, known: Iterable[str]
) -> RegistryAnswer:
    path = f"/v2/{name.repository}/manifests/{name.tag}"
    answer = asker.get(origin, path, {"Accept": MANIFEST_TYPE})
    if answer.status_code == 404:
        if not _is_from_registry(answer, name):
            reason = f"{origin} answers HTTP 404 for {name}, and not as a registry does"
            raise _Unreachable("http", reason, answer.status_code)
        similar = suggestions.list_similar(name, partial(asker.get_json, origin))
        return RegistryAnswer(
            status="absent",
            suggestions=suggestions.suggest(name, [*known, *similar]),
            reason=f"{origin} has no model {name}",
        )
    code = answer.status_code
    if code != 200:
        reasons = {
            401: f"asks for authentication (HTTP {code}) to read {name}",
            403: f"asks for authentication (HTTP {code}) to read {name}",
            412: f"requires a newer Ollama for {name} (HTTP {code})",
        }
        reason = reasons.get(code, f"answers HTTP {code} for {name}")
        raise _Unreachable("http", f"{origin} {reason}", code)
    raw: bytes = answer.content
    try:
        text = raw.decode()
        layers = parse_layers(read_json(text))
    except ValueError:
        reason = f"the answer of {origin} for {name} is no manifest"
        raise _Unreachable("http", reason, code) from None
    return RegistryAnswer(
        status="found",
        manifest=Manifest(digest=hashlib.sha256(raw).hexdigest(), layers=layers, raw=text),
    )


def _is_from_registry(answer: connection.HTTPResponse, name: Name) -> bool:
    """Whether a 404 is a registry's own, and not that of any server that has no such page.

    A registry says which error it is (OCI distribution specification, "Error Codes").
    """
    if name.host.lower() == DEFAULT_REGISTRY or "Docker-Distribution-Api-Version" in answer.headers:
        return True
    with suppress(ValueError):
        body = read_json(answer.content)
        return isinstance(body, dict) and isinstance(body.get("errors"), list)
    return False


class _Asker:
    """The connections to registries, and what they answered, for all questions of one time."""

    def __init__(self, host: Host, stack: ExitStack, server: Server | None, timeout: float) -> None:
        self._host = host
        self._stack = stack
        self._server = server
        self._timeout = timeout
        #: How often one thing is asked for; once is enough where waiting did not help before.
        self.attempts = ATTEMPTS
        self._clients: dict[_Origin, connection.HTTPClient] = {}
        self._tokens: dict[tuple[_Origin, str], str] = {}
        self._lists: dict[tuple[_Origin, str], Any] = {}
        self._trusted: ssl.SSLContext | None = None

    def get(
        self, origin: _Origin, path: str, headers: Mapping[str, str]
    ) -> connection.HTTPResponse:
        """The answer to a request; follows redirections, and fetches a token where one is needed.

        :raises _Unreachable: there is no answer.
        """
        again = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=_find_pause,
            retry=retry_if_exception_type(_Busy),
            reraise=True,
        )
        answer: connection.HTTPResponse = again(self._get, origin, path, dict(headers))
        return answer

    def get_json(self, origin: _Origin, path: str) -> Any:
        """The JSON that a path has, asked for once; ``None`` where there is none."""
        if (origin, path) not in self._lists:
            self._lists[(origin, path)] = None
            with suppress(_Unreachable, ValueError):
                answer = self.get(origin, path, {})
                if answer.status_code == 200:
                    self._lists[(origin, path)] = read_json(answer.content)
        return self._lists[(origin, path)]

    def _get(self, origin: _Origin, path: str, headers: dict[str, str]) -> connection.HTTPResponse:
        for _ in range(_REDIRECTIONS):
            # A token opens one repository: what lies below /v2/<repository>/.
            scope = path.partition("?")[0].rpartition("/")[0].rpartition("/")[0]
            token = self._tokens.get((origin, scope))
            answer = self._request(
                origin, path, headers | ({"Authorization": token} if token else {})
            )
            if answer.status_code == 401 and token is None:
                token = self._fetch_token(origin, answer.headers.get("WWW-Authenticate", ""))
                if token is not None:
                    self._tokens[(origin, scope)] = token
                    continue
            if answer.status_code == 429 or answer.status_code >= 500:
                raise _Busy(
                    f"{origin} answers HTTP {answer.status_code}",
                    answer.status_code,
                    _parse_seconds(answer.headers.get("Retry-After", "")),
                )
            if answer.status_code not in (301, 302, 303, 307, 308):
                return answer
            try:
                to = urljoin(_format_url(origin, path), answer.headers.get("Location", ""))
                origin, path = _parse_url(to)
            except ValueError as error:
                raise _Unreachable(
                    "http", f"{origin} redirects, but {error}", answer.status_code
                ) from None
        raise _Unreachable("http", f"{origin} redirects without end", answer.status_code)

    def _request(
        self, origin: _Origin, path: str, headers: Mapping[str, str]
    ) -> connection.HTTPResponse:
        try:
            return self._open_client(origin).get(path, headers=headers)
        except connection.HTTPError as error:
            failure = error
        refused = connection.find_layer(failure) == "tls" and not connection.is_silent(failure)
        if refused and self._trust_more(origin):
            try:
                return self._open_client(origin).get(path, headers=headers)
            except connection.HTTPError as error:
                failure = error
        raise self._classify(origin, failure) from failure

    def _open_client(self, origin: _Origin) -> connection.HTTPClient:
        if origin not in self._clients:
            self._clients[origin] = self._stack.enter_context(
                connection.http(
                    self._host,
                    origin.address,
                    origin.port,
                    tls=(self._trusted or True) if origin.tls else False,
                    timeout=self._timeout,
                )
            )
        return self._clients[origin]

    def _classify(self, origin: _Origin, error: connection.HTTPError) -> _Unreachable:
        reason = " ".join(str(error).split()) or type(error).__name__
        for cause in connection.list_causes(error):
            if isinstance(cause, connection.ConnectionLost):
                raise cause
            if isinstance(cause, connection.DialError):
                reason = cause.reason
        layer = connection.find_layer(error)
        if layer == "connect" and not self._can_resolve(origin.address):
            layer, reason = "name", "it has no address"
        match layer:
            case "name":
                return _Unreachable(
                    "name", f"the name {origin.address} does not resolve on the host: {reason}"
                )
            case "connect":
                return _Unreachable("connect", f"cannot connect to {origin}: {reason}")
            case "tls":
                return _Unreachable("tls", f"{origin}: {reason}")
        if connection.is_silent(error):
            return _Unreachable("http", f"{origin} does not answer within {self._timeout:g} s")
        if isinstance(error, connection.TooMuch):
            return _Unreachable("http", f"{origin}: {reason}", _ANSWERED)
        return _Busy(f"{origin} does not answer: {reason}")

    def _can_resolve(self, address: str) -> bool:
        """Whether the host knows an address of a name: a server that forwards does not say."""
        resolve = script("stackmend.checks", "attempt", "resolve", "5", address)
        return connection.run(self._host, resolve, readonly=True, timeout=20).status != _NO_NAME

    def _trust_more(self, origin: _Origin) -> bool:
        """Trust the certificates that the model server trusts; whether there are any more."""
        if self._trusted is not None or self._server is None:
            return False
        read = script("stackmend.models", "trust", self._server.container)
        result = connection.run(self._host, read, readonly=True, timeout=20)
        self._trusted = ssl.create_default_context()
        try:
            self._trusted.load_verify_locations(cadata=result.text)
        except (ssl.SSLError, ValueError):
            return False
        del self._clients[origin]
        return result.ok

    def _fetch_token(self, origin: _Origin, challenge: str) -> str | None:
        """The token that the registry gives to anybody, if it does."""
        fields = dict(_CHALLENGE.findall(challenge))
        if not challenge.lower().startswith("bearer ") or "realm" not in fields:
            return None
        query = {key: fields[key] for key in ("service", "scope") if key in fields}
        try:
            realm = urljoin(_format_url(origin, "/"), fields["realm"])
            realm += ("&" if "?" in realm else "?") + urlencode(query)
            answer = self._request(*_parse_url(realm), {})
            body = read_json(answer.content)
        except ValueError:
            return None
        if answer.status_code != 200 or not isinstance(body, dict):
            return None
        token = body.get("token") or body.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return None
        return f"Bearer {token}"


def _find_pause(state: RetryCallState) -> float:
    """The seconds that the registry asks for, else a little more each time."""
    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, _Busy) else None
    return float(
        min(after if after is not None else 2.0 ** (state.attempt_number - 1), LONGEST_WAIT)
    )


def _parse_seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _format_url(origin: _Origin, path: str) -> str:
    address = f"[{origin.address}]" if ":" in origin.address else origin.address
    return f"{'https' if origin.tls else 'http'}://{address}:{origin.port}{path}"


def _parse_url(url: str) -> tuple[_Origin, str]:
    """The origin and the path of a URL.

    :raises ValueError: it is no URL of HTTP.
    """
    parts: Any = urlsplit(url) if _LINK.fullmatch(url) else None
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not _ADDRESS.fullmatch(parts.hostname or "")
    ):
        raise ValueError(f"{format_safe_line(url, 200)!r} is no address of a registry")
    tls = parts.scheme == "https"
    origin = _Origin(tls, parts.hostname, parts.port or (443 if tls else 80))
    return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
