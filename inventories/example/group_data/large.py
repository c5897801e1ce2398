"""What the large machines carry: the same stack with a larger model, on a port of its own."""

stack = {
    "project": "ai",
    "source": "deploy/stacks/ai",
    "directory": "/opt/ai",
    "env": {
        "OLLAMA_MODEL": "llama3.1:8b",
        "OLLAMA_MEMORY": "16g",
        "WORKER_CONCURRENCY": 2,
        "API_PORT": 8080,
    },
    "checks": [
        {"kind": "redis", "service": "redis"},
        {"kind": "http", "url": "http://127.0.0.1:8080/healthz"},
        {"kind": "tcp", "address": "ollama:11434", "inside": "worker"},
    ],
    # A large model takes its time to load.
    "health_timeout": 600,
}
