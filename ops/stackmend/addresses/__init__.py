"""Addresses: what a service is given to reach another by, read, classified and corrected. Pure."""

from stackmend.addresses.classification import classify
from stackmend.addresses.containers import classify_containers
from stackmend.addresses.listing import is_call, is_for_browsers, list_links
from stackmend.addresses.override import make_override
from stackmend.addresses.patch import make_patch
from stackmend.addresses.reading import list_unread, read
from stackmend.addresses.sources import Sources, locate

__all__ = [
    "Sources",
    "classify",
    "classify_containers",
    "is_call",
    "is_for_browsers",
    "list_links",
    "list_unread",
    "locate",
    "make_override",
    "make_patch",
    "read",
]
