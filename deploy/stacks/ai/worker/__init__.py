"""The worker image's program."""
