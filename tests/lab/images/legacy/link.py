"""``link.py STORE DIRECTORY``: the weights of each model in Ollama's store, as NAME.gguf."""

import json
import pathlib
import shutil
import sys

store, directory = map(pathlib.Path, sys.argv[1:])
directory.mkdir(parents=True)
for manifest in store.glob("manifests/**/latest"):
    for layer in json.loads(manifest.read_text())["layers"]:
        if layer["mediaType"].endswith(".model"):
            blob = store / "blobs" / layer["digest"].replace(":", "-")
            shutil.copy(blob, directory / f"{manifest.parent.name}.gguf")
