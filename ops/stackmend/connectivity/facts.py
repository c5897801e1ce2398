"""Probe text to state: what a host meets on its way to each endpoint."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any

from pyinfra.api import FactBase, StringCommand

from stackmend.connection import (
    PROBE_TIMEOUT,
    Unknown,
    make_mark,
    parse_probe,
    parse_sections,
    script,
)
from stackmend.connectivity.spec import Endpoint
from stackmend.connectivity.state import Clock, HostConnectivity

#: Lines of one endpoint from one place that are read.
MAXIMUM_LINES = 2000

_ROW = re.compile(r"(-|[0-9]{1,3}) (host|container) ([a-z]+)(?: (.*))?")
_CONTAINER = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Connectivity(FactBase[HostConnectivity]):
    """What a host, and a container on it, meet on the way to endpoints outside; reads only.

    + endpoints: as in ``stackmend.connectivity.spec``; a wrong one raises
      ``pydantic.ValidationError`` before the host is asked
    + packages: whether to look at the host's own package sources as well
    + project: the Compose project from one of whose containers to look as well
    + timeout: seconds that one check of one layer may take

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.connectivity.facts.Connectivity endpoints='["https://ghcr.io/v2/"]'
    """

    _mark = ""
    _asked = 0.0
    _endpoints: tuple[Endpoint, ...] = ()
    limit = PROBE_TIMEOUT

    def command(
        self,
        endpoints: Sequence[Any] = (),
        packages: bool = False,
        project: str = "",
        timeout: int = 5,
    ) -> StringCommand:
        """The probe."""
        self._asked, self._mark = time.time(), make_mark()
        self._endpoints = tuple(Endpoint.model_validate(endpoint) for endpoint in endpoints)
        self.limit = PROBE_TIMEOUT + 4 * timeout
        return script(
            "stackmend.connectivity",
            "probe",
            str(timeout),
            project,
            "yes" if packages else "no",
            *map(_format_endpoint, self._endpoints),
            mark=self._mark,
            before=["exchange.py", "echo.py"],
            shared=["own"],
        )

    def process(self, output: list[str]) -> HostConnectivity:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        answered = time.time()
        return parse_probe(
            lambda lines: parse(lines, self._mark, self._endpoints, self._asked, answered),
            output,
            "the connectivity",
        )


def _format_endpoint(endpoint: Endpoint) -> str:
    addresses = ",".join(endpoint.addresses) or "-"
    repository = endpoint.rate_limit or "-"
    return " ".join(
        (
            endpoint.kind,
            endpoint.scheme,
            endpoint.host,
            str(endpoint.port),
            endpoint.path,
            repository,
            addresses,
        )
    )


def parse(
    output: Sequence[str],
    mark: str,
    endpoints: Sequence[Endpoint],
    asked: float,
    answered: float,
) -> HostConnectivity:
    """Probe output to state.

    :param output: the lines that the probe wrote.
    :param mark: the mark that it was given.
    :param endpoints: those that it was asked for; the package sources that it found follow them.
    :param asked: the controller's clock before the host was asked.
    :param answered: the same when the answer was there.
    :raises ValueError: the output is not a probe's, or was cut off.
    """
    sections = parse_sections(output, mark)
    if "observed" not in sections:
        reason = next((line for line in output if line and not line.startswith(mark)), "")
        raise ValueError(f"it did not run to its end: {reason.lstrip('|')}".rstrip(": "))
    rows = [
        match.groups(default="")
        for line in sections["observed"][1]
        if (match := _ROW.fullmatch(line))
    ]
    general = [(word, rest) for index, _, word, rest in rows if index == "-"]
    own: dict[str, list[str]] = {}
    for word, rest in general:
        own.setdefault(word, []).append(rest)
    if "complete" not in own:
        raise ValueError("it did not run to its end")
    skipped = dict(_parse_skip(rest) for rest in own.get("skip", []))
    container = own.get("container", [""])[0]
    if not _CONTAINER.fullmatch(container):
        container = ""
    alone = Unknown(own.get("alone", ["no container could be looked from"])[0])
    by_endpoint: dict[int, list[tuple[str, str, str]]] = {}
    for index, place, word, rest in rows:
        if index != "-":
            by_endpoint.setdefault(int(index), []).append((place, word, rest))
    states = [
        _parse_endpoint(index, found[:MAXIMUM_LINES], endpoints, skipped, container, alone)
        for index, found in sorted(by_endpoint.items())
    ]
    if len(states) < len(endpoints):
        raise ValueError("it did not look at every endpoint")
    return HostConnectivity.model_validate(
        {
            "clock": Clock(asked=asked, now=int(own["now"][0]), answered=answered),
            "endpoints": tuple(states),
            "routes": {int(rest[0]): rest.endswith("yes") for rest in own.get("route", [])},
            "servers": tuple(dict.fromkeys(own.get("server", []))),
            "reached": tuple(dict.fromkeys(own.get("reached", []))),
            "repeated": max(0, int(own.get("repeated", ["0"])[0])),
            "container": container,
            "took": int(own.get("took", ["0"])[0]),
        }
    )


def _parse_skip(rest: str) -> tuple[str, str]:
    """A layer and why it was not looked at: the reason begins with the tool that is missing."""
    for tool in ("bash", "curl", "ping", "getent", "python3", "its programs"):
        layer, found, reason = rest.partition(f" {tool}")
        if found:
            return layer.rstrip(":"), f"{tool}{reason}"
    return "all", rest


def _parse_endpoint(
    index: int,
    rows: Sequence[tuple[str, str, str]],
    endpoints: Sequence[Endpoint],
    skipped: Mapping[str, str],
    container: str,
    alone: Unknown,
) -> dict[str, Any]:
    host = [(word, rest) for place, word, rest in rows if place == "host"]
    inside = [(word, rest) for place, word, rest in rows if place == "container"]
    named = dict(host)
    if index <= len(endpoints):
        endpoint = endpoints[index - 1]
    else:
        kind, scheme, name, port, path = named["endpoint"].split(" ")
        endpoint = Endpoint.model_validate(
            {"kind": kind, "scheme": scheme, "host": name, "port": int(port), "path": path}
        )
    rate = dict(rest.partition(" ")[::2] for word, rest in host if word == "rate")
    return {
        "endpoint": endpoint,
        "host": _parse_view(host, skipped),
        "container": {**_parse_view(inside, {}), "proxy": dict(inside).get("proxy", "")}
        if container
        else alone,
        "proxy": named.get("proxy", ""),
        "forwarder": "forwarder" in named,
        "date": _parse_date(named.get("date", "")),
        "rate": {**rate, "status": _parse_number(rate.get("status", ""))} if rate else None,
    }


def _parse_view(rows: Iterable[tuple[str, str]], skipped: Mapping[str, str]) -> dict[str, Any]:
    lookups, connects, bursts = [], [], []
    answers: list[dict[str, Any]] = []
    routed: dict[str, bool] = {}
    own: list[str] = []
    more = dict(skipped)
    small = None
    for word, rest in rows:
        words = rest.split(" ")
        match word:
            case "lookup":
                lookups.append(_parse_lookup(rest.split()))
            case "routed":
                routed[_parse_address(words[0])] = words[1] == "yes"
            case "own":
                own.append(_parse_address(words[0]))
            case "connect":
                address, status, took = words
                connects.append(
                    {"address": _parse_address(address), "status": status, "ms": int(took)}
                )
            case "answer":
                answers.append(_parse_answer(words))
            case "error" if answers:
                answers[-1]["error"] = [*rest.split(" ", 2), "", ""][2].strip()
            case "header" if answers:
                _, key, value = [*rest.split(" ", 2), ""][:3]
                answers[-1].setdefault("headers", {})[key] = value.strip()
            case "burst":
                address, *numbers = words
                handshakes, repeated, spells, control, late, echoes, received = map(int, numbers)
                bursts.append(
                    {
                        "address": _parse_address(address),
                        "handshakes": handshakes,
                        "repeated": repeated,
                        "spells": spells,
                        "control": control,
                        "late": late,
                        "echoes": echoes,
                        "missing": max(0, echoes - received),
                    }
                )
            case "small":
                small = rest == "yes"
            case "skip":
                layer, reason = _parse_skip(rest)
                more[layer] = reason
    return {
        "lookups": tuple(lookups),
        "routed": routed,
        "own": tuple(own),
        "connects": tuple(connects),
        "answers": tuple(answers),
        "bursts": tuple(bursts),
        "small": small,
        "skipped": more,
    }


def _parse_lookup(words: Sequence[str]) -> dict[str, Any]:
    server, family, status, took, *addresses = words
    return {
        "server": "" if server == "-" else server,
        "family": int(family) or None,
        "status": status,
        "ms": int(took),
        "addresses": tuple(map(_parse_address, addresses)),
    }


def _parse_answer(words: Sequence[str]) -> dict[str, Any]:
    address, *numbers = words
    code, status, tunnel, connected, secured, took, received = map(int, numbers)
    return {
        "address": "" if address == "-" else _parse_address(address),
        "exit": code,
        "status": status,
        "tunnel": tunnel,
        "connected": connected,
        "secured": secured,
        "ms": took,
        "received": received,
    }


def _parse_address(text: str) -> str:
    """An address as Python writes it, however it was written; a zone stays.

    :raises ValueError: it is none.
    """
    return str(ip_address(text))


def _parse_number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def _parse_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
