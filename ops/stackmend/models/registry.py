"""What the registries say of the wanted models, asked from the host: one manifest read each."""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit
from weakref import WeakKeyDictionary

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from stackmend import connection
from stackmend.answers import read_json
from stackmend.connection import script
from stackmend.models import near
from stackmend.models.spec import ModelSpec, ModelsPolicy, Name
from stackmend.models.state import Manifest, RegistryAnswer, RegistryLayer, Server
from stackmend.models.store import layers_of
from stackmend.redaction import safe_line

if TYPE_CHECKING:
    from pyinfra.api.host import Host

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

#: How often one manifest is asked for while the registry is busy or its answers break off.
ATTEMPTS = 3

#: The longest that a registry's own Retry-After is waited for, in seconds.
PATIENCE = 10.0

#: Seconds of silence that are worth remembering: a registry that is as silent again costs the same.
LONG = 5.0

#: Seconds for which a registry that was silent is not asked again.
SILENCE = 300.0

_REDIRECTIONS = 5

#: The status that stands for an answer that was not taken: its other models may be asked for.
_ANSWERED = 200

#: What checks/attempt.sh exits with for a name without an address.
_NO_NAME = 6

#: Where a request may lead: addresses and names of hosts, and what a request line may hold.
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
    """A registry could not be asked; the text says why, the layer where.

    :param code: the HTTP status; 0 where it answered nothing at all, so that asking for its other
        models is in vain.
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


#: The registries that were silent: until when each is not asked again, and what is said of it.
_silent: WeakKeyDictionary[Host, dict[_Origin, tuple[float, RegistryAnswer]]] = WeakKeyDictionary()


def ask(
    host: Host,
    wanted: Iterable[ModelSpec],
    policy: ModelsPolicy,
    known: Iterable[str] = (),
    server: Server | None = None,
    timeout: float = 10.0,
) -> dict[str, RegistryAnswer]:
    """Read the manifest of each wanted model that is pulled, from where the host stands.

    One request each, over one connection a registry; only where a registry is busy or breaks off
    it is asked again, and only for a model that is absent it is asked what it has. A registry
    that cannot be reached is not tried for its other models, and one that was silent is not waited
    for again in the next five minutes. Changes nothing.

    Args:
        host: the host.
        wanted: the models; those that are created from a file are left out.
        policy: says for which of them the registry is spoken to over plain HTTP.
        known: names of models that exist, which a wrong one may be meant for.
        server: the model server. A certificate that the controller does not trust is held against
            those that this server trusts, because it is the server that will pull.
        timeout: seconds for each step: connecting, each wait for an answer.

    Returns:
        The answers, by the name that the model is pulled by.

    Raises:
        ConnectionLost: the connection to the host is dead.

    Example:
        >>> ask(host, [ModelSpec(name="llama3.2:1b")], policy)["llama3.2:1b"].status
        'found'
    """
    answers: dict[str, RegistryAnswer] = {}
    silent = _silent.setdefault(host, {})
    now = time.monotonic()
    broken = {origin: answer for origin, (until, answer) in silent.items() if until > now}
    names = tuple(known)
    with ExitStack() as stack:
        asker = _Asker(host, stack, server, timeout)
        for one in wanted:
            name = one.pulled
            if name is None:
                continue
            origin = _origin(name, tls=not policy.over_http(one))
            if origin in broken:
                answers[str(name)] = broken[origin]
                continue
            begun = time.monotonic()
            try:
                answers[str(name)] = _manifest(asker, origin, name, names)
            except _Unreachable as error:
                answers[str(name)] = error.answer
                if error.code == 0:
                    broken[origin] = error.answer
                    ended = time.monotonic()
                    if ended - begun > min(LONG, timeout):
                        silent[origin] = (ended + SILENCE, error.answer)
                if isinstance(error, _Busy):
                    asker.attempts = 1
    return answers


def _origin(name: Name, *, tls: bool) -> _Origin:
    address, port = name.registry
    return _Origin(tls, address, port or (443 if tls else 80))


def _manifest(asker: _Asker, origin: _Origin, name: Name, known: Iterable[str]) -> RegistryAnswer:
    path = f"/v2/{name.repository}/manifests/{name.tag}"
    answer = asker.get(origin, path, {"Accept": MANIFEST_TYPE})
    if answer.status_code == 404:
        return RegistryAnswer(
            status="absent",
            nearest=near.nearest(
                name, [*known, *near.told(name, lambda path: asker.json(origin, path))]
            ),
            reason=f"{origin} has no model {name}",
        )
    code = answer.status_code
    if code in (401, 403):
        raise _Unreachable(
            "http", f"{origin} asks for authentication (HTTP {code}) to read {name}", code
        )
    if code == 412:
        raise _Unreachable("http", f"{origin} wants a newer Ollama for {name} (HTTP 412)", code)
    if code != 200:
        raise _Unreachable("http", f"{origin} answers HTTP {code} for {name}", code)
    raw: bytes = answer.content
    try:
        text = raw.decode()
        layers = layers_of(read_json(text))
    except ValueError:
        raise _Unreachable(
            "http", f"what {origin} answers for {name} is no manifest", code
        ) from None
    return RegistryAnswer(
        status="found",
        manifest=Manifest(digest=hashlib.sha256(raw).hexdigest(), layers=layers, raw=text),
    )


class _Asker:
    """The connections to registries, kept for all questions of one time."""

    def __init__(self, host: Host, stack: ExitStack, server: Server | None, timeout: float) -> None:
        self._host = host
        self._stack = stack
        self._server = server
        self._timeout = timeout
        #: How often one thing is asked for; once is enough where patience was in vain before.
        self.attempts = ATTEMPTS
        self._clients: dict[_Origin, connection.HTTPClient] = {}
        self._tokens: dict[tuple[_Origin, str], str] = {}
        self._lists: dict[tuple[_Origin, str], Any] = {}
        self._trusted: ssl.SSLContext | None = None

    def get(
        self, origin: _Origin, path: str, headers: Mapping[str, str]
    ) -> connection.HTTPResponse:
        """The answer to a request, redirections followed and a token fetched where one is asked.

        :raises _Unreachable: there is none.
        """
        again = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=_wait,
            retry=retry_if_exception_type(_Busy),
            reraise=True,
        )
        answer: connection.HTTPResponse = again(self._get, origin, path, dict(headers))
        return answer

    def json(self, origin: _Origin, path: str) -> Any:
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
            answer = self._once(origin, path, headers | ({"Authorization": token} if token else {}))
            if answer.status_code == 401 and token is None:
                token = self._token(origin, answer.headers.get("WWW-Authenticate", ""))
                if token is not None:
                    self._tokens[(origin, scope)] = token
                    continue
            if answer.status_code == 429 or answer.status_code >= 500:
                raise _Busy(
                    f"{origin} answers HTTP {answer.status_code}",
                    answer.status_code,
                    _seconds(answer.headers.get("Retry-After", "")),
                )
            if answer.status_code not in (301, 302, 303, 307, 308):
                return answer
            try:
                to = urljoin(_url(origin, path), answer.headers.get("Location", ""))
                origin, path = _split(to)
            except ValueError as error:
                raise _Unreachable(
                    "http", f"{origin} redirects, but {error}", answer.status_code
                ) from None
        raise _Unreachable("http", f"{origin} redirects without end", answer.status_code)

    def _once(
        self, origin: _Origin, path: str, headers: Mapping[str, str]
    ) -> connection.HTTPResponse:
        try:
            return self._client(origin).get(path, headers=headers)
        except connection.HTTPError as error:
            failed = error
        refused = connection.layer(failed) == "tls" and not connection.silent(failed)
        if refused and self._trust_more(origin):
            try:
                return self._client(origin).get(path, headers=headers)
            except connection.HTTPError as error:
                failed = error
        raise self._reason(origin, failed) from failed

    def _client(self, origin: _Origin) -> connection.HTTPClient:
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

    def _reason(self, origin: _Origin, error: connection.HTTPError) -> _Unreachable:
        said = " ".join(str(error).split()) or type(error).__name__
        for cause in connection.causes(error):
            if isinstance(cause, connection.ConnectionLost):
                raise cause
            if isinstance(cause, connection.DialError):
                said = cause.reason
        layer = connection.layer(error)
        if layer == "connect" and not self._resolves(origin.address):
            layer, said = "name", "no address is known for it"
        match layer:
            case "name":
                return _Unreachable(
                    "name", f"the name {origin.address} does not resolve on the host: {said}"
                )
            case "connect":
                return _Unreachable("connect", f"{origin} cannot be connected to: {said}")
            case "tls":
                return _Unreachable("tls", f"{origin}: {said}")
        if connection.silent(error):
            # Whoever says nothing for so long is not waited for again.
            return _Unreachable("http", f"{origin} does not answer within {self._timeout:g} s")
        if isinstance(error, connection.TooMuch):
            return _Unreachable("http", f"{origin}: {said}", _ANSWERED)
        return _Busy(f"{origin} does not answer: {said}")

    def _resolves(self, address: str) -> bool:
        """Whether the host knows an address of a name: a server that forwards does not tell."""
        look = script("stackmend.checks", "attempt", "resolve", "5", address)
        return connection.run(self._host, look, readonly=True, timeout=20).status != _NO_NAME

    def _trust_more(self, origin: _Origin) -> bool:
        """Trust what the model server trusts; whether that is something new."""
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

    def _token(self, origin: _Origin, challenge: str) -> str | None:
        """The token that anybody may have, if the registry gives one."""
        fields = dict(_CHALLENGE.findall(challenge))
        if not challenge.lower().startswith("bearer ") or "realm" not in fields:
            return None
        query = {key: fields[key] for key in ("service", "scope") if key in fields}
        try:
            realm = urljoin(_url(origin, "/"), fields["realm"])
            realm += ("&" if "?" in realm else "?") + urlencode(query)
            answer = self._once(*_split(realm), {})
            given = read_json(answer.content)
        except ValueError:
            return None
        if answer.status_code != 200 or not isinstance(given, dict):
            return None
        token = given.get("token") or given.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return None
        return f"Bearer {token}"


def _wait(state: RetryCallState) -> float:
    """What the registry says, else a little more each time."""
    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, _Busy) else None
    return float(min(after if after is not None else 2.0 ** (state.attempt_number - 1), PATIENCE))


def _seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _url(origin: _Origin, path: str) -> str:
    address = f"[{origin.address}]" if ":" in origin.address else origin.address
    return f"{'https' if origin.tls else 'http'}://{address}:{origin.port}{path}"


def _split(url: str) -> tuple[_Origin, str]:
    """Where a URL leads.

    :raises ValueError: it is none of HTTP.
    """
    parts: Any = urlsplit(url) if _LINK.fullmatch(url) else None
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not _ADDRESS.fullmatch(parts.hostname or "")
    ):
        raise ValueError(f"{safe_line(url, 200)!r} is no address of a registry")
    tls = parts.scheme == "https"
    origin = _Origin(tls, parts.hostname, parts.port or (443 if tls else 80))
    return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
