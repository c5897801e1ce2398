"""A registry of models that serves a pull as registry.ollama.ai does, and fails on demand.

store.py    what it has: models made of the tiny one, each with content of its own
faults.py   what is to go wrong, and how fast it sends
routes.py   the HTTP routes, and those by which the lab sets it
"""
