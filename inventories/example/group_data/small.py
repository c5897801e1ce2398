"""What the small machines carry."""

stack = {
    "project": "ai",
    # Relative to where pyinfra is started.
    "source": "deploy/stacks/ai",
    "directory": "/opt/ai",
    "env": {"OLLAMA_MODEL": "llama3.2:1b", "OLLAMA_MEMORY": "4g"},
    # Health criteria beyond the healthchecks of compose.yaml.
    "checks": [
        {"kind": "redis", "service": "redis"},
        {"kind": "http", "url": "http://127.0.0.1:8000/healthz"},
        {"kind": "tcp", "address": "ollama:11434", "inside": "worker"},
    ],
    # Who else holds a port that the stack needs is told before Docker trips over it. To have such a
    # holder ended: {"on_conflict": "stop", "allow": ["unit:redis-server.service"]}.
    "ports": {"on_conflict": "report"},
}
