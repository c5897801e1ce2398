"""The project's files on the controller: read once, checked as far as a controller can.

Docker Compose itself judges the whole file on the host, before anything is changed there. What is
checked here is what saves a journey: unparsable YAML, unknown keys, bad ports, services that do not
exist, files that are missing or lie outside the project.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ops.compose.spec import ComposeSpec
from ops.paths import is_inside

#: Where Compose looks for its file, in its own order of preference.
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")

#: What Compose lays over it of its own accord.
OVERRIDE_FILES = frozenset(
    f"{stem}.override.{ending}"
    for stem in ("compose", "docker-compose")
    for ending in ("yml", "yaml")
)

#: The project is sent as one archive over one channel; data belongs into volumes.
MAXIMUM_BYTES = 64 * 1024**2

LEFT_OUT = frozenset({".git", "__pycache__", ".DS_Store", ".venv", "node_modules"})

TOP_KEYS = frozenset(
    "name version services networks volumes configs secrets include models".split()
)

# https://github.com/compose-spec/compose-spec/blob/main/05-services.md
SERVICE_KEYS = frozenset(
    "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs "
    "container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime "
    "cpu_shares cpus cpuset credential_spec depends_on deploy develop device_cgroup_rules devices "
    "dns dns_opt dns_search domainname driver_opts entrypoint env_file environment expose extends "
    "external_links extra_hosts gpus group_add healthcheck hostname image init ipc isolation "
    "label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness "
    "memswap_limit models network_mode networks oom_kill_disable oom_score_adj pid pids_limit "
    "platform ports post_start pre_stop privileged profiles provider pull_policy read_only "
    "restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period stop_signal "
    "storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volumes "
    "volumes_from working_dir".split()
)

PORT = re.compile(
    r"""(?:(?P<host>\[[0-9A-Fa-f:.%]+\]|\d+(?:\.\d+){3}):)?
        (?:(?P<published>\d+(?:-\d+)?)?:)?
        (?P<target>\d+(?:-\d+)?)
        (?:/(?P<protocol>[a-z]+))?""",
    re.VERBOSE,
)


class SourceError(ValueError):
    """The project's files cannot be used; the text says where and what would be right."""


@dataclass(frozen=True)
class File:
    """One file of the project: its permission bits and its content."""

    mode: int
    content: bytes

    @cached_property
    def sha256(self) -> str:
        """The content's digest, as ``sha256sum`` prints it."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Source:
    """The files of one project, as they are to lie on the host, by path relative to it."""

    files: Mapping[str, File]

    @cached_property
    def digest(self) -> str:
        """One digest over every path, mode and content."""
        total = hashlib.sha256()
        for path, file in sorted(self.files.items()):
            total.update(
                f"{path}\0{file.mode:o}\0{file.sha256}\0".encode("utf-8", "surrogateescape")
            )
        return total.hexdigest()

    @cached_property
    def digests(self) -> dict[str, str]:
        """Path to content digest."""
        return {path: file.sha256 for path, file in sorted(self.files.items())}

    @cached_property
    def ignored(self) -> dict[str, frozenset[str]]:
        """For each directory with a ``.dockerignore``, the files that no build from it sees."""
        found: dict[str, frozenset[str]] = {}
        for path, file in self.files.items():
            context, slash, name = path.rpartition("/")
            if name != ".dockerignore":
                continue
            from pathspec import PathSpec

            lines = [line.strip() for line in file.content.decode(errors="replace").splitlines()]
            spec = PathSpec.from_lines("gitignore", map(_anchored, filter(None, lines)))
            found[context] = frozenset(
                other
                for other in self.files
                if other.startswith(context + slash)
                and spec.match_file(other.removeprefix(context + slash))
            )
        return found

    def archive(self) -> bytes:
        """The files as a tar archive that is the same for the same files."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path, file in sorted(self.files.items()):
                info = tarfile.TarInfo(f"./{path}")
                info.size, info.mode = len(file.content), file.mode
                tar.addfile(info, io.BytesIO(file.content))
        return buffer.getvalue()


def load(spec: ComposeSpec) -> Source:
    """Read ``spec.source`` and check it against the spec.

    :raises SourceError: naming the file and the field.
    """
    root = spec.source
    if not root.is_dir():
        raise SourceError(f"source: {root} is not a directory on this machine")
    # Looked for before all is read: a wrong directory may be a large one.
    name = next((name for name in COMPOSE_FILES if (root / name).is_file()), None)
    if name is None:
        raise SourceError(f"source: {root} holds none of {', '.join(COMPOSE_FILES)}")
    files = dict(_read(root))
    if spec.env:
        given = files[".env"].content if ".env" in files else b""
        if given and not given.endswith(b"\n"):
            given += b"\n"
        files[".env"] = File(0o600, given + dotenv(spec.variables()).encode())
    source = Source(files)
    _check(f"source: {name}", parse(f"source: {name}", files[name].content), source, spec)
    return source


def _anchored(pattern: str) -> str:
    """A ``.dockerignore`` line for a matcher of ``.gitignore``, where names match at any depth."""
    if pattern.startswith("#"):
        return pattern
    no = "!" if pattern.startswith("!") else ""
    return f"{no}/{pattern.removeprefix('!').strip().lstrip('/')}"


def dotenv(variables: Mapping[str, str]) -> str:
    """Render variables so that Compose reads exactly these values back.

    Double quotes are the one form in which its reader undoes an escape for everything: backslash,
    quote, dollar and newline (compose-go, ``dotenv/parser.go``).
    """
    lines = []
    for name, value in sorted(variables.items()):
        for plain, escaped in (
            ("\\", "\\\\"),
            ('"', '\\"'),
            ("$", "\\$"),
            ("\n", "\\n"),
            ("\r", "\\r"),
        ):
            value = value.replace(plain, escaped)
        lines.append(f'{name}="{value}"\n')
    return "".join(lines)


def _read(root: Path) -> Iterator[tuple[str, File]]:
    total = 0
    inside = root.resolve()
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if LEFT_OUT & set(relative.parts):
            continue
        name = relative.as_posix()
        if path.is_symlink() and not path.exists():
            raise SourceError(f"source: {name} is a link that leads nowhere")
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise SourceError(f"source: {name} is a link to {path.resolve()}, outside the project")
        if path.is_dir():
            if path.is_symlink():
                raise SourceError(
                    f"source: {name} is a link to a directory; put the directory itself there"
                )
            continue
        if not path.is_file():
            raise SourceError(f"source: {name} is neither a file nor a directory")
        if any(0xD800 <= ord(one) <= 0xDFFF for one in name):
            raise SourceError(f"source: {name!r} is not a name in UTF-8")
        if "\n" in name:
            raise SourceError(f"source: {name!r} holds a newline, which a file list cannot carry")
        if not is_inside(name):
            raise SourceError(f"source: {name!r} holds a control character; rename the file")
        content = path.read_bytes()
        total += len(content)
        if total > MAXIMUM_BYTES:
            raise SourceError(
                f"source: {root} holds more than {MAXIMUM_BYTES // 1024**2} MiB "
                f"(at {name}); keep data in volumes"
            )
        yield name, File(path.stat().st_mode & 0o755, content)


class _Loader(yaml.SafeLoader):
    """YAML as Compose reads it, with its two tags of its own."""


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return None


# The core of YAML 1.2. In YAML 1.1, 6379:22 is a number in base 60, 08 an error, a service named
# "on" is true, and 2024-01-99 a wrong date.
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("merge", r"<<$", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
for _tag in ("!reset", "!override"):
    _Loader.add_multi_constructor(_tag, _tagged)


def parse(name: str, content: bytes) -> dict[str, Any]:
    """The content of a compose file.

    :param name: what it is called in an error.
    :raises SourceError: it is not YAML, or not a mapping.
    """
    try:
        # A SafeLoader subclass: nothing in the file can construct more than plain data.
        data = yaml.load(content, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # The last ones come of a value that is not what its explicit tag says.
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        what = getattr(error, "problem", None) or str(error)
        raise SourceError(f"{name}{line}: not valid YAML: {what}") from None
    if not isinstance(data, dict):
        raise SourceError(f"{name}: must be a mapping with 'services'")
    return data


def _check(name: str, data: dict[str, Any], source: Source, spec: ComposeSpec) -> None:
    for key in data:
        if key not in TOP_KEYS and not str(key).startswith("x-"):
            raise SourceError(
                f"{name}: {key}: unknown key; known are {', '.join(sorted(TOP_KEYS))}"
            )
    services = data.get("services")
    if services is None and "include" not in data:
        raise SourceError(f"{name}: services: missing")
    if not isinstance(services or {}, dict):
        raise SourceError(f"{name}: services: must be a mapping of service names")
    services = services or {}
    # What is included or laid over may have services and sections of its own.
    complete = "include" not in data and not OVERRIDE_FILES & set(source.files)
    for service, body in services.items():
        _check_service(f"{name}: services.{service}", body, services, source, complete)
    for index, item in enumerate(_list(f"{name}: include", data.get("include"))):
        paths = item.get("path") if isinstance(item, dict) else item
        for path in paths if isinstance(paths, list) else [paths]:
            _check_path(f"{name}: include.{index}", path, source, exists=True)
    for section in ("configs", "secrets"):
        for key, body in _mapping(f"{name}: {section}", data.get(section)).items():
            if isinstance(body, dict) and isinstance(body.get("file"), str):
                _check_path(f"{name}: {section}.{key}.file", body["file"], source, exists=True)
    if complete:
        for index, check in enumerate(spec.checks):
            for field in ("inside", "service"):
                wanted = getattr(check, field, None)
                if wanted is not None and wanted not in services:
                    raise SourceError(
                        f"checks.{index}.{field}: there is no service {wanted!r}; "
                        f"there are {_names(services)}"
                    )


def _check_service(
    where: str, body: Any, services: Mapping[str, Any], source: Source, complete: bool
) -> None:
    if not isinstance(body, dict):
        raise SourceError(f"{where}: must be a mapping")
    for key in body:
        if key not in SERVICE_KEYS and not str(key).startswith("x-"):
            raise SourceError(f"{where}.{key}: unknown key of a service")
    if not {"image", "build", "extends", "provider"} & set(body):
        raise SourceError(f"{where}: has neither image nor build")
    for index, port in enumerate(_list(f"{where}.ports", body.get("ports"))):
        _check_port(f"{where}.ports.{index}", port)
    if complete:
        for field, needed in _needed(where, body):
            if needed not in services:
                raise SourceError(
                    f"{where}.{field}: there is no service {needed!r}; there are {_names(services)}"
                )
    for key in ("env_file", "label_file"):
        given = body.get(key)
        if isinstance(given, str):
            given = [given]
        for index, item in enumerate(_list(f"{where}.{key}", given)):
            path, required = (item, True)
            if isinstance(item, dict):
                path, required = item.get("path"), item.get("required", True)
            _check_path(f"{where}.{key}.{index}", path, source, exists=bool(required))
    _check_build(f"{where}.build", body.get("build"), source)
    extends = body.get("extends")
    if isinstance(extends, dict) and extends.get("file") is not None:
        _check_path(f"{where}.extends.file", extends["file"], source, exists=True)
    for index, mount in enumerate(_list(f"{where}.volumes", body.get("volumes"))):
        path = mount.get("source") if isinstance(mount, dict) else str(mount).split(":", 1)[0]
        if isinstance(path, str) and path.startswith("."):
            _check_path(f"{where}.volumes.{index}", path, source, exists=False)


def _check_build(where: str, build: Any, source: Source) -> None:
    context = build.get("context", ".") if isinstance(build, dict) else build
    if not isinstance(context, str) or "://" in context or context.startswith("git@"):
        return
    _check_path(f"{where}.context", context, source, exists=False)
    if isinstance(build, dict) and isinstance(build.get("dockerfile"), str):
        path = PurePosixPath(context, build["dockerfile"]).as_posix()
        _check_path(f"{where}.dockerfile", path, source, exists=True)


def _needed(where: str, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each field of a service that names another service, with that name."""
    depends = body.get("depends_on") or []
    if not isinstance(depends, list | dict):
        raise SourceError(f"{where}.depends_on: must be a list or a mapping of service names")
    for name in depends:
        yield "depends_on", str(name)
    for field in ("network_mode", "pid", "ipc"):
        kind, colon, name = str(body.get(field) or "").partition(":")
        if kind == "service" and colon and "$" not in name:
            yield field, name
    for field in ("links", "volumes_from"):
        for item in _list(f"{where}.{field}", body.get(field)):
            name = str(item).partition(":")[0]
            if name != "container" and "$" not in name:
                yield field, name


def _names(services: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, services)))


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SourceError(f"{where}: must be a mapping")
    return value


def _list(where: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise SourceError(f"{where}: must be a list")
    return value


def _check_path(where: str, path: Any, source: Source, *, exists: bool) -> None:
    if not isinstance(path, str):
        raise SourceError(f"{where}: must be a path")
    if "$" in path or path.startswith(("/", "~")):
        return
    depth: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            if not depth:
                raise SourceError(f"{where}: {path} lies outside the project")
            depth.pop()
        elif part != ".":
            depth.append(part)
    if exists and "/".join(depth) not in source.files:
        raise SourceError(f"{where}: {path} is not among the project's files")


def _check_port(where: str, port: Any) -> None:
    if isinstance(port, dict):
        for key in ("target", "published"):
            value = port.get(key)
            if value is not None and "$" not in str(value):
                _check_range(f"{where}.{key}", str(value), lowest=0 if key == "published" else 1)
        return
    text = str(port)
    if "$" in text:
        return
    match = PORT.fullmatch(text)
    if match is None:
        raise SourceError(
            f"{where}: {text!r} is not [HOST:][PUBLISHED:]TARGET[/PROTOCOL], "
            "such as 127.0.0.1:8000:80"
        )
    for key in ("published", "target"):
        if match[key]:
            _check_range(where, match[key], lowest=0 if key == "published" else 1)


def _check_range(where: str, text: str, *, lowest: int) -> None:
    """Published as 0 lets the engine choose; a container's own port has no such meaning."""
    numbers = [int(number) if number.isdigit() else -1 for number in text.split("-")]
    if not all(lowest <= number <= 65535 for number in numbers):
        raise SourceError(f"{where}: {text} is not a port; ports are 1 to 65535")
    if numbers != sorted(numbers) or len(numbers) > 2:
        raise SourceError(f"{where}: {text} is not a range of ports, such as 8000-8010")
