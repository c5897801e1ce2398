"""A model server that answers like Ollama and infers with llama.cpp.

A stand-in, for machines that no Ollama image or binary can be had on. What it says it says like
Ollama v0.24; `tests/contract/test_ollama_contract.py` holds both to the same tests. Its inference
is real: the same GGUF at temperature 0 gives the same tokens as in Ollama.

What it does not have: chat templates other than `{{ .Prompt }}`, images, tools, thinking,
embeddings, the OpenAI-compatible routes, GPUs, and more than one tag's spelling of a name
(Ollama looks names up without regard to case).

    library.py   models on the disk: names, manifests, blobs, as Ollama lays them out
    gguf.py      what a GGUF file says of itself
    engine.py    models in memory: loading, keeping, unloading, generating
    app.py       the HTTP routes
"""
