"""Become a recorded process. Arguments: its record, program, user, group, further groups."""
# pathlib takes longer to load than this takes to run.
# ruff: noqa: PTH118, PTH123, S606

import os
import sys

where, exe, uid, gid, *groups = sys.argv[1:]


def _read_words(name: str) -> "list[bytes]":
    with open(os.path.join(where, name), "rb") as file:
        return file.read().split(b"\0")[:-1]


argv = _read_words("argv")
pairs = (word.partition(b"=") for word in _read_words("environ"))
environ = {name: value for name, equals, value in pairs if name and equals}
if os.getuid() == 0:
    os.setgroups([int(group) for group in groups])
    os.setgid(int(gid))
    os.setuid(int(uid))
quiet = os.open(os.devnull, os.O_RDWR)
errors = os.dup(2)
os.dup2(quiet, 2)
try:
    os.execve(os.fsencode(exe), argv or [os.fsencode(exe)], environ)
except OSError as error:
    os.write(errors, str(error).encode())
