"""TLS over a host's connection, against servers that speak it and servers that do not."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stackmend.connection import find_layer, http, is_silent
from tests.connected import local

BODY = bytes(range(256)) * 4096


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def do_POST(self) -> None:
        given = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(given)))
        self.end_headers()
        self.wfile.write(given)

    def log_message(self, *_: object) -> None:
        pass


def certificate(directory: Path, *names: str) -> Path:
    """A key and a certificate that it has signed itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.UTC)
    others: list[x509.GeneralName] = []
    for one in names:
        with contextlib.suppress(ValueError):
            others.append(x509.IPAddress(ipaddress.ip_address(one)))
            continue
        others.append(x509.DNSName(one))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(others), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{'-'.join(names)}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextlib.contextmanager
def served(tls: Path | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        # In the connection's own thread, so that a failed handshake ends that connection alone.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def peer(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that accepts one connection and does something of its own with it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as one:
                behave(one)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
    thread.join(5)


def trusting(path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(path))


def test_what_is_sent_and_received_is_what_was_meant(tmp_path: Path) -> None:
    known = certificate(tmp_path, "127.0.0.1")
    with (
        served(known) as port,
        local() as host,
        http(host, "127.0.0.1", port, tls=trusting(known)) as client,
    ):
        assert str(client.base_url).startswith("https://")
        assert client.get("/").content == BODY
        assert client.post("/", content=BODY).content == BODY


def test_one_connection_serves_many_requests(tmp_path: Path) -> None:
    known = certificate(tmp_path, "127.0.0.1")
    with (
        served(known) as port,
        local() as host,
        http(host, "127.0.0.1", port, tls=trusting(known)) as client,
    ):
        ports = {
            client.get("/").extensions["network_stream"].get_extra_info("ssl_object")
            for _ in range(5)
        }
    assert len(ports) == 1


def failed(port: int, address: str = "127.0.0.1", **options: object) -> httpx.HTTPError:
    with (
        local() as host,
        http(host, address, port, timeout=2, **options) as client,  # type: ignore[arg-type]
        pytest.raises(httpx.HTTPError) as caught,
    ):
        client.get("/")
    return caught.value


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with served(certificate(tmp_path, "127.0.0.1")) as port:
        error = failed(port, tls=True)
    assert isinstance(error, httpx.ConnectError)
    assert find_layer(error) == "tls"
    assert "self-signed certificate" in str(error)


def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    known = certificate(tmp_path, "elsewhere.test")
    with served(known) as port:
        error = failed(port, tls=trusting(known))
    assert find_layer(error) == "tls"
    assert "127.0.0.1" in str(error)


def test_a_server_without_tls_is_told(tmp_path: Path) -> None:
    with served() as port:
        error = failed(port, tls=True)
    assert find_layer(error) == "tls"


def closes(one: socket.socket) -> None:
    one.recv(1)


def keeps_silent(one: socket.socket) -> None:
    while one.recv(100_000):
        pass


@pytest.mark.parametrize("behave", [closes, keeps_silent])
def test_a_handshake_that_never_ends_is_tls(behave: Callable[[socket.socket], None]) -> None:
    with peer(behave) as port:
        error = failed(port, tls=True)
    assert find_layer(error) == "tls"
    assert is_silent(error) == (behave is keeps_silent)


@pytest.mark.parametrize("behave", [closes, keeps_silent])
def test_silence_is_told_from_an_end(behave: Callable[[socket.socket], None]) -> None:
    with peer(behave) as port:
        error = failed(port)
    assert find_layer(error) == "http"
    assert is_silent(error) == (behave is keeps_silent)


def test_a_port_where_nobody_listens_is_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert find_layer(failed(port)) == "connect"
    assert find_layer(failed(port, tls=True)) == "connect"


def test_a_name_without_an_address_is_name() -> None:
    assert find_layer(failed(80, "nowhere.invalid")) == "name"


def test_an_answer_that_breaks_off_is_http() -> None:
    def half(one: socket.socket) -> None:
        one.recv(10_000)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    with peer(half) as port:
        assert find_layer(failed(port)) == "http"


def test_an_answer_that_breaks_off_within_tls_is_missed(tmp_path: Path) -> None:
    known = certificate(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known)

    def half(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as session:
            session.recv(10_000)
            session.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    with peer(half) as port:
        error = failed(port, tls=trusting(known))
    assert isinstance(error, httpx.RemoteProtocolError)
    assert find_layer(error) == "http"
