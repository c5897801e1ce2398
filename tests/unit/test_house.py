"""Rules of the house that import-linter cannot hold."""

import ast
import importlib
import re
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


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_reads_what_decides_or_acts_in_another(path: Path) -> None:
    own = ".".join(name_of(path).split(".")[:2])
    for name in imported(path):
        parts = name.split(".")
        if (
            parts[0] == "stackmend"
            and len(parts) > 2
            and parts[2] in {"plan", "commands", "reconciler", "executor"}
        ):
            assert ".".join(parts[:2]) == own, f"{path} imports {name}"


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
