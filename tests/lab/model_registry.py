"""A registry of models that serves a pull as Ollama's does, logs it, and fails on demand.

Each test process has one of its own. Every host of the lab, and every container in one, reaches it
as ``registry-1.models.lab:5000`` (plain HTTP) and ``registry-1.models.lab:5443`` (a certificate of
its own CA). With dots in it: a name without any is one that an engine looks for among its own
containers only.

>>> registry.push("team/tiny:1", size=3_000_000, seed=7).digest      # a model that can be asked
'5ef1…'
>>> registry.fault("team/tiny:1", "cut", at=1_000_000)               # once, after a million bytes
>>> [request.status for request in registry.log() if request.on == "storage"]
[206, 206]
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab import images
from tests.lab.engine import LabUnavailable, OuterCommandError, docker, outer
from tests.lab.paths import HOME_LABEL, LABEL, LEASES, PREFIX, PROJECT, VAR

MAX_REGISTRIES = 16

Kind = Literal["cut", "reset", "stall", "mismatch", "status"]
Where = Literal["manifest", "blob", "storage"]


@dataclass(frozen=True)
class Layer:
    """A layer of a model, or its config.

    + media_type: such as ``application/vnd.ollama.image.model``
    + digest: ``sha256:…``
    + size: in bytes
    """

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True)
class Pushed:
    """A model as the registry has it.

    + name: ``namespace/model:tag``
    + digest: of its manifest, in hex, as ``/api/tags`` shows it
    + layers: the config last
    + manifest: its bytes as text
    """

    name: str
    digest: str
    layers: tuple[Layer, ...]
    manifest: str

    @property
    def size(self) -> int:
        """Bytes of the config and all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def weights(self) -> Layer:
        """The layer that is the model."""
        return next(layer for layer in self.layers if layer.media_type.endswith("image.model"))


@dataclass(frozen=True)
class Request:
    """A request that the registry was asked.

    + model: ``namespace/model:tag`` of a manifest, ``namespace/model`` of a blob
    + on: ``manifest``, ``blob`` (where its content is), ``storage`` (its content), or nothing
    + range: the header, or nothing
    + status: of the answer; 0 where none has been begun
    + sent: bytes of a blob's content
    + peer: the address it came from
    + begun: seconds since 1970
    """

    method: str
    path: str
    model: str
    on: str
    range: str
    status: int
    sent: int
    peer: str
    begun: float


class ModelRegistry:
    """A registry of models.

    + number: tells it from those of other processes
    """

    def __init__(self, number: int) -> None:
        name = f"model-registry-{number}"
        self._container = f"{PREFIX}-{name}"
        self._tls = VAR / name
        # The content of a blob is at another name than the registry: the real one's is, too.
        self._aliases = tuple(f"{what}-{number}.models.lab" for what in ("registry", "storage"))
        self._ports: dict[int, int] = {}

    @property
    def http(self) -> str:
        """``host:port`` of plain HTTP, as hosts and the containers in them reach it."""
        return f"{self._aliases[0]}:5000"

    @property
    def https(self) -> str:
        """The same of TLS."""
        return f"{self._aliases[0]}:5443"

    @property
    def outer(self) -> str:
        """``host:port`` of plain HTTP, as this machine reaches it."""
        return f"127.0.0.1:{self._port(5000)}"

    @property
    def outer_https(self) -> str:
        """The same of TLS."""
        return f"127.0.0.1:{self._port(5443)}"

    @property
    def ca(self) -> bytes:
        """The certificate of the CA that signed the registry's, as PEM."""
        return (self._tls / "ca.pem").read_bytes()

    def push(self, name: str, size: int | None = None, seed: int = 0) -> Pushed:
        """Make a model that can be loaded and asked, moving the tag if it is there.

        + name: ``namespace/model:tag``
        + size: bytes of its weights at least; the tiny model is about half a million
        + seed: models of different seeds share nothing but their template
        """
        said = self._ask("push", name=name, size=size, seed=seed)
        layers = tuple(
            Layer(layer["mediaType"], layer["digest"], layer["size"]) for layer in said["layers"]
        )
        return Pushed(name, said["digest"], layers, said["manifest"])

    def remove(self, name: str) -> None:
        """Forget a tag, and the blobs that no other needs."""
        self._ask("remove", name=name)

    def fault(
        self,
        target: str,
        kind: Kind,
        *,
        at: int = 0,
        times: int | None = 1,
        status: int = 0,
        body: str = "",
        on: Where = "storage",
    ) -> None:
        """Let something go wrong.

        + target: ``namespace/model:tag`` or a digest; where a blob is meant, a model is its weights
        + kind: ``cut`` ends the answer after so many bytes of the blob, ``reset`` breaks the
            connection, ``stall`` sends no more and waits, ``mismatch`` flips the byte there,
            ``status`` answers `status` and `body`
        + at: the byte of the blob; each cut or stall is for requests whose range holds it
        + times: how often; None is until `clear`
        + on: which request: for the manifest, for where a blob is and its size, or for its content
        """
        self._ask(
            "fault", target=target, on=on, kind=kind, at=at, times=times, status=status, body=body
        )

    def rate(self, bytes_per_second: float | None, target: str = "") -> None:
        """Send slowly, each request by itself; None is as fast as it goes.

        + target: a model or digest; everything else where it is empty
        """
        self._ask("rate", rate=bytes_per_second, target=target)

    def private(self, repository: str, how: Literal["token", "denied"]) -> None:
        """Let a repository (``namespace/model``) ask for a token, which anyone gets; or for one
        that nobody has."""
        self._ask("private", repository=repository, how=how)

    def clear(self) -> None:
        """Let all be well: no faults, no limits, nothing private; stalls end."""
        self._ask("clear")

    def log(self) -> list[Request]:
        """The requests since the start or `clear_log`, the first first."""
        with self._client() as client:
            return [Request(**said) for said in client.get("log").raise_for_status().json()]

    def sent(self) -> int:
        """Bytes of blobs that were sent since the start or `clear_log`."""
        return sum(request.sent for request in self.log())

    def clear_log(self) -> None:
        """Begin the log anew."""
        self._ask("forget")

    def stop(self) -> None:
        """Be gone: its name resolves no more. What was logged is lost."""
        docker("stop", "-t", "0", self._container)

    def start(self) -> None:
        """Answer again, with what was pushed before."""
        docker("start", self._container)
        self._wait()

    def pause(self) -> None:
        """Accept connections and never answer them."""
        docker("pause", self._container)

    def unpause(self) -> None:
        """End `pause`."""
        docker("unpause", self._container)

    def reset(self) -> None:
        """Make it run, answer, and hold nothing."""
        ref = images.build(["model-registry"])["model-registry"]
        _make_certificates(self._tls, self._aliases)
        self.remove_container()
        docker(
            "run",
            "-d",
            "--name",
            self._container,
            "--network",
            PREFIX,
            *(part for alias in self._aliases for part in ("--network-alias", alias)),
            "-p",
            "127.0.0.1::5000",
            "-p",
            "127.0.0.1::5443",
            "-v",
            f"{self._tls}:/tls:ro",
            "--label",
            LABEL,
            "--label",
            f"{HOME_LABEL}={PROJECT}",
            ref,
        )
        self._wait()

    def remove_container(self) -> None:
        """Be gone, and all that it had."""
        outer("docker", "rm", "-f", "-v", self._container, check=False)

    def _port(self, inside: int) -> int:
        if inside not in self._ports:
            shown = docker("port", self._container, f"{inside}/tcp")
            self._ports[inside] = int(shown.splitlines()[0].rpartition(":")[2])
        return self._ports[inside]

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.outer}/_lab/", timeout=60, trust_env=False)

    def _ask(self, what: str, **said: Any) -> Any:
        with self._client() as client:
            return client.post(what, content=json.dumps(said)).raise_for_status().json()

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        # A container that was started again is published elsewhere.
        self._ports.clear()
        while True:
            try:
                self.log()
            except (httpx.HTTPError, OuterCommandError, IndexError):
                if time.monotonic() > deadline:
                    raise LabUnavailable("the registry of models does not answer") from None
                time.sleep(0.1)
            else:
                return


@contextlib.contextmanager
def lease() -> Iterator[ModelRegistry]:
    """Hold a registry that nobody else holds, empty and answering."""
    LEASES.mkdir(parents=True, exist_ok=True)
    for number in range(1, MAX_REGISTRIES + 1):
        with (LEASES / f"model-registry-{number}").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            registry = ModelRegistry(number)
            try:
                registry.reset()
                yield registry
            finally:
                registry.remove_container()
            return
    raise LabUnavailable(f"all {MAX_REGISTRIES} registries of models are held by others")


def _make_certificates(directory: Path, aliases: Sequence[str]) -> None:
    """Make a CA, and a certificate of a registry's names."""
    directory.mkdir(parents=True, exist_ok=True)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stackmend lab CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, aliases[0])])
    names = [x509.DNSName(text) for text in (*aliases, "localhost")]
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    ca = (
        _certificate(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        .add_extension(_SIGNS, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    own = (
        _certificate(name, ca_name, key)
        .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write(directory / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(directory / "server.pem", private + own.public_bytes(serialization.Encoding.PEM))


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
    )


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
