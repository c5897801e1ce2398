"""What to run: order and wiring only. Each module here is given to ``pyinfra`` by its path."""
