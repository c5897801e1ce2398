"""This machine: ``pyinfra inventories/local.py deploy/site.py``, from the project's directory."""

import os

hosts = [
    (
        "@local",
        {
            # Root's work: Docker, the project's directory and stackmend's memory of it.
            "_sudo": os.geteuid() != 0,
            "stack": {
                "project": "ai",
                "source": "deploy/stacks/ai",
                "directory": "/opt/ai",
                "checks": [
                    {"kind": "redis", "service": "redis"},
                    {"kind": "http", "url": "http://127.0.0.1:8000/healthz"},
                    {"kind": "http", "url": "http://ollama:11434/api/version", "inside": "worker"},
                ],
                # The model server's image alone is several gigabytes.
                "minimum_free": "10GiB",
                "health_timeout": 300,
            },
        },
    )
]
