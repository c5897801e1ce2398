"""Serve: python -m registry DIRECTORY CERTIFICATE [HTTP-PORT HTTPS-PORT]"""

from __future__ import annotations

import os
import ssl
import sys
import threading
from pathlib import Path

from server.library import Library

from registry.routes import Server, State
from registry.store import Store

if __name__ == "__main__":
    directory, certificate, *ports = sys.argv[1:]
    plain, secure = (int(port) for port in ports or (5000, 5443))
    models = Path(os.environ.get("OLLAMA_MODELS") or "/root/.ollama/models")
    state = State(Store(Path(directory), Library(models)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    threading.Thread(target=Server(secure, state, context).serve_forever, daemon=True).start()
    Server(plain, state).serve_forever()
