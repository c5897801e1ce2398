"""How much product code there is, by room: ``python -m tests.benchmarks.lines [REVISION …]``.

Counts the Python, sh and Perl below ``ops/`` and ``deploy/`` of each revision, all lines and those
that are neither empty, comment nor docstring.
"""

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path, PurePosixPath

PROJECT = Path(__file__).parents[2]

_SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def git(*arguments: str) -> str:
    """What git prints in this project."""
    return subprocess.run(
        ["git", "-C", PROJECT, *arguments], check=True, capture_output=True, text=True
    ).stdout


def count_python(text: str) -> int:
    """Lines of a Python module that are code."""
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {
        line
        for token in tokens
        if token.type not in _SILENT
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - documented)


def count_script(text: str) -> int:
    """Lines of a script that are code."""
    return sum(1 for line in map(str.strip, text.splitlines()) if line and line[0] != "#")


def find_room(path: PurePosixPath) -> str:
    """The room that a file belongs to."""
    parts = path.parts
    # Before it was a package of its own, the library was ops/ itself.
    inside = parts[2:] if parts[:2] == ("ops", "stackmend") else parts[1:]
    return "deploy" if parts[0] == "deploy" else inside[0] if len(inside) > 1 else "shared"


def count(revision: str) -> tuple[Counter[str], Counter[str]]:
    """Lines by room, and those of code."""
    lines: Counter[str] = Counter()
    code: Counter[str] = Counter()
    for name in git("ls-tree", "-r", "--name-only", revision, "ops", "deploy").splitlines():
        path = PurePosixPath(name)
        if path.suffix not in {".py", ".sh", ".pl"}:
            continue
        text, room = git("show", f"{revision}:{name}"), find_room(path)
        lines[room] += text.count("\n")
        code[room] += count_python(text) if path.suffix == ".py" else count_script(text)
    return lines, code


def main() -> None:
    """Print a table for each revision, the present one by default."""
    for revision in sys.argv[1:] or ["HEAD"]:
        lines, code = count(revision)
        print(f"{revision}: {lines.total()} lines, {code.total()} of them code")
        for room in sorted(lines):
            print(f"  {room:<12} {lines[room]:>6} {code[room]:>6}")


if __name__ == "__main__":
    main()
