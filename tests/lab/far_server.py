"""The outside world of one lab host, run in a network namespace of its own: DNS, TLS, HTTP, SSH.

``python3 far_server.py DIRECTORY`` with the certificates. What it does depends on the address that
it is spoken to at, so that one program is every kind of far side. Standard library alone.
"""

import contextlib
import email.utils
import socket
import ssl
import struct
import sys
import threading
import time

NETWORK = "192.0.2"

#: What each address does, by its last number; see `serve`.
MODES = {
    10: "well",
    11: "fin",
    12: "reset",
    13: "tls-fin",
    14: "tls-reset",
    15: "auth",
    16: "portal",
    17: "limited",
    18: "broken",
    19: "silent",
    20: "well",
    21: "early",
    22: "late",
    23: "foreign",
    24: "moved",
    25: "well",
    26: "well",
    27: "well",
    28: "well",
    30: "proxy",
    31: "hub",
    32: "well",
    33: "well",
    34: "fin-after-head",
    35: "page",
    38: "garbage",
}
#: Ports of 36 with the short queue of a small server, which serves one after another; and that of
#: 37, which accepts nothing.
SHORT, HUNG = range(8001, 8009), 8000
#: What each DNS server does.
SERVERS = {
    53: "good",
    54: "good",
    55: "absent",
    56: "silent",
    57: "failing",
    58: "stale",
    59: "denied",
}
#: Names with an IPv6 address.
SIX = {"six": "fd00:2::10", "dead-six": "fd00:2::66"}


def addresses(name):
    label = name.removesuffix(".far.test")
    if label in ("six", "dead-six"):
        return ["192.0.2.10"]
    return [f"{NETWORK}.{label[1:]}"] if label[:1] == "h" and label[1:].isdigit() else []


def answer_dns(data, mode):
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += data[at] + 1
    question = data[12 : at + 5]
    (kind,) = struct.unpack(">H", data[at + 1 : at + 3])
    name = ".".join(labels).lower()
    if mode == "silent":
        return None
    found, code = [], 0
    if mode == "absent" or not name.endswith(".far.test"):
        code = 3
    elif mode == "failing":
        code = 2
    elif mode == "denied":
        code = 5
    elif mode == "stale" and kind == 1:
        found = [socket.inet_aton(f"{NETWORK}.99")]
    elif kind == 1:
        found = [socket.inet_aton(address) for address in addresses(name)]
    elif kind == 28 and name.removesuffix(".far.test") in SIX:
        found = [socket.inet_pton(socket.AF_INET6, SIX[name.removesuffix(".far.test")])]
    if not code and not addresses(name):
        code = 3
    head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
    rows = [struct.pack(">HHHIH", 0xC00C, kind, 1, 1, len(one)) + one for one in found]
    return head + question + b"".join(rows)


def serve_udp(last, mode):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((f"{NETWORK}.{last}", 53))
    while True:
        try:
            data, peer = s.recvfrom(4096)
            if reply := answer_dns(data, mode):
                s.sendto(reply, peer)
        except (OSError, IndexError):
            pass


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def respond(s, status, body=b"", **headers):
    fields = {"Date": email.utils.formatdate(usegmt=True), "Content-Length": len(body)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} x", *(f"{k}: {v}" for k, v in fields.items()), "Connection: close"]
    s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


#: What HTTP answers, by mode: status, body, headers.
HTML = {"Content_Type": "text/html"}
ANSWERS = {
    "auth": (407, b"", {"Proxy_Authenticate": 'Basic realm="far"'}),
    "proxy": (407, b"", {"Proxy_Authenticate": 'Basic realm="far"'}),
    "portal": (200, b"<html>log in</html>", HTML),
    "moved": (302, b"", {**HTML, "Location": "http://login.far.test/"}),
    "limited": (429, b"toomanyrequests", {"Retry_After": "77", "RateLimit_Remaining": "0;w=21600"}),
    "broken": (503, b"", {}),
}
REALM = 'Bearer realm="https://h31.far.test/token",service="far.test"'


def serve(s, last, port, contexts):
    mode = MODES.get(last, "well")
    if mode == "fin":
        # Unread bytes would make a RST of it.
        s.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            s.recv(4096)
    elif mode == "reset":
        reset(s)
    elif mode == "garbage":
        s.sendall(b"220 far.test ready\r\n")
        time.sleep(0.5)
    elif port == 22:
        s.sendall(b"SSH-2.0-far\r\n")
    else:
        if port == 443:
            kind = mode if mode in contexts else "well"
            s = contexts[kind].wrap_socket(s, server_side=True)
        data = b""
        while b"\r\n\r\n" not in data:
            part = s.recv(4096)
            if not part:
                return
            data += part
        answer_http(s, mode, data)


def answer_http(s, mode, data):
    path = data.decode("latin-1").split(" ")[1]
    if mode in ANSWERS:
        status, body, headers = ANSWERS[mode]
        respond(s, status, body, **headers)
    elif mode == "tls-reset":
        reset(socket.socket(fileno=s.detach()))
    elif mode == "silent":
        time.sleep(30)
    elif mode == "fin-after-head":
        s.sendall(b"HTTP/1.1 200 x\r\nContent-Length: 9000\r\n\r\nshort")
    elif mode == "early":
        respond(s, 200, Date=email.utils.formatdate(time.time() + 86400 * 30, usegmt=True))
    elif mode == "hub" and path.startswith("/token"):
        respond(s, 200, b'{"token": "t0ken"}', Content_Type="application/json")
    elif mode == "hub" and "manifests" in path and b"Authorization: Bearer t0ken" in data:
        limits = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": "0;w=21600"}
        respond(s, 200, **limits)
    elif path.startswith("/v2"):
        more = {"WWW_Authenticate": REALM} if mode == "hub" else {}
        respond(s, 401, Docker_Distribution_Api_Version="registry/2.0", **more)
    elif mode != "tls-fin":
        status = 204 if path == "/204" else 200
        respond(s, status, b"x" * {"/204": 0, "/large": 100000}.get(path, 10))


def guarded(s, contexts):
    with s:
        s.settimeout(30)
        address, port = s.getsockname()[:2]
        last = 10 if ":" in address and "." not in address else int(address.rpartition(".")[2])
        with contextlib.suppress(OSError, ValueError):
            serve(s, last, port, contexts)


def accept(listener, contexts):
    while True:
        try:
            s, _ = listener.accept()
        except OSError:
            continue
        threading.Thread(target=guarded, args=(s, contexts), daemon=True).start()


def accept_slowly(listener, contexts):
    while True:
        s, _ = listener.accept()
        time.sleep(0.02)
        guarded(s, contexts)


def main(directory):
    contexts = {}
    for kind in ("well", "early", "late", "foreign"):
        contexts[kind] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[kind].load_cert_chain(f"{directory}/{kind}.pem")
    for port in (443, 80, 22, 3128):
        listener = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=30000
        )
        threading.Thread(target=accept, args=(listener, contexts), daemon=True).start()
    hung = socket.create_server((f"{NETWORK}.37", HUNG), backlog=5)
    for port in SHORT:
        listener = socket.create_server((f"{NETWORK}.36", port), backlog=5)
        threading.Thread(target=accept_slowly, args=(listener, contexts), daemon=True).start()
    for last, mode in SERVERS.items():
        threading.Thread(target=serve_udp, args=(last, mode), daemon=True).start()
        if last in (53, 54):
            listener = socket.create_server((f"{NETWORK}.{last}", 53), backlog=100)
            threading.Thread(target=accept, args=(listener, contexts), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()
    hung.close()


if __name__ == "__main__":
    main(sys.argv[1])
