"""The reference stack: redis, ollama, an api and a worker. What runs it is `compose.yaml`."""
