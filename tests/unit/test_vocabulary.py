"""The library speaks the field's words: no name has a word in it that was given up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

#: The words that were given up, each with what is said instead. A name is compared by the words
#: within it, whatever their case: ``list_usable`` and ``USABLE`` have ``usable`` in them.
REJECTED = {
    "wanted": "spec, desired",
    "given": "raw, options",
    **dict.fromkeys(("look", "looks", "looking"), "observe, observation"),
    "seen": "observed",
    **dict.fromkeys(("way", "ways"), "remedy, auth_methods; obstacle"),
    "carry": "execute, merge",
    "upon": "reconcile",
    **dict.fromkeys(("prove", "proves"), "verify"),
    **dict.fromkeys(("judge", "judged"), "verify, classify"),
    **dict.fromkeys(("settle", "settled"), "wait_until_stable"),
    "patience": "timeout",
    "passing": "TransientError; temporary",
    "gone": "TransientError; absent",
    **dict.fromkeys(("said", "says"), "output, message"),
    "told": "message, reported",
    **dict.fromkeys(("tell", "tells", "telling", "teller"), "report"),
    "masked": "redacted",
    "shown": "output, redacted",
    **dict.fromkeys(("stranger", "strangers"), "foreign"),
    **dict.fromkeys(("verdict", "verdicts"), "status"),
    "begun": "partial, started",
    "barrier": "Protection",
    "barred": "protected",
    "near": "suggest",
    "nearest": "suggest",
    "expect": "prefetch",
    "forget": "invalidate",
    "gather": "fetch_facts",
    "anew": "fresh",
    "fresh": "new_login, new",
    **dict.fromkeys(("usable", "able"), "can_, matching_identities"),
    "bringer": "Puller",
    "making": "ModelSource",
    "serves": "for_model",
    "one": "the noun: port, holder, service",
    **dict.fromkeys(("unite", "united"), "merge"),
    "whole": "complete, intact",
    **dict.fromkeys(("work", "works"), "execute, run"),
    "rest": "unmanaged",
}

#: Names that are rejected as they stand, and not as a word in others (``on_failure`` is a setting).
REJECTED_NAMES = {
    "Reader": "Reconciler",
    "Failure": "StepError",
    "Failed": "StepError",
    "is_well": "is_converged",
}

#: Names with such a word that stay everywhere, and why.
STAY_EVERYWHERE = {
    "fresh": "an argument: whether something is made or read new",
    "rest": "what remains of a text or list when its first part is taken off",
    "masked": "systemd's, of a unit",
    "get_masked_value": "pyinfra's",
    "SSLWantReadError": "Python's",
}

PYTHON = sorted(
    path
    for directory in ("ops/stackmend", "deploy")
    for path in (PROJECT / directory).rglob("*.py")
)
SCRIPTS = sorted(
    path
    for directory in ("ops/stackmend", "deploy")
    for path in (PROJECT / directory).rglob("*.sh")
)

HARNESS = sorted(
    path for path in (PROJECT / "tests/lab").glob("*.py") if not path.name.startswith("test_")
)


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """The names that a module defines or uses, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield line, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.ClassDef(name=name):
                yield line, name
            case ast.keyword(arg=str(name)):
                yield line, name
            case ast.alias(name=name, asname=alias):
                yield line, alias or name.rpartition(".")[2]


#: Where a shell's name stands: it is used, assigned, read into, looped over, or a function.
VARIABLE = re.compile(
    r"\$\{?\#?([A-Za-z_]\w*)|(?<![\w./@%-])([A-Za-z_]\w*)=(?!=)|\bfor\s+([A-Za-z_]\w*)\s+in\b"
    r"|^\s*([A-Za-z_]\w*)\s*\(\)"
)
READ = re.compile(r"\bread -r ((?:[A-Za-z_]\w*[ ]?)+)")


def variables(path: Path) -> Iterator[tuple[int, str]]:
    """The variables and functions of a script, with their lines."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.lstrip().startswith("#"):
            for match in VARIABLE.finditer(line):
                yield number, next(filter(None, match.groups()))
            for match in READ.finditer(line):
                yield from ((number, name) for name in match[1].split())


def split(name: str) -> list[str]:
    """The words of a name, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def rejected(name: str) -> str:
    """What to say instead of a name; empty where it may stay."""
    bare = name.strip("_")
    if bare in STAY_EVERYWHERE:
        return ""
    return REJECTED_NAMES.get(bare) or next((REJECTED[w] for w in split(bare) if w in REJECTED), "")


def find_rejected(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        place = path.relative_to(PROJECT).as_posix()
        names = identifiers(path) if path.suffix == ".py" else variables(path)
        for line, name in [(0, path.stem), *names]:
            if (instead := rejected(name)) and (place, name) not in STAY_THERE:
                yield f"{place}:{line}: {name}: say {instead}"


def test_no_name_has_a_word_that_was_given_up() -> None:
    found = list(find_rejected([*PYTHON, *SCRIPTS]))
    assert not found, "\n".join(found)


#: What other modules of the lab's harness use, and may be named so, with why.
STAY_IN_HARNESS = {
    "WarmProcess.__init__.told": "a file that the forker tells its process by",
}


def definitions(tree: ast.AST, above: str = "") -> Iterator[tuple[int, str, str]]:
    """The classes, functions and arguments that a module defines: line, full name, own name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, f"{above}{node.name}", node.name
            yield from definitions(node, f"{above}{node.name}.")
        elif isinstance(node, ast.arguments):
            for argument in (*node.posonlyargs, *node.args, *node.kwonlyargs):
                yield argument.lineno, f"{above}{argument.arg}", argument.arg


def test_the_lab_harness_speaks_the_same_words() -> None:
    found = [
        f"{path.name}:{line}: {full}: say {instead}"
        for path in HARNESS
        for line, full, name in [
            (0, path.stem, path.stem),
            *definitions(ast.parse(path.read_text())),
        ]
        if (instead := rejected(name)) and full not in STAY_IN_HARNESS
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "name", ["Prove", "list_usable", "_TOLD", "wasSeen", "clear_way", "__united", "HTTPSaid"]
)
def test_a_word_is_found_within_a_name(name: str) -> None:
    assert rejected(name)


@pytest.mark.parametrize("name", ["unseen", "always", "workdir", "on_failure", "proven", "nearby"])
def test_a_part_of_a_word_is_no_word(name: str) -> None:
    assert not rejected(name)


@pytest.mark.parametrize(
    "line",
    [
        "said=$(true)",
        "  local_=1 said=2",
        'echo "$said"',
        "echo ${said%x} ${#said}",
        "for said in a b; do",
        "read -r status said",
        "said() {",
    ],
)
def test_a_name_is_found_in_a_script(tmp_path: Path, line: str) -> None:
    script = tmp_path / "script.sh"
    script.write_text(f"# said=1\n{line}\n")
    assert (2, "said") in set(variables(script))
    assert not [number for number, _ in variables(script) if number == 1]


@pytest.mark.slow
def test_every_exception_is_needed() -> None:
    used = {
        (path.relative_to(PROJECT).as_posix(), name)
        for path in [*PYTHON, *SCRIPTS]
        for _, name in (identifiers(path) if path.suffix == ".py" else variables(path))
    }
    assert not STAY_THERE.keys() - used
    assert not STAY_EVERYWHERE.keys() - {name.strip("_") for _, name in used}


#: What the name of a function may begin with.
VERBS = frozenset(
    """
    abbreviate accept act add admit advance allow anchor announce answer append apply arm armor
    arrange ask assemble assess attempt authenticate await beat begin bind bring build call
    cast change check choose claim classify clean clear close collect compare compile
    complain complete compose compress compute conclude configure confirm connect construct
    convert copy count create cut dearmor decide decode delay delete derive describe detect
    diagnose
    dial discard disconnect display do download draw drop dump emit encode end enter escape
    evaluate exchange execute exit expand expire explain extract fail feed fetch fill filter
    finalize find finish fit flatten flush follow forbid forecast format forward free generate
    get give group guard handle hash hide hint hold identify ignore include index install
    interleave interpret invalidate iterate join keep kill learn leave let limit list listen load
    locate lock log make map mark match measure meet mend merge mount move name normalize note
    notice notify observe offer omit open operate order pack parse pass patch pause pick pin place
    plan predict prefer prefetch prepare preview print proceed process protect prune pull put query
    quicken quote raise rank read reap receive reconcile record recreate redact refresh refuse
    register relativize relay release remember remove rename render renew replace report
    request require rerun reserve reset resolve restart restore resume retag retire retry
    return reveal revert roll run save scan search select send separate set shorten show
    shut sign skip sort spawn split stage start step stop store strip style submit substitute
    subtract suggest sum summarize supply switch tag take test touch track transfer translate
    truncate trust try turn understand undo unlock unpack unquote unwrap update use validate
    verify wait walk warn watch wrap write yield
    """.split()
)

#: Other beginnings, and why they are no verbs.
BEGINNINGS = {
    "is": "a predicate",
    "has": "a predicate",
    "can": "a predicate",
    "to": "a conversion, as Python names its own",
    "from": "a conversion, as Python names its own",
    "as": "a conversion, as Python names its own",
}

#: Names that are no verbs, and why they stay.
STAY = {
    "command": "pyinfra's, of a fact",
    "default": "pyinfra's, of a fact",
    "init": "pyinfra's, of a state",
    "host_connect_error": "pyinfra's, of a callback",
    "reducer_override": "pickle's",
    "operation_host_error": "pyinfra's, of a callback",
    "operation_start": "pyinfra's, of a callback",
    "operation_host_start": "pyinfra's, of a callback",
    "operation_host_success": "pyinfra's, of a callback",
    "missing_host_key": "paramiko's, of a policy",
    "lifespan": "Starlette's",
    "factory": "logging's, of a record",
    "_new_conn": "urllib3's, of a connection pool",
    "closed_file": "the counterpart of a socket's makefile",
    **dict.fromkeys(
        ("fileno", "gettimeout", "makefile", "recv", "recv_raw", "sendall", "settimeout"),
        "a socket's",
    ),
    **dict.fromkeys(("readable", "readinto", "writable", "writelines"), "a file's"),
    "main": "the convention for a module that is run",
    **dict.fromkeys(
        ("on_host", "on_no_record", "on_record", "on_status", "on_support"),
        "a callback, as the libraries name theirs",
    ),
    "cli": "click's own name for what holds the commands",
    **dict.fromkeys(
        ("docker", "http", "link", "redactor", "script"), "gives the object of that name"
    ),
    "secret": "public: reporting.secret(value) says that a value is one",
}

#: Rejected words that stay in some files, and why.
STAY_THERE = {
    **{
        (f"ops/stackmend/{script}.sh", "work"): "its directory for what it makes on its way"
        for script in (
            *("compose/install", "compose/resolve", "engine/accelerators/describe"),
            *("engine/fetch", "engine/place"),
        )
    },
    ("deploy/stacks/ai/worker/app.py", "gather"): "asyncio's",
    ("ops/stackmend/compose/source.py", "tell"): "a file's",
    **{
        (f"ops/stackmend/ports/{module}.py", "settle"): "an argument of ports.free"
        for module in ("__init__", "spec", "reconciler")
    },
    **{
        (f"ops/stackmend/models/{module}.py", "wanted"): "a field of stack's models"
        for module in (
            *("__init__", "spec", "reconciler", "puller", "modelfiles"),
            *("plan/decide", "plan/space", "plan/stored", "plan/unmanaged"),
        )
    },
}


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """The functions and methods of a module, operations and properties left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if "property" not in decorators and "operation(" not in decorators:
                yield node.lineno, node.name


def is_named_by_a_verb(name: str) -> bool:
    first = name.strip("_").partition("_")[0]
    return (
        name.startswith("__")
        or name in STAY
        or first in VERBS
        or (first in BEGINNINGS and "_" in name.strip("_"))
    )


def test_functions_are_named_by_a_verb() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line}: {name}"
        for path in PYTHON
        for line, name in functions(path)
        if not is_named_by_a_verb(name)
    ]
    assert not found, "\n".join(found)
