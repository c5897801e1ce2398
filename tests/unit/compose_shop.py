"""The project that plans are made for: a shop, its changed versions, and what has replicas."""

from __future__ import annotations

import copy
from typing import Any

from tests.unit.compose_world import DIRECTORY, Desired, compose

HEALTH = {"test": ["CMD", "true"]}
#: What the engine shows of a container that does not run.
ENDED: dict[str, Any] = {"health": None, "process": None}


def shop(**more: Any) -> Desired:
    """redis; web, which leans on it and reads a file; side, which stands alone."""
    return Desired(
        compose(
            {
                "redis": {
                    "image": "lab/redis:7",
                    "restart": "unless-stopped",
                    "healthcheck": HEALTH,
                    "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
                },
                "web": {
                    "restart": "unless-stopped",
                    "environment": {"MODE": "slow", "REDIS_PASSWORD": "correct horse"},
                    "healthcheck": HEALTH,
                    "ports": [{"host_ip": "127.0.0.1", "target": 80, "published": "8080"}],
                    "volumes": [
                        {
                            "type": "bind",
                            "source": f"{DIRECTORY}/conf/web.conf",
                            "target": "/etc/web.conf",
                        }
                    ],
                    "depends_on": {"redis": {"condition": "service_healthy"}},
                },
                "side": {"restart": "unless-stopped"},
            },
            volumes={"data": {}},
        ),
        {"compose.yaml": "1", "conf/web.conf": "1"},
        more,
    )


def changed(desired: Desired, service: str = "web", **fields: Any) -> Desired:
    """The same with fields of one service changed, as an edited compose.yaml says it."""
    other = copy.deepcopy(desired)
    other.files["compose.yaml"] = "2"
    other.config["services"][service].update(fields)
    return other


def replicas(number: int, version: str = "1") -> Desired:
    return Desired(
        compose({"worker": {"scale": number, "restart": "always"}}), {"compose.yaml": version}
    )
