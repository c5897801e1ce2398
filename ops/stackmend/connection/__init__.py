"""The link to the hosts: commands, facts, Docker's API and HTTP over pyinfra's own connection.

The only room that touches a pyinfra connector, paramiko or the Docker SDK. Everything here works
on hosts reached by ``@ssh`` and on ``@local``, as root and with sudo, with and without a password.

Under pyinfra's command line every wait in here yields to the other hosts. A program that uses
pyinfra's API has to call ``gevent.monkey.patch_all()`` before it imports anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .channel import LIMIT as LIMIT
    from .channel import Result as Result
    from .channel import Stream as Stream
    from .channel import run as run
    from .channel import spawn as spawn
    from .docker_api import docker as docker
    from .docker_api import list_image_labels as list_image_labels
    from .docker_api import list_inspected as list_inspected
    from .errors import CommandTimeout as CommandTimeout
    from .errors import ConnectionLost as ConnectionLost
    from .errors import DialError as DialError
    from .errors import LeaseHeld as LeaseHeld
    from .errors import PrivilegeError as PrivilegeError
    from .errors import RemoteError as RemoteError
    from .errors import UnsupportedConnector as UnsupportedConnector
    from .fetching import PROBE_TIMEOUT as PROBE_TIMEOUT
    from .fetching import TIMEOUT as TIMEOUT
    from .fetching import derive as derive
    from .fetching import fetch_facts as fetch_facts
    from .fetching import invalidate as invalidate
    from .fetching import keep as keep
    from .fetching import mark_hung as mark_hung
    from .fetching import prefetch as prefetch
    from .fetching import read as read
    from .fetching import shorten_wait as shorten_wait
    from .first_contact.contact import Contact as Contact
    from .first_contact.login import Identity as Identity
    from .first_contact.login import decode_public_keys as decode_public_keys
    from .first_contact.new_login import NoLogin as NoLogin
    from .first_contact.new_login import find_matching_identities as find_matching_identities
    from .first_contact.new_login import open_new_login as open_new_login
    from .first_contact.new_login import read_auth_methods as read_auth_methods
    from .first_contact.new_login import run_new_login as run_new_login
    from .http_client import HTTPClient as HTTPClient
    from .http_client import HTTPError as HTTPError
    from .http_client import HTTPResponse as HTTPResponse
    from .http_client import TooMuch as TooMuch
    from .http_client import end_within as end_within
    from .http_client import find_layer as find_layer
    from .http_client import get_from_controller as get_from_controller
    from .http_client import http as http
    from .http_client import is_silent as is_silent
    from .http_client import iterate_lines as iterate_lines
    from .http_client import list_causes as list_causes
    from .http_client import read_arrival as read_arrival
    from .http_client import read_departure as read_departure
    from .lease import ANSWER_WITHIN as ANSWER_WITHIN
    from .lease import Lease as Lease
    from .lease import find_holder as find_holder
    from .lease import hold_lock as hold_lock
    from .link import count_channels as count_channels
    from .scripts import make_mark as make_mark
    from .scripts import parse_partial_section as parse_partial_section
    from .scripts import parse_probe as parse_probe
    from .scripts import parse_rows as parse_rows
    from .scripts import parse_sections as parse_sections
    from .scripts import read_frame as read_frame
    from .scripts import read_script as read_script
    from .scripts import script as script
    from .scripts import write_own as write_own
    from .settings import find_arguments as find_arguments
    from .settings import find_timeout as find_timeout
    from .unknown import Unknown as Unknown

_WHERE = {
    "Contact": "first_contact.contact",
    "Identity": "first_contact.login",
    "Lease": "lease",
    "NoLogin": "first_contact.new_login",
    "Stream": "channel",
    "parse_partial_section": "scripts",
    "list_causes": "http_client",
    "read_arrival": "http_client",
    "read_departure": "http_client",
    "count_channels": "link",
    "ANSWER_WITHIN": "lease",
    "LIMIT": "channel",
    "PROBE_TIMEOUT": "fetching",
    "TIMEOUT": "fetching",
    "derive": "fetching",
    "docker": "docker_api",
    "shorten_wait": "fetching",
    "hold_lock": "lease",
    "find_holder": "lease",
    "find_arguments": "settings",
    "find_timeout": "settings",
    "http": "http_client",
    "list_image_labels": "docker_api",
    "list_inspected": "docker_api",
    "end_within": "http_client",
    "find_layer": "http_client",
    "get_from_controller": "http_client",
    "iterate_lines": "http_client",
    "spawn": "channel",
    "CommandTimeout": "errors",
    "HTTPClient": "http_client",
    "HTTPError": "http_client",
    "HTTPResponse": "http_client",
    "ConnectionLost": "errors",
    "DialError": "errors",
    "LeaseHeld": "errors",
    "PrivilegeError": "errors",
    "RemoteError": "errors",
    "Result": "channel",
    "TooMuch": "http_client",
    "Unknown": "unknown",
    "UnsupportedConnector": "errors",
    "prefetch": "fetching",
    "invalidate": "fetching",
    "run_new_login": "first_contact.new_login",
    "keep": "fetching",
    "make_mark": "scripts",
    "mark_hung": "fetching",
    "fetch_facts": "fetching",
    "parse_probe": "scripts",
    "decode_public_keys": "first_contact.login",
    "read": "fetching",
    "parse_rows": "scripts",
    "run": "channel",
    "script": "scripts",
    "write_own": "scripts",
    "parse_sections": "scripts",
    "is_silent": "http_client",
    "read_frame": "scripts",
    "read_script": "scripts",
    "find_matching_identities": "first_contact.new_login",
    "open_new_login": "first_contact.new_login",
    "read_auth_methods": "first_contact.new_login",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    # Loaded when first used: a plan needs `Unknown` and neither pyinfra nor paramiko with it.
    if name in _WHERE:
        value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
