"""The api image's program."""
