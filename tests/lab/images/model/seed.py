"""Put GGUF files into an empty library of models: python seed.py DIRECTORY NAME=FILE..."""

import sys
from pathlib import Path

from server.library import Library

if __name__ == "__main__":
    library = Library(Path(sys.argv[1]))
    for pair in sys.argv[2:]:
        name, _, file = pair.partition("=")
        blob = library.put([Path(file).read_bytes()])
        print(library.create(name, blob["digest"]).name)
