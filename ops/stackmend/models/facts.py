"""Probe text to state: what a model server has, from its disk and its own answers."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import FactValueError

from stackmend.answers import read_json
from stackmend.connection import fresh_mark, parsed, rows, script, sections, text
from stackmend.models import store
from stackmend.models.spec import Endpoint, ModelsPolicy, Name, record
from stackmend.models.state import (
    LoadedModel,
    NamedModel,
    Place,
    Record,
    Server,
    ServerStatus,
    StoredModel,
    StoreState,
)
from stackmend.paths import is_inside
from stackmend.redaction import safe_line

Sections = Mapping[str, tuple[int, list[str]]]


@dataclass(frozen=True)
class Asked:
    """What a reading was asked.

    :param mark: the mark of its sections.
    :param inner: the mark of the sections that tell of a directory, on the host or in a container.
    """

    mark: str = ""
    inner: str = ""
    project: str = ""
    service: str = ""
    endpoint: str = ""


class ModelStore(FactBase[StoreState]):
    """What a model server has: its models, their blobs, what is loaded; reads only, one command.

    + project: the Compose project that the server's service belongs to; empty for any.
    + service: the Compose service that is the server, or a container's name where no project is
      given.
    + endpoint: where a server answers that is not such a service, as the host sees it.
    + hashes: whether each blob's content is held against its digest. Every byte is read then:
      give ``_timeout`` seconds enough.

    What lies on the disk is read there, on the host or through ``docker exec``; of a server
    elsewhere only what it answers is known, and ``layers``, ``blobs`` and ``free`` are ``None``.
    The server is asked with curl, wget, python3, bash or nc, whichever the host or the container
    has. Without root a volume's files are read through ``docker exec``.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.models.facts.ModelStore project=ai
    """

    _asked = Asked()

    def command(
        self, project: str = "", service: str = "ollama", endpoint: str = "", hashes: bool = False
    ) -> StringCommand:
        """The probe, with its arguments quoted; ``hashes`` may be text, as the CLI passes it.

        :raises FactValueError: naming the argument that is wrong.
        """
        try:
            place = Endpoint.parse(endpoint) if endpoint else None
            ModelsPolicy(service=service)
        except ValidationError as error:
            raise FactValueError(f"service: {error.errors()[0]['msg']}") from None
        except ValueError as error:
            raise FactValueError(f"endpoint: {error}") from None
        hashed = str(hashes).lower() in ("true", "yes", "1")
        self._asked = Asked(fresh_mark(), fresh_mark(), project, service, endpoint)
        return script(
            "stackmend.models",
            "probe",
            project,
            service,
            "https" if place and place.tls else "http",
            place.address if place else "",
            str(place.port) if place else "",
            "yes" if hashed else "no",
            record(project, service, place),
            text("stackmend.checks", "attempt"),
            text("stackmend.connection", "frame") + text("stackmend.models", "store"),
            self._asked.inner,
            mark=self._asked.mark,
            shared=["own"],
        )

    def process(self, output: list[str]) -> StoreState:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parsed(lambda lines: parse(lines, self._asked), output, "the models")


def parse(output: Sequence[str], asked: Asked) -> StoreState:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = sections(output, asked.mark)
    if "complete" not in found:
        raise ValueError("it did not run to its end")
    server = _server(found, asked)
    tags = _models(_answer(found, "tags")[1])
    disk, reason = _disk(found, server, tags, asked.inner)
    recorded, problem = _record(found.get("record"))
    known: dict[str, Any] = {}
    if disk is not None:
        server = server.model_copy(update={"place": disk.place})
        known = {
            "blobs": disk.blobs,
            "problems": disk.problems,
            "hashed": disk.hashed,
            "partials": disk.partials,
            "free": disk.free,
        }
    loaded = _models(_answer(found, "ps")[1])
    return StoreState(
        now=float(found["clock"][1][0]),
        server=server,
        models=_merged(disk.models if disk else None, tags),
        loaded=None if loaded is None else tuple(_loaded(one, name) for name, one in loaded),
        record=recorded,
        record_problem=problem,
        named=_named(found.get("named", (0, []))[1]),
        reason=reason,
        **known,
    )


def _server(found: Sections, asked: Asked) -> Server:
    status, lines = found.get("engine", (0, []))
    where = asked.endpoint or asked.service
    if status == 127:
        return Server(status="absent", reason="docker is not installed on this host")
    if status != 0:
        # Docker's client adds the request, which tells nothing.
        said = " ".join(" ".join(lines).split()).partition(': Get "')[0] or "it says nothing"
        return Server(status="unknown", reason=safe_line(f"Docker cannot be asked: {said}", 400))
    name = next((name for name in found if name.startswith("container ")), "")
    known: dict[str, Any] = {}
    if name:
        told = (line.partition(" ")[::2] for line in found[name][1])
        shown = {key: str(json.loads(value)) for key, value in told if value}
        known = {
            "container": name.removeprefix("container "),
            "container_name": shown.get("name", "").removeprefix("/"),
            "state": shown.get("state", ""),
            "health": shown.get("health", ""),
        }
        if known["state"] != "running":
            state = known["state"] or "in no known state"
            reason = f"its container {known['container_name']} is {state}"
            return Server(status="stopped", reason=reason, **known)
    elif not asked.endpoint:
        of = f" of the project {asked.project}" if asked.project else ""
        return Server(status="absent", reason=f"there is no container of {where}{of}")
    known["proxy"] = " ".join(found.get("proxy", (0, []))[1]).strip()
    reached = (found.get("reached", (0, []))[1] or [""])[0].split(" ")
    outcome, version, reason = _judged(found, where)
    if outcome == "up" and len(reached) > 2 and reached[2]:
        # Only its container's own network reaches it, and so would no other container.
        outcome, reason = (
            "unreachable",
            f"{where} answers inside its container, but not from the host: does it listen on "
            "127.0.0.1 only? Set OLLAMA_HOST=0.0.0.0 there",
        )
    elif outcome == "up":
        known |= {
            "address": reached[0],
            "port": int(reached[1]),
            "tls": asked.endpoint.startswith("https://"),
        }
    return Server(status=outcome, reason=reason, version=version, **known)


#: What checks/attempt.sh exits with for a name without an address, and for the rest.
_NO_NAME = 6
_FAILED = {
    7: "nothing listens there, or the way is barred",
    18: "the answer ended before it was complete",
    28: "no answer within 10 s",
    35: "the TLS handshake failed",
    52: "the connection was closed without an answer",
    56: "the connection was reset",
    60: "its certificate is not trusted",
}


def _judged(found: Sections, where: str) -> tuple[ServerStatus, str, str]:
    """What the answer to ``/api/version`` makes of a server: status, version, reason."""
    status, body = _answer(found, "version")
    asked = found.get("api version", (99, []))[0]
    if status == 0:
        if asked in (99, 126, 127):
            return (
                "unknown",
                "",
                f"{where} cannot be asked: neither the host nor the container has curl, wget, "
                "python3, bash or nc",
            )
        if asked == 0:
            return "not-ollama", "", f"what answers at {where} does not speak HTTP"
        if asked == _NO_NAME:
            return "unreachable", "", f"the name {Endpoint.parse(where).address} does not resolve"
        said = " ".join(" ".join(found.get("said version", (0, []))[1]).split())
        told = _FAILED.get(28 if asked in (124, 137, 143) else asked, said or f"status {asked}")
        return "unreachable", "", told
    if status in (401, 403, 407):
        return (
            "auth",
            "",
            f"{where} asks for authentication (HTTP {status}); Ollama itself never does",
        )
    if status >= 500:
        return "unreachable", "", f"{where} answers HTTP {status}"
    version = body.get("version") if isinstance(body, dict) else None
    if status != 200 or not isinstance(version, str):
        return (
            "not-ollama",
            "",
            f"what answers at {where} is not Ollama: HTTP {status} to GET /api/version",
        )
    return "up", version, ""


_STATUS_LINE = re.compile(r"\s*HTTP/\d(?:\.\d)? (\d{3})\b")


def _answer(found: Sections, what: str) -> tuple[int, Any]:
    """The HTTP status, 0 for none, and the body, ``None`` where it is not JSON."""
    _, lines = found.get(f"api {what}", (99, []))
    lines = [line.rstrip("\r") for line in lines]
    status = 0
    if lines and (match := _STATUS_LINE.match(lines[0])):
        status = int(match[1])
        lines = lines[lines.index("") + 1 :] if "" in lines else []
    else:
        # wget writes the answer's head to its standard error.
        for line in found.get(f"said {what}", (0, []))[1]:
            if match := _STATUS_LINE.match(line):
                status = int(match[1])
    try:
        return status, read_json("\n".join(lines))
    except ValueError:
        return status, None


def _models(body: Any) -> tuple[tuple[Name, Mapping[str, Any]], ...] | None:
    """The models of an answer by name; ``None`` where it is not one.

    What has no name is left out.
    """
    if not isinstance(body, dict) or "models" not in body:
        return None
    rows = body["models"] or ()
    found = []
    for row in rows:
        try:
            found.append((Name.parse(str(row["name"])), row))
        except (ValueError, LookupError, TypeError):
            continue
    return tuple(found)


def _disk(
    found: Sections,
    server: Server,
    tags: tuple[tuple[Name, Mapping[str, Any]], ...] | None,
    inner: str,
) -> tuple[store.Disk | None, str]:
    """What lies on the disk, or why that is not known."""
    name = next((name for name in found if name.split(" ")[0] == "directory"), "")
    if not name:
        if server.container:
            return None, "the directory of the models can be read neither on the host nor inside"
        return None, "the server's disk cannot be reached from this host"
    path = "\n".join(found[name][1])
    if not (path.startswith("/") and is_inside(path[1:])):
        return None, f"the directory of the models cannot be {path!r}: an absolute path is needed"
    try:
        told = sections(found["stored"][1], inner)
    except ValueError as error:
        return None, f"what is told of {path} cannot be read: {error}"
    disk = store.disk(told, Place(path=path, container=name.removeprefix("directory")[4:]))
    if isinstance(disk, str):
        return None, disk
    served = {_tagged(name, row) for name, row in tags or ()}
    if served and not any(_same(one, model) for one in served for model in disk.models):
        return None, f"the models below {path} are not those that the server shows"
    return disk, ""


def _same(one: StoredModel, other: StoredModel) -> bool:
    return one.name.key == other.name.key and (
        one.digest == other.digest or not one.digest or not other.digest
    )


def _merged(
    disk: Sequence[StoredModel] | None,
    tags: tuple[tuple[Name, Mapping[str, Any]], ...] | None,
) -> tuple[StoredModel, ...]:
    """The models of the disk with what the server says of them, and those that only it knows."""
    served = {name.key: (name, row) for name, row in tags or ()}
    models = []
    for one in disk or ():
        update: dict[str, Any] = {"served": None if tags is None else one.name.key in served}
        if one.name.key in served:
            shown = _tagged(*served.pop(one.name.key))
            update |= {
                field: getattr(shown, field)
                for field in ("digest", "size", "quantization", "family", "parameters")
                if not getattr(one, field)
            }
        models.append(one.model_copy(update=update))
    models += [_tagged(name, row) for name, row in served.values()]
    return tuple(sorted(models, key=lambda one: str(one.name)))


def _tagged(name: Name, row: Mapping[str, Any]) -> StoredModel:
    details = row.get("details") or {}
    try:
        modified = datetime.fromisoformat(_short(str(row.get("modified_at")))).timestamp()
    except ValueError:
        modified = 0
    return StoredModel(
        name=name,
        digest=str(row.get("digest") or "").removeprefix("sha256:"),
        size=row.get("size") or 0,
        quantization=details.get("quantization_level") or "",
        family=details.get("family") or "",
        parameters=details.get("parameter_size") or "",
        modified=modified,
        served=True,
    )


def _short(time: str) -> str:
    """Go writes nanoseconds; Python reads microseconds."""
    return re.sub(r"(\.\d{1,6})\d*", r"\1", time)


def _loaded(row: Mapping[str, Any], name: Name) -> LoadedModel:
    return LoadedModel(
        name=name,
        size=row.get("size") or 0,
        size_vram=row.get("size_vram") or 0,
        context=row.get("context_length") or 0,
        expires=str(row.get("expires_at") or ""),
    )


def _record(section: tuple[int, list[str]] | None) -> tuple[Record, str]:
    if section is None:
        return Record(), ""
    status, lines = section
    if status != 0:
        return Record(), f"the record of what was pulled cannot be read: {' '.join(lines)}"
    try:
        return Record.model_validate_json("\n".join(lines)), ""
    except ValidationError:
        return Record(), "the record of what was pulled is not one of ours"


def _named(lines: Sequence[str]) -> tuple[NamedModel, ...]:
    found: dict[NamedModel, None] = {}
    for entry, service in rows(lines, 2):
        variable, _, value = str(entry).partition("=")
        for part in value.split(","):
            try:
                name = Name.parse(part.strip())
            except ValueError:
                continue
            named = NamedModel(name=name, service=str(service or ""), variable=variable)
            found[named] = None
    return tuple(found)
