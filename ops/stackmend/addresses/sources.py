"""Where a value comes from: the text of a project's own files that Compose made it of. Pure."""

import posixpath
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import yaml

from stackmend.addresses.files import LARGEST, Loader
from stackmend.addresses.state import Address, Place
from stackmend.dotenv import Assignment, iterate_assignments

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)|\{)")
_BRACED = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:(?P<operator>:?[-+?])(?P<rest>.*))?", re.DOTALL)


#: A file, and where a text in it starts and ends.
Span = tuple[str, int, int]


class Raw(NamedTuple):
    """The text in a file that a value was made of.

    :param file: its path in the project.
    :param start: where it begins in the file, in characters; quotes are within it.
    :param end: where it ends.
    :param text: what it means before variables are put into it.
    :param variable: the variable of ``.env`` that it is the value of; empty for what stands in a
        compose file itself, ``-`` for what an env file gives a service.
    """

    file: str
    start: int
    end: int
    text: str
    variable: str = ""


class Sources:
    """A project's compose files and env files; each is read once.

    :param files: the content of the project's files, by their path in it.
    :param names: the compose files that are laid over each other, the later over the earlier;
        ``None`` for all that there are.
    :param made: the end of ``.env`` that the inventory's variables make, and no file has.
    """

    def __init__(
        self, files: Mapping[str, bytes], names: Sequence[str] | None = None, made: str = ""
    ) -> None:
        self.files = files
        self._made = len(made)
        listed = [path for path in files if path.endswith((".yaml", ".yml"))]
        self.names = [
            path for path in (listed if names is None else names) if self.get_services(path)
        ]
        self._texts: dict[str, str] = {}
        self._starts: dict[str, list[int]] = {}
        self._assigned: dict[str, dict[str, Assignment]] = {}
        self._environments: dict[str, tuple[dict[str, Raw], list[str]]] = {}
        self._raws: dict[tuple[str, str, str], Raw | None] = {}
        self._spans: dict[tuple[str, ...], Span | None] = {}
        self.variables = {
            name: assigned.value
            for name, assigned in self._index(".env").items()
            if assigned.value is not None
        }

    @classmethod
    def make(cls, files: "Sources | Mapping[str, bytes]") -> "Sources":
        """The same, or what files without names are."""
        return files if isinstance(files, Sources) else cls(files)

    def get_services(self, path: str) -> yaml.Node | None:
        """The services of a compose file; ``None`` where it is none."""
        content = self.files.get(path)
        return _get(_compose(content), "services") if content is not None else None

    def read_text(self, path: str) -> str:
        """A file's text; what is no UTF-8 in it comes back as it was."""
        if path not in self._texts:
            self._texts[path] = self.files[path].decode("utf-8", "surrogateescape")
        return self._texts[path]

    def read_own(self, path: str) -> str:
        """A file's text as the project's owner has it."""
        text = self.read_text(path)
        return text[: len(text) - self._made] if path == ".env" else text

    def find_setting(self, path: str, index: int) -> str:
        """What the inventory calls the value at a character; empty for what a file has."""
        if path != ".env" or not self._made or index < len(self.read_own(path)):
            return ""
        return next(
            (
                f"stack.env.{assigned.name}"
                for assigned in self._index(path).values()
                if assigned.start <= index <= assigned.end
            ),
            "stack.env",
        )

    def find_line(self, path: str, index: int) -> int:
        """The line of a character, from 0."""
        if path not in self._starts:
            text = self.read_text(path)
            self._starts[path] = [match.end() for match in re.finditer("\n", text)]
        return bisect_right(self._starts[path], index)

    @cached_property
    def uses(self) -> Counter[str]:
        """How often the compose files use each variable."""
        return Counter(
            name
            for path, content in self.files.items()
            if path.endswith((".yaml", ".yml")) and len(content) <= LARGEST
            for name in iterate_variables(self.read_text(path))
        )

    def find(self, place: Place) -> Raw | None:
        """The text that the value at a place was made of; ``None`` where it is not found."""
        key = place.service, place.kind, place.key
        if key not in self._raws:
            self._raws[key] = self._find(place)
        return self._raws[key]

    def _find(self, place: Place) -> Raw | None:
        if place.kind == "environment":
            return self._find_variable(place.service, place.key)
        if place.kind in ("command", "entrypoint"):
            return self._find_word(place)
        return None

    def find_command(self, service: str, kind: str) -> tuple[Raw, ...] | None:
        """The texts of a command; one where it is written as one."""
        for path, node in self._find_nodes(service, kind):
            if isinstance(node, yaml.ScalarNode):
                return (_make_raw(path, node),)
            if isinstance(node, yaml.SequenceNode) and all(
                isinstance(item, yaml.ScalarNode) for item in node.value
            ):
                return tuple(_make_raw(path, item) for item in node.value)
            return None
        return None

    def find_origin(self, raw: Raw, old: str) -> Raw:
        """Where a part of a value comes from: the text itself, or a variable of ``.env`` in it."""
        if raw.variable or "$" not in raw.text:
            return raw
        if old in _strip_variables(raw.text):
            # A default counts only where the variable has no value.
            marked = raw._replace(text=raw.text.replace(old, "\0"))
            if "\0" in (self.resolve(marked) or "\0"):
                return raw
        names = [
            name for name in iterate_variables(raw.text) if old in self.variables.get(name, "")
        ]
        assigned = self._index(".env").get(names[0]) if names else None
        if assigned is None or assigned.value is None:
            return raw
        return Raw(".env", assigned.start, assigned.end, assigned.value, names[0])

    def find_start(self, address: Address) -> tuple[str, int] | None:
        """The file and the character at which a value's text begins, or a variable's in it."""
        raw = self.find(address.place)
        if raw is None:
            return None
        for name in iterate_variables("" if raw.variable else raw.text):
            value, assigned = self.variables.get(name, ""), self._index(".env").get(name)
            if assigned and value and (address.host in value.lower() or value in address.text):
                return ".env", assigned.start
        return raw.file, raw.start

    def find_body(
        self, service: str, section: str
    ) -> tuple[str, yaml.MappingNode, yaml.CollectionNode | None] | None:
        """The file and the node of a service, and of a section in it that stands there itself."""
        for path in self.names:
            body = _get(self.get_services(path), service)
            if not isinstance(body, yaml.MappingNode) or body.flow_style or not body.value:
                continue
            own = {key.value: value for key, value in body.value}
            node = own.get(section)
            if node is None and _get(body, section) is not None:
                return None
            if node is not None and not isinstance(node, yaml.CollectionNode):
                return None
            # A section with an anchor is every user's of it.
            root = _compose(self.files[path])
            shared = node is not None and _count_uses(root, node, set()) > 1
            return None if shared else (path, body, node)
        return None

    def find_span(self, place: Place, old: str) -> Span | None:
        """The file, the start and the end of a text of a value; ``None`` where that is not sure."""
        file = place.file if place.kind == "file" else ""
        key = place.service, place.kind, place.key, file, f"{place.start}-{place.end}", old
        if key not in self._spans:
            self._spans[key] = self._find_span(place, old)
        return self._spans[key]

    def _find_span(self, place: Place, old: str) -> Span | None:
        if place.kind == "file":
            paths = [path for path in self.files if f"/{place.file}".endswith(f"/{path}")]
            return self._find_in_file(max(paths, key=len), place, old) if paths else None
        raw = self.find(place)
        if raw is None:
            return None
        origin = self.find_origin(raw, old)
        text = self.read_text(origin.file)
        spans = [
            (origin.start + match.start(), origin.start + match.end())
            for match in find_words(old, text[origin.start : origin.end])
        ]
        if origin.variable == "" and "$" not in origin.text and len(spans) > 1:
            # As many before it there as in the value.
            before = len(list(find_words(old, origin.text[: place.start])))
            spans = spans[before : before + 1]
        elif len(spans) > 1 and origin is raw and text[origin.start : origin.end] == origin.text:
            spans = [(origin.start + place.start, origin.start + place.end)]
        return (origin.file, *spans[0]) if len(spans) == 1 else None

    def _find_in_file(self, path: str, place: Place, old: str) -> Span | None:
        text = self.read_text(path)
        spans = [(match.start(), match.end()) for match in find_words(old, text)]
        if len(spans) > 1:
            key = place.key.rpartition(".")[2]
            spans = [
                (start, end)
                for start, end in spans
                if key in text[text.rfind("\n", 0, start) + 1 : start]
            ]
        return (path, *spans[0]) if len(spans) == 1 else None

    def is_published(self, place: Place) -> bool:
        """Whether a variable of an env file is one by which a compose file publishes a port."""
        raw = self.find(place)
        if raw is None or raw.variable != "-":
            return False
        return place.key in self._publishing

    @cached_property
    def _publishing(self) -> frozenset[str]:
        """The variables by which compose files publish ports."""
        return frozenset(
            name
            for path in self.names
            for body in _list_values(self.get_services(path))
            for port in _list_values(_get(body, "ports"))
            for item in (_list_values(port) or [port])
            if isinstance(item, yaml.ScalarNode)
            for name in iterate_variables(item.value)
        )

    def resolve(self, raw: Raw) -> str | None:
        """The value that Compose makes of a text; ``None`` where a variable is not known."""
        if raw.variable:
            return raw.text
        try:
            return substitute(raw.text, self.variables)
        except KeyError:
            return None

    def _find_variable(self, service: str, key: str) -> Raw | None:
        if service not in self._environments:
            found: dict[str, Raw] = {}
            for path, node in self._find_nodes(service, "environment"):
                for name, raw in _iterate_environment(path, node):
                    found.setdefault(name, raw)
            self._environments[service] = found, list(self._list_env_files(service))
        own, env_files = self._environments[service]
        if key in own:
            return own[key]
        for path in env_files:
            if assigned := self._index(path).get(key):
                # What is not known here is not what a lesser file says.
                if assigned.value is None:
                    return None
                return Raw(path, assigned.start, assigned.end, assigned.value, "-")
        return None

    def _find_word(self, place: Place) -> Raw | None:
        found = self.find_command(place.service, place.kind)
        index = int(place.key)
        if not found:
            return None
        # One text is split as a shell would; which part of it a word is, its own text says.
        return found[index] if index < len(found) and len(found) > 1 else found[0]

    def _find_nodes(self, service: str, key: str) -> Iterator[tuple[str, yaml.Node]]:
        """The nodes that say something of a service, the one that counts first."""
        places = [(path, service) for path in self.names]
        done: set[tuple[str, str]] = set()
        while places:
            place = path, name = places.pop()
            if place in done:
                continue
            done.add(place)
            body = _get(self.get_services(path), name)
            if (node := _get(body, key)) is not None:
                yield path, node
            extends = _get(body, "extends")
            if isinstance(extends, yaml.MappingNode):
                file, extends = _get(extends, "file"), _get(extends, "service")
                if isinstance(file, yaml.ScalarNode):
                    path = posixpath.normpath(posixpath.join(posixpath.dirname(path), file.value))
            if isinstance(extends, yaml.ScalarNode):
                places.append((path, extends.value))

    def _list_env_files(self, service: str) -> Iterator[str]:
        """A service's env files, the one that counts first."""
        for compose_file, node in self._find_nodes(service, "env_file"):
            items = node.value if isinstance(node, yaml.SequenceNode) else [node]
            for item in reversed(items):
                path = _get(item, "path") if isinstance(item, yaml.MappingNode) else item
                if isinstance(path, yaml.ScalarNode):
                    # Relative to the file that names it.
                    directory = posixpath.dirname(compose_file)
                    name = posixpath.normpath(posixpath.join(directory, path.value))
                    if name in self.files:
                        yield name

    def _index(self, path: str) -> dict[str, Assignment]:
        """What an env file assigns; the last one of a name counts."""
        if path not in self._assigned:
            known = path in self.files and len(self.files[path]) <= LARGEST
            found = iterate_assignments(self.read_text(path)) if known else ()
            self._assigned[path] = {assignment.name: assignment for assignment in found}
        return self._assigned[path]


def locate(
    addresses: Iterable[Address], files: Sources | Mapping[str, bytes]
) -> tuple[Address, ...]:
    """The addresses with the file and the line of each, as far as the project's files show them.

    :param addresses: as :func:`stackmend.addresses.read` read them.
    :param files: the content of the project's files, by their path in it.
    """
    sources = Sources.make(files)
    found = []
    for address in addresses:
        place, port = address.place, address.port_place
        at = sources.find_span(place, address.text) or sources.find_start(address)
        if at is not None:
            path, start = at[:2]
            setting = sources.find_setting(path, start)
            line = 0 if setting else sources.find_line(path, start) + 1
            place = place.model_copy(update={"file": setting or path, "line": line})
        published = port is not None and sources.is_published(port)
        found.append(address.model_copy(update={"place": place, "published": published}))
    return tuple(found)


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """What Compose makes of a text with variables in it.

    :raises KeyError: a variable has no value here, which the host's shell may have.

    >>> substitute("redis://${HOST:-localhost}:$PORT/$$1", {"PORT": "1"})
    'redis://localhost:1/$1'
    """
    out, at = [], 0
    while match := _VARIABLE.search(text, at):
        out.append(text[at : match.start()])
        at = match.end()
        if match["escaped"]:
            out.append("$")
        elif match["plain"]:
            out.append(variables[match["plain"]])
        else:
            end = _find_brace(text, at)
            inner = _BRACED.fullmatch(text[at : end - 1])
            if inner is None:
                raise KeyError(text)
            out.append(_substitute(inner, variables))
            at = end
    return "".join([*out, text[at:]])


def _substitute(match: re.Match[str], variables: Mapping[str, str]) -> str:
    value, operator = variables.get(match["name"]), match["operator"] or ""
    has = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("+"):
        return substitute(match["rest"], variables) if has else ""
    if has and value is not None:
        return value
    if operator.endswith("-"):
        return substitute(match["rest"], variables)
    raise KeyError(match["name"])


def _find_brace(text: str, at: int) -> int:
    """The end of what stands in braces."""
    depth = 1
    while depth and at < len(text):
        if text.startswith("${", at):
            depth += 1
        elif text[at] == "}":
            depth -= 1
        at += 1
    return at


def iterate_variables(text: str) -> Iterator[str]:
    """The names of the variables in a text."""
    for match in re.finditer(r"\$\$|\$\{?([A-Za-z_]\w*)", text):
        if match[1]:
            yield match[1]


def find_words(old: str, text: str) -> Iterator[re.Match[str]]:
    """Where a text stands and is no part of a longer name."""
    if old:
        yield from re.finditer(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])", text)


def _strip_variables(text: str) -> str:
    """A text without the names of variables; what stands in for them stays."""
    return re.sub(r"\$\{?[A-Za-z_]\w*", "\0", text)


@lru_cache(64)
def _compose(content: bytes) -> yaml.Node | None:
    """The nodes of a compose file; ``None`` where it is none."""
    try:
        if len(content) > LARGEST:
            return None
        text = content.decode("utf-8", "surrogateescape")
        node: yaml.Node | None = yaml.compose(text, Loader=Loader)
        return node
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _iterate_merged(node: Any) -> Iterator[yaml.MappingNode]:
    """A mapping and what it merges with ``<<``, the one that counts first; each once."""
    left, done = [node], set()
    while left:
        node = left.pop()
        if not isinstance(node, yaml.MappingNode) or id(node) in done:
            continue
        done.add(id(node))
        yield node
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.value == "<<":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
        left += reversed(merged)


def _get(node: Any, key: str) -> yaml.Node | None:
    """What a mapping has under a key, ``<<`` included."""
    for mapping in _iterate_merged(node):
        for name, value in mapping.value:
            if name.value == key:
                return value  # type: ignore[no-any-return]
    return None


def _iterate_environment(path: str, node: yaml.Node) -> Iterator[tuple[str, Raw]]:
    """The variables of a section, those that it merges last."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if isinstance(item, yaml.ScalarNode):
                name, equals, value = item.value.partition("=")
                raw = _make_raw(path, item)
                yield name, raw._replace(text=value if equals else f"${{{name}}}")
    for mapping in _iterate_merged(node):
        for key, value in mapping.value:
            if key.value != "<<" and isinstance(value, yaml.ScalarNode):
                raw = _make_raw(path, value)
                if value.tag == "tag:yaml.org,2002:null":
                    raw = raw._replace(text=f"${{{key.value}}}")
                yield key.value, raw


def _list_values(node: yaml.Node | None) -> list[yaml.Node]:
    """The values of a mapping or a list."""
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _count_uses(node: yaml.Node | None, sought: yaml.Node, done: set[int]) -> int:
    """How often a node stands in another, aliases included."""
    if node is sought:
        return 1
    if id(node) in done or not isinstance(node, yaml.CollectionNode):
        return 0
    done.add(id(node))
    items = [*chain(*node.value)] if isinstance(node, yaml.MappingNode) else node.value
    return sum(_count_uses(item, sought, done) for item in items)


def _make_raw(path: str, node: yaml.ScalarNode) -> Raw:
    return Raw(path, node.start_mark.index, node.end_mark.index, node.value)
