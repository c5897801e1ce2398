"""What the registries say of the wanted models, asked from the host: one manifest read each."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from ops import connection
from ops.connection import script
from ops.models.spec import DEFAULT_REGISTRY, ModelsPolicy, Name, Wanted
from ops.models.state import Manifest, RegistryAnswer, RegistryLayer, Server
from ops.models.store import layers_of

if TYPE_CHECKING:
    import httpx
    from pyinfra.api.host import Host

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

#: How often one manifest is asked for while the registry is busy or its answers break off.
ATTEMPTS = 3

#: The longest that a registry's own Retry-After is waited for, in seconds.
PATIENCE = 10.0

#: How many near names are told.
NEAREST = 3

_REDIRECTIONS = 5

#: What checks/attempt.sh exits with for a name without an address.
_NO_NAME = 6

_CHALLENGE = re.compile(r'(realm|service|scope)="([^"]*)"')

# Ollama's library cannot be listed; what people ask for by a wrong name is mostly one of these.
LIBRARY = tuple(
    "all-minilm bge-m3 codellama codestral cogito command-r command-r-plus deepseek-coder "
    "deepseek-coder-v2 deepseek-r1 deepseek-v3 devstral dolphin3 falcon3 gemma gemma2 gemma3 "
    "gemma3n gpt-oss granite3.3 granite4 llama2 llama3 llama3.1 llama3.2 llama3.2-vision llama3.3 "
    "llama4 llava magistral minicpm-v mistral mistral-nemo mistral-small mixtral moondream "
    "mxbai-embed-large nomic-embed-text nous-hermes2 olmo2 openthinker orca-mini phi phi3 phi3.5 "
    "phi4 phi4-mini qwen qwen2 qwen2.5 qwen2.5-coder qwen2.5vl qwen3 qwen3-coder qwen3-embedding "
    "qwq smollm smollm2 snowflake-arctic-embed starcoder2 tinyllama vicuna wizardlm2 yi "
    "zephyr".split()
)


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


def ask(
    host: Host,
    wanted: Iterable[Wanted],
    policy: ModelsPolicy,
    known: Iterable[str] = (),
    server: Server | None = None,
    timeout: float = 10.0,
) -> dict[str, RegistryAnswer]:
    """Read the manifest of each wanted model that is pulled, from where the host stands.

    One request each, over one connection a registry; only where a registry is busy or breaks off
    it is asked again, and only for a model that is absent it is asked what it has. A registry
    that cannot be reached is not tried for its other models. Changes nothing.

    Args:
        host: the host.
        wanted: the models; those that are created from a file are left out.
        policy: says for which of them the registry is spoken to over plain HTTP.
        known: names that exist, by which a wrong one may be told.
        server: the model server. A certificate that the controller does not trust is held against
            those that this server trusts, because it is the server that will pull.
        timeout: seconds for each step: connecting, each wait for an answer.

    Returns:
        The answers, by the name that the model is pulled by.

    Raises:
        ConnectionLost: the connection to the host is dead.

    Example:
        >>> ask(host, [Wanted(name="llama3.2:1b")], policy)["llama3.2:1b"].status
        'found'
    """
    answers: dict[str, RegistryAnswer] = {}
    broken: dict[_Origin, RegistryAnswer] = {}
    listed = [one for one in wanted if one.pulled is not None]
    names = (*known, *(str(one.name) for one in listed))
    with ExitStack() as stack:
        asker = _Asker(host, stack, server, timeout)
        for one in listed:
            name = one.pulled
            assert name is not None, "those without were left out"
            origin = _origin(name, tls=not policy.over_http(one))
            if origin in broken:
                answers[str(name)] = broken[origin]
                continue
            try:
                answers[str(name)] = _manifest(asker, origin, name, names)
            except _Unreachable as error:
                answers[str(name)] = error.answer
                if error.code == 0:
                    broken[origin] = error.answer
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
            nearest=nearest(name, [*known, *_listed(asker, origin, name)]),
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
        layers = layers_of(json.loads(raw))
    except ValueError:
        raise _Unreachable(
            "http", f"what {origin} answers for {name} is no manifest", code
        ) from None
    return RegistryAnswer(
        status="found",
        manifest=Manifest(
            digest=hashlib.sha256(raw).hexdigest(), layers=layers, raw=raw.decode(errors="replace")
        ),
    )


def _listed(asker: _Asker, origin: _Origin, name: Name) -> list[str]:
    """The names that a registry itself tells, if it does."""
    if name.host.lower() == DEFAULT_REGISTRY:
        return list(LIBRARY)
    found: list[str] = []
    for path, key in (
        (f"/v2/{name.repository}/tags/list", "tags"),
        ("/v2/_catalog", "repositories"),
    ):
        try:
            answer = asker.get(origin, path, {})
            rows = answer.json()[key] if answer.status_code == 200 else ()
        except (_Unreachable, ValueError, LookupError, TypeError):
            continue
        for row in rows or ():
            text = f"{name.repository}:{row}" if key == "tags" else str(row)
            try:
                found.append(str(Name.parse(f"{name.host}/{text}")))
            except ValueError:
                continue
    return found


def nearest(name: Name, known: Iterable[str]) -> tuple[str, ...]:
    """The names that are most like one, the likest first; only those that are like it at all.

    >>> nearest(Name.parse("lama3.2"), ["mistral", "llama3.2"])
    ('llama3.2',)
    """
    wanted = str(name)

    def likeness(candidate: str) -> float:
        # A name without a tag is compared with the name, not with its tag.
        against = wanted if ":" in candidate.rpartition("/")[2] else wanted.rpartition(":")[0]
        return SequenceMatcher(None, against.lower(), candidate.lower()).ratio()

    scored = {one: likeness(one) for one in dict.fromkeys(known) if one != wanted}
    close = [one for one, score in scored.items() if score >= 0.7]
    return tuple(sorted(close, key=lambda one: (-scored[one], one))[:NEAREST])


class _Asker:
    """The connections to registries, kept for all questions of one time."""

    def __init__(self, host: Host, stack: ExitStack, server: Server | None, timeout: float) -> None:
        self._host = host
        self._stack = stack
        self._server = server
        self._timeout = timeout
        #: How often one thing is asked for; once is enough where patience was in vain before.
        self.attempts = ATTEMPTS
        self._clients: dict[_Origin, httpx.Client] = {}
        self._tokens: dict[tuple[_Origin, str], str] = {}
        self._trusted: ssl.SSLContext | None = None

    def get(self, origin: _Origin, path: str, headers: Mapping[str, str]) -> httpx.Response:
        """The answer to a request, redirections followed and a token fetched where one is asked.

        :raises _Unreachable: there is none.
        """
        again = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=_wait,
            retry=retry_if_exception_type(_Busy),
            reraise=True,
        )
        answer: httpx.Response = again(self._get, origin, path, dict(headers))
        return answer

    def _get(self, origin: _Origin, path: str, headers: dict[str, str]) -> httpx.Response:
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

    def _once(self, origin: _Origin, path: str, headers: Mapping[str, str]) -> httpx.Response:
        try:
            return self._client(origin).get(path, headers=headers)
        except connection.HTTPError as error:
            failed = error
        if connection.layer(failed) == "tls" and self._trust_more(origin):
            try:
                return self._client(origin).get(path, headers=headers)
            except connection.HTTPError as error:
                failed = error
        raise self._reason(origin, failed) from failed

    def _client(self, origin: _Origin) -> httpx.Client:
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

    def _reason(self, origin: _Origin, error: httpx.HTTPError) -> _Unreachable:
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
        return _Busy(f"{origin} does not answer: {said}")

    def _resolves(self, address: str) -> bool:
        """Whether the host knows an address of a name: a server that forwards does not tell."""
        look = script("ops.checks", "attempt", "resolve", "5", address)
        return connection.run(self._host, look, readonly=True, timeout=20).status != _NO_NAME

    def _trust_more(self, origin: _Origin) -> bool:
        """Trust what the model server trusts; whether that is something new."""
        if self._trusted is not None or self._server is None:
            return False
        read = script("ops.models", "trust", self._server.container)
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
        realm = urljoin(_url(origin, "/"), fields["realm"])
        realm += ("&" if "?" in realm else "?") + urlencode(query)
        try:
            answer = self._once(*_split(realm), {})
            given = answer.json()
            token = given.get("token") or given.get("access_token")
        except (ValueError, AttributeError):
            return None
        return f"Bearer {token}" if answer.status_code == 200 and token else None


def _wait(state: RetryCallState) -> float:
    """What the registry says, else a little more each time."""
    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, _Busy) else None
    return float(min(after if after is not None else 2.0 ** (state.attempt_number - 1), PATIENCE))


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() else None


def _url(origin: _Origin, path: str) -> str:
    address = f"[{origin.address}]" if ":" in origin.address else origin.address
    return f"{'https' if origin.tls else 'http'}://{address}:{origin.port}{path}"


def _split(url: str) -> tuple[_Origin, str]:
    """Where a URL leads.

    :raises ValueError: it is none of HTTP.
    """
    parts: Any = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a registry")
    tls = parts.scheme == "https"
    origin = _Origin(tls, parts.hostname, parts.port or (443 if tls else 80))
    return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
