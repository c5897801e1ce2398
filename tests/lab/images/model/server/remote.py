"""A registry of models, asked as Ollama asks it; what goes wrong is said in Go's words."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from server.library import MANIFEST_TYPE, Name

MOST_REDIRECTS = 10


class RemoteError(Exception):
    """What was asked of a registry did not succeed; says why."""


class Absent(RemoteError):
    """The registry does not have it."""

    def __init__(self) -> None:
        super().__init__("file does not exist")


def client() -> httpx.AsyncClient:
    """Return a client that trusts whom the system trusts, and knows the environment's proxies.

    SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's, and Go's too.
    """
    timeout = httpx.Timeout(None, connect=30)
    return httpx.AsyncClient(verify=ssl.create_default_context(), timeout=timeout)


@dataclass
class Remote:
    """One repository of a registry.

    + client: by which it is asked
    + name: of the model
    + insecure: plain HTTP instead of HTTPS
    + token: that the registry has given us
    """

    client: httpx.AsyncClient
    name: Name
    insecure: bool = False
    token: str = ""

    @property
    def _base(self) -> str:
        scheme = "http" if self.insecure else "https"
        return f"{scheme}://{self.name.host}/v2/{self.name.namespace}/{self.name.model}/"

    async def manifest(self) -> bytes:
        """Return the manifest, as it is. Raises `RemoteError`."""
        path = f"manifests/{self.name.tag}"
        response = await self.request("GET", path, headers={"Accept": MANIFEST_TYPE})
        return response.content

    async def location(self, path: str) -> str:
        """Return where a blob's content is: the answer must say it. Raises `RemoteError`."""
        response = await self.request("GET", path, away=False)
        if response.status_code not in (200, 307):
            raise RemoteError(f"unexpected status code {response.status_code}")
        if "location" not in response.headers:
            raise RemoteError("http: no Location header in response")
        return urljoin(str(response.url), response.headers["location"])

    async def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, away: bool = True
    ) -> httpx.Response:
        """Ask, with a token where one is wanted. Raises `RemoteError`.

        + path: below the repository
        + away: whether to follow a redirection to another host
        """
        for _ in range(2):
            response = await self._once(method, self._base + path, headers or {}, away=away)
            if response.status_code == 401:
                await self._authorize(response.headers.get("www-authenticate", ""))
            elif response.status_code == 404:
                raise Absent
            elif response.status_code >= 400:
                raise RemoteError(f"{response.status_code}: {response.text}")
            else:
                return response
        raise RemoteError("unauthorized: access denied")

    async def _once(
        self, method: str, url: str, headers: dict[str, str], *, away: bool
    ) -> httpx.Response:
        given = {**headers, "Accept-Encoding": "identity", "User-Agent": "ollama/0.24.0 (lab)"}
        if self.token:
            given["Authorization"] = f"Bearer {self.token}"
        first = urlsplit(url).hostname
        for _ in range(MOST_REDIRECTS):
            try:
                request = self.client.build_request(method, url, headers=given)
                response = await self.client.send(request, stream=True)
                try:
                    # Where a blob lies is all that is wanted of it here, not the blob.
                    if away or response.status_code >= 400:
                        await response.aread()
                finally:
                    await response.aclose()
            except httpx.TransportError as error:
                raise RemoteError(await explained(method.title(), url, error)) from None
            if not response.is_redirect:
                return response
            url = urljoin(url, response.headers["location"])
            if not away and urlsplit(url).hostname != first:
                return response
        raise RemoteError(f"stopped after {MOST_REDIRECTS} redirects")

    async def _authorize(self, challenge: str) -> None:
        realm, service, scope = (
            (re.search(f'{key}="([^"]*)"', challenge) or ("", ""))[1]
            for key in ("realm", "service", "scope")
        )
        host = urlsplit(realm).netloc
        if host != self.name.host:
            raise RemoteError(
                f'realm host "{host}" does not match original host "{self.name.host}"'
            )
        try:
            response = await self.client.get(realm, params={"service": service, "scope": scope})
        except httpx.TransportError as error:
            raise RemoteError(await explained("Get", realm, error)) from None
        if response.status_code >= 400:
            raise RemoteError(f"{response.status_code}: {response.text}".removesuffix(": "))
        self.token = response.json()["token"]


async def explained(method: str, url: str, error: httpx.TransportError) -> str:
    """Say why a request got no answer, as Go's client does: `Get "http://…": dial tcp …`."""
    return f'{method} "{url}": {await _why(url, error)}'


async def _why(url: str, error: httpx.TransportError) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if isinstance(error, httpx.ConnectTimeout):
        return f"dial tcp {host}:{port}: i/o timeout"
    if not isinstance(error, httpx.ConnectError):
        closed = isinstance(error, httpx.RemoteProtocolError)
        return "EOF" if closed else "read: connection reset by peer"
    if found := _of_tls(error):
        return found
    loop = asyncio.get_running_loop()
    try:
        ((*_, address), *_) = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return f"dial tcp: lookup {host} on {_resolver()}:53: no such host"
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*address[:2]), 5)
    except TimeoutError:
        return f"dial tcp {address[0]}:{port}: i/o timeout"
    except OSError as problem:
        reason = "no route to host" if problem.errno == 113 else "connection refused"
        return f"dial tcp {address[0]}:{port}: connect: {reason}"
    writer.close()
    return "EOF"


def _of_tls(error: BaseException | None) -> str | None:
    seen = error
    while seen is not None and not isinstance(seen, ssl.SSLError):
        seen = seen.__cause__ or seen.__context__
    if seen is None:
        return None
    if isinstance(seen, ssl.SSLCertVerificationError):
        reason = "certificate signed by unknown authority"
        if "mismatch" in seen.verify_message or "not valid for" in seen.verify_message:
            reason = f"certificate is not valid for this name: {seen.verify_message}"
        elif "expired" in seen.verify_message:
            reason = "certificate has expired or is not yet valid"
        return f"tls: failed to verify certificate: x509: {reason}"
    if seen.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return "http: server gave HTTP response to HTTPS client"
    return f"remote error: tls: {seen.reason}"


def _resolver() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text().splitlines():
            if line.startswith("nameserver "):
                return line.split()[1]
    return "127.0.0.1"
