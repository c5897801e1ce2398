"""A model server that answers like Ollama and infers with llama.cpp.

A stand-in, for machines that no Ollama image or binary can be had on. What it says it says like
Ollama v0.24; `tests/contract/` holds both to the same tests. Its inference
is real: the same GGUF at temperature 0 gives the same tokens as in Ollama.

What it does not have: chat templates other than `{{ .Prompt }}`, images, tools, thinking,
embeddings, pushing, quantizing, the OpenAI-compatible routes, and GPUs.

    library.py   models on the disk: names, manifests, blobs, as Ollama lays them out
    remote.py    a registry asked, and what goes wrong with that in Go's words
    download.py  blobs fetched: parts, partial files, resuming, retrying
    pull.py      a whole model pulled
    gguf.py      what a GGUF file says of itself
    engine.py    models in memory: loading, keeping, unloading, generating
    answers.py   what models say to a prompt or a chat
    wire.py      what requests and answers are made of
    app.py       the HTTP routes
    log.py       a line for each request
"""
