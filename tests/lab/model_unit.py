"""The model server on a lab host as a unit of systemd, without a container."""

from __future__ import annotations

from collections.abc import Sequence

from tests.lab.hosts import LabHost
from tests.lab.model_server import ModelServer

PORT = 11888

#: The lab's server as a process of the host's own: the image's files, out of the image. Its own
#: program would give up its name to Python; one of Ollama's is called `ollama serve`.
_INSTALL = """\
set -e
docker create --name source lab/model:1 >/dev/null
mkdir -p /srv/model/lib
docker export source | tar -x -C /srv/model opt root usr/lib
docker rm source >/dev/null
mv /srv/model/usr/lib/x86_64-linux-gnu/lib{{gomp,stdc++}}.so* /srv/model/lib
cat >/srv/model/serve <<'ENDS'
import os
from pathlib import Path
from server.app import serve
serve("127.0.0.1", {port}, Path(os.environ["OLLAMA_MODELS"]))
ENDS
cat >/etc/systemd/system/model.service <<'ENDS'
[Service]
Environment=OLLAMA_MODELS={models} OLLAMA_HOST=127.0.0.1:{port}
Environment=PYTHONPATH=/srv/model/usr/lib/python3/dist-packages:/srv/model/opt/ollama
Environment=LD_LIBRARY_PATH=/srv/model/lib
ExecStartPre=sh -c 'mkdir -p {models} && cp -an /srv/model/root/.ollama/models/. {models}'
ExecStart=/usr/bin/python3 /srv/model/serve ollama serve
{settings}
ENDS
systemctl daemon-reload
systemctl restart model
"""


class ModelUnit(ModelServer):
    """A unit with the model server in it.

    + host: where
    + models: the directory of its models, as the unit sees it
    + settings: further lines of its ``[Service]``
    """

    address = f"127.0.0.1:{PORT}"
    endpoint = f"http://{address}"

    def __init__(self, host: LabHost, models: str, settings: Sequence[str] = ()) -> None:
        super().__init__(host)
        self._models, self._settings = models, settings

    def up(self) -> None:
        """Install and start it, and wait until it answers."""
        lines = "\n".join(self._settings)
        self.host.sh(_INSTALL.format(port=PORT, models=self._models, settings=lines), timeout=120)
        self.host.wait_for(f"curl -sf {self.endpoint}/api/version", 60)

    def down(self) -> None:
        """Remove it, and what it has."""
        self.host.sh(
            "systemctl stop model; systemctl revert model; "
            f"rm -rf /srv/model {self._models} /etc/systemd/system/model.service"
        )

    @property
    def root(self) -> str:
        """Where its models lie, as the unit itself sees them."""
        process = self.host.sh("systemctl show -P MainPID model").strip()
        return f"/proc/{process}/root{self._models}"
