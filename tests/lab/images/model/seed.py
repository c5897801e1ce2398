"""Put GGUF files into an empty library of models: python seed.py DIRECTORY NAME=FILE..."""

import sys
from pathlib import Path

from server.library import MODEL_LAYER, Library, Name

if __name__ == "__main__":
    library = Library(Path(sys.argv[1]))
    for pair in sys.argv[2:]:
        name, _, file = pair.partition("=")
        blob = library.put([Path(file).read_bytes()])
        layer = {"mediaType": MODEL_LAYER, **blob}
        print(library.create(Name.parse(name), [layer], {"template": "{{ .Prompt }}"}).name)
