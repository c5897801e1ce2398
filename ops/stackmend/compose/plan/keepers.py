"""Applications that keep settings of their first start, whatever their environment says. Pure."""

import posixpath
from collections.abc import Mapping
from typing import Any, NamedTuple

from stackmend.addresses.state import Judgement
from stackmend.compose.state import StackState


class Keeper(NamedTuple):
    """An application that stores variables at its first start, and reads them no more.

    :param variables: those that it stores.
    :param directory: where it keeps them, and the variable that says where else.
    :param database: the variable that names a server that keeps them instead.
    :param switch: the variable that has it read its environment again, with anything but ``true``.
    """

    variables: frozenset[str]
    directory: tuple[str, str]
    database: str
    switch: str

    @property
    def remedy(self) -> str:
        """What has it read its environment again, in words."""
        return f"{self.switch}=False in its environment"


#: By the last part of the image's name.
_KEEPERS = {
    "open-webui": Keeper(
        variables=frozenset(
            "AUDIO_STT_OPENAI_API_BASE_URL AUDIO_TTS_OPENAI_API_BASE_URL AUTOMATIC1111_BASE_URL "
            "COMFYUI_BASE_URL DOCLING_SERVER_URL IMAGES_OPENAI_API_BASE_URL LDAP_SERVER_HOST "
            "LDAP_SERVER_PORT OLLAMA_BASE_URL OLLAMA_BASE_URLS OPENAI_API_BASE_URL "
            "OPENAI_API_BASE_URLS PLAYWRIGHT_WS_URL RAG_OLLAMA_BASE_URL RAG_OPENAI_API_BASE_URL "
            "SEARXNG_QUERY_URL TIKA_SERVER_URL WEBUI_URL YACY_QUERY_URL".split()
        ),
        directory=("/app/backend/data", "DATA_DIR"),
        database="DATABASE_URL",
        switch="ENABLE_PERSISTENT_CONFIG",
    )
}


def find_keeper(image: str) -> Keeper | None:
    """The application that an image holds, where it is known to keep settings.

    Example:
        >>> find_keeper("ghcr.io/open-webui/open-webui:main@sha256:0").remedy
        'ENABLE_PERSISTENT_CONFIG=False in its environment'
        >>> find_keeper("ghcr.io/open-webui/pipelines:main") is None
        True
    """
    return _KEEPERS.get(image.partition("@")[0].rpartition("/")[2].partition(":")[0])


def is_kept(
    judgement: Judgement, body: Mapping[str, Any], environment: Mapping[str, Any], state: StackState
) -> bool:
    """Whether an application may go on with a wrong address once it is another one's.

    It has been started with it, and what it stored then outlives its container.

    :param body: the service's section in the project's own files.
    :param environment: what it has, its image's variables among it.
    :param state: what runs before the address is corrected.
    """
    place, keeper = judgement.address.place, find_keeper(str(body.get("image") or ""))
    if keeper is None or not judgement.right or place.name not in keeper.variables:
        return False
    if place.kind not in ("environment", "image"):
        return False
    if str(environment.get(keeper.switch, "true")).lower() != "true":
        return False
    applied = state.applied
    before = applied.correction.changes if applied and applied.correction else ()
    holder = place.service, place.name
    own = [change.kept for change in before if (change.service, change.variable) == holder]
    if own:
        # What runs has been corrected already, and says nothing of how it was started first.
        return any(own)
    path, variable = keeper.directory
    directory = posixpath.normpath(str(environment.get(variable) or path))
    lasts = bool(environment.get(keeper.database)) or any(
        _is_below(directory, str(mount.get("target") or "")) for mount in body.get("volumes") or ()
    )
    return lasts and any(
        container.started_at > 0
        and judgement.address.text in str(_get_value(container.shape, place.name))
        for container in state.list_containers(place.service)
    )


def _is_below(directory: str, target: str) -> bool:
    """Whether a directory lies where something is mounted."""
    target = posixpath.normpath(target or "/")
    return directory == target or directory.startswith(f"{target.rstrip('/')}/")


def _get_value(shape: Mapping[str, Any], variable: str) -> Any:
    return (shape.get("environment") or {}).get(variable) or ""
