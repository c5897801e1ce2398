"""Whatever is given as ``stack`` or lies in a file: a ``Stack``, or one short error each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from pyinfra.api import OperationError
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from stackmend import access, compose, engine, models, ports, resolver
from stackmend.access.spec import AccessPolicy
from stackmend.compose import source as files
from stackmend.compose.published import find_published_ports
from stackmend.compose.source import SourceError, parse
from stackmend.compose.spec import ComposeSpec
from stackmend.engine.spec import EnginePolicy
from stackmend.models.spec import ModelsPolicy
from stackmend.ports.spec import PortsPolicy
from stackmend.problems import MAXIMUM_LINE, MAXIMUM_PROBLEMS
from stackmend.raw import MAXIMUM_DEPTH, MAXIMUM_VALUES, copy_plain
from stackmend.redaction import find_secrets
from stackmend.resolver.spec import ResolverPolicy
from stackmend.spec import SpecError, Stack, parse_machine
from stackmend.worker.benchmark.spec import BenchmarkPolicy, Limits, Minimum, Profile
from stackmend.worker.move.spec import MovePolicy
from stackmend.worker.spec import WorkerPolicy
from tests.connected import connected

ROOT = Path(__file__).parents[2]

#: Seconds of the processor that any input may take.
SECONDS = 2.0

quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    (root / "compose.yaml").write_text("services: {web: {image: 'lab/box:1'}}\n")
    return root


def stack(root: Path, **more: Any) -> dict[str, Any]:
    return {"project": "shop", "source": str(root), "directory": "/opt/shop", **more}


def judged(given: Any, start: str = "stack") -> list[str]:
    """The problems of a stack, each seen to be short, printable, and to begin with its path."""
    begun = time.process_time()
    try:
        found = parse_machine({"stack": given})
    except SpecError as error:
        lines = str(error).split("\n")
    else:
        assert given is None or found is not None
        lines = []
    assert time.process_time() - begun < SECONDS
    assert len(lines) <= MAXIMUM_PROBLEMS + 1
    for line in lines:
        assert line.startswith(start), line
        assert len(line) < MAXIMUM_LINE + 100
        assert not {unicodedata.category(one) for one in line} & {"Cc", "Cs", "Zl", "Zp"}
        line.encode()
    return lines


# Values that no settings can hold


class Broken:
    """An object whose every method fails."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("broken")

    def __repr__(self) -> str:
        raise RuntimeError("broken")

    def __str__(self) -> str:
        raise RuntimeError("broken")

    def __len__(self) -> int:
        raise RuntimeError("broken")

    def __bool__(self) -> bool:
        raise RuntimeError("broken")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("broken")

    def __hash__(self) -> int:
        raise RuntimeError("broken")

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("broken")

    def __fspath__(self) -> str:
        raise RuntimeError("broken")


class BrokenMapping(Mapping[str, Any]):
    """A mapping that says it has something, and gives nothing."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("broken")

    def __iter__(self) -> Iterator[str]:
        yield "a"

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise RuntimeError("broken")


class Endless(list[Any]):
    """A list that never ends."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield "x"


class OddText(str):
    """A text that is not what it holds."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("broken")

    def __repr__(self) -> str:
        raise RuntimeError("broken")

    def __len__(self) -> int:
        raise RuntimeError("broken")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("broken")

    __hash__ = str.__hash__


class OddNumber(int):
    """A number that does not say which."""

    def __str__(self) -> str:
        raise RuntimeError("broken")

    def __repr__(self) -> str:
        raise RuntimeError("broken")


def recursive_mapping() -> Any:
    found: dict[str, Any] = {}
    found["x"] = found
    return found


def recursive_list() -> Any:
    found: list[Any] = []
    found.append({"again": found})
    return found


def deep(kind: type) -> Any:
    found: Any = "x"
    for _ in range(5_000):
        found = {"x": found} if kind is dict else [found]
    return found


def bomb() -> Any:
    found: Any = "x" * 100
    for _ in range(20):
        found = [found] * 20
    return found


def generator() -> Iterator[str]:
    yield "x"


ODD: dict[str, Callable[[], Any]] = {
    "broken": Broken,
    "broken mapping": BrokenMapping,
    "broken class": lambda: Broken,
    "endless": Endless,
    "odd text": lambda: OddText("shop"),
    "odd number": lambda: OddNumber(5),
    "recursive mapping": recursive_mapping,
    "recursive list": recursive_list,
    "deep mapping": lambda: deep(dict),
    "deep list": lambda: deep(list),
    "bomb": bomb,
    "generator": generator,
    "iterator": lambda: iter(["x"]),
    "range": lambda: range(10**12),
    "range without length": lambda: range(10**30),
    "many": lambda: ["x"] * 60_000,
    "many keys": lambda: {f"k{number}": 1 for number in range(60_000)},
    "text of megabytes": lambda: "x" * (8 * 1024**2),
    "texts of megabytes": lambda: ["x" * 1024**2] * 8,
    "key of megabytes": lambda: {"k" * (8 * 1024**2): 1},
    "long text": lambda: "é" * 100_000,
    "huge number": lambda: 10**5000,
    "huge negative": lambda: -(10**5000),
    "digits": lambda: "9" * 5000,
    "digits with unit": lambda: "9" * 5000 + "GiB",
    "odd digits": lambda: "²",
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "decimal": lambda: Decimal("NaN"),
    "complex": lambda: 1j,
    "bytes": lambda: b"\xff\xfe",
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"x"),
    "surrogate": lambda: "a\ud800b",
    "surrogate key": lambda: {"a\udfffb": 1},
    "surrogate in a secret": lambda: SecretStr("a\ud800b"),
    "nul": lambda: "a\0b",
    "controls": lambda: "a\x1b]0;owned\x07\r\n\x85\u2028\u202eb",
    "control key": lambda: {"a\x1b\nb": 1},
    "number key": lambda: {5: 1},
    "none key": lambda: {None: 1},
    "broken key": lambda: {OddText("a"): 1},
    "tuple key": lambda: {("a",): 1},
    "secret of no text": lambda: SecretStr(5),  # type: ignore[arg-type]
    "path": lambda: Path("a\0b"),
    "surrogate path": lambda: Path("a\ud800b"),
    "long path": lambda: Path("/" + "a/" * 5000),
    "long name": lambda: Path("/" + "a" * 300),
    "home of nobody": lambda: "~nobody-of-that-name/x.pub",
    "set": lambda: {1, "a"},
    "function": lambda: print,
    "module": lambda: os,
    "exception": lambda: ValueError("x"),
    "ellipsis": lambda: ...,
}

_SECTIONS: dict[str, type] = {
    "access": AccessPolicy,
    "engine": EnginePolicy,
    "models": ModelsPolicy,
    "ports": PortsPolicy,
    "resolver": ResolverPolicy,
    "worker": WorkerPolicy,
    "worker.benchmark": BenchmarkPolicy,
    "worker.benchmark.profile": Profile,
    "worker.benchmark.profile.limits": Limits,
    "worker.benchmark.minimum": Minimum,
    "worker.engine": MovePolicy,
}
FIELDS = [
    *Stack.model_fields,
    "mend.backoff",
    "mend.attempts",
    "report.directory",
    "env.A",
    "checks[0]",
    "checks.http.url",
    "checks.http.status",
    "checks.http.headers",
    "checks.tcp.address",
    "checks.exec.command",
    "engine.log.max_size",
    "models.wanted[0]",
    "models.wanted.name",
    "models.wanted.gguf",
    *(f"{name}.{field}" for name, model in _SECTIONS.items() for field in model.model_fields),  # type: ignore[attr-defined]
]


def placed(root: Path, field: str, value: Any) -> Any:
    """A right stack with one value in the place of a field."""
    needed = {
        "access": {"user": "ops", "public_keys": ["ssh-ed25519 AAAA"]},
        "report": {},
        "engine": {},
        "models": {},
        "ports": {},
        "resolver": {},
        "mend": {},
        "env": {},
        "worker": {},
    }
    if field == "checks[0]":
        return stack(root, checks=[value])
    if field.startswith("checks."):
        _, kind, key = field.split(".")
        return stack(root, checks=[{"kind": kind, key: value}])
    if field == "models.wanted[0]":
        return stack(root, models={"wanted": [value]})
    if field.startswith("models.wanted."):
        return stack(root, models={"wanted": [{"name": "a", field.rpartition(".")[2]: value}]})
    if field == "engine.log.max_size":
        return stack(root, engine={"log": {"max_size": value}})
    if field.startswith(("worker.benchmark.", "worker.engine.")):
        for part in reversed(field.split(".")[1:]):
            value = {part: value}
        return stack(root, worker=value)
    section, dot, key = field.partition(".")
    if dot:
        return stack(root, **{section: {**needed[section], key: value}})
    return stack(root, **{section: value})


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_value_in_the_place_of_any_field(root: Path, odd: str) -> None:
    for field in FIELDS:
        judged(placed(root, field, ODD[odd]()))


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_value_as_the_stack(odd: str) -> None:
    if odd != "set":
        assert judged(ODD[odd]())


@pytest.mark.parametrize("odd", ODD)
def test_secrets_are_looked_for_in_odd_values(odd: str) -> None:
    """They are learned before anything is validated."""
    begun = time.process_time()
    data = {"first": {"api_password": "tr0ub4dor"}, "odd": ODD[odd](), "last": SecretStr("hunter2")}
    found = dict(find_secrets({"stack": data}))
    assert time.process_time() - begun < SECONDS
    assert found["stack.first.api_password"] == "tr0ub4dor"
    assert found["stack.last"] == "hunter2"


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("recursive mapping", "stack.env.x: holds itself; write out what it is to hold"),
        ("generator", "stack.env: must be plain data: text, a number, true, false, a list or a"),
        ("broken", "stack.env: must be plain data: text, a number, true, false, a list or a map"),
        ("broken mapping", "stack.env: cannot be read: BrokenMapping raises RuntimeError"),
        ("huge number", "stack.env: a number of 16610 bits is too large; write it as text"),
        ("surrogate", "stack.env: holds half of a character, which is no text"),
        ("surrogate key", "stack.env: holds half of a character, which is no text"),
        ("number key", "stack.env: 5 is a key that is no text; put it in quotes"),
        ("many", f"stack.env: 60000 values are more than the {MAXIMUM_VALUES} of settings"),
        ("secret of no text", "stack.env: a SecretStr must hold text"),
        ("digits", "stack.env: must be a mapping"),
    ],
)
def test_what_is_said_of_an_odd_value(root: Path, odd: str, said: str) -> None:
    (line,) = judged(stack(root, env=ODD[odd]()))
    assert line.startswith(said)


def test_deep_values_are_told_with_their_path(root: Path) -> None:
    (line,) = judged(stack(root, engine={"settings": deep(dict)}))
    assert line.startswith("stack.engine.settings.x.x.x.")
    assert line.endswith(f": lies deeper than {MAXIMUM_DEPTH} levels; flatten it")


def test_many_problems_are_counted(root: Path) -> None:
    lines = judged(stack(root, allow=["x"] * 40_000))
    assert len(lines) == MAXIMUM_PROBLEMS + 1
    assert lines[-1] == f"stack: … and {40_000 - MAXIMUM_PROBLEMS} more problems"


def test_plain_data_stays_what_it_is() -> None:
    value = {"a": [1, 2.5, True, None, ("x",), {"b": "é"}], "p": Path("/x"), "s": SecretStr("y")}
    assert copy_plain(value) == value
    assert copy_plain({1, 2}) in ([1, 2], [2, 1])
    assert type(copy_plain(OddNumber(5))) is int
    assert type(copy_plain({OddText("k"): OddText("v")})["k"]) is str


@dataclass(frozen=True)
class Odd:
    """Stands for an odd value while hypothesis has it, which asks values for this and that."""

    name: str


def made(value: Any) -> Any:
    if isinstance(value, Odd):
        return ODD[value.name]()
    if isinstance(value, dict):
        return {key: made(item) for key, item in value.items()}
    return [made(item) for item in value] if isinstance(value, list) else value


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(), max_size=40),
        st.binary(max_size=10),
        st.sampled_from(sorted(ODD)).map(Odd),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4),
        st.dictionaries(st.sampled_from(sorted(Stack.model_fields)), inner, max_size=6),
    ),
    max_leaves=12,
)


@quick
@given(value=VALUES)
def test_any_value_as_the_stack(value: Any) -> None:
    judged(made(value))


@quick
@given(field=st.sampled_from(FIELDS), value=VALUES)
def test_any_value_in_the_place_of_any_field(root: Path, field: str, value: Any) -> None:
    judged(placed(root, field, made(value)))


# Files


YAML = st.lists(
    st.sampled_from(
        [
            *("services:\n", "  web:\n", "    image: a\n", "    ports:\n", "      - ", "  ", "\n"),
            *("&a ", "*a", "<<: *a\n", "{", "}", "[", "]", ",", ": ", "? ", "- ", "|\n", ">-\n"),
            *("!!int ", "!!float ", "!!set ", "!!omap ", "!!binary ", "!!timestamp ", "!reset "),
            *("!!python/object:os.system ", "!!merge ", "!!null ", "!!bool ", "!!pairs ", "!x "),
            *("'", '"', "\\", "\\ud800", "#", "%YAML 1.2\n", "---\n", "...\n", "\t", "\r", "\0"),
            *("1e999", "9" * 40, "-", ".inf", "1:2:3.5", "0x1", "~", "²", "\ufeff", "\x85", "é"),
            *("include: ", "volumes: ", "depends_on: ", "network_mode: ", "env_file: ", "x-a: "),
            *("build: ", "extends: ", "configs: ", "links: ", "healthcheck: ", "../", "$A", "./"),
        ]
    ),
    max_size=40,
).map("".join)


@quick
@given(
    content=st.one_of(
        st.binary(max_size=300),
        YAML.map(lambda text: text.encode(errors="surrogatepass")),
        YAML.map(lambda text: b"services:\n  web:\n    image: a\n    " + text.encode()),
        YAML.map(lambda text: text.encode("utf-16")),
    ),
    name=st.sampled_from(["compose.yaml", "compose.override.yaml", ".env", ".dockerignore"]),
)
@example(content=b"services: {web: {image: a, ports: 5}}", name="compose.override.yaml")
@example(content=b"services: [a]", name="compose.override.yaml")
@example(
    content=b"services: {web: {image: a, ports: [{published: '\xc2\xb2'}]}}", name="compose.yaml"
)
@example(content=b"!", name=".dockerignore")
def test_any_content_of_a_file(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: a, build: .}}\n")
    for other in ("compose.override.yaml", ".env", ".dockerignore"):
        (tmp_path / other).unlink(missing_ok=True)
    (tmp_path / name).write_bytes(content)
    lines = judged(stack(tmp_path), "stack.source: ")
    assert len(lines) <= 1
    if not lines:
        find_published_ports(ComposeSpec.model_validate(stack(tmp_path)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("\\", "line 2: '\\\\' is not a pattern of files; correct it"),
        ("a\\", "is not a pattern of files; correct it"),
        ("[z-a]", "line 2: '[z-a]' is not a pattern of files; correct it"),
        ("[\\", "is not a pattern of files; correct it"),
        ("*a*a*a*a*a*b", "line 2: '*a*a*a*a*a*b' holds more than 4 stars in one name"),
        ("x\n" * 1001, "stack.source: api/.dockerignore holds more than 1000 lines"),
    ],
)
def test_a_pattern_that_is_none_or_takes_hours(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {build: api}}\n")
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / ("a" * 255)).write_text("x")
    (tmp_path / "api" / ".dockerignore").write_text("docs\n" + line)
    (found,) = judged(stack(tmp_path))
    assert found.startswith("stack.source: api/.dockerignore")
    assert said in found
    (tmp_path / "api" / ".dockerignore").write_text(
        "# [z-a]\n**/*.py[co]\n!*.md\n/a/*/b*.*\n[[a]\n"
    )
    assert judged(stack(tmp_path)) == []
    loaded = files.load(ComposeSpec.model_validate(stack(tmp_path)))
    assert loaded.ignored == {"api": frozenset()}


NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, 47} & set(name) and name not in (b".", b"..")
)


@quick
@given(tree=st.dictionaries(NAMES, st.sampled_from(["file", "directory", "pipe", "loop", "none"])))
def test_any_tree_as_source(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    root = tmp_path_factory.mktemp("tree")
    (root / "compose.yaml").write_text("services: {web: {image: a}}\n")
    for name, kind in tree.items():
        path = bytes(root) + b"/" + name
        with suppress(FileExistsError):
            if kind == "file":
                Path(os.fsdecode(path)).write_bytes(b"x")
            elif kind == "directory":
                os.mkdir(path)  # noqa: PTH102 - of a name in bytes
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                os.symlink(name if kind == "loop" else b"nowhere", path)  # noqa: PTH211
    lines = judged(stack(root), "stack.source: ")
    odd = set(tree.values()) - {"file", "directory"}
    assert len(lines) <= 1
    assert lines or not odd


# Bombs


def chain(last: str, width: int = 9, base: str = "[x]") -> str:
    lines = [f"x-0: &a0 {base}"]
    for number in range(1, 12):
        below = ", ".join([f"*a{number - 1}"] * width)
        lines.append(f"x-{number}: &a{number} {last % below}")
    return "\n".join(lines)


WEB = "\nservices:\n  web:\n    image: a\n    "

BOMBS = {
    "ports": chain("[%s]") + f"{WEB}ports: *a11",
    "network mode": chain("[%s]") + f"{WEB}network_mode: *a8",
    "not used": chain("[%s]") + WEB,
    "mappings": chain("{k: [%s]}") + f"{WEB}environment: *a11",
    "merge keys": chain("{<<: [%s]}", base="{k: 1}") + f"{WEB}labels: *a11",
    "merges in a row": "x-0: &a0 {k: 1}\n"
    + "\n".join(f"x-{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}" for n in range(1, 2000))
    + WEB,
    "text": f"x-t: &t '{'x' * 500_000}'\nx-l: [{', '.join(['*t'] * 20_000)}]{WEB}",
    "text as a name": f"x-t: &t '{'x' * 900_000}'{WEB}depends_on: [{', '.join(['*t'] * 4)}]",
    "deep sequences": "x-a: " + "[" * 100_000,
    "deep mappings": "x-a: " + "{a: " * 100_000,
    "deep blocks": "".join(f"{' ' * number}a:\n" for number in range(1400)),
    "deep keys": "? " * 100_000,
    "aliases in a row": "x-0: &a0 [x]\n"
    + "\n".join(f"x-{n}: &a{n} [*a{n - 1}]" for n in range(1, 5000)),
    "itself": f"x-a: &a [*a]{WEB}",
    "itself in a mapping": f"x-a: &a {{b: [*a]}}{WEB}ports: *a",
    "itself merged": f"x-a: &a {{<<: *a}}{WEB}",
    "itself as a key": f"x-a: &a {{*a : 1}}{WEB}",
    "many keys": "\n".join(f"x-{number}: 1" for number in range(60_000)),
    "many services": "services:\n" + "\n".join(f"  s{n}: {{image: a}}" for n in range(30_000)),
    "many values": "x-a: [" + "a, " * 300_000 + "]",
    "long key": f"{'k' * 900_000}: 1{WEB}",
    "long name": f"services:\n  {'k' * 900_000}: {{image: a}}",
    "long port": f"{WEB}ports: ['{'9' * 900_000}']",
    "long path": f"{WEB}env_file: ['{'../' * 300_000}']",
    "number": f"x-a: {'9' * 900_000}{WEB}",
    "float": f"x-a: {'9' * 300_000}.5e9999999{WEB}",
    "sexagesimal": f"x-a: !!float '{':'.join(['1'] * 300_000)}.5'{WEB}",
    "long line": "# " + "x" * 1_000_000 + WEB,
    "long tag": f"x-a: !{'t' * 900_000} x{WEB}",
    "long alias": f"x-a: *{'t' * 900_000}{WEB}",
    "quotes": "x-a: [" + '"a" , ' * 100_000,
    "blank": " \n" * 500_000,
    "larger than a compose file": "# " + "x" * 4_000_000 + WEB,
}
RIGHT = {"long line", "float"}

_SERVER = """
import json, os, resource, signal, sys
from stackmend.spec import SpecError, check

baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in sys.stdin:
    if os.fork():
        _, _, used = os.wait4(-1, 0)
        print(json.dumps([used.ru_utime + used.ru_stime, (used.ru_maxrss - baseline) // 1024]))
        sys.stdout.flush()
        continue
    signal.alarm(60)
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    said = "no SpecError"
    try:
        check({"stack": json.loads(line)})
        said = ""
    except SpecError as error:
        said = str(error)
    finally:
        print(json.dumps(said), flush=True)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    """Checks each stack in a process of its own, and tells what that took."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        yield server


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_told_before_it_goes_off(
    server: subprocess.Popen[str], tmp_path: Path, bomb: str
) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    (tmp_path / "compose.yaml").write_text(BOMBS[bomb])
    server.stdin.write(f"{json.dumps(stack(tmp_path))}\n")
    server.stdin.flush()
    said = json.loads(server.stdout.readline())
    seconds, megabytes = json.loads(server.stdout.readline())
    assert "\n" not in said
    assert len(said) < MAXIMUM_LINE + 100
    assert said.startswith("" if bomb in RIGHT else "stack.source: compose.yaml")
    assert (said == "") is (bomb in RIGHT)
    assert seconds < SECONDS
    assert megabytes < 200


@pytest.mark.parametrize("how", ["override", "include", "extends"])
def test_what_the_compose_file_names_has_the_same_limits(tmp_path: Path, how: str) -> None:
    named = "compose.override.yaml" if how == "override" else "more.yaml"
    text = {
        "override": "services: {web: {image: a}}\n",
        "include": "include: [more.yaml]\n",
        "extends": "services: {web: {extends: {file: ./more.yaml, service: web}}}\n",
    }[how]
    (tmp_path / "compose.yaml").write_text(text)
    for bomb in ("ports", "deep sequences"):
        (tmp_path / named).write_text(BOMBS[bomb])
        (line,) = judged(stack(tmp_path))
        assert line.startswith(f"stack.source: {named} line ")
    (tmp_path / named).write_text("services: {web: {image: a}}\n")
    assert judged(stack(tmp_path)) == []


def test_what_is_alike_may_be_written_once(tmp_path: Path) -> None:
    """Anchors, aliases and merge keys as people use them."""
    text = (
        "x-base: &base {image: a, restart: always}\n"
        "x-more: &more\n  <<: *base\n  environment: &env {A: 1, B: 2}\n"
        "services:\n"
        + "".join(
            f"  s{number}:\n    <<: [*more, *base]\n    labels: *env\n" for number in range(300)
        )
    )
    (tmp_path / "compose.yaml").write_text(text)
    assert judged(stack(tmp_path)) == []
    data = parse("compose.yaml", text.encode())
    assert data["services"]["s7"] == {
        "image": "a",
        "restart": "always",
        "environment": {"A": 1, "B": 2},
        "labels": {"A": 1, "B": 2},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "services:\n  web:\n    image: a\n    image: b\n",
            "line 4: duplicate key 'image', first in line 3 and again in line 4; keep one of them",
        ),
        (
            "services:\n  web: {image: a}\n  db: {image: a}\n  web: {image: b}\n",
            "line 4: duplicate key 'web', first in line 2 and again in line 4; keep one of them",
        ),
        (
            "x-a: &a {b: 1}\nx-c:\n  <<: *a\n  <<: *a\nservices: {}\n",
            "line 4: duplicate key '<<', first in line 3 and again in line 4; keep one of them",
        ),
        ("services: {}\n'services': {}\n", "line 2: duplicate key 'services', first in line 1"),
        ("services: {5: {image: a}}\n", "line 1: the key '5' is not text; put it in quotes"),
        ("services: {~: {image: a}}\n", "line 1: the key '~' is not text; put it in quotes"),
        ("services: {[a]: {image: a}}\n", "line 1: the key a collection is not text; put it"),
    ],
)
def test_keys_that_compose_refuses(text: str, said: str) -> None:
    with pytest.raises(SourceError) as raised:
        parse("compose.yaml", text.encode())
    assert str(raised.value).startswith(f"compose.yaml {said}")


@pytest.mark.parametrize(
    "name",
    ["we b", "", "web/api", "wéb", "web\n", "a" * 201, "web\x1b[2J", "$web", "../web", ".", ".."],
)
def test_a_service_has_a_name_that_compose_takes(tmp_path: Path, name: str) -> None:
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": {name: {"image": "a"}}}))
    (line,) = judged(stack(tmp_path))
    assert line.startswith("stack.source: compose.yaml: services: ")
    assert "is not a service's name, which holds letters, digits, '.', '_' and '-'" in line
    for right in ("web", "Web.api_2-x", "-web", ".web", "...", "a" * 200):
        (tmp_path / "compose.yaml").write_text(json.dumps({"services": {right: {"image": "a"}}}))
        assert judged(stack(tmp_path)) == []


# What the host would refuse


def test_a_project_is_named_as_a_directory_can_be(root: Path) -> None:
    assert judged(stack(root, project="a" * 255)) == []
    (line,) = judged(stack(root, project="a" * 256))
    assert line == ("stack.project: a name of 256 characters is too long; 255 are the most")


def test_names_that_the_project_is_part_of(tmp_path: Path) -> None:
    services = {name: {"image": "a"} for name in ("web", "o" * 50)}
    compose_file = {"services": services, "volumes": {"v" * 54: {}}}
    (tmp_path / "compose.yaml").write_text(json.dumps(compose_file))
    assert judged(stack(tmp_path, project="p" * 200)) == []
    (line,) = judged(stack(tmp_path, project="p" * 201))
    assert line.startswith(f"stack.source: compose.yaml: volumes.{'v' * 54}: ")
    models_of = {"service": "o" * 50, "wanted": ["a"]}
    assert judged(stack(tmp_path, project="p" * 199, models=models_of)) == []
    (line,) = judged(stack(tmp_path, project="p" * 200, models=models_of))
    assert line.startswith("stack.project: too long for a file of its models")


@pytest.mark.parametrize(
    ("directory", "said"),
    [
        ("/opt/" + "a" * 256, "is too long for the name of a file; 255 bytes are the most"),
        ("/opt/" + "é" * 128, "is too long for the name of a file; 255 bytes are the most"),
        ("/" + "a/" * 2500, "a path of 5001 bytes is too long; 4095 are the most"),
        ("/opt/a\x1bb", "must not hold control characters"),
        ("/opt/a\x85b", "must not hold control characters"),
        ("/opt/a\u202eb", "must not hold control characters"),
    ],
)
def test_a_directory_is_a_path_that_a_host_takes(root: Path, directory: str, said: str) -> None:
    (line,) = judged(stack(root, directory=directory))
    assert line.startswith("stack.directory: ")
    assert said in line


def test_a_directory_leaves_room_for_the_files_below_it(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: a}}\n")
    long = "/" + "/".join(["d" * 200] * 15)
    assert judged(stack(tmp_path, directory=long)) == []
    deepest = tmp_path.joinpath(*["e" * 200] * 5)
    deepest.mkdir(parents=True)
    (deepest / "f").write_text("x")
    (line,) = judged(stack(tmp_path, directory=long))
    assert line.startswith("stack.directory: ")
    assert f"{files.PATH_MAX - files.MARGIN} bytes; choose a shorter one" in line
    assert judged(stack(tmp_path)) == []


@pytest.mark.parametrize("name", ["a\tb", "a\x1b]0;owned\x07", "a\x7f", "a\x85b", "a\u2028b"])
def test_a_file_has_a_name_that_a_list_can_carry(tmp_path: Path, name: str) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: a}}\n")
    (tmp_path / "né👩\u200d🔧 x").write_text("x")
    assert judged(stack(tmp_path)) == []
    (tmp_path / name).write_text("x")
    (line,) = judged(stack(tmp_path))
    assert line.endswith("holds a control character; rename the file")


# Operations that are called by themselves


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with connected("@fake", fake_delay=0) as host, ctx_host.use(host):
        yield host


def called(host: Host, operation: Any, arguments: Mapping[str, Any]) -> str:
    """The one error of an operation; empty where there is none before the host is asked."""
    try:
        next(iter(operation._inner(**arguments)), None)
    except OperationError as error:
        said = str(error)
    except Exception as error:
        if host.connector.executed_commands or "fake" in str(error).lower():
            return ""
        raise
    else:
        said = ""
    return said


OPERATIONS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "compose.stack": (
        compose.stack,
        {"project": "shop", "directory": "/opt/shop"},
        ("project", "source", "directory", "env", "checks", "profiles", "mend", "allow"),
    ),
    "access.operator": (access.operator, {"user": "ops"}, ("user", "public_keys")),
    "access.basics": (access.basics, {}, ("ports",)),
    "engine.installed": (engine.installed, {}, ("channel", "version", "replace", "settings")),
    "engine.settings": (engine.settings, {}, ("dns", "log", "runtimes", "settings", "replace")),
    "engine.accelerated": (engine.accelerated, {}, ("repository", "key", "replace")),
    "ports.free": (ports.free, {"ports": 80}, ("ports", "allow", "protect", "grace", "project")),
    "resolver.servers": (
        resolver.servers,
        {"servers": ["192.0.2.53"]},
        ("servers", "search", "check_names", "on_conflict", "revert_after"),
    ),
    "resolver.cache_flushed": (resolver.cache_flushed, {}, ("when", "check_names")),
    "models.pulled": (
        models.pulled,
        {"models": ["a"]},
        ("models", "service", "stall", "pull_from", "source", "project"),
    ),
}


@pytest.mark.parametrize(
    "odd",
    ["broken", "broken mapping", "recursive list", "recursive mapping", "generator", "complex"],
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_odd_argument_is_one_error_of_the_operation(
    host: Host, root: Path, name: str, odd: str
) -> None:
    operation, right, fields = OPERATIONS[name]
    right = {**right, "source": str(root)} if name == "compose.stack" else right
    if name == "access.operator":
        right = {**right, "public_keys": ["x.pub"]}
    for field in fields:
        said = called(host, operation, {**right, field: ODD[odd]()})
        assert said.startswith(field), (field, said)
        assert "\n" not in said
        assert len(said) < MAXIMUM_LINE + 100
    assert host.connector.executed_commands == []
