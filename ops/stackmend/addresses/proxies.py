"""Internal names that go to a proxy, which does not know them. Pure."""

import re
from collections.abc import Iterable, Mapping

from stackmend.addresses.corrections import split_right
from stackmend.addresses.kinds import is_loopback
from stackmend.addresses.names import Names
from stackmend.addresses.reading import find_side
from stackmend.addresses.state import Address, Judgement

_PROXY = re.compile("(?i)(?:http|https|all|no)_proxy")


def add_exemptions(
    judgements: Iterable[Judgement], names: Names, environments: Mapping[str, Mapping[str, str]]
) -> tuple[Judgement, ...]:
    """What is thought of addresses once it is known which of them go to a proxy.

    :param judgements: what is thought of them otherwise; what they are corrected to counts.
    :param names: which names lead where.
    :param environments: the variables of each service.
    """
    listed = list(judgements)
    proxies = {name: _list_proxies(environment) for name, environment in environments.items()}
    if not any(proxies.values()):
        return tuple(listed)
    hosts: dict[str, dict[str, None]] = {}
    for judgement in listed:
        if host := _find_proxied(judgement, names, proxies):
            hosts.setdefault(judgement.address.place.service, {})[host] = None
    found = []
    for judgement in listed:
        service = judgement.address.place.service
        host = _find_proxied(judgement, names, proxies) if service in hosts else ""
        if host:
            needs = _make_needs(environments[service], hosts[service])
            judgement = _report(judgement, host, needs)
        found.append(judgement)
    return tuple(found)


def _list_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of proxies in lower case, in which either case counts."""
    found: dict[str, str] = {}
    for key, value in environment.items():
        if _PROXY.fullmatch(key) and value.strip():
            lower = key.lower()
            found[lower] = f"{found[lower]},{value}" if lower in found else value
    return found


def _find_proxied(
    judgement: Judgement, names: Names, proxies: Mapping[str, Mapping[str, str]]
) -> str:
    """The internal name that goes to a proxy; empty where none does."""
    address, service = judgement.address, judgement.address.place.service
    host = split_right(judgement)[0].lower() or address.host
    own = proxies.get(service, {})
    used = [
        own[key] for key in (f"{address.scheme}_proxy", "all_proxy") if own.get(key, "").strip()
    ]
    if (
        not used
        or address.scheme not in ("http", "https")
        or (judgement.status != "right" and not judgement.edits)
        or judgement.reason == "swapped"
        or not _is_asked(address)
        or not names.resolve(service, host)
        or host in {name.lower() for name in names.groups[service]}
    ):
        return ""
    if any(_is_inside(value, service, names) for value in used) or _is_exempt(
        host, own.get("no_proxy", "")
    ):
        return ""
    return host


def _is_inside(value: str, service: str, names: Names) -> bool:
    """Whether a proxy is, or may be, on a network of the project, and knows its names."""
    for item in value.lower().split(","):
        host = re.split("[:/]", item.strip().rpartition("://")[2].rpartition("@")[2])[0]
        if host in names.services or names.list_elsewhere(host):
            return True
        if host and "." not in host and not is_loopback(host) and names.has_foreign_names(service):
            return True
    return False


def _is_asked(address: Address) -> bool:
    """Whether the service itself asks for an address, and does not ask it for others."""
    return (
        "proxy" not in address.place.name.lower()
        and address.place.kind != "healthcheck"
        and address.side == "server"
        and find_side(address.place.hint, address.scheme) == "server"
    )


def _make_needs(environment: Mapping[str, str], hosts: Iterable[str]) -> dict[str, str]:
    keys = [key for key in environment if key.lower() == "no_proxy"] or ["NO_PROXY", "no_proxy"]
    return {
        key: ",".join([*filter(None, [environment.get(key, "").strip(" ,")]), *hosts])
        for key in keys
    }


def _report(judgement: Judgement, host: str, environment: Mapping[str, str]) -> Judgement:
    address, service = judgement.address, judgement.address.place.service
    cause = f"{service} sends what is for {host} to its proxy, which does not know the name"
    remedy = f"add {host} to NO_PROXY of {service}"
    needs = {**judgement.needs, "environment": dict(environment)}
    if judgement.status == "wrong":
        return judgement.model_copy(
            update={
                "needs": needs,
                "cause": f"{judgement.cause}; {cause}",
                "remedy": f"{judgement.remedy}; {remedy}",
            }
        )
    return Judgement(
        address=address, status="wrong", reason="proxy", needs=needs, cause=cause, remedy=remedy
    )


def _is_exempt(host: str, value: str) -> bool:
    """Whether ``NO_PROXY`` keeps a host from the proxy."""
    for item in value.lower().split(","):
        name = item.strip().partition(":")[0]
        if name == "*" or host == name or (name and host.endswith(f".{name.lstrip('.')}")):
            return True
    return False
