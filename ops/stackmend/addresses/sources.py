"""Where a value comes from: the text of a project's own files that Compose made it of. Pure."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import yaml

from stackmend.addresses.state import Address, Place

#: A larger file is no compose file.
LARGEST = 1024**2
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)|\{)")
_BRACED = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:(?P<operator>:?[-+?])(?P<rest>.*))?", re.DOTALL)
_LINE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][\w.-]*)[ \t]*=[ \t]*(?P<value>.*?)[ \t\r]*$", re.M
)
_QUOTED = re.compile(r"(?:'(?P<single>[^']*)'|\"(?P<double>(?:[^\"\\]|\\.)*)\")(?:[ \t]+#.*)?")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "r": "\r", "\\": "\\", '"': '"', "$": "$"}


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
    """A project's compose files and env files.

    :param files: the content of the project's files, by their path in it.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.texts: dict[str, str] = {}
        self._roots: dict[str, yaml.Node] = {}
        for path in sorted(files, key=_rank):
            if path.endswith((".yaml", ".yml")) and len(files[path]) <= LARGEST:
                root = _compose(files[path])
                if isinstance(root, yaml.MappingNode) and _get(root, "services") is not None:
                    self._roots[path] = root
        self.variables = {
            name: text for name, _, _, text in self._iterate_lines(".env") if text is not None
        }

    def read_text(self, path: str) -> str:
        """A file's text; what is no UTF-8 in it comes back as it was."""
        if path not in self.texts:
            self.texts[path] = self.files[path].decode("utf-8", "surrogateescape")
        return self.texts[path]

    def find(self, place: Place) -> Raw | None:
        """The text that the value at a place was made of; ``None`` where it is not found."""
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
        lines = [line for line in self._iterate_lines(".env") if [line[0]] == names[:1]]
        if not lines or lines[-1][3] is None:
            return raw
        name, start, end, text = lines[-1]
        return Raw(".env", start, end, text or "", name)

    def find_body(
        self, service: str, section: str
    ) -> tuple[str, yaml.MappingNode, yaml.CollectionNode | None] | None:
        """The file and the node of a service, and of a section in it that stands there itself."""
        for path, root in self._roots.items():
            body = _get(_get(root, "services"), service)
            if not isinstance(body, yaml.MappingNode) or body.flow_style or not body.value:
                continue
            own = {key.value: value for key, value in body.value}
            node = own.get(section)
            if node is None and _get(body, section) is not None:
                return None
            if node is not None and not isinstance(node, yaml.CollectionNode):
                return None
            # A section with an anchor is every user's of it.
            shared = node is not None and _count_uses(root, node, set()) > 1
            return None if shared else (path, body, node)
        return None

    def find_span(self, place: Place, old: str) -> tuple[str, int, int] | None:
        """The file, the start and the end of a text of a value; ``None`` where that is not sure."""
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
            for match in _find_words(old, text[origin.start : origin.end])
        ]
        if origin.variable == "" and "$" not in origin.text and len(spans) > 1:
            # As many before it there as in the value.
            before = len(list(_find_words(old, origin.text[: place.start])))
            spans = spans[before : before + 1]
        elif len(spans) > 1 and origin is raw and text[origin.start : origin.end] == origin.text:
            spans = [(origin.start + place.start, origin.start + place.end)]
        return (origin.file, *spans[0]) if len(spans) == 1 else None

    def _find_in_file(self, path: str, place: Place, old: str) -> tuple[str, int, int] | None:
        text = self.read_text(path)
        spans = [(match.start(), match.end()) for match in _find_words(old, text)]
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
        return any(
            place.key in iterate_variables(item.value)
            for root in self._roots.values()
            for body in _list_values(_get(root, "services"))
            for port in _list_values(_get(body, "ports"))
            for item in (_list_values(port) or [port])
            if isinstance(item, yaml.ScalarNode)
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
        for path, node in self._find_nodes(service, "environment"):
            for name, value in _iterate_environment(path, node):
                if name == key:
                    return value
        return next(
            (
                Raw(path, start, end, text, "-")
                for path in self._list_env_files(service)
                for name, start, end, text in reversed(list(self._iterate_lines(path)))
                if name == key and text is not None
            ),
            None,
        )

    def _find_word(self, place: Place) -> Raw | None:
        found = self.find_command(place.service, place.kind)
        index = int(place.key)
        if not found:
            return None
        # One text is split as a shell would; which part of it a word is, its own text says.
        return found[index] if index < len(found) and len(found) > 1 else found[0]

    def _find_nodes(
        self, service: str, key: str, depth: int = 0
    ) -> Iterator[tuple[str, yaml.Node]]:
        """The nodes that say something of a service, the one that counts first."""
        extended: list[str] = []
        for path, root in reversed(self._roots.items()):
            body = _get(_get(root, "services"), service)
            if (node := _get(body, key)) is not None:
                yield path, node
            extends = _get(body, "extends")
            name = _get(extends, "service") if isinstance(extends, yaml.MappingNode) else extends
            if isinstance(name, yaml.ScalarNode) and name.value != service:
                extended.append(name.value)
        for other in extended if depth < 8 else ():
            yield from self._find_nodes(other, key, depth + 1)

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

    def _iterate_lines(self, path: str) -> Iterator[tuple[str, int, int, str | None]]:
        """The assignments of an env file: name, where the value stands, and its plain text."""
        if path not in self.files or len(self.files[path]) > LARGEST:
            return
        for match in _LINE.finditer(self.read_text(path)):
            value, start = match["value"], match.start("value")
            quoted = _QUOTED.fullmatch(value)
            if quoted:
                kind = "single" if quoted["single"] is not None else "double"
                text: str | None = quoted[kind]
                span = (start + quoted.start(kind), start + quoted.end(kind))
                if kind == "double":
                    text = _undo_escapes(quoted[kind])
            elif value[:1] in ("'", '"'):
                text, span = None, (start, start + len(value))
            else:
                text = re.split(r"[ \t]#", value, maxsplit=1)[0].rstrip()
                span = (start, start + len(text))
                text = None if "$" in text else text
            yield match["name"], *span, text


def _undo_escapes(text: str) -> str | None:
    """What Compose reads between double quotes; ``None`` where another variable is in it."""
    if "$" in _ESCAPE.sub("", text) or any(c not in _ESCAPED for c in _ESCAPE.findall(text)):
        return None
    return _ESCAPE.sub(lambda match: _ESCAPED[match[1]], text)


def locate(addresses: Iterable[Address], files: Mapping[str, bytes]) -> tuple[Address, ...]:
    """The addresses with the file and the line of each, as far as the project's files show them.

    :param addresses: as :func:`stackmend.addresses.read` read them.
    :param files: the content of the project's files, by their path in it.
    """
    sources = Sources(files)
    found = []
    for address in addresses:
        place, port = address.place, address.port_place
        if span := sources.find_span(place, address.text):
            path, start, _ = span
            line = sources.read_text(path).count("\n", 0, start) + 1
            place = place.model_copy(update={"file": path, "line": line})
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


def _find_words(old: str, text: str) -> Iterator[re.Match[str]]:
    """Where a text stands and is no part of a longer name."""
    if old:
        yield from re.finditer(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])", text)


def _strip_variables(text: str) -> str:
    """A text without the names of variables; what stands in for them stays."""
    return re.sub(r"\$\{?[A-Za-z_]\w*", "\0", text)


def _rank(path: str) -> tuple[bool, bool, str]:
    name = path.rpartition("/")[2]
    return ".override." in name, "/" not in path, path


def _compose(content: bytes) -> yaml.Node | None:
    try:
        return _compose_once(content)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError):
        return None


@lru_cache(64)
def _compose_once(content: bytes) -> yaml.Node | None:
    text = content.decode("utf-8", "surrogateescape")
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return node


def _get(node: Any, key: str, depth: int = 0) -> yaml.Node | None:
    """What a mapping has under a key, ``<<`` included."""
    if not isinstance(node, yaml.MappingNode) or depth > 16:
        return None
    merged: yaml.Node | None = None
    for name, value in node.value:
        if name.value == key:
            return value  # type: ignore[no-any-return]
        if name.value == "<<" and merged is None:
            for item in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                merged = merged or _get(item, key, depth + 1)
    return merged


def _iterate_environment(path: str, node: yaml.Node, depth: int = 0) -> Iterator[tuple[str, Raw]]:
    """The variables of a section, those that it merges last."""
    merged: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if isinstance(item, yaml.ScalarNode):
                name, equals, value = item.value.partition("=")
                raw = _make_raw(path, item)
                yield name, raw._replace(text=value if equals else f"${{{name}}}")
    elif isinstance(node, yaml.MappingNode) and depth <= 16:
        for key, value in node.value:
            if key.value == "<<":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif isinstance(value, yaml.ScalarNode):
                raw = _make_raw(path, value)
                if value.tag == "tag:yaml.org,2002:null":
                    raw = raw._replace(text=f"${{{key.value}}}")
                yield key.value, raw
        for item in merged:
            yield from _iterate_environment(path, item, depth + 1)


def _list_values(node: yaml.Node | None) -> list[yaml.Node]:
    """The values of a mapping or a list."""
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _count_uses(node: yaml.Node, sought: yaml.Node, done: set[int]) -> int:
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
