"""Keep every host as it should be, again and again: what the schedule runs."""

from pyinfra import local

local.include("./site.py")
