"""The metrics on disk, for the textfile collector of Prometheus' node exporter.

https://github.com/prometheus/node_exporter#textfile-collector: a ``.prom`` file, complete at any
moment, without timestamps. What it is made from lies hidden beside it, so that counts go on.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stackmend import controller_files
from stackmend.answers import read_json

if TYPE_CHECKING:
    from stackmend.reporting.metrics import History
    from stackmend.reporting.state import RunRecord

#: Bytes of what is known of very many hosts.
MAXIMUM = 16 * 1024**2

#: The node exporter reads it as another user; it holds nothing that only some may know.
MODE = 0o644


def write(path: Path, record: RunRecord, inventory: Collection[str]) -> None:
    """Add a run to the metrics of a file.

    :param path: the ``.prom`` file; its directory has to be there.
    :param record: the run, without secrets.
    :param inventory: the names of all hosts of the inventory, also of those that the run left out.
    :raises OSError: it cannot be written, or another run keeps it for fifteen seconds.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    from stackmend.reporting import files, metrics

    if not path.parent.is_dir():
        raise NotADirectoryError(f"there is no directory {path.parent}")
    kept = path.with_name(f".{path.name}.json")
    with files.lock(path):
        history = metrics.update(_read(kept), record, inventory)
        files.write_json(kept, history.model_dump(mode="json"))
        registry = CollectorRegistry()
        registry.register(metrics.Families(history, version("stackmend")))
        files.write(path, generate_latest(registry), MODE)


def _read(path: Path) -> History:
    """What is known; nothing where the file is none of ours: the counts begin again."""
    from stackmend.reporting.metrics import History

    try:
        return History.model_validate(read_json(controller_files.read(path, MAXIMUM), MAXIMUM))
    except ValueError:
        return History()
