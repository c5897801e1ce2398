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
from stackmend.connection import (
    make_mark,
    parse_probe,
    parse_rows,
    parse_sections,
    read_frame,
    read_script,
    script,
)
from stackmend.models import store
from stackmend.models.spec import Endpoint, ModelsPolicy, Name, record_path
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
from stackmend.redaction import format_safe_line

#: What of a disk is not taken as it is.
_MERGED = ("place", "models")

_PID = re.compile(r"[0-9]{1,10}")

Sections = Mapping[str, tuple[int, list[str]]]


@dataclass(frozen=True)
class Query:
    """The arguments of a reading, and the marks of its sections.

    :param mark: the mark of its sections.
    :param inner: the mark of the sections about a directory, on the host or in a container.
    """

    mark: str = ""
    inner: str = ""
    project: str = ""
    service: str = ""
    endpoint: str = ""


class ModelStore(FactBase[StoreState]):
    """What a model server has: its models, their blobs, what is loaded; reads only, one command.

    + project: the Compose project that the server's service belongs to; empty for any.
    + service: the Compose service that is the server, or a container's name without a project.
    + endpoint: the address of a server that is not such a service, as the host sees it.
    + hashes: whether to verify each blob's content against its digest. That reads every byte: allow
      ``_timeout`` seconds enough.

    The probe reads the disk on the host or through ``docker exec``. It cannot read that of a server
    elsewhere: ``layers``, ``blobs`` and ``free`` are ``None`` there. It asks the server with curl,
    wget, python3, bash or nc, whichever the host or the container has. Without root it reads a
    volume's files through ``docker exec``.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.models.facts.ModelStore project=ai
    """

    _query = Query()

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
        self._query = Query(make_mark(), make_mark(), project, service, endpoint)
        return script(
            "stackmend.models",
            "probe",
            project,
            service,
            "https" if place and place.tls else "http",
            place.address if place else "",
            str(place.port) if place else "",
            "yes" if hashed else "no",
            record_path(project, service, place),
            read_script("stackmend.checks", "attempt"),
            read_frame() + read_script("stackmend.models", "store"),
            self._query.inner,
            mark=self._query.mark,
            shared=["own"],
        )

    def process(self, output: list[str]) -> StoreState:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(lambda lines: parse(lines, self._query), output, "the models")


def parse(output: Sequence[str], query: Query) -> StoreState:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, query.mark)
    if "complete" not in found:
        raise ValueError("it did not run to its end")
    server = _parse_server(found, query)
    tags = _parse_models(_parse_answer(found, "tags")[1])
    disk, reason = _parse_disk(found, server, tags, query.inner)
    record, problem = _parse_record(found.get("record"))
    known: dict[str, Any] = {}
    if disk is not None:
        server = server.model_copy(update={"place": disk.place})
        known = {name: value for name, value in vars(disk).items() if name not in _MERGED}
    loaded = _parse_models(_parse_answer(found, "ps")[1])
    return StoreState(
        now=float(found["clock"][1][0]),
        server=server,
        models=_merge(disk.models if disk else None, tags),
        loaded=None if loaded is None else tuple(_parse_loaded(row, name) for name, row in loaded),
        record=record,
        record_problem=problem,
        named=_parse_named(found.get("named", (0, []))[1]),
        reason=reason,
        **known,
    )


def _parse_server(found: Sections, query: Query) -> Server:
    status, lines = found.get("engine", (0, []))
    where = query.endpoint or query.service
    if status == 127:
        return Server(status="absent", reason="docker is not installed on this host")
    if status != 0:
        # Docker's client adds the request, which explains nothing.
        reason = " ".join(" ".join(lines).split()).partition(': Get "')[0] or "no reason given"
        return Server(
            status="unknown", reason=format_safe_line(f"cannot ask Docker: {reason}", 400)
        )
    name = next((name for name in found if name.startswith("container ")), "")
    known: dict[str, Any] = {}
    if name:
        pairs = (line.partition(" ")[::2] for line in found[name][1])
        fields = {key: str(json.loads(value)) for key, value in pairs if value}
        known = {
            "container": name.removeprefix("container "),
            "container_name": fields.get("name", "").removeprefix("/"),
            "state": fields.get("state", ""),
            "health": fields.get("health", ""),
            "started": fields.get("started", ""),
        }
        if known["state"] != "running":
            state = known["state"] or "in no known state"
            reason = f"its container {known['container_name']} is {state}"
            return Server(status="stopped", reason=reason, **known)
    elif not query.endpoint:
        of = f" of the project {query.project}" if query.project else ""
        return Server(status="absent", reason=f"there is no container of {where}{of}")
    elif "process" in found:
        known["started"] = " ".join(found["process"][1]).strip()
    known["proxy"] = " ".join(found.get("proxy", (0, []))[1]).strip()
    reached = (found.get("reached", (0, []))[1] or [""])[0].split(" ")
    outcome, version, reason = _classify(found, where)
    if outcome == "up" and len(reached) > 2 and reached[2]:
        # Only its container's own network reaches it: no other container does.
        outcome, reason = (
            "unreachable",
            f"{where} answers inside its container, but not from the host: does it listen on "
            "127.0.0.1 only? Set OLLAMA_HOST=0.0.0.0 there",
        )
    elif outcome == "up":
        known |= {
            "address": reached[0],
            "port": int(reached[1]),
            "tls": query.endpoint.startswith("https://"),
        }
    return Server(status=outcome, reason=reason, version=version, **known)


#: The exit statuses of checks/attempt.sh: for a name without an address, and all others.
_NO_NAME = 6
_REASONS = {
    7: "nothing listens there, or something blocks the connection",
    18: "the answer ended before it was complete",
    28: "no answer within 10 s",
    35: "the TLS handshake failed",
    52: "the connection was closed without an answer",
    56: "the connection was reset",
    60: "its certificate is not trusted",
}


def _classify(found: Sections, where: str) -> tuple[ServerStatus, str, str]:
    """What the answer to ``/api/version`` says of a server: status, version, reason."""
    status, body = _parse_answer(found, "version")
    exit_status = found.get("api version", (99, []))[0]
    version = body.get("version") if isinstance(body, dict) else None
    if status == 200 and isinstance(version, str):
        return "up", version, ""
    if status in (401, 403, 407):
        reason = f"{where} asks for authentication (HTTP {status}); Ollama itself never does"
        return "auth", "", reason
    if status >= 500:
        return "unreachable", "", f"{where} answers HTTP {status}"
    if status:
        reason = f"what answers at {where} is not Ollama: HTTP {status} to GET /api/version"
        return "not-ollama", "", reason
    if exit_status in (99, 126, 127):
        tools = "curl, wget, python3, bash or nc"
        reason = f"cannot ask {where}: neither the host nor the container has {tools}"
        return "unknown", "", reason
    if exit_status == 0:
        return "not-ollama", "", f"what answers at {where} does not speak HTTP"
    if exit_status == _NO_NAME:
        return "unreachable", "", f"the name {Endpoint.parse(where).address} does not resolve"
    output = " ".join(" ".join(found.get("said version", (0, []))[1]).split())
    exit_status = 28 if exit_status in (124, 137, 143) else exit_status
    return "unreachable", "", _REASONS.get(exit_status, output or f"status {exit_status}")


_STATUS_LINE = re.compile(r"\s*HTTP/\d(?:\.\d)? (\d{3})\b")


def _parse_answer(found: Sections, what: str) -> tuple[int, Any]:
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


def _parse_models(body: Any) -> tuple[tuple[Name, Mapping[str, Any]], ...] | None:
    """The models of an answer that have a name; ``None`` where it is no answer."""
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


def _parse_disk(
    found: Sections,
    server: Server,
    tags: tuple[tuple[Name, Mapping[str, Any]], ...] | None,
    inner: str,
) -> tuple[store.Disk | None, str]:
    """What the disk holds, or why that is not known."""
    name = next((name for name in found if name.split(" ")[0] == "directory"), "")
    if not name:
        if server.container:
            return (
                None,
                "cannot read the directory of the models, neither on the host nor in the container",
            )
        if "process" in found:
            return None, "cannot read which directory its process has its models in: run as root"
        return None, "cannot reach the server's disk from this host"
    path = "\n".join(found[name][1])
    if not (path.startswith("/") and is_inside(path[1:])):
        return None, f"the directory of the models is {path!r}, which is no absolute path"
    try:
        stored = parse_sections(found["stored"][1], inner)
    except ValueError as error:
        return None, f"cannot parse what the probe printed about {path}: {error}"
    place = Place(path=path, container=name.removeprefix("directory")[4:])
    if "within" in found:
        process, _, inside = "\n".join(found["within"][1]).partition("\n")
        if not (_PID.fullmatch(process) and inside.startswith("/") and is_inside(inside[1:])):
            return None, f"cannot parse where the process has its models: {inside!r}"
        place = Place(path=inside, process=int(process))
    disk = store.parse_disk(stored, place)
    if isinstance(disk, str):
        return None, disk
    listed = {_parse_tag(name, row) for name, row in tags or ()}
    if listed and not any(_is_same(tag, model) for tag in listed for model in disk.models):
        return None, f"the models below {path} are not those that the server lists"
    return disk, ""


def _is_same(tag: StoredModel, model: StoredModel) -> bool:
    return tag.name.key == model.name.key and (
        tag.digest == model.digest or not tag.digest or not model.digest
    )


def _merge(
    disk: Sequence[StoredModel] | None,
    tags: tuple[tuple[Name, Mapping[str, Any]], ...] | None,
) -> tuple[StoredModel, ...]:
    """The models of the disk with what the server says of them, and those that only it knows."""
    listed = {name.key: (name, row) for name, row in tags or ()}
    models = []
    for model in disk or ():
        key = model.name.key
        update: dict[str, Any] = {"served": None if tags is None else key in listed}
        if key in listed:
            tag = _parse_tag(*listed.pop(key))
            update |= {
                field: getattr(tag, field)
                for field in ("digest", "size", "quantization", "family", "parameters")
                if not getattr(model, field)
            }
        models.append(model.model_copy(update=update))
    models += [_parse_tag(name, row) for name, row in listed.values()]
    return tuple(sorted(models, key=lambda model: str(model.name)))


def _parse_tag(name: Name, row: Mapping[str, Any]) -> StoredModel:
    details = row.get("details") or {}
    try:
        modified = datetime.fromisoformat(_truncate(str(row.get("modified_at")))).timestamp()
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


def _truncate(time: str) -> str:
    """Go writes nanoseconds; Python reads microseconds."""
    return re.sub(r"(\.\d{1,6})\d*", r"\1", time)


def _parse_loaded(row: Mapping[str, Any], name: Name) -> LoadedModel:
    return LoadedModel(
        name=name,
        size=row.get("size") or 0,
        size_vram=row.get("size_vram") or 0,
        context=row.get("context_length") or 0,
        expires=str(row.get("expires_at") or ""),
    )


def _parse_record(section: tuple[int, list[str]] | None) -> tuple[Record, str]:
    if section is None:
        return Record(), ""
    status, lines = section
    if status != 0:
        return Record(), f"cannot read the record of what was pulled: {' '.join(lines)}"
    try:
        return Record.model_validate_json("\n".join(lines)), ""
    except ValidationError:
        return Record(), "the record of what was pulled is not one of stackmend"


def _parse_named(lines: Sequence[str]) -> tuple[NamedModel, ...]:
    found: dict[NamedModel, None] = {}
    for entry, service in parse_rows(lines, 2):
        variable, _, value = str(entry).partition("=")
        for part in value.split(","):
            try:
                name = Name.parse(part.strip())
            except ValueError:
                continue
            named = NamedModel(name=name, service=str(service or ""), variable=variable)
            found[named] = None
    return tuple(found)
