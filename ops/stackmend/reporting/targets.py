"""Whom a run may tell of a change. Nothing is sent here."""

from importlib.util import find_spec


def check(url: str) -> str:
    """Why nothing can be sent to a target; empty where it can.

    :param url: its address, in Apprise's form.
    """
    if find_spec("apprise") is None:
        return "needs Apprise on this machine: pip install 'stackmend[notify]'"
    import apprise

    if not apprise.Apprise().add(url):
        return "is no address that Apprise knows; see https://github.com/caronc/apprise/wiki"
    return ""
