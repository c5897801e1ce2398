"""What is thought of addresses, and written for them, by what Docker Compose makes of the files.

The right stacks of ``tests/unit/right_stacks`` are recorded with ``UPDATE_GOLDEN=1 pytest``.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import yaml

from stackmend.addresses import make_override
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.unit.addresses_world import RIGHT, findings, judge, read_files, read_resolved, unescape

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


WRONG = Path(__file__).parents[1] / "unit" / "wrong_stack"


def resolve(host: LabHost, files: dict[str, bytes]) -> dict[str, Any]:
    """What Compose makes of the files, an override of ours laid over them."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    over = "-f compose.stackmend.yaml" if "compose.stackmend.yaml" in files else ""
    done = host.run(
        "rm -rf /opt/wrong; mkdir /opt/wrong && cd /opt/wrong && tar -xf - && "
        f"docker compose -p wrong -f compose.yaml {over} config --format json",
        stdin=archive.getvalue(),
    )
    assert done.returncode == 0, done.stderr.decode()
    return dict(unescape(json.loads(done.stdout)))


def test_an_override_corrects_exactly_what_is_wrong(lab: Lab) -> None:
    (host,) = lab.hold(1)
    files = read_files(WRONG)
    before = resolve(host, files)
    override = make_override(judge(before), before, files)
    written = yaml.safe_load(override.content)["services"]
    text = override.content.decode()
    assert "s3cr" not in text
    assert "hunter2" not in text
    assert [left.subject for left in override.left] == ["cron.SECRET_DATABASE_URL"]
    after = resolve(host, files | {"compose.stackmend.yaml": override.content})
    assert findings(after) == [("cron.SECRET_DATABASE_URL", "wrong", "loopback", "db:5432")]
    # Exactly what is wrong is another value now, whatever Compose makes of dollars and quotes.
    api, worker, cron = (after["services"].pop(name) for name in ("api", "worker", "cron"))
    was_api, was_worker, was_cron = (
        before["services"].pop(name) for name in ("api", "worker", "cron")
    )
    assert after == before
    was_api["environment"] |= {
        "REDIS_URL": "redis://:s3cr%40t@home@redis:6379/0",
        "DATABASE_URL": "postgresql+asyncpg://app:p%40s$s@w@db:5432/app?x=y",
        "DB_PORT": "5432",
        "TIKA_URL": "http://tika:9998",
    }
    assert api == was_api
    was_worker["environment"] |= {
        "AMQP_URL": "redis://redis:6379/1",
        "TIKA_ENDPOINT": "http://tika:9998",
        "NO_PROXY": "tika",
        "no_proxy": "tika",
    }
    was_worker["command"] = [
        "sh", "-c", 'echo "$HOME" s3cr%40t@home; exec work --redis-host redis',
    ]  # fmt: skip
    assert worker == was_worker
    was_cron["environment"]["DB_HOSTNAME"] = "db"
    was_cron["command"] = ["run", "--cost=$1", "--broker", "redis://:s3cr%40t@home@redis:6379/2"]
    was_cron["extra_hosts"] = ["host.docker.internal=host-gateway"]
    assert cron == was_cron
    assert set(written) == {"api", "worker", "cron"}
    # Once the files are right there is nothing to lay over them.
    assert make_override(judge(after), after, files).content == b""
