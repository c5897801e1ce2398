"""Rules of the house that import-linter cannot hold."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("ops", "deploy")
    for path in (ROOT / package).rglob("*.py")
    # What runs inside an image of the reference stack is a program of its own.
    if path.relative_to(ROOT).parts[:2] != ("deploy", "stacks")
)


def name_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    parts = parts[1:] if parts[0] == "ops" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Every dotted name that a module imports, relative ones resolved."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = resolve_name(base, package) if node.level else base
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def test_there_is_something_to_look_at() -> None:
    assert Path("ops/stackmend/reporting/state.py") in MODULES
    assert "stackmend.reporting.state" in set(imported(Path("ops/stackmend/reporting/write.py")))


#: What decides or acts in a room, and is its own.
DOORS = frozenset({"plan", "commands", "reconciler", "executor"})


def find_rooms() -> list[str]:
    """The packages that have such a module or package, also those inside of another room."""
    parents = (
        path.parents[1] if path.name == "__init__.py" else path.parent
        for path in MODULES
        if (path.parent.name if path.name == "__init__.py" else path.stem) in DOORS
    )
    return sorted({name_of(parent / "__init__.py") for parent in parents})


ROOMS = find_rooms()


def find_room(name: str) -> str:
    """The innermost room that a dotted name lies in; empty where it lies in none."""
    inside = [room for room in ROOMS if f"{name}.".startswith(f"{room}.")]
    return max(inside, key=len, default="")


def is_kept_within(room: str, name: str) -> bool:
    """Whether a room must not import a name: it is what decides or acts in another one."""
    other = find_room(name)
    door = name.removeprefix(f"{other}.").partition(".")[0]
    if not other or other == room or door not in DOORS:
        return False
    # What a room inside of another plans may be made of that one's actions.
    return door != "plan" or not room.startswith(f"{other}.")


def test_the_rooms_are_found() -> None:
    assert {"stackmend.compose", "stackmend.basics", "stackmend.engine.accelerators"} <= {*ROOMS}
    assert find_room("stackmend.engine.accelerators.plan.plan") == "stackmend.engine.accelerators"
    assert find_room("stackmend.enginery.plan") == ""


@pytest.mark.parametrize(
    ("room", "name", "kept"),
    [
        ("stackmend.compose", "stackmend.ports.plan.decide", True),
        ("stackmend.compose", "stackmend.compose.plan.decide", False),
        ("stackmend.compose", "stackmend.ports.spec", False),
        ("stackmend.engine", "stackmend.engine.accelerators.commands", True),
        ("stackmend.engine.accelerators", "stackmend.engine.commands.LIMIT", True),
        ("stackmend.engine.accelerators", "stackmend.engine.plan.Install", False),
        ("stackmend.engine.accelerators", "stackmend.compose.plan.plan", True),
        ("", "stackmend.engine.accelerators.plan", True),
    ],
)
def test_what_a_room_keeps_within(room: str, name: str, kept: bool) -> None:
    assert is_kept_within(room, name) is kept


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_reads_what_decides_or_acts_in_another(path: Path) -> None:
    room = find_room(name_of(path))
    found = [name for name in imported(path) if is_kept_within(room, name)]
    assert not found, f"{path} imports {', '.join(found)}"


def test_the_contract_names_every_room() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["name"] == "The connection and the reports know no room"
    )
    # Whatever is a package, a room or what it needs, but these two and what all are made of.
    packages = {
        name_of(path) for path in MODULES if path.name == "__init__.py" and len(path.parts) == 4
    }
    rooms = packages - {"stackmend.connection", "stackmend.reporting"}
    assert rooms | {"stackmend.spec"} == {*contract["forbidden_modules"]}


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=str)
def test_no_package_defines_a_name_that_one_of_its_modules_has(path: Path) -> None:
    # Importing the module puts it in the name's place: the first call works, and no later one.
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = {node.name for node in tree.body if isinstance(node, kinds)}
    below = {other for other in MODULES if other != path and other.parent == path.parent}
    below |= {other.parent for other in MODULES if other.parent.parent == path.parent}
    assert not defined & {other.stem for other in below}


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "commands.py"], ids=str)
def test_commands_only_compose_commands(path: Path) -> None:
    for name in imported(path):
        top = name.partition(".")[0]
        assert top not in {"gevent", "os", "time", "random", "subprocess", "socket"}, name
        if top == "pyinfra":
            assert name.startswith("pyinfra.api"), f"{path} imports {name}"


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.name in {"plan.py", "spec.py", "state.py"} or p.parent.name == "plan"],
    ids=str,
)
def test_decisions_ask_no_clock(path: Path) -> None:
    # import-linter sees `import time`, but datetime is also for types: only its clock is barred.
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
            owner = ast.unparse(node.value)
            assert owner not in {"datetime", "datetime.datetime", "date"}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] == "deploy"], ids=str)
def test_deploys_only_wire(path: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.ClassDef | ast.While | ast.Try), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "paths.py"], ids=str)
def test_only_one_module_says_where_stackmend_keeps_its_own(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and id(node) not in prose
        and "/var/lib/stackmend" in str(node.value)
    ]
    assert not found, f"{path}:{found}: say paths.STATE_ROOT"


REFERENCE = re.compile(r":(?:func|class|meth|data|mod|attr):`~?([\w.]+)`")


def has(found: object, path: list[str]) -> bool:
    for name in path:
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


def is_known(reference: str, module: ModuleType) -> bool:
    """Whether a reference names something of its module, of one of its classes, or by its path."""
    parts = reference.split(".")
    owners = [module, *(one for one in vars(module).values() if isinstance(one, type))]
    if any(has(owner, parts) for owner in owners):
        return True
    for end in range(len(parts), 0, -1):
        try:
            return has(importlib.import_module(".".join(parts[:end])), parts[end:])
        except ModuleNotFoundError:
            continue
    return False


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] == "ops"], ids=str)
def test_docstrings_refer_to_what_exists(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    # What refers to nothing may be a program for a host, which would run when imported.
    if references := REFERENCE.findall(text):
        module = importlib.import_module(name_of(path))
        assert not [name for name in references if not is_known(name, module)]
