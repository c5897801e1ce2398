"""What single applications make of the addresses in their variables. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from stackmend.addresses.stack import Stack
from stackmend.addresses.state import Address, Edit, Judgement, Place

#: Variables of open-webui that hold several addresses, and the ones that they take the place of.
_SEVERAL = {
    "OLLAMA_BASE_URLS": "OLLAMA_BASE_URL",
    "OPENAI_API_BASE_URLS": "OPENAI_API_BASE_URL",
}


def _name_image(body: Mapping[str, Any]) -> str:
    """The last part of a service's image, without its tag."""
    image = str(body.get("image") or "").partition("@")[0]
    return image.rpartition("/")[2].partition(":")[0]


def _is_webui(body: Mapping[str, Any]) -> bool:
    return _name_image(body) == "open-webui"


def list_overruled(body: Mapping[str, Any], environment: Mapping[str, str]) -> frozenset[str]:
    """The variables that an application does not read, because it reads another one instead.

    :param body: the service's section.
    :param environment: what it has, its image's variables among it.

    Example:
        >>> environment = {"OLLAMA_BASE_URL": "http://a", "OLLAMA_BASE_URLS": "http://b"}
        >>> list_overruled({"image": "open-webui/open-webui:main"}, environment)
        frozenset({'OLLAMA_BASE_URL'})
    """
    if not _is_webui(body):
        return frozenset()
    return frozenset(single for several, single in _SEVERAL.items() if environment.get(several))


def classify_form(stack: Stack, address: Address, target: str) -> Judgement | None:
    """What an application does not take: a separator, a scheme, a path that it adds itself."""
    place = address.place
    body = stack.services[place.service]
    value = stack.environments[place.service].get(place.key, "")
    if place.kind not in ("environment", "image"):
        return None
    if place.key.startswith("CELERY_") and address.scheme == "sentinel":
        return _classify_separator(address, value, ",", ";", "Celery", "sentinel://")
    if place.key == "REDIS_SENTINELS" and _name_image(body).startswith("dify-"):
        return _classify_nodes(address, value)
    return _classify_webui(stack, address, target, value) if _is_webui(body) else None


def _classify_nodes(address: Address, value: str) -> Judgement | None:
    """A list of sentinels as dify takes it: hosts and ports, with commas between them."""
    place = address.place
    scheme = f"{address.scheme}://" if address.scheme else ""
    start = place.start - len(scheme)
    if not scheme:
        return _classify_separator(address, value, ";", ",", "dify", r"[\w.-]+:\d")
    cause = f"dify takes {place.key} as HOST:PORT each, without {scheme}"
    # Where a login stands between, it belongs in a variable of its own.
    plain = value[start : place.start].lower() == scheme and not address.path
    edits = [Edit(place=_cut(place, start, place.start), old=value[start : place.start], new="")]
    between = re.match(r"\s*[;,]\s*(?=\S)", value[place.end :])
    after = between[0] if between else ""
    if after not in ("", ","):
        edits.append(Edit(place=_cut(place, place.end, place.end + len(after)), old=after, new=","))
    return Judgement(
        address=address,
        status="wrong",
        reason="form",
        right=f"{address.text}{',' if len(edits) > 1 else ''}" if plain else "",
        edits=tuple(edits) if plain else (),
        cause=cause,
        remedy=f"write {place.key} as HOST:PORT,HOST:PORT",
    )


def _classify_separator(
    address: Address, value: str, wrong: str, right: str, reader: str, following: str
) -> Judgement | None:
    """A list whose reader separates it by something else, where another address follows."""
    place = address.place
    start = place.end + len(address.path)
    # Not every reader takes spaces from what it has split.
    match = re.match(rf"\s*{wrong}\s*(?={following})", value[start:], re.IGNORECASE)
    if match is None:
        return None
    names = {",": "commas", ";": "semicolons"}
    return Judgement(
        address=address,
        status="wrong",
        reason="form",
        right=f"{address.text}{right}",
        edits=(Edit(place=_cut(place, start, start + match.end()), old=match[0], new=right),),
        cause=f"{reader} separates the addresses of {place.key} by {names[right]}",
        remedy=f"put a {names[right].removesuffix('s')} behind {address.text} in {place.key}",
    )


def _cut(place: Place, start: int, end: int) -> Place:
    return place.model_copy(update={"start": start, "end": end})


def _classify_webui(stack: Stack, address: Address, target: str, value: str) -> Judgement | None:
    place = address.place
    # Of a gateway the path may be its own.
    is_api = stack.names.kinds.get(target) == "ollama" and re.fullmatch("/api/?", address.path)
    if place.key in ("OLLAMA_BASE_URL", "OLLAMA_BASE_URLS") and is_api:
        cut = _cut(place, place.end, place.end + len(address.path))
        return Judgement(
            address=address,
            status="wrong",
            reason="form",
            right=address.text,
            edits=(Edit(place=cut, old=address.path, new=""),),
            cause=f"open-webui adds {address.path.rstrip('/')} itself",
            remedy=f"set {place.key} without {address.path}",
        )
    if place.key in _SEVERAL and (
        found := _classify_separator(address, value, ",", ";", "open-webui", "https?://")
    ):
        return found
    if (
        place.key in ("OPENAI_API_BASE_URL", "OPENAI_API_BASE_URLS")
        and stack.names.kinds.get(target) in ("ollama", "vllm")
        and address.path in ("", "/")
    ):
        return Judgement(
            address=address,
            status="ambiguous",
            reason="form",
            readings=(
                f"{address.text}: as it stands",
                f"{address.text}/v1: where {target} has OpenAI's API",
            ),
            cause=f"{target} has OpenAI's API below /v1",
            remedy=f"end {place.key} in /v1",
        )
    return None
