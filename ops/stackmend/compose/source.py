"""The project's files on the controller: read once, checked as far as a controller can.

Docker Compose itself judges the whole file on the host, before anything is changed there. What is
checked here is what saves a journey: unparsable YAML, unknown keys, bad ports, services that do not
exist, files that are missing or lie outside the project. A directory that cannot be read whole is
an error, never a smaller project: what is not in it any more is removed on the host.
"""

import copy
import hashlib
import io
import re
import stat
import tarfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from stackmend import controller_files
from stackmend.compose import variables
from stackmend.compose.plan.contradictions import find_contradictions
from stackmend.compose.plan.declaration import is_file_name
from stackmend.compose.spec import ComposeSpec, GitSource
from stackmend.compose.state import LAYER_FILE, LINKS_FILE, OUR_FILES
from stackmend.controller_files import Unreadable
from stackmend.dotenv import parse_dotenv
from stackmend.problems import Problem, abbreviate, is_plain, show
from stackmend.raw import NAME_MAX, PATH_MAX
from stackmend.text import cut

if TYPE_CHECKING:
    from pathspec import PathSpec

#: Where Compose looks for its file, in its own order of preference.
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")

#: What Compose lays over it of its own accord: the first of them that is there.
OVERRIDE_FILES = tuple(
    f"{stem}.override.{ending}"
    for stem in ("compose", "docker-compose")
    for ending in ("yml", "yaml")
)

#: The project is sent as one archive over one channel; data belongs into volumes.
MAXIMUM_BYTES = 64 * 1024**2
MAXIMUM_FILES = 50_000

#: The limits of one compose file: bytes, values once every alias stands for what it names, how deep
#: they lie, and characters of their texts, once more with aliases.
MAXIMUM_YAML = 1024**2
MAXIMUM_NODES = 30_000
MAXIMUM_DEPTH = 64
MAXIMUM_TEXT = 4 * 1024**2

#: Lines of a ``.dockerignore``, and stars in one name of a line: each multiplies the time to match.
MAXIMUM_PATTERNS = 1000
MAXIMUM_STARS = 4

#: Digits of a number.
MAXIMUM_DIGITS = 30

#: Bytes by which a file's path on the host may be longer than in the project's directory: where it
#: waits and is kept below the state directory, and under what name it is written.
MARGIN = 256

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
    re.VERBOSE | re.ASCII,
)

# With zeros before them, as people write them.
PORT_NUMBER = re.compile(r"0{0,9}[0-9]{1,9}")

#: What is neither a path nor has a variable in it.
VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

#: The top-level sections that a service takes something of, but for networks.
_TAKEN = ("volumes", "configs", "secrets")

#: Compose's own rule; what is made of a service on the host is a file of its name.
SERVICE_NAME = re.compile(r"[a-zA-Z0-9._-]+")
MAXIMUM_SERVICE = 200


class SourceError(Problem):
    """The project's files cannot be used; the text names the place and what would be right."""


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
    def names_files(self) -> bool:
        """Whether its ``.env`` says which compose files there are."""
        return ".env" in self.files and b"COMPOSE_FILE" in self.files[".env"].content

    @property
    def options(self) -> tuple[str, ...]:
        """The words that name these files to Compose."""
        return name_files(self.files, names_files=self.names_files)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Path to content digest."""
        return {path: file.sha256 for path, file in sorted(self.files.items())}

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """Path to content."""
        return {path: file.content for path, file in self.files.items()}

    @cached_property
    def ignored(self) -> dict[str, frozenset[str]]:
        """For each directory with a ``.dockerignore``, the files that no build from it sees."""
        found: dict[str, frozenset[str]] = {}
        for path, file in self.files.items():
            context, slash, name = path.rpartition("/")
            if name != ".dockerignore":
                continue
            spec = _parse_patterns(path, file.content)
            found[context] = frozenset(
                other
                for other in self.files
                if other.startswith(context + slash)
                and spec.match_file(other.removeprefix(context + slash))
            )
        return found

    def add_override(self, content: bytes) -> "Source":
        """The same files with one that is laid over them last."""
        return Source({**self.files, LINKS_FILE: File(0o600, content)})

    def add_layer(self, content: bytes) -> "Source":
        """The same files with one that adds services to the project, or changes them."""
        return Source({**self.files, LAYER_FILE: File(0o600, content)})

    def make_archive(self, more: Mapping[str, File] | None = None) -> bytes:
        """The files as a tar archive that is the same for the same files.

        :param more: what goes with them.
        """
        buffer = io.BytesIO()
        for path, file in sorted({**self.files, **(more or {})}.items()):
            info = tarfile.TarInfo(f"./{path}")
            info.size, info.mode = len(file.content), file.mode
            # TarFile.addfile writes the same, after copies that take as long as all the rest.
            buffer.write(info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
            buffer.write(file.content)
            buffer.write(bytes(-len(file.content) % tarfile.BLOCKSIZE))
        buffer.write(bytes(2 * tarfile.BLOCKSIZE))
        buffer.write(bytes(-buffer.tell() % tarfile.RECORDSIZE))
        return buffer.getvalue()


#: The files of each project that was read, where this process is one run.
_of_this_run: dict[Path, dict[str, File]] | None = None

#: What was made of them last, by what is desired: most hosts of a run desire the same.
_made: list[tuple[ComposeSpec, Source]] = []

#: How many of these are kept.
MOST_MADE = 8


def read_once() -> None:
    """From now on read each project's files once, however many hosts and steps ask for them.

    For a process that is one run, which decides by one reading: called from ``config.py``.
    """
    global _of_this_run
    _of_this_run = {}
    _made.clear()


def name_files(paths: Collection[str], *, names_files: bool) -> tuple[str, ...]:
    """The words that name a project's own files to Compose.

    Without them it takes whatever has one of its names and lies beside them, and a container that
    may write there would decide what runs next.

    :param paths: the project's files, relative to its directory.
    :param names_files: its own ``.env`` says which compose files there are.
    """
    words = ["--env-file", ".env" if ".env" in paths else "/dev/null"]
    for names in () if names_files else (COMPOSE_FILES, OVERRIDE_FILES):
        words += next((["--file", name] for name in names if name in paths), [])
    for name in OUR_FILES:
        words += ["--file", name] if name in paths else []
    return tuple(words)


def load(spec: ComposeSpec) -> Source:
    """Read ``spec.source`` and check it against the spec.

    :raises SourceError: naming the file and the field; or it is not on this machine at all.
    """
    root = spec.source
    if isinstance(root, GitSource):
        raise SourceError(f"source: {show(root.url)} is fetched by the host itself")
    for known, made in _made if _of_this_run is not None else ():
        if known == spec:
            return made
    root_name = show(str(root))
    try:
        found = controller_files.is_there(root) and controller_files.read_status(root)
        if not found or not stat.S_ISDIR(found.st_mode):
            raise SourceError(f"source: {root_name} is not a directory on this machine")
        # Looked for before all is read: a wrong directory may be a large one.
        name = next(
            filter(lambda name: controller_files.is_there(root / name), COMPOSE_FILES), None
        )
        if name is None:
            raise SourceError(f"source: {root_name} holds none of {', '.join(COMPOSE_FILES)}")
        files = _read_files(root, root_name)
    except Unreadable as error:
        raise SourceError(f"source: {root_name} {error}") from None
    if name not in files:
        raise SourceError(f"source: {name} is a directory; it must be the compose file")
    made = make(spec, files)
    if _of_this_run is not None:
        _made.append((spec, made))
        del _made[:-MOST_MADE]
    return made


def read_services(source: Source) -> Mapping[str, Mapping[str, Any]]:
    """The services of a project; none where its first compose file does not hold all of them.

    :param source: of :func:`load`.
    """
    name = next(name for name in COMPOSE_FILES if name in source.files)
    data = parse(f"source: {name}", source.files[name].content)
    if not _is_complete(data, source):
        return {}
    services: Mapping[str, Mapping[str, Any]] = data.get("services") or {}
    return {key: body for key, body in services.items() if "extends" not in body}


def _is_complete(data: Mapping[str, Any], source: Source) -> bool:
    """Whether no other file may have services and sections: included, laid over, or by .env."""
    laid_over = any(path in source.files for path in OVERRIDE_FILES)
    return "include" not in data and not laid_over and not source.names_files


def make(spec: ComposeSpec, files: dict[str, File]) -> Source:
    """A project's files, checked against the spec, with the variables of the spec among them.

    :param spec: what is desired.
    :param files: as they were read, by their path.
    :raises SourceError: naming the file and the field.
    """
    name = next((name for name in COMPOSE_FILES if name in files), None)
    if name is None:
        raise SourceError(f"source: holds none of {', '.join(COMPOSE_FILES)}")
    for ours in OUR_FILES:
        if ours in files:
            raise SourceError(f"source: {ours} is a file that stackmend makes; remove it")
    if spec.env:
        own = files[".env"].content if ".env" in files else b""
        if own and not own.endswith(b"\n"):
            own += b"\n"
        files[".env"] = File(0o600, own + format_dotenv(spec.variables).encode())
        if any(path.startswith(".env/") for path in files):
            raise SourceError("source: .env is a directory; the variables of env go into that file")
    source = Source(files)
    _check_paths(source, spec)
    for path, file in files.items():
        if path.rpartition("/")[2] == ".dockerignore":
            _parse_patterns(path, file.content)
    data = parse(f"source: {name}", files[name].content)
    _check(f"source: {name}", data, source, spec)
    if not source.names_files:
        _check_variables(f"source: {name}", data, source)
        if override := next((path for path in OVERRIDE_FILES if path in files), None):
            laid_over = parse(f"source: {override}", files[override].content)
            _check_variables(f"source: {override}", laid_over, source)
    return source


def _check_variables(name: str, data: dict[str, Any], source: Source) -> None:
    """Refuse a file that requires a variable which nothing gives; else Compose says so later."""
    own = source.files.get(".env")
    assigned = parse_dotenv(own.content.decode(errors="replace")) if own else {}
    for missing in variables.find_missing(data, assigned):
        raise SourceError(f"{name}: {cut(missing, 300)}; set it in env")


def _parse_patterns(path: str, content: bytes) -> "PathSpec[Any]":
    """What a ``.dockerignore`` names.

    :raises SourceError: a line is no pattern, or one that takes hours to match.
    """
    from pathspec import PathSpec

    lines = content.decode(errors="replace").splitlines()
    if len(lines) > MAXIMUM_PATTERNS:
        raise SourceError(f"source: {show(path)} holds more than {MAXIMUM_PATTERNS} lines")
    patterns: list[Any] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line:
            continue
        where = f"source: {show(path)} line {number}: {abbreviate(line)}"
        if any(part.count("*") > MAXIMUM_STARS for part in line.split("/")):
            raise SourceError(f"{where} holds more than {MAXIMUM_STARS} stars in one name")
        try:
            with warnings.catch_warnings():
                # Of sets that Python may read in another way some day.
                warnings.simplefilter("ignore", FutureWarning)
                patterns += PathSpec.from_lines("gitignore", [_anchor_pattern(line)]).patterns
        except (ValueError, re.error):
            raise SourceError(f"{where} is not a pattern of files; correct it") from None
    return PathSpec(patterns)


def _anchor_pattern(pattern: str) -> str:
    """A ``.dockerignore`` line for a matcher of ``.gitignore``, where names match at any depth."""
    if pattern.startswith("#"):
        return pattern
    no = "!" if pattern.startswith("!") else ""
    return f"{no}/{pattern.removeprefix('!').strip().lstrip('/')}"


def format_dotenv(variables: Mapping[str, str]) -> str:
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


def _read_files(root: Path, root_name: str) -> dict[str, File]:
    if _of_this_run is None:
        return dict(_read_tree(root, root_name))
    if root not in _of_this_run:
        _of_this_run[root] = dict(_read_tree(root, root_name))
    return dict(_of_this_run[root])


def _read_tree(root: Path, root_name: str) -> Iterator[tuple[str, File]]:
    found = sorted(
        controller_files.walk_tree(root, LEFT_OUT, MAXIMUM_FILES), key=lambda pair: pair[0]
    )
    inside = root.resolve()
    there: list[tuple[str, str, controller_files.Status]] = []
    total = 0
    for path, entry in found:
        check_name(path)
        real, status = _resolve_entry(path, root, inside, entry)
        if stat.S_ISDIR(status.st_mode):
            continue
        if words := controller_files.describe_kind(status):
            raise SourceError(f"source: {path} is neither a file nor a directory, but {words}")
        total += status.st_size
        if total > MAXIMUM_BYTES:
            raise SourceError(
                f"source: {root_name} holds more than {MAXIMUM_BYTES // 1024**2} MiB "
                f"(at {path}); keep data in volumes"
            )
        there.append((path, real, status))
    # Nothing is read before all is known to be small enough.
    for path, real, status in there:
        try:
            content = controller_files.read(real, MAXIMUM_BYTES, status)
        except Unreadable as error:
            raise SourceError(f"source: {path} {error}") from None
        yield path, File(status.st_mode & 0o755, content)


def _resolve_entry(
    path: str, root: Path, inside: Path, entry: controller_files.Entry
) -> tuple[str, controller_files.Status]:
    """Where the content of an entry lies, and what the system says of it."""
    if not entry.is_symlink():
        try:
            return entry.path, entry.stat(follow_symlinks=False)
        except OSError as error:
            raise SourceError(f"source: {path} {controller_files.format_reason(error)}") from None
    try:
        real = (root / path).resolve(strict=True)
    except PermissionError as error:
        raise SourceError(f"source: {path} {controller_files.format_reason(error)}") from None
    except (OSError, RuntimeError):
        raise SourceError(f"source: {path} is a link that leads nowhere") from None
    if not real.is_relative_to(inside):
        raise SourceError(f"source: {path} is a link to {show(str(real))}, outside the project")
    status = controller_files.read_status(real)
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(
            f"source: {path} is a link to a directory; put the directory itself there"
        )
    return str(real), status


def check_name(path: str) -> None:
    """Hold a file's name against what lists and terminals can carry.

    :raises SourceError: it is none of these.
    """
    if path.isascii() and path.isprintable():
        return
    if any(0xD800 <= ord(character) <= 0xDFFF for character in path):
        raise SourceError(f"source: {abbreviate(path)} is not a name in UTF-8")
    if "\n" in path:
        raise SourceError(
            f"source: {abbreviate(path)} holds a newline, which a file list cannot carry"
        )
    if not is_plain(path):
        raise SourceError(f"source: {abbreviate(path)} holds a control character; rename the file")


def _check_paths(source: Source, spec: ComposeSpec) -> None:
    """Hold the files' paths, as they will be on the host, against what Linux takes."""
    room = PATH_MAX - MARGIN - max(len(spec.directory.encode()), len(spec.project))
    for path in source.files:
        size = len(path.encode())
        if size > room:
            raise SourceError(
                f"directory: with {show(path)} below it, a path on the host has more than "
                f"{PATH_MAX - MARGIN} bytes; choose a shorter one"
            )


class _Refused(yaml.MarkedYAMLError):
    """What YAML allows, and a compose file may not hold."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """YAML as Compose reads it, with its two tags of its own, and with limits.

    They are held while the nodes are composed, where an alias is still one node, however often it
    is used: what is constructed from them, copied and written into messages is then small.
    """

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._count = self._level = 0
        #: For each node that is complete: how many it is, how deep, and how much text it holds.
        self._sizes: dict[yaml.Node, tuple[int, int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, its aliases counted as what they name."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._level += 1
        if self._level > MAXIMUM_DEPTH:
            raise _Refused(f"nested deeper than {MAXIMUM_DEPTH} levels; flatten it", mark)
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return node
        if is_alias:
            if node not in self._sizes:
                raise _Refused(
                    "an alias stands within what it names; write out what it is to hold", mark
                )
            return node
        self._count += 1
        below = [self._sizes[child] for child in _iterate_children(node)]
        total = 1 + sum(count for count, _, _ in below)
        depth = 1 + max((depth for _, depth, _ in below), default=0)
        text = sum(text for _, _, text in below)
        if isinstance(node, yaml.ScalarNode):
            text = len(node.value)
        for size, most, words in (
            (max(total, self._count), MAXIMUM_NODES, "values, aliases counted as what they name"),
            (depth, MAXIMUM_DEPTH, "levels, aliases counted as what they name"),
            (text, MAXIMUM_TEXT, "characters, aliases counted as what they name"),
        ):
            if size > most:
                raise _Refused(f"more than {most} {words}; keep data in files of its own", mark)
        self._sizes[node] = (total, depth, text)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping whose keys are texts, and each there once, as Compose will have it."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEYS:
                key_name = (
                    abbreviate(key.value) if isinstance(key, yaml.ScalarNode) else "a collection"
                )
                raise _Refused(f"the key {key_name} is not text; put it in quotes", key.start_mark)
            if key.value in lines:
                raise _Refused(
                    f"duplicate key {abbreviate(key.value)}, first in line {lines[key.value]} "
                    f"and again in line {line}; keep one of them",
                    key.start_mark,
                )
            lines[key.value] = line
        return node


#: What a key may be: text, or what takes the keys of other mappings over.
_KEYS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})


def _iterate_children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _construct_tagged(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return None


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > MAXIMUM_DIGITS:
        raise _Refused(
            f"a number of {len(text)} digits is too long; put it in quotes", node.start_mark
        )
    return int(text)


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
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
for _tag in ("!reset", "!override"):
    _Loader.add_multi_constructor(_tag, _construct_tagged)


def parse(name: str, content: bytes) -> dict[str, Any]:
    """The content of a compose file.

    :param name: what it is called in an error.
    :raises SourceError: it is not YAML, or not a mapping.
    """
    if len(content) > MAXIMUM_YAML:
        raise SourceError(
            f"{name}: holds {len(content)} bytes, more than the {MAXIMUM_YAML} of a compose file; "
            "keep data in files of its own"
        )
    try:
        # The values of one call are its caller's own.
        data = copy.deepcopy(_load_yaml(content))
    except yaml.reader.ReaderError as error:
        number = content[: error.position].count(b"\n") + 1
        raise SourceError(f"{name} line {number}: not valid YAML: {error.reason}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        # The last ones come of a value that is not what its explicit tag says.
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        what = getattr(error, "problem", None) or str(error)
        kind = "" if isinstance(error, _Refused) else "not valid YAML: "
        raise SourceError(f"{name}{line}: {kind}{what}") from None
    if not isinstance(data, dict):
        raise SourceError(f"{name}: must be a mapping with 'services'")
    return data


@lru_cache(maxsize=8)  # each host of a run, and each of its steps, has the same file
def _load_yaml(content: bytes) -> Any:
    # A SafeLoader subclass: nothing in the file can construct more than plain data.
    return yaml.load(content, Loader=_Loader)  # noqa: S506


def _check(name: str, data: dict[str, Any], source: Source, spec: ComposeSpec) -> None:
    for key in data:
        if key not in TOP_KEYS and not key.startswith("x-"):
            raise SourceError(
                f"{name}: {show(key)}: unknown key; known are {', '.join(sorted(TOP_KEYS))}"
            )
    services = data.get("services")
    if services is None and "include" not in data:
        raise SourceError(f"{name}: services: missing")
    if not isinstance(services or {}, dict):
        raise SourceError(f"{name}: services: must be a mapping of service names")
    services = services or {}
    override = next((path for path in OVERRIDE_FILES if path in source.files), None)
    complete = _is_complete(data, source)
    lacking: list[str] = []
    for service, body in services.items():
        _check_service_name(f"{name}: services", service)
        where = f"{name}: services.{service}"
        lacking += _check_service(where, body, source)
        if complete:
            lacking += _list_undeclared(where, body, data)
    further: list[str | None] = [override]
    for index, item in enumerate(_check_list(f"{name}: include", data.get("include"))):
        paths = item.get("path") if isinstance(item, dict) else item
        for path in paths if isinstance(paths, list) else [paths]:
            further.append(_check_path(f"{name}: include.{index}", path, source, exists=True))
    for service, body in services.items():
        extends = body.get("extends")
        if isinstance(extends, dict) and extends.get("file") is not None:
            where = f"{name}: services.{service}.extends.file"
            further.append(_check_path(where, extends["file"], source, exists=True))
    for path in dict.fromkeys(filter(None, further)):
        parse(f"source: {show(path)}", source.files[path].content)
    for section in ("configs", "secrets"):
        for key, body in _check_mapping(f"{name}: {section}", data.get(section)).items():
            if isinstance(body, dict) and isinstance(body.get("file"), str):
                where = f"{name}: {section}.{show(key)}.file"
                _check_path(where, body["file"], source, exists=True)
    # All at once: each was told by the engine otherwise, one after another.
    if complete:
        lacking += _list_contradictions(name, data, spec)
        lacking += [
            f"{field}: there is no service {abbreviate(service)}; there are {_list_names(services)}"
            for field, service in spec.list_named_services()
            if service not in services
        ]
    if lacking:
        raise SourceError("; ".join(lacking))
    for key in _check_mapping(f"{name}: volumes", data.get("volumes")):
        if len(f"{spec.project}_{key}".encode()) > NAME_MAX:
            raise SourceError(
                f"{name}: volumes.{show(key)}: with the project's name before it, the volume's "
                f"name has more than {NAME_MAX} bytes"
            )


def _list_contradictions(name: str, data: dict[str, Any], spec: ComposeSpec) -> list[str]:
    """What no engine can do, as far as these files alone say it."""
    try:
        services = {
            service: _parse_certain(body)
            for service, body in (data.get("services") or {}).items()
            if "extends" not in body
            and (not body.get("profiles") or {*_list_texts(body["profiles"])} & {*spec.profiles})
        }
        config: dict[str, Any] = {"services": services}
        for section in ("networks", "configs", "secrets"):
            # What depends on variables may be anything, as what somebody else makes.
            config[section] = {
                key: {"external": section == "networks"} if "$" in str(body) else _as_mapping(body)
                for key, body in _as_mapping(data.get(section)).items()
            }
        found = list(find_contradictions(config))
    except (TypeError, ValueError, AttributeError):
        # Something is of another kind than it must be, which Compose will name.
        return []
    return [f"{name}: {item.subject}: {item.reason}: {item.remedy}" for item in found]


def _parse_certain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A service in the long syntax, without what depends on variables."""
    certain = {
        key: value
        for key, value in body.items()
        if key in ("networks", "ports", "configs", "secrets") or "$" not in str(value)
    }
    networks = body.get("networks")
    if not isinstance(networks, dict):
        networks = dict.fromkeys(_list_texts(networks or ["default"]))
    certain["networks"] = {
        key: None if "$" in str(place) else place for key, place in networks.items()
    }
    certain["ports"] = [
        parsed
        for port in body.get("ports") or ()
        if "$" not in str(port) and (parsed := _parse_port(port))
    ]
    for section in ("configs", "secrets"):
        certain[section] = [
            item if isinstance(item, dict) else {"source": item} for item in body.get(section) or ()
        ]
    return certain


def _parse_port(port: Any) -> Mapping[str, Any] | None:
    if isinstance(port, dict):
        return port
    match = PORT.fullmatch(str(port))
    return match and {**match.groupdict(), "host_ip": (match["host"] or "").strip("[]")}


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list_texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _check_service_name(where: str, service: str) -> None:
    if not is_service_name(service):
        raise SourceError(
            f"{where}: {abbreviate(service)} is not a service's name, which holds letters, digits, "
            f"'.', '_' and '-', {MAXIMUM_SERVICE} at most, and is neither '.' nor '..'"
        )


def is_service_name(name: str) -> bool:
    """Whether a service may have a name: by Compose's rule, and as that of a file on the host.

    >>> is_service_name(".api"), is_service_name(".")
    (True, False)
    """
    return (
        SERVICE_NAME.fullmatch(name) is not None
        and len(name) <= MAXIMUM_SERVICE
        and name not in (".", "..")
    )


def _check_service(where: str, body: Any, source: Source) -> list[str]:
    """Check one service; the files that it mounts and that the source lacks."""
    if not isinstance(body, dict):
        raise SourceError(f"{where}: must be a mapping")
    for key in body:
        if key not in SERVICE_KEYS and not key.startswith("x-"):
            raise SourceError(f"{where}.{show(key)}: unknown key of a service")
    if not {"image", "build", "extends", "provider"} & set(body):
        raise SourceError(f"{where}: has neither image nor build")
    for index, port in enumerate(_check_list(f"{where}.ports", body.get("ports"))):
        _check_port(f"{where}.ports.{index}", port)
    for key in ("env_file", "label_file"):
        files = body.get(key)
        if isinstance(files, str):
            files = [files]
        for index, item in enumerate(_check_list(f"{where}.{key}", files)):
            path, required = (item, True)
            if isinstance(item, dict):
                path, required = item.get("path"), item.get("required", True)
            _check_path(f"{where}.{key}.{index}", path, source, exists=bool(required))
    _check_build(f"{where}.build", body.get("build"), source)
    lacking: list[str] = []
    for index, item in enumerate(_check_list(f"{where}.volumes", body.get("volumes"))):
        at = f"{where}.volumes.{index}"
        path = (
            item.get("source") if isinstance(item, dict) else _check_text(at, item).split(":", 1)[0]
        )
        if isinstance(path, str) and path.startswith("."):
            lacking += _list_lacking(at, path, item, source)
    return lacking


def _list_lacking(where: str, path: str, item: Any, source: Source) -> list[str]:
    """A mounted file that the engine would make a directory of, as of all that is not there.

    Directories are made so on purpose; ``create_host_path: false`` says that the host has it.
    """
    found = _check_path(where, path, source, exists=False)
    if isinstance(item, dict):
        target = str(item.get("target") or "")
        made = _as_mapping(item.get("bind")).get("create_host_path", True)
    else:
        target, made = item.split(":")[1] if ":" in item else "", True
    is_there = found in source.files or any(other.startswith(f"{found}/") for other in source.files)
    if found and made and not is_there and (is_file_name(path) or is_file_name(target)):
        return [
            f"{where}: {show(path)} is not among the project's files, and the engine would make a "
            "directory of it; add it, or, where it is to be made on the host, mount it by its "
            "absolute path or with `bind: {create_host_path: false}`"
        ]
    return []


def _check_build(where: str, build: Any, source: Source) -> None:
    context = build.get("context", ".") if isinstance(build, dict) else build
    if not isinstance(context, str) or "://" in context or context.startswith("git@"):
        return
    _check_path(f"{where}.context", context, source, exists=False)
    if isinstance(build, dict) and isinstance(build.get("dockerfile"), str):
        path = PurePosixPath(context, build["dockerfile"]).as_posix()
        _check_path(f"{where}.dockerfile", path, source, exists=True)


def _find_needed(where: str, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each field of a service that names another service, with that name."""
    depends = body.get("depends_on") or []
    if not isinstance(depends, list | dict):
        raise SourceError(f"{where}.depends_on: must be a list or a mapping of service names")
    for name in depends:
        yield "depends_on", _check_text(f"{where}.depends_on", name)
    for field in ("network_mode", "pid", "ipc"):
        kind, colon, name = _check_text(f"{where}.{field}", body.get(field)).partition(":")
        if kind == "service" and colon and "$" not in name:
            yield field, name
    for field in ("links", "volumes_from"):
        for index, item in enumerate(_check_list(f"{where}.{field}", body.get(field))):
            name = _check_text(f"{where}.{field}.{index}", item).partition(":")[0]
            if name != "container" and "$" not in name:
                yield field, name


def _list_undeclared(where: str, body: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """The services, networks, volumes, configs and secrets that a service names and nothing is."""
    services = data["services"]
    problems = [
        f"{where}.{field}: there is no service {abbreviate(needed)}; there are "
        f"{_list_names(services)}"
        for field, needed in _find_needed(where, body)
        if needed not in services
    ]
    for section, name in _find_named(body):
        declared = _as_mapping(data.get(section))
        if name not in declared and (section, name) != ("networks", "default"):
            have = f"it has {_list_names(declared)}" if declared else "it is empty"
            problems.append(
                f"{where}.{section}: {abbreviate(name)} is not declared at the top level of the "
                f"file, under {section!r}; {have}"
            )
    return problems


def _find_named(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a service takes of each top-level section: the section, and the name there."""
    networks = body.get("networks")
    if isinstance(networks, dict):
        networks = list(networks)
    for section, items in (("networks", networks), *((key, body.get(key)) for key in _TAKEN)):
        for item in items if isinstance(items, list) else ():
            name, kind = item, "volume"
            if isinstance(item, dict):
                name, kind = item.get("source"), item.get("type", kind)
            elif section == "volumes" and isinstance(item, str):
                name, colon, _ = item.partition(":")
                kind = "volume" if colon else ""
            is_name = isinstance(name, str) and VOLUME_NAME.fullmatch(name) is not None
            if is_name and kind == "volume":
                yield section, name


def _list_names(services: Mapping[str, Any]) -> str:
    return ", ".join(sorted(services))


def _check_text(where: str, value: Any) -> str:
    """A text, also where it looks like a number; empty where there is none."""
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise SourceError(f"{where}: must be text")
    return str(value)


def _check_mapping(where: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SourceError(f"{where}: must be a mapping")
    return value


def _check_list(where: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise SourceError(f"{where}: must be a list")
    return value


def _check_path(where: str, path: Any, source: Source, *, exists: bool) -> str | None:
    """Where a path of the compose file leads in the project; ``None`` if not into it."""
    if not isinstance(path, str):
        raise SourceError(f"{where}: must be a path")
    if "$" in path or path.startswith(("/", "~")):
        return None
    depth: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            if not depth:
                raise SourceError(f"{where}: {show(path)} lies outside the project")
            depth.pop()
        elif part != ".":
            depth.append(part)
    found = "/".join(depth)
    if exists and found not in source.files:
        raise SourceError(f"{where}: {show(path)} is not among the project's files")
    return found


def _check_port(where: str, port: Any) -> None:
    if isinstance(port, dict):
        for key in ("target", "published"):
            text = _check_text(f"{where}.{key}", port.get(key))
            if text and "$" not in text:
                _check_range(f"{where}.{key}", text, lowest=0 if key == "published" else 1)
        return
    text = _check_text(where, port)
    if "$" in text:
        return
    match = PORT.fullmatch(text)
    if match is None:
        raise SourceError(
            f"{where}: {abbreviate(text)} is not [HOST:][PUBLISHED:]TARGET[/PROTOCOL], "
            "such as 127.0.0.1:8000:80"
        )
    for key in ("published", "target"):
        if match[key]:
            _check_range(where, match[key], lowest=0 if key == "published" else 1)


def _check_range(where: str, text: str, *, lowest: int) -> None:
    """Published as 0 lets the engine choose; a container's own port has no such meaning."""
    numbers = [
        int(number) if PORT_NUMBER.fullmatch(number) else -1 for number in text.split("-", 2)
    ]
    if not all(lowest <= number <= 65535 for number in numbers):
        raise SourceError(f"{where}: {show(text)} is not a port; ports are 1 to 65535")
    if numbers != sorted(numbers) or len(numbers) > 2:
        raise SourceError(f"{where}: {show(text)} is not a range of ports, such as 8000-8010")
