"""The library speaks the field's words: none of those that were given up is an identifier."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]

#: The words that were given up, each with what is said instead.
REJECTED = {
    "wanted": "spec, desired",
    "given": "raw, options",
    "look": "observe, observation",
    "look_again": "observe",
    "Look": "Observation",
    "Reader": "Reconciler",
    "seen": "observed",
    "way_out": "remedy",
    "carry_out": "execute",
    "act_upon": "reconcile",
    "is_well": "is_converged",
    "prove": "verify",
    "judge": "verify, classify",
    "settle": "wait_until_stable",
    "patience": "timeout",
    "Failure": "StepError",
    "Failed": "StepError",
    "Passing": "TransientError",
    "Gone": "TransientError",
    "said": "output, message",
    "told": "message, reported",
    "tell": "report",
    "telling": "report",
    "Teller": "report",
    "masked": "redacted",
    "shown": "output, redacted",
    "stranger": "foreign",
    "verdict": "status",
    "begun": "partial",
    "Barrier": "Protection",
    "barred": "protected",
    "near": "suggest",
    "nearest": "suggest",
    "expect": "prefetch",
    "forget": "invalidate",
    "gather": "fetch_facts",
    "anew": "fresh",
    "ways_in": "auth_methods",
    "usable": "matching_identities",
    "Bringer": "Puller",
    "making": "ModelSource",
    "serves": "for_model",
    "one": "the noun: port, holder, service",
}

MODULES = sorted(
    path
    for directory in ("ops/stackmend", "deploy")
    for path in (PROJECT / directory).rglob("*.py")
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


def rejected(name: str) -> str:
    """What to say instead of a name; empty where it may stay."""
    return REJECTED.get(name.lstrip("_"), "")


def test_no_identifier_is_a_word_that_was_given_up() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line}: {name}: say {rejected(name)}"
        for path in MODULES
        for line, name in identifiers(path)
        if rejected(name) and (str(path.relative_to(PROJECT)), name) not in STAY_THERE
    ]
    assert not found, "\n".join(found)


#: What the name of a function may begin with.
VERBS = frozenset(
    """
    abbreviate accept act add admit advance allow anchor announce answer append apply arm armor
    arrange ask assemble assess attempt authenticate await beat begin bind bring build call
    carry cast change check choose claim classify clean clear close collect compare compile
    complain complete compose compress compute conclude configure confirm connect construct
    convert copy count create cut dearmor decide decode delay delete derive describe detect
    dial discard disconnect display do download draw drop dump emit encode end enter escape
    evaluate exchange execute exit expand expire explain extract fail feed fetch fill filter
    finalize find finish fit flatten flush follow forbid forecast format forward free generate
    get give group guard handle hash hide hint hold identify ignore include index install
    interpret invalidate iterate join keep kill learn leave let limit list load locate lock log
    make map mark match measure meet mend merge mount move name normalize note notice notify
    observe offer omit open operate order pack parse pass patch pause pick pin place plan
    predict prefer prefetch prepare preview print proceed process protect prune pull put query
    quicken quote raise rank read reap receive reconcile record recreate redact refresh refuse
    register relativize relay release remember remove rename render renew replace report
    request require rerun reserve reset resolve restart restore resume retag retire retry
    return reveal revert roll run save scan search select send separate set settle shorten show
    shut sign skip sort spawn split stage start step stop store strip style submit substitute
    subtract suggest sum summarize supply switch tag take test touch track transfer translate
    truncate trust try turn understand undo unlock unpack unquote unwrap update use validate
    verify wait walk warn watch work wrap write yield
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
    "operation_host_error": "pyinfra's, of a callback",
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
    "on_status": "a callback, as the libraries name theirs",
    **dict.fromkeys(
        ("docker", "http", "link", "redactor", "script"), "gives the object of that name"
    ),
    "secret": "public: reporting.secret(value) says that a value is one",
}

#: Rejected words that stay in some files, and why.
STAY_THERE = {
    ("deploy/stacks/ai/worker/app.py", "gather"): "asyncio's",
    ("ops/stackmend/basics/plan.py", "masked"): "systemd's, of a unit",
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
        for path in MODULES
        for line, name in functions(path)
        if not is_named_by_a_verb(name)
    ]
    assert not found, "\n".join(found)
