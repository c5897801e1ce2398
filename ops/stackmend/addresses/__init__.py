"""Addresses: what a service is given to reach another by, read, classified and corrected. Pure."""

from stackmend.addresses.classification import classify
from stackmend.addresses.listing import is_call, list_links
from stackmend.addresses.override import make_override
from stackmend.addresses.patch import make_patch
from stackmend.addresses.reading import read
from stackmend.addresses.sources import Sources, locate

__all__ = [
    "Sources",
    "classify",
    "is_call",
    "list_links",
    "locate",
    "make_override",
    "make_patch",
    "read",
]
