"""Record the probe's output on a real lab host, anew: ``python -m tests.facts.record``.

Each state is brought about with raw ``docker`` on a host of the lab, and what the probe prints goes
into a fixture as it is, less what says nothing (null, 0, empty) and what no container is told
apart by (its layers, its masked paths, labels of the lab), so that a fixture can be read. The
expected state is written from what the parser makes of it: look at the change before you commit it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackmend.compose.facts import ComposeStack, parse
from tests.lab import hosts
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop
from tests.marks import MARK

FIXTURES = Path(__file__).parent / "compose.facts.ComposeStack"
ARGUMENTS = {"project": "shop", "directory": "/opt/shop"}

PASSING = {"GraphDriver", "MaskedPaths", "ReadonlyPaths", "LogPath", "HostnamePath", "HostsPath"}

STACK: dict[str, Any] = {
    "services": {
        "redis": {
            "image": "lab/redis:7",
            "restart": "unless-stopped",
            "volumes": ["data:/data"],
            "healthcheck": {"test": ["CMD", "redis-cli", "ping"], "interval": "1s", "retries": 2},
        },
        "web": {
            "image": "lab/box:1",
            "restart": "always",
            "environment": {"GREETING": 'good "morning"\nto $$you'},
            "ports": ["127.0.0.1:8080:80"],
            "volumes": ["./web.conf:/etc/web.conf:ro", "/etc/hostname:/etc/host:ro"],
            "depends_on": ["redis"],
            "mem_limit": "64m",
            "cpus": 0.5,
        },
        "migrate": {"image": "lab/box:1", "command": ["true"], "network_mode": "service:redis"},
    },
    "volumes": {"data": {}},
}

LABELS = (
    "--label com.docker.compose.project=shop --label com.docker.compose.service={service} "
    "--label com.docker.compose.container-number=1 --label com.docker.compose.oneoff=False"
)

#: State → what brings the healthy stack into it, and what takes it back.
BROKEN: dict[str, tuple[str, str]] = {
    "files_changed": (
        "echo changed >>/opt/shop/web.conf; rm /opt/shop/.dockerignore; echo other >/tmp/host; "
        "mount --bind /tmp/host /etc/hostname",
        "umount /etc/hostname; echo 'answer = 42' >/opt/shop/web.conf; "
        "echo web.conf >/opt/shop/.dockerignore",
    ),
    "stopped_and_paused": (
        "docker stop shop-web-1; docker pause shop-redis-1",
        "docker unpause shop-redis-1; docker start shop-web-1",
    ),
    "created_without_its_port": (
        "docker rm -f shop-web-1; docker run -d --name squatter -p 127.0.0.1:8080:80 lab/box:1; "
        "cd /opt/shop; docker compose -p shop up -d --no-deps web",
        "docker rm -f squatter; docker start shop-web-1",
    ),
    "hung_detached_and_updated": (
        "kill -STOP $(docker inspect -f '{{.State.Pid}}' shop-web-1); "
        "docker network disconnect shop_default shop-redis-1; "
        "docker update --restart=no shop-redis-1",
        "kill -CONT $(docker inspect -f '{{.State.Pid}}' shop-web-1); "
        "docker network connect --alias redis shop_default shop-redis-1; "
        "docker update --restart=unless-stopped shop-redis-1",
    ),
    "unhealthy": (
        "docker exec -u 0 shop-redis-1 sh -c 'mv $(command -v redis-cli) /tmp/'; sleep 8",
        "docker exec -u 0 shop-redis-1 sh -c 'mv /tmp/redis-cli /usr/bin/'",
    ),
    "restart_loop": (
        "docker rm -f shop-web-1; docker run -d --name shop-web-1 --restart always "
        f"{LABELS.format(service='web')} lab/box:1 sh -c 'exit 3'; sleep 6",
        "",
    ),
    "missing": ("docker rm -f shop-web-1", ""),
    "neighbours_and_a_moved_tag": (
        "docker run -d --name intruder --network shop_default --network-alias redis lab/box:2; "
        "docker run -d --name apart lab/box:2; docker tag lab/box:2 lab/box:1; "
        f"docker run -d --name guest {LABELS.format(service='guest')} lab/box:2",
        "docker rm -f intruder apart guest; docker rmi lab/box:1",
    ),
    "record_unreadable_image_gone": (
        "echo '{' >/var/lib/stackmend/shop/applied.json; printf '1800000000 restart web\\n"
        "nonsense\\n1800000060 rollback 0123abc\\n' >/var/lib/stackmend/shop/mends",
        "",
    ),
    "engine_stopped": (
        "systemctl stop docker.socket docker.service",
        "systemctl start docker.service",
    ),
}


def probe(host: LabHost, user: str = "root") -> list[str]:
    command = ComposeStack().command(**ARGUMENTS).get_raw_value()
    done = subprocess.run([*host.ssh_argv(user), command], capture_output=True, check=True)
    return done.stdout.decode().replace(shlex.split(command)[2], MARK).split("\n")


def without(value: Any, unwanted: Callable[[str, Any], bool]) -> Any:
    if isinstance(value, dict):
        kept = {key: without(item, unwanted) for key, item in value.items()}
        return {key: item for key, item in kept.items() if not unwanted(key, item)}
    return [without(item, unwanted) for item in value] if isinstance(value, list) else value


def of_the_lab(key: str, _: Any) -> bool:
    return key.startswith("stackmend.lab")


def says_nothing(key: str, value: Any) -> bool:
    if key in PASSING or (value == 0 and value is not False):
        return True
    # Labels and a log's settings are compared as a whole, with what is empty in them.
    return value in (None, "", [], {}) and key != "Config" and "." not in key


def smaller(lines: Sequence[str]) -> list[str]:
    """The same output with its containers cut to what tells something."""
    lines = [
        f"|{json.dumps(without(json.loads(line[1:]), of_the_lab))}"
        if line.startswith('|{"')
        else line
        for line in lines
    ]
    if "|[" not in lines:
        return lines
    first, last = lines.index("|["), lines.index("|]")
    told = "\n".join(line[1:] for line in lines[first : last + 1])
    shown = without(json.loads(told), of_the_lab)
    text = json.dumps(without(shown, says_nothing), indent=1)
    return [*lines[:first], *(f"|{line}" for line in text.split("\n")), *lines[last + 1 :]]


class _Block(str):
    """Text that is written as it stands."""


yaml.SafeDumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def save(name: str, lines: Sequence[str]) -> None:
    output = smaller(lines)
    fact = parse(output, MARK, ARGUMENTS["project"]).to_json()
    fixture = {"arg": ARGUMENTS, "output": _Block("\n".join(output)), "fact": fact}
    text = yaml.safe_dump(fixture, sort_keys=False, allow_unicode=True, width=1000)
    (FIXTURES / f"{name}.yaml").write_text(text, encoding="utf-8")


def main() -> None:
    with hosts.lease("managed") as host, tempfile.TemporaryDirectory() as directory:
        host.reset()
        save("nothing_there", probe(host))
        save("forbidden", probe(host, "operator"))
        shop = Shop(Path(directory), host)
        for path in shop.source.rglob("*"):
            if path.is_file():
                path.unlink()
        shop.compose = STACK
        shop.put("web.conf", "answer = 42\n")
        shop.put(".dockerignore", "web.conf\n")
        shop.deploy()
        save("healthy", probe(host))
        for name, (breaks, mends) in BROKEN.items():
            host.sh(breaks, check=False, timeout=60)
            save(name, probe(host))
            host.sh(mends or "true", check=False, timeout=60)
        host.reset()
    with hosts.lease("bare") as host:
        host.reset()
        save("not_installed", probe(host))


if __name__ == "__main__":
    main()
