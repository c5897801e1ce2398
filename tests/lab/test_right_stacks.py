"""The right stacks of ``tests/unit/right_stacks`` are what Docker Compose itself makes of them.

``UPDATE_GOLDEN=1 pytest`` records them anew.
"""

from __future__ import annotations

import io
import json
import os
import tarfile

from tests.lab.fixtures import Lab
from tests.unit.addresses_world import RIGHT, read_resolved

_RESOLVE = """
mkdir -p /opt/right && cd /opt/right && tar -xf - && for name in *; do
  cd "/opt/right/$name" && docker compose -p right config --format json 2>/dev/null | tr -d '\\n'
  echo
done
"""


def test_compose_still_resolves_them_so(lab: Lab) -> None:
    (host,) = lab.take(1)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in RIGHT:
            tar.add(path, path.name)
    done = host.run(_RESOLVE, stdin=archive.getvalue(), timeout=300)
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(RIGHT), done.stderr.decode()
    for path, line in zip(RIGHT, lines, strict=True):
        resolved = json.loads(line)
        if os.environ.get("UPDATE_GOLDEN"):
            text = json.dumps(resolved, indent=1, sort_keys=True, ensure_ascii=False)
            (path / "resolved.json").write_text(text + "\n", encoding="utf-8")
        assert resolved == read_resolved(path), path.name
