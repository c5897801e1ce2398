"""DNS servers of the lab: UDP and TCP at each address given, as /var/lib/lab-dns/ADDRESS says.

That file holds lines ``NAME ADDRESS`` (A records; others are NXDOMAIN), and one of the words
``dead`` (no answer), ``lies`` (NXDOMAIN for everything), ``hijacks`` (an address for everything).
Each question is written to /run/lab-dns/ADDRESS.
"""

import selectors
import socket
import struct
import sys
from pathlib import Path

DATA, LOG = Path("/var/lib/lab-dns"), Path("/run/lab-dns")


def lookup(server, name):
    try:
        lines = [line.split() for line in (DATA / server).read_text().splitlines() if line.strip()]
    except OSError:
        return None
    words = {line[0] for line in lines if len(line) == 1}
    if "dead" in words:
        return None
    if "lies" in words:
        return []
    if "hijacks" in words:
        return ["192.0.2.99"]
    return [line[1] for line in lines if len(line) == 2 and line[0] == name]


def answer(server, query):
    position, labels = 12, []
    while query[position]:
        length = query[position]
        labels.append(query[position + 1 : position + 1 + length].decode())
        position += 1 + length
    name = ".".join(labels).lower()
    kind = struct.unpack(">H", query[position + 1 : position + 3])[0]
    with (LOG / server).open("a") as file:
        file.write(f"{name} {kind}\n")
    found = lookup(server, name)
    if found is None:
        return None
    records = found if kind == 1 else []
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | (0 if found else 3), 1, len(records), 0, 0)
    body = query[12 : position + 5]
    for address in records:
        body += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 3600, 4) + socket.inet_aton(address)
    return head + body


def main():
    selector = selectors.DefaultSelector()
    for address in sys.argv[1:]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (udp, tcp):
            sock.bind((address, 53))
        tcp.listen()
        selector.register(udp, selectors.EVENT_READ, address)
        selector.register(tcp, selectors.EVENT_READ, address)
    while True:
        for key, _ in selector.select():
            sock, server = key.fileobj, key.data
            try:
                if sock.type == socket.SOCK_DGRAM:
                    query, peer = sock.recvfrom(4096)
                    if reply := answer(server, query):
                        sock.sendto(reply, peer)
                else:
                    link, _ = sock.accept()
                    link.settimeout(1)
                    with link:
                        query = link.recv(4096)[2:]
                        if reply := answer(server, query):
                            link.sendall(struct.pack(">H", len(reply)) + reply)
            except (OSError, IndexError, ValueError):
                continue


main()
